"""Processes that run programs one at a time, and are replaced when they crash or hang."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from tools.fuzz.executors import Program, Xla, XlaResult, check
from tools.fuzz.generate import generate


@dataclass
class Task:
    """A program, or the seed of one; the native worker also gets the executors' names and XLA's result."""

    seed: int | None = None
    program: Program | None = None
    executors: tuple[str, ...] = ()
    xla: XlaResult | None = None

    def made(self) -> Program:
        if self.program is not None:
            return self.program
        case = generate(self.seed)
        return Program(case.module.to_text(), case.arguments, case.portable, self.seed)


@dataclass
class Reply:
    """What came back: status is ok, CRASH or TIMEOUT."""

    status: str
    value: object = None


_WARM_UP = Program("HloModule warm_up\nENTRY e {\n  ROOT c = f32[] constant(0)\n}", [])


def native() -> Callable[[Task], object]:
    # Loads all that a program needs, so that no program's time counts it.
    check(_WARM_UP, ("cpu",))
    return lambda task: check(task.made(), task.executors, task.xla)


def jaxlib() -> Callable[[Task], object]:
    # Processes started before jax is imported get these; sessions with a GPU must not use it.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    xla = Xla()
    xla.run(_WARM_UP)
    return lambda task: xla.run(task.made())


KINDS = {"native": native, "jaxlib": jaxlib}


def serve(pipe, kind: str) -> None:
    handle = KINDS[kind]()
    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        try:
            pipe.send(handle(task))
        except Exception as error:  # a fault of the fuzzer itself: told, and the run goes on
            pipe.send(error)


class Worker:
    """One process of a kind."""

    def __init__(self, kind: str, limit: float):
        self.kind, self.limit = kind, limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.kind), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def give(self, task: Task) -> None:
        self.began = time.monotonic()
        self.pipe.send(task)

    def collect(self) -> Reply:
        """Waits for the answer to the task."""
        if not self.pipe.poll(max(0.1, self.limit - (time.monotonic() - self.began))):
            return self._replaced("TIMEOUT")
        try:
            return Reply("ok", self.pipe.recv())
        except EOFError:
            self.process.join()
            return self._replaced("CRASH")

    def run(self, task: Task) -> Reply:
        self.give(task)
        return self.collect()

    def _replaced(self, status: str) -> Reply:
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self._start()
        return Reply(status, f"exit status {code}" if status == "CRASH" else f"over {self.limit:g} s")

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()
