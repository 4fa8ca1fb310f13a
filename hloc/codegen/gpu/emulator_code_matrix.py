"""Matrix units of the emulator: `ldmatrix` and `mma.sync`, done by the last lane of a warp for all of them.

Lanes leave their registers in slots of 8 bytes and find the results in others. Which lane holds which elements is from
"Matrix Fragments" of the PTX ISA manual, and one rule for all shapes: of a register of e elements, lane i holds row
i / 4 and columns e * (i % 4) and on. The registers of a go through the two halves of 16 rows first, then through
blocks of 4e columns; b is the same by columns; c and d hold two columns a lane, and the halves of the rows.
"""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes
import numpy as np

from hloc.codegen.gpu.emulator_code import THREADS, i32
from hloc.codegen.gpu.emulator_code_memory import MISSHAPEN, READ
from hloc.codegen.gpu.emulator_code_threads import EmulatedThreads
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.llvm import Builder, Function, Value
from hloc.codegen.routines import i64
from hloc.errors import HloError

SLOTS, OUTPUTS = 264, 128
"""Slots of a thread, of which the results begin at OUTPUTS. A size of few factors spreads threads over caches."""

_EIGHTS, _FOURS = "m8n8k16 m16n8k16 m16n8k32", "m8n8k32 m16n8k32 m16n8k64"

_FORMATS = {
    "f16": (16, "float", "m16n8k8 m16n8k16"),
    "bf16": (16, "float", "m16n8k8 m16n8k16"),
    "tf32": (32, "float", "m16n8k4 m16n8k8"),
    "e4m3": (8, "float", "m16n8k16 m16n8k32"),
    "e5m2": (8, "float", "m16n8k16 m16n8k32"),
    "f64": (64, "double", "m8n8k4 m16n8k4 m16n8k8 m16n8k16"),
    "s8": (8, "i32", _EIGHTS),
    "u8": (8, "i32", _EIGHTS),
    "s4": (4, "i32", _FOURS),
    "u4": (4, "i32", _FOURS),
}
"""Types of the elements of a and b: bits, what they are multiplied in, and the shapes of products.

The `f16` product m8n8k4 is four small ones, and none of these.
"""

_SUMS = {"float": ("f32", "f16"), "double": ("f64",), "i32": ("s32",)}
"""Types of c and d."""

BYTES = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}

TF32 = ~0x1FFF
"""The bits of a float that tf32 keeps."""


class EmulatedMatrices(EmulatedThreads):
    """See EmulatorCode."""

    def slots(self, b: Builder, thread: Value) -> Value:
        """The slots of a thread (i64)."""
        return self.place(b, "slots", "i64", THREADS * SLOTS, b.mul(thread, i64(SLOTS)))

    def byte_table(self, format: str) -> Value:
        """The values of all bytes as floats of eight bits."""
        with np.errstate(invalid="ignore"):
            table = np.arange(256, dtype=np.uint8).view(BYTES[format]).astype(np.float32)
        return self.module.constant_bytes(table.tobytes())

    def _whole(self, b: Builder, lanes: Value, site: Value) -> None:
        self.fail_unless(b, b.icmp_signed("==", lanes, i64(WARP)), MISSHAPEN, site, lanes)

    def load_matrices(self, count: int, transposed: bool) -> Function:
        """Each lane leaves an address in slot 0, and finds an i32 a matrix in its results."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            def together(first: Value, lanes: Value) -> None:
                self._whole(b, lanes, p.site)
                with b.for_loop(i64(0), i64(8 * count)) as number:
                    self._load_row(b, p.site, first, number, transposed)

            self.meet_warp(b, p.site, together, orders=False)

        name = f"load_matrices.{count}{'.transposed' if transposed else ''}"
        return self.function(name, "ptr site", write)

    def _load_row(self, b: Builder, site: Value, first: Value, number: Value, transposed: bool) -> None:
        """Row number % 8 of matrix number / 8, as the lane of that number would load it."""
        this, owner = self.get(b, "thread", "i32"), b.add(first, number)
        row = b.load("ptr", self.slots(b, owner))
        self.set(b, "thread", b.trunc(owner, "i32"))
        b.call(self.shared_access(READ, 16), [row, i64(15), self.text("reads a row of a matrix in shared memory")])
        self.set(b, "thread", this)
        slot = b.add(b.lshr(number, i64(3)), i64(OUTPUTS))
        line = b.and_(number, i64(7))
        with b.for_loop(i64(0), i64(8)) as column:
            across, along = (column, line) if transposed else (line, column)
            lane = b.add(b.mul(across, i64(4)), b.lshr(along, i64(1)))
            target = b.gep("i64", self.slots(b, b.add(first, lane)), slot)
            half = b.gep("i16", target, b.and_(along, i64(1)))
            b.store(b.load("i16", b.gep("i16", row, column)), half)

    # Products

    def mma(self, shape: str, types: str, registers: tuple[int, int, int]) -> Function:
        """Each lane leaves its registers of a, b and c, and finds those of d in its results."""
        product = _Product(self, shape, types)
        if registers != product.registers:
            raise HloError(f"mma {shape} {types} takes {product.registers} registers, not {registers}")

        def write(b: Builder, p: SimpleNamespace) -> None:
            def together(first: Value, lanes: Value) -> None:
                self._whole(b, lanes, p.site)
                product.write(b, first)

            self.meet_warp(b, p.site, together, orders=False)

        return self.function(f"mma.{shape}.{types}", "ptr site", write)


class _Product:
    """d = a b + c of one shape and types: the fragments are put together to whole matrices, rows of eight."""

    def __init__(self, code: EmulatedMatrices, shape: str, types: str):
        names = types.split(".")
        if not _exists(shape, names):
            raise HloError(f"there is no mma {shape} of {types} to emulate")
        self.code, self.types = code, names
        self.m, self.k = (int(size) for size in shape[1:].split("n8k"))
        bits, self.kind, _ = _FORMATS[names[1]]
        self.each = max(32 // bits, 1)
        self.halves = self.m // 8
        blocks = self.k // (4 * self.each)
        packed = names[3] == "f16"
        self.registers = (self.halves * blocks, blocks, self.halves * (1 if packed else 2))

    def write(self, b: Builder, first: Value) -> None:
        """Code for the warp of a first thread."""
        with b.for_loop(i64(0), i64(WARP)) as lane:
            slots = self.code.slots(b, b.add(first, lane))
            group, part = b.lshr(lane, i64(2)), b.and_(lane, i64(3))
            self._gather(b, slots, group, part)
            self._move_sums(b, slots, group, part, inward=True)
        self._multiply(b)
        with b.for_loop(i64(0), i64(WARP)) as lane:
            slots = self.code.slots(b, b.add(first, lane))
            self._move_sums(b, slots, b.lshr(lane, i64(2)), b.and_(lane, i64(3)), inward=False)

    def _place(self, b: Builder, name: str, index: Value) -> Value:
        return self.code.place(b, f"matrix.{name}.{self.kind}", self.kind, 16 * 64, index)

    def _gather(self, b: Builder, slots: Value, group: Value, part: Value) -> None:
        for register in range(self.registers[0] + self.registers[1]):
            is_a = register < self.registers[0]
            number = register if is_a else register - self.registers[0]
            block, half = divmod(number, self.halves) if is_a else (number, 0)
            slot = b.gep("i64", slots, i64(register))
            values = self._elements(b, slot, self.types[1 if is_a else 2])
            for position, value in enumerate(values):
                k = b.add(b.mul(part, i64(self.each)), i64(4 * self.each * block + position))
                row = b.add(group, i64(8 * half))
                index = b.add(b.mul(row, i64(self.k)), k) if is_a else b.add(b.mul(k, i64(8)), group)
                b.store(value, self._place(b, "a" if is_a else "b", index))

    def _elements(self, b: Builder, slot: Value, format: str) -> list[Value]:
        """The elements of one register."""
        if format == "f64":
            return [b.load("double", slot)]
        word = b.load("i32", slot)
        if format == "tf32":
            return [b.bitcast(b.and_(word, i32(TF32)), "float")]
        bits = _FORMATS[format][0]
        parts = [b.trunc(b.lshr(word, i32(bits * n)), f"i{bits}") for n in range(self.each)]
        if format in ("f16", "bf16"):
            return [b.fpext(b.bitcast(part, "half" if format == "f16" else "bfloat"), "float") for part in parts]
        if format in BYTES:
            place = self.code.byte_table(format)
            return [b.load("float", b.gep("float", place, b.zext(part, "i64"))) for part in parts]
        return [b.sext(part, "i32") if format[0] == "s" else b.zext(part, "i32") for part in parts]

    def _move_sums(self, b: Builder, slots: Value, group: Value, part: Value, inward: bool) -> None:
        """Between c in slots and the sums, or between the sums and d."""
        before = self.registers[0] + self.registers[1] if inward else OUTPUTS
        packed = self.types[3 if inward else 0] == "f16"
        for half in range(self.halves):
            for column in (0, 1):
                row = b.add(group, i64(8 * half))
                index = b.add(b.mul(row, i64(8)), b.add(b.mul(part, i64(2)), i64(column)))
                place = self._place(b, "sums", index)
                number = before + (half if packed else 2 * half + column)
                slot = b.gep("i64", slots, i64(number))
                if packed:
                    slot = b.gep("half", slot, i64(column))
                if inward:
                    value = b.load("half" if packed else self.kind, slot)
                    b.store(b.fpext(value, "float") if packed else value, place)
                else:
                    value = b.load(self.kind, place)
                    b.store(b.fptrunc(value, "half") if packed else value, slot)

    def _multiply(self, b: Builder) -> None:
        type = f"<8 x {self.kind}>"
        b.fast = "contract"
        times, plus = (b.mul, b.add) if self.kind == "i32" else (b.fmul, b.fadd)
        with b.for_loop(i64(0), i64(self.m)) as row:
            place = self._place(b, "sums", b.mul(row, i64(8)))

            def step(k: Value, carried: list[Value]) -> list[Value]:
                one = b.load(self.kind, self._place(b, "a", b.add(b.mul(row, i64(self.k)), k)))
                line = b.load(type, self._place(b, "b", b.mul(k, i64(8))), align=8)
                return [plus(carried[0], times(b.splat(one, 8), line))]

            sums = b.for_loop_carrying(i64(0), i64(self.k), [b.load(type, place, align=8)], step)
            b.store(sums[0], place, align=8)
        b.fast = ""


def _exists(shape: str, types: list[str]) -> bool:
    """Whether PTX has a product of that shape, and of these types of d, a, b, c."""
    if len(types) != 4 or not set(types[1:3]) <= _FORMATS.keys():
        return False
    of_a, of_b = (_FORMATS[name] for name in types[1:3])
    return of_a == of_b and shape in of_a[2].split() and {types[0], types[3]} <= set(_SUMS[of_a[1]])
