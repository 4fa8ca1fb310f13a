"""What the generator knows of a machine: a record, filled by one module a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from hloc.codegen.llvm import Builder, Value
from hloc.errors import HloError
from hloc.options import Options
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.gpu.intrinsics import Dialect
    from hloc.codegen.kernel import Kernels


@record
class DeviceTraits:
    """What a target is that runs kernels by many threads, launched by a host.

    `arch` is its name as NVIDIA's tools have it (`sm_90a`), `sm` the number in it, and `is_specific` says whether
    features of that very architecture may be used (the `a`). A block has at most `shared_bytes` of shared memory, and
    a multiprocessor, of which there are `multiprocessors`, holds `threads` threads. `dialect` is how kernels are
    written. `has_wgmma` says whether there are products of warpgroups, with the barriers and copies of tiles that they
    live on.
    """

    arch: str
    sm: int
    is_specific: bool
    shared_bytes: int
    threads: int
    multiprocessors: int
    dialect: Dialect
    has_wgmma: bool


@record
class Target:
    """A machine that programs are compiled for.

    `pipeline` names its passes; `triple`, `data_layout`, `cpu` and `features` are LLVM's. `vector_bytes` is
    the width of its vector registers. `function_attributes` is LLVM text that every function carries.
    `enter_flushing(b)` emits what makes float operations flush denormals and returns what
    `leave_flushing(b, value)` needs to undo it; `enter_exact(b)` emits what makes them keep denormals, to be
    undone alike. `stages` turns LLVM IR text into later forms: "llvm-opt", "asm" and "ptx" give text, others bytes;
    `image` is the stage that a Program holds. `assembly` makes further stages of a device's PTX, by the tool at a path,
    or by one that it finds for None. `kernels` says what can be one kernel, `device` what the target is
    if a host launches kernels on it.
    """

    name: str
    pipeline: str
    triple: str
    data_layout: str
    cpu: str
    features: frozenset[str]
    vector_bytes: int
    function_attributes: str
    enter_flushing: Callable[[Builder], Value]
    leave_flushing: Callable[[Builder, Value], None]
    enter_exact: Callable[[Builder], Value]
    stages: dict[str, Callable[[str, Options], str | bytes]]
    kernels: Kernels
    image: str = "obj"
    device: DeviceTraits | None = None
    assembly: Mapping[str, Callable[[str, str | None], str | bytes]] = MappingProxyType({})

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def stage_names(self) -> tuple[str, ...]:
        """What a module becomes on the way to this target, in order."""
        return ("hlo", "llvm", *self.stages, *self.assembly)

    def lower(self, llvm_ir: str, stage: str, options: Options) -> str | bytes:
        """The program at a later stage. RuntimeError, with LLVM's words, if LLVM refuses the text."""
        return self.stages[stage](llvm_ir, options)


# Loaded when asked for: each of them loads LLVM.
_HOMES = {
    "cpu": "hloc.codegen.targets.cpu",
    "cuda": "hloc.codegen.targets.nvptx",
    "cuda-emulated": "hloc.codegen.targets.emulated",
}
_ARCH = re.compile(r"sm_(\d+)([af]?)")


@cache
def target_named(name: str) -> Target:
    """The target of that name, for this machine; HloError if there is none.

    `cuda` and `cuda:N` are GPUs of this machine, `sm_90a` and the like any GPU of that architecture, to write code
    for; `cuda-emulated` runs what is written for sm_80, or for the architecture after a colon, on the CPU.
    """
    kind, _, rest = name.partition(":")
    if _ARCH.fullmatch(name):
        return import_module(_HOMES["cuda"]).target(name)
    if kind not in _HOMES or (rest and kind == "cpu"):
        raise HloError(f'no target "{name}"; there is: {", ".join(_HOMES)}, and sm_70 to sm_120a')
    home = import_module(_HOMES[kind])
    if kind == "cuda-emulated":
        if rest and not _ARCH.fullmatch(rest):
            raise HloError(f'there is no architecture "{rest}" to emulate; sm_80, for instance, is one')
        return home.target(rest or "sm_80")
    return home.device_target(rest) if kind == "cuda" else home.target()
