"""A product of matrices by copies of tiles and products of a warpgroup, written by hand, for tests of both dialects."""

from __future__ import annotations

from typing import NamedTuple

from emulated_kernels import Thread, i32, i64

from hloc.codegen.device_program import TensorMap
from hloc.codegen.gpu.group_products import ATOM_BYTES, STEP_BYTES, WARPGROUP, group_product
from hloc.codegen.llvm import Value, const

ROW = 128
"""Bytes of a row of a tile."""

LINES = 64
"""Lines of 16-bit elements in a row of a tile of steps."""


class Case(NamedTuple):
    """d[64, n] = a[64, depth] b[depth, n]; lines are rows of a and columns of b, and `by_lines` says that they lie
    together. The kernel's arguments are a, b and d; its blocks have two warpgroups."""

    n: int
    names: str
    stages: int = 2
    lhs_by_lines: bool = False
    rhs_by_lines: bool = False
    registers: bool = False

    @property
    def product(self):
        return group_product(self.n, self.names, self.lhs_by_lines, self.rhs_by_lines)

    @property
    def steps(self) -> int:
        """Of a tile."""
        return ROW * 8 // self.product.bits

    def tile_bytes(self) -> tuple[int, int]:
        return LINES * ROW, -(-self.n // LINES) * LINES * ROW if self.rhs_by_lines else self.n * ROW

    def stage_bytes(self) -> int:
        return sum(-(-size // ATOM_BYTES) * ATOM_BYTES for size in self.tile_bytes())

    def shared_bytes(self) -> int:
        return ATOM_BYTES + self.stages * self.stage_bytes()

    def maps(self, depth: int) -> tuple[TensorMap, TensorMap]:
        """The maps of a and b. Tiles of lines that do not lie together are copied whole, others 64 lines at once."""
        return self._map(0, 64, depth, self.lhs_by_lines), self._map(1, self.n, depth, self.rhs_by_lines)

    def _map(self, argument: int, lines: int, depth: int, by_lines: bool) -> TensorMap:
        size = self.product.bits // 8
        inner, outer = (lines, depth) if by_lines else (depth, lines)
        rows = self.steps if by_lines else lines
        return TensorMap(argument, 0, size, (inner, outer), (inner * size,), (ROW // size, rows))


class Product:
    """Writes the kernel of a case; the number of tiles along the depth is its scalar."""

    def __init__(self, t: Thread, case: Case):
        self.t, self.case, self.b, self.gpu = t, case, t.b, t.gpu
        self.tiles = t.b.trunc(t.args[3], "i32")

    def write(self) -> None:
        b, gpu = self.b, self.gpu
        with b.if_then(b.icmp_signed("==", gpu.thread(), i32(0))):
            for stage in range(self.case.stages):
                gpu.barrier_make(self.full(i32(stage)), 1)
                gpu.barrier_make(self.empty(i32(stage)), WARPGROUP)
            gpu.barriers_made()
        gpu.barrier()
        b.if_else(b.icmp_signed("<", gpu.thread(), i32(WARPGROUP)), self.produce, self.consume)

    def full(self, stage: Value) -> Value:
        return self.b.gep("i64", self.gpu.shared(), self.b.zext(stage, "i64"))

    def empty(self, stage: Value) -> Value:
        return self.b.gep("i64", self.gpu.shared(64), self.b.zext(stage, "i64"))

    def places(self, stage: Value) -> tuple[Value, Value]:
        """Where the tiles of a stage are."""
        begin = self.b.mul(self.b.zext(stage, "i64"), i64(self.case.stage_bytes()))
        first = self.b.gep("i8", self.gpu.shared(ATOM_BYTES), begin)
        return first, self.b.gep("i8", first, i64(LINES * ROW))

    def turn(self, tile: Value) -> tuple[Value, Value]:
        """The stage of a tile, and the parity of the stage's phase."""
        stages = i32(self.case.stages)
        return self.b.urem(tile, stages), self.b.and_(self.b.udiv(tile, stages), i32(1))

    def produce(self) -> None:
        b, gpu, case = self.b, self.gpu, self.case
        if case.registers:
            gpu.set_registers(40, increase=False)
        with b.if_then(b.icmp_signed("==", gpu.thread(), i32(0))), b.for_loop(i32(0), self.tiles) as tile:
            stage, parity = self.turn(tile)
            gpu.barrier_wait(self.empty(stage), b.xor(parity, i32(1)))
            gpu.barrier_expect(self.full(stage), sum(case.tile_bytes()))
            lhs, rhs = self.places(stage)
            first = b.mul(tile, i32(case.steps))
            self.copy(lhs, 0, 64, first, case.lhs_by_lines, stage)
            self.copy(rhs, 1, case.n, first, case.rhs_by_lines, stage)

    def copy(self, target: Value, map: int, lines: int, first: Value, by_lines: bool, stage: Value) -> None:
        if not by_lines:
            self.gpu.copy_tile(target, self.t.maps[map], [first, i32(0)], self.full(stage))
            return
        for number in range(-(-lines // LINES)):
            place = self.b.gep("i8", target, i64(number * LINES * ROW))
            self.gpu.copy_tile(place, self.t.maps[map], [i32(number * LINES), first], self.full(stage))

    def consume(self) -> None:
        b, gpu, case = self.b, self.gpu, self.case
        if case.registers:
            gpu.set_registers(232, increase=True)
        kind, count = case.product.kind, case.product.registers

        def one(tile: Value, sums: list[Value]) -> list[Value]:
            stage, parity = self.turn(tile)
            gpu.barrier_wait(self.full(stage), parity)
            sums = self.multiply(stage, gpu.group_begin(sums), b.icmp_signed("==", tile, i32(0)))
            gpu.group_commit()
            sums = gpu.group_wait(0, sums)
            gpu.barrier_arrive(self.empty(stage))
            return sums

        self.store(b.for_loop_carrying(i32(0), self.tiles, [const(kind, 0)] * count, one))

    def multiply(self, stage: Value, sums: list[Value], first: Value) -> list[Value]:
        gpu, case = self.gpu, self.case
        sides = (case.lhs_by_lines, case.rhs_by_lines)
        found = [gpu.shared_matrix(place, LINES * ROW, ATOM_BYTES) for place in self.places(stage)]
        for step in range(ROW // STEP_BYTES):
            ahead = [step * (case.product.k * ROW if by_lines else STEP_BYTES) for by_lines in sides]
            lhs, rhs = (gpu.matrix_behind(matrix, bytes) for matrix, bytes in zip(found, ahead, strict=True))
            fresh = first if step == 0 else None
            sums = gpu.group_multiply(case.n, case.names, lhs, rhs, sums, *sides, fresh=fresh)
        return sums

    def store(self, sums: list[Value]) -> None:
        """Row 16 * warp + group (+ 8), and column 8 * block + 2 * part (+ 1)."""
        b = self.b
        thread = b.sub(self.t.index(), i64(WARPGROUP))
        group, part = b.and_(b.lshr(thread, i64(2)), i64(7)), b.and_(thread, i64(3))
        row = b.add(b.shl(b.lshr(thread, i64(5)), i64(4)), group)
        for number, value in enumerate(sums):
            block, rest = divmod(number, 4)
            line = b.add(row, i64(8 * (rest >> 1)))
            column = b.add(b.shl(part, i64(1)), i64(8 * block + (rest & 1)))
            index = b.add(b.mul(line, i64(self.case.n)), column)
            b.store(value, b.gep(value.type, self.t.args[2], index))
