"""hloc: a standalone compiler for HLO, the language that JAX and XLA dump.

    import hloc
    module = hloc.parse(open("softmax.hlo").read())
    softmax = hloc.compile(module)
    y = softmax(x)

`parse`, `verify`, `evaluate`, `optimize` and `compile` are described in `hloc.api`; `register_custom_call` says
what a custom call runs. They are loaded when first used, so that `import hloc` alone stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hloc.errors import ArgumentError, HloError
from hloc.ir.module import Module

__version__ = "0.1.0"

_HOMES = {
    "parse": "hloc.api",
    "verify": "hloc.api",
    "evaluate": "hloc.api",
    "optimize": "hloc.api",
    "compile": "hloc.api",
    "register_custom_call": "hloc.host.custom_calls",
    "Options": "hloc.options",
    "Executable": "hloc.runtime.executable",
    "Builder": "hloc.ir.builder",
}

__all__ = ["ArgumentError", "HloError", "Module", "__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hloc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _text_form(module: Module, **options: Any) -> str:
    printer = import_module("hloc.text.printer")
    return printer.print_module(module, printer.PrintOptions(**options))


Module.text_form = staticmethod(_text_form)
