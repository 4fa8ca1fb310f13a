"""The peers, a class each. A worker process (`tools.bench.worker`) runs one of them.

A peer has

* `needs`: packages that have to be installed for it, each with a module of it;
* `prepare(task)`: get ready for a `tools.bench.tasks.Task`; facts for the report, `compile_seconds` and
  `compile_cpu_seconds` among them;
* `call`: one run, its results ready. What it returns is dropped;
* `outputs()`: results of one run as NumPy arrays.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

_HOMES = {
    "hloc": "tools.bench.peers.own:Hloc",
    "xla": "tools.bench.peers.xla:Xla",
    "torch": "tools.bench.peers.pytorch:Torch",
    "inductor": "tools.bench.peers.pytorch:Inductor",
    "iree": "tools.bench.peers.iree:Iree",
    "numpy": "tools.bench.peers.plain:NumPy",
}

NAMES = tuple(_HOMES)

TEXT_PEERS = ("hloc", "xla")
"""Those that take a program as HLO text."""


def peer_class(name: str) -> Any:
    module, attribute = _HOMES[name].split(":")
    return getattr(import_module(module), attribute)


def missing(name: str) -> list[str]:
    """Packages that a peer needs and this interpreter does not have."""
    return [package for package, module in peer_class(name).needs.items() if not _is_installed(module)]


def versions(name: str) -> list[str]:
    """Of the packages, none of which is missing."""
    return [f"{package} {version(package)}" for package in peer_class(name).needs]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        return False
