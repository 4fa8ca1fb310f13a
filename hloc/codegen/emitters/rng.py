"""Random bits by Threefry-2x32 and Philox-4x32.

The generators are those of Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011). Counters
and the order of the results are XLA's, bit for bit (rows X25, X26).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.loops import delinearize, linear, row_major_strides
from hloc.codegen.program import CONTEXT_FIELDS
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple

_THREEFRY_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_THREEFRY_PARITY = 0x1BD11BDA
_PHILOX_FACTORS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def _i32(number: int) -> Value:
    return integer("i32", number)


def _halves(b: Builder, value: Value) -> tuple[Value, Value]:
    """The low and the high 32 bits of an i64."""
    return b.trunc(value, "i32"), b.trunc(b.lshr(value, i64(32)), "i32")


def _joined(b: Builder, low: Value, high: Value) -> Value:
    return b.or_(b.zext(low, "i64"), b.shl(b.zext(high, "i64"), i64(32)))


def threefry(b: Builder, key: tuple[Value, Value], counter: tuple[Value, Value]) -> tuple[Value, Value]:
    """Threefry-2x32 with 20 rounds, on i32 values."""
    keys = [*key, b.xor(b.xor(key[0], key[1]), _i32(_THREEFRY_PARITY))]
    x, y = b.add(counter[0], keys[0]), b.add(counter[1], keys[1])
    for group in range(5):
        for distance in _THREEFRY_ROTATIONS[group % 2]:
            x = b.add(x, y)
            y = b.xor(x, b.intrinsic("llvm.fshl", "i32", [y, y, _i32(distance)]))
        x = b.add(x, keys[(group + 1) % 3])
        y = b.add(b.add(y, keys[(group + 2) % 3]), _i32(group + 1))
    return x, y


def philox(b: Builder, key: tuple[Value, Value], counter: Sequence[Value]) -> list[Value]:
    """Philox-4x32 with 10 rounds, on i32 values."""
    words, keys = list(counter), list(key)
    for _ in range(10):
        products = [
            b.mul(b.zext(word, "i64"), i64(factor))
            for word, factor in zip((words[0], words[2]), _PHILOX_FACTORS, strict=True)
        ]
        (low0, high0), (low1, high1) = (_halves(b, product) for product in products)
        words = [b.xor(b.xor(high1, words[1]), keys[0]), low1, b.xor(b.xor(high0, words[3]), keys[1]), low0]
        keys = [b.add(one, _i32(step)) for one, step in zip(keys, _PHILOX_KEY_STEPS, strict=True)]
    return words


class Draws(NamedTuple):
    """Independent parts of the bits: `one(index)` for every index of a space of `dims`, and `rest()`, store them all.

    `state` is the generator's state behind them.
    """

    dims: Sequence[int]
    one: Callable[[Index], None]
    rest: Callable[[], None] | None
    state: list[Value]


@kernel("rng-bit-generator", element_operands="none")
def rng_bit_generator(k: KernelContext, instruction: Instruction) -> None:
    draws = draws_of(k, instruction)
    k.loop_nest(draws.dims, draws.one)
    if draws.rest is not None:
        draws.rest()
    for position, value in enumerate(draws.state):
        k.outputs[0].store((i64(position),), value)


def draws_of(k: KernelContext, instruction: Instruction) -> Draws:
    """What an rng-bit-generator does, of which the state is operand 0."""
    bits = k.outputs[1].shape
    if bits.dtype.is_complex:
        raise k.error(f"rng-bit-generator of {bits!r}: complex numbers have no random bits")
    state = [k.input_array(0).load((i64(i),)) for i in range(k.outputs[0].shape.count)]
    if instruction.attributes["algorithm"] == "rng_three_fry":
        return _threefry_draws(k, state)
    return _philox_draws(k, state)


def _store_bits(b: Builder, output: ArrayRef, index: Index, value: Value) -> None:
    """Stores random bits, the lowest ones of `value`, as an element of any type of their width or less."""
    width = f"i{max(8, output.shape.dtype.bits)}"
    bits = b.trunc(value, width)
    if output.shape.dtype.bits < 8:
        bits = b.and_(bits, integer(width, (1 << output.shape.dtype.bits) - 1))
    b.store(bits, b.gep(width, output.pointer, output.offset(index)))


# Threefry


def _threefry_draws(k: KernelContext, state: list[Value]) -> Draws:
    """One counter an element of 64 bits; below, one for two neighbours along a dimension."""
    b, output = k.b, k.outputs[1]
    key = _halves(b, state[0])
    shape = output.shape
    if shape.dtype.bits == 64:

        def wide(index: Index) -> None:
            counter = b.add(state[1], linear(b, index, shape.dims, row_major_strides(shape.dims)))
            _store_bits(b, output, index, _joined(b, *threefry(b, key, _halves(b, counter))))

        return Draws(shape.dims, wide, None, [state[0], b.add(state[1], i64(shape.count))])
    dims = list(shape.dims) or [1]
    split = _split_dimension(dims)
    halves = [*dims[:split], -(-dims[split] // 2), *dims[split + 1 :]]
    count = 1
    for size in halves:
        count *= size

    def pair(index: Index) -> None:
        counter = b.add(state[1], linear(b, index, halves, row_major_strides(halves)))
        first, second = threefry(b, key, _halves(b, counter))
        even = b.shl(index[split], i64(1))
        places = [(*index[:split], b.add(even, i64(odd)), *index[split + 1 :]) for odd in (0, 1)]
        _store_bits(b, output, places[0][: shape.rank], first)
        with b.if_then(b.icmp_signed("<", places[1][split], i64(dims[split]))):
            _store_bits(b, output, places[1][: shape.rank], second)

    return Draws(halves, pair, None, [state[0], b.add(state[1], i64(count))])


def _split_dimension(dims: Sequence[int]) -> int:
    """The dimension along which neighbours share a counter: the first even one, else the first longest."""
    even = [dimension for dimension, size in enumerate(dims) if size % 2 == 0]
    return even[0] if even else max(range(len(dims)), key=lambda dimension: dims[dimension])


# Philox


def _philox_draws(k: KernelContext, state: list[Value]) -> Draws:
    """A counter of 128 bits gives four elements of 32 bits (or less), or two of 64, in row-major order.

    A state of two words is (key, low half of the counter), the key being the counter's high half too.
    """
    b, output = k.b, k.outputs[1]
    low, high = (state[1], state[2]) if len(state) > 2 else (state[1], state[0])
    key, shape = _halves(b, state[0]), output.shape
    together = 2 if shape.dtype.bits == 64 else 4

    def group(number: Value, count: int) -> None:
        words = philox(b, key, [*_halves(b, b.add(low, number)), *_halves(b, _carried(b, low, high, number))])
        values = [_joined(b, *words[:2]), _joined(b, *words[2:])] if together == 2 else words
        start = b.mul(number, i64(together))
        for offset, value in enumerate(values[:count]):
            index = delinearize(b, b.add(start, i64(offset)), shape.dims)
            _store_bits(b, output, tuple(index), value)

    whole, rest = divmod(shape.count, together)
    used = i64(-(-shape.count // together))
    after = [b.add(low, used), _carried(b, low, high, used)]
    return Draws(
        [whole],
        lambda index: group(index[0], together),
        (lambda: group(i64(whole), rest)) if rest else None,
        [state[0], *(after if len(state) > 2 else after[:1])],
    )


def _carried(b: Builder, low: Value, high: Value, number: Value) -> Value:
    """The high half of (high, low) + number."""
    overflow = b.icmp_unsigned("<", b.add(low, number), low)
    return b.add(high, b.zext(overflow, "i64"))


# The device's own state


@kernel("rng-get-and-update-state")
def rng_get_and_update_state(k: KernelContext, instruction: Instruction) -> None:
    """The device's state, 128 bits with the low half first, before `delta` is added to it."""
    update_state(k, instruction)


def update_state(k: KernelContext, instruction: Instruction) -> None:
    """What an rng-get-and-update-state does."""
    b = k.b
    field = b.gep("i64", k.context, i64(CONTEXT_FIELDS.index("rng_state")))
    state = b.load(k.context.type, field)
    low, high = b.load("i64", state), b.load("i64", b.gep("i64", state, i64(1)))
    delta = i64(instruction.attributes["delta"])
    b.store(b.add(low, delta), state)
    b.store(_carried(b, low, high, delta), b.gep("i64", state, i64(1)))
    for position, value in enumerate((low, high)):
        k.outputs[0].store((i64(position),), value)
