"""The memory that loading LLVM's library leaves behind."""

from __future__ import annotations

import ctypes
import sys

_DONT_NEED = 4
"""MADV_DONTNEED of Linux: of a file's pages that were only read, nothing is lost; they come back when touched."""


def drop_read_pages() -> None:
    """Gives back the library's code and symbol tables, as far as they are in memory.

    The library's start touches a little everywhere, 28 MB, of which compiling needs a quarter again. Elsewhere than on
    Linux nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as mappings:
            for line in mappings:
                if "libllvmlite" in line:
                    place, access, offset, *_ = line.split()
                    # The rest may have been written to: addresses are filled in at the start.
                    if access == "r-xp" or (access == "r--p" and int(offset, 16) == 0):
                        start, end = (int(limit, 16) for limit in place.split("-"))
                        library.madvise(start, end - start, _DONT_NEED)
    except OSError:
        return
