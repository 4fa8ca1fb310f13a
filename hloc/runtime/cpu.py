"""Native code of a program in this process: loaded, and called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llvmlite.binding as llvm

from hloc.codegen.program import Program, buffers
from hloc.codegen.targets.cpu import new_machine

_ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 5)


class NativeCode:
    """A program's object code in memory. Calls may come from several threads at once.

    The code needs nothing from outside but what LLVM itself calls (memcpy, memset, memmove of the C library).
    """

    def __init__(self, program: Program):
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(program.object_code))
        self._engine.finalize_object()
        address = self._engine.get_function_address(program.entry)
        if not address:
            raise RuntimeError(f"the object code has no {program.entry}")
        self._entry = _ENTRY_TYPE(address)
        self._args = ctypes.c_int64 * sum(len(buffers(leaf.shape)) for leaf in program.parameters)
        self._results = ctypes.c_int64 * sum(len(buffers(leaf.shape)) for leaf in program.results)

    def run(
        self, args: Sequence[int], results: Sequence[int], arena: int, constants: int, context: int
    ) -> int:
        """Runs the entry, given the addresses of its leaves, of its memory and of the execution context.

        The status is 0 if all went well.
        """
        return self._entry(self._args(*args), self._results(*results), arena, constants, context)
