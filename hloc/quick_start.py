"""What the process of the `hloc` command does without while it loads modules: half of the time that this would take.

Libraries import modules that few of their users come to need, and NumPy writes its documentation at each start. Here
such modules are loaded when something of them is first used. That they are not there yet is seen nowhere, except that
functions of NumPy have less documentation. hloc's own modules are looked for where they lie, and nowhere else.

A process that imports hloc is not touched: only the command calls `prepare`.
"""

from __future__ import annotations

import marshal
import os
import sys
from _thread import RLock
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source
from struct import Struct
from types import CodeType, ModuleType
from typing import Any

POSTPONED = {
    "ast": "",
    "hashlib": "",
    "inspect": "",
    "ipaddress": "",
    "llvmlite.ir": "ArrayType Context DoubleType FloatType FunctionType HalfType IntType LiteralStructType PointerType "
    "Type VectorType VoidType",
    "pickle": "",
    "platform": "",
    "secrets": "",
    "tempfile": "",
    "textwrap": "",
    "uuid": "UUID",
    "zipfile": "",
}
"""Modules to load at their first use; and which callables of them a library takes while it loads, to call later."""

_UNDOCUMENTED = ("numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars")
"""Modules that do nothing but to write documentation."""

_TYPES = "numpy._typing"
"""Names for type checkers, which NumPy itself uses in annotations alone."""

_BYTECODE = Struct("<4sIII")
"""What a file of bytecode begins with: Python's number, flags, and time and size of the source."""

_loading = RLock()


def prepare() -> None:
    """Find modules in these ways from now on, and load NumPy."""
    sys.meta_path[:0] = [_OwnModules, _PostponedModules]
    if "numpy" not in sys.modules:
        with _undocumented():
            import_module("numpy")


class _Late:
    """Stands for a callable of a postponed module."""

    def __init__(self, module: ModuleType, name: str):
        self._module, self._name = module, name

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._loaded()(*args, **named)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, self._loaded())

    def _loaded(self) -> Any:
        _load(self._module)
        return getattr(self._module, self._name)


class _Postponed(ModuleType):
    """A module that is loaded when it is first asked for something that it has not."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # asked for to learn whether this is a package
            raise AttributeError(name)
        _load(self)
        return getattr(self, name)


def _load(module: ModuleType) -> None:
    with _loading:
        if module.__class__ is _Postponed:
            module.__class__ = ModuleType
            module.__spec__.loader.exec_module(module)


class _Postponing:
    """Makes modules without running their code, and leaves them to their own loaders."""

    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        module.__class__ = _Postponed
        vars(module).update({name: _Late(module, name) for name in POSTPONED[module.__name__].split()})
        vars(module).update(_instead(module.__name__))


class _PostponedModules:
    """Finds what is postponed where it is."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in POSTPONED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Postponing(spec.loader)
        return spec


def _instead(module: str) -> dict[str, Callable]:
    """What a postponed module has before it is loaded, and after in its own way: the same in use."""
    if module == "inspect":
        return {"cleandoc": _without_indentation}
    if module == "secrets":
        return {"randbits": _random_bits}
    if module == "hashlib":
        with suppress(ImportError):  # not every Python has it there
            return {"blake2b": import_module("_blake2").blake2b}
    return {}


def _random_bits(count: int) -> int:
    """A number of so many bits, of the system's own."""
    return int.from_bytes(os.urandom((count + 7) // 8), "big") >> (-count % 8)


def _without_indentation(text: str) -> str:
    """A documentation's lines without the indentation that all but the first share, and without empty ones around."""
    first, *rest = text.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=None)
    return "\n".join([first.lstrip(), *(line[margin:] for line in rest)]).strip("\n")


def _any_type(name: str) -> type:
    """A type for any name but those that Python asks a module for: one that takes parameters in brackets."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Mapping


@contextmanager
def _undocumented() -> Iterator[None]:
    """While this lasts, nothing that NumPy does for its documentation is done."""
    types = ModuleType(_TYPES)
    types.__getattr__ = _any_type
    sys.modules[_TYPES] = types
    sys.modules.update({name: ModuleType(name) for name in _UNDOCUMENTED})
    inspect = import_module("inspect")
    quick = {"cleandoc": str, "signature": lambda function: None} if inspect.__class__ is _Postponed else {}
    vars(inspect).update(quick)
    try:
        yield
    finally:
        for name in (_TYPES, *_UNDOCUMENTED):
            del sys.modules[name]
        for name in quick:
            delattr(inspect, name)
        if quick:
            vars(inspect).update(_instead("inspect"))


class _OwnModules:
    """Finds hloc's modules in the folders of their packages; packages themselves are left to Python."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is None or not name.startswith("hloc."):
            return None
        folder, last = path[0], name.rpartition(".")[2]
        file = f"{folder}/{last}.py"
        try:
            status = os.stat(file)
        except OSError:
            return None
        spec = ModuleSpec(name, _OwnLoader(name, file, status), origin=file)
        spec.has_location = True
        spec.cached = last.join(_bytecode_names(folder))
        return spec


@cache
def _bytecode_names(folder: str) -> tuple[str, str]:
    """What stands before and behind a module's name in the path of its bytecode."""
    before, _, behind = cache_from_source(f"{folder}/*.py").rpartition("*")
    return before, behind


class _OwnLoader(SourceFileLoader):
    """Loads bytecode that is as new as its source; all else is Python's to do."""

    def __init__(self, name: str, path: str, status: os.stat_result):
        super().__init__(name, path)
        times = (int(status.st_mtime), status.st_size)
        self._head = _BYTECODE.pack(MAGIC_NUMBER, 0, *(each & 0xFFFFFFFF for each in times))

    def get_code(self, name: str) -> CodeType | None:
        folder, _, file = self.path.rpartition("/")
        try:
            with open(file.removesuffix(".py").join(_bytecode_names(folder)), "rb", 0) as bytecode:
                data = bytecode.read()
        except OSError:
            return super().get_code(name)
        if not data.startswith(self._head):
            return super().get_code(name)
        code = marshal.loads(memoryview(data)[len(self._head) :])
        return code if code.co_filename == self.path else super().get_code(name)
