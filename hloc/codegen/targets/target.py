"""What the generator knows of a machine: a record, filled by one module a target."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

from hloc.codegen.llvm import Builder, Value
from hloc.errors import HloError
from hloc.options import Options
from hloc.records import record


@record
class Target:
    """A machine that programs are compiled for.

    `pipeline` names its passes; `triple`, `data_layout`, `cpu` and `features` are LLVM's. `vector_bytes` is
    the width of its vector registers. `function_attributes` is LLVM text that every function carries.
    `enter_flushing(b)` emits what makes float operations flush denormals and returns what
    `leave_flushing(b, value)` needs to undo it; `enter_exact(b)` emits what makes them keep denormals, to be
    undone alike. `stages` turns LLVM IR text into later forms: "llvm-opt" and "asm" give text, "obj" bytes.
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

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def lower(self, llvm_ir: str, stage: str, options: Options) -> str | bytes:
        """The program at a later stage. RuntimeError, with LLVM's words, if LLVM refuses the text."""
        return self.stages[stage](llvm_ir, options)


# Loaded when asked for: each of them loads LLVM.
_HOMES = {"cpu": "hloc.codegen.targets.cpu"}


@cache
def target_named(name: str) -> Target:
    """The target of that name, for this machine; HloError if there is none."""
    if name not in _HOMES:
        raise HloError(f'no target "{name}"; there is: {", ".join(_HOMES)}')
    return import_module(_HOMES[name]).target()
