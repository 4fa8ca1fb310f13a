"""The limits of this machine, measured: how fast it reads, writes and copies arrays by size, and multiplies and adds.

    python -m tools.bench.limits [--threads N] [--rounds N]

Loops are LLVM IR, compiled for the host at its full vector width. Each thread has a part of the arrays; what is kept
is the fastest of many short runs, by all threads or by one, since other work on the machine only ever slows a run
down. A write is by plain or by streaming stores, whichever is faster. `Limits.floor` turns bytes and flops into the
least time they take.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from llvmlite import binding

SIZES = tuple(1 << power for power in (14, 16, 18, 20, 22, 24, 26, 27))
"""Bytes that a loop over memory touches."""

_ALIGNMENT = 64
_RUN_SECONDS = 0.003
_CHAINS = 10  # of fused multiply-adds side by side: more than latency times units


@dataclass(frozen=True)
class Limits:
    """What `threads` threads reach together. Rates are bytes a second by the bytes touched, and operations a second."""

    threads: int
    read: dict[int, float]
    write: dict[int, float]
    copy: dict[int, float]
    flops: dict[str, float]

    def floor(self, read_bytes: int, write_bytes: int, flops: float, kind: str) -> float:
        """The least seconds for reading, writing and calculating, which may go on at the same time.

        Bytes move at the rates of loops that touch as many, reading and writing apart or as a copy does it.
        """
        moved = read_bytes + write_bytes
        apart = read_bytes / _rate(self.read, moved) + write_bytes / _rate(self.write, moved)
        seconds = min(apart, moved / _rate(self.copy, moved)) if read_bytes and write_bytes else apart
        return max(seconds, flops / self.flops[kind]) if kind in self.flops else seconds

    def as_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(data: dict) -> Limits:
        """JSON's keys are text."""
        by_size = {name: {int(size): rate for size, rate in data[name].items()} for name in ("read", "write", "copy")}
        return Limits(data["threads"], **by_size, flops=data["flops"])

    def __str__(self) -> str:
        lines = [f"{self.threads} threads, GB/s    read    write     copy"]
        for size in self.read:
            rates = (self.read[size], self.write[size], self.copy[size])
            lines.append(f"{size >> 10:9} KiB  " + " ".join(f"{rate / 1e9:8.1f}" for rate in rates))
        lines += [f"{kind}: {rate / 1e9:.1f} Gop/s" for kind, rate in self.flops.items()]
        return "\n".join(lines)


def _rate(rates: dict[int, float], size: int) -> float:
    """Of the size, between those measured on a logarithmic scale."""
    sizes = sorted(rates)
    return float(np.interp(np.log2(max(size, 1)), np.log2(sizes), [rates[s] for s in sizes]))


@dataclass(frozen=True)
class _Loop:
    """A loop of LLVM IR, `run(source, target, mask, total)`: a turn is `step` bytes or operations of the total.

    Of a loop over memory, `%offset` is where in the array a turn begins; the array has `mask + 1` bytes. Each of
    `carried` values of a type is `%aN` before a turn and `%nN` after it.
    """

    step: int
    body: tuple[str, ...]
    type: str = ""
    carried: int = 0
    setup: str = ""
    declarations: str = ""

    def text(self) -> str:
        numbers = range(self.carried)
        return "\n".join(
            [
                self.declarations,
                "define void @run(ptr %source, ptr %target, i64 %mask, i64 %total) {",
                f"entry:\n{self.setup}\n  br label %loop",
                "loop:\n  %i = phi i64 [ 0, %entry ], [ %j, %loop ]",
                *[f"  %a{n} = phi {self.type} [ zeroinitializer, %entry ], [ %n{n}, %loop ]" for n in numbers],
                "  %offset = and i64 %i, %mask",
                *self.body,
                f"  %j = add i64 %i, {self.step}\n  %more = icmp ult i64 %j, %total",
                "  br i1 %more, label %loop, label %end\nend:",
                *[f"  store volatile {self.type} %n{n}, ptr %target, align 4" for n in numbers],
                "  ret void\n}\n!0 = !{i32 1}",
            ]
        )


def _width() -> int:
    """Bytes of the widest registers of the host."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def _memory_loops() -> dict[str, list[_Loop]]:
    """Loops that read, write and copy; where there are stores, with plain and with streaming ones."""
    width, unrolled = _width(), range(8)
    kind = f"<{width // 4} x float>"

    def address(name: str, base: str, part: int) -> list[str]:
        at = f"%{name}_at{part}"
        return [
            f"  {at} = add i64 %offset, {part * width}",
            f"  %{name}{part} = getelementptr i8, ptr {base}, i64 {at}",
        ]

    def load(part: int) -> list[str]:
        return [*address("from", "%source", part), f"  %x{part} = load {kind}, ptr %from{part}, align {width}"]

    def store(part: int, value: str, hint: str) -> list[str]:
        return [*address("to", "%target", part), f"  store {kind} {value}, ptr %to{part}, align {width}{hint}"]

    def loop(lines: Callable[[int], list[str]], carried: int = 0) -> _Loop:
        return _Loop(len(unrolled) * width, tuple(line for part in unrolled for line in lines(part)), kind, carried)

    hints = ("", ", !nontemporal !0")
    return {
        "read": [loop(lambda p: [*load(p), f"  %n{p} = fadd {kind} %a{p}, %x{p}"], len(unrolled))],
        "write": [loop(lambda p, hint=hint: store(p, "zeroinitializer", hint)) for hint in hints],
        "copy": [loop(lambda p, hint=hint: [*load(p), *store(p, f"%x{p}", hint)]) for hint in hints],
    }


def _arithmetic_loops() -> dict[str, _Loop]:
    """Multiply-adds of each kind, whose step is the operations of a turn."""
    width = _width()
    loops = {"f32": _multiply_adds("float", "f32", width // 4), "f64": _multiply_adds("double", "f64", width // 8)}
    features = binding.get_host_cpu_features()
    lanes = width // 4
    if features.get("avx512vnni"):
        loops["s8"] = _byte_products(f"<{lanes} x i32>", f"llvm.x86.avx512.vpdpbusd.{8 * width}", 8 * lanes)
    elif features.get("avx2"):
        name = "llvm.x86.avx512.pmaddw.d.512" if width == 64 else "llvm.x86.avx2.pmadd.wd"
        loops["s8"] = _pair_products(f"<{lanes} x i32>", f"<{2 * lanes} x i16>", name, 4 * lanes)
    return loops


def _multiply_adds(element: str, suffix: str, lanes: int) -> _Loop:
    kind, name = f"<{lanes} x {element}>", f"@llvm.fma.v{lanes}{suffix}"
    body = [f"  %n{c} = call {kind} {name}({kind} %a{c}, {kind} %f, {kind} %f)" for c in range(_CHAINS)]
    declaration = f"declare {kind} {name}({kind}, {kind}, {kind})"
    return _Loop(2 * lanes * _CHAINS, tuple(body), kind, _CHAINS, _factor(kind), declaration)


def _byte_products(kind: str, name: str, operations: int) -> _Loop:
    """VNNI: four products of bytes are added to one i32."""
    body = [f"  %n{c} = call {kind} @{name}({kind} %a{c}, {kind} %f, {kind} %f)" for c in range(_CHAINS)]
    declaration = f"declare {kind} @{name}({kind}, {kind}, {kind})"
    return _Loop(operations * _CHAINS, tuple(body), kind, _CHAINS, _factor(kind), declaration)


def _pair_products(kind: str, halves: str, name: str, operations: int) -> _Loop:
    """Bytes widened to i16: two products are added, then added to an i32."""
    body = []
    for c in range(_CHAINS):
        body += [
            f"  %h{c} = bitcast {kind} %a{c} to {halves}",
            f"  %p{c} = call {kind} @{name}({halves} %h{c}, {halves} %f)",
            f"  %n{c} = add {kind} %p{c}, %a{c}",
        ]
    declaration = f"declare {kind} @{name}({halves}, {halves})"
    return _Loop(operations * _CHAINS, tuple(body), kind, _CHAINS, _factor(halves), declaration)


def _factor(kind: str) -> str:
    return f"  %f = load volatile {kind}, ptr %source, align 4"


class _Native:
    """A loop as machine code."""

    def __init__(self, loop: _Loop):
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        features = binding.get_host_cpu_features().flatten() + ",-prefer-256-bit"
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(), features=features, opt=2
        )
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(loop.text()), machine)
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self.run = kind(self._engine.get_function_address("run"))


def aligned(size: int) -> np.ndarray:
    """Bytes that were written: all pages that never were are one page, which a cache holds."""
    room = np.full(size + _ALIGNMENT, 1, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size]


class Gauge:
    """Measures again and again; `limits` are the best of all that it has seen.

    Between other measurements, `look` sees the machine as these do. With no number given there are as many threads
    as processors.
    """

    def __init__(self, threads: int | None = None):
        self._threads = threads or len(os.sched_getaffinity(0))
        self._arrays = aligned(SIZES[-1]), aligned(SIZES[-1])
        loops = [(name, loop, size) for name, loops in _memory_loops().items() for loop in loops for size in SIZES]
        loops += [(name, loop, 4096) for name, loop in _arithmetic_loops().items()]
        natives = {loop: _Native(loop) for loop in dict.fromkeys(loop for _, loop, _ in loops)}
        self._loops = [(name, loop, size, natives[loop]) for name, loop, size in loops]
        self._totals: dict[tuple, int] = {}
        self._rates: dict[tuple[str, int], float] = {}

    def look(self) -> None:
        """Every loop at every size, once by all threads and once by one. Takes half a second, the first time more."""
        for name, loop, size, native in self._loops:
            array_bytes = size // 2 if name == "copy" else size
            for threads in {1, self._threads}:
                rate = self._rate(native, loop, array_bytes, threads) * size / array_bytes
                self._rates[name, size] = max(rate, self._rates.get((name, size), 0.0))

    def _rate(self, native: _Native, loop: _Loop, array_bytes: int, threads: int) -> float:
        """Of one run, which is as long as `_RUN_SECONDS` at least: bytes of the array, or operations, a second."""
        part = 1 << ((array_bytes // threads).bit_length() - 1)
        key = (loop, array_bytes, threads)
        total = self._totals.get(key, max(part, loop.step))
        seconds = self._seconds(native, part, total, threads)
        while seconds < _RUN_SECONDS and key not in self._totals:
            total *= 2
            seconds = self._seconds(native, part, total, threads)
        self._totals[key] = total
        return threads * total / seconds

    def _seconds(self, native: _Native, part: int, total: int, threads: int) -> float:
        source, target = (array.ctypes.data for array in self._arrays)

        def one(number: int) -> None:
            native.run(source + number * part, target + number * part, part - 1, total)

        others = [threading.Thread(target=one, args=(number,)) for number in range(1, threads)]
        start = time.perf_counter()
        for other in others:
            other.start()
        one(0)
        for other in others:
            other.join()
        return time.perf_counter() - start

    @property
    def limits(self) -> Limits:
        """After one look at least."""
        by_size = {
            name: {size: self._rates[name, size] for size in SIZES if (name, size) in self._rates}
            for name in ("read", "write", "copy")
        }
        flops = {name: rate for (name, _), rate in self._rates.items() if name not in by_size}
        return Limits(self._threads, **by_size, flops=flops)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", type=int)
    options.add_argument("--rounds", type=int, default=10)
    chosen = options.parse_args()
    gauge = Gauge(chosen.threads)
    for _ in range(chosen.rounds):
        gauge.look()
    print(gauge.limits)


if __name__ == "__main__":
    main()
