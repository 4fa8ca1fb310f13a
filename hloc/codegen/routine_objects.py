"""Object files of routines, each made once: in this process, and by way of the cache folder on this machine.

A routine's text says all of it, its machine included; its file is kept under the text and the compiler's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hloc import cache
from hloc.codegen.llvm import Module
from hloc.codegen.targets.target import Target
from hloc.options import Options

_made: dict[bytes, bytes] = {}
"""The files of this process, by digests of their stages and texts."""


def object_files(parts: Iterable[Module], target: Target, options: Options) -> tuple[bytes, ...]:
    """The object files of modules that hold routines. RuntimeError if LLVM refuses one."""
    return tuple(_object_file(part, target, options) for part in parts)


def _object_file(part: Module, target: Target, options: Options) -> bytes:
    text = str(part)
    digest = hashlib.blake2b(f"{part.stage}\0{text}".encode(), digest_size=20).digest()
    if digest not in _made:
        make = _kept if options.cache else _lowered
        _made[digest] = make(part, text, target, options)
    return _made[digest]


def _kept(part: Module, text: str, target: Target, options: Options) -> bytes:
    """The file from the cache folder, where it is from now on."""
    key = hashlib.blake2b(f"{cache.compiler()}\0{part.stage}\0{text}".encode(), digest_size=20).hexdigest()
    name = f"routine-{key}"
    data = cache.read(name, key.encode())
    if data is None:
        data = _lowered(part, text, target, options)
        cache.write(name, key.encode(), data, f"routine {part.name} for {target.name}")
    return data


def _lowered(part: Module, text: str, target: Target, options: Options) -> bytes:
    try:
        return target.lower(text, part.stage, options)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\nin routine {part.name}") from None
