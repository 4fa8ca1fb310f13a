"""Operands of products of warpgroups on the emulator: where their elements are in shared memory, and what they are.

A matrix is given by a descriptor ("Matrix Descriptor Format" in the wgmma section of the PTX ISA manual): its address,
two strides, and the order of 16 bytes in a row of 128, which is always that of TMA's 128-byte swizzle. Of either
operand a product reads 32 bytes a line: 2 chunks of 16 bytes, whether lines lie together or steps.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.gpu.emulator_code import WARPS, i32
from hloc.codegen.gpu.emulator_code_matrix import BYTES, TF32
from hloc.codegen.gpu.emulator_code_memory import MISALIGNED, OUTSIDE, RACE, SPLIT, UNFINISHED, UNSET
from hloc.codegen.gpu.emulator_code_order import CLOCK, MANY_READ, PENDING, THREAD
from hloc.codegen.gpu.emulator_code_tiles import UNFENCED, EmulatedTiles
from hloc.codegen.gpu.group_products import ATOM_BYTES, ROWS, STEP_BYTES, WARPGROUP, GroupProduct
from hloc.codegen.llvm import Builder, Function, Value, integer
from hloc.codegen.routines import i64

COLUMNS = 256
"""The most columns of a product: those of rows of sums."""

BY_LINES = 16
"""The bit of a shape, beside the number of lines, that says that lines lie together."""

_SWIZZLE, _FIELD, _OTHERS = 1 << 62, 0x3FFF, ~(0x3FFF | 0x3FFF << 16 | 0x3FFF << 32)
_LANES = 8

MALFORMED = "{site}, of which {0:#x} is no description of a matrix"


class EmulatedOperands(EmulatedTiles):
    """See EmulatorCode."""

    def _described(self, b: Builder, matrix: Value) -> tuple[Value, Value, Value]:
        """The offset, leading bytes and stride bytes of a matrix."""
        fields = (b.and_(b.lshr(matrix, i64(at)), i64(_FIELD)) for at in (0, 16, 32))
        start, leading, stride = (b.shl(field, i64(4)) for field in fields)
        return start, leading, stride

    def _swizzled(self, b: Builder, offset: Value) -> Value:
        return b.xor(offset, b.shl(b.and_(b.lshr(offset, i64(7)), i64(7)), i64(4)))

    def _chunk(self, b: Builder, matrix: Value, shape: Value, number: Value) -> Value:
        """The offset of a chunk."""
        start, leading, stride = self._described(b, matrix)
        by_lines = b.icmp_signed("!=", b.lshr(shape, i64(BY_LINES)), i64(0))

        def either(of_lines: Value, of_steps: Value) -> Value:
            return b.select(by_lines, of_lines, of_steps)

        row = either(b.and_(number, i64(15)), b.lshr(number, i64(1)))
        column = either(b.lshr(number, i64(4)), b.and_(number, i64(1)))
        begin = b.add(b.mul(b.lshr(row, i64(3)), stride), b.mul(b.lshr(column, i64(3)), leading))
        inner = b.or_(b.shl(b.and_(row, i64(7)), i64(7)), b.shl(b.and_(column, i64(7)), i64(4)))
        return self._swizzled(b, b.add(b.add(start, begin), inner))

    def _chunks(self, b: Builder, shape: Value) -> Value:
        return b.shl(b.and_(shape, i64((1 << BY_LINES) - 1)), i64(1))

    # What products read

    def read_operand(self) -> Function:
        """The threads of a group from `first` on begin to read a matrix."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            b.call(self._check_matrix(), [p.matrix, p.shape, p.site])
            four = "<4 x i64>"
            start = b.splat(self.get(b, "start"), 4)
            used = b.splat(b.or_(b.shl(self.get(b, "now"), i64(CLOCK)), i64(PENDING | MANY_READ | 1)), 4)

            def one(number: Value, carried: list[Value]) -> list[Value]:
                offset = self._chunk(b, p.matrix, p.shape, number)
                places = self.records(b, 4, b.lshr(offset, i64(2)))
                differ = b.icmp_signed("!=", b.load(four, places[0], align=8), b.splat(carried[0], 4))
                differs = b.intrinsic("llvm.vector.reduce.or", "i1", [differ], overloads=[differ.type])
                good = b.if_else(
                    differs, lambda: b.call(self._check_chunk(), [offset, p.first, p.site]), lambda: carried[0]
                )
                read = b.load(four, places[1], align=8)
                current = b.icmp_signed(">=", b.and_(read, integer(four, ~PENDING)), start)
                again = b.and_(b.icmp_signed(">=", read, integer(four, PENDING)), current)
                b.store(b.select(again, b.add(read, integer(four, 1)), used), places[1], align=8)
                return [good]

            b.for_loop_carrying(i64(0), self._chunks(b, p.shape), [i64(-1)], one)

        return self.function("read_operand", "i64 matrix, i64 shape, i64 first, ptr site", write)

    def _check_matrix(self) -> Function:
        """Fails unless a description is one, of rows of shared memory that begin as their order wants it."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            form = b.icmp_signed("==", b.and_(p.matrix, i64(_OTHERS)), i64(_SWIZZLE))
            self.fail_unless(b, form, MALFORMED, p.site, p.matrix)
            start, leading, stride = self._described(b, p.matrix)
            by_lines = b.icmp_signed("!=", b.lshr(p.shape, i64(BY_LINES)), i64(0))
            mixed = b.or_(stride, b.select(by_lines, b.or_(leading, start), i64(0)))
            mixed = b.and_(mixed, i64(ATOM_BYTES - 1))
            good = b.icmp_signed("==", mixed, i64(0))
            within = b.icmp_signed("<=", b.and_(start, i64(ATOM_BYTES - 1)), i64(128 - STEP_BYTES))
            self.fail_unless(b, b.and_(good, within), MISALIGNED, p.site, start, i64(ATOM_BYTES))
            size = self.launched(b, "shared_bytes")
            with b.for_loop(i64(0), self._chunks(b, p.shape)) as number:
                offset = self._chunk(b, p.matrix, p.shape, number)
                fits = b.icmp_signed("<=", offset, b.sub(size, i64(16)))
                self.fail_unless(b, fits, OUTSIDE, p.site, offset, size)

        return self.function("check_matrix", "i64 matrix, i64 shape, ptr site", write)

    def _check_chunk(self) -> Function:
        """Fails unless products may read a chunk; the record of its last word's write, if all words have the same."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            words = [b.add(b.lshr(p.offset, i64(2)), i64(number)) for number in range(4)]
            found = [b.call(self._check_word(), [word, p.first, p.site]) for word in words]
            same = [b.icmp_signed("==", found[0], other) for other in found[1:]]
            return b.select(b.and_(b.and_(same[0], same[1]), same[2]), found[0], i64(-1))

        return self.function("check_chunk", "i64 offset, i64 first, ptr site", write, "i64")

    def _check_word(self) -> Function:
        """Fails unless products may read a word; the record of its write. Its bytes have one record from now on."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            places = self.records(b, 4, p.word)
            offset = b.shl(p.word, i64(2))
            with b.if_then(b.icmp_signed("==", b.load("i64", places[0]), i64(SPLIT))):
                for place, of_bytes in zip(places, self.records(b, 1, offset), strict=True):
                    whole = b.load("<4 x i64>", of_bytes, align=8)
                    if place is places[0]:
                        least = b.intrinsic("llvm.vector.reduce.smin", "i64", [whole], overloads=[whole.type])
                        old = b.icmp_signed("<", least, self.get(b, "start"))
                        self.fail_unless(b, b.not_(old), UNSET, p.site, offset, offset)
                    most = b.intrinsic("llvm.vector.reduce.smax", "i64", [whole], overloads=[whole.type])
                    b.store(most, place)
            record = b.load("i64", places[0])
            written, who = b.and_(record, i64(~PENDING)), b.and_(record, i64(THREAD))
            now = b.icmp_signed(">=", written, self.get(b, "start"))
            self.fail_unless(b, now, UNSET, p.site, offset, offset)
            pending = b.icmp_signed(">=", record, i64(PENDING))
            self.fail_unless(b, b.not_(pending), UNFINISHED, p.site, offset, offset, who)
            self.fail_unless(b, self._all_know(b, record, p.first), RACE.format("writes"), p.site, who, offset)
            self.fail_unless(b, self.is_fenced(b, record), UNFENCED, p.site, who, offset)
            return record

        return self.function("check_word", "i64 word, i64 first, ptr site", write, "i64")

    def _all_know(self, b: Builder, record: Value, first: Value) -> Value:
        """Whether what was written comes before what each warp of a group does now: by its first lane."""
        clock = b.lshr(record, i64(CLOCK))
        good = integer("i1", 1)
        for lane in range(0, WARPGROUP, 32):
            thread = b.add(first, i64(lane))
            warp = b.lshr(thread, i64(5))
            met = b.load("i64", self.place(b, "clock", "i64", WARPS, warp))
            same = b.icmp_signed("==", b.and_(b.lshr(record, i64(5)), i64(WARPS - 1)), warp)
            known = b.or_(self.is_known(b, record, thread), b.and_(same, b.icmp_signed("<", clock, met)))
            own = b.icmp_signed("==", b.and_(record, i64(THREAD)), thread)
            good = b.and_(good, b.or_(known, own))
        return b.or_(good, b.icmp_signed("<", record, self.get(b, "limit")))

    def leave_operand(self) -> Function:
        """One of the products that read a matrix is done with it, as `record` says."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.for_loop(i64(0), self._chunks(b, p.shape)) as number:
                word = b.lshr(self._chunk(b, p.matrix, p.shape, number), i64(2))
                written, read = self.records(b, 4, word)
                self._leave(b, read, p.record)
                split = b.icmp_signed("==", b.load("<4 x i64>", written, align=8), integer("<4 x i64>", SPLIT))
                apart = b.intrinsic("llvm.vector.reduce.or", "i1", [split], overloads=[split.type])
                with b.if_then(apart), b.for_loop(i64(0), i64(4)) as i:
                    self._leave(b, self.records(b, 1, b.shl(b.add(word, i), i64(2)))[1], p.record)

        return self.function("leave_operand", "i64 matrix, i64 shape, i64 record", write)

    def _leave(self, b: Builder, place: Value, record: Value) -> None:
        """Four records of reads, each with the number of products under way."""
        four = "<4 x i64>"
        read = b.load(four, place, align=8)
        last = b.icmp_signed("==", b.and_(read, integer(four, THREAD)), integer(four, 1))
        fewer = b.select(last, b.splat(record, 4), b.sub(read, integer(four, 1)))
        b.store(b.select(b.icmp_signed(">=", read, integer(four, PENDING)), fewer, read), place, align=8)

    # Arithmetic

    def product(self, product: GroupProduct, lhs_by_lines: bool, rhs_by_lines: bool) -> Function:
        """Adds the product of two matrices to sums, rows of COLUMNS."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            sides = ((p.lhs, ROWS, lhs_by_lines), (p.rhs, product.n, rhs_by_lines))
            for side, (matrix, lines, by_lines) in enumerate(sides):
                with b.for_loop(i64(0), i64(lines)) as line, b.for_loop(i64(0), i64(product.k)) as step:
                    offset = self._element(b, matrix, by_lines, line, step, product.bits // 8)
                    source = b.gep("i8", self.shared(), offset)
                    value = self._value(b, source, product.types[1 + side])
                    b.store(value, self._unpacked(b, product, side, line, step))
            self._multiply(b, product, p.sums)

        names = "".join("n" if by_lines else "k" for by_lines in (lhs_by_lines, rhs_by_lines))
        name = f"group_product.{product.n}.{'.'.join(product.types)}.{names}"
        return self.function(name, "i64 lhs, i64 rhs, ptr sums", write)

    def _element(self, b: Builder, matrix: Value, by_lines: bool, line: Value, step: Value, size: int) -> Value:
        """The offset of an element."""
        start, leading, stride = self._described(b, matrix)
        row, column = (step, line) if by_lines else (line, step)
        begin = b.mul(b.lshr(row, i64(3)), stride)
        if by_lines:
            begin = b.add(begin, b.mul(b.lshr(column, i64(6)), leading))
            column = b.and_(column, i64(63))
        inner = b.add(b.shl(b.and_(row, i64(7)), i64(7)), b.mul(column, i64(size)))
        return self._swizzled(b, b.add(b.add(start, begin), inner))

    def _value(self, b: Builder, place: Value, format: str) -> Value:
        """An element as it is multiplied."""
        if format == "tf32":
            return b.bitcast(b.and_(b.load("i32", place), i32(TF32)), "float")
        if format in ("f16", "bf16"):
            return b.fpext(b.load("half" if format == "f16" else "bfloat", place), "float")
        byte = b.load("i8", place)
        if format in BYTES:
            return b.load("float", b.gep("float", self.byte_table(format), b.zext(byte, "i64")))
        return b.sext(byte, "i32") if format[0] == "s" else b.zext(byte, "i32")

    def _unpacked(self, b: Builder, product: GroupProduct, side: int, line: Value, step: Value) -> Value:
        """Where the lhs is by lines, or the rhs by steps."""
        row, column, width = (line, step, STEP_BYTES) if side == 0 else (step, line, COLUMNS)
        room = (ROWS if side == 0 else STEP_BYTES) * width
        name = f"group.{'ab'[side]}.{product.kind}"
        return self.place(b, name, product.kind, room, b.add(b.mul(row, i64(width)), column))

    def _multiply(self, b: Builder, product: GroupProduct, sums: Value) -> None:
        type = f"<{_LANES} x {product.kind}>"
        b.fast = "contract"
        times, plus = (b.mul, b.add) if product.kind == "i32" else (b.fmul, b.fadd)
        with b.for_loop(i64(0), i64(ROWS)) as row, b.for_loop(i64(0), i64(product.n), _LANES) as column:
            place = b.gep(product.kind, sums, b.add(b.mul(row, i64(COLUMNS)), column))

            def step(k: Value, carried: list[Value]) -> list[Value]:
                one = b.load(product.kind, self._unpacked(b, product, 0, row, k))
                line = b.load(type, self._unpacked(b, product, 1, column, k), align=4)
                return [plus(carried[0], times(b.splat(one, _LANES), line))]

            total = b.for_loop_carrying(i64(0), i64(product.k), [b.load(type, place, align=4)], step)
            b.store(total[0], place, align=4)
        b.fast = ""
