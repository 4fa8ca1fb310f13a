"""Whole programs through commands, devices and the host, on the emulator."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.errors import ArgumentError, HloError
from hloc.host.custom_calls import register_custom_call
from hloc.options import Options
from hloc.runtime.device_executable import DeviceExecutable

X = np.arange(4, dtype=np.float32)


def compiled(text: str, **options) -> DeviceExecutable:
    made = hloc.compile(text, "cuda-emulated", Options(cache=False, **options))
    assert isinstance(made, DeviceExecutable)
    return made


def same(text: str, *arguments: np.ndarray) -> DeviceExecutable:
    """The program, after its results were found to be the evaluator's, twice over."""
    run = compiled(text)
    expected = hloc.evaluate(text, *arguments)
    for _ in range(2):
        for got, right in zip(np.atleast_1d(run(*arguments)), np.atleast_1d(expected), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-5)
    return run


LOOP = """HloModule m
condition {
  s = (f32[4], s32[]) parameter(0)
  i = s32[] get-tuple-element(s), index=1
  v = f32[4] get-tuple-element(s), index=0
  first = f32[1] slice(v), slice={[1:2]}
  f = f32[] reshape(first)
  most = f32[] constant(100)
  ROOT c = pred[] compare(f, most), direction=LT
}
body {
  s = (f32[4], s32[]) parameter(0)
  v = f32[4] get-tuple-element(s), index=0
  i = s32[] get-tuple-element(s), index=1
  one = s32[] constant(1)
  d = f32[4] add(v, v)
  j = s32[] add(i, one)
  ROOT r = (f32[4], s32[]) tuple(d, j)
}
ENTRY e {
  x = f32[4] parameter(0)
  zero = s32[] constant(0)
  s = (f32[4], s32[]) tuple(x, zero)
  ROOT w = (f32[4], s32[]) while(s), condition=condition, body=body
}
"""


def test_a_loop_of_unknown_length() -> None:
    run = compiled(LOOP)
    values, turns = run(X)
    assert turns == 7
    np.testing.assert_array_equal(values, X * 128)
    assert run(X * 200)[1] == 0


CHOICE = """HloModule m
double {
  v = f32[4] parameter(0)
  ROOT d = f32[4] add(v, v)
}
negate {
  v = f32[4] parameter(0)
  ROOT n = f32[4] negate(v)
}
greater {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = pred[] compare(a, b), direction=GT
}
down {
  v = f32[4] parameter(0)
  ROOT r = f32[4] sort(v), dimensions={0}, to_apply=greater
}
ENTRY e {
  which = s32[] parameter(0)
  x = f32[4] parameter(1)
  ROOT c = f32[4] conditional(which, x, x, x), branch_computations={double, negate, down}
}
"""


@pytest.mark.parametrize("which", [-1, 0, 1, 2, 3])
def test_a_choice_by_number(which: int) -> None:
    same(CHOICE, np.int32(which), X)


def test_nested_results_have_the_structure_of_the_root() -> None:
    text = """HloModule m
ENTRY e {
  p = (f32[4], (s32[], f32[0])) parameter(0)
  x = f32[4] get-tuple-element(p), index=0
  q = (s32[], f32[0]) get-tuple-element(p), index=1
  n = f32[4] negate(x)
  ROOT r = ((s32[], f32[0]), f32[4]) tuple(q, n)
}
"""
    run = compiled(text)
    (number, empty), negated = run((X, (3, np.zeros(0, np.float32))))
    assert number == 3 and empty.shape == (0,)
    np.testing.assert_array_equal(negated, -X)
    assert not np.shares_memory(negated, run(X, np.int32(1), empty)[1])


def test_python_functions_are_called_by_the_host() -> None:
    register_custom_call("emulated_twice", lambda x: x * 2)
    text = """HloModule m
ENTRY e {
  x = f32[2,3]{0,1} parameter(0)
  n = f32[2,3]{0,1} negate(x)
  c = f32[2,3]{1,0} custom-call(n), custom_call_target="emulated_twice"
  ROOT r = f32[2,3] add(c, c)
}
"""
    given = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(compiled(text)(given), -4 * given)


def test_an_exception_of_a_function_ends_the_run() -> None:
    def fail(x: np.ndarray) -> np.ndarray:
        raise ValueError("not today")

    register_custom_call("emulated_fail", fail)
    text = """HloModule m
ENTRY e {
  x = f32[4] parameter(0)
  ROOT c = f32[4] custom-call(x), custom_call_target="emulated_fail"
}
"""
    with pytest.raises(HloError, match='"emulated_fail" raised ValueError: not today'):
        compiled(text)(X)


def test_lapack_runs_on_the_host() -> None:
    text = """HloModule m
ENTRY e {
  a = f64[2,2] parameter(0)
  ROOT c = (f64[2,2], s32[]) custom-call(a), custom_call_target="lapack_dpotrf_ffi",
    api_version=API_VERSION_TYPED_FFI, backend_config={uplo = 76 : ui8}
}
"""
    factor, info = compiled(text)(np.array([[4.0, 2.0], [2.0, 5.0]]))
    assert info == 0
    np.testing.assert_allclose(np.tril(factor), [[2, 0], [1, 2]])


FEED = """HloModule m
ENTRY e {
  t = token[] after-all()
  i = (f32[4], token[]) infeed(t)
  x = f32[4] get-tuple-element(i), index=0
  d = f32[4] add(x, x)
  u = token[] get-tuple-element(i), index=1
  o = token[] outfeed(d, u), outfeed_shape=f32[4]
  ROOT r = f32[4] negate(d)
}
"""


def test_values_come_from_and_go_to_the_host() -> None:
    run = compiled(FEED)
    run.infeed().put(X)
    queue = run.outfeed()
    np.testing.assert_array_equal(run(), -2 * X)
    np.testing.assert_array_equal(queue.get(timeout=1), 2 * X)


def test_a_host_that_is_late_is_told() -> None:
    run = compiled(FEED)
    run.patience = 0.1
    run.infeed()
    with pytest.raises(HloError, match=r"nothing came from the host within 0\.1 seconds"):
        run()


SUM_OF_ALL = """HloModule m
add {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT s = f32[] add(x, y)
}
ENTRY e {
  x = f32[4] parameter(0)
  id = u32[] replica-id()
  f = f32[] convert(id)
  b = f32[4] broadcast(f), dimensions={}
  y = f32[4] add(x, b)
  ROOT s = f32[4] all-reduce(y), replica_groups={}, to_apply=add
}
"""


def test_devices_meet() -> None:
    run = compiled(SUM_OF_ALL, replica_count=3)
    for results in (run.execute_replicated([[X], [X + 1], [X + 2]]), [[run(X) + 3]]):
        for (result,) in results:
            np.testing.assert_array_equal(result, 3 * X + 6)


def test_live_sizes_go_in_and_come_out() -> None:
    text = """HloModule m, entry_computation_layout={(f32[<=4]{0})->f32[<=4]{0}}
ENTRY e {
  x = f32[<=4]{0} parameter(0)
  ROOT n = f32[<=4]{0} negate(x)
}
"""
    run = compiled(text)
    for count in (3, 4, 0):
        np.testing.assert_array_equal(run(X[:count]), -X[:count])


def test_arguments_that_do_not_fit_are_told() -> None:
    with pytest.raises(ArgumentError, match=r"argument 0 \(%x\) is f32\[3\], expected f32\[4\]"):
        compiled(LOOP)(X[:3])
    with pytest.raises(HloError, match="no memory of its own that arrays can stay in"):
        compiled(LOOP).to_device(X)


def test_costs_and_memory_are_told() -> None:
    run = compiled(LOOP)
    assert run.cost_analysis().kernels > 0
    assert run.memory_analysis() is not None


def test_a_program_from_the_cache_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        run = hloc.compile(LOOP, "cuda-emulated")
        assert run(X)[1] == 7
    assert len(list(tmp_path.rglob("*.kept"))) >= 1
