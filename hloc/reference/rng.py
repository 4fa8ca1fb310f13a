"""Random numbers: the counter-based generators bit for bit as XLA has them (X25, X26), and `rng` by its
distribution.

Threefry-2x32 and Philox-4x32 are those of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
(2011).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.errors import HloError
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.values import from_unsigned, narrow

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(
    key: tuple[np.uint32, np.uint32], x0: np.ndarray, x1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds on arrays of u32."""
    keys = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(turn)) | (x1 >> np.uint32(32 - turn))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def philox(key: tuple[np.uint64, np.uint64], counter: list[np.ndarray]) -> list[np.ndarray]:
    """Philox-4x32 with 10 rounds; words are u64 arrays below 2^32."""
    k0, k1 = key
    x0, x1, x2, x3 = counter
    for _ in range(10):
        p0, p1 = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (p1 >> _WORD) ^ x1 ^ k0, p1 & _LOW, (p0 >> _WORD) ^ x3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return [x0, x1, x2, x3]


def bit_generator(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    """(new state, bits). The state is the key, and a counter in one more u64 or two."""
    shape = instruction.shape.elements[1]
    state = operands[0].astype(np.uint64)
    if operands[0].dtype == np.uint32:
        state = np.ascontiguousarray(operands[0]).view(np.uint64)
    width = 64 if shape.dtype.bits == 64 else 32
    generate = _threefry_bits if instruction.get("algorithm") == "rng_three_fry" else _philox_bits
    new_state, bits = generate(state, shape.dims, width)
    new_state = new_state.view(operands[0].dtype)
    return new_state, np.asarray(_of_type(bits, shape.dtype))


def _of_type(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """The low bits of each number as values of an integer type, or of the float type that has them."""
    kept = bits if dtype.bits >= bits.itemsize * 8 else bits & bits.dtype.type((1 << dtype.bits) - 1)
    return from_unsigned(kept, dtype)


def _threefry_bits(state: np.ndarray, dims: tuple[int, ...], width: int) -> tuple[np.ndarray, np.ndarray]:
    """One counter a u64, or one for two u32, which lie next to each other along one halved dimension.

    That is the first dimension of even size, or else the largest.
    """
    key = (np.uint32(state[0] & _LOW), np.uint32(state[0] >> _WORD))
    sizes = list(dims) or [1]
    split = next((d for d, size in enumerate(sizes) if size % 2 == 0), sizes.index(max(sizes)))
    halves = list(sizes)
    if width == 32:
        halves[split] = -(-sizes[split] // 2)
    count = prod(halves)
    counters = state[1] + np.arange(count, dtype=np.uint64)
    words = threefry(key, (counters & _LOW).astype(np.uint32), (counters >> _WORD).astype(np.uint32))
    new_state = np.array([state[0], state[1] + np.uint64(count)], np.uint64)
    if width == 64:
        return new_state, (words[0].astype(np.uint64) | (words[1].astype(np.uint64) << _WORD)).reshape(dims)
    pairs = np.stack([word.reshape(halves) for word in words], axis=split + 1)
    joined = pairs.reshape([*halves[:split], 2 * halves[split], *halves[split + 1 :]])
    return new_state, joined[(slice(None),) * split + (slice(0, sizes[split]),)].reshape(dims)


def _philox_bits(state: np.ndarray, dims: tuple[int, ...], width: int) -> tuple[np.ndarray, np.ndarray]:
    """A 128-bit counter for every four words of u32. With no high half in the state, the key stands there."""
    count = prod(dims)
    blocks = -(-count * width // 128)
    high = state[2] if state.size > 2 else state[0]
    low = state[1] + np.arange(blocks, dtype=np.uint64)
    carried = high + (low < state[1]).astype(np.uint64)
    counter = [low & _LOW, low >> _WORD, carried & _LOW, carried >> _WORD]
    words = np.stack(philox((state[0] & _LOW, state[0] >> _WORD), counter), axis=-1)
    end = (int(state[1]) | int(high) << 64) + blocks
    new_state = np.array([state[0], end % (1 << 64), (end >> 64) % (1 << 64)][: state.size], np.uint64)
    if width == 32:
        return new_state, words.reshape(-1)[:count].astype(np.uint32).reshape(dims)
    joined = words[:, 0::2] | (words[:, 1::2] << _WORD)
    return new_state, joined.reshape(-1)[:count].reshape(dims)


def rng(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Uniform in [first, second), or normal of that mean and deviation, by the run's seed (X32)."""
    shape, (first, second) = instruction.shape, operands
    dtype = shape.dtype
    if instruction.get("distribution") == "rng_normal":
        drawn = context.random.standard_normal(shape.dims) * second.astype(np.float64) + first.astype(
            np.float64
        )
        return narrow(drawn, dtype)
    if dtype.is_float:
        low, high = first.astype(np.float64), second.astype(np.float64)
        drawn = narrow(low + context.random.random(shape.dims) * (high - low), dtype)
        return np.where(drawn >= second, first, drawn)  # rounding may reach the end
    if dtype.kind == "predicate":
        return context.random.integers(0, 2, shape.dims).astype(bool)
    if not dtype.is_integer:
        raise HloError(f"rng of {dtype.name} is not defined", instruction.span)
    low, high = int(first), int(second)
    if high <= low:
        return np.broadcast_to(first, shape.dims)
    kind = np.int64 if dtype.is_signed else np.uint64
    return np.asarray(context.random.integers(low, high, shape.dims, dtype=kind)).astype(dtype.numpy)


def get_and_update_state(
    instruction: Instruction, operands: list[np.ndarray], context: Context
) -> np.ndarray:
    """The 128-bit state as (high, low) u64, which then advances by `delta`."""
    state = context.random_state
    context.random_state = (state + instruction.get("delta")) % (1 << 128)
    return np.array([state >> 64, state % (1 << 64)], np.uint64).reshape(instruction.shape.dims)


TABLE: dict[str, Callable] = {
    "rng": rng,
    "rng-bit-generator": bit_generator,
    "rng-get-and-update-state": get_and_update_state,
}
