"""pad and concatenate: boxes of the output, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check, program, same, value

import hloc
from hloc.options import Options
from hloc.reference.evaluate import evaluate
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


@pytest.mark.parametrize("dimension", [0, 1, 2])
@pytest.mark.parametrize(
    "padding",
    ["1_2x1_1x2_1", "0_0x-7_1x-7_3", "-7_-5x0_0x-9_2", "-8_2x0_0x0_0", "2_-9_1x-1_0x1_-12_2", "-30_1x0_0x0_0"],
)
@pytest.mark.parametrize("layout", ["{2,1,0}", "{1,0,2}"])
def test_pads_a_concatenation(dimension: int, padding: str, layout: str) -> None:
    """The parts go straight to their places, in one kernel: also what padding cuts off, all of a part perhaps."""
    sizes = [[17, 18, 19] for _ in range(3)]
    for part, size in zip(sizes, (6, 8, 9), strict=True):
        part[dimension] = size
    whole = [17, 18, 19]
    whole[dimension] = 23
    out = padded(f"f32[{','.join(map(str, whole))}]", padding)
    if min(map(int, out.split(","))) < 0:
        pytest.skip("there is no such array")
    parts = [f"f32[{','.join(map(str, dims))}]{layout}" for dims in sizes]
    shapes = [*parts, "f32[]"]
    joined = f"f32[{','.join(map(str, whole))}]{layout} concatenate(r0, p1, r1), dimensions={{{dimension}}}"
    ops = [f"{parts[0]} negate(p0)", f"{parts[2]} reverse(p2), dimensions={{0,2}}", joined]
    text = program(shapes, [*ops, f"f32[{out}]{layout} pad(r2, p3), padding={padding}"])
    text = text.replace("ROOT results", "unused").replace("  r3 =", "  ROOT r3 =")
    arguments = [value(shape, number) for number, shape in enumerate(shapes)]
    executable = hloc.compile(text, options=Options(pipeline="dce,fusion", num_threads=2))
    assert len(executable.program.kernels) == 1
    (got,) = executable.execute(*arguments)
    same(got, np.asarray(evaluate(hloc.parse(text), arguments)[0]))
