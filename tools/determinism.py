"""Same input, same bytes: compiles every program of a folder under several hash seeds and compares what comes out.

    python -m tools.determinism FOLDER [--seeds 1 2] [--programs softmax attention]

For each hash seed one process compiles all programs (`*.hlo`, but not `*.opt.hlo`) and tells digests: of each file of
the dump, of what the dump's index says of each pass but for times, and of the LLVM IR. Of each program that differs the
first such thing is told; exit status 1 then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hloc import api
from hloc.codegen.compile import emit_stage
from hloc.errors import HloError, InternalError
from hloc.options import Options

Digests = dict[str, str]
"""A digest for each stage of a compile, in order."""


def programs_in(folder: Path, names: Sequence[str]) -> list[Path]:
    """The programs of a folder in order, all or those of these names."""
    found = [path for path in sorted(folder.glob("*.hlo")) if not path.name.endswith(".opt.hlo")]
    return [path for path in found if not names or path.stem in names]


def digests(path: Path, target: str = "cpu") -> Digests:
    """What each stage of a program's compile makes. A fault in the program is a stage too."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            llvm_ir = emit_stage(api.parse(path), "llvm", target, Options(dump_to=folder))
            last = {"llvm": digest(llvm_ir)}
        except HloError as error:
            last = {"error": digest(str(error))}
        except InternalError as error:
            last = {"error": digest(error.pass_name)}  # the message has the folder's name
        return {**dumped(Path(folder)), **last}


def dumped(folder: Path) -> Digests:
    """Digests of the files of a dump, and of what its index says but for times."""
    made = {}
    index = json.loads((folder / "index.json").read_text()) if (folder / "index.json").exists() else {"passes": []}
    for run in index["passes"]:
        timeless = {name: value for name, value in run.items() if not name.endswith("ms")}
        text = (folder / run["file"]).read_text() if run["file"] else ""
        made[f"{run['number']:02}.{run['pass']}"] = digest(json.dumps(timeless) + text)
    return made


def digest(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()


def worker(paths: Sequence[Path]) -> None:
    """Print a line of JSON for each program: its name and its digests."""
    for path in paths:
        print(json.dumps([path.stem, digests(path)]), flush=True)


def under_seed(seed: int, folder: Path, names: Sequence[str]) -> dict[str, Digests]:
    """The digests of all programs, made by a process with a hash seed of its own."""
    command = [sys.executable, "-m", "tools.determinism", str(folder), "--worker", "--programs", *names]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(line) for line in done.stdout.splitlines())


def differences(one: dict[str, Digests], other: dict[str, Digests]) -> Iterator[tuple[str, str]]:
    """(program, first stage that is not the same) for each program that has any."""
    for name, stages in one.items():
        if stages != other[name]:
            both = list({**stages, **other[name]})
            yield name, next(stage for stage in both if stages.get(stage) != other[name].get(stage))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options.add_argument("--programs", nargs="*", default=[], metavar="NAME", help="these alone")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.worker:
        worker(programs_in(chosen.folder, chosen.programs))
        return
    first, *others = (under_seed(seed, chosen.folder, chosen.programs) for seed in chosen.seeds)
    found = [difference for other in others for difference in differences(first, other)]
    for name, stage in found:
        print(f"{name} differs from {stage} on")
    failed = sum("error" in stages for stages in first.values())
    different = len({name for name, _ in found})
    print(f"{len(first)} programs, {len(chosen.seeds)} hash seeds: {different} differ, {failed} do not compile")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
