"""dot, convolution and reduce in one kernel with what comes before and after them."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import _result_shape, same, value

import hloc
from hloc.options import Options
from hloc.reference.evaluate import evaluate

AS_IT_IS = Options(pipeline="schedule")

ADD = "add_f32 {\n  a = f32[] parameter(0)\n  b = f32[] parameter(1)\n  ROOT r = f32[] add(a, b)\n}\n\n"


def check_fusion(
    parameters: list[str],
    ops: list[str],
    roots: list[str] | None = None,
    tolerance: float | None = None,
) -> None:
    """Compiles a fusion of ops on parameters p0, p1, ... (`name = shape opcode(...)`) as it is, and compares results.

    The results are those of the last op, or of the ops named `roots`.
    """
    shapes = {op.partition(" = ")[0]: _result_shape(op.partition(" = ")[2]) for op in ops}
    result, inside = shapes[[*shapes][-1]], [f"  p{i} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
    inside += [f"  {op}" for op in ops[:-1]] + [f"  {ops[-1]}" if roots else f"  ROOT {ops[-1]}"]
    if roots:
        result = f"({', '.join(shapes[name] for name in roots)})"
        inside.append(f"  ROOT results = {result} tuple({', '.join(roots)})")
    names = ", ".join(f"a{i}" for i in range(len(parameters)))
    outside = [f"  a{i} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
    outside.append(f"  ROOT f = {result} fusion({names}), kind=kOutput, calls=fused")
    bodies = ["\n".join(lines) for lines in (inside, outside)]
    text = f"HloModule m\n\n{ADD}fused {{\n{bodies[0]}\n}}\n\nENTRY main {{\n{bodies[1]}\n}}\n"
    arguments = [value(shape, number) for number, shape in enumerate(parameters)]
    with np.errstate(all="ignore"):
        expected = evaluate(hloc.parse(text), arguments)
    executable = hloc.compile(text, options=AS_IT_IS)
    assert len(executable.program.kernels) == 1, executable.program.kernels
    got = executable.execute(*arguments)
    for number, (one, wanted) in enumerate(zip(got, expected, strict=True)):
        same(one, np.asarray(wanted), tolerance, (number, text))


SIZES = [(4, 5, 6), (1, 300, 70), (3, 70, 300), (70, 1, 90), (130, 70, 65), (97, 200, 600), (64, 64, 64), (7, 129, 40)]


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_bias_and_activation(m: int, n: int, k: int) -> None:
    check_fusion(
        [f"f32[{m},{k}]", f"f32[{k},{n}]", f"f32[{n}]", f"f32[{m},{n}]"],
        [
            f"d = f32[{m},{n}] dot(p0, p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
            f"b = f32[{m},{n}] broadcast(p2), dimensions={{1}}",
            f"s = f32[{m},{n}] add(d, b)",
            f"t = f32[{m},{n}] tanh(s)",
            f"r = f32[{m},{n}] add(t, p3)",
        ],
    )


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("types", ["bf16 bf16 bf16", "f32 f32 bf16", "bf16 f32 f32", "f32 bf16 f32", "s8 s8 s32"])
def test_results_of_another_type(m: int, n: int, k: int, types: str) -> None:
    operand, product, result = types.split()
    check_fusion(
        [f"{operand}[{m},{k}]", f"{operand}[{k},{n}]"],
        [
            f"d = {product}[{m},{n}] dot(p0, p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
            f"s = {product}[{m},{n}] add(d, d)",
            f"r = {result}[{m},{n}] convert(s)",
        ],
        tolerance=3e-2 if "bf16" in (product, result) else None,
    )


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_several_results(m: int, n: int, k: int) -> None:
    check_fusion(
        [f"f32[{k},{m}]", f"f32[{n},{k}]", f"f32[{m}]"],
        [
            f"d = f32[{m},{n}] dot(p0, p1), lhs_contracting_dims={{0}}, rhs_contracting_dims={{1}}",
            f"b = f32[{m},{n}] broadcast(p2), dimensions={{0}}",
            f"s = f32[{m},{n}] multiply(d, b)",
            "zero = f32[] constant(0)",
            f"z = f32[{m},{n}] broadcast(zero), dimensions={{}}",
            f"positive = pred[{m},{n}] compare(s, z), direction=GT",
        ],
        ["s", "positive", "d"],
    )


@pytest.mark.parametrize("size", [3, 33])
def test_moves_behind_a_batch_of_products(size: int) -> None:
    """A reshape and a transpose, as attention has them."""
    check_fusion(
        [f"f32[2,{size},40]", "f32[40,4,8]", "f32[4,8]", f"f32[2,4,{size},8]"],
        [
            f"d = f32[2,{size},4,8] dot(p0, p1), lhs_contracting_dims={{2}}, rhs_contracting_dims={{0}}",
            f"b = f32[2,{size},4,8] broadcast(p2), dimensions={{2,3}}",
            f"s = f32[2,{size},4,8] add(d, b)",
            f"t = f32[2,4,{size},8] transpose(s), dimensions={{0,2,1,3}}",
            f"u = f32[2,4,{size},8] multiply(t, p3)",
            f"r = f32[8,{size},8] reshape(u)",
        ],
    )


@pytest.mark.parametrize("size", [5, 50])
def test_batches(size: int) -> None:
    check_fusion(
        [f"f32[3,{size},20]", f"f32[3,20,{size}]", f"f32[3,{size}]", f"pred[{size},{size}]"],
        [
            f"d = f32[3,{size},{size}] dot(p0, p1), lhs_batch_dims={{0}}, rhs_batch_dims={{0}}, "
            "lhs_contracting_dims={2}, rhs_contracting_dims={1}",
            f"b = f32[3,{size},{size}] broadcast(p2), dimensions={{0,1}}",
            f"s = f32[3,{size},{size}] add(d, b)",
            f"mask = pred[3,{size},{size}] broadcast(p3), dimensions={{1,2}}",
            f"r = f32[3,{size},{size}] select(mask, s, b)",
        ],
    )


@pytest.mark.parametrize("layout", ["0,1", "1,0"])
def test_layouts_of_the_result(layout: str) -> None:
    shape = f"f32[70,50]{{{layout}}}"
    check_fusion(
        ["f32[70,30]", "f32[30,50]", "f32[70,50]"],
        [
            f"d = {shape} dot(p0, p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
            f"r = {shape} add(d, p2)",
        ],
    )


def test_complex_numbers() -> None:
    check_fusion(
        ["c64[40,30]", "c64[30,50]", "c64[50]"],
        [
            "d = c64[40,50] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
            "b = c64[40,50] broadcast(p2), dimensions={1}",
            "r = c64[40,50] multiply(d, b)",
        ],
    )


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_computed_operands(m: int, n: int, k: int) -> None:
    check_fusion(
        [f"f32[{m},{k}]", f"f32[{n},{k}]", f"f32[{k}]"],
        [
            f"b = f32[{m},{k}] broadcast(p2), dimensions={{1}}",
            f"x = f32[{m},{k}] multiply(p0, b)",
            f"y = f32[{n},{k}] negate(p1)",
            f"d = f32[{m},{n}] dot(x, y), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}",
            f"r = f32[{m},{n}] tanh(d)",
        ],
        tolerance=5e-5,  # sums of terms a hundred times as large as they are
    )


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_computed_operands_the_other_way_round(m: int, n: int, k: int) -> None:
    check_fusion(
        [f"f32[{k},{m}]", f"bf16[{k},{n}]", f"f32[{n}]"],
        [
            f"x = f32[{k},{m}] tanh(p0)",
            f"w = f32[{k},{n}] convert(p1)",
            f"b = f32[{k},{n}] broadcast(p2), dimensions={{1}}",
            f"y = f32[{k},{n}] multiply(w, b)",
            f"d = f32[{m},{n}] dot(x, y), lhs_contracting_dims={{0}}, rhs_contracting_dims={{0}}",
        ],
    )


@pytest.mark.parametrize("m", [1, 40])
def test_operands_read_where_they_lie(m: int) -> None:
    """A layer of stacked weights, widened and turned; a strided slice; a row for all."""
    check_fusion(
        [f"f32[{m},60]", "bf16[5,50,30]", "s32[]"],
        [
            "zero = s32[] constant(0)",
            "w = bf16[1,50,30] dynamic-slice(p1, p2, zero, zero), dynamic_slice_sizes={1,50,30}",
            "v = bf16[50,30] reshape(w)",
            "t = bf16[30,50] transpose(v), dimensions={1,0}",
            "u = f32[30,50] convert(t)",
            f"x = f32[{m},30] slice(p0), slice={{[0:{m}], [0:60:2]}}",
            f"d = f32[{m},50] dot(x, u), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
        ],
    )
    check_fusion(
        ["f32[30]", "f32[30,50]"],
        [
            f"b = f32[{m},30] broadcast(p0), dimensions={{1}}",
            f"d = f32[{m},50] dot(b, p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
        ],
    )


@pytest.mark.parametrize("dimensions", ["0", "1"])
@pytest.mark.parametrize("sizes", ["3,5", "200,300"])
def test_reduce_with_an_epilogue(sizes: str, dimensions: str) -> None:
    kept = sizes.split(",")[1 - int(dimensions)]
    check_fusion(
        [f"f32[{sizes}]", f"f32[{kept}]"],
        [
            "zero = f32[] constant(0)",
            f"x = f32[{sizes}] multiply(p0, p0)",
            f"d = f32[{kept}] reduce(x, zero), dimensions={{{dimensions}}}, to_apply=add_f32",
            f"m = f32[{kept}] multiply(d, p1)",
            f"r = f32[{kept},1] reshape(m)",
        ],
        ["r", "d"],
    )


CONVOLUTIONS = {
    "1x1, where it lies": ("2,9,9,8", "1,1,8,20", "1x1", "0_0x0_0", "b01f_01io->b01f", ""),
    "padded": ("2,9,8,5", "3,3,5,7", "3x3", "1_1x1_1", "b01f_01io->b01f", ""),
    "features first": ("2,5,9,8", "7,5,3,3", "3x3", "1_1x1_1", "bf01_oi01->bf01", ""),
    "a group a feature": ("2,9,8,6", "3,3,1,6", "3x3", "1_1x1_1", "b01f_01io->b01f", "feature_group_count=6"),
    "large groups": ("2,9,8,6", "3,3,3,32", "3x3", "1_1x1_1", "b01f_01io->b01f", "feature_group_count=2"),
    "small": ("1,3,3,1", "2,2,1,2", "2x2", "0_0x0_0", "b01f_01io->b01f", ""),
}


@pytest.mark.parametrize("result", ["f32", "bf16"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, result: str) -> None:
    image, kernel, window, pad, labels, groups = CONVOLUTIONS[name]
    sizes, places = image.split(","), labels.partition("_")[0]
    outputs = kernel.split(",")[labels.partition("_")[2].partition("->")[0].index("o")]
    extent = [str(int(sizes[places.index(str(d))]) - int(window[0]) + 1 + 2 * int(pad[0])) for d in (0, 1)]
    by_label = {"b": sizes[places.index("b")], "0": extent[0], "1": extent[1], "f": outputs}
    out = ",".join(by_label[label] for label in places)
    check_fusion(
        [f"f32[{image}]", f"f32[{kernel}]", f"f32[{outputs}]", f"f32[{out}]"],
        [
            f"x = f32[{image}] negate(p0)",
            f"w = f32[{kernel}] multiply(p1, p1)",
            f"c = f32[{out}] convolution(x, w), window={{size={window} pad={pad}}}, dim_labels={labels}"
            + (f", {groups}" if groups else ""),
            f"b = f32[{out}] broadcast(p2), dimensions={{{places.index('f')}}}",
            f"s = f32[{out}] add(c, b)",
            f"t = f32[{out}] maximum(s, p3)",
            f"r = {result}[{out}] convert(t)",
        ],
    )
