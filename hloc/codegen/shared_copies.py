"""Copies of large values between kernels, shared among threads as kernels are.

One processor does not move bytes as fast as the cache or the memory that they are in.
"""

from __future__ import annotations

from hloc.codegen.kernel_threads import thread_count
from hloc.codegen.llvm import Builder, Function, Module, Value, integer
from hloc.codegen.program import CONTEXT_FIELDS
from hloc.codegen.routines import Routines, i64, least
from hloc.codegen.targets.target import Target
from hloc.codegen.threads_code import parallel_routine
from hloc.options import Options

_LEAST_BYTES, _PIECE = 1 << 20, 1 << 16
"""Bytes from which on a copy is shared, some 20 microseconds of one thread; and those of the smallest chunk."""

_CHUNKS = 8
"""For each thread, about."""

_NAME = "hloc.shared_copy"


def copying_threads(size: int, options: Options) -> int:
    """How many threads copy so many bytes."""
    return thread_count(options) if size >= _LEAST_BYTES else 1


def shared_copy(module: Module, target: Target) -> Function:
    """`shared_copy(context, target, source, size, workers)`, in the module once."""
    if _NAME in module.functions:
        return module.functions[_NAME]
    task = _task(module, target)
    params = [("ptr", name) for name in ("context", "target", "source")] + [("i64", "size"), ("i64", "workers")]
    function = module.function(_NAME, "void", params, f"{target.function_attributes} noinline", "internal")
    b = Builder(function)
    context, to, source, size, workers = function.args
    frame = b.alloca("i64", 3)
    for number, word in enumerate((b.ptrtoint(to, "i64"), b.ptrtoint(source, "i64"), size)):
        b.store(word, b.gep("i64", frame, i64(number)))
    pool, most = (
        b.load(type, b.gep("i64", context, i64(CONTEXT_FIELDS.index(name))))
        for type, name in (("ptr", "pool"), ("i64", "workers"))
    )
    count = b.udiv(b.add(size, i64(_PIECE - 1)), i64(_PIECE))
    grain = b.add(b.udiv(count, b.mul(workers, i64(_CHUNKS))), i64(1))
    given = [pool, Value("ptr", task.text), frame, count, grain, least(b, workers, most), integer("i1", True)]
    b.call(parallel_routine(Routines(module, target)), given)
    b.ret()
    return function


def _task(module: Module, target: Target) -> Function:
    """`task(frame, begin, end, worker)`: copies some pieces; the frame has the target, the source and the size."""
    params = [("ptr", "frame"), ("i64", "begin"), ("i64", "end"), ("i64", "worker")]
    function = module.function(f"{_NAME}.task", "void", params, target.function_attributes, "internal")
    b = Builder(function)
    frame, begin, end, _ = function.args
    to, source, size = (b.load("i64", b.gep("i64", frame, i64(number))) for number in range(3))
    first = b.mul(begin, i64(_PIECE))
    length = b.sub(least(b, b.mul(end, i64(_PIECE)), size), first)
    b.memcpy(b.inttoptr(b.add(to, first), "ptr"), b.inttoptr(b.add(source, first), "ptr"), length)
    b.ret()
    return function
