"""scatter and dynamic-update-slice on a device: atomics, updates in order, windows that overlap or are dropped."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import EMULATED, NONE, assembles, check_device, computation, program, value

import hloc
from hloc.codegen.gpu import ordered_updates
from hloc.reference.evaluate import evaluate

ROWS = "update_window_dims={1}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1"
PLACES = "update_window_dims={}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1"
OVERLAPPING = "update_window_dims={1}, inserted_window_dims={}, scatter_dims_to_operand_dims={0}, index_vector_dim=1"
SECOND = "f {\n  a = f32[] parameter(0)\n  ROOT b = f32[] parameter(1)\n}\n\n"


def integers(low: int, high: int, shape: tuple[int, ...], dtype: type = np.int32) -> np.ndarray:
    return np.random.default_rng(2).integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize(
    ("opcode", "count"), [("add", 9), ("add", 700), ("add", 2500), ("multiply", 700), ("maximum", 9)]
)
def test_rows_of_floats(opcode: str, count: int) -> None:
    """Those out of range are dropped; sums are made in the order of the updates, whose number decides on the way."""
    op = f"f32[10,4] scatter(p0, p1, p2), {ROWS}, to_apply=f"
    updates = value(f"f32[{count},4]", 1) / (1 if opcode != "multiply" else 4) + (opcode == "multiply")
    arguments = [value("f32[10,4]"), integers(-2, 12, (count, 1)), updates.astype(np.float32)]
    body = computation("f", opcode, "f32")
    check_device(["f32[10,4]", f"s32[{count},1]", f"f32[{count},4]"], [op], body, arguments)


@pytest.mark.parametrize("dtype", ["s32", "u64", "s8"])
def test_integers(dtype: str) -> None:
    opcodes = ["add", "multiply", "maximum", "minimum", "and", "xor"]
    ops = [f"{dtype}[6] scatter(p0, p1, p2), {PLACES}, to_apply={opcode}s" for opcode in opcodes]
    bodies = "".join(computation(f"{opcode}s", opcode, dtype) for opcode in opcodes)
    arguments = [value(f"{dtype}[6]"), integers(-1, 8, (90, 1)), value(f"{dtype}[90]", 1)]
    check_device([f"{dtype}[6]", "s32[90,1]", f"{dtype}[90]"], ops, bodies, arguments)


@pytest.mark.parametrize("dtype", ["f64", "bf16", "c64", "pred"])
def test_other_types(dtype: str) -> None:
    opcode = "or" if dtype == "pred" else "add"
    op = f"{dtype}[6] scatter(p0, p1, p2), {PLACES}, to_apply=f"
    arguments = [value(f"{dtype}[6]"), integers(-1, 8, (40, 1)), value(f"{dtype}[40]", 1)]
    body = computation("f", opcode, dtype)
    check_device([f"{dtype}[6]", "s32[40,1]", f"{dtype}[40]"], [op], body, arguments)


@pytest.mark.parametrize("opcode", ["maximum", "minimum"])
def test_extremes_of_zeros_and_nans(opcode: str) -> None:
    numbers = np.array([0.0, -0.0, np.nan, 1.0, -np.inf] * 20, np.float32)
    op = f"f32[7] scatter(p0, p1, p2), {PLACES}, to_apply=f"
    arguments = [-np.zeros(7, np.float32), integers(0, 7, (100, 1)), np.random.default_rng(3).permutation(numbers)]
    text = program(["f32[7]", "s32[100,1]", "f32[100]"], [op], computation("f", opcode, "f32"))
    (got,) = hloc.compile(text, EMULATED, NONE).execute(*arguments)
    (expected,) = evaluate(hloc.parse(text), arguments)
    assert np.array_equal(got, expected, equal_nan=True)
    assert np.array_equal(np.signbit(got[got == 0]), np.signbit(expected[got == 0]))


@pytest.mark.parametrize("count", [8, 300])
@pytest.mark.parametrize("opcode", ["add", "subtract"])
def test_windows_that_overlap(opcode: str, count: int) -> None:
    """Windows over the edge are dropped as a whole; subtraction is no operation that is known."""
    op = f"f32[20] scatter(p0, p1, p2), {OVERLAPPING}, to_apply=f"
    arguments = [value("f32[20]"), integers(-1, 20, (count, 1)), value(f"f32[{count},3]", 1)]
    body = computation("f", opcode, "f32")
    check_device(["f32[20]", f"s32[{count},1]", f"f32[{count},3]"], [op], body, arguments)


def test_windows_of_two_dimensions() -> None:
    op = (
        "f32[10,6]{0,1} scatter(p0, p1, p2), update_window_dims={1,2}, inserted_window_dims={}, "
        "scatter_dims_to_operand_dims={1,0}, index_vector_dim=1, to_apply=f"
    )
    arguments = [value("f32[10,6]{0,1}"), integers(-1, 9, (8, 2)), value("f32[8,3,2]", 1)]
    check_device(["f32[10,6]{0,1}", "s32[8,2]", "f32[8,3,2]"], [op], computation("f", "add", "f32"), arguments)


def test_batching_dimensions_and_unsigned_indices() -> None:
    op = (
        "f32[3,10,6]{0,2,1} scatter(p0, p1, p2), update_window_dims={2}, inserted_window_dims={1}, "
        "scatter_dims_to_operand_dims={1}, input_batching_dims={0}, scatter_indices_batching_dims={1}, "
        "index_vector_dim=2, to_apply=f"
    )
    arguments = [value("f32[3,10,6]{0,2,1}"), integers(0, 12, (60, 3, 1), np.uint8), value("f32[60,3,2]", 1)]
    shapes = ["f32[3,10,6]{0,2,1}", "u8[60,3,1]", "f32[60,3,2]"]
    check_device(shapes, [op], computation("f", "add", "f32"), arguments)


def test_several_operands() -> None:
    body = """f {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  s = f32[] add(a, b)
  t = s32[] subtract(i, j)
  ROOT r = (f32[], s32[]) tuple(s, t)
}

"""
    op = f"(f32[9], s32[9]) scatter(p0, p1, p2, p3, p4), {PLACES}, to_apply=f"
    shapes = ["f32[9]", "s32[9]", "s32[12,1]", "f32[12]", "s32[12]"]
    arguments = [value(shape, n) for n, shape in enumerate(shapes)]
    arguments[2] = integers(0, 10, (12, 1))
    check_device(shapes, [op], body, arguments)


@pytest.mark.parametrize("count", [50, 1000])
def test_the_last_of_equal_places_wins(count: int) -> None:
    op = f"f32[4] scatter(p0, p1, p2), {PLACES}, to_apply=f"
    arguments = [np.zeros(4, np.float32), integers(0, 5, (count, 1)), np.arange(count, dtype=np.float32)]
    check_device(["f32[4]", f"s32[{count},1]", f"f32[{count}]"], [op], SECOND, arguments)


@pytest.mark.parametrize(("count", "rows"), [(641, 1), (1000, 700)])
def test_runs_are_folded_in_parts(count: int, rows: int) -> None:
    """Runs within a part, over the ends of parts, and over several parts; exact in integers that have no atomics."""
    op = f"s16[{rows},3] scatter(p0, p1, p2), {ROWS}, to_apply=f"
    arguments = [value(f"s16[{rows},3]"), integers(-1, rows + 1, (count, 1)), value(f"s16[{count},3]", 1)]
    shapes = [f"s16[{rows},3]", f"s32[{count},1]", f"s16[{count},3]"]
    check_device(shapes, [op], computation("f", "add", "s16"), arguments)


def test_very_many_updates_are_sorted_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    places = 3000
    monkeypatch.setattr(ordered_updates, "RADIX_LEAST", 1)
    op = f"f32[{places}] scatter(p0, p1, p2), {PLACES}, to_apply=f"
    arguments = [value(f"f32[{places}]"), integers(-1, places + 1, (5000, 1)), value("f32[5000]", 1)]
    shapes = [f"f32[{places}]", "s32[5000,1]", "f32[5000]"]
    check_device(shapes, [op], computation("f", "subtract", "f32"), arguments)


def test_unique_indices_and_fused_operands() -> None:
    op = f"f32[40] scatter(p0, r0, r1), {PLACES}, unique_indices=true, to_apply=f"
    ops = ["s32[30,1] subtract(p1, p3)", "f32[30] negate(p2)", op]
    order = np.random.default_rng(4).permutation(45)[:30].astype(np.int32)[:, None]
    text = program(["f32[40]", "s32[30,1]", "f32[30]", "s32[30,1]"], ops, computation("f", "add", "f32"))
    arguments = [value("f32[40]"), order, value("f32[30]", 1), np.full((30, 1), 2, np.int32)]
    for options in (NONE, None):
        got = hloc.compile(text, EMULATED, options).execute(*arguments)[2]
        np.testing.assert_array_equal(got, evaluate(hloc.parse(text), arguments)[2])


def test_a_single_window() -> None:
    """Its elements cannot meet: a launch that needs neither order nor atomics."""
    op = f"f32[10,4] scatter(p0, p1, p2), {ROWS}, to_apply=f"
    text = program(["f32[10,4]", "s32[1,1]", "f32[1,4]"], [op], computation("f", "subtract", "f32"))
    assert len(hloc.compile(text, EMULATED, NONE).program.kernels) == 1
    for row in (3, 10):
        arguments = [value("f32[10,4]"), np.full((1, 1), row, np.int32), value("f32[1,4]", 1)]
        check_device(["f32[10,4]", "s32[1,1]", "f32[1,4]"], [op], computation("f", "subtract", "f32"), arguments)


def test_without_updates() -> None:
    op = f"f32[10,4] scatter(p0, p1, p2), {ROWS}, to_apply=f"
    check_device(["f32[10,4]", "s32[0,1]", "f32[0,4]"], [op], computation("f", "add", "f32"))


@pytest.mark.parametrize("layout", ["1,0", "0,1"])
def test_dynamic_update_slice(layout: str) -> None:
    """Starts are clamped."""
    shape, part = f"f32[9,7]{{{layout}}}", f"f32[3,5]{{{layout}}}"
    ops = [
        f"{shape} dynamic-update-slice(p0, p1, p2, p3)",
        f"{part} negate(p1)",
        f"{shape} dynamic-update-slice(r0, r1, p3, p2)",
    ]
    for row, column in ((2, 1), (-4, 9)):
        arguments = [value(shape), value(part, 1), np.int32(row), np.int32(column)]
        check_device([shape, part, "s32[]", "s32[]"], ops, "", [np.asarray(a) for a in arguments])


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_assemble_without_spills(arch: str) -> None:
    shapes = ["f32[1000,64]", "s32[9000,1]", "f32[9000,64]", "s64[99]", "s64[9000]"]
    ops = [
        f"f32[1000,64] scatter(p0, p1, p2), {ROWS}, to_apply=f",
        f"f32[1000,64] scatter(p0, p1, p2), {ROWS}, to_apply=m",
        f"s64[99] scatter(p3, p1, p4), {PLACES}, to_apply=i",
    ]
    bodies = computation("f", "add", "f32") + computation("m", "maximum", "f32") + computation("i", "multiply", "s64")
    assembles(program(shapes, ops, bodies), arch)
