"""The builder: shapes inferred, names unique, computations before their callers; and `make` for passes."""

import numpy as np
import pytest

from hloc.analysis.verifier import verify
from hloc.errors import HloError, Source, Span
from hloc.ir.attributes import Metadata
from hloc.ir.builder import Builder, make, make_constant
from hloc.ir.dtypes import BF16, F32, F64, PRED, S8, S32, U8, U32
from hloc.ir.literals import Literal
from hloc.ir.shapes import ArrayShape, TupleShape, array
from hloc.text.parser import parse
from hloc.text.printer import print_module

SOFTMAX = """HloModule softmax, entry_computation_layout={(f32[4,8]{1,0})->f32[4,8]{1,0}}

%maximum_f32 (p0: f32[], p1: f32[]) -> f32[] {
  %p0 = f32[] parameter(0)
  %p1 = f32[] parameter(1)
  ROOT %maximum = f32[] maximum(%p0, %p1)
}

%add_f32 (p0.1: f32[], p1.1: f32[]) -> f32[] {
  %p0.1 = f32[] parameter(0)
  %p1.1 = f32[] parameter(1)
  ROOT %add = f32[] add(%p0.1, %p1.1)
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %constant = f32[] constant(-inf)
  %reduce = f32[4]{0} reduce(%x, %constant), dimensions={1}, to_apply=%maximum_f32
  %broadcast = f32[4,8]{1,0} broadcast(%reduce), dimensions={0}
  %subtract = f32[4,8]{1,0} subtract(%x, %broadcast)
  %exponential = f32[4,8]{1,0} exponential(%subtract)
  %constant.1 = f32[] constant(0)
  %reduce.1 = f32[4]{0} reduce(%exponential, %constant.1), dimensions={1}, to_apply=%add_f32
  %broadcast.1 = f32[4,8]{1,0} broadcast(%reduce.1), dimensions={0}
  ROOT %divide = f32[4,8]{1,0} divide(%exponential, %broadcast.1)
}
"""


def built(body, *shapes):
    """The module whose root `body` makes of parameters of these shapes; it must verify."""
    builder = Builder("test")
    module = builder.build(body(builder, *map(builder.parameter, shapes)))
    assert verify(module) == []
    return module


def root_shape(body, *shapes):
    return built(body, *shapes).entry.root.shape.without_layout()


def test_softmax():
    def softmax(b, x):
        weights = b.exponential(b.subtract(x, b.broadcast(b.reduce(x, "maximum", (1,)), x.shape, (0,))))
        return b.divide(weights, b.broadcast(b.reduce(weights, "add", (1,)), x.shape, (0,)))

    builder = Builder("softmax")
    module = builder.build(softmax(builder, builder.parameter(array(F32, 4, 8), name="x")))
    assert verify(module) == []
    assert print_module(module).strip() == print_module(parse(SOFTMAX)).strip()


def test_numbers_become_constants_of_the_other_operands():
    module = built(lambda b, x: b.multiply(b.add(x, 1), 0.5), array(BF16, 3))
    assert [i.opcode for i in module.entry] == [
        "parameter", "constant", "broadcast", "add", "constant", "broadcast", "multiply",
    ]  # fmt: skip
    assert all(i.shape.dtype is BF16 for i in module.entry)


def test_a_number_alone_has_no_type():
    builder = Builder("test")
    with pytest.raises(TypeError, match="no element type"):
        builder.negate(1.0)
    with pytest.raises(TypeError, match="no element type"):
        builder.tuple(builder.parameter(array(F32, 2)), 1)


def test_constants_default_to_narrow_types():
    builder = Builder("test")
    values = [True, 3, 2.5, np.float64(1), np.arange(3, dtype=np.uint8), Literal.of(7, S8)]
    dtypes = [builder.constant(value).shape.dtype for value in values]
    assert dtypes == [PRED, S32, F32, F64, U8, S8]


def test_every_opcode_is_a_method_but_nothing_else():
    builder = Builder("test")
    x = builder.parameter(array(PRED, 2))
    assert builder.not_(builder.and_(x, x)).opcode == "not"
    with pytest.raises(AttributeError, match="no op frobnicate"):
        builder.frobnicate(x)


def test_a_broken_op_is_refused_at_once():
    builder = Builder("test")
    with pytest.raises(HloError) as caught:
        builder.add(builder.parameter(array(F32, 2)), builder.parameter(array(F32, 3)))
    assert caught.value.label == "DIMENSIONS_C5"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda b, x: b.convert(x, U8), ArrayShape(U8, (4, 6))),
        (lambda b, x: b.bitcast_convert(x, U8), ArrayShape(U8, (4, 6, 4))),
        (lambda b, x: b.reshape(x, (3, 8)), ArrayShape(F32, (3, 8))),
        (lambda b, x: b.transpose(x, dimensions=[1, 0]), ArrayShape(F32, (6, 4))),
        (lambda b, x: b.slice(x, (0, 1), (4, 6), (1, 2)), ArrayShape(F32, (4, 3))),
        (lambda b, x: b.pad(x, 0, [(1, 1), (0, 2, 1)]), ArrayShape(F32, (6, 13))),
        (lambda b, x: b.concatenate([x, x], 1), ArrayShape(F32, (4, 12))),
        (lambda b, x: b.compare(x, 0, "GT"), ArrayShape(PRED, (4, 6))),
        (lambda b, x: b.select(b.compare(x, 0, "GT"), x, 0), ArrayShape(F32, (4, 6))),
        (lambda b, x: b.clamp(0, x, 1), ArrayShape(F32, (4, 6))),
        (lambda b, x: b.dot(x, b.transpose(x, dimensions=(1, 0)), F64), ArrayShape(F64, (4, 4))),
        (lambda b, x: b.reduce(x, "add"), ArrayShape(F32)),
        (lambda b, x: b.reduce(x, lambda f, a, v: f.maximum(a, v), (0,), 0), ArrayShape(F32, (6,))),
        (lambda b, x: b.iota(array(U32, 3, 2), 1), ArrayShape(U32, (3, 2))),
        (lambda b, x: b.get_tuple_element(b.tuple(x, b.constant(1)), 1), ArrayShape(S32)),
        (lambda b, x: b.sort(x, dimensions=(1,), to_apply=b.function(
            "less", [ArrayShape(F32)] * 2, lambda f, p, q: f.compare(p, q, "LT"))), ArrayShape(F32, (4, 6))),
        (lambda b, x: b.dynamic_slice(x, 1, 2, dynamic_slice_sizes=(1, 2)),
         ArrayShape(F32, (1, 2))),
        (lambda b, x: b.call(lambda f, y: f.negate(y), x), ArrayShape(F32, (4, 6))),
        (lambda b, x: b.cond(b.constant(True), lambda f, y: f.negate(y), lambda f, y: f.sine(y), x),
         ArrayShape(F32, (4, 6))),
    ],
)  # fmt: skip
def test_infers_the_shape(body, expected):
    assert root_shape(body, array(F32, 4, 6)) == expected


@pytest.mark.parametrize("opcode", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize("dtype", [F32, BF16, S8, U32, PRED])
def test_folds_start_at_a_neutral_value(opcode, dtype):
    module = built(lambda b, x: b.reduce(x, opcode), array(dtype, 4))
    start = module.entry.root.operands[1].attributes["literal"].array
    fold = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}[opcode]
    for value in np.array([0, 1, 100 if dtype is not PRED else 1]).astype(dtype.numpy):
        assert fold(start, value) == value


def test_loops_and_the_order_of_computations():
    def count(b):
        state = b.tuple(b.constant(0), b.constant(1.0))
        return b.while_(
            state,
            lambda f, s: f.compare(f.get_tuple_element(s, 0), 10, "LT"),
            lambda f, s: f.tuple(f.add(f.get_tuple_element(s, 0), 1), f.get_tuple_element(s, 1)),
        )

    module = built(count)
    assert module.entry.root.shape.without_layout() == TupleShape((ArrayShape(S32), ArrayShape(F32)))
    assert [computation.name for computation in module] == ["condition", "body", "main"]


def test_a_sequence_of_roots_is_a_tuple():
    builder = Builder("test")
    x = builder.parameter(array(F32, 2))
    assert builder.build([x, builder.negate(x)]).entry.root.opcode == "tuple"


def test_make_stands_where_the_old_instruction_did():
    builder = Builder("test")
    x = builder.parameter(array(F32, 2, 3), name="x")
    old = builder.sine(x)
    old.span = Span(Source("sine"), 0, 4)
    old.annotations["metadata"] = Metadata(op_name="old")
    module = builder.build(old)
    zero = make_constant(module.entry, Literal.of(0, F32), before=old, like=old)
    zeros = make(module.entry, "broadcast", [zero], shape=array(F32, 2, 3), before=old, like=old)
    new = make(module.entry, "add", [x, zeros], before=old, like=old)
    module.entry.replace_uses(old, new)
    module.entry.remove(old)
    assert [i.opcode for i in module.entry] == ["parameter", "constant", "broadcast", "add"]
    assert new.metadata.op_name == "old" and new.span.end == 4
    assert new.shape == array(F32, 2, 3)
    assert verify(module) == []


def test_make_stores_no_defaults():
    builder = Builder("test")
    x = builder.parameter(array(F32, 3, 3))
    assert builder.cholesky(x, lower=False).attributes == {}
    assert builder.cholesky(x, lower=True).attributes == {"lower": True}


def test_lists_of_instructions_follow_edits():
    text = """
    HloModule m
    f { p = f32[] parameter(0)  ROOT n = f32[] negate(p) }
    ENTRY e {
      x = f32[] parameter(0)
      c = f32[] call(x), to_apply=f
      ROOT a = f32[] add(x, c)
    }
    """
    entry = parse(text).entry
    x, call, add = before = entry.instructions
    assert entry.instructions is before and entry.call_sites == [call]
    again = make(entry, "call", [x], call.attributes, before=add)
    assert entry.instructions == [x, call, again, add] and entry.call_sites == [call, again]
    assert before == [x, call, add]
    entry.move_before(again, call)
    assert entry.instructions == [x, again, call, add] == list(entry) and entry.call_sites == [again, call]
    entry.replace_uses(call, again)
    entry.remove(call)
    assert entry.instructions == [x, again, add] and entry.call_sites == [again]
    other = make(entry, "negate", [x])
    entry.reorder([x, other, again, add])
    assert entry.instructions == [x, other, again, add] and entry.call_sites == [again]
