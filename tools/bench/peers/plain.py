"""NumPy, as its users write the same work."""

from __future__ import annotations

from functools import partial

import numpy as np

from tools.bench.tasks import Task


class NumPy:
    needs = {"numpy": "numpy"}

    def prepare(self, task: Task) -> dict | None:
        function = task.workload.numpy if task.workload else None
        if function is None:
            return None
        self.call = partial(function, *task.inputs)
        return {}

    def outputs(self) -> list[np.ndarray]:
        return [np.asarray(self.call())]
