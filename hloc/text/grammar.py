"""Finds grammar/hlo.lark and loads the parser's tables for it, which are kept in the user's cache folder.

A cache that cannot be read or written only costs the time to make the tables anew.
"""

from __future__ import annotations

import marshal
import os
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STARTS = ("module", "instruction", "attributes", "shape", "sharding")

# Changes with the form of the tables.
_FORM = "2"


def grammar_path() -> Path:
    """The grammar's file: beside this module in an installed package, else in the source tree."""
    installed = Path(__file__).with_name("hlo.lark")
    return installed if installed.exists() else Path(__file__).parents[2] / "grammar" / "hlo.lark"


def load_tables() -> dict[str, Any]:
    """The tables of the grammar, as hloc.text.tables describes them."""
    text = grammar_path().read_text(encoding="utf-8")
    key = "\0".join((_FORM, text, _lark_version(), sys.version, *STARTS)).encode()
    path = cache_folder() / f"grammar-{zlib.crc32(key):08x}.tables"
    tables = read_cache(path, key)
    if tables is None:
        # Not at the top: Lark takes longer to load than a cached table and is then not needed.
        from hloc.text.tables import make_tables

        tables = make_tables(text, STARTS)
        write_cache(path, key, tables)
    return tables


def _lark_version() -> str:
    """Lark's first file, which holds its version: reading it is quicker than asking the package's metadata."""
    found = find_spec("lark")
    return Path(found.origin).read_text(encoding="utf-8") if found is not None and found.origin else ""


def cache_folder() -> Path:
    """Where hloc may keep files that it can make again."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path(os.path.expanduser("~")) / ".cache") / "hloc"


def read_cache(path: Path, key: bytes) -> Any:
    """What was written under that key; None if nothing was, or if the file is damaged."""
    try:
        content = path.read_bytes()
        head, data = content[:4], content[4:]
        if head != zlib.crc32(data).to_bytes(4, "little"):
            return None
        written_key, value = marshal.loads(data)
        return value if written_key == key else None
    except (OSError, ValueError, TypeError, EOFError):
        return None


def write_cache(path: Path, key: bytes, value: Any) -> None:
    """Keep a value for later; a folder that cannot be written is passed over."""
    data = marshal.dumps((key, value))
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(zlib.crc32(data).to_bytes(4, "little") + data)
        os.replace(temporary, path)
    except OSError:
        pass
