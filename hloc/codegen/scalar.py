"""The table of scalar instructions: what each elementwise opcode is, for each kind of element type.

`emit` is the one door. How values live in registers and memory is told in `scalar_types`, whose loads,
stores and constants, with `convert`, are offered from here too. Operands may be vectors of registers where
they are scalars below: all functions are generic over the LLVM type, except that no op mixes the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hloc.codegen.llvm import Builder, Value, const
from hloc.ir.dtypes import COMPLEX, F32, F64, FLOAT, PREDICATE, SIGNED, UNSIGNED, DType

from .scalar_complex import COMPLEXES
from .scalar_convert import (
    bitcast_convert,
    compare,
    convert,
    from_order_key,
    order_key,
    reduce_precision,
    stochastic_convert,
)
from .scalar_float import FLOATS, is_finite
from .scalar_integer import INTEGERS, PREDICATES
from .scalar_types import (
    Register,
    constant,
    from_bits,
    load,
    load_element,
    memory_size,
    memory_type,
    narrow,
    register_type,
    store,
    store_element,
    to_bits,
    widen,
    zero,
)

__all__ = [
    "TABLE",
    "Register",
    "UnsupportedScalar",
    "constant",
    "convert",
    "emit",
    "from_bits",
    "from_order_key",
    "is_supported",
    "load",
    "load_element",
    "memory_size",
    "memory_type",
    "narrow",
    "order_key",
    "register_type",
    "store",
    "store_element",
    "to_bits",
    "widen",
    "zero",
]

Emitter = Callable[[Builder, Sequence[Register], Sequence[DType], DType, Mapping], Register]
"""emitter(builder, operands, their element types, the result's element type, attributes)."""


class UnsupportedScalar(LookupError):
    """No scalar instruction for this opcode and element type; the caller knows the place in the text."""

    def __init__(self, opcode: str, dtype: DType):
        super().__init__(f"{opcode} of {dtype} is not defined")
        self.opcode = opcode
        self.dtype = dtype


def _of_float(function: Callable) -> Emitter:
    """Arithmetic of floats: in f32 or f64, the result rounded to the type that all operands have too."""

    def run(b, operands, dtypes, result, attributes):
        if result is F32 or result is F64:
            return function(b, *operands)
        return narrow(b, result, function(b, *[widen(b, result, operand) for operand in operands]))

    return run


def _of_dtype(function: Callable) -> Emitter:
    """Functions of the element type and the operands."""

    def run(b, operands, dtypes, result, attributes):
        return function(b, dtypes[0], *operands)

    return run


def _with_sign_bit(change: Callable[[Builder, Value, Value], Value]) -> Emitter:
    """A change of the sign bit alone, on the encoding: NaN and subnormal numbers keep their other bits."""

    def run(b, operands, dtypes, result, attributes):
        dtype, value = dtypes[0], operands[0]
        bits = to_bits(b, dtype, value)
        changed = change(b, bits, const(bits.type, 1 << (dtype.bits - 1)))
        if dtype.name.endswith("fnuz"):  # the code of negative zero is NaN
            special = b.icmp_signed("==", b.and_(bits, const(bits.type, 0x7F)), const(bits.type, 0))
            changed = b.select(special, bits, changed)
        return from_bits(b, dtype, changed)

    return run


_flip_sign = _with_sign_bit(lambda b, bits, sign: b.xor(bits, sign))
_clear_sign = _with_sign_bit(lambda b, bits, sign: b.and_(bits, b.not_(sign)))


def _negate(b, operands, dtypes, result, attributes):
    if dtypes[0].name == "f8e8m0fnu":  # has no sign: all but NaN becomes NaN
        return const(operands[0].type, 0xFF)
    return _flip_sign(b, operands, dtypes, result, attributes)


def _absolute(b, operands, dtypes, result, attributes):
    if dtypes[0].name == "f8e8m0fnu":
        return operands[0]
    return _with_sign_bit(lambda b, bits, sign: b.and_(bits, b.not_(sign)))(
        b, operands, dtypes, result, attributes
    )


def _is_finite(b, operands, dtypes, result, attributes):
    return is_finite(b, widen(b, dtypes[0], operands[0]))


def _compare(b, operands, dtypes, result, attributes):
    return compare(b, dtypes[0], *operands, attributes)


def _convert(b, operands, dtypes, result, attributes):
    return convert(b, operands[0], dtypes[0], result)


def _bitcast_convert(b, operands, dtypes, result, attributes):
    if dtypes[0].bits != result.bits or dtypes[0].bits == 128:
        raise UnsupportedScalar("bitcast-convert", dtypes[0])
    return bitcast_convert(b, operands[0], dtypes[0], result)


def _select(b, operands, dtypes, result, attributes):
    condition, yes, no = operands
    if result.is_complex:
        return tuple(b.select(condition, *pair) for pair in zip(yes, no, strict=True))
    return b.select(condition, yes, no)


def _copy(b, operands, dtypes, result, attributes):
    return operands[0]


def _real(b, operands, dtypes, result, attributes):
    return operands[0][0] if dtypes[0].is_complex else operands[0]


def _imag(b, operands, dtypes, result, attributes):
    return operands[0][1] if dtypes[0].is_complex else const(operands[0].type, 0)


def _complex(b, operands, dtypes, result, attributes):
    return operands[0], operands[1]


def _reduce_precision(b, operands, dtypes, result, attributes):
    return reduce_precision(
        b, dtypes[0], operands[0], attributes["exponent_bits"], attributes["mantissa_bits"]
    )


def _stochastic_convert(b, operands, dtypes, result, attributes):
    return stochastic_convert(b, *operands, dtypes[0], result)


_ALL = (PREDICATE, SIGNED, UNSIGNED, FLOAT, COMPLEX)

TABLE: dict[str, dict[str, Emitter]] = {}
"""opcode -> kind of the deciding operand (select: of the result) -> emitter."""


def _enter(kinds: Sequence[str], rows: Mapping[str, Emitter]) -> None:
    for opcode, emitter in rows.items():
        for kind in kinds:
            TABLE.setdefault(opcode, {})[kind] = emitter


_enter((PREDICATE,), {opcode: _of_dtype(function) for opcode, function in PREDICATES.items()})
_enter((SIGNED, UNSIGNED), {opcode: _of_dtype(function) for opcode, function in INTEGERS.items()})
_enter((FLOAT,), {opcode: _of_float(function) for opcode, function in FLOATS.items()})
_enter((COMPLEX,), {opcode: _of_dtype(function) for opcode, function in COMPLEXES.items()})
_enter((FLOAT,), {"abs": _absolute, "negate": _negate, "is-finite": _is_finite})
_enter((FLOAT,), {"reduce-precision": _reduce_precision, "stochastic-convert": _stochastic_convert})
_enter((FLOAT,), {"real": _real, "imag": _imag, "complex": _complex})
_enter((COMPLEX,), {"real": _real, "imag": _imag})
_enter(_ALL, {"compare": _compare, "convert": _convert, "bitcast-convert": _bitcast_convert})
_enter(_ALL, {"select": _select, "copy": _copy})


def is_supported(opcode: str, dtype: DType) -> bool:
    """Whether `emit` takes the opcode for operands of this type (of select: its second)."""
    return dtype.kind in TABLE.get(opcode, {})


def emit(
    b: Builder,
    opcode: str,
    operands: Sequence[Register],
    dtypes: Sequence[DType],
    result: DType,
    attributes: Mapping = {},
) -> Register:
    """One element of an elementwise op. UnsupportedScalar if HLO does not define it for the type."""
    dtype = result if opcode == "select" else dtypes[0]
    emitter = TABLE.get(opcode, {}).get(dtype.kind)
    if emitter is None:
        raise UnsupportedScalar(opcode, dtype)
    return emitter(b, operands, dtypes, result, attributes)
