"""Files in the user's cache folder: what hloc has made once and can make again.

A file holds the key that it was written under, a few words for people, and data, with a checksum. It appears all at
once, so several processes may write the same one. A file that is damaged, or that cannot be read or written, only
costs the time to make its content anew.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from struct import Struct
from struct import error as MalformedError

from hloc.records import NamedTuple

MOST_BYTES = 1 << 30
"""What the folder may hold in all. Beyond it the files go that were not used for the longest time."""

SECONDS = 60.0
"""How often a process looks whether the folder holds too much."""

_looked_at: float | None = None

_MAGIC = b"hloc cache 1\n"
_HEAD = Struct(f"<{len(_MAGIC)}sIIIQ")
_SUFFIX = ".kept"


class Entry(NamedTuple):
    """One file: its `about`, its size in bytes, and when it was last used, in seconds since 1970."""

    path: Path
    about: str
    size: int
    used: float


def folder() -> Path:
    """Where the files are: `hloc` in $XDG_CACHE_HOME, else in ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path(os.path.expanduser("~")) / ".cache") / "hloc"


def path_of(name: str) -> Path:
    """The file that keeps what has this name."""
    return folder() / f"{name}{_SUFFIX}"


def read(name: str, key: bytes) -> bytes | None:
    """What was kept under a name and a key; None if nothing was, or if the file is damaged."""
    path = path_of(name)
    try:
        content = path.read_bytes()
        magic, check, key_bytes, about_bytes, data_bytes = _HEAD.unpack_from(content)
        start = _HEAD.size + key_bytes
        if magic != _MAGIC or content[_HEAD.size : start] != key:
            return None
        if len(content) != start + about_bytes + data_bytes or zlib.crc32(content[_HEAD.size :]) != check:
            return None
        _mark_used(path)
        return content[start + about_bytes :]
    except (OSError, MalformedError):
        return None


def _mark_used(path: Path) -> None:
    with suppress(OSError):  # a folder that may only be read serves as well
        os.utime(path)


def write(name: str, key: bytes, data: bytes, about: str) -> None:
    """Keep data for later, and make room for it; a folder that cannot be written is passed over."""
    path = path_of(name)
    words = about.encode()
    content = b"".join((key, words, data))
    head = _HEAD.pack(_MAGIC, zlib.crc32(content), len(key), len(words), len(data))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(head + content)
        os.replace(temporary, path)
        _make_room_now_and_then()
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def entries() -> list[Entry]:
    """What is kept, the latest used first. Damaged files are among them, without words."""
    return [Entry(path, _about(path), size, used) for path, size, used in reversed(_files())]


def clear() -> int:
    """Remove all files; how many there were."""
    files = _files()
    for path, _, _ in files:
        path.unlink(missing_ok=True)
    return len(files)


def _files() -> list[tuple[Path, int, float]]:
    """Path, size and time of use of every file, the latest used last.

    With what a process left behind that was stopped while writing. Other processes may remove files at any time.
    """
    found = []
    with suppress(FileNotFoundError), os.scandir(folder()) as places:
        for place in places:
            with suppress(FileNotFoundError):
                if _SUFFIX in place.name:
                    status = place.stat()
                    found.append((Path(place.path), status.st_size, status.st_mtime))
    return sorted(found, key=lambda file: (file[2], file[0]))


def _about(path: Path) -> str:
    try:
        with path.open("rb") as file:
            magic, _, key_bytes, about_bytes, _ = _HEAD.unpack(file.read(_HEAD.size))
            if magic != _MAGIC:
                return ""
            file.seek(key_bytes, os.SEEK_CUR)
            return file.read(about_bytes).decode(errors="replace")
    except (OSError, MalformedError):
        return ""


def _make_room_now_and_then() -> None:
    """At a process's first file, and then once in SECONDS: a large folder takes long to look through."""
    global _looked_at
    now = time.monotonic()
    if _looked_at is None or now - _looked_at >= SECONDS:
        _looked_at = now
        _make_room()


def _make_room() -> None:
    """Remove the files that were not used for the longest time, until the rest is well within bounds."""
    files = _files()
    total = sum(size for _, size, _ in files)
    if total <= MOST_BYTES:
        return
    for path, size, _ in files:
        path.unlink(missing_ok=True)
        total -= size
        if total <= MOST_BYTES * 3 // 4:
            return


@cache
def compiler() -> str:
    """The versions of hloc's own files and of LLVM, on which all code depends."""
    return f"{_own_files()}\n{_llvm_version()}"


def _own_files() -> str:
    """Times and sizes of hloc's own files, by which an installation that is being worked on is told from others."""
    found = []
    folders = [os.path.dirname(os.path.abspath(__file__))]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.endswith((".py", ".lark")):
                    status = entry.stat()
                    found.append(f"{entry.path}:{status.st_size}:{status.st_mtime_ns}")
                elif entry.is_dir() and entry.name != "__pycache__":
                    folders.append(entry.path)
    return hashlib.blake2b("\n".join(sorted(found)).encode()).hexdigest()


def _llvm_version() -> str:
    """llvmlite's version, without loading it."""
    spec = find_spec("llvmlite")
    assert spec is not None and spec.origin
    return Path(spec.origin).with_name("_version.py").read_text(encoding="utf-8")
