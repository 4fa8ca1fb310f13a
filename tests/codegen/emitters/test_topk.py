"""topk: element types, ties, NaNs and zeros, rows around the blocks, layouts, fused operands."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check, program, value

import hloc
from hloc.ir.dtypes import dtype_named
from hloc.reference.evaluate import evaluate


def _op(dtype: str, dims: str, k: int, largest: bool, operand: str = "p0") -> str:
    result = ",".join([*dims.split(",")[:-1], str(k)])
    ends = f"k={k}, largest={str(largest).lower()}"
    return f"({dtype}[{result}], s32[{result}]) topk({operand}), {ends}"


def _both_ends(dtype: str, dims: str, counts: list[int]) -> list[str]:
    return [_op(dtype, dims, k, largest) for k in counts for largest in (True, False)]


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


def _check_bits(text: str, *arguments: np.ndarray) -> None:
    wanted = evaluate(hloc.parse(text), list(arguments))
    got = hloc.compile(text).execute(*arguments)
    for result, expected in zip(got, wanted, strict=True):
        assert np.array_equal(_bits(result), _bits(np.asarray(expected)))


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "s32", "u8", "s64", "u64", "pred", "s4"])
def test_element_types(dtype: str) -> None:
    check([f"{dtype}[3,150]"], _both_ends(dtype, "3,150", [1, 50]))


@pytest.mark.parametrize("size", [1, 127, 128, 129, 300])
def test_sizes_of_rows(size: int) -> None:
    check([f"f32[{size}]"], _both_ends("f32", f"{size}", sorted({0, 1, size // 4, min(size, 32)})))


@pytest.mark.parametrize("dims", ["0", "2,0", "0,5", "1,1,1", "3,2,40", "2,1,3,33"])
def test_ranks_and_empty_arrays(dims: str) -> None:
    k = min(3, int(dims.split(",")[-1]))
    check([f"s32[{dims}]"], _both_ends("s32", dims, [0, k]))


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "f8e5m2", "f8e8m0fnu"])
def test_every_bit_pattern_has_its_place(dtype: str) -> None:
    """NaNs of both signs with their payloads, zeros of both signs, denormals and infinities."""
    numpy = dtype_named(dtype).numpy
    numbers = np.random.default_rng(3).integers(0, 256, (4, 300, numpy.itemsize), np.uint8)
    special = np.array([np.nan, np.inf, 0, 1], numpy) if dtype != "f8e8m0fnu" else np.array([np.nan, 1], numpy)
    array = np.ascontiguousarray(numbers).view(numpy)[..., 0]
    array[:, 40:80] = np.tile(special, 40 // len(special))
    if dtype != "f8e8m0fnu":
        array[:, 120:160] = -array[:, 40:80]
    _check_bits(program([f"{dtype}[4,300]"], _both_ends(dtype, "4,300", [7, 100])), array)


def test_equal_values_come_by_position() -> None:
    ties = np.random.default_rng(1).integers(0, 3, (5, 1000)).astype(np.int32)
    results = check(["s32[5,1000]"], _both_ends("s32", "5,1000", [40, 300]), arguments=[ties])
    for number, keys in enumerate([-ties, ties]):
        wanted = np.argsort(keys, axis=-1, kind="stable")[:, :300]
        assert np.array_equal(results[5 + 2 * number], wanted)


@pytest.mark.parametrize("order", [1, -1])
def test_rows_that_are_sorted_already(order: int) -> None:
    """Each element gets into the heap, or none after the first k."""
    rows = np.arange(1000, dtype=np.float32)[::order].copy()
    check(["f32[1000]"], _both_ends("f32", "1000", [1, 33, 250]), arguments=[rows])


@pytest.mark.parametrize("layout", ["2,1,0", "0,1,2", "1,2,0"])
def test_layouts(layout: str) -> None:
    check([f"f32[3,4,50]{{{layout}}}"], [_op("f32", "3,4,50", 9, True)])


def test_a_fused_operand_is_not_stored() -> None:
    text = """HloModule m
ENTRY main {
  x = f32[8,500] parameter(0)
  y = f32[8,500] parameter(1)
  z = f32[8,500] multiply(x, y)
  ROOT t = (f32[8,5], s32[8,5]) topk(z), k=5, largest=true
}
"""
    _check_bits(text, value("f32[8,500]", 1), value("f32[8,500]", 2))
    assert len(hloc.compile(text).program.kernels) == 1


def test_complex_numbers_have_no_order() -> None:
    with pytest.raises(hloc.HloError, match="complex numbers have no order"):
        hloc.compile(program(["c64[9]"], [_op("c64", "9", 2, True)]))


@pytest.mark.parametrize("shape", ["(f32[5], s32[3])", "(f32[10], s32[10])"])
def test_a_custom_call_of_another_shape_is_refused(shape: str) -> None:
    call = f'{shape} custom-call(p0), custom_call_target="TopK"'
    with pytest.raises(hloc.HloError, match="TopK of f32.9. does not give"):
        hloc.compile(program(["f32[9]"], [call]))


@pytest.mark.parametrize("count", [64, 65])
def test_as_many_as_are_put_in_order_by_ranks_and_one_more(count: int) -> None:
    rows = np.stack([value("f32[17000]"), np.random.default_rng(4).integers(0, 9, 17000).astype(np.float32)])
    _check_bits(program(["f32[2,17000]"], _both_ends("f32", "2,17000", [count])), rows)


@pytest.mark.parametrize("dtype", ["f32", "f64", "s8", "u16"])
@pytest.mark.parametrize("size", [767, 768, 900, 5000])
def test_rows_with_many_blocks(dtype: str, size: int) -> None:
    """A bound is found from the blocks: of random numbers, of few different ones, of equal ones, in order."""
    numpy = dtype_named(dtype).numpy
    random = value(f"{dtype}[{size}]")
    few = np.random.default_rng(2).integers(0, 3, size).astype(numpy)
    rising = np.arange(size).astype(numpy)
    rows = np.stack([random, few, np.zeros(size, numpy), rising, rising[::-1]])
    _check_bits(program([f"{dtype}[5,{size}]"], _both_ends(dtype, f"5,{size}", [1, 3, 19])), rows)
