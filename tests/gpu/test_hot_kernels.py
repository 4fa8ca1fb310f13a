"""The kernels of the GPU benchmark, at its sizes, as ptxas sees them: no spills, no divisions, accesses of 16 bytes.

Products are made by warpgroups where there are such, of tiles that are fetched whole.
"""

from __future__ import annotations

import pytest

from tools.bench.gpu_kernels import COUNTED, HEAD, rows
from tools.bench.gpu_workloads import Workload, workloads

# A turned copy reads and writes single elements of 4 bytes, coalesced.
NARROW = ("transpose",)
PRODUCTS = ("product", "attention")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
@pytest.mark.parametrize("workload", workloads(False), ids=lambda workload: workload.name)
def test_hot_kernels(workload: Workload, arch: str) -> None:
    found = [dict(zip(HEAD, row, strict=True)) for row in rows(workload, arch, None)]
    kind = workload.name.split()[0]
    assert [row["spilled"] for row in found] == ["0"] * len(found)
    assert found[0]["divisions"] == "0"
    count = {name: int(found[0][name]) for name in COUNTED}
    assert count["16-byte accesses"] + count["async copies"] > 0 or kind in NARROW
    by_groups = kind == "product" and arch == "sm_90a"
    assert (count["mma"] >= 64) == (kind in PRODUCTS and not by_groups)
    assert (count["wgmma"] >= 4) == (count["tile copies"] >= 2) == by_groups
