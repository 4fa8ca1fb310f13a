"""A pass of one's own: one costly function where there were two. To see what it does:

    hloc opt FILE --load samples/passes/strength_reduction.py --remarks=strength_reduction
    hloc run FILE --random --check --load samples/passes/strength_reduction.py

log(x) + log(y) = log(x * y), and its like, is true of positive numbers, not of floats: the last bits differ, x * y may
overflow, and of two negative numbers it is NaN no more. hloc itself keeps from that; those who know their numbers
need not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hloc.passes.api import Emit, Instruction, Module, Remark, Rewriter, bind, compiler_pass, match, one_use, op

X, Y = bind("x"), bind("y")

JOINED = {  # outer op: the function of both sides, and what joins the operands of that
    "add": (("log", "multiply"),),
    "subtract": (("log", "divide"),),
    "multiply": (("sqrt", "multiply"),),
    "divide": (("sqrt", "divide"),),
}


@compiler_pass(name="strength_reduction", after="algebraic")
@dataclass
class StrengthReduction:
    """Takes one logarithm or square root where there were two.

    log(x) + log(y) becomes log(x * y), sqrt(x) * sqrt(y) becomes sqrt(x * y); differences and quotients alike. Only of
    real floats, and only where nothing else uses the two: the new one would come on top of them.

    Requires: nothing; layouts are row-major until layout_assignment.
    Ensures: no such product, quotient, sum or difference.
    Leaves: nothing.
    """

    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, module: Module) -> int:
        rewriter = Rewriter({outer: [self.join] for outer in JOINED})
        rewriter.run(module)
        return rewriter.fired.total()

    def join(self, instruction: Instruction) -> Instruction | None:
        """f(x) o f(y) = f(x . y)"""
        if not instruction.shape.dtype.is_float:
            return None
        for function, inner in JOINED[instruction.opcode]:
            both = op(instruction.opcode, one_use(op(function, X)), one_use(op(function, Y)))
            found = match(instruction, both)
            if found is not None:
                emit = Emit.at(instruction)
                text = f"{instruction.opcode} of two {function} is now {function} of one {inner}"
                self.remarks.append(Remark("strength_reduction", instruction.name, text))
                return emit.map(function, emit.map(inner, found["x"], found["y"]))
        return None
