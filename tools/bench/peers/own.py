"""hloc: the text compiled for the CPU, called with NumPy arrays."""

from __future__ import annotations

import os
from functools import partial

import numpy as np

import hloc
from hloc.arrays import in_layout
from hloc.options import Options
from tools.bench.tasks import WARM_UP, Stopwatch, Task


class Hloc:
    needs = {"llvmlite": "llvmlite", "lark": "lark"}

    def __init__(self) -> None:
        hloc.compile(WARM_UP, options=Options(cache=False))

    def prepare(self, task: Task) -> dict:
        """`compile_seconds` is without the cache; `cached_seconds` takes the same program from a warm one."""
        text = task.text.read_text(encoding="utf-8")
        with Stopwatch() as compiling:
            self.executable = hloc.compile(text, options=Options(cache=False))
        shapes = [leaf.shape for leaf in self.executable.program.parameters]
        arguments = [in_layout(array, shape) for array, shape in zip(task.inputs, shapes, strict=True)]
        self.call = partial(self.executable, *arguments)
        self.arguments = arguments
        facts = compiling.facts("compile") | {"kernels": len(self.executable.program.kernels)}
        if os.environ.get("XDG_CACHE_HOME"):  # one of the benchmark's own: it begins empty
            hloc.compile(text)
            with Stopwatch() as loading:
                hloc.compile(text)
            facts |= loading.facts("cached")
        return facts

    def outputs(self) -> list[np.ndarray]:
        return self.executable.execute(*self.arguments)
