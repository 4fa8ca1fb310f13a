"""Shapes and layouts as text: rows T and S of the language."""

from __future__ import annotations

import pytest

from hloc.errors import HloError
from hloc.ir import dtypes
from hloc.ir.shapes import COMBINED, UNBOUNDED, ArrayShape, BufferShape, Layout, SplitConfig, TupleShape
from hloc.text.parser import parse_shape


def f32(*dims: int, dynamic: tuple[bool, ...] = (), **layout: object) -> ArrayShape:
    order = layout.pop("order", tuple(range(len(dims) - 1, -1, -1)))
    return ArrayShape(dtypes.F32, dims, Layout(order, **layout), dynamic)


@pytest.mark.parametrize("text, shape", [
    ("f32[]", f32()),
    ("f32[4]", f32(4)),
    ("f32[2,3]{0,1}", f32(2, 3, order=(0, 1))),
    (" f32 [ 2 , 3 ] /*c*/ { 1 , 0 } ", f32(2, 3)),
    ("f32[0,2]", f32(0, 2)),
    ("f32[<=4,8]", f32(4, 8, dynamic=(True, False))),
    ("f32[?,8]", f32(UNBOUNDED, 8, dynamic=(True, False))),
    ("f32[8,128]{1,0:T(8,128)(2,1)}", f32(8, 128, tiles=((8, 128), (2, 1)))),
    ("f32[8,128]{1,0:T(*,128)}", f32(8, 128, tiles=((COMBINED, 128),))),
    ("f32[]{:T(128)}", f32(tiles=((128,),))),
    ("f32[8]{0:L(1024)}", f32(8, tail_padding_alignment=1024)),
    ("f32[8]{0:#(u8)*(u16)}", f32(8, index_type=dtypes.U8, pointer_type=dtypes.U16)),
    ("f32[8]{0:E(4)}", f32(8, element_bits=4)),
    ("f32[8]{0:S(5)}", f32(8, memory_space=5)),
    ("f32[8]{0:S(0)}", f32(8)),
    ("f32[8,8]{1,0:SC(1:3,4)(0:2)}", f32(8, 8, split_configs=(SplitConfig(1, (3, 4)), SplitConfig(0, (2,))))),
    ("f32[8]{0:M(4)}", f32(8, dynamic_prefix_bytes=4)),
    ("f32[8,8,8,8]{3,2,1,0:D(D,C+~,S,H)}", f32(8, 8, 8, 8)),
    ("f32[8]{0:T(8)L(16)E(32)S(1)SC(0:2)M(4)}",
     f32(8, tiles=((8,),), tail_padding_alignment=16, element_bits=32, memory_space=1,
         split_configs=(SplitConfig(0, (2,)),), dynamic_prefix_bytes=4)),
    ("token[]", ArrayShape(dtypes.TOKEN)),
    ("opaque[]", ArrayShape(dtypes.OPAQUE)),
    ("()", TupleShape()),
    ("((), (f32[4], /*index=1*/token[]))", TupleShape((TupleShape(), TupleShape((f32(4), ArrayShape(dtypes.TOKEN)))))),
    ("b(f32[4]{0})", BufferShape(f32(4))),
])  # fmt: skip
def test_shapes(text: str, shape: object) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("dtype", [dtype.name for dtype in dtypes.ALL if dtype.is_array_element])
def test_every_element_type(dtype: str) -> None:
    assert parse_shape(f"{dtype}[3]").dtype.name == dtype


@pytest.mark.parametrize("text, message, column", [
    ("tf32[2]", "unknown element type 'tf32'", 1),
    ("f32[-1]", "a dimension cannot be negative", 5),
    ("f32[<=?]", "expected an integer, got", 7),
    ("f32[4,]", "expected '<=', '?' or an integer, got ']'", 7),
    ("f32[2_0]", "expected '<=', '?', ']' or an integer, got '2_0'", 5),
    ("f32[8]{0}{0}", "expected the end of the text, got '{'", 10),
    ("f32[8,8]{0}", "expected a layout that orders 2 dimensions, got {0}", 9),
    ("f32[8,8]{0,0}", "expected a layout that orders 2 dimensions, got {0,0}", 9),
    ("f32[8]{1}", "expected a layout that orders 1 dimensions", 7),
    ("f32[8]{0:S(1)T(8)}", "expected", 14),
    ("f32[8]{0:P(f32[8])}", "only a sparse array has a physical shape", 10),
    ("f32[8]{0:#(s8)}", "expected an unsigned integer type, got s8", 12),
    ("f32[8]{0:D(X)}", "expected a level type D, C, S or H", 12),
    ("f32[99999999999999999999]", "does not fit a 64-bit integer", 5),
    ("f32[9999999999,9999999999]", "the number of elements, 99999999980000000001, does not fit", 1),
    ("token[2]", "token has no dimensions", 1),
    ("b((f32[4]))", "a buffer holds an array", 1),
    ("f32[4", "expected ',' or ']', got the end of the text", 6),
    ("(f32[4]", "expected ')' or ',', got the end of the text", 8),
])  # fmt: skip
def test_wrong_shapes(text: str, message: str, column: int) -> None:
    with pytest.raises(HloError) as raised:
        parse_shape(text)
    assert message in raised.value.message
    assert raised.value.span.source.position(raised.value.span.start) == (1, column)


def test_tuples_nest_only_so_deep() -> None:
    assert parse_shape("(" * 60 + "f32[]" + ")" * 60)
    with pytest.raises(HloError, match="tuples nest deeper than 64"):
        parse_shape("(" * 10_000 + "f32[]" + ")" * 10_000)
