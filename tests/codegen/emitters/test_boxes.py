"""pad and concatenate: boxes of the output, row by row."""

from __future__ import annotations

import pytest
from emitter_cases import check

from hloc.text.parser import parse_shape


def padded(shape: str, padding: str) -> str:
    """The sizes of a padded array."""
    sizes = []
    for size, part in zip(parse_shape(shape).dims, padding.split("x"), strict=True):
        low, high, interior = (*map(int, part.split("_")), 0)[:3]
        sizes.append(low + high + size + max(0, size - 1) * interior)
    return ",".join(map(str, sizes))


@pytest.mark.parametrize(
    "shape",
    ["f32[5,6,7]", "f32[5,6,7]{0,1,2}", "f32[5,6,7]{1,2,0}", "s8[1,6,1]", "f32[2,1,3]"],
)
@pytest.mark.parametrize(
    "padding",
    [
        "0_0x0_0x1_2",
        "1_2x0_0x0_0",
        "0_0x3_1x2_2",
        "2_1x1_1x1_3",
        "0_0x-1_2x0_0",
        "-1_0x4_-2x3_3",
        "7_-9x1_1x1_1",
        "0_0x9_-12x0_0",
        "1_1x2_0_1x0_1",
        "0_0x0_0x0_0_2",
    ],
)
def test_pads(shape: str, padding: str) -> None:
    if any(int(size) < 0 for size in padded(shape, padding).split(",")):
        pytest.skip("there is no such array")
    layout = "{" + shape.split("{")[1] if "{" in shape else ""
    dtype = shape.split("[")[0]
    op = f"{dtype}[{padded(shape, padding)}]{layout} pad(p0, p1), padding={padding}"
    check([shape, f"{dtype}[]"], [op])


@pytest.mark.parametrize("dimension", [0, 1, 2])
@pytest.mark.parametrize("layout", ["{2,1,0}", "{0,1,2}", "{1,2,0}"])
def test_concatenates(dimension: int, layout: str) -> None:
    sizes = [[5, 6, 7] for _ in range(4)]
    for number, size in enumerate((3, 0, 1, 9)):
        sizes[number][dimension] = size
    out = [5, 6, 7]
    out[dimension] = 13
    shapes = [f"f32[{','.join(map(str, dims))}]{layout}" for dims in sizes]
    op = f"f32[{','.join(map(str, out))}]{layout} concatenate(p0, p1, p2, p3), dimensions={{{dimension}}}"
    check(shapes, [op])


def test_concatenates_of_one_row() -> None:
    check(["f32[1,1,5]", "f32[1,1,2]"], ["f32[1,1,7] concatenate(p0, p1), dimensions={2}"])
    check(["f32[0,3,5]", "f32[0,3,2]"], ["f32[0,3,7] concatenate(p0, p1), dimensions={2}"])
