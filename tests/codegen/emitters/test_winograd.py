"""Convolutions by way of points: sizes, layouts, what is not of one size or not finite, and any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.codegen.compile import emit_stage
from hloc.ir.attributes import WindowDim
from hloc.options import Options

NHWC, NCHW = "b01f_01io->b01f", "bf01_oi01->bf01"


def program(
    image: tuple[int, ...], features: int, window: str = "pad=1_1x1_1", more: str = "", labels: str = NHWC
) -> str:
    """A convolution of images[batch, rows, columns, features] with windows of 3 x 3."""
    batch, *sizes, channels = image
    pads = dict(part.split("=") for part in window.split())["pad"].split("x")
    lows = [tuple(map(int, pad.split("_"))) for pad in pads]
    rows, columns = (WindowDim(3, 1, *pad).output_size(size) for pad, size in zip(lows, sizes, strict=True))
    shapes = [(batch, *sizes, channels), (3, 3, channels, features), (batch, rows, columns, features)]
    if labels == NCHW:
        shapes = [(batch, channels, *sizes), (features, channels, 3, 3), (batch, features, rows, columns)]
    x, k, out = ("f32[{}]".format(",".join(map(str, shape))) for shape in shapes)
    return (
        f"HloModule m\nENTRY e {{\n  x = {x} parameter(0)\n  k = {k} parameter(1)\n"
        f"  ROOT c = {out} convolution(x, k), window={{size=3x3 {window}}}, dim_labels={labels}{more}\n}}\n"
    )


def numbers(text: str) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [
        draw.standard_normal(shape.dims).astype(np.float32)
        for shape in (parameter.shape for parameter in hloc.parse(text).entry.parameters)
    ]


def results(text: str, given: list[np.ndarray], threads: int = 1) -> np.ndarray:
    return hloc.compile(text, options=Options(cache=False, num_threads=threads))(*given)


def is_by_points(text: str) -> bool:
    return "winograd" in emit_stage(hloc.parse(text), "llvm", "cpu", Options(cache=False, num_threads=1))


def check(text: str, given: list[np.ndarray] | None = None) -> None:
    """Results differ from those of doubles by a few roundings of the products that they are sums of."""
    given = numbers(text) if given is None else given
    wide = text.replace("f32[", "f64[")
    expected = hloc.compile(wide, options=Options(cache=False))(*(array.astype(np.float64) for array in given))
    assert is_by_points(text)
    found = results(text, given)
    assert np.abs(found - expected).max() <= 4e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    "text",
    [
        program((1, 14, 14, 64), 64),
        program((2, 13, 15, 32), 96),
        program((3, 17, 11, 16), 32, "pad=0_0x0_0"),
        program((6, 9, 9, 48), 64, "pad=2_1x0_3"),
        program((4, 8, 7, 16), 32, "pad=1_1x1_1 rhs_reversal=1x0"),
        program((2, 20, 10, 32), 32, labels=NCHW),
        program((1, 3, 130, 16), 32, "pad=-1_2x1_1"),
    ],
)
def test_sizes(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        program((1, 8, 8, 16), 32),
        program((1, 14, 14, 24), 32),
        program((1, 14, 14, 16), 24),
        program((1, 14, 14, 16), 32, more=", operand_precision={highest,highest}"),
        program((1, 28, 28, 16), 32, "pad=1_1x1_1 rhs_dilate=1x1").replace("f32[", "f64["),
    ],
    ids=["few positions", "input features", "output features", "precise", "doubles"],
)
def test_others_go_window_by_window(text: str) -> None:
    assert not is_by_points(text)


def test_threads() -> None:
    """Several parts of the features, and images of two strips each: a thread makes a part's weights as needed."""
    text = program((2, 24, 20, 64), 192)
    given = numbers(text)
    expected = results(text, given)
    for threads in (2, 3, 7):
        assert np.array_equal(results(text, given, threads), expected)


def test_small_integers_are_exact() -> None:
    text = program((1, 14, 14, 32), 32)
    given = [np.round(array * 4) for array in numbers(text)]
    expected = hloc.evaluate(hloc.parse(text), *given)
    assert np.array_equal(results(text, given), expected)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e20, 1e4])
def test_what_one_window_has_does_not_show_elsewhere(value: float) -> None:
    """Of results that do not see the place, every one is as near as without it."""
    text = program((1, 14, 14, 16), 32)
    given = numbers(text)
    plain = results(text, given)
    given[0][0, 5, 6, 3] = value
    found, expected = results(text, given), hloc.evaluate(hloc.parse(text), *given)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.array_equal(np.isinf(found), np.isinf(expected))
    away = np.ones_like(found, bool)
    away[:, 4:7, 5:8] = False
    assert np.abs((found - plain)[away]).max() <= 4e-6 * np.abs(plain).max()


@pytest.mark.parametrize(("weight", "scale"), [(np.inf, 1), (np.nan, 1), (1, 1e19)])
def test_results_that_are_not_finite(weight: float, scale: float) -> None:
    """All of their strip are made window by window."""
    given = numbers(program((1, 14, 14, 16), 32))
    given = [array * np.float32(scale) for array in given]
    given[1][1, 2, 3, 4] = weight
    precise = results(program((1, 14, 14, 16), 32, more=", operand_precision={highest,highest}"), given)
    assert not np.isfinite(precise).all()
    assert np.array_equal(results(program((1, 14, 14, 16), 32), given), precise, equal_nan=True)


def test_nothing_but_zeros_in_a_window() -> None:
    """Exactly zero, beside elements of any size."""
    text = program((1, 14, 14, 16), 32)
    given = numbers(text)
    given[0][:, :7] = 0
    assert not results(text, given)[:, :6].any()
