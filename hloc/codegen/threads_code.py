"""Work shared among threads: the loop of a helper, and the call that gives a range of indices to all of them.

The threads of a process share one pool, PoolLayout's words, which the runtime makes and whose helpers it starts in
`worker`. One call at a time has the pool; whoever comes while it is busy works alone. Indices are handed out in
chunks by an atomic ticket, and the caller works too: a helper that the system has put aside holds nobody up. A
helper looks for work for a while after the last, then sleeps. To wake it takes as long as some tens of microseconds of
work: that is done for calls that have more of it, and for the last of several that follow on each other so closely
that a helper, once awake, will stay so.

The word STATE is what all agree on: its lowest bit says that a call takes helpers, the next 15 bits count those
inside, and the rest counts calls. A helper comes in by counting itself, only while the bit is set; the caller clears
the bit when no chunk is left, and goes on when nobody is inside.

Helpers are bound to processors. The system may run a caller on one of these as well, and would leave both there for
milliseconds: so the helper is sent to the processor that has none.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.llvm import Builder, Function, Value, integer
from hloc.codegen.program import POOL_PROCESSORS, POOL_WORDS
from hloc.codegen.routines import QUICK, Routines, i64, least

_PART = "hloc.threads"
"""The part of a program that holds all routines of this file: whoever needs one needs the others."""

_OPEN, _INSIDE, _CALL = 1, 2, 1 << 16
_LOOKS = 4000
"""Looks for work, with a pause each, before a helper sleeps: about 50 to 150 microseconds."""

_CLOSELY, _IN_A_ROW = 1 << 18, 8
"""Time stamps between two calls, about as many as a helper looks for work, and how many such calls wake helpers."""

_FUTEX, _WAIT, _WAKE = 202, 128, 129
"""Of Linux on x86-64: the number of the system call, and FUTEX_WAIT and FUTEX_WAKE for threads of one process."""

_GETTID, _SCHED_SETAFFINITY = 186, 203
"""Numbers of system calls."""


def _word(b: Builder, pool: Value, name: str) -> Value:
    return b.gep("i64", pool, i64(POOL_WORDS.index(name) * 8))


def parallel_routine(routines: Routines) -> Function:
    """`parallel(pool, task, frame, count, grain, workers, wakes)`: task(frame, begin, end, worker) for 0 .. count - 1.

    Chunks begin at multiples of `grain`. Workers are numbered from 0, the caller, to `workers` - 1 at most. Helpers
    that sleep are woken if it `wakes` them, or if calls are frequent.
    """

    def write(b: Builder, p: SimpleNamespace) -> None:
        def alone() -> None:
            b.call(p.task, [p.frame, i64(0), p.count, i64(0)], "void")

        def together() -> None:
            _share(routines, b, p)
            b.store_atomic(i64(0), _word(b, p.pool, "busy"))

        def try_together() -> None:
            _, taken = b.cmpxchg(_word(b, p.pool, "busy"), i64(0), i64(1), "acquire")
            b.if_else(taken, together, alone)

        exists = b.icmp_signed("!=", b.ptrtoint(p.pool, "i64"), i64(0))
        b.if_else(b.and_(exists, b.icmp_signed(">", p.workers, i64(1))), try_together, alone)

    params = "ptr pool, ptr task, ptr frame, i64 count, i64 grain, i64 workers, i1 wakes"
    return routines.get("hloc.parallel", params, write, stage=QUICK, part=_PART)


def _share(routines: Routines, b: Builder, p: SimpleNamespace) -> None:
    b.call(_make_way_routine(routines), [p.pool])
    for name in ("task", "frame", "count", "grain", "workers"):
        b.store(getattr(p, name), _word(b, p.pool, name))
    b.store_atomic(i64(0), _word(b, p.pool, "next"))
    state = _word(b, p.pool, "state")
    b.atomicrmw("add", state, i64(_CALL + _OPEN), "seq_cst")
    sleeping = b.load_atomic("i64", _word(b, p.pool, "sleeping"), "seq_cst")
    with (
        b.if_then(b.icmp_signed(">", sleeping, i64(0))),
        b.if_then(b.if_else(p.wakes, lambda: integer("i1", 1), lambda: _are_frequent(b, p.pool))),
    ):
        _futex(b, p.pool, _WAKE, i64((1 << 31) - 1))
    b.call(_chunks_routine(routines), [p.pool, p.task, p.frame, p.count, p.grain, i64(0)])
    b.atomicrmw("and", state, i64(~_OPEN), "seq_cst")

    def someone_inside(carried: list[Value]) -> Value:
        now = b.load_atomic("i64", state)
        return b.icmp_signed("!=", b.and_(now, i64(_CALL - _INSIDE)), i64(0))

    b.while_loop([i64(0)], someone_inside, lambda carried: [_pause(routines, b, carried[0])], "leaving")


def _are_frequent(b: Builder, pool: Value) -> Value:
    """Whether this call is the last one in a row that found helpers asleep."""
    before, row = _word(b, pool, "alone"), _word(b, pool, "row")
    now = b.intrinsic("llvm.readcyclecounter", "i64", [], overloads=(), pure=False)
    is_close = b.icmp_unsigned("<", b.sub(now, b.load("i64", before)), i64(_CLOSELY))
    calls = b.select(is_close, b.add(b.load("i64", row), i64(1)), i64(0))
    are_many = b.icmp_signed(">=", calls, i64(_IN_A_ROW))
    b.store(now, before)
    b.store(b.select(are_many, i64(0), calls), row)
    return are_many


def _make_way_routine(routines: Routines) -> Function:
    """`make_way(pool)`: sends the helper that is bound to the caller's processor, if there is one, to the free one."""

    def write(b: Builder, p: SimpleNamespace) -> None:
        free, bound = _word(b, p.pool, "free"), b.load("ptr", _word(b, p.pool, "bound"))
        here = b.zext(b.call(b.load("ptr", _word(b, p.pool, "getcpu")), [], "i32"), "i64")
        with b.if_then(b.icmp_unsigned("<", here, i64(POOL_PROCESSORS))):
            place = b.gep("i64", bound, here)
            helper, to = b.load_atomic("i64", place), b.load("i64", free)
            with b.if_then(b.icmp_signed("!=", helper, i64(0))):
                _bind(b, p.pool, helper, to)
                b.store_atomic(helper, b.gep("i64", bound, to))
                b.store_atomic(i64(0), place)
                b.store(here, free)

    return routines.get("hloc.make_way", "ptr pool", write, stage=QUICK, part=_PART)


def _bind(b: Builder, pool: Value, thread: Value, processor: Value) -> None:
    """Binds a thread to a processor. If the system refuses, it stays where it is, and only speed is lost."""
    words = POOL_PROCESSORS // 64
    mask = b.alloca("i64", words)
    for number in range(words):
        b.store(i64(0), b.gep("i64", mask, i64(number)))
    bit = b.shl(i64(1), b.and_(processor, i64(63)))
    b.store(bit, b.gep("i64", mask, b.lshr(processor, i64(6))))
    _system(b, pool, _SCHED_SETAFFINITY, thread, i64(words * 8), mask)


def _chunks_routine(routines: Routines) -> Function:
    """`chunks(pool, task, frame, count, grain, worker)`: runs chunks as long as there are any."""

    def write(b: Builder, p: SimpleNamespace) -> None:
        ticket = _word(b, p.pool, "next")

        def take(carried: list[Value]) -> Value:
            return b.icmp_signed("<", carried[0], p.count)

        def run(carried: list[Value]) -> list[Value]:
            (begin,) = carried
            end = least(b, b.add(begin, p.grain), p.count)
            b.call(p.task, [p.frame, begin, end, p.worker], "void")
            return [b.atomicrmw("add", ticket, p.grain)]

        b.while_loop([b.atomicrmw("add", ticket, p.grain)], take, run, "chunk")

    params = "ptr pool, ptr task, ptr frame, i64 count, i64 grain, i64 worker"
    return routines.get("hloc.chunks", params, write, stage=QUICK, part=_PART)


def worker_routine(routines: Routines) -> Function:
    """`worker(pool, number, processor)`: the life of helper `number` (from 1 on), until the pool's word `stop` is set.

    It is bound to the processor, unless that is -1.
    """

    def write(b: Builder, p: SimpleNamespace) -> None:
        state = _word(b, p.pool, "state")
        with b.if_then(b.icmp_signed(">=", p.processor, i64(0))):
            bound = b.load("ptr", _word(b, p.pool, "bound"))
            b.store_atomic(_system(b, p.pool, _GETTID), b.gep("i64", bound, p.processor))

        def goes_on(carried: list[Value]) -> Value:
            return b.icmp_signed("==", b.load_atomic("i64", _word(b, p.pool, "stop")), i64(0))

        def look(carried: list[Value]) -> list[Value]:
            """`done` is the state's count of the call that this helper worked for last."""
            looks, done = carried
            now = b.load_atomic("i64", state)
            call = b.and_(now, i64(-_CALL))
            is_open = b.icmp_signed("!=", b.and_(now, i64(_OPEN)), i64(0))
            wanted = b.and_(is_open, b.icmp_signed("!=", call, done))
            return b.if_else(wanted, lambda: join(now, call, looks, done), lambda: rest(now, looks, done))

        def join(now: Value, call: Value, looks: Value, done: Value) -> list[Value]:
            _, inside = b.cmpxchg(state, now, b.add(now, i64(_INSIDE)), "seq_cst")
            return b.if_else(inside, lambda: help_along(call), lambda: [looks, done])

        def help_along(call: Value) -> list[Value]:
            task, frame = (b.load("ptr", _word(b, p.pool, name)) for name in ("task", "frame"))
            count, grain = (b.load("i64", _word(b, p.pool, name)) for name in ("count", "grain"))
            is_asked = b.icmp_signed("<", p.number, b.load("i64", _word(b, p.pool, "workers")))
            with b.if_then(is_asked):
                b.call(_chunks_routine(routines), [p.pool, task, frame, count, grain, p.number])
            b.atomicrmw("sub", state, i64(_INSIDE), "seq_cst")
            return [i64(0), call]

        def rest(now: Value, looks: Value, done: Value) -> list[Value]:
            def sleep() -> list[Value]:
                sleeping = _word(b, p.pool, "sleeping")
                b.atomicrmw("add", sleeping, i64(1), "seq_cst")
                _futex(b, p.pool, _WAIT, b.and_(now, i64(0xFFFFFFFF)))
                b.atomicrmw("sub", sleeping, i64(1), "seq_cst")
                return [i64(0), done]

            tired = b.icmp_signed(">", looks, i64(_LOOKS))
            return b.if_else(tired, sleep, lambda: [_pause(routines, b, looks), done])

        b.while_loop([i64(0), i64(0)], goes_on, look, "look")

    return routines.get("hloc.worker", "ptr pool, i64 number, i64 processor", write, stage=QUICK, part=_PART)


def _pause(routines: Routines, b: Builder, looks: Value) -> Value:
    """Lets a moment pass; one look more."""
    if routines.target.triple.startswith("x86_64"):
        b.intrinsic("llvm.x86.sse2.pause", "void", [], overloads=(), pure=False)
    return b.add(looks, i64(1))


def _futex(b: Builder, pool: Value, what: int, value: Value) -> None:
    """Sleeps while the lower half of the state is `value`, or wakes so many."""
    _system(b, pool, _FUTEX, _word(b, pool, "state"), i64(what), value)


def _system(b: Builder, pool: Value, number: int, *args: Value) -> Value:
    """A system call."""
    rest = [i64(0)] * (6 - len(args))
    return b.call(b.load("ptr", _word(b, pool, "syscall")), [i64(number), *args, *rest], "i64")


def worker_entry(routines: Routines, name: str) -> None:
    """The function that the runtime starts helpers in: `ptr name(ptr words)`, words as WORKER has them."""
    home = routines.module.part(_PART, QUICK)
    b = Builder(home.function(name, "ptr", [("ptr", "words")], routines.target.function_attributes))
    words = b.function.args[0]
    pool = b.load("ptr", words)
    rest = [b.load("i64", b.gep("i64", words, i64(number))) for number in (1, 2)]
    b.call(worker_routine(routines), [pool, *rest])
    b.ret(Value("ptr", "null"))
