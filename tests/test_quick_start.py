"""What the command's process loads late works as if it had been loaded."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hloc import quick_start
from hloc.text.grammar import load_tables

SOFTMAX = str(Path(__file__).parent.parent / "samples" / "softmax.hlo")


def run(code: str, **environment: str) -> str:
    """What a process prints that has prepared itself as the command does."""
    command = [sys.executable, "-c", f"from hloc.quick_start import prepare; prepare()\n{code}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert not found.returncode, found.stderr
    return found.stdout.strip()


def test_a_plain_run_never_loads_what_is_postponed() -> None:
    load_tables()  # from now on they lie in the cache folder
    code = f"""
import sys
from types import ModuleType
from hloc import __main__
__main__.end = lambda status: print(*(n for n, m in sys.modules.items() if type(m) is ModuleType), file=sys.stderr)
sys.argv = ["hloc", "run", {SOFTMAX!r}, "--random", "--no-cache", "--quiet"]
__main__.main()
"""
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stderr.split()
    assert "numpy" in loaded and "llvmlite.binding" in loaded
    unwanted = {*quick_start.POSTPONED, "numpy._core._add_newdocs", "numpy._typing", "shutil", "_hashlib"}
    assert sorted(set(loaded) & unwanted) == []


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import inspect; print(inspect.signature(lambda a, b=2: 0))", "(a, b=2)"),
        ("import inspect; print(inspect.getdoc(inspect.cleandoc)[:8])", "Clean up"),
        ("from hashlib import sha256; print(sha256(b'').hexdigest()[:6])", "e3b0c4"),
        ("import hashlib; print(hashlib.blake2b(b'', digest_size=2).hexdigest())", "b1fe"),
        ("import numpy.typing; print(numpy.typing.NDArray[numpy.float32])", "numpy.ndarray["),
        ("import inspect, numpy; print(inspect.signature(numpy.mean).parameters['axis'])", "axis=None"),
        ("import numpy; print(numpy.random.default_rng().standard_normal(3).shape)", "(3,)"),
        ("import click, uuid; print(click.UUID('5' * 32, None, None) == uuid.UUID('5' * 32))", "True"),
        ("import pickle; print(pickle.loads(pickle.dumps([1])))", "[1]"),
        ("import ast.nothing", None),
        (
            "import llvmlite.binding as b; m = b.parse_assembly('define void @f() { ret void }');"
            "from llvmlite.binding.typeref import _TypeKindToIRType as kinds, TypeKind; print(kinds[TypeKind.void]())",
            "void",
        ),
    ],
)
def test_what_is_postponed_works_when_it_is_used(code: str, printed: str | None) -> None:
    if printed is None:
        code, printed = f"try: {code}\nexcept ModuleNotFoundError: print('none')", "none"
    assert run(code).startswith(printed)


def test_a_module_is_loaded_once_by_threads_that_use_it_at_once() -> None:
    code = """
from threading import Barrier, Thread
import inspect
barrier, seen = Barrier(4), []
def use():
    barrier.wait()
    seen.append(inspect.signature)
threads = [Thread(target=use) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(set(seen)), type(inspect).__name__)
"""
    assert run(code) == "1 module"


@pytest.mark.parametrize("text", ["one", "  one\n\n    two\n      three\n  ", "\n\n  a\n    b\n\n", "a\n\tb\n  \n", ""])
def test_indentation_is_taken_away_as_python_does(text: str) -> None:
    assert quick_start._without_indentation(text) == inspect.cleandoc(text)


def test_random_bits_are_as_many_as_asked_for() -> None:
    for count in (1, 7, 8, 9, 128):
        assert max(quick_start._random_bits(count).bit_length() for _ in range(40)) == count


@pytest.mark.parametrize("change", ["source", "bytecode", "none"])
def test_own_modules_are_loaded_as_they_are_now(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "hloc"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    file = folder / "a.py"
    file.write_text("x = 1")
    code = "from hloc import a; import inspect; print(a.x, a.__file__, a.__cached__, a.__spec__.parent)"
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    start += f"import hloc; hloc.__path__[:] = [{str(folder)!r}]\n"
    environment = {"PYTHONDONTWRITEBYTECODE": ""}
    cached = run(start + code, **environment).split()[2]
    assert Path(cached).exists()
    if change == "source":
        file.write_text("x = 1 + 1")
    elif change == "bytecode":
        Path(cached).write_bytes(b"damaged")
    value = "2" if change == "source" else "1"
    assert run(start + code, **environment) == f"{value} {file} {cached} hloc"


def test_nothing_is_changed_for_those_who_import_hloc() -> None:
    code = "import hloc, sys; import hloc.api; print(len(sys.meta_path), type(sys.modules['inspect']).__name__)"
    command = [sys.executable, "-c", f"import sys; print(len(sys.meta_path)); {code}"]
    before, after, kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert before == after and kind == ModuleType.__name__


def test_any_name_for_type_checkers_takes_parameters_in_brackets() -> None:
    assert quick_start._any_type("NameOfALaterNumPy")[int, str]
    with pytest.raises(AttributeError):
        quick_start._any_type("__path__")
