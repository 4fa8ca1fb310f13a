"""Classes whose objects the interpreter calls by a function of their own, without a frame (PEP 590).

An object has the function's address at VECTORCALL_OFFSET, zero at first: then calls are those of the class, by its
`__call__`. Python has no words for this, so a base class with room for two words is made by its C interface, and the
flag is set in the class that derives from it. All this, and the layout of NumPy's arrays, on which the function relies,
is looked at before: where it is not as expected, calls stay with Python.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from struct import pack
from typing import Any

import numpy as np

from hloc.codegen.call_layout import VECTORCALL_OFFSET
from hloc.runtime.memory import address

_HAVE_VECTORCALL, _MAY_BE_BASE, _DEFAULT = 1 << 11, 1 << 10, 1 << 18
"""Py_TPFLAGS_* of classes."""

_FLAGS_OFFSET = 168
"""Where a class has them, in CPython's "object.h"."""

_MEMBERS, _SIZE, _READ_ONLY = 72, 19, 1
"""Py_tp_members, T_PYSSIZET and READONLY."""

_forever: list[Any] = []
"""What addresses were taken of."""


@cache
def with_room(cls: type) -> type:
    """The class with room in its objects for a function; the class itself where that cannot be."""
    if not (interpreter_is_known() and _arrays_are_known()):
        return cls
    kind = type(cls)(cls.__name__, (cls, _room()), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    flags = ctypes.c_ulong.from_address(id(kind) + _FLAGS_OFFSET)
    if flags.value != kind.__flags__:
        return cls
    flags.value |= _HAVE_VECTORCALL
    python_function("PyType_Modified", None, ctypes.py_object)(kind)
    return kind


def has_room(obj: object) -> bool:
    """Whether an object is of a class that `with_room` has made."""
    return issubclass(type(obj), _room()) if interpreter_is_known() else False


def set_function(obj: object, function: int, state: int) -> None:
    """From now on calls of an object go to a vectorcallfunc, which finds `state` in the word behind its own address."""
    place = id(obj) + VECTORCALL_OFFSET
    ctypes.c_int64.from_address(place + 8).value = state
    ctypes.c_int64.from_address(place).value = function


def python_function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of the interpreter; a new object, since those of ctypes.pythonapi are everyone's."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


def function_of(obj: object) -> int:
    """The address of the function of an object of a `with_room` class; 0 if it has none yet."""
    return ctypes.c_int64.from_address(id(obj) + VECTORCALL_OFFSET).value


def text_address(text: bytes) -> int:
    """The address of a string that stays."""
    _forever.append(ctypes.create_string_buffer(text))
    return ctypes.addressof(_forever[-1])


@cache
def interpreter_is_known() -> bool:
    """Whether objects lie in memory as they do in a plain build of CPython for 64 bits."""
    plain = sys.implementation.name == "cpython" and getattr(sys, "abiflags", None) == ""
    return plain and os.name == "posix" and sys.byteorder == "little" and ctypes.sizeof(ctypes.c_void_p) == 8


@cache
def _arrays_are_known() -> bool:
    """Whether fields of NumPy's arrays lie where the native function looks for them."""
    sample = np.empty((2, 3), np.float32)
    start = id(sample)
    words = [ctypes.c_int64.from_address(start + offset).value for offset in range(0, 96, 8)]
    flags, rank = ctypes.c_int32.from_address(start + 64).value, ctypes.c_int32.from_address(start + 24).value
    if [words[1], words[2], words[7]] != [id(np.ndarray), address(sample), id(sample.dtype)]:
        return False
    dims, strides = ((ctypes.c_int64 * 2).from_address(words[number]) for number in (4, 5))
    is_capsule = python_function("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
    return (
        (flags, rank, words[6]) == (sample.flags.num, 2, 0)
        and (tuple(dims), tuple(strides)) == (sample.shape, sample.strides)
        and is_capsule(words[11], b"mem_handler") == 1
    )


@cache
def _room() -> type:
    """A class whose objects have the two words, and which says that the first is a function."""
    name, offset_name = text_address(b"hloc.runtime.callable_type.Room"), text_address(b"__vectorcalloffset__")
    member = ctypes.create_string_buffer(pack("QiiQiiQ40x", offset_name, _SIZE, 0, VECTORCALL_OFFSET, _READ_ONLY, 0, 0))
    slots = ctypes.create_string_buffer(pack("iiQiiQ", _MEMBERS, 0, ctypes.addressof(member), 0, 0, 0))
    size, flags = VECTORCALL_OFFSET + 16, _DEFAULT | _MAY_BE_BASE
    spec = ctypes.create_string_buffer(pack("QiiiiQ", name, size, 0, flags, 0, ctypes.addressof(slots)))
    _forever.extend((member, slots, spec))
    return python_function("PyType_FromSpec", ctypes.py_object, ctypes.c_void_p)(ctypes.addressof(spec))
