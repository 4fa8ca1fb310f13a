"""The workloads: each is one JAX function, its inputs by a seed, and the same work as torch and NumPy spell it.

The JAX function is what is measured: its lowering is the text that hloc, XLA and IREE compile. A spelling in torch or
NumPy is what a user of theirs would write for the same results. JAX and torch are loaded where they are first used,
so that a process pays for its own peer alone.
"""

from __future__ import annotations

from tools.bench.workloads import convolution, elementwise, gemm, irregular, loops, models, numeric, rows
from tools.bench.workloads.workload import Workload

FAMILIES = (elementwise, rows, gemm, convolution, loops, irregular, numeric, models)

WORKLOADS: dict[str, Workload] = {workload.name: workload for family in FAMILIES for workload in family.WORKLOADS}
