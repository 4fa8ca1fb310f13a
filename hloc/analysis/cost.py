"""Rough costs of ops, in units of one simple vector instruction on one element."""

from __future__ import annotations

from math import prod

from hloc.ir.instruction import Instruction

WEIGHTS: dict[str, float] = {
    **dict.fromkeys(("parameter", "constant", "broadcast", "iota", "reshape", "bitcast", "copy", "slice"), 0),
    **dict.fromkeys(("transpose", "reverse", "real", "imag", "complex", "bitcast-convert"), 1),
    **dict.fromkeys(
        ("pad", "dynamic-slice", "concatenate", "clamp", "sign", "is-finite", "reduce-precision"), 2
    ),
    **dict.fromkeys(("gather", "popcnt", "count-leading-zeros", "stochastic-convert"), 4),
    **dict.fromkeys(("divide", "sqrt", "rsqrt"), 8),
    **dict.fromkeys(("exponential", "exponential-minus-one", "logistic", "tanh", "cbrt", "remainder"), 20),
    **dict.fromkeys(("log", "log-plus-one", "erf", "sine", "cosine", "tan", "sinh", "cosh"), 20),
    **dict.fromkeys(("power", "atan2", "atan", "asin", "acos", "asinh", "acosh", "atanh"), 40),
}
"""Work for one element of the result; 1 for any other elementwise op."""


def weight(instruction: Instruction) -> float:
    """Work for one element of the result of an elementwise or data-moving op."""
    found = WEIGHTS.get(instruction.opcode, 1)
    return 4 * found if instruction.shape.is_array and instruction.shape.dtype.is_complex else found


def work(instruction: Instruction) -> float:
    """Scalar operations of the whole op, called computations counted as one operation an element."""
    shape = instruction.shape
    results = shape.count if shape.is_array else sum(leaf.count for _, leaf in shape.leaves() if leaf.is_array)
    operands = [operand.shape for operand in instruction.operands if operand.shape.is_array]
    opcode = instruction.opcode
    if opcode in ("dot", "ragged-dot", "scaled-dot"):
        contracting = instruction.get("lhs_contracting_dims")
        return 2 * results * prod(operands[0].dims[d] for d in contracting)
    if opcode == "convolution":
        labels = instruction.attributes["dim_labels"]
        return 2 * results * operands[1].count / max(1, operands[1].dims[labels.kernel_output_feature])
    if opcode in ("reduce-window", "select-and-scatter"):
        window = instruction.get("window")
        return results * prod(dim.size for dim in window.dims) if window is not None else results
    largest = max([shape.count for shape in operands], default=0)
    if opcode in ("sort", "fft", "cholesky", "triangular-solve"):
        return 64 * max(largest, results)
    if opcode in ("slice", "dynamic-slice", "gather"):
        largest = 0
    return max(1.0, weight(instruction)) * max(largest, results)
