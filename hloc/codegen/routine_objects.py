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

_made: dict[str, bytes] = {}
"""The files of this process, by their names in the cache folder."""


def object_files(parts: Iterable[Module], target: Target, options: Options) -> tuple[bytes, ...]:
    """The object files of modules that hold a routine each. RuntimeError if LLVM refuses one."""
    return tuple(_object_file(part, target, options) for part in parts)


def _object_file(part: Module, target: Target, options: Options) -> bytes:
    text = str(part)
    digest = hashlib.blake2b(f"{cache.compiler()}\0{part.stage}\0{text}".encode(), digest_size=20).hexdigest()
    name = f"routine-{digest}"
    data = _made.get(name)
    if data is None and options.cache:
        data = cache.read(name, digest.encode())
    if data is None:
        try:
            data = target.lower(text, part.stage, options)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\nin routine {part.name}") from None
        if options.cache:
            cache.write(name, digest.encode(), data, f"routine {part.name} for {target.name}")
    _made[name] = data
    return data
