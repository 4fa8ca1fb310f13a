"""What a thread of a device can do besides arithmetic and loads: who it is, and what it does with others.

Emitters use nothing else of the machine, so that the emulator, which brings a dialect of its own, runs the very
same kernels and sees every access. Threads are counted along x first; a warp is 32 threads in this order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Module, Value, bit_width, const, integer
from hloc.ir.dtypes import F32, DType

WARP = 32
ALL_LANES = 0xFFFFFFFF

_SWIZZLE_128 = 1 << 62
"""In the descriptor of a matrix in shared memory: the order of 16 bytes in rows of 128 that TMA's swizzle has too."""


class Dialect(ABC):
    """How kernels of one kind of machine are written.

    `pointer` is the LLVM type of pointers to device memory, `shared_pointer` of those to a block's shared memory.
    """

    pointer: str
    shared_pointer: str

    @abstractmethod
    def map_parameter(self, name: str) -> tuple:
        """The parameter of a kernel for a TensorMap; it comes behind all others."""

    @abstractmethod
    def kernel(self, module: Module, name: str, params: list[tuple], threads: int, attributes: str) -> Function:
        """A new kernel function, of blocks of at most so many threads."""

    def keep_resident(self, kernel: Function, blocks: int) -> None:
        """Lets a multiprocessor hold so many blocks of a kernel, where registers would keep it from that."""
        return None

    @abstractmethod
    def builder(self, function: Function, instruction: str) -> Builder:
        """A builder for a kernel, or a function that kernels call; messages of the emulator name the instruction."""

    @abstractmethod
    def intrinsics(self, b: Builder, shared_bytes: int) -> Intrinsics:
        """The intrinsics at a builder's place, in a kernel launched with so many bytes of shared memory."""


class Intrinsics(ABC):
    """Bound to the builder of one kernel; code goes to the builder's current place."""

    def __init__(self, b: Builder):
        self.b = b

    # Who this thread is

    @abstractmethod
    def thread(self, axis: str = "x") -> Value:
        """The thread's number in its block, an i32."""

    @abstractmethod
    def block(self, axis: str = "x") -> Value:
        """The block's number in the grid, an i32."""

    def lane(self) -> Value:
        """The thread's number in its warp, an i32; blocks must be of one dimension."""
        return self.b.and_(self.thread(), integer("i32", WARP - 1))

    def warp(self) -> Value:
        """The warp's number in its block, an i32; blocks must be of one dimension."""
        return self.b.lshr(self.thread(), integer("i32", 5))

    # Together

    @abstractmethod
    def barrier(self) -> None:
        """All threads of the block come here before any goes on; memory written before it can be read after it."""

    @abstractmethod
    def warp_barrier(self) -> None:
        """The same for the threads of a warp."""

    @abstractmethod
    def fence(self) -> None:
        """What this thread has written to global memory is seen by all of the device before what it writes next."""

    @abstractmethod
    def shuffle32(self, mode: str, value: Value, lane: Value) -> Value:
        """An i32 of another lane: `mode` "idx" of `lane`, "xor" of this one's number xor `lane`, "up" and "down" of
        the lane so many before or behind (the thread's own value where there is none). All lanes must come here."""

    @abstractmethod
    def ballot(self, condition: Value) -> Value:
        """An i32 with a bit for each lane whose i1 holds. All lanes must come here."""

    @abstractmethod
    def any(self, condition: Value) -> Value:
        """Whether an i1 holds in any thread of the block; a barrier."""

    # Memory

    @abstractmethod
    def shared(self, offset: int = 0) -> Value:
        """The address of a byte of the block's shared memory; byte 0 is aligned to 1024."""

    @abstractmethod
    def atomic(self, op: str, pointer: Value, value: Value) -> Value:
        """`atomicrmw` of LLVM's name on an address in global or shared memory; the value before. Relaxed order."""

    @abstractmethod
    def compare_exchange(self, pointer: Value, expected: Value, new: Value) -> Value:
        """An integer of 16, 32 or 64 bits replaced by `new` if it is `expected`; the value before."""

    @abstractmethod
    def load_volatile(self, type: str, pointer: Value) -> Value:
        """A value that other blocks may be writing, as it is in memory now."""

    @abstractmethod
    def store_volatile(self, value: Value, pointer: Value) -> None:
        """A value that other blocks wait for."""

    # Asynchronous copies (sm_80 on)

    @abstractmethod
    def copy_async(self, target: Value, source: Value, size: int, live: Value | None = None) -> None:
        """Begins to copy 4, 8 or 16 bytes, aligned to as many, from global to shared memory.

        Of `live` (an i32, default all) bytes; the rest of the `size` become zero.
        """

    @abstractmethod
    def commit_copies(self) -> None:
        """Makes a group of the thread's copies begun since the last group."""

    @abstractmethod
    def wait_copies(self, groups: int) -> None:
        """Waits until at most so many of the thread's latest groups are not complete."""

    # Matrix units

    @abstractmethod
    def load_matrices(self, pointer: Value, count: int, transposed: bool = False) -> list[Value]:
        """`ldmatrix`: 1, 2 or 4 matrices of 8x8 16-bit elements, an i32 (two elements) a matrix and lane.

        `pointer` (shared, 16-byte aligned) of lane i is row i % 8 of matrix i / 8. Lane i receives the elements
        2 * (i % 4) and the next of row i / 4; of the transposed matrix with `transposed`.
        """

    @abstractmethod
    def mma(self, shape: str, types: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]) -> list[Value]:
        """`mma.sync.aligned.<shape>.row.col.<types>`, d = a b + c by a whole warp.

        `types` are PTX's of d, a, b, c, for instance "f32.bf16.bf16.f32". Fragments are as in the PTX manual: a and b
        as i32 (f64 as double), c and d as float, i32, or double.
        """

    # Barriers in shared memory, copies of tiles, products of warpgroups (where `DeviceTraits.has_wgmma`)

    @abstractmethod
    def barrier_make(self, place: Value, arrivals: int) -> None:
        """Makes 8 bytes of shared memory, aligned to as many, a barrier. One thread does, once.

        A phase of it is complete when `arrivals` have come, and all bytes that were expected. Phases count from 0.
        """

    @abstractmethod
    def barriers_made(self) -> None:
        """Lets copies of tiles know of the barriers that this thread has made. A `barrier` has to follow."""

    @abstractmethod
    def barrier_expect(self, place: Value, bytes: Value | int) -> None:
        """An arrival at a barrier, whose phase is to wait for so many bytes (an i32) of tiles as well."""

    @abstractmethod
    def barrier_arrive(self, place: Value) -> None:
        """An arrival at a barrier: what this thread has done to memory is seen by those who wait for the phase."""

    @abstractmethod
    def barrier_wait(self, place: Value, parity: Value) -> None:
        """Waits until the barrier's phase of this parity (an i32, 0 or 1) is complete: the current one or the last.

        Any threads may come here; those of a warp need not come together.
        """

    @abstractmethod
    def copy_tile(self, target: Value, map: Value, at: Sequence[Value], place: Value) -> None:
        """Begins to copy a tile of the array of a TensorMap (`k.maps`) to shared memory, aligned to 1024 bytes.

        `at` are the i32 numbers of its first element, innermost first; they may lie outside of the array. Elements
        outside become zero. Rows of 128 bytes follow each other; in row r, the 16 bytes c are at place c ^ (r % 8).
        When they have come, the bytes of the whole tile count for the phase of the barrier at `place`. One thread.
        """

    @abstractmethod
    def fence_shared(self) -> None:
        """What this thread has done to shared memory comes before products and copies of tiles that follow.

        With a barrier: before those of other threads as well. Products and copies do not see plain writes otherwise.
        """

    @abstractmethod
    def group_begin(self, sums: Sequence[Value]) -> list[Value]:
        """All threads of a warpgroup, before products: whatever touched the sums' registers before is done."""

    @abstractmethod
    def group_multiply(
        self,
        n: int,
        names: str,
        lhs: Value,
        rhs: Value,
        sums: Sequence[Value],
        lhs_by_lines: bool = False,
        rhs_by_lines: bool = False,
        fresh: Value | None = None,
    ) -> list[Value]:
        """Begins sums + lhs rhs of 64 lines by n, by all threads of a warpgroup: see `group_products`.

        `names` are PTX's types of sums, lhs and rhs, such as "f32.bf16.bf16". The operands are given by
        `shared_matrix`: lines of steps, or with `by_lines` (16-bit types) steps of lines. `fresh` (an i1): sums begin
        at zero. Sums are as the "D" fragment of wgmma in the PTX manual has them, float or i32: sum i of thread t of
        the group is in row 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2) and column 8 * (i / 4) + 2 * (t % 4) + i % 2.
        They are not to be looked at before `group_wait`, nor the operands to be written.
        """

    @abstractmethod
    def group_commit(self) -> None:
        """Makes a group of the products begun since the last one."""

    @abstractmethod
    def group_wait(self, groups: int, sums: Sequence[Value]) -> list[Value]:
        """Waits until at most so many (0 to 7) of the latest groups are not complete."""

    def shared_matrix(self, pointer: Value, leading_bytes: int, stride_bytes: int) -> Value:
        """An operand in shared memory, in rows of 128 bytes as `copy_tile` leaves them: an i64 for `group_multiply`.

        By steps: a row is a line; eight lines follow each other, `stride_bytes` lie between one eight and the next,
        and `leading_bytes` do not matter. By lines: a row is a step of 64 lines; `stride_bytes` lie between eight
        steps and the next eight, `leading_bytes` between 64 lines and the next.
        """
        b, pieces = self.b, [(leading_bytes, 16), (stride_bytes, 32)]
        words = _SWIZZLE_128 | sum((bytes >> 4 & 0x3FFF) << place for bytes, place in pieces)
        address = b.and_(self._shared_number(pointer), const("i64", 0x3FFFF))
        return b.or_(b.lshr(address, const("i64", 4)), const("i64", words))

    def matrix_behind(self, matrix: Value, bytes: int | Value) -> Value:
        """The operand that begins so many bytes (a multiple of 16; an i64) behind another: 32 for the next product."""
        number = const("i64", bytes >> 4) if isinstance(bytes, int) else self.b.lshr(bytes, const("i64", 4))
        return self.b.add(matrix, number)

    @abstractmethod
    def _shared_number(self, pointer: Value) -> Value:
        """An address in shared memory as an i64 below 2**18, the first one a multiple of 1024."""

    @abstractmethod
    def set_registers(self, count: int, increase: bool) -> None:
        """Gives back registers, or takes more (waits for them): all warps of a warpgroup. 24 to 256, by eights."""

    @abstractmethod
    def part_barrier(self, number: int, threads: int) -> None:
        """A `barrier` of some warps only, so many threads; `number` (1 to 15) tells it from others."""

    # Arithmetic that machines have their own instructions for

    def exp2(self, value: Value) -> Value:
        """2 to the power of an f32, to about two units in the last place; what is subnormal may be 0."""
        scaled = self.b.fmul(value, const("float", log(2)))
        return scalar.emit(self.b, "exponential", [scaled], [F32], F32, {})

    def packed(self, dtype: DType, low: Value, high: Value) -> Value:
        """Two f32 rounded to bf16 or f16, in an i32."""
        halves = [scalar.to_bits(self.b, dtype, scalar.narrow(self.b, dtype, value)) for value in (low, high)]
        first, second = (self.b.zext(half, "i32") for half in halves)
        return self.b.or_(first, self.b.shl(second, const("i32", 16)))

    # Made of the above

    def shuffle(self, mode: str, value: Value, lane: Value) -> Value:
        """`shuffle32` for an integer or float of any width up to 64 bits."""
        b, width = self.b, bit_width(value.type)
        if width == 1:
            return b.trunc(self.shuffle32(mode, b.zext(value, "i32"), lane), "i1")
        bits = b.bitcast(value, f"i{width}") if value.type[0] != "i" else value
        if width == 64:
            low, high = b.trunc(bits, "i32"), b.trunc(b.lshr(bits, const("i64", 32)), "i32")
            low, high = (b.zext(self.shuffle32(mode, part, lane), "i64") for part in (low, high))
            moved = b.or_(low, b.shl(high, const("i64", 32)))
        elif width == 32:
            moved = self.shuffle32(mode, bits, lane)
        else:
            moved = b.trunc(self.shuffle32(mode, b.zext(bits, "i32"), lane), f"i{width}")
        return b.bitcast(moved, value.type) if value.type[0] != "i" else moved
