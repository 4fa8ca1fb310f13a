"""Writes the linear algebra of GPUs' and TPUs' libraries, as JAX calls it, as LAPACK's, or as ops.

LAPACK's triangular systems are ops too, which need no SciPy, nor the threads of its library: where these are not idle,
small systems wait for them a thousand times as long as they take.

What the calls take and give is JAX's (`jax/_src/lax/linalg.py`): cuSOLVER's, cuSPARSE's and their twins' of AMD, and
the TPU's LuDecomposition; cuDNN's product of block-scaled matrices (`jax/_src/cudnn/scaled_matmul_stablehlo.py`), and
that of sparse rows on the CPU (`jax/experimental/sparse/_lowerings.py`). Matrices may have batch dimensions in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hloc.errors import HloError
from hloc.host.custom_calls import registered
from hloc.ir.attributes import Raw, SliceDim, Window, WindowDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import C64, C128, F32, F64, PRED, S32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import Shape, TupleShape, array
from hloc.passes.emit import Emit, binary_computation, dense, replace

_TARGET = re.compile(r"(?:cu|hip)(solver_|sparse_|hybrid_|_)(\w+?)(?:_ffi)?")
_SOLVE = re.compile(r"lapack_([sdcz])trsm_ffi")
_NUMBER = re.compile(r"(\w+)\s*=\s*(\d+)")
_FLAG = re.compile(r"(\w+)\s*=\s*(true|false)")
_LETTERS = {F32: "s", F64: "d", C64: "c", C128: "z"}
_OF_LETTERS = {letter: dtype for dtype, letter in _LETTERS.items()}
_REAL = {C64: F32, C128: F64}
_MOST_OF_COMPLEX = 32
"""Rows of triangular systems of complex numbers, which the op does not solve by blocks: of 200, in 4 times the time.
"""

_OF_COMPLEX = {"orgqr": "ungqr", "ormqr": "unmqr", "syevd": "heevd", "sytrd": "hetrd"}


def run(module: Module) -> bool:
    """Replaces calls of cusolver_*, cusparse_gtsv2, cu_lu_pivots_to_permutation and the like by calls of LAPACK,
    and lapack_*trsm_ffi by triangular-solve, but for
    large systems of complex numbers.

    Targets that were registered are left alone.

    Requires: nothing.
    Ensures: no call of a target in CALLS.
    Leaves: calls of LAPACK; loops that follow the exchanges of rows; scaled-dot; gathers and scatters.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            write = _writer(instruction)
            if write is not None:
                replace(instruction, write(_Call(instruction)))
                changed = True
    if changed:
        module.order_computations()
    return changed


def _writer(instruction: Instruction) -> Callable[[_Call], Instruction] | None:
    if instruction.opcode != "custom-call":
        return None
    target = instruction.get("custom_call_target")
    if _is_solve(instruction):
        return _trsm if registered(target) is None else None
    match = _TARGET.fullmatch(target)
    name = match[1] + match[2] if match else target
    return CALLS.get(name) if registered(target) is None else None


def _config(instruction: Instruction) -> str:
    config = instruction.annotations.get("backend_config")
    return getattr(config, "text", config) or ""


def _letters(instruction: Instruction) -> list[str]:
    """Those of a triangular system, in LAPACK's order; none if one is missing."""
    numbers = dict(_NUMBER.findall(_config(instruction)))
    names = ("side", "uplo", "trans_x", "diag")
    return [chr(int(numbers[name]) % 256) for name in names] if numbers.keys() >= set(names) else []


def _is_solve(instruction: Instruction) -> bool:
    """Whether a call solves a triangular system that is to be an op, with all that is said of it as LAPACK wants it."""
    match = _SOLVE.fullmatch(instruction.get("custom_call_target"))
    letters, shapes = _letters(instruction), [operand.shape for operand in instruction.operands]
    if match is None or len(shapes) != 2 or not all(shape.is_array for shape in (*shapes, instruction.shape)):
        return False
    if not letters or any(letter not in some for letter, some in zip(letters, ("LR", "UL", "NTC", "NU"))):
        return False
    a, b = (shape.dims for shape in shapes)
    own = {shape.dtype for shape in (*shapes, instruction.shape)} == {_OF_LETTERS[match[1]]}
    if not own or len(a) != len(b) or len(b) < 2 or instruction.shape.dims != b:
        return False
    size = b[-2 if letters[0] == "L" else -1]
    return a == (*b[:-2], size, size) and (shapes[0].dtype not in _REAL or size <= _MOST_OF_COMPLEX)


class _Call:
    """A call to be replaced, and what replaces it in the making."""

    def __init__(self, instruction: Instruction):
        self.instruction, self.emit = instruction, Emit.at(instruction)
        self.flags = {name: value == "true" for name, value in _FLAG.findall(_config(instruction))}
        if not instruction.operands or any(not o.shape.is_array for o in instruction.operands):
            raise self.error("takes arrays only")
        self.operands = instruction.operands
        self.dtype: DType = instruction.operands[0].shape.dtype
        self.results = instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)

    def error(self, what: str) -> HloError:
        return HloError(f"{self.instruction.get('custom_call_target')} {what}", self.instruction.span)

    def need(self, results: int, rank: int) -> None:
        """Refuse a call of another number of results, or with an operand that is no matrix (or vector)."""
        if len(self.results) != results or self.operands[0].shape.rank < rank:
            raise self.error(f"does not take {self.operands[0].shape!r} and give {self.instruction.shape!r}")

    def lapack(self, routine: str, shape: Shape, **attributes: str | bool) -> Instruction:
        """A call of LAPACK with the same operands. Attributes are flags or letters."""
        if self.dtype not in _LETTERS:
            raise self.error(f"of {self.dtype} is not supported: LAPACK has none")
        if self.dtype in _REAL:
            routine = _OF_COMPLEX.get(routine, routine)
        target = f"lapack_{_LETTERS[self.dtype]}{routine}_ffi"
        kept = ("operand_layout_constraints", "api_version")
        own = {name: value for name in kept if (value := self.instruction.attributes.get(name)) is not None}
        made = self.emit.op("custom-call", shape, self.operands, custom_call_target=target, **own)
        texts = {
            name: f"{ord(value)} : ui8" if isinstance(value, str) else str(value).lower()
            for name, value in attributes.items()
        }
        made.annotations["backend_config"] = Raw("{" + ", ".join(f"{n} = {t}" for n, t in texts.items()) + "}")
        return made

    def together(self, values: Sequence[Instruction]) -> Instruction:
        """The call's result, in its layouts."""
        values = [
            value if value.shape == shape else self.emit.op("copy", shape, (value,))
            for value, shape in zip(values, self.results, strict=True)
        ]
        return self.emit.tuple(values) if self.instruction.shape.is_tuple else values[0]

    def elements(self, tuple_: Instruction) -> list[Instruction]:
        return [self.emit.element(tuple_, i) for i in range(len(tuple_.shape.elements))]


# Calls of which LAPACK's give the same results


def _same(routine: str) -> Callable[[_Call], Instruction]:
    """With the same attributes, but for the triangle, of which LAPACK has a letter."""

    def write(call: _Call) -> Instruction:
        attributes: dict[str, str | bool] = {n: call.flags[n] for n in ("left", "transpose") if n in call.flags}
        if "lower" in call.flags:
            attributes["uplo"] = "L" if call.flags["lower"] else "U"
        if routine == "syevd":
            attributes["mode"] = "V"
        return call.lapack(routine, call.instruction.shape, **attributes)

    return write


def _eig(call: _Call) -> Instruction:
    return call.lapack("geev", call.instruction.shape, **_sides(call))


def _sides(call: _Call) -> dict[str, str]:
    return {f"compute_{side}": "V" if call.flags.get(side) else "N" for side in ("left", "right")}


# Others


def _geev(call: _Call) -> Instruction:
    """(matrix, eigenvalues, left and right vectors, info). Those of real matrices are packed as LAPACK packs them.

    Of a conjugate pair, the first column is the real part of the vectors and the second the imaginary part of the
    first: less that of the second.
    """
    call.need(5, 2)
    emit, (_, values, left, right, info) = call.emit, call.results
    (matrix,) = call.operands
    if call.dtype in _REAL:
        made = call.elements(call.lapack("geev", TupleShape((values, left, right, info)), **_sides(call)))
        return call.together([matrix, *made])
    parts, vectors = dense(values).with_dtype(call.dtype), dense(left).with_dtype(values.dtype)
    shape = TupleShape((parts, parts, vectors, vectors, info))
    re, im, *sides, info = call.elements(call.lapack("geev", shape, **_sides(call)))
    rank = len(vectors.dims)
    placed = emit.broadcast(im, vectors.dims, [d for d in range(rank) if d != rank - 2])
    second = emit.compare("LT", placed, emit.full(0, placed.shape))
    packed = []
    for side in sides:
        real, imaginary = (emit.op(part, dense(placed.shape), (side,)) for part in ("real", "imag"))
        packed.append(emit.map("select", second, emit.map("negate", imaginary), real))
    return call.together([matrix, emit.op("complex", dense(values), (re, im)), *packed, info])


def _gesvd(call: _Call) -> Instruction:
    """(matrix, singular values, U, V^H, info), the vectors in the other order if the matrix is taken transposed."""
    call.need(5, 2)
    taken, values, first, second, info = call.results
    if not call.flags.get("compute_uv"):
        m, n = (call.operands[0].shape.dims[d] for d in (-2, -1))
        batch, k = call.operands[0].shape.dims[:-2], min(m, n)
        unwanted = [array(call.dtype, *batch, m, k), array(call.dtype, *batch, k, n)]
        shape = TupleShape((taken, values, *unwanted, info))
        matrix, values, _, _, info = call.elements(call.lapack("gesvd", shape, mode="N"))
        return call.together([matrix, values, call.emit.full(0, first), call.emit.full(0, second), info])
    mode = "A" if call.flags.get("full_matrices") else "S"
    if not call.flags.get("transposed"):
        return call.lapack("gesvd", call.instruction.shape, mode=mode)
    shape = TupleShape((taken, values, second, first, info))
    matrix, values, left, right, info = call.elements(call.lapack("gesvd", shape, mode=mode))
    return call.together([matrix, values, right, left, info])


def _gesvdj(call: _Call) -> Instruction:
    """(matrix, singular values, U, V, info), vectors also where they are not asked for."""
    call.need(5, 2)
    emit, (taken, values, left, right, info) = call.emit, call.results
    rank = len(right.dims)
    turned = (*range(rank - 2), rank - 1, rank - 2)
    shape = TupleShape((taken, values, left, array(call.dtype, *(right.dims[d] for d in turned)), info))
    mode = "A" if call.flags.get("full_matrices") else "S"
    matrix, values, left, right, info = call.elements(call.lapack("gesdd", shape, mode=mode))
    right = emit.transpose(right, turned)
    if call.dtype in _REAL:
        part = right.shape.with_dtype(_REAL[call.dtype])
        imaginary = emit.map("negate", emit.op("imag", part, (right,)))
        right = emit.op("complex", right.shape, (emit.op("real", part, (right,)), imaginary))
    return call.together([matrix, values, left, right, info])


def _gtsv(call: _Call) -> Instruction:
    """The solution alone."""
    call.need(1, 1)
    info = array(S32, *call.operands[0].shape.dims[:-1])
    shapes = (*(dense(operand.shape) for operand in call.operands), info)
    return call.together([call.elements(call.lapack("gtsv", TupleShape(shapes)))[3]])


def _lu(call: _Call) -> Instruction:
    """(factors, exchanges of rows counted from 0, the permutation that they are)."""
    call.need(3, 2)
    emit, (factors, pivots, permutation) = call.emit, call.results
    info = array(S32, *factors.dims[:-2])
    made = call.elements(call.lapack("getrf", TupleShape((factors, dense(pivots), info))))
    counted = emit.map("subtract", made[1], emit.full(1, made[1].shape))
    return call.together([made[0], counted, _permutation(call, counted, permutation.dims)])


def _pivots(call: _Call) -> Instruction:
    call.need(1, 1)
    pivots = call.emit.op("copy", dense(call.operands[0].shape), (call.operands[0],))
    return call.together([_permutation(call, pivots, call.results[0].dims)])


def _scaled_dot(call: _Call) -> Instruction:
    """Of rows by rows, each with the scales of its blocks."""
    call.need(1, 2)
    if len(call.operands) != 4:
        raise call.error(f"takes 4 operands, not {len(call.operands)}")
    rank = call.operands[0].shape.rank
    dims = {"batch_dims": tuple(range(rank - 2)), "contracting_dims": (rank - 1,)}
    sides = {f"{side}_{name}": value for side in ("lhs", "rhs") for name, value in dims.items()}
    left, right = (operand.shape for operand in call.operands[:2])
    if call.results[0].dims != (*left.dims[:-1], *right.dims[-2:-1]):
        raise call.error(f"of {left!r} and {right!r} does not give {call.results[0]!r}")
    try:
        return call.together([call.emit.op("scaled-dot", dense(call.results[0]), call.operands, **sides)])
    except HloError as fault:
        raise call.error(f"takes other operands: {fault.message}") from None


def _sparse_rows(call: _Call) -> Instruction:
    """(elements, where each row's begin and the last one's end, their columns, vector or matrix) -> product.

    An element's row is the number of rows that end at or before it. Those behind the last row's end have none.
    """
    call.need(1, 1)
    if [operand.shape.rank for operand in call.operands[:3]] != [1, 1, 1] or len(call.operands) != 4:
        raise call.error(f"does not take {call.instruction.shape!r} of such operands")
    emit, (elements, begins, columns, dense_side) = call.emit, call.operands
    count, rows = elements.shape.dims[0], begins.shape.dims[0] - 1
    whole = dense(call.results[0])
    if not count:
        return call.together([emit.full(0, whole)])
    width = dense_side.shape.dims[1:]
    sums, numbers = (binary_computation(call.instruction, "add", dtype) for dtype in (call.dtype, S32))
    at = {"inserted_window_dims": (0,), "scatter_dims_to_operand_dims": (0,), "index_vector_dim": 1}
    ends, one = emit.slice(begins, [SliceDim(1, rows + 1)]), array(S32, rows)
    marks = (emit.full(0, array(S32, count)), ends, emit.full(1, one))
    marks = emit.op("scatter", array(S32, count), marks, to_apply=numbers, update_window_dims=(), **at)
    window = Window((WindowDim(count, pad_low=count - 1),))
    row = emit.op("reduce-window", marks.shape, (marks, emit.scalar(0, S32)), window=window, to_apply=numbers)
    lines = tuple(range(1, 1 + len(width)))
    taken = emit.op(
        "gather", array(call.dtype, count, *width), (dense_side, columns), offset_dims=lines,
        collapsed_slice_dims=(0,), start_index_map=(0,), index_vector_dim=1, slice_sizes=(1, *width),
    )
    products = emit.map("multiply", emit.broadcast(elements, taken.shape.dims, (0,)), taken)
    into = (emit.full(0, whole), row, products)
    return call.together([emit.op("scatter", whole, into, to_apply=sums, update_window_dims=lines, **at)])


def _trsm(call: _Call) -> Instruction:
    side, triangle, form, diagonal = _letters(call.instruction)
    forms = {"N": "NO_TRANSPOSE", "T": "TRANSPOSE", "C": "ADJOINT"}
    flags = {"left_side": side == "L", "lower": triangle == "L", "unit_diagonal": diagonal == "U"}
    shape = dense(call.operands[1].shape)
    return call.together([call.emit.op("triangular-solve", shape, call.operands, transpose_a=forms[form], **flags)])


def _permutation(call: _Call, pivots: Instruction, dims: tuple[int, ...]) -> Instruction:
    """Numbers after exchanges in order: number i with the one at pivots[..., i]."""
    emit, module = call.emit, call.instruction.computation.module
    numbers = emit.iota(S32, dims, len(dims) - 1)
    start = emit.tuple([emit.scalar(0, S32), numbers, pivots])
    sums = binary_computation(call.instruction, "add", S32)
    body = module.add_computation(_exchange(call, start.shape, sums))
    condition = module.add_computation(_is_left(call, start.shape))
    return emit.element(emit.op("while", start.shape, [start], condition=condition, body=body), 1)


def _is_left(call: _Call, state: TupleShape) -> Computation:
    computation = Computation(f"{call.instruction.name}.condition")
    emit = Emit(computation, like=call.instruction)
    step = emit.element(emit.parameter(0, state, "state"), 0)
    count = emit.scalar(state.elements[2].dims[-1], S32)
    computation.root = emit.op("compare", array(PRED), (step, count), direction="LT")
    return computation


def _exchange(call: _Call, state: TupleShape, sums: Computation) -> Computation:
    """One step: by masks, for all rows of a batch at once."""
    computation = Computation(f"{call.instruction.name}.body")
    emit = Emit(computation, like=call.instruction)
    parameter = emit.parameter(0, state, "state")
    step, numbers, pivots = (emit.element(parameter, i) for i in range(3))
    dims, last = numbers.shape.dims, len(numbers.shape.dims) - 1
    places, zero = emit.iota(S32, dims, last), emit.scalar(0, S32)

    def spread(value: Instruction) -> Instruction:
        return emit.broadcast(value, dims, range(value.shape.rank))

    def number_at(mask: Instruction) -> Instruction:
        chosen = emit.map("select", mask, numbers, emit.full(0, numbers.shape))
        return spread(emit.reduce(chosen, zero, (last,), sums))

    starts = [*([zero] * last), step]
    pivot = emit.reshape(emit.dynamic_slice(pivots, starts, [*dims[:-1], 1]), dims[:-1])
    here = emit.compare("EQ", places, emit.broadcast(step, dims))
    there = emit.compare("EQ", places, spread(pivot))
    left = emit.map("select", there, number_at(here), numbers)
    exchanged = emit.map("select", here, number_at(there), left)
    computation.root = emit.tuple([emit.map("add", step, emit.scalar(1, S32)), exchanged, pivots])
    return computation


CALLS: dict[str, Callable[[_Call], Instruction]] = {
    "solver_potrf": _same("potrf"),
    "solver_getrf": _same("getrf"),
    "solver_geqrf": _same("geqrf"),
    "solver_orgqr": _same("orgqr"),
    "solver_ormqr": _same("ormqr"),
    "solver_syevd": _same("syevd"),
    "solver_sytrd": _same("sytrd"),
    "solver_geev": _geev,
    "solver_gesvd": _gesvd,
    "solver_gesdd": _gesvd,
    "solver_gesvdj": _gesvdj,
    "solver_gesvdp": _gesvdj,
    "hybrid_eig_real": _eig,
    "hybrid_eig_comp": _eig,
    "sparse_gtsv2": _gtsv,
    "_lu_pivots_to_permutation": _pivots,
    "LuDecomposition": _lu,
    "__op$block_scaled_dot": _scaled_dot,
    "cpu_csr_sparse_dense_ffi": _sparse_rows,
}
"""What is called, without the vendor's letters, and what writes it anew."""
