"""Kernels shared among threads: which ones, and the code around their parts.

The part of a thread is the kernel with a range of its outermost loop: `kernel.x.part(parameters, begin, end)`. The
kernel itself gives ranges to all threads (`threads_code.py`), by way of `kernel.x.task(frame, begin, end, worker)`,
which finds the kernel's parameters in a frame, and its own scratch behind that of others. Iterations do not depend
on each other, so that results do not depend on who computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.analysis import cost
from hloc.analysis.traffic import most_read, traffic
from hloc.codegen.arena import aligned
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.llvm import Builder, Function, Module, Value, integer
from hloc.codegen.program import CONTEXT_FIELDS
from hloc.codegen.routines import Routines, i64, least
from hloc.codegen.targets.target import Target
from hloc.codegen.threads_code import parallel_routine
from hloc.host.processors import processors
from hloc.options import Options
from hloc.records import record

_BYTES, _WORK = 8_000, 10_000
"""Bytes and units of `cost.work` that one thread handles in a microsecond, roughly."""

_LEAST, _WAKES, _CHUNK = 20, 100, 8
"""Microseconds of work: from which on it is shared, from which on sleeping helpers are woken for it, of a chunk."""

_MOST_CHUNKS = 16
"""Chunks for each thread at most."""

_MOST_THREADS = 64

_ELEMENTS = 256
"""Ranges of loops over single elements begin at multiples of this, where vectors and cache lines begin."""


def thread_count(options: Options) -> int:
    """Threads that may work on one kernel: those asked for, or the processors that this process may use.

    With guard pages it is one.
    """
    if options.guard_pages:
        return 1
    return min(options.num_threads or processors(), _MOST_THREADS)


@record
class Sharing:
    """How a kernel is shared: among how many `workers`, and the `microseconds` that it takes one of them, about."""

    workers: int
    microseconds: float

    def grain(self, size: int) -> int:
        """Indices of a chunk, of so many in all."""
        chunks = int(self.microseconds / _CHUNK)
        chunks = max(self.workers, min(chunks, self.workers * _MOST_CHUNKS, size))
        grain = max(1, -(-size // chunks))
        return -(-grain // _ELEMENTS) * _ELEMENTS if grain >= _ELEMENTS else grain

    @property
    def wakes(self) -> bool:
        return self.microseconds >= _WAKES


def work(step: KernelStep) -> float:
    """Scalar operations of a kernel."""
    instruction = step.instruction
    if instruction.opcode != "fusion":
        return cost.work(instruction)
    inside = instruction.called[0].instructions
    return sum([cost.work(inner) for inner in inside if inner.opcode not in ("parameter", "constant")])


def sharing_of(step: KernelStep, workers: int) -> Sharing | None:
    """How a step's kernel may be shared among so many threads; None if one does it."""
    if workers == 1 or not _is_loop(step):
        return None
    microseconds, written = work(step) / _WORK, sum(view.shape.byte_size for view in step.outputs)
    if microseconds < _LEAST and (most_read(step.instruction) + written) / _BYTES < _LEAST:
        return None
    read = traffic(step.instruction)
    microseconds = max(microseconds, (sum(read.operands) + read.constants + written) / _BYTES)
    return Sharing(workers, microseconds) if microseconds >= _LEAST else None


def _is_loop(step: KernelStep) -> bool:
    """Whether the kernel may be a single loop nest; its code tells for sure."""
    form = step.form
    if form.attention is not None:
        return True
    if form.row is not None:
        return form.row.is_loop
    return form.stages is None or not form.stages.totals


class SharedKernel:
    """Writes what is around a kernel's part: `params` are the kernel's, each a pointer, scratch and context last."""

    def __init__(
        self, module: Module, target: Target, options: Options, name: str, params: Sequence[tuple], attributes: str
    ):
        self.module, self.target, self.options = module, target, options
        self.name, self.params, self.attributes = name, params, attributes

    def write(
        self,
        part: Function,
        sharing: Sharing,
        size: int,
        scratch_bytes: int,
        finish: Function | None = None,
        turns: int = 1,
        cleared: int = 0,
    ) -> Function:
        """The kernel: `size` is that of the part's outermost loop, `scratch_bytes` what each thread needs for itself.

        The first `cleared` bytes of that are 0 at the start. The loop is shared in several `turns`, whose number the
        part is given. One thread does what is left to `finish`.
        """
        task = self._task(part, scratch_bytes, turns)
        function, b = self._begun(self.name, self.params)
        frame = b.alloca("ptr", len(self.params) + 1)
        for number, argument in enumerate(function.args):
            b.store(argument, b.gep("ptr", frame, i64(number)))
        context = function.args[-1]
        pool, most = (
            b.load(type, b.gep("i64", context, i64(CONTEXT_FIELDS.index(name))))
            for type, name in (("ptr", "pool"), ("i64", "workers"))
        )
        parallel = parallel_routine(Routines(self.module, self.target))
        grain, wakes = i64(sharing.grain(size)), integer("i1", sharing.wakes)
        workers = least(b, i64(sharing.workers), most)
        given = [pool, Value("ptr", task.text), frame, i64(size), grain, workers, wakes]
        if cleared:
            with b.for_loop(0, sharing.workers, unroll=False) as worker:
                own = b.gep("i8", function.args[-2], b.mul(worker, i64(aligned(scratch_bytes))))
                b.memset(own, integer("i8", 0), i64(cleared))
        if turns == 1:
            b.call(parallel, given)
        else:
            with b.for_loop(0, turns, unroll=False) as turn:
                b.store(turn, self._turn(b, frame))
                b.call(parallel, given)
        if finish is not None:
            b.call(finish, function.args)
        b.ret()
        return function

    def _turn(self, b: Builder, frame: Value) -> Value:
        """Where a frame has the number of the turn."""
        return b.gep("ptr", frame, i64(len(self.params)))

    def _begun(self, name: str, params: Sequence[tuple]) -> tuple[Function, Builder]:
        function = self.module.function(name, "void", params, self.attributes, "internal")
        function.settled = True
        return function, Builder(function)

    def _task(self, part: Function, scratch_bytes: int, turns: int) -> Function:
        types = [("ptr", "frame"), ("i64", "begin"), ("i64", "end"), ("i64", "worker")]
        function, b = self._begun(f"{self.name}.task", types)
        frame, begin, end, worker = function.args
        given = [b.load("ptr", b.gep("ptr", frame, i64(number))) for number in range(len(self.params))]
        if scratch_bytes:
            given[-2] = b.gep("i8", given[-2], b.mul(worker, i64(aligned(scratch_bytes))))
        # A helper's own mode is that of the thread that started it.
        before = self.target.enter_flushing(b) if self.options.flush_denormals else None
        turn = [b.load("i64", self._turn(b, frame))] if turns > 1 else []
        b.call(part, [*given, begin, end, *turn])
        if before is not None:
            self.target.leave_flushing(b, before)
        b.ret()
        return function
