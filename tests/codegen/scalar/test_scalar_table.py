"""The table as a whole: it has every elementwise op, refuses what HLO lacks, and is generic over vectors."""

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest
from batch import (
    ARRAY_TYPES,
    COMPLEXES,
    FLOATS,
    INTEGERS,
    Batch,
    Case,
    host_machine,
    operand_values,
    optimized,
    same,
)

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Module, Value, const
from hloc.ir.dtypes import BF16, C64, F8E4M3FN, F16, F32, F64, FLOAT, PRED, S4, S32, U8, U64
from hloc.ir.opcodes import OPS

# Elementwise ops that run a computation, and the one that is not elementwise in HLO as it changes shapes.
ELSEWHERE = {"map"}
NOT_ELEMENTWISE = {"bitcast-convert"}


def test_every_elementwise_opcode_has_a_row():
    elementwise = {name for name, op in OPS.items() if op.is_elementwise}
    assert set(scalar.TABLE) == elementwise - ELSEWHERE | NOT_ELEMENTWISE


@pytest.mark.parametrize(
    "opcode, dtype",
    [("and", F32), ("sine", S32), ("shift-left", PRED), ("erf", C64), ("floor", C64), ("fft", F32)],
)
def test_what_hlo_does_not_define_is_refused(opcode, dtype):
    assert not scalar.is_supported(opcode, dtype)
    function = Module().function("f")
    with pytest.raises(scalar.UnsupportedScalar) as caught:
        scalar.emit(Builder(function), opcode, [const("i32", 0)] * 2, [dtype] * 2, dtype)
    assert (caught.value.opcode, caught.value.dtype) == (opcode, dtype)


def test_bitcast_convert_to_another_width_is_refused():
    b = Builder(Module().function("f"))
    with pytest.raises(scalar.UnsupportedScalar):
        scalar.emit(b, "bitcast-convert", [const("i32", 0)], [S32], U8)


@pytest.mark.parametrize("dtype", ARRAY_TYPES, ids=str)
def test_loads_stores_and_constants_keep_every_bit(dtype):
    """copy moves an array as it is; a stored constant is the array's element, NaN payloads included."""
    case = Case("copy", (dtype,), dtype)
    bits = np.random.default_rng(0).integers(0, 256, (40, dtype.itemsize), dtype=np.uint8)
    if dtype.is_subbyte or dtype is PRED:
        bits &= (1 << dtype.bits) - 1
    array = bits.view(dtype.numpy).reshape(-1)
    assert (Batch([case], level=0).run(case, array).view(np.uint8).reshape(bits.shape) == bits).all()

    module = Module()
    function = module.function("constants", params=[("ptr", "out")])
    b = Builder(function)
    for index, element in enumerate(array):
        scalar.store_element(b, dtype, scalar.constant(dtype, element), function.args[0], const("i64", index))
    b.ret()
    assert (
        _run_on(module, "constants", np.zeros_like(array)).view(np.uint8).reshape(bits.shape) == bits
    ).all()


def _run_on(module, name, array):
    """Calls a function of one pointer on an array."""
    machine = host_machine()
    engine = llvm.create_mcjit_compiler(optimized(module, machine, 0), machine)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address(name))(array.ctypes.data)
    return array


@pytest.mark.parametrize("dtype", ARRAY_TYPES, ids=str)
def test_memory_is_numpys(dtype):
    assert scalar.memory_size(dtype) == np.dtype(dtype.numpy).itemsize


def test_constants_from_python_numbers():
    assert scalar.constant(F32, 0.1).number == np.float32(0.1)
    assert scalar.constant(BF16, 1.5).text == str(0x3FC0)
    assert scalar.constant(S4, -1).number == -1
    assert [part.number for part in scalar.constant(C64, 1 + 2j)] == [1, 2]
    with pytest.raises(OverflowError):
        scalar.constant(U8, 300)


VECTOR_CASES = [
    *(("add", BF16), ("multiply", F8E4M3FN), ("maximum", F16), ("tanh", F32), ("erf", F32)),
    *(("sine", F32), ("sine", F64), ("cbrt", F64), ("remainder", F32), ("remainder", F64), ("power", F64)),
    *(
        ("power", S32),
        ("divide", S32),
        ("popcnt", U64),
        ("shift-left", S4),
        ("divide", C64),
        ("exponential", C64),
    ),
]


@pytest.mark.parametrize("opcode, dtype", VECTOR_CASES, ids=str)
def test_vectors_of_registers_give_what_scalars_give(opcode, dtype):
    count = 1 if opcode in ("tanh", "sine", "popcnt", "cbrt", "erf", "exponential") else 2
    case = Case(opcode, (dtype,) * count, dtype)
    operands = [values[-64:] for values in operand_values(case.operands)]
    want = Batch([case], level=0).run(case, *operands)
    module = Module()
    function = module.function("vectors", params=[("ptr", "all")])
    b = Builder(function)
    arrays = np.concatenate([*operands, np.zeros(64, dtype.numpy)])
    with b.for_loop(0, 16) as i:
        first = b.mul(i, const("i64", 4))
        starts = [b.add(first, const("i64", 64 * number)) for number in range(count)]
        values = [_load_vector(b, dtype, function.args[0], start) for start in starts]
        result = scalar.emit(b, opcode, values, case.operands, dtype)
        _store_vector(b, dtype, result, function.args[0], b.add(first, const("i64", 64 * count)))
    b.ret()
    got = _run_on(module, "vectors", arrays)[64 * count :]
    assert same(got, want, dtype).all()


def _lanes(value):
    return value if isinstance(value, tuple) else (value,)


def _load_vector(b, dtype, pointer, start):
    lanes = [_lanes(scalar.load_element(b, dtype, pointer, b.add(start, const("i64", k)))) for k in range(4)]
    vectors = []
    for parts in zip(*lanes, strict=True):
        vector = Value(f"<4 x {parts[0].type}>", "poison")
        for lane, part in enumerate(parts):
            vector = b.insertelement(vector, part, lane)
        vectors.append(vector)
    return tuple(vectors) if dtype.is_complex else vectors[0]


def _store_vector(b, dtype, value, pointer, start):
    for lane in range(4):
        parts = tuple(b.extractelement(part, lane) for part in _lanes(value))
        element = parts if dtype.is_complex else parts[0]
        scalar.store_element(b, dtype, element, pointer, b.add(start, const("i64", lane)))


def test_families_are_complete():
    assert {dtype.kind for dtype in FLOATS} == {FLOAT}
    assert len(INTEGERS) == 14 and len(FLOATS) == 15 and len(COMPLEXES) == 2
