"""The kernels of the GPU benchmark's programs as ptxas sees them: what can be said of their speed without a GPU.

    python -m tools.bench.gpu_kernels [--arch sm_80,sm_90a,sm_120] [--ptxas PATH] [--markdown OUT]

Of each kernel registers, shared memory, spills and occupancy; of a program's PTX the products on matrix units, by warps
(`mma`) and by warpgroups (`wgmma`), accesses of 16 bytes, asynchronous copies, also of whole tiles, and integer
divisions. Exit status 1 if a kernel spills.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from hloc import api
from hloc.codegen.targets import kernel_stats
from hloc.codegen.targets.target import target_named
from hloc.options import Options
from tools.bench.gpu_workloads import Workload, workloads

COUNTED = {
    "mma": r"mma\.sync",
    "wgmma": r"wgmma\.mma_async",
    "16-byte accesses": r"\b(?:ld|st)\.global[.\w]*\.v(?:4\.[bfu]32|2\.[bfu]64)",
    "async copies": r"cp\.async\.c[ag]",
    "tile copies": r"cp\.async\.bulk\.tensor",
    "divisions": r"\b(?:div|rem)\.[su]\d+",
}
"""What is counted in PTX, and how it is told."""

HEAD = ("program", "architecture", "kernel", "threads", "registers", "shared", "spilled", "occupancy", *COUNTED)


def rows(workload: Workload, arch: str, ptxas: str | None) -> list[tuple[str, ...]]:
    """A row for each kernel; what is counted stands in the first one's."""
    program = api.compile_program(api.parse(workload.text), arch, Options(cache=False))
    assert program.device is not None
    text = program.device.image.decode()
    counts = [str(len(re.findall(pattern, text))) for pattern in COUNTED.values()]
    found = []
    sm = target_named(arch).device.sm
    for kernel in kernel_stats.kernel_stats(program.device, sm, ptxas):
        room = f"{kernel.occupancy.part:.0%} ({kernel.occupancy.limit})"
        numbers = map(str, (kernel.threads, kernel.registers, kernel.shared, kernel.spilled))
        found.append((workload.name, arch, kernel.name, *numbers, room, *(counts if not found else [""] * len(counts))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", default="sm_80,sm_90a,sm_120", metavar="A,B")
    parser.add_argument("--ptxas", metavar="PATH")
    parser.add_argument("--markdown", metavar="OUT", type=Path)
    options = parser.parse_args()
    archs = options.arch.split(",")
    found = [row for workload in workloads(False) for arch in archs for row in rows(workload, arch, options.ptxas)]
    lines = [HEAD, ("---",) * len(HEAD), *found]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    spilled = HEAD.index("spilled")
    sys.exit(any(row[spilled] != "0" for row in found))


if __name__ == "__main__":
    main()
