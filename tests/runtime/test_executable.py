"""Calling a program: what is accepted, what comes back, and what is told of arguments that do not fit."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest

import hloc
from hloc.errors import ArgumentError, HloError


def compiled(body: str, header: str = "HloModule m") -> hloc.Executable:
    return hloc.compile(header + "\n\nENTRY main {\n" + body + "\n}\n")


@pytest.fixture(scope="module")
def add() -> hloc.Executable:
    return compiled("  x = f32[2,3] parameter(0)\n  s = f32[] parameter(1)\n"
                    "  b = f32[2,3] broadcast(s), dimensions={}\n  ROOT r = f32[2,3] add(x, b)")


NESTED = """
  p = (f32[2], (s32[], token[])) parameter(0)
  q = f32[2] parameter(1)
  x = f32[2] get-tuple-element(p), index=0
  i = (s32[], token[]) get-tuple-element(p), index=1
  n = s32[] get-tuple-element(i), index=0
  t = token[] get-tuple-element(i), index=1
  s = f32[2] subtract(x, q)
  u = (f32[2], token[]) tuple(s, t)
  e = () tuple()
  ROOT r = ((f32[2], token[]), s32[], ()) tuple(u, n, e)"""


@pytest.fixture(scope="module")
def nested() -> hloc.Executable:
    return compiled(NESTED)


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_array_root_gives_an_array(add: hloc.Executable) -> None:
    result = add(X, 2.5)
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, X + 2.5)
    assert result.ctypes.data % 64 == 0


def test_results_are_fresh(add: hloc.Executable) -> None:
    first = add(X, 1)
    second = add(X, 2)
    np.testing.assert_array_equal(first, X + 1)
    assert first.ctypes.data != second.ctypes.data


def test_the_result_has_the_structure_of_the_root(nested: hloc.Executable) -> None:
    x, q = np.array([5, 6], np.float32), np.array([1, 2], np.float32)
    (difference, token), number, empty = nested((x, (np.int32(7), None)), q)
    np.testing.assert_array_equal(difference, [4, 4])
    assert token is None and number == 7 and empty == ()
    assert number.shape == () and number.dtype == np.int32
    flat = nested.execute(x, 7, q)
    assert [leaf.shape for leaf in flat] == [(2,), ()]


def test_lists_stand_for_tuples(nested: hloc.Executable) -> None:
    x = np.zeros(2, np.float32)
    assert nested([x, [3, None]], x)[1] == 3


def test_buffers_of_other_kinds_are_viewed(add: hloc.Executable) -> None:
    class Wrapped:
        __array_interface__ = X.__array_interface__

    class Exported:
        def __dlpack__(self, **options):
            return X.__dlpack__(**options)

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    for value in (memoryview(X), Wrapped(), Exported()):
        np.testing.assert_array_equal(add(value, np.float32(1)), X + 1)


def test_read_only_and_unaligned_arguments_are_fine(add: hloc.Executable) -> None:
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(add(frozen, 1), X + 1)
    raw = np.zeros(25, np.uint8)
    shifted = raw[1:].view(np.float32).reshape(2, 3)
    shifted[:] = X
    np.testing.assert_array_equal(add(shifted, 1), X + 1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((X,), "got 1 arguments, expected 2"),
        ((X, 1, 2), "got 3 arguments, expected 2"),
        ((X.astype(np.float64), 1), "argument 0 (%x) is f64[2,3], expected f32[2,3]"),
        ((X.reshape(3, 2), 1), "argument 0 (%x) is f32[3,2], expected f32[2,3]"),
        ((np.asfortranarray(X), 1), "expected those of f32[2,3]{1,0}"),
        ((X, 0.1), "argument 1 (%s) is 0.1, expected f32[], which does not hold that number exactly"),
        ((X, True), "argument 1 (%s) is True, expected f32[]"),
        ((X, 1j), "expected f32[]"),
        ((X, "one"), "argument 1 (%s) is a str"),
        ((X, object()), "argument 1 (%s) is a object"),
        ((1.0, 1.0), "argument 0 (%x) is 1.0, expected f32[2,3]"),
        (((X, X), 1), "argument 0 (%x) is a tuple"),
    ],
)
def test_arguments_that_do_not_fit_are_told(add: hloc.Executable, arguments: tuple, words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        add(*arguments)
    assert words in str(caught.value)


def test_tuples_that_do_not_fit_are_told(nested: hloc.Executable) -> None:
    x = np.zeros(2, np.float32)
    with pytest.raises(ArgumentError, match="argument 0 has 1 elements, expected 2"):
        nested((x,), x)
    with pytest.raises(ArgumentError, match="a tuple of 2 elements"):
        nested((x, 3), x)


def test_layouts_other_than_row_major_are_taken_and_given() -> None:
    exe = compiled("  x = f32[2,3]{0,1} parameter(0)\n  ROOT r = f32[2,3]{0,1} negate(x)")
    result = exe(np.asfortranarray(X))
    np.testing.assert_array_equal(result, -X)
    assert result.flags.f_contiguous
    with pytest.raises(ArgumentError, match="those of f32"):
        exe(X)


def test_strides_of_dimensions_of_size_one_do_not_matter() -> None:
    exe = compiled("  x = f32[1,3] parameter(0)\n  ROOT r = f32[1,3] negate(x)")
    np.testing.assert_array_equal(exe(np.asfortranarray(X[:1])[:, ::1].copy(order="F")), -X[:1])


def test_types_that_numpy_lacks() -> None:
    exe = compiled("  x = bf16[3] parameter(0)\n  y = s4[3] parameter(1)\n  n = bf16[3] negate(x)\n"
                   "  m = s4[3] negate(y)\n  ROOT r = (bf16[3], s4[3]) tuple(n, m)")
    x, y = np.array([1, -2, 3], ml_dtypes.bfloat16), np.array([1, -2, 7], ml_dtypes.int4)
    n, m = exe(x, y)
    assert n.dtype == ml_dtypes.bfloat16 and m.dtype == ml_dtypes.int4
    np.testing.assert_array_equal(n.astype(np.float32), [-1, 2, -3])
    np.testing.assert_array_equal(m.astype(np.int8), [-1, 2, -7])


def test_empty_arrays() -> None:
    exe = compiled("  x = f32[0,4] parameter(0)\n  ROOT r = f32[4,0] transpose(x), dimensions={1,0}")
    assert exe(np.zeros((0, 4), np.float32)).shape == (4, 0)


def test_what_does_not_fit_into_memory_is_told_with_its_size() -> None:
    exe = compiled("  x = f32[] parameter(0)\n  ROOT b = f32[1099511627776] broadcast(x), dimensions={}")
    with pytest.raises(HloError, match="4398046511104 bytes"):
        exe(1.0)


def test_denormals_count_as_zero_and_the_caller_keeps_its_own(add: hloc.Executable) -> None:
    tiny = np.full((2, 3), 1e-40, np.float32)
    np.testing.assert_array_equal(add(tiny, 0), np.zeros((2, 3)))
    assert np.float32(1e-40) + np.float32(0) != 0


def test_calls_from_several_threads_at_once() -> None:
    exe = compiled("""
  x = f32[1000,3] parameter(0)
  t = f32[3,1000] transpose(x), dimensions={1,0}
  r = f32[3,1000] reverse(t), dimensions={1}
  ROOT b = f32[1000,3] transpose(r), dimensions={1,0}""")
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((1000, 3)).astype(np.float32)
        for _ in range(50):
            if not np.array_equal(exe(x), x[::-1]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_devices_know_their_numbers() -> None:
    exe = compiled("  x = u32[] parameter(0)\n  r = u32[] replica-id()\n  p = u32[] partition-id()\n"
                   "  s = u32[] add(x, r)\n  ROOT t = (u32[], u32[]) tuple(s, p)",
                   "HloModule m, replica_count=2, num_partitions=2")
    results = exe.execute_replicated([[np.uint32(10 * device)] for device in range(4)])
    assert [[int(leaf) for leaf in leaves] for leaves in results] == [[0, 0], [10, 1], [21, 0], [31, 1]]
    assert [int(leaf) for leaf in exe.execute(np.uint32(5))] == [5, 0]
    with pytest.raises(ArgumentError, match="2 devices, expected 4"):
        exe.execute_replicated([[1], [2]])
