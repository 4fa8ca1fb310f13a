"""Many scalar instructions compiled in one LLVM module, run over arrays, and compared with the evaluator.

Denormals are flushed as programs run. They are left out of the operands and forgiven in the results: where
exactly they vanish is not what these tests are about.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import llvmlite.binding as llvm
import numpy as np

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Module, const
from hloc.ir.dtypes import ALL, F8E8M0FNU, F64, DType
from hloc.reference import convert, elementwise, special

EVALUATOR = {**elementwise.TABLE, **special.TABLE, **convert.TABLE}
ARRAY_TYPES = [dtype for dtype in ALL if dtype.is_array_element]
INTEGERS = [dtype for dtype in ARRAY_TYPES if dtype.is_integer]
FLOATS = [dtype for dtype in ARRAY_TYPES if dtype.is_float]
COMPLEXES = [dtype for dtype in ARRAY_TYPES if dtype.is_complex]

FLUSH, USUAL = 0x9FC0, 0x1F80  # MXCSR with and without the flush-to-zero and denormals-are-zero bits


@dataclass(frozen=True)
class Case:
    """One opcode with its operands' element types, its result's, and attributes."""

    opcode: str
    operands: tuple[DType, ...]
    result: DType
    attributes: Mapping = field(default_factory=dict)

    @property
    def name(self) -> str:
        extra = "".join(f".{value}" for value in self.attributes.values())
        return f"{self.opcode}.{'.'.join(map(str, self.operands))}.{self.result}{extra}"


def instruction(case: Case) -> SimpleNamespace:
    """As much of an instruction as the evaluator's functions look at."""
    operands = [SimpleNamespace(shape=SimpleNamespace(dtype=dtype)) for dtype in case.operands]
    shape = SimpleNamespace(dtype=case.result)
    return SimpleNamespace(operands=operands, shape=shape, get=case.attributes.get, span=None)


def _set_control(b: Builder, word: int) -> None:
    if not llvm.get_process_triple().startswith("x86_64"):
        return
    place = b.alloca("i32")
    b.store(const("i32", word), place)
    b.intrinsic("llvm.x86.sse.ldmxcsr", "void", [place], overloads=[], pure=False)


def _add_loop(module: Module, case: Case) -> None:
    pointers = [("ptr", f"x{index}", "noalias") for index in range(len(case.operands))]
    function = module.function(case.name, "void", [*pointers, ("ptr", "y", "noalias"), ("i64", "n")])
    b = Builder(function)
    *sources, target, count = function.args
    _set_control(b, FLUSH)
    with b.for_loop(0, count) as i:
        pairs = zip(case.operands, sources, strict=True)
        values = [scalar.load_element(b, dtype, source, i) for dtype, source in pairs]
        result = scalar.emit(b, case.opcode, values, case.operands, case.result, case.attributes)
        scalar.store_element(b, case.result, result, target, i)
    _set_control(b, USUAL)
    b.ret()


def host_machine(level: int = 0) -> llvm.TargetMachine:
    """This computer as LLVM's target."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=level
    )


def optimized(module: Module, machine: llvm.TargetMachine, level: int) -> llvm.ModuleRef:
    """The parsed module, run through LLVM's pipeline of that level; level 0 leaves it as it is."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    if level:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(level))
        builder.getModulePassManager().run(parsed, builder)
    return parsed


class Batch:
    """Compiled cases; `run` applies one to arrays of the operands' NumPy types."""

    def __init__(self, cases: Sequence[Case], level: int = 0):
        module = Module("batch")
        for case in cases:
            _add_loop(module, case)
        machine = host_machine(level)
        parsed = optimized(module, machine, level)
        self.text = str(parsed)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)

    def run(self, case: Case, *operands: np.ndarray) -> np.ndarray:
        arrays = [np.ascontiguousarray(operand) for operand in operands]
        result = np.zeros(arrays[0].shape, case.result.numpy)
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arrays) + 1), ctypes.c_int64)
        address = self._engine.get_function_address(case.name)
        signature(address)(*[array.ctypes.data for array in (*arrays, result)], result.size)
        return result


# Operands


def complex_of(real: np.ndarray, imag: np.ndarray, dtype: DType) -> np.ndarray:
    """Complex numbers of two parts, infinite ones too."""
    result = np.empty(real.shape, dtype.numpy)
    result.real, result.imag = real, imag
    return result


def special_values(dtype: DType) -> np.ndarray:
    """The corners of a type; every value of a type of 8 bits or fewer (but f8e8m0fnu's denormal f32)."""
    if dtype.kind == "predicate":
        return np.array([False, True])
    if dtype.is_complex:
        parts = special_values(dtype.real_part)
        return complex_of(*[grid.reshape(-1) for grid in np.meshgrid(parts, parts)], dtype)
    if dtype.bits <= 8:
        codes = np.arange(1 << dtype.bits, dtype=np.uint8).view(dtype.numpy)
        return codes[1:] if dtype is F8E8M0FNU else codes
    if dtype.is_float:
        numbers = [0, 0.5, 1, 1.5, 2, 2.5, 3, 7, 0.1, 100, 255, 256, 300, 65504, 3e9, 1e10, np.inf, np.nan]
        with np.errstate(over="ignore"):
            return np.array([*numbers, *[-number for number in numbers]], np.float32).astype(dtype.numpy)
    low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    high = (1 << (dtype.bits - int(dtype.is_signed))) - 1
    numbers = [0, 1, 2, 3, 7, 8, dtype.bits - 1, dtype.bits, dtype.bits + 1, 40, high - 1, high]
    numbers += [low, low + 1, -1, -2, -3, -7] if dtype.is_signed else []
    return np.array(numbers, dtype.numpy)


def random_values(dtype: DType, count: int, seed: int) -> np.ndarray:
    """Values of all sizes: random bits, and small numbers. No denormals."""
    rng = np.random.default_rng(seed)
    if dtype.bits <= 8:
        return rng.choice(special_values(dtype), count)
    if dtype.is_complex:
        real, imag = (random_values(dtype.real_part, count, seed * 2 + part) for part in (0, 1))
        return complex_of(real, imag, dtype)
    bits = rng.integers(0, 1 << 32, (2, count), dtype=np.uint64)
    bits = ((bits[0] << np.uint64(32) | bits[1]) >> np.uint64(64 - dtype.bits)).astype(f"u{dtype.itemsize}")
    anything = bits.view(dtype.numpy)
    if dtype.is_float:
        small = rng.normal(0, rng.choice([0.1, 1, 10, 100], count)).astype(dtype.numpy)
        with np.errstate(invalid="ignore"):
            normal = np.abs(anything.astype(np.float64)) >= tiny(dtype)
        anything = np.where(normal, anything, small)
    else:
        small = rng.integers(-40 if dtype.is_signed else 0, 40, count).astype(dtype.numpy)
    return np.where(rng.random(count) < 0.5, anything, small)


def operand_values(dtypes: Sequence[DType], count: int = 2000, limit: int = 1 << 16) -> list[np.ndarray]:
    """Operands for one op: all combinations of the corners (at most `limit` of them), and random ones."""
    corners = [special_values(dtype) for dtype in dtypes]
    sizes = [len(corner) for corner in corners]
    total = math.prod(sizes)
    which = np.arange(total) if total <= limit else np.random.default_rng(0).integers(0, total, limit // 4)
    grids = np.unravel_index(which, sizes)
    return [
        np.concatenate([corner[grid], random_values(dtype, count, seed)])
        for seed, (dtype, corner, grid) in enumerate(zip(dtypes, corners, grids, strict=True))
    ]


# Comparison


def tiny(dtype: DType) -> float:
    """The least normal number of the type's arithmetic, which is f32 for all narrower types."""
    return 2.0**-1022 if dtype.real_part is F64 else 2.0**-126


def same(got: np.ndarray, want: np.ndarray, dtype: DType) -> np.ndarray:
    """Where two arrays of a type are the same: values, signs of zeros, any NaN; denormals are zeros."""
    if dtype.is_complex:
        part = dtype.real_part
        return same(got.real, want.real, part) & same(got.imag, want.imag, part)
    if not dtype.is_float:
        return got == want
    with np.errstate(invalid="ignore"):
        wide, expected = got.astype(np.float64), want.astype(np.float64)
        equal = (wide == expected) & (np.signbit(wide) == np.signbit(expected))
    if dtype.bits < 8:  # these formats turn NaN into a zero, of a sign that nobody chose
        return wide == expected
    if dtype is F8E8M0FNU:  # a zero of f32 is NaN here
        return (wide == expected) | np.isnan(wide) & ~(expected >= tiny(dtype))
    vanished = (np.abs(wide) < tiny(dtype)) & (np.abs(expected) < tiny(dtype)) & (wide != expected)
    return equal | vanished | (np.isnan(wide) & np.isnan(expected))


def evaluate(case: Case, operands: Sequence[np.ndarray]) -> np.ndarray:
    """What the evaluator says."""
    with np.errstate(all="ignore"):
        return np.asarray(EVALUATOR[case.opcode](instruction(case), list(operands), None))


def check(batch: Batch, case: Case, operands: Sequence[np.ndarray] | None = None) -> None:
    """The compiled case and the evaluator agree exactly."""
    operands = operand_values(case.operands) if operands is None else operands
    got, want = batch.run(case, *operands), evaluate(case, operands)
    wrong = np.flatnonzero(~same(got, want, case.result))
    shown = [(*[operand[at] for operand in operands], "got", got[at], "want", want[at]) for at in wrong[:5]]
    assert not len(wrong), f"{case.name}: {len(wrong)} of {got.size} differ, {shown}"
