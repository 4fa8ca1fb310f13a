"""Loop nests in which inputs lie along another dimension than the result: turned tile by tile."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import same, value

import hloc
from hloc.codegen import streams
from hloc.codegen.compile import emit_stage
from hloc.options import Options
from hloc.reference.evaluate import evaluate

TURN = "call void @hloc.turn."


def check(text: str, *shapes: str, **options: object) -> None:
    arguments = [value(shape, number) for number, shape in enumerate(shapes)]
    executable = hloc.compile(text, options=Options(cache=False, **options))
    for got, wanted in zip(executable.execute(*arguments), evaluate(hloc.parse(text), arguments), strict=True):
        same(got, np.asarray(wanted))


def module(*lines: str) -> str:
    return "HloModule m\nENTRY e {\n" + "\n".join(lines) + "\n}"


def transpose(dtype: str, dims: tuple[int, ...], order: tuple[int, ...]) -> tuple[str, str]:
    """A module that is one transpose, and the shape of its parameter."""
    given = ",".join(map(str, dims))
    turned = ",".join(str(dims[d]) for d in order)
    dimensions = ",".join(map(str, order))
    lines = (
        f"  x = {dtype}[{given}] parameter(0)",
        f"  ROOT r = {dtype}[{turned}] transpose(x), dimensions={{{dimensions}}}",
    )
    return module(*lines), f"{dtype}[{given}]"


@pytest.mark.parametrize("dtype", ["pred", "s8", "bf16", "f32", "f64", "c64", "c128"])
@pytest.mark.parametrize("dims", [(300, 200), (129, 515), (64, 1000), (4100, 9)])
def test_element_types(dtype: str, dims: tuple[int, int]) -> None:
    text, shape = transpose(dtype, dims, (1, 0))
    check(text, shape)
    if dims == (300, 200):
        llvm = emit_stage(hloc.parse(text), "llvm", "cpu", Options())
        assert (TURN in llvm) == (dtype != "c128")


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_orders(order: tuple[int, ...], streamed: bool, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LEAST_BYTES", 1 if streamed else 1 << 40)
    text, shape = transpose("f32", (128, 64, 192), order)
    check(text, shape, num_threads=threads)
    assert ("!nontemporal" in emit_stage(hloc.parse(text), "llvm", "cpu", Options())) == streamed


FUSED = module(
    "  x = f32[200,200] parameter(0)",
    "  y = f32[150,200] parameter(1)",
    "  b = f32[200] parameter(2)",
    "  t = f32[200,200] transpose(x), dimensions={1,0}",
    "  s = f32[200,200] add(x, t)",
    "  bb = f32[200,200] broadcast(b), dimensions={0}",
    "  r = f32[200,200] multiply(s, bb)",
    "  u = f32[200,150] transpose(y), dimensions={1,0}",
    "  v = f32[200,150] negate(u)",
    "  ROOT all = (f32[200,200], f32[200,150]) tuple(r, v)",
)


def test_other_ops_beside_them() -> None:
    """Of x, the tile is turned, and what is read at the result's own index is not."""
    check(FUSED, "f32[200,200]", "f32[150,200]", "f32[200]")
    assert TURN in emit_stage(hloc.parse(FUSED), "llvm", "cpu", Options())


def test_two_inputs() -> None:
    text = module(
        "  x = f32[130,70] parameter(0)",
        "  y = bf16[130,70] parameter(1)",
        "  w = f32[130,70] convert(y)",
        "  s = f32[130,70] subtract(x, w)",
        "  ROOT r = f32[70,130] transpose(s), dimensions={1,0}",
    )
    check(text, "f32[130,70]", "bf16[130,70]")


def test_layouts() -> None:
    text = (
        "HloModule m, entry_computation_layout={(f32[90,100,40]{0,2,1})->f32[90,100,40]{1,0,2}}\n"
        "ENTRY e {\n"
        "  x = f32[90,100,40]{0,2,1} parameter(0)\n"
        "  ROOT r = f32[90,100,40]{1,0,2} copy(x)\n}"
    )
    check(text, "f32[90,100,40]{0,2,1}")


def test_what_is_repeated_along_the_result_is_not_turned() -> None:
    """Each element of it is read once for a whole line."""
    text = module(
        "  x = f32[64,200] parameter(0)",
        "  y = f32[64,300] parameter(1)",
        "  a = f32[64,200,300] broadcast(x), dimensions={0,1}",
        "  b = f32[64,200,300] broadcast(y), dimensions={0,2}",
        "  ROOT r = f32[64,200,300] multiply(a, b)",
    )
    check(text, "f32[64,200]", "f32[64,300]")
    llvm = emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=1))
    assert "select" not in llvm[llvm.index("@kernel.fusion(") : llvm.index("@computation")]
