"""hloc: a standalone compiler for HLO, the language that JAX and XLA dump.

    import hloc
    module = hloc.parse(open("softmax.hlo").read())
    softmax = hloc.compile(module)
    y = softmax(x)

`parse`, `verify`, `evaluate`, `optimize` and `compile` are described in `hloc.api`; `register_custom_call` says
what a custom call runs. Everything is loaded when first used: a program that imports hloc, and the `hloc` command
before it knows what to do, pay for nothing else, not even for NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hloc.ir import hooks

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "hloc.errors",
    "HloError": "hloc.errors",
    "HloWarning": "hloc.errors",
    "Module": "hloc.ir.module",
    "parse": "hloc.api",
    "verify": "hloc.api",
    "evaluate": "hloc.api",
    "evaluate_replicated": "hloc.api",
    "optimize": "hloc.api",
    "compile": "hloc.api",
    "cost_analysis": "hloc.api",
    "register_custom_call": "hloc.host.custom_calls",
    "Options": "hloc.options",
    "Executable": "hloc.runtime.executable",
    "Builder": "hloc.ir.builder",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hloc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _text_form(module: Any, **options: Any) -> str:
    printer = import_module("hloc.text.printer")
    return printer.print_module(module, printer.PrintOptions(**options))


hooks.text_form = _text_form
