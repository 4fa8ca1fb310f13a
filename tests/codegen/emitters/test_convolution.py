"""convolution: every label order, stride, padding, dilation, reversal, group and element type."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check, program, window_sizes

import hloc
from hloc.codegen.convolution_plan import ConvolutionPlan

WINDOWS = [
    "size=3x2",
    "size=3x2 pad=1_1x0_1",
    "size=3x2 stride=2x3 pad=1_2x0_1",
    "size=3x2 pad=-2_1x3_-1",
    "size=3x2 pad=0_2x1_0 rhs_dilate=2x3",
    "size=3x2 pad=2_1x1_-3 lhs_dilate=2x2",
    "size=3x2 stride=2x1 pad=4_1x0_0 lhs_dilate=2x1 rhs_reversal=1x1",
]


@pytest.mark.parametrize("features", [3, 16, 20])
def test_windows(features: int) -> None:
    ops = [
        f"f32[2,{window_sizes('11,12', window)},{features}] convolution(p0, p1), window={{{window}}}, "
        "dim_labels=b01f_01io->b01f"
        for window in WINDOWS
    ]
    check(["f32[2,11,12,5]", f"f32[3,2,5,{features}]"], ops)


def test_labels_and_layouts() -> None:
    check(
        ["f32[2,5,9,11]", "f32[20,5,3,2]", "f32[9,5,2,11]{1,2,3,0}", "f32[20,2,5,3]{0,1,2,3}"],
        [
            "f32[2,20,9,10] convolution(p0, p1), window={size=3x2 pad=1_1x0_0}, dim_labels=bf01_oi01->bf01",
            "f32[10,2,9,20] convolution(p2, p3), window={size=3x2 pad=1_1x0_0}, dim_labels=0fb1_o1i0->1b0f",
            "f32[2,10,9,20]{2,1,0,3} convolution(p0, p3), window={size=3x2 pad=1_1x0_0}, "
            "dim_labels=bf01_o1i0->b10f",
        ],
    )


def test_other_ranks() -> None:
    check(
        ["f32[20,5]", "f32[5,18]", "f32[2,30,5]", "f32[4,5,18]", "f32[2,5,6,7,3]", "f32[2,3,2,3,18]"],
        [
            "f32[20,18] convolution(p0, p1), dim_labels=bf_io->bf",
            "f32[2,30,18] convolution(p2, p3), window={size=4 pad=3_0}, dim_labels=b0f_0io->b0f",
            "f32[2,4,6,6,18] convolution(p4, p5), window={size=2x3x2 pad=0_0x1_1x0_0}, "
            "dim_labels=b012f_012io->b012f",
        ],
    )


@pytest.mark.parametrize(("groups", "features"), [(3, 24), (3, 72), (12, 12), (12, 36), (4, 8)])
def test_feature_groups(groups: int, features: int) -> None:
    op = (
        f"f32[2,9,5,{features}] convolution(p0, p1), window={{size=3x3 stride=1x2 pad=1_1x1_1}}, "
        f"dim_labels=b01f_01io->b01f, feature_group_count={groups}"
    )
    check(["f32[2,9,9,12]", f"f32[3,3,{12 // groups},{features}]"], [op])


@pytest.mark.parametrize("features", [8, 64])
def test_batch_groups(features: int) -> None:
    op = (
        f"f32[2,9,7,{features}] convolution(p0, p1), window={{size=3x3 pad=1_1x0_0}}, "
        "dim_labels=b01f_01io->b01f, batch_group_count=4"
    )
    check(["f32[8,9,9,5]", f"f32[3,3,5,{features}]"], [op])


def test_gradient_of_a_kernel() -> None:
    op = "f32[5,5,4,6] convolution(p0, p1), window={size=16x16}, dim_labels=f01b_i01o->01bf"
    check(["f32[3,20,20,4]", "f32[3,16,16,6]"], [op])


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        ("f64", "f64"),
        ("bf16", "bf16"),
        ("bf16", "f32"),
        ("f16", "f16"),
        ("s32", "s32"),
        ("s8", "s32"),
        ("u8", "u8"),
        ("c64", "c64"),
    ],
)
def test_element_types(dtype: str, result: str) -> None:
    check(
        [
            f"{dtype}[2,9,11,6]",
            f"{dtype}[3,2,6,18]",
            f"{dtype}[3,2,1,6]",
            f"{dtype}[1,2,2,1]",
            f"{dtype}[2,2,1,2]",
        ],
        [
            f"{result}[2,9,10,18] convolution(p0, p1), window={{size=3x2 pad=1_1x0_0}}, "
            "dim_labels=b01f_01io->b01f",
            f"{result}[2,9,10,6] convolution(p0, p2), window={{size=3x2 pad=1_1x0_0}}, "
            "dim_labels=b01f_01io->b01f, feature_group_count=6",
            f"{result}[1,1,1,2] convolution(p3, p4), window={{size=2x2}}, dim_labels=b01f_01io->b01f",
        ],
        tolerance=1e-4 if result == "f32" else None,
    )


def test_nothing_to_sum_or_to_compute() -> None:
    check(
        ["f32[0,9,9,5]", "f32[3,3,5,18]", "f32[2,9,9,0]", "f32[3,3,0,18]", "f32[2,0,9,5]"],
        [
            "f32[0,7,7,18] convolution(p0, p1), window={size=3x3}, dim_labels=b01f_01io->b01f",
            "f32[2,7,7,18] convolution(p2, p3), window={size=3x3}, dim_labels=b01f_01io->b01f",
            "f32[2,3,7,18] convolution(p4, p1), window={size=3x3 pad=3_2x0_0}, dim_labels=b01f_01io->b01f",
        ],
    )


def test_rows_too_wide_for_the_cache() -> None:
    check(
        ["f32[1,3,700,32]", "f32[3,3,32,9]"],
        ["f32[1,3,700,9] convolution(p0, p1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"],
    )


def test_groups_with_as_many_outputs_as_features_are_repeated() -> None:
    """Of images as wide as the input: which features they are differs."""
    check(
        ["f32[1,5,14,66]", "f32[2,2,33,2]"],
        ["f32[1,4,13,2] convolution(p0, p1), window={size=2x2}, dim_labels=b01f_01io->b01f, feature_group_count=2"],
    )


def test_images_rows_and_steps_of_every_size() -> None:
    """Strips of images or of rows, blocks of positions, of features and of steps, and what is left of each."""
    check(
        ["f32[11,7,7,9]", "f32[3,3,9,70]", "f32[1,50,21,4]", "f32[3,3,4,18]", "f32[1,3,900,2]", "f32[2,3,2,18]",
         "f32[1,4,5,700]", "f32[3,3,700,9]", "f32[3,1700,3]", "f32[9,3,10]"],
        [
            "f32[11,7,7,70] convolution(p0, p1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
            "f32[1,102,21,18] convolution(p2, p3), window={size=3x3 pad=2_3x1_1 lhs_dilate=2x1}, "
            "dim_labels=b01f_01io->b01f",
            "f32[1,2,898,18] convolution(p4, p5), window={size=2x3}, dim_labels=b01f_01io->b01f",
            "f32[1,4,5,9] convolution(p6, p7), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
            "f32[3,423,10] convolution(p8, p9), window={size=9 stride=4 pad=-3_0}, dim_labels=b0f_0io->b0f",
        ],
    )  # fmt: skip


DEPTHWISE = [
    "3x3 pad=1_1x1_1",
    "3x3 stride=2x1 pad=1_0x1_1",
    "3x2 stride=3x2 pad=0_4x6_0 rhs_reversal=0x1",
    "2x3 pad=1_3x2_2 rhs_dilate=3x2",
    "3x3 pad=40_1x0_1",
    "3x3 pad=0_0x7_9",
    "3x3 pad=1_1x-1_1",
    "4x5 pad=2_1x2_2",
]


@pytest.mark.parametrize("window", DEPTHWISE)
def test_depthwise(window: str) -> None:
    """By vectors of features and single ones, with the kernel in registers or read for each position; of images that
    are read where they lie, some rows and positions at a time, and of others.
    """
    size = window.split()[0].replace("x", ",")
    shape = window_sizes("30,20", f"size={window}")
    labels = "dim_labels=b01f_01io->b01f, feature_group_count=21"
    op = f"f32[2,{shape},21] convolution(p0, p1), window={{size={window}}}, {labels}"
    check(["f32[2,30,20,21]", f"f32[{size},1,21]"], [op])


@pytest.mark.parametrize("width", [1, 2, 3, 5, 9])
def test_depthwise_of_rows_that_are_short(width: int) -> None:
    labels = "dim_labels=b01f_01io->b01f, feature_group_count=10"
    op = f"f32[3,7,{width},10] convolution(p0, p1), window={{size=3x3 pad=1_1x1_1}}, {labels}"
    check([f"f32[3,7,{width},10]", "f32[3,3,1,10]"], [op])


def test_depthwise_takes_padding_as_zeros() -> None:
    """Which are NaN times an infinite weight: at the corners and along two sides, here."""
    labels = "dim_labels=b01f_01io->b01f, feature_group_count=9"
    op = f"f32[1,6,11,9] convolution(p0, p1), window={{size=3x3 pad=1_1x1_1}}, {labels}"
    weights = np.ones((3, 3, 1, 9), np.float32)
    weights[0, 2] = np.inf
    (result,) = check(["f32[1,6,11,9]", "f32[3,3,1,9]"], [op], arguments=[np.ones((1, 6, 11, 9), np.float32), weights])
    assert np.isnan(result[0, 0]).all() and np.isnan(result[0, :, 10]).all()
    assert np.isposinf(result[0, 1:, :10]).all()


LINES = [
    ("f32", "2,3,20", "2,3,5", "size=5", "bf0_oi0->bf0"),
    ("f32", "1,1,9001", "1,1,7", "size=7 pad=9_2 rhs_dilate=3", "bf0_oi0->bf0"),
    ("f64", "3,50,1", "3,1,2", "size=3 pad=1_-2 lhs_dilate=4 rhs_reversal=1", "b0f_0io->b0f"),
    ("f32", "2,3,9,21", "4,3,3,3", "size=3x3 pad=1_1x1_1", "bf01_oi01->bf01"),
    ("f32", "2,9,21,3", "3,2,3,4", "size=3x2 stride=2x3 pad=2_0x-1_4 rhs_dilate=1x2", "b01f_01io->b01f"),
    ("f32", "1,1,7,40", "1,1,3,40", "size=3x40 stride=1x4 pad=1_1x70_3 rhs_dilate=2x1", "bf01_oi01->bf01"),
    ("f64", "1,2,70,80", "2,2,5,5", "size=5x5 pad=2_2x2_2 lhs_dilate=2x2", "bf01_oi01->bf01"),
    ("bf16", "1,2,70,80", "2,2,5,5", "size=5x5 pad=2_2x2_2", "bf01_oi01->bf01"),
    ("f32", "1,2,4,5,12", "3,2,2,3,3", "size=2x3x3 stride=1x2x1 pad=0_1x1_1x1_0", "bf012_oi012->bf012"),
    ("f32", "2,3,2,3,4,10", "2,3,1,2,1,3", "size=1x2x1x3 pad=0_0x1_0x0_0x1_1", "bf0123_oi0123->bf0123"),
]


@pytest.mark.parametrize(("dtype", "x", "kernel", "window", "labels"), LINES)
def test_few_output_features_go_along_lines(dtype: str, x: str, kernel: str, window: str, labels: str) -> None:
    """In strips, with what is left of tiles; alone and with an epilogue that needs them as results, too."""
    spatial = [labels.index(c) for c in labels[: labels.index("_")] if c.isdigit()]
    sizes = x.split(",")
    found = window_sizes(",".join(sizes[d] for d in spatial), window).split(",")
    result = [found[spatial.index(d)] if d in spatial else size for d, size in enumerate(sizes)]
    result[labels.index("f")] = kernel.split(",")[labels[labels.index("_") + 1 :].index("o")]
    shape = f"{dtype}[{','.join(result)}]"
    ops = [f"{shape} convolution(p0, p1), window={{{window}}}, dim_labels={labels}", f"{shape} negate(r0)"]
    check([f"{dtype}[{x}]", f"{dtype}[{kernel}]"], ops)
    check([f"{dtype}[{x}]", f"{dtype}[{kernel}]"], ops[:1])


def test_groups_of_few_features_go_along_lines() -> None:
    op = "f32[1,6,30,33] convolution(p0, p1), window={size=3x3 pad=1_1x1_1}, dim_labels=bf01_oi01->bf01, "
    check(["f32[1,3,30,33]", "f32[6,1,3,3]"], [op + "feature_group_count=3"])


def test_lines_take_what_is_computed() -> None:
    """An image and a kernel that lie nowhere."""
    ops = [
        "f32[1,1,40,40] negate(p0)",
        "f32[1,1,3,3] negate(p1)",
        "f32[1,1,40,40] convolution(r0, r1), window={size=3x3 pad=1_1x1_1}, dim_labels=bf01_oi01->bf01",
    ]
    check(["f32[1,1,40,40]", "f32[1,1,3,3]"], ops)


@pytest.mark.parametrize(
    ("x", "kernel", "window", "is_taken"),
    [
        ("1,1,40,40", "1,1,3,3", "size=3x3", True),
        ("1,40,40,1", "4,1,3,3", "size=3x3", True),
        ("1,40,40,1", "5,1,3,3", "size=3x3", False),
        ("1,40,40,9", "1,9,3,3", "size=3x3", False),
        ("1,1,40,40", "1,1,3,3", "size=3x3 stride=1x5", False),
        ("1,1,40,40", "1,1,3,3", "size=3x3 stride=1x2 lhs_dilate=1x2", False),
        ("1,1,40,9", "1,1,3,3", "size=3x3", False),
    ],
)
def test_which_convolutions_go_along_lines(x: str, kernel: str, window: str, is_taken: bool) -> None:
    """Not with many output features, features side by side, steps between windows, or lines that are short."""
    labels = "bf01" if x.startswith("1,1,") else "b01f"
    dims = x.split(",")
    spatial = window_sizes(",".join(dims[labels.index(c)] for c in "01"), window)
    op = f"f32[1,{kernel.split(',')[0]},{spatial}] convolution(p0, p1), window={{{window}}}"
    module = hloc.parse(program([f"f32[{x}]", f"f32[{kernel}]"], [f"{op}, dim_labels={labels}_oi01->bf01"]))
    (convolution,) = [i for i in module.entry if i.opcode == "convolution"]
    assert ConvolutionPlan(convolution).is_by_lines == is_taken
