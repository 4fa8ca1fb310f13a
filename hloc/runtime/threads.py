"""The threads of this process that help with kernels: one pool for all programs.

The code of a helper's life is that of the first program that needs helpers, which therefore stays loaded. Helpers
are threads of the system without Python; each is bound to a processor of its own, of those that this process may use,
since a woken thread else begins on the processor of the one that wakes it. One of them is left free: callers send the
helper there that is bound to theirs.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable

from hloc.codegen.program import POOL_PROCESSORS, POOL_WORDS

_LINE = 64
_STACK_BYTES = 8 << 20


class _Pool:
    """The shared words, and what keeps them and the helpers' code alive."""

    def __init__(self) -> None:
        self._room = (ctypes.c_char * (_LINE * (len(POOL_WORDS) + 1)))()
        self.address = -(-ctypes.addressof(self._room) // _LINE) * _LINE
        self.helpers = 0
        self.kept: list[object] = []
        self._bound = (ctypes.c_int64 * POOL_PROCESSORS)()
        self.reset()

    def reset(self) -> None:
        """Of a pool without helpers; whatever they were doing when they vanished is forgotten."""
        self.helpers = 0
        library = ctypes.CDLL(None)
        ctypes.memset(self._bound, 0, ctypes.sizeof(self._bound))
        addresses = {"bound": self._bound, "syscall": library.syscall, "getcpu": library.sched_getcpu}
        for name in POOL_WORDS:
            what = addresses.get(name)
            self._set(name, 0 if what is None else ctypes.cast(what, ctypes.c_void_p).value or 0)

    def _set(self, name: str, value: int) -> None:
        ctypes.c_int64.from_address(self.address + _LINE * POOL_WORDS.index(name)).value = value

    def leave_free(self, processor: int) -> None:
        """The processor that no helper begins on."""
        self._set("free", processor)

    def start(self, worker: int, processor: int | None) -> None:
        """One more helper, in the function at `worker`."""
        self.helpers += 1
        words = (ctypes.c_int64 * 3)(self.address, self.helpers, -1 if processor is None else processor)
        self.kept.append(words)
        thread = ctypes.c_ulong()
        library = ctypes.CDLL(None)
        begun = library.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(worker), words)
        if begun != 0:
            self.helpers -= 1
            return
        library.pthread_detach(thread)
        if processor is not None:
            mask = (ctypes.c_ulong * (POOL_PROCESSORS // 64))()
            mask[processor // 64] = 1 << processor % 64
            library.pthread_setaffinity_np(thread, ctypes.sizeof(mask), mask)


_lock = threading.Lock()
_pool: _Pool | None = None


def pool(workers: int, worker: Callable[[], int], owner: object) -> int:
    """The address of the pool's words, with helpers for so many `workers`; 0 where there is no pool.

    `worker()` is the address of a helper's code, which lives as long as `owner`.
    """
    global _pool
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return 0
    with _lock:
        if _pool is None:
            _pool = _Pool()
        wanted = min(workers, len(os.sched_getaffinity(0))) - 1
        if _pool.helpers < wanted:
            _pool.kept.append(owner)
            usable = sorted(processor for processor in os.sched_getaffinity(0) if processor < POOL_PROCESSORS)
            if usable and not _pool.helpers:
                _pool.leave_free(usable[0])
            for number in range(_pool.helpers + 1, wanted + 1):
                _pool.start(worker(), usable[number] if number < len(usable) else None)
        return _pool.address


def _forget() -> None:
    """In a child process there are no helpers, and the words may be in any state."""
    global _lock
    _lock = threading.Lock()
    if _pool is not None:
        _pool.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
