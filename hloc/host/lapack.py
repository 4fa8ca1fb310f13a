"""LAPACK and BLAS as C functions, by SciPy: each takes pointers only, to integers of 32 bits among others."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType

import numpy as np

from hloc.errors import HloError
from hloc.host.custom_calls import capsule_address

BLAS = ("trsm",)
"""The routines that are BLAS's, without the letter of their precision."""

Argument = str | int | bytes | None
"""A letter, an integer, the bytes of another scalar, or None for a null pointer."""


@cache
def function_address(name: str) -> int:
    """Where a routine lies, by its name in lower case: `dpotrf`. HloError if SciPy is missing."""
    try:
        home = _library("cython_blas" if name[1:] in BLAS else "cython_lapack")
    except ImportError:
        raise HloError(f"{name} of LAPACK comes from SciPy: pip install 'hloc[linalg]'") from None
    return capsule_address(home.__pyx_capi__[name])


def _library(name: str) -> ModuleType:
    """A module of scipy.linalg; the package around it is not loaded, which takes five times as long.

    ImportError if there is none.
    """
    whole = f"scipy.linalg.{name}"
    if whole not in sys.modules:
        folders = [os.path.join(folder, "linalg") for folder in import_module("scipy").__path__]
        spec = PathFinder.find_spec(whole, folders)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(whole)
        sys.modules[whole] = module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[whole])
        except BaseException:
            del sys.modules[whole]
            raise
    return sys.modules[whole]


def workspace_sizes(name: str, arguments: Sequence[Argument | np.ndarray]) -> None:
    """Asks a routine how much room it wants: the answers are left in the arrays among the arguments.

    The integers that stand for the sizes of its rooms are -1; it looks at no other array.
    """
    kept = [_passed(argument) for argument in arguments]
    routine = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(kept))(function_address(name))
    routine(*[value if value is None else ctypes.addressof(value) for value in kept])


def _passed(argument: Argument | np.ndarray) -> ctypes.Array | ctypes.c_int | None:
    if argument is None:
        return None
    if isinstance(argument, np.ndarray):
        return (ctypes.c_char * argument.nbytes).from_buffer(argument)
    if isinstance(argument, int):
        return ctypes.c_int(argument)
    return ctypes.create_string_buffer(argument.encode() if isinstance(argument, str) else argument)
