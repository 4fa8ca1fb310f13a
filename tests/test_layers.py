"""Every import arrow points down: reads the imports of hloc/ with `ast` and fails on any other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hloc.passes.pipeline import PASSES

PACKAGE = Path(__file__).parent.parent / "hloc"

# From the bottom up; a module may import from its own layer and from those before it.
LAYERS = [
    ("records", "lazy", "collection", "quick_start"),
    ("cache",),
    ("errors", "options"),
    ("ir",),
    ("host",),
    ("text",),
    ("analysis",),
    ("reference",),
    ("passes",),
    ("codegen",),
    ("runtime",),
    ("api", "arrays", "program_cache"),
    ("bisect",),
    ("cli",),
    ("__main__",),
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# The home of each library: the only places that may import it.
HOMES = {
    "lark": ("text/",),
    "llvmlite": ("codegen/targets/", "runtime/mcjit.py"),
    "cuda": ("host/gpus.py",),
    "click": ("cli/",),
    "scipy": ("reference/", "host/lapack.py"),
    "jax": (),
    "jaxlib": (),
}


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


MODULES = {"hloc." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files()}


def imports(path: Path, *, everywhere: bool = True) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of each import; only those at the top level unless `everywhere`.

    A text that names a module of hloc counts as an import of it: that is how modules are loaded late.
    """
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Constant) and node.value in MODULES:
            yield node.value, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [_package(path, node.level), node.module]))
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def _package(path: Path, level: int) -> str:
    """What the leading dots of a relative import stand for; nothing if there are none."""
    parts = ("hloc", *path.relative_to(PACKAGE).parent.parts)
    return ".".join(parts[: len(parts) - level + 1]) if level else ""


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = layer_of(path)
    if here == "__init__":
        return
    relative = str(path.relative_to(PACKAGE))
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "hloc" or len(parts) < 2 or parts[1] not in RANK:
            continue
        there = parts[1]
        place = f"{relative}:{line} imports {module}"
        assert RANK[there] <= RANK[here], f"{place}: the arrow points up"
        if there != here:
            assert RANK[there] < RANK[here] or here == "api", f"{place}: between neighbours of one layer"
        if here == "runtime" and there == "codegen":
            records = ([], ["program"], ["call_layout"], ["device_program"], ["targets"])
            assert parts[2:3] in records, f"{place}: runtime takes only the records of codegen"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_home(path: Path) -> None:
    relative = path.relative_to(PACKAGE).as_posix()
    for module, line in imports(path):
        homes = HOMES.get(module.split(".")[0])
        if homes is not None:
            assert relative.startswith(homes or "-"), f"{relative}:{line} imports {module}, at home in {homes}"


def test_passes_and_emitters_do_not_import_each_other() -> None:
    """Passes share through modules that are no pass, emitters through those below their folder."""
    emitters = {path.stem for path in (PACKAGE / "codegen/emitters").glob("*.py")}
    for folder, units in (("passes", set(PASSES)), ("codegen/emitters", emitters - {"__init__"})):
        prefix = f"hloc.{folder.replace('/', '.')}."
        for path in sorted((PACKAGE / folder).glob("*.py")):
            if path.stem in ("pipeline", "__init__"):
                continue
            for module, line in imports(path):
                sibling = module.removeprefix(prefix).split(".")[0]
                if module.startswith(prefix) and sibling != path.stem:
                    assert sibling not in units, f"{folder}/{path.name}:{line} imports its sibling {sibling}"


def test_no_import_cycles_within_a_layer() -> None:
    graph = {}
    names = {"hloc." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in files()}
    for name, path in names.items():
        found = (module for module, _ in imports(path, everywhere=False))
        graph[name] = sorted({module for module in found if module in names and module != name})
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for module in graph[name]:
            visit(module, [*trail, name])
        done.add(name)

    for name in sorted(graph):
        visit(name, [])


def test_nothing_heavy_is_loaded_by_import_hloc() -> None:
    import subprocess
    import sys

    code = "import hloc, sys; print([m for m in ('llvmlite', 'lark', 'scipy', 'jax', 'cuda', 'click') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
