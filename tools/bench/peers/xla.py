"""XLA's CPU backend by jax.jit, with arrays that lie on its device already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tools.bench.tasks import Stopwatch, Task


class Xla:
    needs = {"jaxlib": "jaxlib", "jax": "jax"}

    def __init__(self) -> None:
        import jax
        from jaxlib import lapack

        self.jax = jax
        lapack.prepare_lapack_call("potrf_ffi", np.float32)  # else calls of LAPACK in texts lead nowhere
        jax.jit(lambda x: x + 1)(0.0)

    def prepare(self, task: Task) -> dict:
        jax = self.jax
        wide = any(array.dtype.itemsize >= 8 and array.dtype != np.complex64 for array in task.inputs)
        jax.config.update("jax_enable_x64", wide or task.workload is None)
        self.arguments = [jax.device_put(array) for array in task.inputs]
        function = task.workload.jax if task.workload else program_of_text(task.text, task.result_types)
        self.function = jax.jit(function)
        lowered = self.function.lower(*self.arguments)
        with Stopwatch() as compiling:
            lowered.compile()
        result = jax.block_until_ready(self.function(*self.arguments))
        self.call = self._call_of_many if isinstance(result, tuple | list) else self._call_of_one
        return compiling.facts("compile")

    def _call_of_one(self) -> object:
        return self.function(*self.arguments).block_until_ready()

    def _call_of_many(self) -> object:
        results = self.function(*self.arguments)
        for result in results:
            result.block_until_ready()
        return results

    def outputs(self) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in self.jax.tree_util.tree_leaves(self.function(*self.arguments))]


def program_of_text(path: Path, result_types: Sequence[tuple[tuple[int, ...], np.dtype]]) -> Callable:
    """HLO text as a function for jax.jit, whose calls are quicker than those of a bare executable.

    A primitive is lowered to a call of the text's entry. This is not JAX's public interface; it fits the release that
    the tests install.
    """
    from jax._src import core
    from jax._src.interpreters import mlir
    from jaxlib import _hlo, _jax
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import func

    module = _hlo.hlo_module_from_text(path.read_text(encoding="utf-8"))
    computation = _hlo.XlaComputation(module.as_serialized_hlo_module_proto())
    stablehlo = _jax.mlir.xla_computation_to_mlir_module(computation)
    primitive = core.Primitive("program_of_text")
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda *_: [core.ShapedArray(dims, dtype) for dims, dtype in result_types])

    def lower(context, *arguments):
        source = ir.Module.parse(stablehlo)
        entry = next(op for op in source.body.operations if op.attributes["sym_name"].value == "main")
        results = list(entry.type.results)
        name = mlir.merge_mlir_modules(context.module_context.module, "program", source)
        return func.CallOp(results, ir.FlatSymbolRefAttr.get(name), arguments).results

    mlir.register_lowering(primitive, lower)
    return lambda *arguments: primitive.bind(*arguments)
