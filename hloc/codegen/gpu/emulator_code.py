"""The emulator of a GPU, as functions and variables of the LLVM module whose kernels it runs.

Blocks run one after the other. The threads of a block are fibers: each has a stack, runs until it has to wait for
others, and then lets the next one go on that need not. A kernel whose threads never meet runs as a loop,
on one such stack. What a thread does wrong is put down in `emulated.error`, and the launch is left at once: the stack
it was on is never gone back to.

Everything is written when a kernel first needs it, so that a program carries only what it uses. The classes build on
each other: global memory (`emulator_code_global.py`), order (`emulator_code_order.py`), shared memory
(`emulator_code_memory.py`), threads (`emulator_code_threads.py`), matrix units (`emulator_code_matrix.py`), barriers in
shared memory (`emulator_code_barriers.py`), copies of tiles (`emulator_code_tiles.py`), and products of warpgroups
(`emulator_code_operands.py`, `emulator_code_groups.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.llvm import Builder, Function, Module, Value, integer
from hloc.codegen.routines import i64
from hloc.codegen.targets.target import Target
from hloc.errors import HloError

THREADS = 1024
"""The most threads of a block."""

WARPS = THREADS // WARP

COLD = "cold noinline noreturn"

Writer = Callable[[Builder, SimpleNamespace], Value | None]
"""Writes a body, given the parameters by name; what it gives is returned."""


def i32(number: int) -> Value:
    """An i32 known now."""
    return integer("i32", number)


class Switch:
    """How one stack is left for another on a kind of machine: code, and the first frame of a new stack.

    `assembly` is a whole function of two pointers: it saves the registers that calls preserve on the stack, puts the
    stack pointer where the first says, takes the second for the stack pointer, and restores registers from there.
    `frame` are the bytes that it saves, `start` is the place among them of the address to go on at.
    """

    def __init__(self, assembly: str, frame: int, start: int):
        self.assembly, self.frame, self.start = assembly, frame, start


def _x86() -> Switch:
    saved = ("rbp", "rbx", "r12", "r13", "r14", "r15")
    lines = [f"pushq %{name}" for name in saved]
    lines += ["movq %rsp, (%rdi)", "movq %rsi, %rsp"]
    lines += [f"popq %{name}" for name in reversed(saved)] + ["retq"]
    return Switch("\n".join(lines), 64, 48)


def _aarch64() -> Switch:
    pairs = [(f"x{n}", f"x{n + 1}") for n in range(19, 31, 2)] + [(f"d{n}", f"d{n + 1}") for n in range(8, 16, 2)]
    places = [f"{first}, {second}, [sp, #{16 * number}]" for number, (first, second) in enumerate(pairs)]
    lines = ["sub sp, sp, #160", *(f"stp {place}" for place in places), "mov x2, sp", "str x2, [x0]", "mov sp, x1"]
    lines += [*(f"ldp {place}" for place in places), "add sp, sp, #160", "ret"]
    return Switch("\n".join(lines), 160, 88)


def switch_of(machine: Target) -> Switch:
    """The switch for a machine. HloError for one that has none."""
    architecture = machine.triple.split("-")[0]
    if architecture in ("x86_64", "amd64"):
        return _x86()
    if architecture in ("aarch64", "arm64"):
        return _aarch64()
    raise HloError(f"the emulator does not know how to switch between threads on {architecture}")


class EmulatorCode:
    """The emulator's part of one module, which runs on `machine`."""

    def __init__(self, module: Module, machine: Target):
        self.module, self.machine = module, machine

    # Writing functions

    def function(
        self,
        name: str,
        params: str,
        write: Writer,
        result: str = "void",
        attributes: str = "noinline",
        linkage: str = "internal",
    ) -> Function:
        """The function of that name; `params` as in LLVM's text, `ptr site, i64 count`."""
        symbol = f"emulator.{name}"
        known = self.module.functions.get(symbol)
        if known is not None:
            return known
        pairs = [tuple(param.split()) for param in params.split(",") if param]
        attributes = f"{self.machine.function_attributes} {attributes}".strip()
        function = self.module.function(symbol, result, pairs, attributes, linkage)
        b = Builder(function)
        returned = write(b, SimpleNamespace(**{at: value for (_, at), value in zip(pairs, function.args, strict=True)}))
        if not b.block.terminated:
            b.ret(returned)
        return function

    def text(self, text: str) -> Value:
        """The address of a text that the runtime reads."""
        return self.module.constant_bytes(text.encode() + b"\0", 1)

    def variable(self, name: str, type: str, align: int = 8) -> Value:
        """The address of a variable of the emulator, zero at first.

        The module is not the only one to see it, so that LLVM supposes nothing about its value.
        """
        name = f"emulated.{name}"
        self.module.globals.setdefault(name, f"@{name} = hidden global {type} zeroinitializer, align {align}")
        return Value("ptr", f"@{name}")

    def launched(self, b: Builder, field: str) -> Value:
        """One of EMULATED_LAUNCH_FIELDS."""
        return self.get(b, f"launch.{field}")

    def get(self, b: Builder, name: str, type: str = "i64") -> Value:
        """What a variable is now."""
        return b.load(type, self.variable(name, type))

    def set(self, b: Builder, name: str, value: Value) -> None:
        """Changes a variable."""
        b.store(value, self.variable(name, value.type))

    def place(self, b: Builder, name: str, type: str, count: int, index: Value) -> Value:
        """The address of one of `count` elements of a variable; `index` is an i64."""
        return b.gep(type, self.variable(name, f"[{count} x {type}]"), index)

    def of_thread(self, b: Builder, name: str, type: str, thread: Value) -> Value:
        """The address of what a variable holds for a thread (i64)."""
        return self.place(b, name, type, THREADS, thread)

    def thread(self, b: Builder) -> Value:
        """The number of the thread that runs, in its block, an i64."""
        return b.zext(self.get(b, "thread", "i32"), "i64")

    def warp(self, b: Builder) -> Value:
        """The warp of the thread that runs, an i64."""
        return b.lshr(self.thread(b), i64(5))

    # Failing

    def fail(self, b: Builder, template: str, site: Value, *fields: Value) -> None:
        """Ends the launch here. `template` is for str.format: `site` and the i64 fields by number."""
        fields = (*fields, *[i64(0)] * (3 - len(fields)))
        b.call(self._report(), [self.text(template), site, *fields])
        b.unreachable()

    def _report(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            error = self.variable("error", "[5 x i64]")
            for number, value in enumerate((p.template, p.site, p.a, p.b, p.c)):
                b.store(value, b.gep("i64", error, i64(number)))
            self.leave(b)

        return self.function("report", "ptr template, ptr site, i64 a, i64 b, i64 c", write, attributes=COLD)

    def leave(self, b: Builder) -> None:
        """Goes back to whoever launched."""
        b.call(self.switch(), [self.variable("left", "ptr"), self.get(b, "main", "ptr")])
        b.unreachable()

    def fail_unless(self, b: Builder, condition: Value, template: str, site: Value, *fields: Value) -> None:
        """Ends the launch if something does not hold."""
        with b.if_then(b.not_(condition)):
            self.fail(b, template, site, *fields)

    # Stacks

    def switch(self) -> Function:
        """Leaves one stack for another; the first pointer is where to leave the stack pointer, the second it is."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            b.inline_asm("void", switch_of(self.machine).assembly, "~{memory}")

        return self.function("switch", "ptr from, ptr to", write, attributes="naked noinline", linkage="hidden")

    def prepared(self, b: Builder, top: Value, start: Value) -> Value:
        """The stack pointer of a new stack that begins with a function."""
        switch = switch_of(self.machine)
        pointer = b.gep("i8", top, i64(-switch.frame))
        b.store(start, b.gep("i8", pointer, i64(switch.start)))
        return pointer
