"""Functions registered by name: Python's and C's, natively and in the evaluator."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import numpy as np
import pytest

import hloc
from hloc.errors import HloError
from hloc.options import Options

Way = Callable[..., object]


@pytest.fixture(params=["native", "unoptimized", "evaluator"])
def run(request: pytest.FixtureRequest) -> Way:
    """Runs a program one way or the other."""
    if request.param == "evaluator":
        return hloc.evaluate
    options = Options(pipeline="none") if request.param == "unoptimized" else None
    return lambda text, *arguments: hloc.compile(text, options=options)(*arguments)


def program(shape: str, target: str, *operands: str, more: str = "") -> str:
    parameters = [f"  p{i} = {operand} parameter({i})\n" for i, operand in enumerate(operands)]
    names = ", ".join(f"p{i}" for i in range(len(operands)))
    call = f'  ROOT r = {shape} custom-call({names}), custom_call_target="{target}"{more}\n'
    return "HloModule m\nENTRY e {\n" + "".join(parameters) + call + "}"


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_python_function_takes_and_gives_arrays(run: Way) -> None:
    seen = []

    def scaled(x: np.ndarray, by: np.ndarray) -> np.ndarray:
        seen.append((x.dtype, x.shape, x.flags.writeable, by.shape))
        return x * by

    hloc.register_custom_call("test.scaled", scaled)
    result = run(program("f32[2,3]", "test.scaled", "f32[2,3]", "f32[]"), X, np.float32(2))
    np.testing.assert_array_equal(result, X * 2)
    assert seen == [(np.dtype(np.float32), (2, 3), False, ())]


def test_tuples_keep_their_structure(run: Way) -> None:
    def parts(pair: tuple, x: np.ndarray) -> tuple:
        first, (second,) = pair
        return x + 1, (first, [second])

    hloc.register_custom_call("test.parts", parts)
    text = program("(f32[2,3], (s32[], (s32[2])))", "test.parts", "(s32[], (s32[2]))", "f32[2,3]")
    given = (np.int32(5), (np.array([7, 8], np.int32),))
    x, (first, (second,)) = run(text, given, X)
    np.testing.assert_array_equal(x, X + 1)
    assert first == 5 and second.tolist() == [7, 8]


def test_layouts_do_not_matter_to_python(run: Way) -> None:
    hloc.register_custom_call("test.rows", lambda x: x[0] * 1.0)
    constraint = ", operand_layout_constraints={f32[2,3]{0,1}}"
    text = program("f32[3]{0}", "test.rows", "f32[2,3]", more=constraint)
    np.testing.assert_array_equal(run(text, X), X[0])


@pytest.mark.parametrize("dtype", ["pred", "s4", "u8", "bf16", "f8e4m3fn", "f16", "c64"])
def test_arrays_of_all_kinds_of_types(run: Way, dtype: str) -> None:
    hloc.register_custom_call("test.reversed", lambda x, empty: (x[::-1], empty))
    shape = f"({dtype}[3], {dtype}[0,2])"
    text = program(shape, "test.reversed", f"{dtype}[3]", f"{dtype}[0,2]")
    kind = hloc.parse(text).entry.parameters[0].shape.dtype.numpy
    x = np.array([1, 0, 1]).astype(kind)
    x[2] = 0
    result, empty = run(text, x, np.empty((0, 2), kind))
    assert result.dtype == kind and result.tobytes() == x[::-1].tobytes()
    assert empty.shape == (0, 2)


def test_a_call_that_is_asynchronous_and_in_a_branch(run: Way) -> None:
    hloc.register_custom_call("test.twice", lambda x: x * 2)
    text = """HloModule m
branch {
  x = f32[2,3] parameter(0)
  s = ((f32[2,3]), f32[2,3], s32[]) custom-call-start(x), custom_call_target="test.twice"
  ROOT d = f32[2,3] custom-call-done(s)
}
other {
  ROOT x = f32[2,3] parameter(0)
}
ENTRY e {
  p = pred[] parameter(0)
  x = f32[2,3] parameter(1)
  ROOT c = f32[2,3] conditional(p, x, x), true_computation=branch, false_computation=other
}"""
    np.testing.assert_array_equal(run(text, np.bool_(True), X), X * 2)
    np.testing.assert_array_equal(run(text, np.bool_(False), X), X)


def test_the_configuration_is_passed_on(run: Way) -> None:
    def said(x: np.ndarray, *, config: str) -> np.ndarray:
        return x + len(config)

    hloc.register_custom_call("test.said", said, config=True)
    for config, size in (('"four"', 4), ('{"a":1}', 7)):
        text = program("f32[2,3]", "test.said", "f32[2,3]", more=f", backend_config={config}")
        np.testing.assert_array_equal(run(text, X), X + size)


def test_one_program_may_call_another(run: Way) -> None:
    hloc.register_custom_call("test.inner", lambda x: x * 2)
    inner = hloc.compile(program("f32[2,3]", "test.inner", "f32[2,3]"))
    hloc.register_custom_call("test.outer", lambda x: inner(np.ascontiguousarray(x)) + 1)
    np.testing.assert_array_equal(run(program("f32[2,3]", "test.outer", "f32[2,3]"), X), X * 2 + 1)


def test_denormals_are_there_for_the_function() -> None:
    seen = []

    def tiny(x: np.ndarray) -> np.ndarray:
        seen.append(float("1e-310") / 2 > 0 and (np.float64(1e-310) * 0.5) > 0)
        return x

    hloc.register_custom_call("test.tiny", tiny)
    hloc.compile(program("f32[2,3]", "test.tiny", "f32[2,3]"))(X)
    assert seen == [True]


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda x: x.astype(np.float64), r"gave float64\[2, 3\], expected f32\[2,3\]"),
        (lambda x: x[:1], r"gave float32\[1, 3\], expected f32\[2,3\]"),
        (lambda x: None, r"gave object\[\], expected f32\[2,3\]"),
        (lambda: None, "raised TypeError"),
    ],
)
def test_results_that_do_not_fit_are_told(run: Way, function: Callable, words: str) -> None:
    hloc.register_custom_call("test.misfit", function)
    with pytest.raises(HloError, match=f'function of custom call "test.misfit" {words}'):
        run(program("f32[2,3]", "test.misfit", "f32[2,3]"), X)


def test_an_exception_ends_the_run_and_is_the_cause(run: Way) -> None:
    def fail(x: np.ndarray) -> np.ndarray:
        raise KeyError("no such thing")

    hloc.register_custom_call("test.fail", fail)
    text = program("f32[2,3]", "test.fail", "f32[2,3]")
    with pytest.raises(HloError, match='"test.fail" raised KeyError') as caught:
        run(text, X)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_program_that_failed_runs_again() -> None:
    def picky(x: np.ndarray) -> np.ndarray:
        if x[0, 0] < 0:
            raise ValueError("negative")
        return x

    hloc.register_custom_call("test.picky", picky)
    call = hloc.compile(program("f32[2,3]", "test.picky", "f32[2,3]"))
    with pytest.raises(HloError, match="ValueError: negative"):
        call(-X - 1)
    np.testing.assert_array_equal(call(X), X)


def test_an_interrupt_stays_what_it_is() -> None:
    def interrupt(x: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    hloc.register_custom_call("test.interrupt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hloc.compile(program("f32[2,3]", "test.interrupt", "f32[2,3]"))(X)


ALL_DEVICES = """HloModule m, replica_count=2
add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b)
}
ENTRY e {
  x = f32[] parameter(0)
  y = f32[] custom-call(x), custom_call_target="test.devices"
  ROOT r = f32[] all-reduce(y), to_apply=add, replica_groups={{0,1}}
}"""


def test_an_exception_on_one_device_ends_the_run_on_all() -> None:
    def picky(x: np.ndarray) -> np.ndarray:
        if x == 1:
            raise ValueError("one")
        return x * 10

    hloc.register_custom_call("test.devices", picky)
    program = hloc.compile(ALL_DEVICES)
    with pytest.raises(HloError, match='"test.devices" raised ValueError: one'):
        program.execute_replicated([[np.float32(0)], [np.float32(1)]])
    (first,), (second,) = program.execute_replicated([[np.float32(2)], [np.float32(3)]])
    assert first == second == 50


def test_calls_from_many_threads_keep_apart() -> None:
    def odd(x: np.ndarray) -> np.ndarray:
        if x % 2:
            raise ValueError(f"odd {int(x)}")
        return x

    hloc.register_custom_call("test.odd", odd)
    call = hloc.compile(program("s32[]", "test.odd", "s32[]"))
    outcomes: dict[int, object] = {}

    def work(number: int) -> None:
        try:
            outcomes[number] = int(call(number))
        except HloError as error:
            outcomes[number] = str(error.__cause__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {number: f"odd {number}" if number % 2 else number for number in range(16)}


def test_side_effects_stay_and_others_may_go() -> None:
    calls = []
    hloc.register_custom_call("test.effect", lambda x: calls.append(1) or x)
    text = """HloModule m
ENTRY e {
  x = f32[] parameter(0)
  y = f32[] custom-call(x), custom_call_target="test.effect"MORE
  ROOT r = f32[] negate(x)
}"""
    hloc.compile(text.replace("MORE", ", custom_call_has_side_effect=true"))(1.0)
    assert len(calls) == 1
    hloc.compile(text.replace("MORE", ""))(1.0)
    assert len(calls) == 1


C_SIGNATURE = ctypes.CFUNCTYPE(
    None,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_int32),
)


@C_SIGNATURE
def in_memory_order(outs, ins, config, size, status) -> None:
    """Numbers the elements of the result as they lie in memory, from the first operand's second on."""
    floats = ctypes.POINTER(ctypes.c_float)
    out, first = ctypes.cast(outs[0], floats), ctypes.cast(ins[0], floats)
    for i in range(6):
        out[i] = first[1] + i
    if config[:size] == b"fail":
        status[0] = 9


@pytest.mark.parametrize("form", ["ctypes", "address", "capsule"])
def test_a_c_function_sees_memory(run: Way, form: str) -> None:
    address = ctypes.cast(in_memory_order, ctypes.c_void_p).value
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    given = {"ctypes": in_memory_order, "address": address, "capsule": new_capsule(address, b"f", None)}
    hloc.register_custom_call("test.c", given[form], kind="c")
    constraint = ", operand_layout_constraints={f32[2,3]{0,1}}"
    text = program("f32[2,3]{0,1}", "test.c", "f32[2,3]{1,0}", more=constraint)
    np.testing.assert_array_equal(run(text, X), 3 + np.arange(6).reshape(3, 2).T)
    text = program("f32[2,3]{1,0}", "test.c", "f32[2,3]{1,0}")
    np.testing.assert_array_equal(run(text, X), 1 + X)


def test_a_c_function_says_that_it_failed(run: Way) -> None:
    hloc.register_custom_call("test.c_fails", in_memory_order, kind="c")
    text = program("f32[2,3]", "test.c_fails", "f32[2,3]", more=', backend_config="fail"')
    with pytest.raises(HloError, match='"test.c_fails" said that it failed'):
        run(text, X)


def test_what_cannot_be_registered() -> None:
    with pytest.raises(ValueError, match='kind is "rust"'):
        hloc.register_custom_call("test.x", print, kind="rust")
    with pytest.raises(TypeError, match="got a int"):
        hloc.register_custom_call("test.x", 5)
    with pytest.raises(TypeError, match="got a function"):
        hloc.register_custom_call("test.x", lambda: None, kind="c")
    with pytest.raises(TypeError, match="null"):
        hloc.register_custom_call("test.x", 0, kind="c")


def test_an_unknown_target_is_refused_when_compiling() -> None:
    hloc.register_custom_call("test.known", lambda x: x)
    with pytest.raises(HloError, match="unknown custom-call target 'test.unknown'") as caught:
        hloc.compile(program("f32[2,3]", "test.unknown", "f32[2,3]"))
    assert "test.known" in caught.value.hint and "potrf" in caught.value.hint
    assert caught.value.span is not None
    with pytest.raises(HloError, match="calls back into the Python process"):
        hloc.compile(program("f32[2,3]", "xla_ffi_python_cpu_callback", "f32[2,3]"))
