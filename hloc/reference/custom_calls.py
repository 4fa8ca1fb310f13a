"""Functions known by name. A target that is not known is an error that says which are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.reference import lapack
from hloc.reference.context import Context
from hloc.reference.sort import greatest
from hloc.reference.values import Value, narrow, widest

CustomCall = Callable[[Instruction, list[Value], Context], Value]


def identity(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    """Annotations: of where a value lives or how it is split, which changes nothing on one device."""
    wanted = [leaf.dims for _, leaf in instruction.shape.leaves()]
    given = [leaf.dims for operand in instruction.operands for _, leaf in operand.shape.leaves()]
    if wanted != given:
        target = instruction.get("custom_call_target")
        raise HloError(
            f"{target} here splits a value over devices: that takes the pass that makes it local",
            instruction.span,
        )
    return (
        tuple(operands) if instruction.shape.is_tuple and not isinstance(operands[0], tuple) else operands[0]
    )


def top_k(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    """k is the size of the result; the greatest come first, unless the comparator says the least do."""
    values, indices = instruction.shape.elements
    called = instruction.called
    largest = not called or called[0].root.get("direction") != "LT"
    chosen, order = greatest(operands[0], instruction.operands[0].shape.dtype, values.dims[-1], largest)
    return chosen, order.astype(indices.dtype.numpy)


def qr(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    """(packed reflectors and triangle, factors of the reflectors), as LAPACK's geqrf packs them."""
    packed = np.array(widest(operands[0], instruction.operands[0].shape.dtype))
    rows, columns = packed.shape[-2:]
    factors = np.zeros((*packed.shape[:-2], min(rows, columns)), packed.dtype)
    for index in np.ndindex(packed.shape[:-2]):
        for j in range(min(rows, columns)):
            factors[(*index, j)] = _reflect(packed[index], j)
    shapes = instruction.shape.elements
    return narrow(packed, shapes[0].dtype), narrow(factors, shapes[1].dtype)


def _reflect(a: np.ndarray, j: int) -> complex:
    """Turn column j of `a` into R's and apply the reflector to the columns behind; gives its factor."""
    alpha, below = a[j, j], a[j + 1 :, j]
    norm = np.sqrt(abs(alpha) ** 2 + np.vdot(below, below).real)
    if not below.any() and np.imag(alpha) == 0:
        return 0.0
    beta = -np.copysign(norm, alpha.real)
    tau = (beta - alpha) / beta
    vector = np.r_[1.0, below / (alpha - beta)]
    a[j, j], a[j + 1 :, j] = beta, vector[1:]
    rest = a[j:, j + 1 :]
    rest -= np.conj(tau) * np.outer(vector, vector.conj() @ rest)
    return tau


def householder_product(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The first columns of the product of the reflectors that `qr` packs."""
    packed, factors = (widest(x, source.shape.dtype) for x, source in zip(operands, instruction.operands))
    result = np.zeros(instruction.shape.dims, packed.dtype)
    rows, columns = result.shape[-2:]
    for index in np.ndindex(packed.shape[:-2]):
        product = np.eye(rows, columns, dtype=packed.dtype)
        for j in range(factors.shape[-1] - 1, -1, -1):
            vector = np.r_[np.zeros(j), 1.0, packed[index][j + 1 :, j]]
            product -= factors[(*index, j)] * np.outer(vector, vector.conj() @ product)
        result[index] = product
    return narrow(result, instruction.shape.dtype)


def eigh(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    """(eigenvectors, eigenvalues) of a symmetric matrix, ascending.

    The first number of the configuration says whether the lower triangle is read.
    """
    config = instruction.annotations.get("backend_config")
    lower = str(getattr(config, "text", config) or "1").strip('"').split(",")[0] != "0"
    wide = widest(operands[0], instruction.operands[0].shape.dtype)
    values, vectors = np.linalg.eigh(wide, UPLO="L" if lower else "U")
    shapes = instruction.shape.elements
    return narrow(vectors, shapes[0].dtype), narrow(values, shapes[1].dtype)


_IDENTITIES = (
    "LayoutConstraint",
    "MoveToDevice",
    "MoveToHost",
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "annotate_device_placement",
    "xla.sdy.FuncResultSharding",
    "xla.sdy.GlobalToLocalShape",
    "xla.sdy.LocalToGlobalShape",
    "xla.sdy.ShardingGroup",
)

TARGETS: dict[str, CustomCall] = {
    **dict.fromkeys(_IDENTITIES, identity),
    "Eigh": eigh,
    "ProductOfElementaryHouseholderReflectors": householder_product,
    "Qr": qr,
    "TopK": top_k,
}


def custom_call(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    target = instruction.get("custom_call_target")
    found = TARGETS.get(target) or lapack.find(target)
    if found is not None:
        return found(instruction, operands, context)
    if "callback" in target:
        raise HloError(
            f"{target} calls back into the Python process that made the program: it isn't here",
            instruction.span,
        )
    known = ", ".join([*TARGETS, *lapack.known_targets()])
    raise HloError(f"unknown custom-call target {target!r}", instruction.span, hint=f"known are {known}")


TABLE: dict[str, Callable] = {"custom-call": custom_call}
