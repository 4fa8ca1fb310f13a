"""Loads ELF object files for x86-64 into this process: what a linker and a loader do, for a closed set of files.

The generator's code calls nothing but a few functions of the C library, and refers to its own constants relative to
the instruction pointer. So files are placed by copying their sections and filling in a handful of relocations, and
a program that was compiled before runs without LLVM being loaded. Formats and relocation types are those of
the "System V Application Binary Interface" and its AMD64 supplement.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from functools import cache
from struct import Struct, pack, pack_into

from hloc.records import NamedTuple

_MAGIC = b"\x7fELF\x02\x01\x01"
_X86_64 = 62

_HEADER = Struct("<16xHHIQQQIHHHHHH")
_SECTION = Struct("<IIQQQQIIQQ")
_SYMBOL = Struct("<IBBHQQ")
_RELOCATION = Struct("<QQq")

_ALLOCATED, _EXECUTABLE, _WRITABLE = 2, 4, 1
_SYMBOL_TABLE, _RELOCATIONS, _ZEROS = 2, 4, 8
_UNDEFINED, _GLOBAL = 0, 1

_R_64, _R_PC32, _R_PLT32, _R_PC64 = 1, 2, 4, 24

_STUB = b"\xff\x25\x02\x00\x00\x00\x66\x90"
"""jmp *2(%rip), and two bytes of padding; the address to go to comes behind."""

_STUB_BYTES = 16


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_bytes: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int
    is_global: bool


def is_loadable(data: bytes) -> bool:
    """Whether `load` knows the format and the machine of an object file."""
    return data.startswith(_MAGIC) and len(data) >= _HEADER.size and _HEADER.unpack_from(data)[1] == _X86_64


class _File:
    """The sections and symbols of an object file, and where its sections with memory are to lie."""

    def __init__(self, data: bytes):
        self.data = data
        fields = _HEADER.unpack_from(data)
        table, count = fields[5], fields[11]
        self.sections = [_Section(*_SECTION.unpack_from(data, table + i * _SECTION.size)) for i in range(count)]
        self.symbols = list(self._read_symbols())
        self.places: dict[int, int] = {}

    def _read_symbols(self) -> Iterator[_Symbol]:
        for table in self.sections:
            if table.kind != _SYMBOL_TABLE:
                continue
            names = self.sections[table.link].offset
            for offset in range(table.offset, table.offset + table.size, _SYMBOL.size):
                name, info, _, section, value, _ = _SYMBOL.unpack_from(self.data, offset)
                end = self.data.index(b"\0", names + name)
                yield _Symbol(self.data[names + name : end].decode(), section, value, info >> 4 == _GLOBAL)

    def place(self, end: int, executable: bool) -> int:
        """Puts code, or all else, behind a place; where it ends."""
        for number, section in enumerate(self.sections):
            if section.flags & _ALLOCATED and section.size and bool(section.flags & _EXECUTABLE) == executable:
                alignment = max(section.alignment, 1)
                self.places[number] = end = -(-end // alignment) * alignment
                end += section.size
        return end

    def exports(self) -> dict[str, int]:
        """The places of the symbols that other files may refer to."""
        known = [symbol for symbol in self.symbols if symbol.is_global and symbol.section in self.places]
        return {symbol.name: self.places[symbol.section] + symbol.value for symbol in known}

    def copy_to(self, memory: mmap.mmap) -> None:
        for number, place in self.places.items():
            section = self.sections[number]
            if section.kind != _ZEROS:
                memory[place : place + section.size] = self.data[section.offset : section.offset + section.size]


class Loaded:
    """Object files in memory, ready to be called; they stay there as long as this object lives.

    They may refer to each other's symbols. RuntimeError for a file with something in it that the generator does not
    make.
    """

    def __init__(self, *files: bytes):
        self._files = [_File(data) for data in files]
        self._stubs: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._lay_out()

    def address(self, name: str) -> int:
        """Where a symbol of the files lies. RuntimeError if they have none of that name."""
        for file in self._files:
            for symbol in file.symbols:
                if symbol.name == name and symbol.section in file.places:
                    return self._base + file.places[symbol.section] + symbol.value
        raise RuntimeError(f"the object code has no {name}")

    def name_at(self, address: int) -> str | None:
        """The symbol of a function that an address lies in; None if it lies outside of the code."""
        found = [
            (self._base + file.places[symbol.section] + symbol.value, symbol.name)
            for file in self._files
            for symbol in file.symbols
            if symbol.section in file.places and file.sections[symbol.section].flags & _EXECUTABLE and symbol.name
        ]
        if not self._base <= address < self._base + len(self._memory):
            return None
        return max((pair for pair in found if pair[0] <= address), default=(0, None))[1]

    def _lay_out(self) -> None:
        """Code on pages of its own, then the rest; relocations filled in before the code is made executable."""
        end = 0
        for file in self._files:
            end = file.place(end, executable=True)
        wanted = [s.name for file in self._files for s in file.symbols if s.section == _UNDEFINED and s.name]
        defined = {s.name for file in self._files for s in file.symbols if s.is_global and s.section != _UNDEFINED}
        for name in dict.fromkeys(wanted):
            if name not in defined:
                self._stubs[name] = end = -(-end // _STUB_BYTES) * _STUB_BYTES
                end += _STUB_BYTES
        code_bytes = end = -(-max(end, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        for file in self._files:
            end = file.place(end, executable=False)
            self._known |= file.exports()
        self._memory = mmap.mmap(-1, end, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._fill()
        if _c_library().mprotect(self._base, code_bytes, mmap.PROT_READ | mmap.PROT_EXEC):
            raise RuntimeError("this system lets no memory be executable that was written")

    def _fill(self) -> None:
        for name, place in self._stubs.items():
            self._memory[place : place + _STUB_BYTES] = _STUB + pack("<Q", _outside(name))
        for file in self._files:
            file.copy_to(self._memory)
            for section in file.sections:
                if section.kind == _RELOCATIONS and section.info in file.places:
                    self._relocate(file, section)

    def _relocate(self, file: _File, section: _Section) -> None:
        start = file.places[section.info]
        for entry in range(section.offset, section.offset + section.size, _RELOCATION.size):
            offset, info, addend = _RELOCATION.unpack_from(file.data, entry)
            number, kind = info >> 32, info & 0xFFFFFFFF
            symbol = file.symbols[number]
            target = self._target(file, symbol) + addend
            place = start + offset
            if kind in (_R_PC32, _R_PLT32):
                pack_into("<i", self._memory, place, target - place)
            elif kind == _R_PC64:
                pack_into("<q", self._memory, place, target - place)
            elif kind == _R_64:
                pack_into("<Q", self._memory, place, self._base + target)
            else:
                raise RuntimeError(f"the object code has a relocation of type {kind}, for {symbol.name!r}")

    def _target(self, file: _File, symbol: _Symbol) -> int:
        """Where a symbol lies, counted from the first byte of the code."""
        if symbol.section in file.places:
            return file.places[symbol.section] + symbol.value
        for places in (self._known, self._stubs):
            if symbol.section == _UNDEFINED and symbol.name in places:
                return places[symbol.name]
        raise RuntimeError(f"the object code refers to {symbol.name!r}, which is in no section with memory")


@cache
def _c_library() -> ctypes.CDLL:
    """The functions that this process has already."""
    library = ctypes.CDLL(None)
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return library


def _outside(name: str) -> int:
    """The address of a function of the C library. RuntimeError if this process has none of that name."""
    try:
        return ctypes.cast(getattr(_c_library(), name), ctypes.c_void_p).value or 0
    except AttributeError:
        raise RuntimeError(f"the object code calls {name}, which this process does not have") from None
