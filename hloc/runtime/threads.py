"""The threads of this process that help with kernels: one pool for all programs.

The code of a helper's life is that of the first program that needs helpers, which therefore stays loaded. Helpers
are threads of the system without Python; each is bound to a processor of its own, of those that this process may use,
since a woken thread else begins on the processor of the one that wakes it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable

from hloc.codegen.program import POOL_WORDS

_LINE = 64
_STACK_BYTES = 8 << 20


class _Pool:
    """The shared words, and what keeps them and the helpers' code alive."""

    def __init__(self) -> None:
        self._room = (ctypes.c_char * (_LINE * (len(POOL_WORDS) + 1)))()
        self.address = -(-ctypes.addressof(self._room) // _LINE) * _LINE
        self.helpers = 0
        self.kept: list[object] = []
        self._set("syscall", ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value or 0)

    def reset(self) -> None:
        """Of a pool without helpers; whatever they were doing when they vanished is forgotten."""
        self.helpers = 0
        for name in POOL_WORDS:
            if name != "syscall":
                self._set(name, 0)

    def _set(self, name: str, value: int) -> None:
        ctypes.c_int64.from_address(self.address + _LINE * POOL_WORDS.index(name)).value = value

    def start(self, worker: int, processor: int | None) -> None:
        """One more helper, in the function at `worker`."""
        self.helpers += 1
        words = (ctypes.c_int64 * 2)(self.address, self.helpers)
        self.kept.append(words)
        thread = ctypes.c_ulong()
        library = ctypes.CDLL(None)
        begun = library.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(worker), words)
        if begun != 0:
            self.helpers -= 1
            return
        library.pthread_detach(thread)
        if processor is not None:
            mask = (ctypes.c_ulong * 16)()
            mask[processor // 64 % 16] = 1 << processor % 64
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
            others = sorted(os.sched_getaffinity(0))[1:]
            for number in range(_pool.helpers, wanted):
                _pool.start(worker(), others[number] if number < len(others) else None)
        return _pool.address


def _forget() -> None:
    """In a child process there are no helpers, and the words may be in any state."""
    global _lock
    _lock = threading.Lock()
    if _pool is not None:
        _pool.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
