"""Functions known by name. A target that is not known is an error that says which are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from hloc.errors import HloError
from hloc.host.custom_calls import (
    CustomFunction,
    call_python,
    config_text,
    registered,
    registered_targets,
)
from hloc.host.values import given_leaves, structured
from hloc.ir.annotating_calls import ANNOTATING_CALLS, PARTITIONED_CALLS
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.reference import lapack
from hloc.reference.context import Context
from hloc.reference.sort import greatest
from hloc.reference.values import TOKEN, Value, array_leaves, leaves_of, narrow, widest

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
    lower = config_text(instruction).split(",")[0] != "0"
    wide = widest(operands[0], instruction.operands[0].shape.dtype)
    values, vectors = np.linalg.eigh(wide, UPLO="L" if lower else "U")
    shapes = instruction.shape.elements
    return narrow(vectors, shapes[0].dtype), narrow(values, shapes[1].dtype)


SIZE_CHECK = "CheckedSize"
"""What the pass dynamic_padding writes: (size s32[], holds pred[]) -> s32[]."""


def checked_size(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The size; the run fails where it does not hold."""
    size, holds = operands
    if not holds:
        message = f"the live size {size} is out of its bounds, or does not fit the live elements"
        raise HloError(message, instruction.span)
    return size


_IDENTITIES = (*ANNOTATING_CALLS, *PARTITIONED_CALLS, "xla.sdy.GlobalToLocalShape", "xla.sdy.LocalToGlobalShape")

TARGETS: dict[str, CustomCall] = {
    **dict.fromkeys(_IDENTITIES, identity),
    SIZE_CHECK: checked_size,
    "Eigh": eigh,
    "ProductOfElementaryHouseholderReflectors": householder_product,
    "Qr": qr,
    "TopK": top_k,
}


def custom_call(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    target = instruction.get("custom_call_target")
    custom = registered(target)
    if custom is not None:
        return _registered_call(custom, instruction, operands)
    found = TARGETS.get(target) or lapack.find(target)
    if found is None:
        raise unknown_target(instruction)
    return found(instruction, operands, context)


def unknown_target(instruction: Instruction) -> HloError:
    """The error about a target that nobody knows: it says which are known."""
    target = instruction.get("custom_call_target")
    if "callback" in target:
        return HloError(
            f"{target} calls back into the Python process that made the program: it isn't here",
            instruction.span,
            hint="hloc.register_custom_call may put another function in its place",
        )
    known = ", ".join([*TARGETS, *lapack.known_targets(), *registered_targets()])
    hint = f"known are {known}; hloc.register_custom_call adds others"
    return HloError(f"unknown custom-call target {target!r}", instruction.span, hint=hint)


def _registered_call(custom: CustomFunction, instruction: Instruction, operands: list[Value]) -> Value:
    config = config_text(instruction)
    shape = instruction.shape
    if custom.kind == "python":
        value = call_python(custom, [_frozen(operand) for operand in operands], config)
        leaves = given_leaves(f'the function of custom call "{custom.target}"', value, shape)
    else:
        leaves = _c_call(custom, instruction, operands, config)
    return structured(shape, iter(leaves), TOKEN)


def _frozen(value: Value) -> Value:
    """Read-only views."""
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    return value


def _c_call(
    custom: CustomFunction, instruction: Instruction, operands: list[Value], config: str
) -> list[np.ndarray]:
    """Calls a C function with arrays in the layouts that it expects."""
    constraints = instruction.get("operand_layout_constraints")
    shapes = constraints or [operand.shape for operand in instruction.operands]
    layouts = [leaf for shape in shapes for leaf in array_leaves(shape)]
    ins = [_laid_out(leaf, shape) for leaf, shape in zip(leaves_of(tuple(operands)), layouts, strict=True)]
    results = array_leaves(instruction.shape)
    outs = [_laid_out(np.zeros(shape.dims, shape.dtype.numpy), shape) for shape in results]
    tables = [
        (ctypes.c_void_p * max(1, len(arrays)))(*[array.ctypes.data for array in arrays])
        for arrays in (outs, ins)
    ]
    text, status = config.encode(), ctypes.c_int32(0)
    types = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    function = ctypes.CFUNCTYPE(None, *types)(custom.address)
    function(*tables, text, len(text), ctypes.addressof(status))
    if status.value:
        message = f'the function of custom call "{custom.target}" said that it failed'
        raise HloError(message, instruction.span)
    pairs = zip(outs, results, strict=True)
    return [array.transpose(np.argsort(shape.minor_to_major[::-1])) for array, shape in pairs]


def _laid_out(array: np.ndarray, shape: ArrayShape) -> np.ndarray:
    """The elements in the order in which they lie in memory."""
    return np.ascontiguousarray(array.transpose(shape.minor_to_major[::-1])).reshape(
        [shape.dims[d] for d in shape.minor_to_major[::-1]]
    )


TABLE: dict[str, Callable] = {"custom-call": custom_call}
