"""convolution on devices: every label order, stride, padding, dilation, reversal, group and element type."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import assembles, check_device, program, value
from emitter_cases import window_sizes

WINDOWS = [
    "size=3x2",
    "size=3x2 stride=2x3 pad=1_2x0_1",
    "size=3x2 pad=-2_1x3_-1",
    "size=3x2 pad=0_2x1_0 rhs_dilate=2x3",
    "size=3x2 pad=2_1x1_-3 lhs_dilate=2x2",
    "size=3x2 stride=2x1 pad=4_1x0_0 lhs_dilate=2x1 rhs_reversal=1x1",
]


@pytest.mark.parametrize(("window", "features"), [*((window, 20) for window in WINDOWS), (WINDOWS[-1], 3)])
def test_windows(window: str, features: int) -> None:
    op = (
        f"f32[2,{window_sizes('11,12', window)},{features}] convolution(p0, p1), window={{{window}}}, "
        "dim_labels=b01f_01io->b01f"
    )
    check_device(["f32[2,11,12,5]", f"f32[3,2,5,{features}]"], [op])


def test_padding_is_not_read() -> None:
    op = (
        "f16[1,6,1,1] convolution(p0, p1), window={size=2x3 stride=2x1 pad=1_-1x2_2}, dim_labels=0fb1_io01->b10f"
    )
    check_device(["f16[3,2,1,4]", "f16[2,1,2,3]"], [op])


@pytest.mark.parametrize(
    ("operands", "op"),
    [
        (
            ["f32[2,5,9,11]", "f32[20,5,3,2]"],
            "f32[2,20,9,10] convolution(p0, p1), window={size=3x2 pad=1_1x0_0}, dim_labels=bf01_oi01->bf01",
        ),
        (
            ["f32[9,5,2,11]{1,2,3,0}", "f32[20,2,5,3]{0,1,2,3}"],
            "f32[10,2,9,20] convolution(p0, p1), window={size=3x2 pad=1_1x0_0}, dim_labels=0fb1_o1i0->1b0f",
        ),
        (
            ["f32[2,5,9,11]", "f32[20,2,5,3]{0,1,2,3}"],
            "f32[2,10,9,20]{2,1,0,3} convolution(p0, p1), window={size=3x2 pad=1_1x0_0}, dim_labels=bf01_o1i0->b10f",
        ),
        (["f32[20,5]", "f32[5,18]"], "f32[20,18] convolution(p0, p1), dim_labels=bf_io->bf"),
        (
            ["f32[2,30,5]", "f32[4,5,18]"],
            "f32[2,30,18] convolution(p0, p1), window={size=4 pad=3_0}, dim_labels=b0f_0io->b0f",
        ),
        (
            ["f32[2,5,6,7,3]", "f32[2,3,2,3,18]"],
            "f32[2,4,6,6,18] convolution(p0, p1), window={size=2x3x2 pad=0_0x1_1x0_0}, dim_labels=b012f_012io->b012f",
        ),
    ],
)
def test_labels_layouts_and_ranks(operands: list[str], op: str) -> None:
    check_device(operands, [op])


@pytest.mark.parametrize(("groups", "features"), [(3, 24), (12, 12), (4, 8)])
def test_feature_groups(groups: int, features: int) -> None:
    op = (
        f"f32[2,9,5,{features}] convolution(p0, p1), window={{size=3x3 stride=1x2 pad=1_1x1_1}}, "
        f"dim_labels=b01f_01io->b01f, feature_group_count={groups}"
    )
    check_device(["f32[2,9,9,12]", f"f32[3,3,{12 // groups},{features}]"], [op])


@pytest.mark.parametrize("features", [8, 32])
def test_batch_groups(features: int) -> None:
    op = (
        f"f32[2,9,7,{features}] convolution(p0, p1), window={{size=3x3 pad=1_1x0_0}}, "
        "dim_labels=b01f_01io->b01f, batch_group_count=4"
    )
    check_device(["f32[8,9,9,5]", f"f32[3,3,5,{features}]"], [op])


def test_gradient_of_a_kernel() -> None:
    op = "f32[5,5,4,6] convolution(p0, p1), window={size=16x16}, dim_labels=f01b_i01o->01bf"
    check_device(["f32[3,20,20,4]", "f32[3,16,16,6]"], [op])


def test_gradient_of_a_kernel_by_matrix_units() -> None:
    """Images are neighbours in memory: they are copied together."""
    op = "f32[3,3,16,24] convolution(p0, p1), window={size=12x12}, dim_labels=f01b_i01o->01bf"
    check_device(["bf16[8,14,14,16]", "bf16[8,12,12,24]"], [op])


def test_few_features_by_matrix_units() -> None:
    op = "f16[1,10,10,24] convolution(p0, p1), window={size=7x7 stride=2x2 pad=3_3x3_3}, dim_labels=b01f_01io->b01f"
    check_device(["f16[1,20,20,3]", "f16[7,7,3,24]"], [op])


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        ("f64", "f64"),
        ("bf16", "bf16"),
        ("s8", "s32"),
        ("u8", "u8"),
        ("c64", "c64"),
    ],
)
def test_element_types(dtype: str, result: str) -> None:
    window = "window={size=3x2 pad=1_1x0_0}, dim_labels=b01f_01io->b01f"
    check_device(
        [f"{dtype}[2,9,11,6]", f"{dtype}[3,2,6,18]", f"{dtype}[3,2,1,6]"],
        [
            f"{result}[2,9,10,18] convolution(p0, p1), {window}",
            f"{result}[2,9,10,6] convolution(p0, p2), {window}, feature_group_count=6",
        ],
        tolerance=1e-4 if result == "f32" else None,
    )


def test_padding_is_multiplied() -> None:
    """Zeros times an infinity of the kernel are NaN."""
    kernel = value("f32[3,2,4]")
    kernel[0, 0, 0] = np.inf
    op = "f32[1,8,4] convolution(p0, p1), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"
    (got,) = check_device(["f32[1,8,2]", "f32[3,2,4]"], [op], "", [value("f32[1,8,2]"), kernel])
    assert np.isnan(got[0, 0, 0]) and np.isfinite(got[0, :, 1]).all()


def test_nothing_to_sum_or_to_compute() -> None:
    check_device(
        ["f32[0,9,9,5]", "f32[3,3,5,18]", "f32[2,9,9,0]", "f32[3,3,0,18]", "f32[2,0,9,5]"],
        [
            "f32[0,7,7,18] convolution(p0, p1), window={size=3x3}, dim_labels=b01f_01io->b01f",
            "f32[2,7,7,18] convolution(p2, p3), window={size=3x3}, dim_labels=b01f_01io->b01f",
            "f32[2,3,7,18] convolution(p4, p1), window={size=3x3 pad=3_2x0_0}, dim_labels=b01f_01io->b01f",
        ],
    )


def test_with_what_goes_before_and_after() -> None:
    fused = """fused {
  x = f32[2,11,12,5] parameter(0)
  w = bf16[3,2,5,20] parameter(1)
  bias = f32[20] parameter(2)
  half = bf16[2,11,12,5] convert(x)
  c = f32[2,9,11,20] convolution(half, w), window={size=3x2}, dim_labels=b01f_01io->b01f
  spread = f32[2,9,11,20] broadcast(bias), dimensions={3}
  sum = f32[2,9,11,20] add(c, spread)
  ROOT t = f32[2,20,9,11] transpose(sum), dimensions={0,3,1,2}
}

"""
    op = "f32[2,20,9,11] fusion(p0, p1, p2), kind=kLoop, calls=fused"
    check_device(["f32[2,11,12,5]", "bf16[3,2,5,20]", "f32[20]"], [op], fused, tolerance=1e-4)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_are_assembled(arch: str) -> None:
    operands = ["bf16[8,56,56,64]", "bf16[3,3,64,64]", "f32[8,56,56,64]", "f32[3,3,64,64]", "f32[3,3,1,64]"]
    window = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    ops = [
        f"bf16[8,56,56,64] convolution(p0, p1), {window}",
        f"f32[8,56,56,64] convolution(p2, p3), {window}",
        f"f32[8,56,56,64] convolution(p2, p4), {window}, feature_group_count=64",
    ]
    assembles(program(operands, ops), arch)
