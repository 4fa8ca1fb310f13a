"""Kernels as LLVM functions; equal kernels are made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hloc.analysis import cost
from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import Body, Leaf, immediate
from hloc.codegen.crossings import crossing_of
from hloc.codegen.epilogue import Finisher
from hloc.codegen.forms import dims_before_reshapes, loop_nests
from hloc.codegen.kernel import KernelContext
from hloc.codegen.kernel_keys import Keys
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.kernel_threads import SharedKernel, sharing_of, thread_count, work
from hloc.codegen.llvm import Builder, Function, Module, Value
from hloc.codegen.loops import Index, merged_index
from hloc.codegen.program import External, Kernel
from hloc.codegen.routines import i64
from hloc.codegen.targets.target import Target
from hloc.ir.shapes import ArrayShape
from hloc.lazy import lazy
from hloc.options import Options

row_kernel = lazy("hloc.codegen.row_kernel")
streams = lazy("hloc.codegen.streams")
transposes = lazy("hloc.codegen.transposes")

SMALL = 16
"""Kernels over so few elements are inlined where they are called."""

_FOLDS = frozenset(("reduce", "sort", "topk"))
"""Ops whose loops carry values."""

_BRISK = 2048
"""Operations of kernels that are inlined into loops."""

MANY, BRIEF = 500, 1 << 14
"""LLVM optimizes so many kernels of a program; of those beyond, none with so few operations.

Code of computations that loops call is made first: kernels that run once are left out rather than those.
"""

_LARGE, _SHORT = 1 << 16, 400
"""Elements, and instructions of a fusion, for which a loop computes several vectors at a time."""


class KernelCode:
    """The kernels of a program.

    A kernel is `void @name(ptr input..., ptr output..., ptr scratch, ptr context)`, or gives an i32 status if
    its op may fail; an input that shares an output's memory is no parameter of its own. `threads` is how many work
    on one of them at most; `only_calls` says that all of them do nothing but call routines.
    """

    def __init__(self, module: Module, target: Target, options: Options):
        self.module = module
        self.target = target
        self.options = options
        self._rows: dict[str, tuple[list[str], int, int]] = {}
        self._known: dict[object, Function] = {}
        self._keys = Keys()
        self.externals: dict[External, int] = {}
        self.threads = 1
        self._most_threads = thread_count(options)
        self.only_calls = True

    def function(self, step: KernelStep, shared: dict[int, int]) -> Function:
        """The kernel of a step; `shared` maps inputs to the outputs whose memory they are."""
        key = self._keys.key(step, shared)
        function = self._known.get(key)
        if function is None:
            function = self._known[key] = self._make(step, shared)
            read = sum(view.shape.byte_size for view in step.inputs)
            written = sum(view.shape.byte_size for view in step.outputs)
            self._rows[function.name] = ([], read, written)
        self._rows[function.name][0].append(step.instruction.name)
        return function

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels, in the order in which they were needed first."""
        return tuple(
            Kernel(name, tuple(instructions), read, written)
            for name, (instructions, read, written) in self._rows.items()
        )

    # Code

    def _make(self, step: KernelStep, shared: dict[int, int]) -> Function:
        """Emits the kernel, for several threads if that pays."""
        name = self._name(step)
        brief = len(self._known) >= MANY and work(step) <= BRIEF
        attributes = self._attributes(step, brief)
        sharing = None if brief else sharing_of(step, self._most_threads)
        if sharing is not None:
            part, k = self._written(f"{name}.part", step, shared, attributes, workers=sharing.workers)
            if k.range_size and k.outer_nests == 1:
                self.threads = sharing.workers
                params = self._params(step, shared)
                around = self._attributes(step, brief=True)
                kernel = SharedKernel(self.module, self.target, self.options, name, params, around)
                own_scratch = 0 if step.common_scratch else step.scratch_bytes
                finish = None
                if k.finishes:
                    finish = self._written(f"{name}.finish", step, shared, attributes, is_finishing=True)[0]
                return kernel.write(part, sharing, k.range_size, own_scratch, finish, step.turns, k.cleared)
            del self.module.functions[part.name]
        return self._written(name, step, shared, attributes, once=brief)[0]

    def workers(self, step: KernelStep) -> int:
        """Threads of which each needs the step's scratch."""
        has_own = step.scratch_bytes and not step.common_scratch
        sharing = sharing_of(step, self._most_threads) if has_own else None
        return 1 if sharing is None else sharing.workers

    def _written(
        self,
        name: str,
        step: KernelStep,
        shared: dict[int, int],
        attributes: str,
        once: bool = False,
        workers: int = 0,
        is_finishing: bool = False,
    ) -> tuple[Function, KernelContext]:
        """The kernel's code, written once more if a loop over several dimensions needs dividing.

        Among so many `workers` it is the part of each; or what is done when all of them have finished.
        """
        splits: dict[int, set[int]] = {}
        widens = bool(self.module.vector_bytes) and not once and _widens(step)
        while True:
            function, k = self._emit(name, step, shared, splits, attributes, workers, is_finishing, widens)
            needed = k.needed_splits()
            if once or not needed:
                return function, k
            for nest, positions in needed.items():
                splits.setdefault(nest, set()).update(positions)
            del self.module.functions[name]

    def _name(self, step: KernelStep) -> str:
        """No symbol of a library begins with `kernel.`."""
        stem = f"kernel.{step.instruction.name}"
        name, count = stem, 0
        while name in self.module.functions or name in self.module.declarations:
            count += 1
            name = f"{stem}.{count}"
        return name

    def _params(self, step: KernelStep, shared: dict[int, int]) -> list[tuple]:
        own = [number for number in range(len(step.inputs)) if number not in shared]
        params = [("ptr", f"in{number}", _memory("readonly", step.inputs[number].shape)) for number in own]
        params += [("ptr", f"out{number}", _memory("", out.shape)) for number, out in enumerate(step.outputs)]
        return [*params, ("ptr", "scratch", "noalias"), ("ptr", "context")]

    def _emit(
        self,
        name: str,
        step: KernelStep,
        shared: dict[int, int],
        splits: dict[int, set[int]],
        attributes: str,
        workers: int,
        is_finishing: bool,
        widens: bool,
    ) -> tuple[Function, KernelContext]:
        params = self._params(step, shared)
        limits = [("i64", "begin"), ("i64", "end")] if workers else []
        limits += [("i64", "turn")] if workers and step.turns > 1 else []
        fails = step.form.row is not None and step.form.row.fails
        result = "i32" if fails else "void"
        function = self.module.function(name, result, params + limits, attributes, "internal")
        function.widens = function.settled = widens
        b = Builder(function)
        b.fast = "fast" if self.options.fast_math else "contract" if self.options.fma else ""
        given = function.args[: len(params)]
        outputs = given[len(given) - 2 - len(step.outputs) : -2]
        own = [number for number in range(len(step.inputs)) if number not in shared]
        pointers = dict(zip(own, given, strict=False))
        pointers |= {number: outputs[output] for number, output in shared.items()}
        k = self._context(b, step, pointers, outputs, given[-2:], splits)
        if workers:
            begin, end, *turn = function.args[len(params) :]
            k.range, k.workers, k.turn = (begin, end), workers, turn[0] if turn else None
        k.is_finishing = is_finishing
        _write(k, step)
        if k.is_streaming:
            streams.finish(b, self.target)
        b.ret(k.status if fails else None)
        if "alwaysinline" in function.attributes and work(step) <= _BRISK:  # it is the caller that matters
            function.settled = True
        if k.only_calls:  # of routines, to which nothing here matters
            function.attributes = self._attributes(step, brief=True)
        self.only_calls &= k.only_calls
        return function, k

    def _context(
        self,
        b: Builder,
        step: KernelStep,
        pointers: dict[int, Value],
        outputs: list[Value],
        rest: list[Value],
        splits: dict[int, set[int]],
    ) -> KernelContext:
        arrays = {
            leaf: ArrayRef(b, step.inputs[number].shape, pointers[number])
            for number, leaf in enumerate(step.bound)
        }
        body = Body({leaf: immediate(literal) for leaf, literal in step.immediates}, arrays)
        results = [ArrayRef(b, view.shape, out) for view, out in zip(step.outputs, outputs, strict=True)]
        subject = step.form.own or step.instruction
        fused = step.instruction.opcode == "fusion"
        k = KernelContext(b, self.target, subject, body, results, *rest, splits, self.externals, fused)
        if step.form.epilogue is not None:
            k.finisher = Finisher(k, step.form.epilogue, body)
        return k

    def _attributes(self, step: KernelStep, brief: bool) -> str:
        common = function_attributes(self.target, self.options)
        if "avx2" in self.target.features and _gathers(step):
            common = common.replace('"target-features"="', '"target-features"="+fast-gather,')
        if brief:
            return f"{common} optnone noinline"
        small = all(view.shape.count <= SMALL for view in (*step.inputs, *step.outputs))
        # With guards, a message names the kernel that went beyond a buffer.
        inline = small and not self.options.guard_pages
        return f"{common} {'alwaysinline' if inline else 'noinline'}"


def _gathers(step: KernelStep) -> bool:
    """Whether a kernel reads elements at computed places: one instruction a vector for the places, and one to read.

    LLVM would take the places out of their vectors one by one, where registers run short.
    """
    instruction = step.instruction
    body = instruction.called[0] if instruction.opcode == "fusion" else (instruction,)
    return any(inner.opcode == "gather" for inner in body)


def _widens(step: KernelStep) -> bool:
    """Whether a kernel's loops become vector loops: those over rows and the folds are better left to LLVM yet."""
    form = step.form
    if form.stages is not None or form.attention is not None:
        return False
    return form.own is None or form.own.opcode not in _FOLDS


def is_short(step: KernelStep) -> bool:
    """Whether a step's kernel is little code that takes no longer than a few calls."""
    form, own, instruction = step.form, step.form.own, step.instruction
    if form.stages is not None or form.attention is not None:
        return False
    size = len(instruction.called[0]) if instruction.opcode == "fusion" else 1
    elements = max(view.shape.count for view in step.outputs) if step.outputs else 0
    if own is None:
        return size * elements <= _BRISK
    if own.opcode == "dynamic-update-slice":
        return size * own.operands[1].shape.count <= _BRISK
    return own.opcode in ("dot", "reduce") and cost.work(own) + size * elements <= _BRISK


def function_attributes(target: Target, options: Options) -> str:
    """LLVM attributes of every function of a program."""
    flush = ' "denormal-fp-math"="preserve-sign,preserve-sign"' if options.flush_denormals else ""
    return target.function_attributes + flush


def _memory(access: str, shape: ArrayShape) -> str:
    """Attributes of a pointer to an array that no other parameter reaches."""
    size = f" dereferenceable({shape.byte_size})" if shape.byte_size else ""
    return f"noalias noundef {access}{size}"


def _write(k: KernelContext, step: KernelStep) -> None:
    """The kernel's code: the op's own loops, or loop nests, each in the memory order of its first output."""
    form = step.form
    if form.stages is not None:
        row_kernel.write_rows(k, form.stages, form.roots)
        return
    if form.attention is not None:
        form.attention.write(k)
        return
    if form.own is not None:
        form.row.emit(k, form.own)
        return
    nests = loop_nests(form)
    crossing = crossing_of(step) if len(nests) == 1 else None
    for nest in nests:
        body = partial(_store_all, k, [(form.roots[number], k.outputs[number]) for number in nest])
        if crossing is not None:
            transposes.write_tiles(k, step, crossing, body)
        elif _is_streamed(k, nest):
            _streamed_loops(k, step, nest)
        else:
            _plain_loops(k, step, nest, body)


def _plain_loops(k: KernelContext, step: KernelStep, nest: Sequence[int], body: Callable[[Index], None]) -> None:
    """A loop nest over the index of some roots, or over dimensions of which those are made."""
    shape, interleave, instruction = k.outputs[nest[0]].shape, _interleaving(step), step.instruction
    body_of = instruction.called[0] if instruction.opcode == "fusion" else ()
    is_reshaped = any(inner.opcode == "reshape" for inner in body_of)
    dims = dims_before_reshapes(shape, [step.form.roots[number] for number in nest]) if is_reshaped else None
    if dims is None:
        k.loop_nest(shape.dims, body, shape.minor_to_major[::-1], interleave)
    else:
        k.loop_nest(dims, lambda index: body(merged_index(k.b, index, dims, shape.dims)), interleave=interleave)


def _store_all(k: KernelContext, pairs: list[tuple[Leaf, ArrayRef]], index: Index) -> None:
    """Computes roots at an index, all of them before any is stored: their memory may be an input's."""
    values = [k.body.evaluate(k, *root, index) for root, _ in pairs]
    for (_, output), value in zip(pairs, values, strict=True):
        output.store(index, value)


def _is_streamed(k: KernelContext, nest: Sequence[int]) -> bool:
    """Whether all results of a nest are large and no input lies there, which would be in a cache now."""
    outputs = [k.outputs[number] for number in nest]
    orders = {output.shape.minor_to_major for output in outputs}
    return len(orders) == 1 and all(streams.block_of(o.shape) and not k.body.lies_at(o.pointer) for o in outputs)


def _streamed_loops(k: KernelContext, step: KernelStep, nest: Sequence[int]) -> None:
    """Loops over the blocks of large results, which fetch ahead what is read at the same index."""
    shape = k.outputs[nest[0]].shape
    block = streams.block_of(shape)
    stream = streams.Streams(k, [k.outputs[number] for number in nest], block)
    roots = [step.form.roots[number] for number in nest]
    interleave = _interleaving(step)
    inputs = k.body.arrays_like(shape)

    def one(index: Index) -> None:
        first = list(index)
        first[stream.along] = k.b.mul(first[stream.along], i64(block))
        for array in inputs:
            size = block * array.shape.dtype.itemsize
            streams.prefetch(k.b, array, tuple(first), i64(streams.AHEAD), size)
        stream.fill(tuple(first), lambda at: [k.body.evaluate(k, *root, at) for root in roots], interleave)

    dims = list(shape.dims)
    dims[stream.along] //= block
    k.loop_nest(dims, one, shape.minor_to_major[::-1])


def _interleaving(step: KernelStep) -> int:
    """How many vectors to compute at a time: several hide the latency of a long chain of operations.

    LLVM would take one for long bodies. It is worth the time of a compile for large arrays alone.
    """
    instruction = step.instruction
    size = len(instruction.called[0]) if instruction.opcode == "fusion" else 1
    return 4 if step.outputs[0].shape.count >= _LARGE and size <= _SHORT else 0
