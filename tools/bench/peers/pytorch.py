"""torch on the CPU: eager, and compiled by Inductor."""

from __future__ import annotations

import os
from functools import partial

import numpy as np

from tools.bench.tasks import Stopwatch, Task
from tools.bench.workloads import FAMILIES


class Torch:
    needs = {"torch": "torch"}

    def __init__(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.set_grad_enabled(False)
        for family in FAMILIES:  # the module itself: a lazy one would take its time in every call
            family.torch = torch

    def prepare(self, task: Task) -> dict | None:
        workload = task.workload
        if workload is None or workload.torch is None:
            return None
        make = workload.torch_inputs or (lambda arrays: [self._tensor(array) for array in arrays])
        arguments = make(task.inputs)
        with Stopwatch() as compiling:
            self.call = partial(self._compiled(workload.torch), *arguments)
            self.call()
        return compiling.facts("compile")

    def _compiled(self, function):
        return function

    def _tensor(self, array: np.ndarray) -> object:
        if array.dtype.name == "bfloat16":
            return self.torch.from_numpy(array.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(array)

    def outputs(self) -> list[np.ndarray]:
        results = self.call()
        results = results if isinstance(results, tuple | list) else [results]
        narrow = self.torch.bfloat16
        return [(tensor.float() if tensor.dtype == narrow else tensor).contiguous().numpy() for tensor in results]


class Inductor(Torch):
    def _compiled(self, function):
        self.torch._dynamo.reset()
        return self.torch.compile(function, fullgraph=True, dynamic=False)
