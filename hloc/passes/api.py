"""For those who write passes of their own: everything that such a pass needs, under one name.

A pass is a function that changes a module in place and returns whether it did (or how many rewrites it made):

    from hloc.passes.api import Emit, Module, Rewriter, bind, compiler_pass, match, op

    X, Y = bind("x"), bind("y")
    PRODUCT = op("multiply", op("exponential", X), op("exponential", Y))

    def join_exponentials(instruction):
        found = match(instruction, PRODUCT)
        if found is None:
            return None
        emit = Emit.at(instruction)
        return emit.map("exponential", emit.map("add", found["x"], found["y"]))

    @compiler_pass(after="algebraic")
    def exponentials(module: Module) -> bool:
        \"\"\"Takes one exponential where there were two.\"\"\"
        return Rewriter({"multiply": [join_exponentials]}).run(module)

**Rules.** A rule looks at one instruction and gives what may stand in its place (an operand, or something new in front
of it), or None, without having added anything. `Rewriter` tries rules, by opcode, until none fires, and removes what
loses its last user. `match` and the patterns say what an instruction must look like; `Emit` writes new instructions.

**Other passes** walk the module themselves: `for computation in call_order(module.entry): for instruction in
computation: ...`, which allows for removing the instruction at hand. Edits go through `replace`, `Emit` and the
methods of `Computation` (`add`, `replace_uses`, `remove`); `Effects` tells what must stay where it is.

**Its place.** `after="cse"` or `before="fusion"` puts the pass next to that one wherever a pipeline runs by name, in
each round if that is in a fixed point. Until `layout_assignment` arrays have no layouts but row-major.

**Options and remarks.** A dataclass with a method `run` is a pass too: its fields are options, as in
`--passes='mine{limit=3}'`; with a list `remarks` it may tell what it decided (see `Remark`).

**Use.** `hloc opt FILE --load mine.py`, and `run` and `emit` alike; `hloc.Options(load=("mine.py",))`, or with the
function itself in place of the file. A package offers passes to every hloc beside it by entry points:

    [project.entry-points."hloc.passes"]
    exponentials = "my_package.passes:exponentials"

Then `--passes=exponentials` finds it, `--load exponentials` puts it at its place, `hloc opt --list-passes` lists it.

After each run the module is verified, and the claim to have changed it or not is checked: what fails is told with the
pass's name and file, and leaves a file that repeats it.
"""

from hloc.analysis.effects import Effects
from hloc.errors import HloError
from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import ArrayShape, Layout, Shape, TupleShape, array
from hloc.passes.emit import Emit, replace
from hloc.passes.patterns import (
    Pattern,
    bind,
    constant,
    has_one_use,
    is_splat,
    match,
    one_use,
    op,
    scalar_source,
    splat,
    splat_value,
    unknown,
    where,
)
from hloc.passes.plugins import compiler_pass
from hloc.passes.report import Remark
from hloc.passes.rewriter import Rewriter, Rule, remove_unused

__all__ = [
    "ArrayShape",
    "Computation",
    "Effects",
    "Emit",
    "HloError",
    "Instruction",
    "Layout",
    "Literal",
    "Module",
    "PadDim",
    "Pattern",
    "Remark",
    "Rewriter",
    "Rule",
    "Shape",
    "SliceDim",
    "TupleShape",
    "array",
    "bind",
    "call_order",
    "compiler_pass",
    "constant",
    "has_one_use",
    "is_splat",
    "match",
    "one_use",
    "op",
    "remove_unused",
    "replace",
    "scalar_source",
    "splat",
    "splat_value",
    "unknown",
    "where",
]
