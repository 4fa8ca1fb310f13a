"""topk on a device: rows ranked, selected, divided and sorted; ties, types, fused operands."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import EMULATED, assembles, check_device, program, value

import hloc


def _op(dtype: str, dims: str, k: int, largest: bool, operand: str = "p0") -> str:
    result = ",".join([*dims.split(",")[:-1], str(k)])
    return f"({dtype}[{result}], s32[{result}]) topk({operand}), k={k}, largest={str(largest).lower()}"


def _both_ends(dtype: str, dims: str, counts: list[int]) -> list[str]:
    return [_op(dtype, dims, k, largest) for k in counts for largest in (True, False)]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("f32", 40), ("f16", 40), ("u8", 40), ("s64", 40), ("s4", 40)]
    + [("f32", 700), ("f64", 700), ("bf16", 700), ("u64", 700), ("pred", 700)],
)
def test_element_types(dtype: str, size: int) -> None:
    """Many equal ones among the integers; the lower position comes first."""
    check_device([f"{dtype}[3,{size}]"], _both_ends(dtype, f"3,{size}", [30]))


@pytest.mark.parametrize(("dims", "count"), [("1", 1), ("300,7", 3), ("5,512", 512), ("513", 513), ("2,3,900", 1)])
def test_sizes_of_rows(dims: str, count: int) -> None:
    check_device([f"f32[{dims}]"], _both_ends("f32", dims, [0, count]))


def test_few_long_rows_are_divided() -> None:
    numbers = value("f32[2,20000]")
    numbers[1] = np.round(numbers[1])
    check_device(["f32[2,20000]"], _both_ends("f32", "2,20000", [9]), "", [numbers])


def test_very_many_are_sorted() -> None:
    check_device(["s32[2,2500]"], _both_ends("s32", "2,2500", [1100]))


@pytest.mark.parametrize("size", [64, 640])
def test_every_bit_pattern_has_its_place(size: int) -> None:
    """NaNs of both signs with their payloads, zeros of both signs, denormals and infinities."""
    array = np.random.default_rng(3).integers(0, 1 << 32, (4, size), np.uint32).view(np.float32)
    special = np.array([np.nan, np.inf, 0, 1], np.float32)
    array[:, :20], array[:, 20:40] = np.tile(special, 5), -np.tile(special, 5)
    text = program([f"f32[4,{size}]"], _both_ends("f32", f"4,{size}", [50]))
    got, wanted = (hloc.compile(text, target).execute(array) for target in (EMULATED, "cpu"))
    for result, expected in zip(got, wanted, strict=True):
        assert np.array_equal(result.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("layout", ["1,0", "0,1"])
def test_operands_are_fused_in(layout: str) -> None:
    shape = f"f32[6,600]{{{layout}}}"
    op = "(f32[6,4]{0,1}, s32[6,4]{0,1}) topk(r0), k=4, largest=true"
    check_device([shape], [f"{shape} negate(p0)", op])


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_assemble_without_spills(arch: str) -> None:
    ops = [_op("f32", "4,20000", 50, True), _op("f64", "30,600", 9, False, "p1"), _op("bf16", "50,64", 8, True, "p2")]
    assembles(program(["f32[4,20000]", "f64[30,600]", "bf16[50,64]"], ops), arch)
