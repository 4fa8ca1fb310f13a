"""Shape rules of tuples, constants, tokens, random numbers, and of talking to the outside."""

from __future__ import annotations

from hloc.ir.dtypes import U32, U64
from hloc.ir.shape_rules.common import ANY, BITS, FLOATS, NUMBERS, Site, compatible, make_array
from hloc.ir.shapes import TOKEN_SHAPE, UNBOUNDED, ArrayShape, Shape, TupleShape

_INTEGER_OR_FLOAT = BITS | FLOATS
# Custom calls that only say something of their operand.
_IDENTITIES = frozenset(
    {"Sharding", "LayoutConstraint", "MoveToHost", "MoveToDevice", "annotate_device_placement"}
)
# Shapes are walked by recursion in many places.
_MOST_NESTED = 64


def given(site: Site) -> Shape:
    """As declared: parameters, constants, custom calls, infeeds."""
    check = _GIVEN.get(site.opcode)
    if check is not None:
        check(site)
    return site.result()


def _constant(site: Site) -> None:
    literal = site.attributes.get("literal")
    if literal is None:
        raise site.error("ATTRIBUTE_C1", "the attribute literal is missing")
    if site.declared is not None and not compatible(site.declared, literal.shape):
        raise site.error("CONSTANT_C1", f"its literal is {literal.shape!r}, declared is {site.declared!r}")


def _custom_call(site: Site) -> None:
    is_identity = site.get("custom_call_target") in _IDENTITIES and len(site.shapes) == 1
    if is_identity and not compatible(site.result(), site.shapes[0]):
        raise site.error(
            "CUSTOM_CALL_C3", f"{site.name(0)} is {site.shapes[0]!r}, its result {site.result()!r}"
        )
    constraints = site.attributes.get("operand_layout_constraints")
    if constraints is None:
        return
    if len(constraints) != len(site.shapes):
        raise site.error(
            "CUSTOM_CALL_C1", f"{len(constraints)} operand_layout_constraints for {len(site.shapes)} operands"
        )
    for number, (constraint, shape) in enumerate(zip(constraints, site.shapes, strict=True)):
        if not compatible(constraint, shape):
            raise site.error(
                "CUSTOM_CALL_C2", f"{site.name(number)} is {shape!r}, its layout constraint {constraint!r}"
            )


def _infeed(site: Site) -> None:
    site.token(0)
    result = site.result()
    if not isinstance(result, TupleShape) or len(result.elements) != 2 or not result.elements[1].is_token:
        raise site.error("INFEED_C1", f"its result is {result!r}, expected (data, token[])")


def _random_state(site: Site) -> None:
    if site.declared is not None and not compatible(site.declared, make_array(U64, (2,))):
        raise site.error("SHAPE_C1", f"its result is {site.declared!r}, expected u64[2]")


_GIVEN = {
    "constant": _constant,
    "custom-call": _custom_call,
    "infeed": _infeed,
    "rng-get-and-update-state": _random_state,
}


def iota(site: Site) -> Shape:
    result = site.result_array()
    dimension = site.get("iota_dimension")
    if not 0 <= dimension < result.rank:
        raise site.error(
            "DIMENSIONS_C1", f"iota_dimension={dimension} is not a dimension of the result {result!r}"
        )
    if result.dtype.kind not in NUMBERS:
        raise site.error(
            "TYPE_C1", f"its result is {result!r}, expected an integer, float or complex element type"
        )
    return result


def tuple_(site: Site) -> Shape:
    whole = TupleShape(tuple(site.shapes))
    if _depth(whole) > _MOST_NESTED:
        raise site.error("TUPLE_C2", f"tuples nest deeper than {_MOST_NESTED}")
    return whole


def _depth(shape: TupleShape) -> int:
    """How many tuples lie in each other; level by level, so depth has no limit here."""
    depth, level = 0, [shape]
    while level:
        depth += 1
        level = [inner for outer in level for inner in outer.elements if isinstance(inner, TupleShape)]
    return depth


def get_tuple_element(site: Site) -> Shape:
    shape, index = site.tuple(0), site.get("index")
    if not 0 <= index < len(shape.elements):
        count = len(shape.elements)
        raise site.error(
            "GET_TUPLE_ELEMENT_C1",
            f"index={index}, but {site.name(0)} has {count} element{'' if count == 1 else 's'}: {shape!r}",
        )
    return shape.elements[index]


def same_shape(site: Site) -> Shape:
    return site.shapes[0]


def token(site: Site) -> Shape:
    """after-all, send-done and outfeed end in a token."""
    if site.opcode == "after-all":
        for number in range(len(site.shapes)):
            site.token(number)
    elif site.opcode == "outfeed":
        site.token(1)
        whole = site.get("outfeed_shape")
        if whole is not None and not compatible(whole, site.shapes[0]):
            raise site.error(
                "OUTFEED_C1", f"outfeed_shape is {whole!r}, but {site.name(0)} is {site.shapes[0]!r}"
            )
    elif site.opcode == "send-done":
        _transfer(site)
    return TOKEN_SHAPE


def first_operand(site: Site) -> Shape:
    if site.opcode == "add-dependency":
        site.token(1)
    return site.shapes[0]


def u32_scalar(site: Site) -> Shape:
    return ArrayShape(U32)


def copy_start(site: Site) -> Shape:
    """(destination, source, context); the layouts of the two may differ in where they lie."""
    shape = site.shapes[0]
    return TupleShape((shape, shape, ArrayShape(U32)))


def copy_done(site: Site) -> Shape:
    pair = site.tuple(0, 2)
    if not compatible(pair.elements[0], pair.elements[1]):
        raise site.error("COPY_DONE_C1", f"{site.name(0)} is {pair!r}: destination and source differ")
    return pair.elements[0]


def send(site: Site) -> Shape:
    site.token(1)
    return TupleShape((site.shapes[0], ArrayShape(U32), TOKEN_SHAPE))


def recv(site: Site) -> Shape:
    """(data, u32[], token[]) with the declared data."""
    site.token(0)
    return TupleShape((site.result_tuple(3).elements[0], ArrayShape(U32), TOKEN_SHAPE))


def recv_done(site: Site) -> Shape:
    return TupleShape((_transfer(site).elements[0], TOKEN_SHAPE))


def _transfer(site: Site) -> TupleShape:
    """The operand that a send or recv began: (data, u32[], token[])."""
    begun = site.tuple(0, 3)
    if len(begun.elements) != 3 or not begun.elements[2].is_token:
        raise site.error("TRANSFER_C1", f"{site.name(0)} is {begun!r}, expected (data, u32[], token[])")
    return begun


def rng(site: Site) -> Shape:
    """As declared; the operands are two scalars of its element type (bounds, or mean and deviation)."""
    result = site.result_array()
    if len(site.shapes) != 2:
        raise site.error("RNG_C1", f"{len(site.shapes)} operands, expected 2")
    kinds = FLOATS if site.get("distribution") == "rng_normal" else _INTEGER_OR_FLOAT
    first = site.scalar(0, ANY)
    site.scalar(1, ANY)
    site.same_type(1)
    if first.dtype.kind not in kinds:
        raise site.error(
            "RNG_C2", f"{site.get('distribution')} has no numbers of the type {first.dtype.name}"
        )
    return result.with_dtype(first.dtype)


def _check_state(site: Site, state: ArrayShape) -> None:
    """A state is a key and a counter, of 64 bits each; those of Philox may be 128 bits."""
    algorithm = site.get("algorithm")
    words = (2,) if algorithm == "rng_three_fry" else (2, 3)
    bits = state.count * state.dtype.bits
    if UNBOUNDED not in state.dims and bits not in [64 * count for count in words]:
        expected = " or ".join(f"u64[{count}]" for count in words)
        raise site.error("RNG_C4", f"{site.name(0)} is {state!r}, expected a state of {expected} for {algorithm}")


def rng_bit_generator(site: Site) -> Shape:
    """(new state, bits), the bits as declared; or the bits alone."""
    _check_state(site, site.array(0))
    result = site.result()
    if result.is_array:
        return result
    bits = site.result_tuple(2).elements[1]
    if not bits.is_array or bits.dtype.kind not in BITS:  # type: ignore[attr-defined]
        raise site.error("RNG_C3", f"its bits are {bits!r}, expected an array of integers")
    return TupleShape((site.array(0), bits))
