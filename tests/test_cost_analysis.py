"""Arithmetic and bytes of programs, beside what a count by hand gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import hloc
from hloc.analysis.flops import positions
from hloc.analysis.traffic import most_read, traffic
from hloc.cli import main
from hloc.ir.attributes import WindowDim

SAMPLES = Path(__file__).parent.parent / "samples"


def cost(text: str):
    return hloc.cost_analysis("HloModule m\n" + text, None)


def entry(lines: str):
    return cost("sum { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT s = f32[] add(a, b) }\nENTRY e {\n"
                + lines + "\n}")


@pytest.mark.parametrize(
    ("lines", "flops", "transcendentals", "integer_ops"),
    [
        ("p = f32[8,9] parameter(0)  ROOT r = f32[8,9] add(p, p)", 72, 0, 0),
        ("p = s32[8,9] parameter(0)  ROOT r = s32[8,9] add(p, p)", 0, 0, 72),
        ("p = f32[8,9] parameter(0)  ROOT r = f32[8,9] tanh(p)", 0, 72, 0),
        ("p = c64[10] parameter(0)  ROOT r = c64[10] multiply(p, p)", 60, 0, 0),
        ("p = c64[10] parameter(0)  ROOT r = c64[10] exponential(p)", 0, 20, 0),
        ("p = f32[8] parameter(0)  ROOT r = pred[8] compare(p, p), direction=LT", 8, 0, 0),
        ("p = f32[8] parameter(0)  ROOT r = bf16[8] convert(p)", 0, 0, 0),
        ("p = f32[8,9] parameter(0)  z = f32[] constant(0)  "
         "ROOT r = f32[8] reduce(p, z), dimensions={1}, to_apply=sum", 64, 0, 0),
        ("a = f32[2,3,4] parameter(0)  b = f32[2,4,5] parameter(1)  ROOT r = f32[2,3,5] dot(a, b), "
         "lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}", 240, 0, 0),
        ("a = c64[3,4] parameter(0)  b = c64[4,5] parameter(1)  ROOT r = c64[3,5] dot(a, b), "
         "lhs_contracting_dims={1}, rhs_contracting_dims={0}", 480, 0, 0),
        ("x = f32[1,5,2] parameter(0)  k = f32[3,2,7] parameter(1)  ROOT r = f32[1,5,7] convolution(x, k), "
         "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f", 2 * 13 * 2 * 7, 0, 0),
        ("x = f32[1,5,4] parameter(0)  k = f32[1,2,4] parameter(1)  ROOT r = f32[1,5,4] convolution(x, k), "
         "window={size=1}, dim_labels=b0f_0io->b0f, feature_group_count=2", 2 * 5 * 2 * 4, 0, 0),
        ("p = f32[6] parameter(0)  z = f32[] constant(0)  ROOT r = f32[6] reduce-window(p, z), "
         "window={size=3 pad=1_1}, to_apply=sum", 16 - 6, 0, 0),
        ("p = f32[16] parameter(0)  ROOT r = c64[9] fft(p), fft_type=RFFT, fft_length={16}", 5 * 16 * 4 / 2, 0, 0),
        ("p = f32[6,6] parameter(0)  ROOT r = f32[6,6] cholesky(p)", 72, 0, 0),
    ],
)  # fmt: skip
def test_counts_the_arithmetic_of_an_op(lines, flops, transcendentals, integer_ops):
    found = entry(lines)
    assert (found.flops, found.transcendentals, found.integer_ops) == (flops, transcendentals, integer_ops)


@pytest.mark.parametrize(
    "dim",
    [
        WindowDim(3),
        WindowDim(3, 2, 1, 1),
        WindowDim(2, 1, 3, 3),
        WindowDim(3, 1, 2, 2, base_dilation=2),
        WindowDim(3, 3, 2, 1, base_dilation=2, window_dilation=2),
        WindowDim(5, 1, 4, 0),
        WindowDim(3, 1, 1, 6),
        WindowDim(9, 1, -2, 8),
        WindowDim(4, 2, -1, -2, base_dilation=3),
        WindowDim(2, 4, 0, 5, base_dilation=6, window_dilation=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("base", [1, 4, 9])
def test_counts_the_window_positions_on_elements(dim, base):
    output = dim.output_size(base)
    places = [
        out * dim.stride + tap * dim.window_dilation - dim.pad_low for out in range(output) for tap in range(dim.size)
    ]
    inside = [at for at in places if 0 <= at <= (base - 1) * dim.base_dilation and at % dim.base_dilation == 0]
    assert positions(dim, base, output) == len(inside)


LOOP = """body { i = s32[] parameter(0)  one = s32[] constant(1)  ROOT j = s32[] add(i, one) }
condition { i = s32[] parameter(0)  n = s32[] constant(7)  ROOT c = pred[] compare(i, n), direction=LT }
ENTRY e { START  ROOT w = s32[] while(zero), condition=condition, body=body }"""


def test_a_loop_counts_as_often_as_it_turns():
    found = cost(LOOP.replace("START", "zero = s32[] constant(0)"))
    assert (found.integer_ops, found.kernels, found.unknown_loops) == (7 + 8, 15, ())


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    found = cost(LOOP.replace("START", "zero = s32[] parameter(0)"))
    assert (found.integer_ops, found.unknown_loops) == (1 + 2, ("w",))


def test_of_branches_the_most_costly_counts():
    found = cost("""yes { p = f32[8] parameter(0)  a = f32[8] sine(p)  ROOT r = f32[8] negate(a) }
    no { p = f32[8] parameter(0)  ROOT a = f32[8] negate(p) }
    ENTRY e {
      c = pred[] parameter(0)
      p = f32[8] parameter(1)
      ROOT r = f32[8] conditional(c, p, p), true_computation=yes, false_computation=no
    }""")
    assert (found.flops, found.transcendentals, found.bytes_accessed) == (8, 8, 128)
    assert [row.times for row in found.instructions] == [1, 1, 0]


def test_gathers_slices_and_updates_move_what_they_touch():
    found = entry("""p = f32[1000,4] parameter(0)
    i = s32[3,1] parameter(1)
    g = f32[3,4] gather(p, i), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=1,
      slice_sizes={1,4}
    s = s32[] constant(5)
    z = s32[] constant(0)
    d = f32[2,4] dynamic-slice(p, s, z), dynamic_slice_sizes={2,4}
    u = f32[1000,4] dynamic-update-slice(p, d, s, z)
    ROOT t = (f32[3,4], f32[1000,4]) tuple(g, u)""")
    assert [row.bytes_accessed for row in found.instructions] == [48 + 12 + 48, 32 + 32, 32 + 32]


def test_a_fused_op_counts_as_far_as_it_is_needed():
    found = cost("""f { p = f32[100] parameter(0)  t = f32[100] tanh(p)  ROOT s = f32[25] slice(t), slice={[0:25]} }
    ENTRY e { p = f32[100] parameter(0)  ROOT f = f32[25] fusion(p), kind=kLoop, calls=f }""")
    assert (found.transcendentals, found.bytes_accessed) == (25, 200)


def test_names_the_custom_calls_it_knows_nothing_of():
    found = entry('p = f32[8] parameter(0)  ROOT c = f32[8] custom-call(p), custom_call_target="mine"')
    assert found.opaque_calls == ("c",)


def test_an_executable_and_the_command_say_the_same(tmp_path):
    text = "HloModule m\nENTRY e { p = f32[64] parameter(0)  t = f32[64] tanh(p)  ROOT r = f32[64] add(t, p) }"
    path = tmp_path / "m.hlo"
    path.write_text(text)
    found = hloc.compile(text).cost_analysis()
    assert (found.kernels, found.flops, found.transcendentals, found.bytes_accessed) == (1, 64, 64, 512)
    printed = json.loads(CliRunner().invoke(main, ["cost", str(path), "--json"]).output)
    assert printed["flops"] == 64
    assert printed["instructions"][0]["bytes_accessed"] == 512
    table = CliRunner().invoke(main, ["cost", str(path), "--as-is"]).output
    assert "in total" in table and " r" in table


def test_windows_of_all_that_came_before_are_counted_at_once():
    size = 1 << 40
    assert positions(WindowDim(size, 1, size - 1, 0), size, size) == size * (size + 1) // 2


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.hlo")), ids=lambda path: path.stem)
def test_no_kernel_reads_more_than_the_most_it_may(path):
    module = hloc.optimize(path)
    kernels = [i for i in module.instructions() if i.opcode not in ("parameter", "constant")]
    for instruction in kernels:
        moved = traffic(instruction)
        assert sum(moved.operands) + moved.constants <= most_read(instruction)
