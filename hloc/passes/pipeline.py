"""The pipelines, as tables to read aloud: which pass runs when, and why there.

`PASSES` are the passes by name, `PIPELINES` the orders in which they run, `ORDER` what must come before what.
A pass is an object with `run(module) -> bool`; it only transforms. The runner does all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from hloc.errors import HloError, InternalError
from hloc.ir.module import Module
from hloc.ir.opcodes import COLLECTIVE, OPS
from hloc.ir.shapes import Shape
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.report import PassRun, Remark, Report
from hloc.passes.rows import FixedPoint, Pass, Row, having
from hloc.passes.runner import EVERY, Group, Observer, Runner, Step

__all__ = [
    "ORDER",
    "PASSES",
    "PIPELINES",
    "InternalError",
    "PassRun",
    "Remark",
    "Report",
    "run_pipeline",
]


difflib = lazy("difflib")
plugins = lazy("hloc.passes.plugins")

NO_PASSES: Mapping[str, Pass] = MappingProxyType({})

_FOLDING = (("result_bytes", "fold_result_bytes"), ("work", "fold_work"), ("seconds", "fold_seconds"))
_UNROLLING = (("instructions", "unroll_instructions"), ("growth", "unroll_growth"))
_FUSION = (
    *(("instructions", "fusion_instructions"), ("operands", "fusion_operands")),
    ("explain", "explain_fusion"),
)

_OF_DEVICES = ("partition-id", "replica-id", *(name for name, op in OPS.items() if op.has(COLLECTIVE)))
_SLICED = ("dynamic-slice", "dynamic-update-slice")
_STARTS = having("send", "recv", *(name for name in OPS if name.endswith("-start")))
_OF_SIZES = having("dynamic-reshape", "get-dimension-size", "set-dimension-size")


def _has_sizes(module: Module) -> bool:
    """Whether a module has dynamic dimensions, or ops that ask for their sizes."""
    return any(leaf.dynamic for shape in _shapes(module) for _, leaf in shape.leaves()) or _OF_SIZES(module)


def _has_empty_arrays(module: Module) -> bool:
    return any(shape.is_array and 0 in shape.dims for shape in _shapes(module))


def _has_threads(module: Module) -> bool:
    return _STARTS(module) or any(computation.execution_thread != "main" for computation in module)


def _has_vectors_of_starts(module: Module) -> bool:
    """Whether a dynamic slice or update has all its starts in one operand, its last, as older programs have it."""
    return any(i.opcode in _SLICED and i.operands[-1].shape.rank == 1 for i in module.instructions())


def _has_control_edges(module: Module) -> bool:
    return any(i.control_predecessors for computation in module for i in computation.instructions)


def _shapes(module: Module) -> Iterable[Shape]:
    """The shapes of all instructions; one that many share once."""
    return {id(i.shape): i.shape for computation in module for i in computation.instructions}.values()


PASSES: dict[str, Pass] = {
    row.name: row
    for row in (
        Pass("manual_partitioning", concerns=having("custom-call")),
        Pass("linalg_calls", concerns=having("custom-call")),
        Pass("async_to_sync", concerns=_has_threads),
        Pass("collective_simplifier", concerns=having(*_OF_DEVICES)),
        Pass("sharding_removal"),
        Pass("defusion", concerns=having("fusion")),
        Pass("control_edges", concerns=_has_control_edges),
        Pass("dynamic_padding", concerns=_has_sizes),
        Pass("scan_expander", concerns=having("scan")),
        Pass("call_inliner", "call_inliner:CallInliner", (("growth", "inline_growth"),), having("call")),
        Pass("layout_removal"),
        Pass("start_splitter", concerns=_has_vectors_of_starts),
        Pass("map_inliner", concerns=having("map")),
        Pass("rng_expander", concerns=having("rng")),
        Pass("batch_norm_expander", concerns=having(*(name for name in OPS if name.startswith("batch-norm")))),
        Pass("shuffle_expander", concerns=having("shuffle")),
        Pass("topk_expander", concerns=having("custom-call", "topk")),
        Pass("scaled_dot_expander", concerns=having("scaled-dot")),
        Pass("ragged_dot_expander", concerns=having("ragged-dot")),
        Pass("zero_sized", concerns=_has_empty_arrays),
        Pass("tuple_simplifier", concerns=having("get-tuple-element")),
        Pass("dead_arguments", concerns=having("call")),
        Pass("while_simplifier", concerns=having("while")),
        Pass("induction_simplifier", concerns=having("while")),
        Pass("while_constant_sinking", concerns=having("while")),
        Pass("loop_invariant_code_motion", concerns=having("while")),
        Pass("conditional_simplifier", concerns=having("conditional")),
        Pass("collective_slices", concerns=having("all-gather", "all-reduce")),
        Pass(
            "collective_combiner",
            "collective_combiner:CollectiveCombiner",
            concerns=having("all-gather", "all-reduce", "reduce-scatter"),
        ),
        Pass("while_unroller", "while_unroller:WhileUnroller", _UNROLLING, having("while")),
        Pass("algebraic", "algebraic.simplifier:AlgebraicSimplifier"),
        Pass("constant_folding", "constant_folding:ConstantFolding", _FOLDING),
        Pass("cse"),
        Pass("dce"),
        Pass("layout_assignment"),
        Pass("operand_packing", concerns=having("while")),
        Pass(
            "attention_gradient_fusion",
            "attention_gradient_fusion:AttentionGradientFusion",
            _FUSION,
            having("dot"),
        ),
        Pass("attention_fusion", "attention_fusion:AttentionFusion", _FUSION, having("dot")),
        Pass("softmax_attention_fusion", "attention_fusion:SoftmaxAttentionFusion", _FUSION, having("dot")),
        Pass("row_fusion", "row_fusion:RowFusion", _FUSION, having("reduce")),
        Pass("fusion", "fusion:Fusion", _FUSION),
        Pass("horizontal_fusion", "horizontal_fusion:HorizontalFusion", _FUSION[:2]),
        Pass("barrier_removal", concerns=having("opt-barrier")),
        Pass("bitcast_marking"),
        Pass("schedule"),
    )
}


_PREPARATION: tuple[Row, ...] = (
    (
        "manual_partitioning",
        "first of all, while the borders of manual regions and the mesh are as JAX wrote them",
    ),
    ("linalg_calls", "into calls of LAPACK, ops and loops, of which all that follows knows"),
    ("async_to_sync", "makes calls of async computations, for call_inliner"),
    (
        "collective_simplifier",
        "after partitioning, which says how many devices there are, and without async pairs",
    ),
    ("sharding_removal", "after partitioning nothing is left that a sharding could say"),
    ("defusion", "what is one kernel is decided here, not by the program that made the text"),
    ("control_edges", "edges that other compilers left keep equal instructions apart and loops from fusing"),
    ("dce", "bodies of fusions and async calls would be carried through all that follows"),
    (
        "dynamic_padding",
        "fusions and async pairs are gone; no other pass needs to think of sizes that are not known",
    ),
    ("scan_expander", "makes calls, for call_inliner"),
)

_EXPANSION: tuple[Row, ...] = (
    (
        "layout_removal",
        "all that follows may forget about layouts; bitcasts need those of the text, so it comes early",
    ),
    ("start_splitter", "the rules look at the start of each dimension"),
    ("map_inliner", "after call_inliner, since a map of a call is left alone"),
    ("rng_expander", "into rng-bit-generator, which has a kernel"),
    ("batch_norm_expander", "into sums and elementwise ops, which fuse"),
    ("shuffle_expander", "into slices and gathers, which fuse"),
    ("topk_expander", "into topk or sort, which have kernels"),
    ("scaled_dot_expander", "into dot, which has a kernel"),
    ("ragged_dot_expander", "into dot, which has a kernel"),
    ("zero_sized", "no kernel needs to think of reducing nothing"),
)

_CLEAN_UP = FixedPoint(
    (
        ("call_inliner", "of conditionals that were decided"),
        ("tuple_simplifier", "lets the rules see the values behind tuples"),
        ("while_simplifier", "after tuple_simplifier, which shows what a state is made of"),
        ("while_constant_sinking", "lets the rules see constants that loops carry"),
        ("induction_simplifier", "after sinking, which shows the limits of loops"),
        ("loop_invariant_code_motion", "after sinking, so that constants alone are not what it moves"),
        ("conditional_simplifier", "before the rules, which see the selects and calls that it leaves"),
        ("algebraic", "fewer and simpler ops"),
        ("constant_folding", "what the rules have made constant"),
        ("collective_simplifier", "again, of what folding has made known"),
        ("collective_slices", "after folding, which makes tables of the devices' places"),
        ("cse", "after folding, which makes equal constants"),
        ("dce", "what the others left behind"),
        ("dead_arguments", "of calls that were too many to inline"),
        ("while_unroller", "last, so that each turn is a copy of a simple body"),
    ),
    "each makes work for the others",
)

PIPELINES: dict[str, tuple[Row, ...]] = {
    "cpu": (
        *_PREPARATION,
        ("call_inliner", "rules and fusion see across calls only when they are gone"),
        *_EXPANSION,
        ("cse", "constants and index arithmetic of what was called: nothing after it needs to look at them twice"),
        ("dce", "again for what was called"),
        _CLEAN_UP,
        ("collective_combiner", "when nothing is left that a single collective could be simplified into"),
        (
            "layout_assignment",
            "after all rules: they would undo copies, and make arrays without thought of layouts",
        ),
        ("operand_packing", "once it is known how arrays lie"),
        ("cse", "equal copies for several users, and equal panels for several loops"),
        ("barrier_removal", "kernels may go across, once nothing is merged or moved any more"),
        ("attention_gradient_fusion", "before attention_fusion, which it leaves scores that nobody else needs"),
        ("attention_fusion", "before its softmax becomes a kernel of its own"),
        (
            "row_fusion",
            "before fusion, which would put what lies between reduces into kernels of their own",
        ),
        (
            "fusion",
            "into kernels; last of what changes values, so that no kernel has to be taken apart again",
        ),
        ("horizontal_fusion", "what fusion has left apart, as long as a call costs more than the work"),
        (
            "bitcast_marking",
            "after fusion, which would rather have a reshape inside of a loop than a bitcast",
        ),
        ("dce", "computations that are in kernels now"),
        ("schedule", "the order to run in, last"),
    ),
    "none": (
        *_PREPARATION,
        *_EXPANSION,
        ("layout_assignment", "code generation needs a layout everywhere"),
        ("dce", "computations that nobody calls need not compile"),
        ("schedule", "the order to run in, last"),
    ),
}
_OF_GPUS: dict[str, Row | None] = {
    "operand_packing": None,
    "attention_gradient_fusion": None,
    "attention_fusion": ("softmax_attention_fusion", "before its softmax becomes a kernel of its own"),
}
_REPLACED = (_OF_GPUS.get(row[0], row) if isinstance(row, tuple) else row for row in PIPELINES["cpu"])
PIPELINES["gpu"] = tuple(filter(None, _REPLACED))
"""`cpu` is what the CPU backend runs, `gpu` what devices run; `none` only what they cannot do without."""

ORDER: tuple[tuple[str, str, str], ...] = (
    ("manual_partitioning", "sharding_removal", "the removal refuses what should have been partitioned"),
    ("manual_partitioning", "call_inliner", "manual regions are calls until their borders are gone"),
    ("manual_partitioning", "collective_simplifier", "the mesh says how many devices there are"),
    ("async_to_sync", "collective_simplifier", "a start is no collective that it knows"),
    ("async_to_sync", "call_inliner", "an async-start becomes a call"),
    ("defusion", "dynamic_padding", "it has no rule for fusions"),
    ("async_to_sync", "dynamic_padding", "it has no rule for asynchronous pairs"),
    ("dynamic_padding", "scan_expander", "expanders make arrays without thought of live sizes"),
    ("scan_expander", "call_inliner", "a scan's loop calls its computation"),
    ("defusion", "layout_removal", "bitcasts inside of fusions go too"),
    ("call_inliner", "map_inliner", "a map of a call is left alone"),
    ("while_simplifier", "while_constant_sinking", "it leaves loops alone that are not in explicit form"),
    ("while_simplifier", "induction_simplifier", "it leaves loops alone that are not in explicit form"),
    ("while_simplifier", "loop_invariant_code_motion", "it leaves loops alone that are not in explicit form"),
    ("collective_slices", "collective_combiner", "it looks at collectives of one operand"),
    ("dynamic_padding", "conditional_simplifier", "it moves arrays without thought of live sizes"),
    ("dynamic_padding", "while_simplifier", "it moves arrays without thought of live sizes"),
    ("layout_removal", "algebraic", "rules make row-major arrays"),
    ("layout_removal", "start_splitter", "it makes row-major arrays"),
    ("start_splitter", "algebraic", "rules look at the start of each dimension"),
    ("layout_removal", "layout_assignment", "bitcasts need the layouts of the text"),
    ("algebraic", "layout_assignment", "rules would undo copies between layouts"),
    ("layout_assignment", "fusion", "whether a reshape is free is seen from layouts"),
    ("layout_assignment", "row_fusion", "whether a row's elements are neighbours is seen from layouts"),
    ("layout_assignment", "attention_fusion", "products are read where they lie"),
    ("loop_invariant_code_motion", "operand_packing", "what is multiplied in front of a loop is none of its products"),
    ("layout_assignment", "operand_packing", "it would give panels another layout, rather than to make them"),
    ("operand_packing", "fusion", "products have other operands and results after it"),
    ("layout_assignment", "attention_gradient_fusion", "products are read where they lie"),
    ("attention_gradient_fusion", "attention_fusion", "scores that gradients need are in no attention's kernel"),
    ("attention_fusion", "row_fusion", "it would take the softmax out of the attention"),
    ("attention_fusion", "fusion", "it would take the products' operands and results elsewhere"),
    ("layout_assignment", "softmax_attention_fusion", "products are read where they lie"),
    ("softmax_attention_fusion", "row_fusion", "it would take the softmax out of the attention"),
    ("softmax_attention_fusion", "fusion", "it would take the products' operands and results elsewhere"),
    ("row_fusion", "fusion", "fusion takes reduces, and what goes between them, apart from each other"),
    ("defusion", "fusion", "it would take the kernels apart again"),
    ("cse", "barrier_removal", "it would merge what is computed twice on purpose"),
    ("barrier_removal", "fusion", "a barrier is in no kernel"),
    ("fusion", "horizontal_fusion", "kernels side by side could not grow any more"),
    ("horizontal_fusion", "bitcast_marking", "a bitcast is no loop"),
    ("fusion", "bitcast_marking", "a bitcast does not go into a loop"),
    ("fusion", "schedule", "fusions change the order"),
)
"""(earlier, later, why): no `earlier` may run after a `later` in a pipeline that has both."""


def run_pipeline(
    module: Module,
    pipeline: str | Sequence[str],
    options: Options | None = None,
    observer: Observer | None = None,
) -> Report:
    """Run the passes of a pipeline over a module, and verify after each that changed it.

    `pipeline` is a name of PIPELINES, or passes by name: a list, or a text separated by commas; a pass's own
    options stand in braces, `fusion{instructions=20}`. `observer(run, module)` is called after each pass.
    Of `options` count `load`, `disabled_passes`, `until`, `print_after`, the dump, and the budgets of the passes.

    Raises HloError for an unknown name, and where a pass refuses the program; InternalError where a pass
    fails, breaks the module, or claims a change that is none.
    """
    options = options or Options()
    own = own_passes(options.load)
    for name in (*options.disabled_passes, *options.print_after, *filter(None, [options.until])):
        if name != EVERY and not name.isdecimal():
            find_pass(name, own)
    steps = plan(pipeline, own)
    if options.until and not options.until.isdecimal() and options.until not in _names_of(steps):
        raise HloError(f"pass {options.until} is not among those to run, so there is no stopping after it")
    return Runner(module, options, observer).run(steps)


def _names_of(rows: Iterable[Step | Group]) -> set[str]:
    return {step.name for row in rows for step in (row.steps if isinstance(row, Group) else (row,))}


def own_passes(load: Sequence[object]) -> Mapping[str, Pass]:
    """The passes that `Options.load` brings in, by name; HloError if a name is that of one of hloc's."""
    own = plugins.load_all(load) if load else NO_PASSES
    for row in own.values():
        if row.name in PASSES or row.name in PIPELINES:
            raise HloError(f"pass {row.name} of {row.origin} has the name of one of hloc's own")
    return own


_PLANS: dict[str, tuple[tuple[Row, ...], list[Step | Group]]] = {}
"""Pipelines of PIPELINES, their rows with the steps."""


def plan(pipeline: str | Sequence[str], own: Mapping[str, Pass] = NO_PASSES) -> list[Step | Group]:
    """The steps of a pipeline; a named one has the passes of others, `own`, at the places that they ask for.

    ValueError if a pipeline of PIPELINES breaks ORDER.
    """
    if isinstance(pipeline, str) and pipeline in PIPELINES:
        rows = PIPELINES[pipeline]
        if own:
            check_order([name for name, _ in flattened(rows)])
            return [_planned(row, own) for row in plugins.place(rows, own.values(), pipeline)]
        known, steps = _PLANS.get(pipeline, (None, []))
        if known is not rows:
            check_order([name for name, _ in flattened(rows)])
            steps = [_planned(row, own) for row in rows]
            _PLANS[pipeline] = rows, steps
        return steps
    names = _split(pipeline) if isinstance(pipeline, str) else list(pipeline)
    return [_step(name, own) for name in names]


def _planned(row: Row, own: Mapping[str, Pass]) -> Step | Group:
    if isinstance(row, FixedPoint):
        return Group(tuple(_step(name, own) for name, _ in row.rows), row.limit)
    return _step(row[0], own)


def flattened(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """The rows with those of fixed points in their place."""
    return [inner for row in rows for inner in (row.rows if isinstance(row, FixedPoint) else (row,))]


def check_order(names: Sequence[str]) -> None:
    """ValueError if passes in this order break a row of ORDER."""
    for earlier, later, why in ORDER:
        places = [place for place, name in enumerate(names) if name == earlier]
        if later in names and places and places[0] > names.index(later):
            raise ValueError(f"{earlier} comes after {later}: {why}")


def _split(text: str) -> list[str]:
    """The names in `a,b{x=1,y=2},c`."""
    names, depth = [""], 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            names.append("")
        else:
            names[-1] += char
    return [name.strip() for name in names if name.strip()]


def find_pass(name: str, own: Mapping[str, Pass] = NO_PASSES) -> Pass:
    """A pass by name: hloc's, one of `own`, or one of an installed package. HloError if there is none."""
    found = PASSES.get(name) or own.get(name)
    if found is None:
        installed = plugins.installed()
        if name in installed:
            return installed[name]()
        close = difflib.get_close_matches(name, [*PASSES, *PIPELINES, *own, *installed], 1)
        raise HloError(
            f"there is no pass or pipeline named {name}", hint=f"did you mean {close[0]}?" if close else None
        )
    return found


def _step(text: str, own: Mapping[str, Pass]) -> Step:
    """A pass with its options, from text."""
    name, brace, rest = text.partition("{")
    row = find_pass(name, own)
    given = row.options_in(rest.removesuffix("}")) if brace else {}
    make: Callable[[Options], object] = lambda options: row.make(options, given)  # noqa: E731
    return Step(name, text, make, row.concerns, row.origin)
