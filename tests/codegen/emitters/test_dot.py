"""dot: plain loops, thin and packed products, every direction, layout and element type."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check, program

from hloc.codegen.dot_plan import DotPlan
from hloc.text.parser import parse


def dot(lhs: str, rhs: str, out: str, numbers: str) -> str:
    """`numbers` is lhs batch, rhs batch, lhs contracting, rhs contracting dimensions, separated by blanks."""
    lb, rb, lc, rc = (part.strip("-") for part in numbers.split())
    batch = f"lhs_batch_dims={{{lb}}}, rhs_batch_dims={{{rb}}}, " if lb else ""
    return f"{out} dot({lhs}, {rhs}), {batch}lhs_contracting_dims={{{lc}}}, rhs_contracting_dims={{{rc}}}"


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 1, 3),
        (1, 1, 5000),
        (1, 70, 33),
        (70, 1, 33),
        (2, 50, 50),
        (50, 3, 50),
        (4, 9, 130),
        (5, 5, 0),
        (0, 5, 5),
        (13, 17, 40),
        (64, 33, 64),
        (33, 65, 300),
        (100, 90, 2),
        (7, 2100, 5),
        (3, 2100, 9),
    ],
)
def test_all_directions(m: int, n: int, k: int) -> None:
    parameters = [f"f32[{m},{k}]", f"f32[{k},{m}]", f"f32[{k},{n}]", f"f32[{n},{k}]"]
    ops = [
        dot(lhs, rhs, f"f32[{m},{n}]", f"- - {lc} {rc}")
        for lhs, lc in (("p0", 1), ("p1", 0))
        for rhs, rc in (("p2", 0), ("p3", 1))
    ]
    check(parameters, ops)


def test_small_products_by_vectors_and_single_columns() -> None:
    """Rows and columns that are no multiples of what is taken together."""
    check(
        ["f32[7,11]", "f32[11,19]", "f32[5,3]", "f32[3,3]", "s32[9,4]", "s32[4,20]"]
        + ["f64[6,6]{0,1}", "f64[6,6]"],
        [
            dot("p0", "p1", "f32[7,19]", "- - 1 0"),
            dot("p2", "p3", "f32[5,3]", "- - 1 0"),
            dot("p4", "p5", "s32[9,20]", "- - 1 0"),
            dot("p6", "p7", "f64[6,6]", "- - 1 0"),
            dot("p6", "p7", "f64[6,6]{0,1}", "- - 1 0"),
        ],
    )


def test_batch_and_several_dimensions() -> None:
    check(
        ["f32[3,10,20]", "f32[3,20,30]", "f32[10,3,20]", "f32[20,30,3]", "f32[2,3,14,15]", "f32[15,14,6,2]"],
        [
            dot("p0", "p1", "f32[3,10,30]", "0 0 2 1"),
            dot("p2", "p3", "f32[3,10,30]", "1 2 2 0"),
            dot("p4", "p5", "f32[2,3,6]", "0 3 2,3 1,0"),
            dot("p4", "p5", "f32[2,3,14,14,6]", "0 3 3 0"),
            dot("p0", "p0", "f32[3,20,3,20]", "- - 1 1"),
        ],
    )


def test_without_contracting_dimensions() -> None:
    check(["f32[20]", "f32[40,3]"], [dot("p0", "p1", "f32[20,40,3]", "- - - -")])


@pytest.mark.parametrize("layout", ["2,1,0", "0,1,2", "1,2,0", "0,2,1"])
def test_layouts(layout: str) -> None:
    check(
        ["f32[3,10,20]{1,0,2}", "f32[3,20,30]{0,2,1}", "f32[10,12,20]{2,0,1}", "f32[20,30]{0,1}"],
        [
            dot("p0", "p1", f"f32[3,10,30]{{{layout}}}", "0 0 2 1"),
            dot("p2", "p3", f"f32[10,12,30]{{{layout}}}", "- - 2 0"),
        ],
    )


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        ("f64", "f64"),
        ("bf16", "bf16"),
        ("bf16", "f32"),
        ("f16", "f16"),
        ("s32", "s32"),
        ("s8", "s32"),
        ("s8", "s8"),
        ("u8", "s32"),
        ("s64", "s64"),
        ("c64", "c64"),
        ("c128", "c128"),
        ("pred", "pred"),
        ("f8e4m3fn", "f32"),
        ("u16", "u16"),
        ("s4", "s32"),
    ],
)
def test_element_types(dtype: str, result: str) -> None:
    """Small, thin with either direction, and packed."""
    check(
        [f"{dtype}[20,30]", f"{dtype}[30,40]", f"{dtype}[3,30]", f"{dtype}[2,200]", f"{dtype}[200,20]"],
        [
            dot("p2", "p2", f"{result}[3,3]", "- - 1 1"),
            dot("p0", "p1", f"{result}[20,40]", "- - 1 0"),
            dot("p0", "p2", f"{result}[20,3]", "- - 1 1"),
            dot("p3", "p4", f"{result}[2,20]", "- - 1 0"),
        ],
        tolerance=1e-4 if result == "f32" else None,
    )


def test_integers_wrap() -> None:
    full = np.full((6, 64), 100, np.int8)
    wide, narrow = check(
        ["s8[6,64]"],
        [dot("p0", "p0", "s32[6,6]", "- - 1 1"), dot("p0", "p0", "s8[6,6]", "- - 1 1")],
        "",
        [full],
    )
    assert (wide == 640000).all() and (narrow == np.int32(640000).astype(np.int8)).all()


@pytest.mark.parametrize(
    ("dtype", "result", "tolerance"),
    [
        ("f32", "f32", 1e-5),
        ("f64", "f64", None),
        ("bf16", "bf16", None),
        ("f16", "f32", 1e-5),
        ("s8", "s32", None),
        ("s32", "s8", None),
        ("c64", "c64", None),
    ],
)
def test_products_larger_than_the_blocks(dtype: str, result: str, tolerance: float | None) -> None:
    """Every direction; whole and partial panels, whole and partial vectors of steps."""
    check(
        [f"{dtype}[131,603]", f"{dtype}[603,131]", f"{dtype}[603,150]", f"{dtype}[150,603]"],
        [
            dot(lhs, rhs, f"{result}[131,150]", f"- - {lc} {rc}")
            for lhs, lc in (("p0", 1), ("p1", 0))
            for rhs, rc in (("p2", 0), ("p3", 1))
        ],
        tolerance=tolerance,
    )


@pytest.mark.parametrize("m", [5, 8])
def test_few_rows_and_a_large_matrix(m: int) -> None:
    """Whole and partial blocks of columns, groups of vectors and of steps; batches; both orders of the left operand."""
    check(
        [f"f32[{m},331]", f"f32[331,{m}]", "f32[331,1056]", "f32[2,331,1056]", f"f32[2,{m},331]"],
        [
            dot("p0", "p2", f"f32[{m},1056]", "- - 1 0"),
            dot("p1", "p2", f"f32[{m},1056]", "- - 0 0"),
            dot("p4", "p3", f"f32[2,{m},1056]", "0 0 2 1"),
        ],
        tolerance=1e-5,
    )
    check([f"s32[{m},331]", "s32[331,1056]"], [dot("p0", "p1", f"s32[{m},1056]", "- - 1 0")])


def test_sums_that_the_result_cannot_hold_are_kept_for_some_rows() -> None:
    check(["bf16[1100,530]", "bf16[530,70]"], [dot("p0", "p1", "bf16[1100,70]", "- - 1 0")])


@pytest.mark.parametrize("k", [40, 512, 513])
@pytest.mark.parametrize(("m", "n"), [(6, 32), (7, 33), (11, 47), (35, 100), (100, 35)])
def test_operands_are_read_in_place_while_they_are_small(m: int, n: int, k: int) -> None:
    """The last tiles overlap those before them."""
    check(
        [f"f32[{m},{k}]", f"f32[{k},{m}]", f"f32[{k},{n}]", f"f32[2,{k},{n}]", f"f32[2,{m},{k}]"],
        [
            dot("p0", "p2", f"f32[{m},{n}]", "- - 1 0"),
            dot("p1", "p2", f"f32[{m},{n}]", "- - 0 0"),
            dot("p4", "p3", f"f32[2,{m},{n}]", "0 0 2 1"),
            dot("p1", "p3", f"f32[{m},2,{n}]", "- - 0 1"),
        ],
        tolerance=1e-5,
    )


@pytest.mark.parametrize("rest", [1, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 47])
def test_the_last_columns_take_narrower_tiles(rest: int) -> None:
    """Of vectors of every target; rows are whole tiles, and all but one row are."""
    n = 96 + rest
    parameters = ["f32[16,700]", "f32[15,700]", f"f32[700,{n}]", f"f32[{n},700]"]
    ops = [dot(p, "p2", f"f32[{m},{n}]", "- - 1 0") for p, m in (("p0", 16), ("p1", 15))]
    check(parameters, [*ops, dot("p0", "p3", f"f32[16,{n}]", "- - 1 1"), dot("p2", "p1", f"f32[{n},15]", "- - 0 1")])


@pytest.mark.parametrize("k", [600, 2048])
@pytest.mark.parametrize("m", [24, 25, 84])
def test_rows_of_a_large_left_operand_are_read_in_place(m: int, k: int) -> None:
    """Block by block, if they are whole tiles and do not displace each other in the caches."""
    parameters = [f"f32[{m},{k}]", f"f32[{k},200]", f"f32[200,{k}]"]
    ops = [dot("p0", "p1", f"f32[{m},200]", "- - 1 0"), dot("p0", "p2", f"f32[{m},200]", "- - 1 1")]
    check(parameters, ops)
    module = parse(program(parameters, ops[:1]))
    assert DotPlan(module.entry.root.operands[0]).reads_rows == (m != 25 and k == 600)


@pytest.mark.parametrize("k", [500, 512])
@pytest.mark.parametrize("m", [101, 163])
def test_rows_that_are_no_whole_tiles_are_read_in_place_if_results_are_stored_once(m: int, k: int) -> None:
    parameters = [f"f32[{m},{k}]", f"f32[{k},200]", f"f64[{m},{k}]", f"f64[{k},200]"]
    ops = [dot("p0", "p1", f"f32[{m},200]", "- - 1 0"), dot("p2", "p3", f"f64[{m},200]", "- - 1 0")]
    check(parameters, ops)
    for op in ops:
        assert DotPlan(parse(program(parameters, [op])).entry.root.operands[0]).reads_rows


def test_elements_of_tuples_lie_in_memory_as_arrays_do() -> None:
    """Equal kernels share their code, so where an operand comes from must not change what they need."""
    module = parse(
        """ENTRY e {
          x = f32[4,4,32,16] parameter(0)
          w = f32[64,4,16] parameter(1)
          t = (f32[4,4,32,16], f32[4]) parameter(2)
          y = f32[4,4,32,16] get-tuple-element(t), index=0
          a = f32[4,32,64] dot(x, w), lhs_contracting_dims={1,3}, rhs_contracting_dims={1,2}
          b = f32[4,32,64] dot(y, w), lhs_contracting_dims={1,3}, rhs_contracting_dims={1,2}
          ROOT s = f32[4,32,64] add(a, b)
        }"""
    )
    plans = [DotPlan(i) for i in module.entry if i.opcode == "dot"]
    assert [plan.lhs.computed for plan in plans] == [False, False]
    assert plans[0].scratch_bytes == plans[1].scratch_bytes


def test_free_dimensions_that_lie_apart_are_gone_through_one_by_one() -> None:
    """Those of either operand or of the result, alone or beside batch dimensions; if enough of them are left."""
    parameters = ["f32[40,24]", "f32[5,24,6,8]", "f32[3,4,24,40]", "f32[5,24,3,3]", "f32[3,40,24]"]
    ops = [
        dot("p0", "p1", "f32[40,5,6,8]", "- - 1 1"),
        dot("p0", "p1", "f32[40,5,6,8]{3,2,0,1}", "- - 1 1"),
        dot("p1", "p0", "f32[5,6,8,40]", "- - 1 1"),
        dot("p2", "p1", "f32[3,4,40,5,6,8]", "- - 2 1"),
        dot("p0", "p3", "f32[40,5,3,3]", "- - 1 1"),
        dot("p4", "p2", "f32[3,40,4,40]", "0 0 2 2"),
    ]
    check(parameters, ops)
    entry = parse(program(parameters, ops)).entry
    plans = [DotPlan(i) for i in entry if i.opcode == "dot"]
    assert [plan.batch for plan in plans] == [(5,), (5,), (5,), (3, 4, 5), (), (3, 4)]
    assert [plan.out.copied for plan in plans] == [False, False, False, False, False, False]


@pytest.mark.parametrize("dtype", ["c64", "c128"])
def test_few_rows_of_complex_numbers(dtype: str) -> None:
    """In both directions of the matrix, on either side of it, and in batches."""
    parameters = [f"{dtype}[3,70]", f"{dtype}[70,90]", f"{dtype}[90,70]", f"{dtype}[70]", f"{dtype}[5,70,90]"]
    ops = [
        dot("p0", "p1", f"{dtype}[3,90]", "- - 1 0"),
        dot("p0", "p2", f"{dtype}[3,90]", "- - 1 1"),
        dot("p2", "p3", f"{dtype}[90]", "- - 1 0"),
        dot("p1", "p3", f"{dtype}[90]", "- - 0 0"),
        dot("p4", "p3", f"{dtype}[5,90]", "- - 1 0"),
    ]
    check(parameters, ops)
    assert all(DotPlan(i).is_thin_complex for i in parse(program(parameters, ops[:4])).entry if i.opcode == "dot")
