"""Large results go past the caches; here those of any size do."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.codegen import streams
from hloc.codegen.compile import emit_stage
from hloc.options import Options
from hloc.reference.evaluate import evaluate

ELEMENTWISE = """HloModule m
ENTRY e {
  x = f32[70,640] parameter(0)
  y = bf16[640] parameter(1)
  c = f32[640] convert(y)
  b = f32[70,640] broadcast(c), dimensions={1}
  s = f32[70,640] add(x, b)
  h = bf16[70,640] convert(s)
  ROOT r = (f32[70,640], bf16[70,640]) tuple(s, h)
}"""

FLAT = """HloModule m
ENTRY e {
  x = f64[12800] parameter(0)
  ROOT r = f64[12800] multiply(x, x)
}"""

LAYOUT = """HloModule m, entry_computation_layout={(s8[128,5,30]{0,2,1})->s8[128,5,30]{0,2,1}}
ENTRY e {
  x = s8[128,5,30]{0,2,1} parameter(0)
  ROOT r = s8[128,5,30]{0,2,1} add(x, x)
}"""

ODD = FLAT.replace("12800", "12801")

ROWS = """HloModule m
max { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT m = f32[] maximum(a, b) }
ENTRY e {
  x = f32[9,3,512] parameter(0)
  low = f32[] constant(-inf)
  m = f32[9] reduce(x, low), dimensions={1,2}, to_apply=max
  b = f32[9,3,512] broadcast(m), dimensions={0}
  d = f32[9,3,512] subtract(x, b)
  e = f32[9,3,512] exponential(d)
  ROOT r = (f32[9,3,512], f32[9,3,512]) tuple(d, e)
}"""

SOFTMAX = """HloModule m
max { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT m = f32[] maximum(a, b) }
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[33,3072] parameter(0)
  low = f32[] constant(-inf)
  zero = f32[] constant(0)
  m = f32[33] reduce(x, low), dimensions={1}, to_apply=max
  b = f32[33,3072] broadcast(m), dimensions={0}
  d = f32[33,3072] subtract(x, b)
  e = f32[33,3072] exponential(d)
  s = f32[33] reduce(e, zero), dimensions={1}, to_apply=add
  t = f32[33,3072] broadcast(s), dimensions={0}
  ROOT r = f32[33,3072] divide(e, t)
}"""


LOOP = """HloModule m
cond { s = (s32[], f64[12800]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(3000)
  ROOT c = pred[] compare(i, n), direction=LT }
body { s = (s32[], f64[12800]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f64[12800] get-tuple-element(s), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  y = f64[12800] multiply(x, x)
  ROOT r = (s32[], f64[12800]) tuple(j, y) }
ENTRY e {
  x = f64[12800] parameter(0)
  zero = s32[] constant(0)
  s = (s32[], f64[12800]) tuple(zero, x)
  w = (s32[], f64[12800]) while(s), condition=cond, body=body
  ROOT r = f64[12800] get-tuple-element(w), index=1
}"""


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LEAST_BYTES", 1)


def compiled(text: str, **options: object) -> hloc.Executable:
    return hloc.compile(text, options=Options(cache=False, **options))


def llvm_ir(text: str) -> str:
    return emit_stage(hloc.parse(text), "llvm", "cpu", Options())


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("text", [ELEMENTWISE, FLAT, LAYOUT, ODD, ROWS, SOFTMAX])
@pytest.mark.parametrize("guard", ["", "end"])
def test_results_are_the_evaluators(text: str, guard: str) -> None:
    executable = compiled(text, guard_pages=guard)
    generator = np.random.default_rng(0)
    arguments = []
    for leaf in executable.program.parameters:
        shape = leaf.shape
        dense = [shape.dims[d] for d in shape.minor_to_major[::-1]]
        numbers = (generator.standard_normal(dense) * 3).astype(shape.dtype.numpy)
        arguments.append(numbers.transpose([shape.minor_to_major[::-1].index(d) for d in range(len(dense))]))
    wanted = evaluate(hloc.parse(text), arguments)
    for got, right in zip(executable.execute(*arguments), wanted, strict=True):
        np.testing.assert_allclose(got.astype(float), np.asarray(right).astype(float), rtol=2e-6, atol=1e-7)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(("text", "streamed"), [(ELEMENTWISE, True), (ROWS, True), (FLAT, True), (ODD, False)])
def test_which_are_streamed(text: str, streamed: bool) -> None:
    llvm = llvm_ir(text)
    assert ("!nontemporal" in llvm) == streamed
    if "x86_64" in llvm:
        assert ("sfence" in llvm) == streamed


@pytest.mark.usefixtures("any_size")
def test_what_is_read_beside_results_is_fetched_ahead() -> None:
    def lines(text: str, kernel: str) -> int:
        bodies = [part.split("\n}")[0] for part in llvm_ir(text).split(f"define internal void @{kernel}")[1:]]
        return "".join(bodies).count("call void @llvm.prefetch")

    assert lines(ELEMENTWISE, "kernel.fusion") == 128 * 4 // 64  # of x alone: the row is read again and again
    assert lines(FLAT, "kernel.r") == 128 * 8 // 64
    assert lines(ODD, "kernel.r") == 0


@pytest.mark.usefixtures("any_size")
def test_all_loops_over_a_row_fetch_the_next_one() -> None:
    llvm = llvm_ir(SOFTMAX).split("define internal void @kernel.")[1].split("\n}")[0]
    bursts = [len(burst.split("call void @llvm.prefetch")) - 1 for burst in llvm.split("phi i64")]
    most, powers, last = (burst for burst in bursts if burst)
    assert 0 < most <= last < powers
    assert 3072 * 4 // 64 <= 12 * (most + powers) + 24 * last <= 1.5 * 3072 * 4 // 64


@pytest.mark.usefixtures("any_size")
def test_short_rows_are_fetched_where_they_are_stored() -> None:
    llvm = llvm_ir(SOFTMAX.replace("3072", "256")).split("define internal void @kernel.")[1].split("\n}")[0]
    bursts = [len(burst.split("call void @llvm.prefetch")) - 1 for burst in llvm.split("phi i64")]
    assert [burst for burst in bursts if burst] == [256 * 4 // 64 // 2]


def test_small_results_stay_in_the_caches() -> None:
    assert "!nontemporal" not in llvm_ir(ROWS)


@pytest.mark.usefixtures("any_size")
def test_what_lies_over_an_input_is_in_a_cache() -> None:
    assert "!nontemporal" not in llvm_ir(LOOP)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    "text", [ROWS.replace("9,3", "900,3").replace("[9]", "[900]"), FLAT.replace("12800", "1280000")]
)
def test_threads(text: str) -> None:
    alone, shared = compiled(text, num_threads=1), compiled(text, num_threads=2)
    assert shared.program.threads == 2
    x = np.random.default_rng(0).standard_normal(alone.program.parameters[0].shape.dims)
    x = x.astype(alone.program.parameters[0].shape.dtype.numpy)
    for one, other in zip(alone.execute(x), shared.execute(x), strict=True):
        assert one.tobytes() == other.tobytes()
