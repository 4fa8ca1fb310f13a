"""LLVM's loader of object files: for machines and formats that `hloc.runtime.elf` does not know."""

from __future__ import annotations

import llvmlite.binding as llvm

from hloc.codegen.targets.cpu import new_machine


class Loaded:
    """Object files in memory, ready to be called; they stay there as long as this object lives."""

    def __init__(self, *files: bytes):
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_machine())
        for data in files:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where a symbol of the file lies. RuntimeError if it has none of that name."""
        found = self._engine.get_function_address(name)
        if not found:
            raise RuntimeError(f"the object code has no {name}")
        return found

    def name_at(self, address: int) -> str | None:
        """The function that an address lies in: LLVM does not tell."""
        return None
