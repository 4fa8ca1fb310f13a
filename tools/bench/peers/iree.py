"""IREE: the StableHLO of a workload, compiled for this processor, on IREE's own threads."""

from __future__ import annotations

from functools import partial

import numpy as np

from tools.bench.tasks import Stopwatch, Task


class Iree:
    needs = {"iree-base-compiler": "iree.compiler", "iree-base-runtime": "iree.runtime"}

    def __init__(self) -> None:
        import iree.runtime as runtime

        self.runtime = runtime
        self.config = runtime.Config("local-task")

    def prepare(self, task: Task) -> dict | None:
        if task.stablehlo is None:
            return None
        with Stopwatch() as compiling:
            code = _compile(str(task.stablehlo))
        context = self.runtime.SystemContext(config=self.config)
        context.add_vm_module(self.runtime.VmModule.copy_buffer(self.config.vm_instance, code))
        module = next(module for name, module in context.modules.items() if name != "hal")
        arguments = [self.runtime.asdevicearray(self.config.device, array) for array in task.inputs]
        self.call = partial(module["main"], *arguments)
        self.call()
        return compiling.facts("compile")

    def outputs(self) -> list[np.ndarray]:
        results = self.call()
        results = results if isinstance(results, tuple | list) else [results]
        return [np.asarray(result.to_host()) for result in results]


def _compile(path: str) -> bytes:
    """At -O3, unless it fails there: some programs then need more stack than IREE allows."""
    import iree.compiler as compiler

    flags = ["--iree-llvmcpu-target-cpu=host", "--iree-input-demote-f64-to-f32=false"]

    def compiled(*more: str) -> bytes:
        return compiler.compile_file(
            path, target_backends=["llvm-cpu"], input_type="stablehlo", extra_args=[*flags, *more]
        )

    try:
        return compiled("--iree-opt-level=O3")
    except compiler.CompilerToolError:
        return compiled()
