"""Native code of a program in this process: loaded, and called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from hloc.codegen.program import WORKER, Program, buffers
from hloc.lazy import lazy
from hloc.runtime import elf

# LLVM's own loader, for what `elf` does not load: object files of other machines and systems.
mcjit = lazy("hloc.runtime.mcjit")
threads = lazy("hloc.runtime.threads")

_ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 5)


class NativeCode:
    """A program's object code in memory. Calls may come from several threads at once.

    The code needs nothing from outside but what LLVM itself calls (memcpy, memset, memmove of the C library) and
    what puts a waiting device to sleep. `pool` is the address of the threads' words, 0 if the program needs none.
    """

    def __init__(self, program: Program):
        load = elf.Loaded if elf.is_loadable(program.object_code) else mcjit.Loaded
        self._loaded = load(program.object_code, *program.routines)
        self.entry_address = self._loaded.address(program.entry)
        self._entry = _ENTRY_TYPE(self.entry_address)
        self.pool = 0
        if program.threads > 1:
            self.pool = threads.pool(program.threads, lambda: self._loaded.address(WORKER), self._loaded)
        self._args = ctypes.c_int64 * sum(len(buffers(leaf.shape)) for leaf in program.parameters)
        self._results = ctypes.c_int64 * sum(len(buffers(leaf.shape)) for leaf in program.results)

    def run(
        self, args: Sequence[int], results: Sequence[int], arena: int, constants: int, context: int
    ) -> int:
        """Runs the entry, given the addresses of its leaves, of its memory and of the execution context.

        The status is 0 if all went well.
        """
        return self._entry(self._args(*args), self._results(*results), arena, constants, context)

    def name_at(self, address: int) -> str | None:
        """The function that an address lies in, if that is known."""
        return self._loaded.name_at(address)
