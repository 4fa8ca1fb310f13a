"""Products of warpgroups on the emulator: operands and sums as the PTX ISA manual lays them out, and what goes wrong.

The operands of single products are put into shared memory by hand, in an order that is written out here.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from emulated_kernels import Prepared, Thread, i32, i64
from test_emulator_checks import only
from test_emulator_tiles import ARCH, _nothing

from hloc.codegen.gpu.group_products import ATOM_BYTES, group_product
from hloc.codegen.llvm import Value, const, integer
from hloc.errors import HloError

Write = Callable[[Thread], object]

DTYPES = {
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float32, "s8": np.int8, "u8": np.uint8,
    "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "f32": np.float32, "s32": np.int32,
}  # fmt: skip


def random(rng: np.random.Generator, type: str, *shape: int) -> np.ndarray:
    """Numbers of a type; low bits of tf32 are those that units do not look at."""
    if type[0] in "su":
        return rng.integers(-128 if type == "s8" else 0, 128, shape).astype(DTYPES[type])
    return rng.standard_normal(shape).astype(DTYPES[type])


def multiplied(lhs: np.ndarray, rhs: np.ndarray, type: str) -> np.ndarray:
    """The product of lines with lines, exactly or nearly so."""
    if type == "tf32":
        lhs, rhs = ((side.view(np.uint32) & 0xFFFFE000).view(np.float32) for side in (lhs, rhs))
    wide = np.int64 if type[0] in "su" else np.float64
    return lhs.astype(wide) @ rhs.astype(wide).T


def image(matrix: np.ndarray, by_lines: bool, leading: int, stride: int, size: int, at: int = 0) -> np.ndarray:
    """Shared memory that holds a matrix of lines and steps from byte `at` on, with 255 all around."""
    memory = np.full(size, 255, np.uint8)
    itemsize = matrix.dtype.itemsize
    for (line, step), value in np.ndenumerate(matrix):
        if by_lines:
            block, row, column = line // 64 * leading + step // 8 * stride, step % 8, line % 64 * itemsize
        else:
            block, row, column = line // 8 * stride, line % 8, at + step * itemsize
        chunk = column // 16 ^ row
        place = block + 128 * row + 16 * chunk + column % 16
        memory[place : place + itemsize] = np.array([value]).view(np.uint8)
    return memory


def sums_of(registers: np.ndarray) -> np.ndarray:
    """The 64 rows that the sums of 128 threads are: the "D" fragment, by the manual's sentences."""
    count = registers.shape[1]
    matrix = np.zeros((64, 2 * count), registers.dtype)
    for thread in range(128):
        for i in range(count):
            row = 16 * (thread // 32) + thread % 32 // 4 + (8 if i // 2 % 2 else 0)
            matrix[row, 8 * (i // 4) + 2 * (thread % 4) + i % 2] = registers[thread, i]
    return matrix


def bring(t: Thread, argument: int, bytes: int, offset: int, block: int) -> None:
    """Shared memory from an offset on becomes as an argument is."""
    with t.b.for_loop(t.index(), i64(bytes // 4), block) as i:
        t.b.store(t.b.load("i32", t.at("i32", argument, i)), t.b.gep("i32", t.gpu.shared(offset), i))


ROOM = 32 * ATOM_BYTES
"""Bytes of either operand's part of shared memory."""

SINGLE = [
    (8, "f32.f16.f16", False, False, 0), (24, "f32.bf16.bf16", False, False, 64),
    (16, "f32.tf32.tf32", False, False, 32), (96, "s32.s8.s8", False, False, 96), (32, "s32.u8.u8", False, False, 0),
    (40, "f32.e4m3.e5m2", False, False, 0), (256, "f32.f16.f16", False, False, 0),
    (72, "f32.bf16.bf16", True, True, 0), (256, "f32.f16.f16", False, True, 0),
    (8, "f32.f16.f16", True, False, 96),
]  # fmt: skip


@pytest.mark.parametrize("n, names, lhs_by_lines, rhs_by_lines, at", SINGLE)
def test_a_product(n: int, names: str, lhs_by_lines: bool, rhs_by_lines: bool, at: int) -> None:
    """By both of two warpgroups, to sums that are not 0; eights of lines do not lie close together."""
    product = group_product(n, names, lhs_by_lines, rhs_by_lines)
    rng, (_, of_lhs, of_rhs) = np.random.default_rng(5), product.types
    lhs, rhs = random(rng, of_lhs, 64, product.k), random(rng, of_rhs, n, product.k)
    sides = (lhs_by_lines, rhs_by_lines)
    apart_by_lines = (4 * ATOM_BYTES, ATOM_BYTES)
    strides = [apart_by_lines if by_lines else (0, ATOM_BYTES << (side == 0)) for side, by_lines in enumerate(sides)]
    places = [0 if by_lines else at for by_lines in sides]
    images = [
        image(matrix, by_lines, *apart, ROOM, place)
        for matrix, by_lines, apart, place in zip((lhs, rhs), sides, strides, places, strict=True)
    ]
    before = random(rng, product.types[0], 256, product.registers)

    def write(t: Thread) -> None:
        for number in (0, 1):
            bring(t, number, ROOM, number * ROOM, 256)
        t.gpu.fence_shared()
        t.gpu.barrier()
        first = t.b.mul(t.index(), i64(product.registers))
        own = [t.at(product.kind, 2, t.b.add(first, i64(i))) for i in range(product.registers)]
        sums = t.gpu.group_begin([t.b.load(product.kind, place) for place in own])
        matrices = [
            t.gpu.matrix_behind(t.gpu.shared_matrix(t.gpu.shared(number * ROOM), *strides[number]), places[number])
            for number in (0, 1)
        ]
        sums = t.gpu.group_multiply(n, names, *matrices, sums, *sides)
        t.gpu.group_commit()
        for place, value in zip(own, t.gpu.group_wait(0, sums), strict=True):
            t.b.store(value, place)

    after = before.copy()
    kernel = Prepared(write, 3, shared=2 * ROOM, arch=ARCH)
    kernel.run([*images, after], 256)
    expected = multiplied(lhs, rhs, of_lhs)
    for group in (slice(0, 128), slice(128, 256)):
        whole = sums_of(before[group]).astype(expected.dtype) + expected
        np.testing.assert_allclose(sums_of(after[group]), whole, rtol=1e-5, atol=2e-4)


# What goes wrong

N, NAMES, SUMS = 8, "f32.f16.f16", 4


def launch(write: Write, block: int = 128, shared: int = 2 * ROOM) -> np.ndarray:
    out = np.zeros((block, SUMS), np.float32)
    Prepared(write, 1, shared=shared, arch=ARCH).run([out], block)
    return out


def message(write: Write, **more: int) -> str:
    with pytest.raises(HloError) as caught:
        launch(write, **more)
    return caught.value.message


def fill(t: Thread, block: int = 128) -> None:
    """Ones in both operands."""
    with t.b.for_loop(t.index(), i64(2 * ROOM // 4), block) as i:
        t.b.store(i32(0x3C003C00), t.room("i32", i))


def ready(t: Thread) -> None:
    fill(t)
    t.gpu.fence_shared()
    t.gpu.barrier()


def matrix(t: Thread, offset: int = 0, stride: int = ATOM_BYTES) -> Value:
    return t.gpu.shared_matrix(t.gpu.shared(offset), 0, stride)


def zeros() -> list[Value]:
    return [const("float", 0)] * SUMS


def multiply(t: Thread, sums: list[Value], lhs: Value | None = None, **more) -> list[Value]:
    return t.gpu.group_multiply(N, NAMES, lhs or matrix(t), matrix(t, ROOM), sums, **more)


def finish(t: Thread, sums: list[Value]) -> None:
    t.gpu.group_commit()
    store(t, t.gpu.group_wait(0, sums))


def store(t: Thread, sums: list[Value]) -> None:
    for number, value in enumerate(sums):
        t.b.store(value, t.at("float", 0, t.b.add(t.b.mul(t.index(), i64(SUMS)), i64(number))))


def once(prepare: Write = ready, lhs: Callable[[Thread], Value] = matrix, between: Write = _nothing) -> Write:
    """A product of ones by ones, with something between it and the wait for it."""

    def write(t: Thread) -> None:
        prepare(t)
        sums = multiply(t, t.gpu.group_begin(zeros()), lhs(t))
        between(t)
        finish(t, sums)

    return write


def _write_operand(t: Thread) -> None:
    with only(t, 0):
        t.b.store(i32(0), t.gpu.shared())


def _read_operand(t: Thread) -> None:
    with only(t, 0):
        t.b.store(t.b.load("i32", t.gpu.shared()), t.at("i32", 0, 0))


def _unfenced(t: Thread) -> None:
    fill(t)
    t.gpu.barrier()


def _unmet(t: Thread) -> None:
    fill(t)
    t.gpu.fence_shared()


def _bare(t: Thread) -> None: ...


def _of_each(t: Thread) -> Value:
    return t.gpu.matrix_behind(matrix(t), t.b.shl(t.b.and_(t.index(), i64(1)), i64(5)))


def _changed(t: Thread) -> None:
    ready(t)
    sums = multiply(t, t.gpu.group_begin(zeros()))
    finish(t, multiply(t, [*sums[:2], sums[3], sums[2]]))


def _lost(t: Thread) -> None:
    ready(t)
    sums = multiply(t, t.gpu.group_begin(zeros()))
    finish(t, [t.b.fadd(value, const("float", 1)) for value in sums])


def _not_begun(t: Thread) -> None:
    ready(t)
    finish(t, multiply(t, zeros()))


def _begun_before(t: Thread) -> None:
    ready(t)
    sums = multiply(t, t.gpu.group_begin(zeros()))
    t.gpu.group_commit()
    finish(t, multiply(t, t.gpu.group_wait(0, sums)))


def _not_committed(t: Thread) -> None:
    ready(t)
    store(t, t.gpu.group_wait(0, multiply(t, t.gpu.group_begin(zeros()))))


def _not_waited_for(t: Thread) -> None:
    ready(t)
    store(t, multiply(t, t.gpu.group_begin(zeros())))


def _without_a_warp(t: Thread) -> None:
    ready(t)
    with t.b.if_then(t.b.icmp_signed("<", t.gpu.thread(), i32(96))):
        finish(t, multiply(t, t.gpu.group_begin(zeros())))


WRONG = {
    "an operand that is written": (once(between=_write_operand), "at offset 0, and a product that is not waited for"),
    "an operand without a fence": (once(_unfenced), "at offset 0, where thread 0 has written, with no fence for that"),
    "an operand of others": (once(_unmet), "writes it too: nothing says which comes first"),
    "no operand": (once(_bare), "multiplies matrices (f32.f16.f16) in shared memory at offset 0, of which byte 0"),
    "operands that differ": (once(lhs=_of_each), "whose operands are not the same in threads 0 and 1"),
    "an operand within rows": (once(lhs=lambda t: matrix(t, 112)), "at offset 112, which is not a multiple of 1024"),
    "an operand of other rows": (once(lhs=lambda t: matrix(t, 256)), "at offset 256, which is not a multiple of 1024"),
    "rows anywhere": (once(lhs=lambda t: matrix(t, stride=512)), "which is not a multiple of 1024"),
    "an operand beyond the end": (
        once(lhs=lambda t: matrix(t, 2 * ROOM - 7 * ATOM_BYTES)),
        f"at offset {2 * ROOM}, and there are {2 * ROOM} bytes",
    ),
    "what is no matrix": (once(lhs=lambda t: integer("i64", 64)), "of which 0x40 is no description of a matrix"),
    "sums that change places": (_changed, "and sum 2 of thread 0 was changed while products add to it"),
    "sums that are changed": (_lost, "ends while 1 sums of products are not waited for, or were changed before"),
    "registers that may be in use": (_not_begun, "and nothing says that the registers of its sums are free for it"),
    "registers that were in use": (_begun_before, "and nothing says that the registers of its sums are free for it"),
    "products of no group": (_not_committed, "and products were begun that are of no group yet"),
    "products that nobody waits for": (_not_waited_for, "ends while 1 sums of products are not waited for"),
    "three warps": (_without_a_warp, "threads 0 to 95 wait at the begin of products of its warpgroup"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_told(name: str) -> None:
    write, words = WRONG[name]
    assert words in message(write)


def test_half_a_warpgroup() -> None:
    assert "in a warpgroup of 64 threads" in message(once(), block=64)


def test_a_block_of_too_many_threads() -> None:
    said = "wait at the begin of products of its warpgroup, meeting 1 in k, in a block of 1024 threads"
    assert said in message(lambda t: finish(t, t.gpu.group_begin(zeros())), block=1024)


@pytest.mark.parametrize("between", [_nothing, _read_operand])
def test_what_is_right_is_not_told(between: Write) -> None:
    out = launch(once(between=between))
    assert (out[1:] == 16).all()


def test_products_that_overlap() -> None:
    """Two sets of sums, each waited for while the other's products are under way; then one begins anew."""

    def write(t: Thread) -> None:
        ready(t)
        gpu = t.gpu
        first, second = gpu.group_begin(zeros()), zeros()
        first = multiply(t, first)
        gpu.group_commit()
        second = multiply(t, multiply(t, second))
        gpu.group_commit()
        whole = gpu.group_wait(1, [*first, *second])
        first, second = whole[:SUMS], whole[SUMS:]
        large = gpu.group_begin([t.b.fmul(value, const("float", 100)) for value in first])
        fresh = multiply(t, large, fresh=integer("i1", 1))
        gpu.group_commit()
        whole = gpu.group_wait(0, [*second, *fresh])
        both = [t.b.fadd(value, const("float", 1000)) for value in first]
        store(t, [t.b.fadd(a, t.b.fadd(b, c)) for a, b, c in zip(both, whole[:SUMS], whole[SUMS:], strict=True)])

    assert (launch(write) == 1000 + 16 + 32 + 16).all()


def test_registers_that_nobody_gives_back() -> None:
    def write(most: int) -> Write:
        def of_groups(t: Thread) -> None:
            is_first = t.b.icmp_signed("<", t.gpu.thread(), i32(128))
            t.b.if_else(is_first, lambda: t.gpu.set_registers(40, False), lambda: t.gpu.set_registers(most, True))

        return of_groups

    launch(write(232), block=384)
    assert "want 520 for each of their threads together, and have 504" in message(write(240), block=384)


def test_what_the_arguments_have_to_be() -> None:
    for write, words in (
        (lambda t: t.gpu.set_registers(100, increase=True), "24 to 256 registers, a multiple of 8, not 100"),
        (lambda t: multiply(t, zeros()[1:]), "takes 4 sums, float"),
        (lambda t: multiply(t, [i32(0)] * SUMS), "takes 4 sums, float"),
    ):
        assert words in message(write)
