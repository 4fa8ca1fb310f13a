"""Kernels shared among threads: the same bits for any number of them, from any number of callers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

import hloc
from hloc.codegen.llvm import Builder, Module, Value, integer
from hloc.codegen.program import POOL_WORDS, WORKER
from hloc.codegen.routines import Routines
from hloc.codegen.targets.target import target_named
from hloc.codegen.threads_code import parallel_routine, worker_entry
from hloc.host.processors import processors
from hloc.options import Options
from hloc.runtime import elf
from hloc.runtime.threads import pool

CHAIN = """HloModule chain
ENTRY e {
  x = f32[700,1003] parameter(0)
  a = f32[700,1003] tanh(x)
  ROOT b = f32[700,1003] add(a, x)
}"""

SOFTMAX = """HloModule softmax
max { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT m = f32[] maximum(a, b) }
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[301,2048] parameter(0)
  low = f32[] constant(-inf)
  zero = f32[] constant(0)
  m = f32[301] reduce(x, low), dimensions={1}, to_apply=max
  mb = f32[301,2048] broadcast(m), dimensions={0}
  d = f32[301,2048] subtract(x, mb)
  e = f32[301,2048] exponential(d)
  s = f32[301] reduce(e, zero), dimensions={1}, to_apply=sum
  sb = f32[301,2048] broadcast(s), dimensions={0}
  ROOT r = f32[301,2048] divide(e, sb)
}"""

SORT = """HloModule sort
less { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = pred[] compare(a, b), direction=LT }
ENTRY e {
  x = f32[64,1001] parameter(0)
  ROOT r = f32[64,1001] sort(x), dimensions={1}, to_apply=less
}"""

PRODUCT = """HloModule product
ENTRY e {
  x = f32[301,500] parameter(0)
  y = f32[500,333] parameter(1)
  d = f32[301,333] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t = f32[301,333] tanh(d)
  ROOT r = f32[301,333] add(t, d)
}"""

ROWS_IN_PLACE = """HloModule rows
ENTRY e {
  x = f32[301,403] parameter(0)
  y = f32[403,333] parameter(1)
  ROOT d = f32[301,333] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""

LARGE_RIGHT_OPERAND = """HloModule large
ENTRY e {
  x = f32[48,300] parameter(0)
  y = f32[300,1301] parameter(1)
  ROOT d = f32[48,1301] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""

BATCH = """HloModule batch
ENTRY e {
  x = bf16[40,65,100] parameter(0)
  y = bf16[40,33,100] parameter(1)
  ROOT d = f32[40,65,33] dot(x, y), lhs_batch_dims={0}, rhs_batch_dims={0},
    lhs_contracting_dims={2}, rhs_contracting_dims={2}
}"""

VECTOR = """HloModule vector
ENTRY e {
  x = f32[2,1500] parameter(0)
  y = f32[1500,700] parameter(1)
  ROOT d = f32[2,700] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""

CONVOLUTION = """HloModule convolution
ENTRY e {
  x = f32[2,30,31,20] parameter(0)
  w = f32[3,3,20,70] parameter(1)
  c = f32[2,30,31,70] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  t = f32[2,30,31,70] tanh(c)
  ROOT r = f32[2,30,31,70] add(t, c)
}"""

FEW_POSITIONS = """HloModule few_positions
ENTRY e {
  x = f32[1,5,7,300] parameter(0)
  w = f32[3,3,300,170] parameter(1)
  ROOT c = f32[1,5,7,170] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}"""

DEPTHWISE = """HloModule depthwise
ENTRY e {
  x = f32[2,40,31,70] parameter(0)
  w = f32[3,3,1,70] parameter(1)
  ROOT c = f32[2,40,31,70] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f,
    feature_group_count=70
}"""

FULL_SUM = """HloModule full_sum
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[700,1003] parameter(0)
  y = f32[700,1003] multiply(x, x)
  zero = f32[] constant(0)
  s = f32[] reduce(y, zero), dimensions={0,1}, to_apply=sum
  ROOT r = f32[] sqrt(s)
}"""

COLUMN_SUMS = """HloModule column_sums
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[1003,700] parameter(0)
  zero = f32[] constant(0)
  ROOT s = f32[700] reduce(x, zero), dimensions={0}, to_apply=sum
}"""

RUNNING_SUMS = """HloModule running_sums
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[70,10003] parameter(0)
  zero = f32[] constant(0)
  ROOT s = f32[70,10003] reduce-window(x, zero), window={size=1x10003 pad=0_0x10002_0}, to_apply=sum
}"""

LONG_RUNNING_SUMS = """HloModule long_running_sums
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[3,100003] parameter(0)
  one = f32[] constant(1)
  forward = f32[3,100003] reduce-window(x, one), window={size=1x100003 pad=0_0x100002_0}, to_apply=sum
  wave = f32[3,100003] sine(x)
  backward = f32[3,100003] reduce-window(wave, one), window={size=1x100003 pad=0_0x0_100002}, to_apply=sum
  ROOT both = f32[6,100003] concatenate(forward, backward), dimensions={0}
}"""

PAD = """HloModule pad
ENTRY e {
  x = f32[40,101,200] parameter(0)
  zero = f32[] constant(0)
  ROOT p = f32[43,103,199] pad(x, zero), padding=1_2x2_0x-2_1
}"""

CONCATENATE = """HloModule concatenate
ENTRY e {
  x = f32[703,300] parameter(0)
  y = f32[703,401] parameter(1)
  ROOT c = f32[703,701] concatenate(x, y), dimensions={1}
}"""

PROGRAMS = {
    "chain": CHAIN,
    "softmax": SOFTMAX,
    "sort": SORT,
    "product": PRODUCT,
    "rows in place": ROWS_IN_PLACE,
    "large right operand": LARGE_RIGHT_OPERAND,
    "batch": BATCH,
    "vector": VECTOR,
    "full sum": FULL_SUM,
    "column sums": COLUMN_SUMS,
    "pad": PAD,
    "concatenate": CONCATENATE,
    "running sums": RUNNING_SUMS,
    "long running sums": LONG_RUNNING_SUMS,
    "convolution": CONVOLUTION,
    "few positions": FEW_POSITIONS,
    "depthwise": DEPTHWISE,
}


def compiled(text: str, threads: int) -> hloc.Executable:
    return hloc.compile(text, options=Options(num_threads=threads, cache=False))


def arguments(executable: hloc.Executable) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = [leaf.shape for leaf in executable.program.parameters]
    return [rng.standard_normal(shape.dims, np.float32).astype(shape.dtype.numpy) for shape in shapes]


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_results_do_not_depend_on_the_number_of_threads(text: str) -> None:
    alone = compiled(text, 1)
    given = arguments(alone)
    expected = alone(*given)
    assert alone.program.threads == 1
    for threads in (2, 3, 8):
        executable = compiled(text, threads)
        assert executable.program.threads == threads
        for _ in range(20):
            assert np.array_equal(executable(*given), expected)


@pytest.mark.parametrize("text", [CHAIN, SOFTMAX, SORT], ids=["chain", "softmax", "sort"])
def test_calls_take_fewer_threads_if_asked(text: str) -> None:
    compiled = hloc.compile(text, options=Options(num_threads=4))
    (shape,) = (leaf.shape for leaf in compiled.program.parameters)
    x = np.random.default_rng(3).standard_normal(shape.dims).astype(np.float32)
    expected = compiled(x)
    for count in (1, 3, 9):
        fewer = compiled.with_threads(count)
        for _ in range(3):  # by Python at first, then natively
            np.testing.assert_array_equal(fewer(x), expected)
        np.testing.assert_array_equal(compiled(x), expected)
    with pytest.raises(ValueError, match="got 0 threads"):
        compiled.with_threads(0)


def test_a_call_of_one_thread_leaves_the_helpers_asleep() -> None:
    compiled = hloc.compile(CHAIN, options=Options(num_threads=2))
    x = np.ones((700, 1003), np.float32)
    alone = compiled.with_threads(1)
    alone(x)
    time.sleep(0.01)
    everyone, own = time.process_time(), time.thread_time()
    for _ in range(50):
        alone(x)
    everyone, own = time.process_time() - everyone, time.thread_time() - own
    assert everyone < 1.2 * own


def test_small_kernels_stay_on_one_thread() -> None:
    assert compiled(CHAIN.replace("700,1003", "7,1003"), 4).program.threads == 1


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_callers_share_the_pool(text: str) -> None:
    executable = compiled(text, 2)
    given = arguments(executable)
    expected = executable(*given)
    wrong: list[int] = []

    def call(number: int) -> None:
        wrong.extend(number for _ in range(20) if not np.array_equal(executable(*given), expected))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are listed by Linux alone")
def test_helpers_are_as_many_as_processors_at_most() -> None:
    code = (
        "import os, hloc, numpy as np\n"
        "from hloc.options import Options\n"
        f"e = hloc.compile('''{CHAIN}''', options=Options(num_threads=64, cache=False))\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "e(np.zeros((700, 1003), np.float32))\n"
        "print(len(os.listdir('/proc/self/task')) - before, before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after, before = map(int, done.stdout.split())
    assert after == 0
    assert before <= 2 * len(os.sched_getaffinity(0)) + 2


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.uname().machine != "x86_64" or processors() < 2,
    reason="there are no helpers",
)
def test_helpers_make_way_for_callers() -> None:
    code = (
        "import os, threading, hloc, numpy as np\n"
        "from hloc.options import Options\n"
        f"e = hloc.compile('''{CHAIN}''', options=Options(num_threads=64, cache=False))\n"
        "x, usable, own = np.zeros((700, 1003), np.float32), os.sched_getaffinity(0), threading.get_native_id()\n"
        "e(x)\n"
        "for processor in [*usable, *usable]:\n"
        "    os.sched_setaffinity(0, {processor})\n"
        "    for _ in range(20):\n"
        "        e(x)\n"
        "    others = [int(thread) for thread in os.listdir('/proc/self/task') if int(thread) != own]\n"
        "    bound = [os.sched_getaffinity(thread) for thread in others]\n"
        "    print(bound.count({processor}), sum(len(processors) == 1 for processors in bound))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    usable = len(os.sched_getaffinity(0))
    assert done.stdout.split() == ["0", str(usable - 1)] * 2 * usable


def test_a_forked_child_runs_alone() -> None:
    code = (
        "import os, warnings, hloc, numpy as np\n"
        "warnings.simplefilter('ignore')\n"
        "from hloc.options import Options\n"
        f"e = hloc.compile('''{CHAIN}''', options=Options(num_threads=2, cache=False))\n"
        "x = np.ones((700, 1003), np.float32)\n"
        "y = e(x)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(e(x), y) else 1)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0"


HAS_HELPERS = pytest.mark.skipif(
    os.uname().machine != "x86_64" or processors() < 2, reason="there are no helpers"
)


def sharing(stores: int, wakes: bool) -> Callable[[], set[int]]:
    """A call that shares 64 tasks of so many stores; it gives the workers that had a part."""
    target = target_named("cpu")
    module = Module("shares", target.triple, target.data_layout)
    routines = Routines(module, target)
    worker_entry(routines, WORKER)
    types = [("ptr", "frame"), ("i64", "begin"), ("i64", "end"), ("i64", "worker")]
    task = module.function("task", "void", types, target.function_attributes, "internal")
    b = Builder(task)
    place = b.gep("i64", task.args[0], task.args[1])
    with b.for_loop(0, stores):
        b.store(task.args[3], place, volatile=True)
    b.ret()
    run = module.function("run", "void", [("ptr", "pool"), ("ptr", "frame")], target.function_attributes)
    b = Builder(run)
    sizes = [integer("i64", number) for number in (64, 1, 2)]
    given = [run.args[0], Value("ptr", task.text), run.args[1], *sizes, integer("i1", int(wakes))]
    b.call(parallel_routine(routines), given)
    b.ret()
    loaded = elf.Loaded(target.lower(str(module), "obj", Options()))
    words = pool(2, lambda: loaded.address(WORKER), loaded)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(loaded.address("run"))

    def workers() -> set[int]:
        frame = np.full(64, -1, np.int64)
        call(words, frame.ctypes.data)
        return set(frame.tolist())

    workers.loaded, workers.words = loaded, words
    return workers


@HAS_HELPERS
def test_helpers_take_part() -> None:
    call, seen = sharing(20_000, wakes=True), set()  # long enough for a helper to come
    for _ in range(200):
        seen |= call()
        if 1 in seen:
            break
    assert seen == {0, 1}


@HAS_HELPERS
def test_helpers_are_woken_by_short_calls_only_if_they_follow_closely() -> None:
    call = sharing(200, wakes=False)
    sleeping = ctypes.c_int64.from_address(call.words + 64 * POOL_WORDS.index("sleeping"))
    until = time.monotonic() + 20
    while not sleeping.value and time.monotonic() < until:
        time.sleep(0.001)
    for _ in range(30):
        assert call() == {0}
        time.sleep(0.001)
    seen = set()
    while 1 not in seen and time.monotonic() < until:
        seen |= call()
    assert seen == {0, 1}
