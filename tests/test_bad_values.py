"""Values and sizes at the edge: never a crash, never a wrong number, and an error where nothing else is left.

Expectations are the evaluator's. Every program runs through both pipelines.
"""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.arrays import compare
from hloc.errors import HloError
from hloc.ir.dtypes import dtype_named
from hloc.options import Options
from hloc.reference.evaluate import evaluate

PIPELINES = ("cpu", "none")

COMPUTATIONS = """
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] add(a, b) }
largest { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] maximum(a, b) }
less { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = pred[] compare(a, b), direction=LT }
not_less { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = pred[] compare(a, b), direction=GE }
odd { a = f32[] parameter(0)  b = f32[] parameter(1)  n = f32[] negate(b)  ROOT r = f32[] subtract(a, n) }
step {
  x = f32[0] parameter(0)
  c = f32[0] parameter(1)
  s = f32[0] add(x, c)
  ROOT r = (f32[0], f32[0]) tuple(s, s)
}
turned { a = f32[0,3] parameter(0)  ROOT r = f32[3,0] transpose(a), dimensions={1,0} }
"""


def program(lines: list[str]) -> str:
    """An entry of these lines, of which those that begin with `out` are the results."""
    outs = [line.split()[0] for line in lines if line.startswith("out")]
    shapes = [line.split(" = ")[1].split(" ")[0] for line in lines if line.startswith("out")]
    root = f"ROOT results = ({', '.join(shapes)}) tuple({', '.join(outs)})"
    return f"HloModule edge\n{COMPUTATIONS}\nENTRY main {{\n  " + "\n  ".join([*lines, root]) + "\n}\n"


def assert_as_evaluated(text: str, *arguments: object) -> None:
    module = hloc.parse(text)
    expected = evaluate(module, arguments)
    for pipeline in PIPELINES:
        got = hloc.compile(module, options=Options(pipeline=pipeline)).execute(*arguments)
        for number, (result, wanted) in enumerate(zip(got, expected, strict=True)):
            difference = compare(result, wanted)
            assert difference.equal, f"{pipeline}, result {number}: {difference}"


INDEXED = """
x = f32[5,3] parameter(0)
w = f32[5,3] parameter(1)
i = {type}[4] parameter(2)
ii = {type}[4,2] parameter(3)
s = {type}[1] slice(i), slice={{[1:2]}}
k = {type}[] reshape(s)
sk = {type}[1] slice(i), slice={{[2:3]}}
l = {type}[] reshape(sk)
u = f32[2,2] slice(w), slice={{[0:2],[0:2]}}
rows = f32[4,3] slice(w), slice={{[1:5],[0:3]}}
points = f32[4] constant({{1, 2, 3, 4}})
out1 = f32[2,2] dynamic-slice(x, k, l), dynamic_slice_sizes={{2,2}}
out2 = f32[5,3] dynamic-update-slice(x, u, l, k)
out3 = f32[4,3] gather(x, i), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}}, \
index_vector_dim=1, slice_sizes={{1,3}}
out4 = f32[4,2,2] gather(x, ii), offset_dims={{1,2}}, collapsed_slice_dims={{}}, start_index_map={{0,1}}, \
index_vector_dim=1, slice_sizes={{2,2}}
out5 = f32[5,3] scatter(x, i, rows), update_window_dims={{1}}, inserted_window_dims={{0}}, \
scatter_dims_to_operand_dims={{0}}, index_vector_dim=1, to_apply=add
out6 = f32[5,3] scatter(x, ii, points), update_window_dims={{}}, inserted_window_dims={{0,1}}, \
scatter_dims_to_operand_dims={{0,1}}, index_vector_dim=1, to_apply=odd
"""


@pytest.mark.parametrize("kind", ["s8", "s32", "s64", "u8", "u32", "u64"])
def test_indices_out_of_range(kind: str) -> None:
    dtype = dtype_named(kind).numpy
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((5, 3)).astype(np.float32) for _ in range(2)]
    text = program(INDEXED.format(type=kind).strip().splitlines())
    values = [limits.min, limits.max, limits.max - 1, 4, 3, 5, 2, 0]
    for shift in range(0, len(values), 2):
        turned = np.roll(np.array(values, dtype), shift)
        assert_as_evaluated(text, *arrays, turned[:4], turned.reshape(4, 2))


def test_indices_made_from_nan_and_infinity() -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal((5, 3)).astype(np.float32) for _ in range(2)]
    lines = INDEXED.format(type="s32").strip().splitlines()
    lines[2:4] = [
        "fi = f32[4] parameter(2)",
        "fii = f32[4,2] parameter(3)",
        "i = s32[4] convert(fi)",
        "ii = s32[4,2] convert(fii)",
    ]
    values = np.array([np.nan, np.inf, -np.inf, 2.9, -0.5, 1e30, np.nan, 4], np.float32)
    assert_as_evaluated(program(lines), *arrays, values[:4], values.reshape(4, 2))


@pytest.mark.parametrize("chosen", [-(2**31), -1, 0, 1, 2, 3, 2**31 - 1])
def test_branches_out_of_range(chosen: int) -> None:
    text = """HloModule m
    first { x = f32[2] parameter(0)  ROOT r = f32[2] negate(x) }
    second { x = f32[2] parameter(0)  ROOT r = f32[2] add(x, x) }
    third { x = f32[2] parameter(0)  ROOT r = f32[2] multiply(x, x) }
    ENTRY e {
      i = s32[] parameter(0)
      x = f32[2] parameter(1)
      ROOT r = f32[2] conditional(i, x, x, x), branch_computations={first, second, third}
    }"""
    assert_as_evaluated(text, np.int32(chosen), np.array([3, 5], np.float32))


EMPTY = """
x = f32[0,3] parameter(0)
y = f32[0,3] parameter(1)
c = f32[2,0] parameter(2)
q = f32[2,3] parameter(3)
i = s32[0] parameter(4)
one = f32[] constant(1)
n = s32[] constant(0)
p = pred[0,3] compare(x, y), direction=LT
v = f32[0] constant({})
out1 = f32[0,3] add(x, y)
out2 = f32[0,3] select(p, x, y)
out3 = f32[3] reduce(x, one), dimensions={0}, to_apply=add
out4 = f32[0] reduce(x, one), dimensions={1}, to_apply=add
out5 = f32[] reduce(x, one), dimensions={0,1}, to_apply=largest
out6 = f32[3,3] dot(x, y), lhs_contracting_dims={0}, rhs_contracting_dims={0}
out7 = f32[0,0] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={1}
out8 = f32[2,3] dot(c, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
out9 = f32[3,0] transpose(x), dimensions={1,0}
out10 = f32[0,7,3] broadcast(x), dimensions={0,2}
out11 = f32[3,0,5] reshape(x)
out12 = f32[2,3] concatenate(x, q, y), dimensions={0}
out13 = f32[2,3] pad(x, one), padding=1_1x0_0
out14 = f32[0,3] pad(q, one), padding=-1_-1x0_0
out15 = f32[0,3] slice(q), slice={[1:1],[0:3]}
out16 = f32[0,3] reverse(x), dimensions={0}
out17 = f32[0,3] sort(x), dimensions={0}, to_apply=less
out18 = f32[0,3] sort(x), dimensions={1}, to_apply=less
out19 = f32[0,3] dynamic-slice(q, n, n), dynamic_slice_sizes={0,3}
out20 = f32[2,3] dynamic-update-slice(q, x, n, n)
out21 = f32[0,3] gather(q, i), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, \
index_vector_dim=1, slice_sizes={1,3}
out22 = f32[2,3] scatter(q, i, x), update_window_dims={1}, inserted_window_dims={0}, \
scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=add
out23 = f32[0,3] iota(), iota_dimension=1
out24 = f64[0,3] convert(x)
out25 = u8[0,3,4] bitcast-convert(x)
out26 = f32[0,3] reduce-window(x, one), window={size=1x2 pad=0_0x1_0}, to_apply=add
out27 = f32[2,3] reduce-window(x, one), window={size=2x1 pad=2_1x0_0}, to_apply=add
out28 = f32[0,3] select-and-scatter(x, y, one), window={size=1x1}, select=not_less, scatter=add
out29 = f32[0,3] map(x, y), dimensions={0,1}, to_apply=odd
out30 = f32[3,0] call(x), to_apply=turned
out31 = c64[0,2] fft(x), fft_type=RFFT, fft_length={3}
b3 = f32[0,3,3] broadcast(x), dimensions={0,2}
out32 = f32[0,3,3] cholesky(b3), lower=true
out33 = f32[0,3,3] triangular-solve(b3, b3), left_side=true, lower=true, transpose_a=NO_TRANSPOSE
scanned = (f32[3,0], f32[0]) scan(out9, v), dimensions={0}, num_carries=1, to_apply=step
out34 = f32[3,0] get-tuple-element(scanned), index=0
out35 = f32[0,3] clamp(one, x, one)
k3 = f32[3,2,3] broadcast(q), dimensions={1,2}
i3 = f32[0,5,2] broadcast(one), dimensions={}
out36 = f32[0,5,3] convolution(i3, k3), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f
i4 = f32[1,0,2] broadcast(one), dimensions={}
out37 = f32[1,2,3] convolution(i4, k3), window={size=3 pad=2_2}, dim_labels=b0f_0io->b0f
i5 = f32[1,4,0] broadcast(one), dimensions={}
k5 = f32[3,0,3] broadcast(one), dimensions={}
out38 = f32[1,4,3] convolution(i5, k5), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f
top = (f32[0,2], s32[0,2]) topk(x), k=2, largest=true
out39 = s32[0,2] get-tuple-element(top), index=1
top0 = (f32[2,0], s32[2,0]) topk(q), k=0, largest=true
out40 = f32[2,0] get-tuple-element(top0), index=0
out41 = f32[0] dot(x, y), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={1}, \
rhs_contracting_dims={1}
out42 = f32[0,3] copy(x)
out43 = f32[3,0] dot(q, c), lhs_contracting_dims={0}, rhs_contracting_dims={0}
"""


def test_arrays_without_elements() -> None:
    lines = EMPTY.strip().splitlines()
    x = np.zeros((0, 3), np.float32)
    q = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_as_evaluated(program(lines), x, x, np.zeros((2, 0), np.float32), q, np.zeros(0, np.int32))


RANK_8 = """
x = f32[2,1,3,2,1,2,2,3] parameter(0)
y = f32[2,1,3,2,1,2,2,3] parameter(1)
z = f32[] parameter(2)
n = s32[] parameter(3)
out1 = f32[3,2,2,1,2,3,1,2] transpose(x), dimensions={7,6,5,4,3,2,1,0}
out2 = f32[2,1,3,2,1,2,2,3] multiply(x, y)
out3 = f32[2,3,1,2] reduce(x, z), dimensions={1,3,5,7}, to_apply=add
out4 = f32[2,1,3,2,1,2,2,3] reverse(x), dimensions={0,2,5,7}
out5 = f32[1,1,2,1,1,2,1,2] slice(x), slice={[1:2],[0:1],[0:3:2],[1:2],[0:1],[0:2],[0:1],[1:3]}
out6 = f32[2,3,3,2,1,2,4,3] pad(x, z), padding=0_0x1_1x0_0x0_0x0_0x0_0x1_1x0_0
out7 = f32[2,1,3,2,1,2,2,6] concatenate(x, y), dimensions={7}
out8 = f32[2,1,3,2,1,2,2,3] sort(x), dimensions={2}, to_apply=less
out9 = f32[2,1,3,2,1,2,2,2] dot(x, y), lhs_batch_dims={0,1,2,3,4,5}, rhs_batch_dims={0,1,2,3,4,5}, \
lhs_contracting_dims={7}, rhs_contracting_dims={7}
out10 = f32[1,1,2,2,1,2,2,2] dynamic-slice(x, n, n, n, n, n, n, n, n), dynamic_slice_sizes={1,1,2,2,1,2,2,2}
out11 = f32[2,1,3,2,1,2,2,3] broadcast(z), dimensions={}
out12 = f32[6,2,2,6] reshape(x)
out13 = f32[2,1,2,2,1,1,2,3] reduce-window(x, z), window={size=1x1x2x1x1x2x1x1}, to_apply=add
out14 = f32[2,1,3,2,1,2,2,3] iota(), iota_dimension=7
out15 = f32[] add(z, z)
out16 = f32[] reduce(z, z), dimensions={}, to_apply=add
out17 = f32[] transpose(z), dimensions={}
out18 = f32[] slice(z), slice={}
out19 = f32[1,1] reshape(z)
out20 = f32[] dot(z, z), lhs_contracting_dims={}, rhs_contracting_dims={}
out21 = f32[] dynamic-update-slice(z, z)
out22 = f32[] copy(z)
out23 = f32[] reverse(z), dimensions={}
out24 = f32[] map(z, z), dimensions={}, to_apply=odd
"""


def test_rank_0_and_rank_8() -> None:
    lines = RANK_8.strip().splitlines()
    rng = np.random.default_rng(3)
    x, y = (rng.standard_normal((2, 1, 3, 2, 1, 2, 2, 3)).astype(np.float32) for _ in range(2))
    assert_as_evaluated(program(lines), x, y, np.float32(0.5), np.int32(1))


HUGE = {
    "result": ("ROOT r = f32[1099511627776,4] broadcast(z), dimensions={}", "17592186044416 bytes"),
    "beyond_64_bits": ("ROOT r = f32[4611686018427387904,4611686018427387904] broadcast(z), dimensions={}",
                       "does not fit a 64-bit integer"),
    "temporary": (
        "b = f32[8388608,8388608] broadcast(z), dimensions={}\n"
        "t = f32[8388608,8388608] cosine(b)\n"
        "s = f32[8388608,8388608] sort(t), dimensions={0}, to_apply=less\n"
        "d = f32[1,1] slice(s), slice={[5:6],[7:8]}\n"
        "ROOT r = f32[] reshape(d)",
        "bytes",
    ),
}


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("case", HUGE)
def test_what_no_memory_holds_is_an_error_that_tells_the_size(case: str, pipeline: str) -> None:
    lines, message = HUGE[case]
    text = f"HloModule m\n{COMPUTATIONS}\nENTRY e {{\nz = f32[] parameter(0)\n{lines}\n}}"
    with pytest.raises(HloError, match=message):
        hloc.compile(text, options=Options(pipeline=pipeline))(np.float32(1))


def test_a_huge_array_that_is_never_made() -> None:
    text = f"""HloModule m
    {COMPUTATIONS}
    ENTRY e {{
      z = f32[] parameter(0)
      b = f32[65536,65536,1024] broadcast(z), dimensions={{}}
      i = f32[65536,65536,1024] iota(), iota_dimension=2
      s = f32[65536,65536,1024] add(b, i)
      d = f32[1,1,2] slice(s), slice={{[65535:65536],[65535:65536],[1022:1024]}}
      ROOT r = f32[2] reshape(d)
    }}"""
    assert list(hloc.compile(text)(np.float32(0.5))) == [1022.5, 1023.5]


def chain(length: int) -> str:
    """Ops on eight numbers, each on the result of the one before."""
    opcodes = ("add", "multiply", "subtract")
    lines = [f"x{i} = f32[8] {opcodes[i % 3]}(x{i - 1}, y)" for i in range(1, length)]
    lines += [f"ROOT r = f32[8] tanh(x{length - 1})"]
    head = ["x0 = f32[8] parameter(0)", "y = f32[8] parameter(1)"]
    return "HloModule m\nENTRY e {\n" + "\n".join([*head, *lines]) + "\n}"


@pytest.mark.parametrize(("pipeline", "length"), [("cpu", 10_000), ("none", 1_500)])
def test_a_long_chain(pipeline: str, length: int) -> None:
    module = hloc.parse(chain(length))
    x = np.linspace(-1, 1, 8).astype(np.float32)
    y = np.full(8, 0.9, np.float32)
    (got,) = hloc.compile(module, options=Options(pipeline=pipeline)).execute(x, y)
    assert compare(got, evaluate(module, [x, y])[0]).equal


def nested_calls(depth: int) -> str:
    """Computations that each call the one before."""
    bodies = ["call0 { x = f32[4] parameter(0)  ROOT r = f32[4] cosine(x) }"]
    for i in range(1, depth):
        bodies.append(
            f"call{i} {{ x = f32[4] parameter(0)  c = f32[4] call(x), to_apply=call{i - 1}  "
            "ROOT r = f32[4] negate(c) }"
        )
    entry = f"ENTRY e {{ x = f32[4] parameter(0)  ROOT r = f32[4] call(x), to_apply=call{depth - 1} }}"
    return "HloModule m\n" + "\n".join([*bodies, entry])


def test_deep_nesting_of_calls() -> None:
    assert_as_evaluated(nested_calls(1000), np.linspace(0, 1, 4).astype(np.float32))


LOOP = """body{number} {{
  s = (s32[], f32[2]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  one = s32[] constant(1)
  zero = s32[] constant(0)
  x = f32[2] get-tuple-element(s), index=1
  {inside}
  j = s32[] add(i, one)
  ROOT r = (s32[], f32[2]) tuple(j, y)
}}
"""

TEST = """test {
  s = (s32[], f32[2]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  one = s32[] constant(1)
  ROOT c = pred[] compare(i, one), direction=LT
}
"""


def nested_loops(depth: int) -> str:
    """Loops of one turn in each other."""
    inner = (
        "t = (s32[], f32[2]) tuple(zero, x)\n"
        "  w = (s32[], f32[2]) while(t), condition=test, body=body{number}\n"
        "  y = f32[2] get-tuple-element(w), index=1"
    )
    bodies = [LOOP.format(number=0, inside="y = f32[2] cosine(x)")]
    bodies += [LOOP.format(number=i, inside=inner.format(number=i - 1)) for i in range(1, depth)]
    lines = f"x = f32[2] parameter(0)\n  zero = s32[] constant(0)\n  {inner.format(number=depth - 1)}"
    entry = f"ENTRY e {{\n  {lines}\n  ROOT r = f32[2] copy(y)\n}}\n"
    return "HloModule m\n" + TEST + "".join(bodies) + entry


def test_deep_nesting_of_loops() -> None:
    assert_as_evaluated(nested_loops(40), np.array([0.25, 2], np.float32))


def test_a_long_computation_applied_to_elements() -> None:
    lines = ["a0 = f32[] parameter(0)", "b = f32[] parameter(1)"]
    lines += [f"a{i} = f32[] {('maximum', 'minimum')[i % 2]}(a{i - 1}, b)" for i in range(1, 400)]
    reducer = "long {\n" + "\n".join(lines) + "\nROOT r = f32[] maximum(a399, b)\n}"
    entry = """ENTRY e {
      x = f32[40] parameter(0)
      zero = f32[] constant(0)
      ROOT r = f32[] reduce(x, zero), dimensions={0}, to_apply=long
    }"""
    assert_as_evaluated(f"HloModule m\n{reducer}\n{entry}", np.linspace(-3, 2, 40).astype(np.float32))


def mixed(length: int) -> str:
    """A module of about that many instructions: arithmetic, sums, products and moves, on what came before."""
    random = np.random.default_rng(0)
    lines = ["v0 = f32[8,8] parameter(0)", "v1 = f32[8,8] parameter(1)", "zero = f32[] constant(0)"]
    made = 2
    while len(lines) < length:
        last, other = f"v{made - 1}", f"v{made - 1 - random.integers(min(made, 40))}"
        new = f"v{made} = f32[8,8]"
        side = random.integers(2)
        match random.integers(7):
            case 0 | 1 | 2 as which:
                lines += [f"{new} {('add', 'maximum', 'subtract')[which]}({last}, {other})"]
            case 3:
                lines += [f"{new} tanh({last})"]
            case 4:
                lines += [f"{new} transpose({last}), dimensions={{1,0}}"]
            case 5:
                lines += [
                    f"sum{made} = f32[8] reduce({last}, zero), dimensions={{{side}}}, to_apply=add",
                    f"spread{made} = f32[8,8] broadcast(sum{made}), dimensions={{{side}}}",
                    f"{new} tanh(spread{made})",
                ]
            case 6:
                dims = f"lhs_contracting_dims={{{side}}}, rhs_contracting_dims={{0}}"
                lines += [f"dot{made} = f32[8,8] dot({last}, {other}), {dims}", f"{new} tanh(dot{made})"]
        made += 1
    lines.append(f"ROOT r = f32[8,8] tanh(v{made - 1})")
    return f"HloModule m\n{COMPUTATIONS}\nENTRY e {{\n" + "\n".join(lines) + "\n}"


def test_a_large_module() -> None:
    """The kind of module by which times of compiles are measured; they grow with the number of instructions."""
    rng = np.random.default_rng(4)
    assert_as_evaluated(mixed(1500), *(rng.standard_normal((8, 8)).astype(np.float32) for _ in range(2)))


CONVOLUTIONS = {
    "one_feature": ("f32[1,4,1]", "f32[3,1,1]", "f32[1,4,1]", "size=3 pad=1_1", "b0f_0io->b0f", 1),
    "features": ("f32[1,6,6,4]", "f32[3,3,4,8]", "f32[1,6,6,8]", "size=3x3 pad=1_1x1_1", "b01f_01io->b01f", 11),
    "by_feature": (
        "f32[1,6,6,4]", "f32[3,3,1,4]", "f32[1,6,6,4]", "size=3x3 pad=1_1x1_1",
        "b01f_01io->b01f, feature_group_count=4", 11,
    ),
    "padding_alone": ("f32[1,6,6,4]", "f32[1,1,4,8]", "f32[1,8,8,8]", "size=1x1 pad=1_1x1_1", "b01f_01io->b01f", 28),
    "strides": (
        "f32[1,6,6,4]", "f32[3,3,4,8]", "f32[1,3,3,8]", "size=3x3 pad=1_1x1_1 stride=2x2", "b01f_01io->b01f", 5,
    ),
    "between_elements": ("f32[1,5,1]", "f32[3,1,1]", "f32[1,9,1]", "size=3 pad=1_1 lhs_dilate=2", "b0f_0io->b0f", 5),
    "of_groups": ("f32[4,6,2]", "f32[3,2,4]", "f32[2,6,4]", "size=3 pad=1_1", "b0f_0io->b0f, batch_group_count=2", 2),
}  # fmt: skip
"""Operands, result, window, the rest, and how many elements of the result are NaN."""


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_padding_times_infinity_is_nan(case: str) -> None:
    """As in XLA, but for dilated inputs and groups of batches, where XLA's own loops pass padding by."""
    x, kernel, result, window, rest, nans = CONVOLUTIONS[case]
    text = f"""HloModule m
    ENTRY e {{
      x = {x} parameter(0)
      k = {kernel} parameter(1)
      ROOT r = {result} convolution(x, k), window={{{window}}}, dim_labels={rest}
    }}"""
    rng = np.random.default_rng(5)
    shapes = [parameter.shape.dims for parameter in hloc.parse(text).entry.parameters]
    arrays = [rng.uniform(1, 2, dims).astype(np.float32) for dims in shapes]
    arrays[1].flat[0] = np.inf
    assert np.isnan(hloc.evaluate(text, *arrays)).sum() == nans
    assert_as_evaluated(text, *arrays)


FLUSHED = (
    "exponential-minus-one", "log-plus-one", "sine", "tan", "asin", "asinh", "atan2", "atanh", "cbrt", "erf", "tanh",
)  # fmt: skip


@pytest.mark.parametrize(("kind", "tiny", "least"), [("f32", 1e-40, 2.0**-126), ("f64", 1e-310, 2.0**-1022)])
def test_elementary_functions_take_denormals_for_zeros(kind: str, tiny: float, least: float) -> None:
    """XLA's sine, tan, tanh and exponential-minus-one give them back; its log-plus-one does not."""
    one = f"one = {kind}[6] broadcast(c), dimensions={{}}"
    lines = ["HloModule m", "ENTRY e {", f"x = {kind}[6] parameter(0)", f"c = {kind}[] constant(1)", one]
    for number, opcode in enumerate(FLUSHED):
        lines.append(f"r{number} = {kind}[6] {opcode}({'x, one' if opcode == 'atan2' else 'x'})")
    names = ", ".join(f"r{number}" for number in range(len(FLUSHED)))
    text = "\n".join([*lines, f"ROOT r = ({', '.join([f'{kind}[6]'] * len(FLUSHED))}) tuple({names})", "}"])
    x = np.array([tiny, -tiny, least, -least, 0, -0.0], dtype_named(kind).numpy)
    for pipeline in PIPELINES:
        for opcode, result in zip(FLUSHED, hloc.compile(text, options=Options(pipeline=pipeline))(x), strict=True):
            assert list(result[[0, 1, 4, 5]]) == [0, 0, 0, 0], opcode
            assert list(np.signbit(result)) == [False, True] * 3, opcode
            assert result[2] == -result[3] and 0 < result[2] < 1e-10, opcode


def test_the_least_power_of_two_in_f8e8m0() -> None:
    """2**-127 is a denormal of f32 and bf16: conversions keep it, as XLA's do."""
    lines = ["HloModule m", "ENTRY e {", "x = f8e8m0fnu[4] parameter(0)", "y = f32[7] parameter(1)",
             "wide = f32[4] convert(x)", "half = bf16[4] convert(x)", "code = f8e8m0fnu[7] convert(y)",
             "bits = u8[7] bitcast-convert(code)", "ROOT r = (f32[4], bf16[4], u8[7]) tuple(wide, half, bits)", "}"]
    x = np.array([0, 1, 127, 255], np.uint8).view(dtype_named("f8e8m0fnu").numpy)
    y = np.array([2.0**-127, 2.0**-128, 1.5 * 2.0**-127, 2.0**-126, 2.0**-149, 0, -1], np.float32)
    text = "\n".join(lines)
    assert_as_evaluated(text, x, y)
    wide, half, bits = hloc.compile(text)(x, y)
    assert list(wide[:3]) == [2.0**-127, 2.0**-126, 1.0] and np.isnan(wide[3])
    assert [float(v) for v in half[:3]] == [2.0**-127, 2.0**-126, 1.0]
    assert list(bits) == [0, 0, 1, 1, 0, 255, 255]


def test_square_root_below_the_cut() -> None:
    """Of -1 - 0i it is +i, as XLA gives; in C it is -i."""
    text = "HloModule m\nENTRY e { x = c64[3] parameter(0)  ROOT r = c64[3] sqrt(x) }"
    x = np.array([complex(-1, -0.0), complex(-1, 0.0), complex(-4, -0.0)], np.complex64)
    assert list(hloc.evaluate(text, x)) == [1j, 1j, 2j]
    assert_as_evaluated(text, x)
