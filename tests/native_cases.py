"""One small use of each opcode, for operands of any element type: the data of test_native_coverage.

A case builds its op on the parameters of `Site` and gives what the op leaves; where the op does not take the
type, building raises the HloError of its shape rule. CASES run on one device, DEVICE_CASES on two.

Cases are built on shared parameters so that one module, and one compile, serves all opcodes of a family. Values are
small, so that sums, products and conversions are exact or nearly so in the narrowest types; indices are partly out
of range and sizes no powers of two, so that clamping and the ends of loops are seen. An opcode has one case, in its
plainest form: the many forms of an op are for the tests of its emitter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hloc.ir.attributes import ConvDims, Raw, ReplicaGroups, Window, WindowDim
from hloc.ir.builder import Builder
from hloc.ir.computation import Computation
from hloc.ir.dtypes import BY_NAME, C128, F8E5M2, F32, F64, PRED, S32, U32, U64, DType, dtype_named
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import TOKEN_SHAPE, ArrayShape, TupleShape, array
from hloc.ir.sharding import Domain, WholeSharding

REGISTERED = "native_coverage.turned"
CHANNEL = 3

Case = Callable[["Site"], Instruction]


class Site:
    """A module of cases for one element type, with the parameters that cases share."""

    def __init__(self, dtype: DType, name: str):
        self.b = Builder(name)
        self.dtype = dtype
        self.inputs: list[np.ndarray] = []
        self.shape = array(dtype, 4, 6)
        rng = np.random.default_rng(len(dtype.name) + dtype.bits)
        self.x = self._given("x", _random(rng, dtype, (4, 6)))
        self.y = self._given("y", _random(rng, dtype, (4, 6)))
        self.cube = self._given("cube", _random(rng, dtype, (2, 4, 4)))
        self.vector = self._given("vector", _random(rng, dtype, (6,)))
        self.scalar = self._given("scalar", _random(rng, dtype, ()))
        root = np.tril(rng.uniform(-0.5, 0.5, (2, 4, 4))) + 2 * np.eye(4)
        with np.errstate(all="ignore"):
            self.definite = self._given("definite", (root @ root.transpose(0, 2, 1)).astype(dtype.numpy))
        self.indices = self._given("indices", np.array([2, -1, 9, 0, 2], np.int32))
        self.places = self._given("places", np.array([3, 0, 0, 1, 3], np.int32))
        self.number = self._given("number", np.int32(3))
        self.choice = self._given("choice", rng.integers(0, 2, (4, 6)).astype(bool))
        self.bits = self._given("bits", rng.integers(0, 256, (4, 6)).astype(_bits_type(dtype).numpy))
        self.state = self._given("state", np.array([7, 11], np.uint64))

    def _given(self, name: str, value: Any) -> Instruction:
        value = np.asarray(value)
        self.inputs.append(value)
        dtype = next(d for d in BY_NAME.values() if d.numpy == value.dtype)
        return self.b.parameter(array(dtype, *value.shape), name=name)

    def function(self, name: str, body: Callable[..., Instruction], *shapes: ArrayShape) -> Computation:
        """A computation of scalars of the case's type, or of the shapes given."""
        return self.b.function(name, shapes or [array(self.dtype)] * 2, body)

    def fold(self) -> Computation:
        """A reducer that every type has: addition, which is or of pred."""
        return self.function("fold", lambda f, x, y: f.add(x, y))

    def token(self) -> Instruction:
        return self.b.op("after-all")


def _random(rng: np.random.Generator, dtype: DType, dims: tuple[int, ...]) -> np.ndarray:
    """Small values of both signs, as far as the type has them."""
    if dtype is PRED:
        return rng.integers(0, 2, dims).astype(bool)
    if dtype.is_integer:
        low = -5 if dtype.is_signed else 0
        return rng.integers(low, 6, dims).astype(dtype.numpy)
    values = rng.uniform(-2, 2, dims)
    if dtype.is_complex:
        values = values + 1j * rng.uniform(-2, 2, dims)
    return np.asarray(values).astype(dtype.numpy)


def _bits_type(dtype: DType) -> DType:
    return BY_NAME.get(f"u{dtype.bits}", U64)


# One device


def _unary(opcode: str) -> Case:
    return lambda s: s.b.op(opcode, s.x)


def _binary(opcode: str) -> Case:
    return lambda s: s.b.op(opcode, s.x, s.y)


def _same_bits(s: Site) -> Instruction:
    return s.b.bitcast_convert(s.x, s.dtype if s.dtype.is_complex else _bits_type(s.dtype))


def _compare(s: Site) -> Instruction:
    return s.b.compare(s.x, s.y, "EQ" if s.dtype.is_complex else "LT")


def _constant(s: Site) -> Instruction:
    return s.b.constant(np.arange(6).reshape(2, 3).astype(s.dtype.numpy))


def _map(s: Site) -> Instruction:
    body = s.function("chosen", lambda f, x, y: f.op("select", f.compare(x, y, "EQ"), y, x))
    return s.b.op("map", s.x, s.y, to_apply=body, dimensions=(0, 1))


def _domain(s: Site) -> Instruction:
    whole = WholeSharding("replicated")
    return s.b.op("domain", s.x, domain=Domain("sharding", whole, whole))


def _resized(s: Site) -> Instruction:
    return s.b.op("set-dimension-size", s.x, s.number, dimensions=(0,))


def _dynamic_reshape(s: Site) -> Instruction:
    twice = s.b.op("add", s.number, s.number)
    three = s.b.constant(3, S32)
    shape = ArrayShape(s.dtype, (8, 3), None, (True, False))
    return s.b.op("dynamic-reshape", _resized(s), twice, three, shape=shape)


def _dot(s: Site) -> Instruction:
    return s.b.dot(s.x, s.y, lhs_contracting_dims=(1,), rhs_contracting_dims=(1,))


def _scaled_dot(s: Site) -> Instruction:
    shape = array(s.dtype, 4, 4)
    contracted = {"lhs_contracting_dims": (1,), "rhs_contracting_dims": (1,)}
    return s.b.op("scaled-dot", s.x, s.y, s.scalar, s.scalar, shape=shape, **contracted)


def _ragged_dot(s: Site) -> Instruction:
    sizes = s.b.constant([1, 2], S32)
    lhs = s.b.reshape(s.x, (6, 4))
    numbers = {"lhs_contracting_dims": (1,), "rhs_contracting_dims": (1,)}
    return s.b.op("ragged-dot", lhs, s.cube, sizes, lhs_ragged_dims=(0,), rhs_group_dims=(0,), **numbers)


def _convolution(s: Site) -> Instruction:
    kernel = s.b.reshape(s.x, (3, 4, 2))
    labels = ConvDims(0, 2, (1,), 1, 2, (0,), 0, 2, (1,))
    window = Window((WindowDim(3, 1, 1, 1),))
    return s.b.op("convolution", s.cube, kernel, dim_labels=labels, window=window)


def _fft(s: Site) -> Instruction:
    return s.b.op("fft", s.x, fft_type="FFT" if s.dtype.is_complex else "RFFT", fft_length=(6,))


def _reduce(s: Site) -> Instruction:
    return s.b.reduce(s.x, s.fold(), (1,), s.scalar)


def _reduce_window(s: Site) -> Instruction:
    window = Window((WindowDim(2), WindowDim(3, 2, 1, 0)))
    return s.b.op("reduce-window", s.x, s.scalar, to_apply=s.fold(), window=window)


def _select_and_scatter(s: Site) -> Instruction:
    direction = "EQ" if s.dtype.is_complex else "GE"
    select = s.function("select_first", lambda f, x, y: f.compare(x, y, direction))
    source = s.b.slice(s.y, (0, 0), (2, 3))
    window = Window((WindowDim(2, 2), WindowDim(2, 2)))
    return s.b.op("select-and-scatter", s.x, source, s.scalar, select=select, scatter=s.fold(), window=window)


def _scan(s: Site) -> Instruction:
    def step(f: Builder, x: Instruction, carry: Instruction) -> Instruction:
        total = f.add(x, carry)
        return f.tuple(total, total)

    row = array(s.dtype, 6)
    body = s.function("step", step, row, row)
    scanned = s.b.op("scan", s.x, s.vector, to_apply=body, dimensions=(0,), num_carries=1)
    return s.b.get_tuple_element(scanned, 0)


def _sort(s: Site) -> Instruction:
    def less(f: Builder, x: Instruction, y: Instruction) -> Instruction:
        if s.dtype.is_complex:
            x, y = f.op("real", x), f.op("real", y)
        return f.compare(x, y, "LT")

    return s.b.op("sort", s.x, dimensions=(1,), is_stable=True, to_apply=s.function("less", less))


def _topk(s: Site) -> Instruction:
    return s.b.get_tuple_element(s.b.op("topk", s.x, k=2, largest=True), 0)


def _batch_norm(opcode: str) -> Case:
    def case(s: Site) -> Instruction:
        count = {"batch-norm-training": 2, "batch-norm-inference": 4, "batch-norm-grad": 3}[opcode]
        features = [s.vector] * count
        if opcode != "batch-norm-training":
            features[-1] = s.b.op("abs", s.vector)
        last = [s.y] if opcode == "batch-norm-grad" else []
        made = s.b.op(opcode, s.x, *features, *last, epsilon=0.5, feature_index=1)
        return s.b.get_tuple_element(made, 0) if made.shape.is_tuple else made

    return case


def _dynamic_slice(s: Site) -> Instruction:
    return s.b.op("dynamic-slice", s.x, s.number, s.number, dynamic_slice_sizes=(2, 3))


def _dynamic_update_slice(s: Site) -> Instruction:
    return s.b.op("dynamic-update-slice", s.x, s.b.slice(s.y, (0, 0), (2, 3)), s.number, s.number)


def _gather(s: Site) -> Instruction:
    return s.b.op("gather", s.x, s.indices, offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,),
                  index_vector_dim=1, slice_sizes=(1, 6))


def _scatter(s: Site) -> Instruction:
    updates = s.b.broadcast(s.vector, (5, 6), (1,))
    return s.b.op("scatter", s.x, s.indices, updates, update_window_dims=(1,), inserted_window_dims=(0,),
                  scatter_dims_to_operand_dims=(0,), index_vector_dim=1, to_apply=s.fold())


def _rng(s: Site) -> Instruction:
    """A range with one number in it."""
    end = s.scalar if s.dtype.is_float else s.b.op("add", s.scalar, s.b.constant(1, s.dtype))
    return s.b.op("rng", s.scalar, end, shape=array(s.dtype, 4), distribution="rng_uniform")


def _random_bits(s: Site) -> Instruction:
    shape = TupleShape((array(U64, 2), array(s.dtype, 4, 6)))
    made = s.b.op("rng-bit-generator", s.state, shape=shape, algorithm="rng_three_fry")
    return s.b.get_tuple_element(made, 1)


def _body(s: Site, name: str) -> Computation:
    return s.function(name, lambda f, x, y: f.op("transpose", f.concatenate([x, y], 0), dimensions=(1, 0)),
                      s.shape, s.shape)


def _call(s: Site) -> Instruction:
    return s.b.op("call", s.x, s.y, to_apply=_body(s, "called"))


def _fusion(s: Site) -> Instruction:
    return s.b.op("fusion", s.x, s.y, kind="kLoop", calls=_body(s, "fused"))


def _while(s: Site) -> Instruction:
    """Two arrays change places three times."""
    state = s.b.tuple(s.b.constant(0, S32), s.x, s.y)

    def turn(f: Builder, t: Instruction) -> Instruction:
        count, x, y = (f.get_tuple_element(t, i) for i in range(3))
        return f.tuple(f.add(count, 1), y, x)

    loop = s.b.while_(state, lambda f, t: f.compare(f.get_tuple_element(t, 0), 3, "LT"), turn)
    return s.b.get_tuple_element(loop, 1)


def _conditional(s: Site) -> Instruction:
    predicate = s.b.compare(s.number, 2, "GT")
    reverse = lambda f, x: f.op("reverse", x, dimensions=(0,))  # noqa: E731
    return s.b.cond(predicate, reverse, lambda f, x: f.op("copy", x), s.x, s.y)


def _async(s: Site) -> Instruction:
    body = _body(s, "begun")
    body.execution_thread = "side"
    shape = TupleShape((TupleShape((s.shape, s.shape)), body.root.shape, array(U32)))
    start = s.b.op("async-start", s.x, s.y, shape=shape, calls=body, async_execution_thread="side")
    update = s.b.op("async-update", start)
    return s.b.op("async-done", update)


def _copy_pair(s: Site) -> Instruction:
    return s.b.op("copy-done", s.b.op("copy-start", s.x))


def _custom_call(s: Site) -> Instruction:
    return s.b.op("custom-call", s.x, shape=array(s.dtype, 6, 4), custom_call_target=REGISTERED)


def _add_dependency(s: Site) -> Instruction:
    return s.b.op("add-dependency", s.x, s.token())


def _infeed(s: Site) -> Instruction:
    fed = s.b.op("infeed", s.token(), shape=TupleShape((s.shape, TOKEN_SHAPE)))
    return s.b.get_tuple_element(fed, 0)


def _outfeed(s: Site) -> Instruction:
    return s.b.op("outfeed", s.x, s.token(), outfeed_shape=s.shape)


def _send(s: Site) -> Instruction:
    channel = {"channel_id": CHANNEL, "is_host_transfer": True}
    return s.b.op("send-done", s.b.op("send", s.x, s.token(), **channel), **channel)


def _recv(s: Site) -> Instruction:
    channel = {"channel_id": CHANNEL + 1, "is_host_transfer": True}
    shape = TupleShape((s.shape, array(U32), TOKEN_SHAPE))
    done = s.b.op("recv-done", s.b.op("recv", s.token(), shape=shape, **channel), **channel)
    return s.b.get_tuple_element(done, 0)


CASES: dict[str, Case] = {
    **{
        name: (_unary if op.arity == (1, 1) else _binary)(name)
        for name, op in OPS.items()
        if op.is_elementwise and op.arity in ((1, 1), (2, 2))
    },
    "convert": lambda s: s.b.convert(s.x, C128 if s.dtype.is_complex else F64),
    "reduce-precision": lambda s: s.b.op("reduce-precision", s.x, exponent_bits=4, mantissa_bits=2),
    "bitcast-convert": _same_bits,
    "stochastic-convert": lambda s: s.b.op(
        "stochastic-convert", s.x, s.bits, shape=array(F8E5M2, 4, 6)
    ),
    "compare": _compare,
    "select": lambda s: s.b.op("select", s.choice, s.x, s.y),
    "clamp": lambda s: s.b.op("clamp", s.scalar, s.x, s.y),
    "map": _map,
    "parameter": lambda s: s.x,
    "constant": _constant,
    "iota": lambda s: s.b.iota(s.shape, 1),
    "tuple": lambda s: s.b.tuple(s.x, s.b.tuple(s.y)),
    "get-tuple-element": lambda s: s.b.get_tuple_element(s.b.tuple(s.x, s.y), 1),
    "add-dependency": _add_dependency,
    "after-all": _add_dependency,
    "opt-barrier": lambda s: s.b.op("opt-barrier", s.x),
    "domain": _domain,
    "get-dimension-size": lambda s: s.b.op("get-dimension-size", _resized(s), dimensions=(0,)),
    "set-dimension-size": _resized,
    "bitcast": lambda s: s.b.op("bitcast", s.x, shape=array(s.dtype, 3, 8)),
    "broadcast": lambda s: s.b.broadcast(s.vector, (6, 3), (0,)),
    "concatenate": lambda s: s.b.concatenate([s.x, s.y], 1),
    "pad": lambda s: s.b.pad(s.x, s.scalar, [(1, -1, 1), (-1, 2)]),
    "reshape": lambda s: s.b.reshape(s.b.op("transpose", s.x, dimensions=(1, 0)), (3, 8)),
    "dynamic-reshape": _dynamic_reshape,
    "reverse": lambda s: s.b.op("reverse", s.x, dimensions=(1,)),
    "slice": lambda s: s.b.slice(s.x, (1, 0), (4, 6), (2, 1)),
    "transpose": lambda s: s.b.op("transpose", s.x, dimensions=(1, 0)),
    "shuffle": lambda s: s.b.op("shuffle", s.x, dimensions=(1,), mode=Raw("rotate"), shifts=(2,)),
    "dot": _dot,
    "scaled-dot": _scaled_dot,
    "ragged-dot": _ragged_dot,
    "convolution": _convolution,
    "fft": _fft,
    "cholesky": lambda s: s.b.op("cholesky", s.definite, lower=True),
    "triangular-solve": lambda s: s.b.op(
        "triangular-solve", s.definite, s.cube, left_side=True, lower=True, transpose_a="NO_TRANSPOSE"
    ),
    "reduce": _reduce,
    "reduce-window": _reduce_window,
    "select-and-scatter": _select_and_scatter,
    "scan": _scan,
    "sort": _sort,
    "topk": _topk,
    **{name: _batch_norm(name) for name in OPS if name.startswith("batch-norm-")},
    "dynamic-slice": _dynamic_slice,
    "dynamic-update-slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter,
    "rng": _rng,
    "rng-bit-generator": _random_bits,
    "rng-get-and-update-state": lambda s: s.b.op("rng-get-and-update-state", shape=array(U64, 2), delta=3),
    "call": _call,
    "fusion": _fusion,
    "while": _while,
    "conditional": _conditional,
    **dict.fromkeys(("async-start", "async-update", "async-done"), _async),
    **dict.fromkeys(("copy-start", "copy-done"), _copy_pair),
    "custom-call": _custom_call,
    "infeed": _infeed,
    "outfeed": _outfeed,
    **dict.fromkeys(("send", "send-done"), _send),
    **dict.fromkeys(("recv", "recv-done"), _recv),
}


# Two devices

PAIR = {"replica_groups": ReplicaGroups(((0, 1),))}


def _folded(opcode: str, done: str = "") -> Case:
    def case(s: Site) -> Instruction:
        made = s.b.op(opcode, s.x, to_apply=s.fold(), **PAIR)
        return s.b.op(done, made) if done else made

    return case


def _reduce_scatter(s: Site) -> Instruction:
    shape = array(s.dtype, 4, 3)
    return s.b.op("reduce-scatter", s.x, shape=shape, to_apply=s.fold(), dimensions=(1,), **PAIR)


def _gathered(opcode: str, done: str = "") -> Case:
    def case(s: Site) -> Instruction:
        whole = array(s.dtype, 8, 6)
        shape = TupleShape((s.shape, whole)) if done else whole
        made = s.b.op(opcode, s.x, shape=shape, dimensions=(0,), **PAIR)
        return s.b.op(done, made) if done else made

    return case


def _permuted(opcode: str, done: str = "") -> Case:
    def case(s: Site) -> Instruction:
        made = s.b.op(opcode, s.x, source_target_pairs=((0, 1),))
        return s.b.op(done, made) if done else made

    return case


def _ragged_exchange(s: Site) -> Instruction:
    """Each device keeps its first row, and sends its second one to the other."""
    offsets, sizes, targets = (s.b.constant(v, S32) for v in ([0, 1], [1, 1], [0, 2]))
    received = s.b.constant([1, 1], S32)
    return s.b.op("ragged-all-to-all", s.x, s.y, offsets, sizes, targets, received, **PAIR)


DEVICE_CASES: dict[str, Case] = {
    "partition-id": lambda s: s.b.op("partition-id"),
    "replica-id": lambda s: s.b.op("replica-id"),
    "all-gather": _gathered("all-gather"),
    **dict.fromkeys(
        ("all-gather-start", "all-gather-done"), _gathered("all-gather-start", "all-gather-done")
    ),
    "all-reduce": _folded("all-reduce"),
    **dict.fromkeys(("all-reduce-start", "all-reduce-done"), _folded("all-reduce-start", "all-reduce-done")),
    "reduce-scatter": _reduce_scatter,
    "all-to-all": lambda s: s.b.op("all-to-all", s.x, dimensions=(1,), **PAIR),
    "ragged-all-to-all": _ragged_exchange,
    "collective-permute": _permuted("collective-permute"),
    **dict.fromkeys(
        ("collective-permute-start", "collective-permute-done"),
        _permuted("collective-permute-start", "collective-permute-done"),
    ),
    "collective-broadcast": lambda s: s.b.op("collective-broadcast", s.x, **PAIR),
    "collective-reduce": _folded("collective-reduce"),
}

FAMILIES = {
    name: dtype_named(dtype)
    for name, dtype in {
        "pred": "pred",
        "signed": "s32",
        "unsigned": "u8",
        "f64": "f64",
        "f32": "f32",
        "f16": "f16",
        "bf16": "bf16",
        "f8": "f8e4m3fn",
        "complex": "c64",
        "sub-byte": "s4",
        "sub-byte float": "f4e2m1fn",
    }.items()
}
assert FAMILIES["f32"] is F32
