"""Shape rules of the ops that work element by element.

None of them broadcasts, but the predicate of a select and the bounds of a clamp may be scalars.
"""

from __future__ import annotations

from hloc.ir.dtypes import C64, C128, F32, F64, PRED, SIGNED, UNSIGNED
from hloc.ir.shape_rules.common import (
    ANY,
    BITS,
    FLOAT_OR_COMPLEX,
    FLOATS,
    INTEGERS,
    NUMBERS,
    PREDICATES,
    REALS,
    SIGNED_NUMBERS,
    UNSIGNEDS,
    Site,
    check_parameters,
    dynamic_flags,
    make_array,
    scalar_shape,
    signature,
)
from hloc.ir.shapes import UNBOUNDED, ArrayShape, Shape

_REAL_MATH = frozenset({"cbrt", "erf"})
_ON_PRED = frozenset({"add", "multiply", "maximum", "minimum"})


def merged(one: ArrayShape, other: ArrayShape) -> ArrayShape:
    """The shape of two agreeing operands: bounds win over unbounded sizes, dynamic ones over static ones."""
    if one.dims == other.dims and (not other.dynamic or one.dynamic == other.dynamic):
        return one
    dims, dynamic = [], []
    for a, b, a_moves, b_moves in zip(
        one.dims, other.dims, dynamic_flags(one), dynamic_flags(other), strict=True
    ):
        bounded = b if a == UNBOUNDED else a
        dims.append(bounded)
        dynamic.append(
            b_moves if a == UNBOUNDED != b else a_moves if b == UNBOUNDED != a else a_moves or b_moves
        )
    return ArrayShape(one.dtype, tuple(dims), one.layout, tuple(dynamic) if any(dynamic) else ())


def unary_math(site: Site) -> Shape:
    _check_accuracy(site)
    return site.typed(0, FLOATS if site.opcode in _REAL_MATH else FLOAT_OR_COMPLEX)


def _check_accuracy(site: Site) -> None:
    accuracy = site.attributes.get("result_accuracy")
    if accuracy is None:
        return
    if accuracy.mode not in (None, "default", "highest"):
        raise site.error(
            "ACCURACY_C1", f"result_accuracy has the mode {accuracy.mode}, expected default or highest"
        )
    for field in ("atol", "rtol", "ulps"):
        value = getattr(accuracy, field)
        if value is not None and not value >= 0:
            raise site.error(
                "ACCURACY_C1", f"result_accuracy has {field}={value}, expected no negative tolerance"
            )


def unary_float(site: Site) -> Shape:
    shape = site.typed(0, FLOATS)
    if site.opcode == "reduce-precision":
        exponent, mantissa = site.get("exponent_bits"), site.get("mantissa_bits")
        if exponent < 1 or mantissa < 0:
            raise site.error(
                "REDUCE_PRECISION_C1",
                f"exponent_bits={exponent}, mantissa_bits={mantissa}, expected at least 1 and 0",
            )
    return shape


def unary_integer(site: Site) -> Shape:
    return site.typed(0, INTEGERS)


def unary_bits(site: Site) -> Shape:
    return site.typed(0, BITS)


def unary_numeric(site: Site) -> Shape:
    return site.typed(0, SIGNED_NUMBERS if site.opcode == "sign" else NUMBERS)


def absolute(site: Site) -> Shape:
    shape = site.typed(0, SIGNED_NUMBERS)
    return shape.with_dtype(shape.dtype.real_part)


def complex_part(site: Site) -> Shape:
    shape = site.typed(0, FLOAT_OR_COMPLEX)
    return shape.with_dtype(shape.dtype.real_part)


def is_finite(site: Site) -> Shape:
    return site.typed(0, FLOATS).with_dtype(PRED)


def convert(site: Site) -> Shape:
    """The operand's dimensions; the element type is the declared one."""
    return site.array(0).with_dtype(site.result_array().dtype)


def stochastic_convert(site: Site) -> Shape:
    operand, random = site.typed(0, FLOATS), site.typed(1, UNSIGNEDS)
    site.same_dims(1)
    if operand.dtype.bits != random.dtype.bits:
        raise site.error(
            "STOCHASTIC_CONVERT_C1",
            f"{site.name(1)} is {random!r}, expected random numbers of {operand.dtype.bits} bits",
        )
    return operand.with_dtype(site.result_array().dtype)


def _binary(site: Site, kinds: frozenset[str]) -> ArrayShape:
    one, other = site.typed(0, kinds), site.typed(1, kinds)
    if one.dtype is not other.dtype:
        site.same_type(1)
    if one.dims != other.dims:
        site.same_dims(1)
    return merged(one, other)


def binary(site: Site) -> Shape:
    if site.opcode == "remainder":
        return _binary(site, REALS)
    return _binary(site, ANY if site.opcode in _ON_PRED else NUMBERS)


def binary_integer(site: Site) -> Shape:
    return _binary(site, INTEGERS)


def binary_bits(site: Site) -> Shape:
    return _binary(site, BITS)


def binary_float(site: Site) -> Shape:
    return _binary(site, FLOAT_OR_COMPLEX)


def complex_number(site: Site) -> Shape:
    shape = _binary(site, FLOATS)
    whole = {F32: C64, F64: C128}.get(shape.dtype)
    if whole is None:
        raise site.error("COMPLEX_C1", f"{site.name(0)} is {shape!r}, expected f32 or f64 parts")
    return shape.with_dtype(whole)


def compare(site: Site) -> Shape:
    shape = _binary(site, ANY)
    _check_comparison_type(site, shape)
    return shape.with_dtype(PRED)


def _check_comparison_type(site: Site, shape: ArrayShape) -> None:
    kind = site.attributes.get("type")
    if kind is None:
        return
    dtype = shape.dtype
    if dtype.is_float or dtype.is_complex:
        allowed = ("FLOAT", "TOTALORDER") if dtype.is_float else ("FLOAT",)
    else:
        allowed = {SIGNED: ("SIGNED",), UNSIGNED: ("UNSIGNED",)}.get(dtype.kind, ("UNSIGNED",))
    if kind not in allowed:
        raise site.error(
            "COMPARE_C1", f"type={kind} does not compare {dtype.name}, expected {' or '.join(allowed)}"
        )


def select(site: Site) -> Shape:
    predicate, on_true, on_false = site.typed(0, PREDICATES), site.array(1), site.array(2)
    site.same_type(2, 1)
    site.same_dims(2, 1)
    if predicate.dims:
        site.same_dims(0, 1)
    shape = merged(on_true, on_false)
    if not predicate.dims:
        return shape
    return merged(predicate, shape).with_dtype(shape.dtype)


def clamp(site: Site) -> Shape:
    shape = site.typed(1, ANY)
    for bound in (0, 2):
        site.same_type(bound, 1)
        if site.array(bound).dims:
            site.same_dims(bound, 1)
    return shape


def map_(site: Site) -> Shape:
    """Of the operands' dimensions, and the element type that the computation returns."""
    shapes = [site.array(number) for number in range(len(site.shapes))]
    for number in range(1, len(shapes)):
        site.same_dims(number)
    dimensions = site.get("dimensions")
    if dimensions and dimensions != tuple(range(shapes[0].rank)):
        raise site.error("MAP_C1", f"dimensions must be all {shapes[0].rank} dimensions in order")
    computation = site.get("to_apply")
    check_parameters(site, computation, [scalar_shape(shape.dtype) for shape in shapes], "to_apply")
    result = signature(site, computation)[1]
    if not isinstance(result, ArrayShape) or not result.is_array or result.dims:
        raise site.error("CALLED_C3", f"to_apply %{computation.name} returns {result!r}, expected a scalar")
    shape = shapes[0]
    for other in shapes[1:]:
        shape = merged(shape, other)
    return make_array(result.dtype, shape.dims, shape.dynamic)
