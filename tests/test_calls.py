"""Calls that go through no Python code: same results and errors as those that do, no leaks, and pooled memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import hloc
from hloc.codegen import call_layout
from hloc.ir.dtypes import ALL
from hloc.options import Options
from hloc.runtime import callable_type, native_call
from hloc.runtime.executable import Executable

X = np.array([1, -2, 3], np.float32)
NEGATED = "negated { x = f32[3] parameter(0) ROOT y = f32[3] negate(x) }"


def compiled(entry: str, *warm: object, before: str = "") -> Executable:
    """The program of an ENTRY; its calls are native after two with the arguments `warm`."""
    executable = hloc.compile(f"{before} ENTRY {entry}")
    for _ in range(2):
        executable(*warm)
    assert callable_type.function_of(executable)
    return executable


@pytest.fixture(scope="module")
def negated() -> Executable:
    return compiled(NEGATED, X)


def frames(call: Callable[[], object]) -> list[str]:
    """The Python functions that run meanwhile, the call itself left out."""
    names: list[str] = []
    sys.setprofile(lambda frame, event, _: names.append(frame.f_code.co_name) if event == "call" else None)
    try:
        call()
    finally:
        sys.setprofile(None)
    return names[1:]


def test_the_first_calls_are_pythons_and_later_ones_are_not() -> None:
    executable = hloc.compile(f"ENTRY {NEGATED}")
    ran = [frames(lambda: executable(X)) for _ in range(3)]
    assert ran[0] and ran[1] and not ran[2]


def test_an_executable_is_one_of_its_class(negated: Executable) -> None:
    assert isinstance(negated, Executable) and type(negated).__name__ == "Executable"
    assert negated.program.entry and negated.cost_analysis().flops == 3


def test_results_are_arrays_like_any_other(negated: Executable) -> None:
    y = negated(X)
    np.testing.assert_array_equal(y, -X)
    assert type(y) is np.ndarray and y.base is None
    assert y.flags.owndata and y.flags.writeable and y.flags.c_contiguous and y.flags.aligned
    assert y.__array_interface__["data"][0] % 64 == 0
    y += 1
    np.testing.assert_array_equal(negated(X), -X)
    y.resize(1000, refcheck=False)
    np.testing.assert_array_equal(y, np.append(1 - X, np.zeros(997, np.float32)))
    y.resize(2, refcheck=False)
    np.testing.assert_array_equal(y, 1 - X[:2])


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype.numpy is not None], ids=lambda dtype: dtype.name)
def test_every_element_type(dtype) -> None:
    shape = f"{dtype.name}[2,3]"
    values = np.array([[0, 1, 0], [1, 1, 0]]).astype(dtype.numpy)
    call = compiled(f"e {{ x = {shape} parameter(0) ROOT y = {shape} copy(x) }}", values)
    got = call(values)
    assert got.dtype == values.dtype and got.tobytes() == values.tobytes() and got is not values
    assert not frames(lambda: call(values))


@pytest.mark.parametrize("order", ["2,1,0", "0,1,2", "1,2,0", "0,2,1"])
def test_layouts_of_arguments_and_results(order: str) -> None:
    dims, minor = (2, 3, 5), [int(d) for d in order.split(",")]
    values = np.arange(30, dtype=np.float32).reshape(dims)
    major = minor[::-1]
    given = np.ascontiguousarray(values.transpose(major)).transpose([major.index(d) for d in range(3)])
    shape = f"f32[2,3,5]{{{order}}}"
    call = compiled(f"e {{ x = {shape} parameter(0) ROOT y = {shape} negate(x) }}", given)
    got = call(given)
    np.testing.assert_array_equal(got, -values)
    assert got.strides == given.strides and not frames(lambda: call(given))
    with pytest.raises(hloc.ArgumentError, match="strides"):
        call(np.asarray(values, order="F" if order == "2,1,0" else "C"))


def test_strides_of_single_elements_do_not_matter() -> None:
    text = "e { x = f32[2,1,3]{1,2,0} parameter(0) ROOT y = f32[2,1,3] negate(x) }"
    call = compiled(text, X[None, None].repeat(2, 0))
    given = np.lib.stride_tricks.as_strided(np.arange(6, dtype=np.float32), (2, 1, 3), (12, 999, 4))
    np.testing.assert_array_equal(call(given), -given)
    assert not frames(lambda: call(given))


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("ROOT r = (f32[3]) tuple(y)", lambda y: (y,)),
        ("ROOT r = () tuple()", lambda y: ()),
        ("t = token[] after-all() ROOT r = (token[], f32[3], f32[3]) tuple(t, x, y)", lambda y: (None, -y, y)),
        (
            "a = (f32[3], f32[3]) tuple(x, y) b = () tuple()"
            " ROOT r = (f32[3], (f32[3], f32[3]), (), f32[3]) tuple(y, a, b, x)",
            lambda y: (y, (-y, y), (), -y),
        ),
    ],
)
def test_structures(root: str, expected: Callable) -> None:
    call = compiled(f"e {{ x = f32[3] parameter(0) y = f32[3] negate(x) {root} }}", X)
    got = call(X)
    assert repr(got) == repr(expected(-X)) and not frames(lambda: call(X))
    leaves = [leaf for part in got if part is not None for leaf in (part if isinstance(part, tuple) else [part])]
    assert repr(call.execute(X)) == repr(leaves)


def test_empty_arrays_scalars_and_no_arguments() -> None:
    empty, number = np.empty((0, 3), np.float32), np.array(2.0)
    text = """e { x = f32[0,3] parameter(0) n = f64[] parameter(1) m = f64[] negate(n)
        ROOT r = (f32[0,3], f64[]) tuple(x, m) }"""
    call = compiled(text, empty, number)
    none, minus = call(empty, number)
    assert none.shape == (0, 3) and minus.shape == () and minus == -2 and not frames(lambda: call(empty, number))
    constant = compiled("e { ROOT c = s32[2] constant({4, 5}) }")
    assert list(constant()) == [4, 5]


BAD = {
    "count": (X, X),
    "none": (),
    "type": (X.astype(np.float64),),
    "byte order": (X.astype(">f4"),),
    "size": (X[:2],),
    "rank": (X[None],),
    "strides": (X.repeat(2)[::2],),
    "text": ("abc",),
    "object": (object(),),
    "number": (1.0,),
    "nested": ((X, X),),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_errors_are_those_of_the_first_call(arguments: tuple, negated: Executable) -> None:
    messages = []
    for call in (hloc.compile(f"ENTRY {NEGATED}"), negated):
        with pytest.raises(hloc.ArgumentError) as caught:
            call(*arguments)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_names_of_arguments_are_refused(negated: Executable) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        negated(x=X)
    with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
        negated(X, y=X)
    np.testing.assert_array_equal(negated(*(X,), **{}), -X)


class Sub(np.ndarray):
    """A class of arrays."""


class WithDlpack:
    """An array of another library."""

    def __dlpack__(self, **options: object) -> object:
        return X.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return X.__dlpack_device__()


def unaligned() -> np.ndarray:
    raw = np.zeros(13, np.uint8)
    view = raw[1:].view(np.float32)
    view[:] = X
    return view


UNUSUAL = {
    "subclass": lambda: X.view(Sub),
    "buffer": lambda: memoryview(X),
    "dlpack": WithDlpack,
    "unaligned": unaligned,
    "in a list": lambda: [X],
    "read-only": lambda: np.frombuffer(X.tobytes(), np.float32),
}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_arguments(make: Callable[[], object]) -> None:
    text = "e { t = (f32[3]) parameter(0) x = f32[3] get-tuple-element(t), index=0 ROOT y = f32[3] negate(x) }"
    np.testing.assert_array_equal(compiled(text, X)(make()), -X)


def test_numbers_for_scalars() -> None:
    call = compiled("e { x = f32[] parameter(0) ROOT y = f32[] negate(x) }", np.float32(1))
    assert [call(x).item() for x in (2.0, 3, np.float32(4), np.array(5, np.float32))] == [-2, -3, -4, -5]


def test_a_status_raises() -> None:
    text = """e { x = f32[4] parameter(0) n = s32[] parameter(1)
        d = f32[<=4] set-dimension-size(x, n), dimensions={0} z = f32[] constant(0)
        ROOT s = f32[] reduce(d, z), dimensions={0}, to_apply=add }"""
    add = "add { a = f32[] parameter(0) b = f32[] parameter(1) ROOT c = f32[] add(a, b) }"
    x = np.ones(4, np.float32)
    call = compiled(text, x, np.int32(2), before=add)
    assert call(x, np.array(3, np.int32)) == 3
    idle = native_call.current().idle_bytes
    for _ in range(3):
        with pytest.raises(hloc.HloError, match="live size"):
            call(x, np.array(9, np.int32))
    assert native_call.current().idle_bytes == idle


def test_random_numbers_go_on() -> None:
    text = "e { a = f32[] constant(0) b = f32[] constant(1) ROOT r = f32[4] rng(a, b), distribution=rng_uniform }"
    call = compiled(text)
    assert len({call().tobytes() for _ in range(20)}) == 20


# References and memory


def test_nothing_leaks(negated: Executable) -> None:
    kept = [X, X.dtype, None, negated, np.ndarray, negated._native]

    def calls() -> tuple[list[int], int]:
        for _ in range(50_000):
            negated(X)
        for arguments in (*BAD.values(), (X,)) * 20:
            with suppress(hloc.ArgumentError):
                negated.execute(*arguments)
        gc.collect()
        return [sys.getrefcount(each) for each in kept], [sys.getallocatedblocks(), resident_bytes()]

    calls()
    (counts, (blocks, held)), (counts_after, (blocks_after, held_after)) = calls(), calls()
    assert max(abs(a - b) for a, b in zip(counts, counts_after, strict=True)) < 100
    assert abs(blocks_after - blocks) < 1000 and held_after - held < MIB


def test_an_executable_goes_away() -> None:
    executable = compiled(NEGATED, X)
    gone = weakref.ref(executable)
    y = executable(X)
    del executable
    assert gone() is None
    np.testing.assert_array_equal(y, -X)


def place(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


MIB = 1 << 20
LARGE = np.zeros(MIB, np.float32)


@pytest.fixture(scope="module")
def large() -> Executable:
    text = f"e {{ x = f32[{MIB}] parameter(0) ROOT y = f32[{MIB}] negate(x) }}"
    return compiled(text, LARGE)


def test_memory_comes_back_when_the_last_view_is_gone(large: Executable) -> None:
    pool = native_call.current()
    pool.give_back()
    y = large(LARGE)
    where = place(y)
    assert where % 64 == 0
    view = y[5:].view(np.int32)
    del y
    other = large(LARGE)
    assert place(other) != where
    assert pool.idle_bytes < 4 * MIB
    del view
    assert pool.idle_bytes >= 4 * MIB
    assert place(large(LARGE)) == where


def test_results_that_are_kept_are_apart(large: Executable) -> None:
    kept = [large(LARGE + i) for i in range(5)]
    assert [float(y[7]) for y in kept] == [0, -1, -2, -3, -4]
    assert len({place(y) // (4 * MIB) for y in kept}) == 5
    assert len({place(y) % 4096 for y in kept}) == 5, "elements of equal index fall on the same lines of a cache"


def test_the_pool_is_bounded(large: Executable) -> None:
    pool = native_call.current()
    most = call_layout.POOL.index("most_bytes")
    before = pool.pool[most]
    pool.pool[most] = 9 * MIB
    try:
        kept = [large(LARGE) for _ in range(5)]
        oldest = {place(y) for y in kept[:3]}
        while kept:
            del kept[0]
        assert 8 * MIB <= pool.idle_bytes <= 9 * MIB
        assert {place(large(LARGE)), place(large(LARGE))}.isdisjoint(oldest)
    finally:
        pool.pool[most] = before
    pool.give_back()
    assert pool.idle_bytes == 0


def test_the_system_may_take_idle_memory(large: Executable) -> None:
    """All of it is offered once that comes to more than an eighth of what the pool may keep, not block by block."""
    pool = native_call.current()
    pool.give_back()
    most, kept_bytes = (call_layout.POOL.index(name) for name in ("most_bytes", "kept_bytes"))
    before = pool.pool[most]
    pool.pool[most] = 8 * 15 * MIB
    try:
        kept = [large(LARGE) for _ in range(5)]
        offered = bytes_offered()
        for count, mib in ((1, 4), (2, 8), (3, 12), (4, 0), (5, 4)):
            del kept[0]
            assert pool.idle_bytes >= count * 4 * MIB
            assert mib * MIB <= pool.pool[kept_bytes] < (mib + 1) * MIB
            assert bytes_offered() - offered >= (16 * MIB if count > 3 else 0)
        kept = [large(LARGE) for _ in range(5)]
        assert pool.pool[kept_bytes] == 0
    finally:
        pool.pool[most] = before


def bytes_offered() -> int:
    """What the system may take of this process's memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree:"))


def test_idle_memory_goes_back_to_the_system(large: Executable) -> None:
    pool = native_call.current()
    kept = [large(LARGE) for _ in range(16)]
    held = resident_bytes()
    del kept
    pool.give_back()
    assert held - resident_bytes() > 48 * MIB


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_size_classes_are_close() -> None:
    def capacity(number: int) -> int:
        return 64 * (number + 1 if number < 8 else ((number & 7) + 9) << ((number - 8) >> 3))

    pool = native_call.current()
    sizes = [*range(0, 5000), *(3**n for n in range(9, 29)), *(1 << n for n in range(47))]
    for size in sizes:
        number = pool.size_class(size)
        assert capacity(number) >= size and (number == 0 or capacity(number - 1) < size)
        assert size < 512 or capacity(number) <= size * 9 / 8 + 64
    assert pool.size_class(1 << 46) == call_layout.CLASS_COUNT - 1


def test_more_than_there_is_becomes_an_error() -> None:
    assert native_call.current().block(1 << 50) is None
    assert native_call.current().block(1 << 45) is None


def test_idle_memory_is_given_up_for_what_is_needed() -> None:
    code = """if True:
        import hloc, resource, numpy as np
        def text(n): return f"ENTRY e {{ x = f32[] parameter(0) ROOT y = f32[{n}] broadcast(x), dimensions={{}} }}"
        x, mib = np.ones((), np.float32), 1 << 18
        many, one = (hloc.compile(text(n * mib)) for n in (16, 200))
        for call in (many, one):
            for _ in range(3): call(x)
        from hloc.runtime import native_call
        pool = native_call.current()
        pool.give_back()
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
        kept = [many(x) for _ in range(10)]
        del kept
        print(pool.idle_bytes >> 20, one(x)[7], pool.idle_bytes >> 20)
        kept = one(x)
        try: one(x)
        except hloc.HloError as error: print(error.message)
        del kept
        print(one(x)[7])"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pooled, message, after = result.stdout.splitlines()
    assert pooled == "160 1.0 208" and "which this process cannot have" in message and after == "1.0"


# Arguments that are given up

DONATING = """HloModule m, input_output_alias={ {1}: (0, {}, may-alias) }
ENTRY e {
  cache = f32[1048576] parameter(0)
  x = f32[3] parameter(1)
  i = s32[] parameter(2)
  new = f32[1048576] dynamic-update-slice(cache, x, i)
  first = f32[2] slice(cache), slice={[0:2]}
  ROOT r = (f32[2], f32[1048576]) tuple(first, new)
}
"""


@pytest.mark.parametrize("calls", [1, 5])
def test_donated_arguments_come_back_as_results(calls: int) -> None:
    donating = hloc.compile(DONATING, options=hloc.Options(donate=True))
    cache, expected = np.zeros(MIB, np.float32), np.zeros(MIB, np.float32)
    for at in range(calls):
        first, new = donating(cache, X, np.array(at, np.int32))
        np.testing.assert_array_equal(first, expected[:2])
        expected[at : at + 3] = X
        assert new is cache
        np.testing.assert_array_equal(cache, expected)
    assert sys.getrefcount(cache) == 3  # cache, new, and the call's own
    assert not any(plan.arena_bytes >= MIB for plan in donating.program.memory)


def test_arguments_are_given_up_only_if_the_caller_says_so() -> None:
    keeping, cache = hloc.compile(DONATING), np.zeros(MIB, np.float32)
    for _ in range(3):
        _, new = keeping(cache, X, np.array(0, np.int32))
        assert new is not cache and not cache.any()


def test_swapped_arguments_are_given_up() -> None:
    text = """HloModule m, input_output_alias={ {0}: (0, {}), {1}: (1, {}) }
        ENTRY e { a = f32[100] parameter(0) b = f32[100] parameter(1) s = f32[100] add(a, b)
        ROOT r = (f32[100], f32[100]) tuple(b, s) }"""
    call = hloc.compile(text, options=hloc.Options(donate=True))
    for _ in range(3):
        a, b = np.arange(100, dtype=np.float32), np.ones(100, np.float32)
        other, total = call(a, b)
        assert other is a and total is b and (a == 1).all()
        np.testing.assert_array_equal(b, 1 + np.arange(100))


@pytest.mark.parametrize("calls", [0, 3])
def test_what_cannot_be_given_up_is_an_error(calls: int) -> None:
    donating = hloc.compile(DONATING, options=hloc.Options(donate=True))
    cache, i = np.zeros(MIB, np.float32), np.array(0, np.int32)
    for _ in range(calls):
        donating(cache, X, i)
    cache[:] = 0
    with pytest.raises(hloc.ArgumentError, match=r"argument 0 \(%cache\) shares memory with argument 1"):
        donating(cache, cache[7:10], i)
    cache.flags.writeable = False
    with pytest.raises(hloc.ArgumentError, match=r"argument 0 \(%cache\) is read-only"):
        donating(cache, X, i)
    assert not cache.any()


# Threads


def test_calls_from_many_threads(negated: Executable, large: Executable) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        x = np.full(3, number, np.float32)
        many = np.full(MIB, number, np.float32)
        for turn in range(300):
            y = negated(x)
            z = large(many) if turn % 30 == number else None
            if not (y == -number).all() or (z is not None and not (z == -number).all()):
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("rows", [7, 682, 683])
def test_arenas_on_the_stack_and_of_the_pool(rows: int) -> None:
    """Copies of three columns that are turned need working memory; called by several threads at once."""
    steps = " ".join(
        f"t{n} = f32[{shape}] transpose({operand}), dimensions={{1,0}}"
        for n, shape, operand in [(0, f"3,{rows}", "x"), (1, f"{rows},3", "t0"), (2, f"3,{rows}", "t1")]
    )
    x = np.random.default_rng(5).standard_normal((rows, 3)).astype(np.float32)
    entry = f"e {{ x = f32[{rows},3] parameter(0) {steps} ROOT r = f32[3,{rows}] add(t2, t2) }}"
    executable = hloc.compile(f"ENTRY {entry}", options=Options(pipeline="none"))
    assert (native_call.arena_room(executable.program) is None) == (rows == 683)
    wrong: list[int] = []

    def call(number: int) -> None:
        wrong.extend(number for _ in range(200) if not np.array_equal(executable(x + number), 2 * (x + number).T))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_the_first_calls_of_many_threads() -> None:
    executable = hloc.compile(f"ENTRY {NEGATED}")
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.extend(executable(X) for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 400 and all((y == -X).all() for y in results)


def test_other_threads_go_on_during_a_long_run() -> None:
    before = """c { p = (s32[], f32[]) parameter(0) i = s32[] get-tuple-element(p), index=0 n = s32[] constant(COUNT)
        ROOT r = pred[] compare(i, n), direction=LT }
        b { p = (s32[], f32[]) parameter(0) i = s32[] get-tuple-element(p), index=0 one = s32[] constant(1)
        j = s32[] add(i, one) x = f32[] get-tuple-element(p), index=1 y = f32[] sine(x)
        ROOT r = (s32[], f32[]) tuple(j, y) }"""
    text = """e { x = f32[] parameter(0) z = s32[] constant(0) t = (s32[], f32[]) tuple(z, x)
        w = (s32[], f32[]) while(t), condition=c, body=b ROOT y = f32[] get-tuple-element(w), index=1 }"""
    x = np.array(1, np.float32)
    call = compiled(text, x, before=before.replace("COUNT", "5000000"))
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(time.perf_counter())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    call(x)
    end = time.perf_counter()
    done.set()
    thread.join()
    assert sum(start < moment < end for moment in seen) >= 5, (end - start, len(seen))


def test_short_runs_keep_the_lock_and_long_ones_do_not(negated: Executable, large: Executable) -> None:
    assert not native_call.is_long(negated.program)
    assert native_call.is_long(large.program)


# Processes


def test_a_program_from_the_cache_is_called_without_llvm(tmp_path: Path) -> None:
    code = f"""if True:
        import hloc, sys, numpy as np
        f = hloc.compile({"ENTRY " + NEGATED!r})
        for _ in range(3): y = f(np.ones(3, np.float32))
        print(f._native is not None, "llvmlite.binding" in sys.modules)"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(2)]
    assert [run.stdout.split() for run in runs] == [["True", "True"], ["True", "False"]]


def test_arrays_may_outlive_the_interpreters_modules() -> None:
    code = f"""if True:
        import hloc, sys, numpy as np
        f = hloc.compile({"ENTRY " + NEGATED!r})
        sys.kept = [f(np.ones(3, np.float32)) for _ in range(9)]
        class Late:
            def __del__(self, call=f, x=np.ones(3, np.float32)): call(x)
        sys.late = Late()"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_the_interpreter_is_another_calls_stay_with_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callable_type, "interpreter_is_known", lambda: False)
    callable_type.with_room.cache_clear()
    try:
        executable = hloc.compile(f"ENTRY {NEGATED}")
        for _ in range(3):
            np.testing.assert_array_equal(executable(X), -X)
        assert type(executable) is Executable
    finally:
        callable_type.with_room.cache_clear()


def test_where_the_interpreters_functions_are_not_found_calls_stay_with_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("the object code calls PyTuple_New, which this process does not have")

    monkeypatch.setattr(native_call, "host", missing)
    executable = hloc.compile(f"ENTRY {NEGATED}")
    for _ in range(3):
        np.testing.assert_array_equal(executable(X), -X)
    assert not callable_type.function_of(executable)
