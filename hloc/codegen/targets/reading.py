"""The generator's text as LLVM reads it."""

from __future__ import annotations

import llvmlite.binding as llvm


def read(llvm_ir: str, context: llvm.ContextRef | None = None) -> llvm.ModuleRef:
    """The module of a text, verified. RuntimeError, with LLVM's words, if LLVM refuses it.

    It has a context of its own unless one is given: types, constants and names live in the context, and as long as it.
    """
    try:
        module = llvm.parse_assembly(llvm_ir, context or llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise RuntimeError(f"LLVM refuses the generated text: {error}") from None
    return module
