"""Loops that are written as loops over vectors: what they look like, which stay, and what they compute."""

import re

import numpy as np
import pytest

import hloc
from hloc.codegen.compile import emit_stage
from hloc.codegen.llvm import Builder, Module, Value, integer, zero
from hloc.codegen.targets.llvm_split import split
from hloc.options import Options
from hloc.reference.evaluate import evaluate

SIZES = [3, 4, 7, 8, 9, 15, 16, 31, 33, 64, 100, 1000, 2048, 70_001]


def _text(module: str) -> str:
    return emit_stage(hloc.parse(module), "llvm", "cpu", Options())


def _check(text: str, *arguments: np.ndarray, rtol: float = 0) -> None:
    got = hloc.compile(text, options=Options(cache=False)).execute(*arguments)
    for result, wanted in zip(got, evaluate(hloc.parse(text), arguments), strict=True):
        np.testing.assert_allclose(result, np.asarray(wanted), rtol=rtol, atol=0)


def _chain(dtype: str, size: int) -> str:
    return f"""HloModule m
ENTRY e {{
  x = {dtype}[{size}] parameter(0)
  y = {dtype}[{size}] parameter(1)
  one = {dtype}[] constant(1)
  ones = {dtype}[{size}] broadcast(one), dimensions={{}}
  a = {dtype}[{size}] add(x, y)
  b = {dtype}[{size}] multiply(a, x)
  c = pred[{size}] compare(b, ones), direction=GT
  d = {dtype}[{size}] subtract(b, ones)
  s = {dtype}[{size}] select(c, d, y)
  ROOT r = ({dtype}[{size}], pred[{size}]) tuple(s, c)
}}"""


def _reduce(dtype: str, size: int, op: str, start: str) -> str:
    return f"""HloModule m
f {{
  p = {dtype}[] parameter(0)
  q = {dtype}[] parameter(1)
  ROOT r = {dtype}[] {op}(p, q)
}}
ENTRY e {{
  x = {dtype}[3,{size}] parameter(0)
  z = {dtype}[] constant({start})
  ROOT s = {dtype}[3] reduce(x, z), dimensions={{1}}, to_apply=f
}}"""


def _random(dtype: str, *shape: int) -> np.ndarray:
    numbers = np.random.default_rng(sum(shape)).normal(size=shape) * 3
    return numbers.astype(dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "numpy"), [("f32", "f4"), ("f64", "f8"), ("s32", "i4"), ("s8", "i1"), ("s64", "i8")])
def test_elements(dtype, numpy, size):
    _check(_chain(dtype, size), _random(numpy, size), _random(numpy, size) + _random(numpy, size))


@pytest.mark.parametrize("size", SIZES[:-1])
@pytest.mark.parametrize(
    ("dtype", "numpy", "op", "start"),
    [("f32", "f4", "add", "0.5"), ("f32", "f4", "maximum", "-inf"), ("s32", "i4", "add", "7"),
     ("f64", "f8", "multiply", "2"), ("s32", "i4", "minimum", "3"), ("u32", "u4", "xor", "5")],
)  # fmt: skip
def test_values_carried_from_one_iteration_to_the_next(dtype, numpy, op, start, size):
    values = np.abs(_random(numpy, 3, size)) if op != "multiply" else 1 + _random(numpy, 3, size) / 1000
    _check(_reduce(dtype, size, op, start), values, rtol=1e-5 if numpy == "f4" else 1e-12)


@pytest.mark.parametrize("size", [8, 21, 64, 1000])
def test_counters_as_data(size):
    _check(f"""HloModule m
ENTRY e {{
  x = f32[{size}] parameter(0)
  i = s32[{size}] iota(), iota_dimension=0
  three = s32[] constant(3)
  threes = s32[{size}] broadcast(three), dimensions={{}}
  j = s32[{size}] multiply(i, threes)
  f = f32[{size}] convert(j)
  ROOT r = f32[{size}] add(x, f)
}}""", _random("f4", size))  # fmt: skip


def test_a_loop_over_whole_vectors_has_no_other_beside_it():
    text = _text(_chain("f32", 1024))
    assert re.search(r"load <\d+ x float>", text)
    assert not re.search(r"load float", text)


def test_the_last_vector_may_overlap_the_one_before():
    text = _text(_chain("f32", 1001))
    assert "@llvm.smin.i64(" in text
    assert not re.search(r"load float", text)


def test_elements_that_are_changed_in_place_are_computed_once():
    text = """HloModule m, input_output_alias={ {}: (0, {}, must-alias) }
ENTRY e {
  x = f32[1001] parameter(0)
  ROOT r = f32[1001] add(x, x)
}"""
    code = emit_stage(hloc.parse(text), "llvm", "cpu", Options(donate=True))
    assert "@llvm.smin.i64(" not in code
    assert re.search(r"load float", code)


def test_functions_are_written_out_in_the_loops_that_call_them():
    text = _text("""HloModule m
ENTRY e {
  x = f32[1024] parameter(0)
  ROOT r = f32[1024] exponential(x)
}""")
    assert re.search(r"= fadd <\d+ x float>", text)
    assert "call float @hloc.exp" not in text


def test_gathered_elements_are_left_to_llvm():
    text = _text("""HloModule m
ENTRY e {
  x = f32[1000] parameter(0)
  i = s32[1024,1] parameter(1)
  ROOT r = f32[1024] gather(x, i), offset_dims={}, collapsed_slice_dims={0}, start_index_map={0},
    index_vector_dim=1, slice_sizes={1}
}""")
    kernel = text[text.index("define internal void @kernel") :]
    assert '"hloc-passes"="few"' not in _attributes(text, kernel)


def _attributes(text: str, function: str) -> str:
    group = re.search(r"(#\d+) \{", function)[1]
    return re.search(rf"attributes {group} = \{{(.*)\}}", text)[1]


def _function(body, params="ptr noalias readonly a, ptr noalias b, i64 n") -> str:
    module = Module("m")
    module.vector_bytes = 32
    split_params = [param.split() for param in params.split(", ")]
    function = module.function("f", "void", [(t, at, " ".join(rest)) for t, *rest, at in split_params], "noinline")
    function.widens = function.settled = True
    b = Builder(function)
    body(b, *function.args)
    b.ret()
    return str(module), function.settled


def _copy_from(step: int, offset: int = 0):
    def body(b: Builder, a: Value, to: Value, n: Value) -> None:
        with b.for_loop(integer("i64", 0), n) as i:
            at = b.add(b.mul(i, integer("i64", step)), integer("i64", offset))
            b.store(b.load("float", b.gep("float", a, at)), b.gep("float", to, i))

    return body


def test_an_unknown_number_of_iterations_leaves_a_rest():
    text, settled = _function(_copy_from(1))
    assert settled
    assert "load <8 x float>" in text and "load float" in text
    assert "align 4" in text[text.index("load <8 x float>") :].split("\n")[0]


def test_what_is_read_may_change_between_calls():
    """A small kernel is inlined where it is called, in the body of a loop for one, though it is `noinline` itself."""
    text = _text(_chain("f32", 64))
    assert "load <8 x float>" in text
    assert "invariant.load" not in text


def test_elements_that_lie_apart_are_left_to_llvm():
    text, settled = _function(_copy_from(2))
    assert not settled and "<8 x float>" not in text


def test_what_may_be_the_same_memory_is_left_to_llvm():
    params = "ptr a, ptr b, i64 n"
    assert not _function(_copy_from(1, 1), params)[1]

    def shifted(b: Builder, a: Value, to: Value, n: Value) -> None:
        with b.for_loop(integer("i64", 0), n) as i:
            value = b.load("float", b.gep("float", to, i))
            b.store(value, b.gep("float", to, b.add(i, integer("i64", 1))))

    assert not _function(shifted)[1]


def test_sums_in_order_are_left_to_llvm():
    def add_up(b: Builder, a: Value, to: Value, n: Value) -> None:
        def step(i: Value, carried: list[Value]) -> list[Value]:
            return [b.fadd(carried[0], b.load("float", b.gep("float", a, i)))]

        (total,) = b.for_loop_carrying(integer("i64", 0), n, [zero("float")], step)
        b.store(total, to)

    assert not _function(add_up)[1]


def test_functions_are_divided_by_what_they_need():
    text = """@used = private unnamed_addr constant [1 x i8] c"a"
define internal void @plain(ptr %a) #0 {
  call void @inlined()
  store ptr @used, ptr %a
  ret void
}
define internal void @loops(ptr %a) #1 {
  call void @plain(ptr %a)
  ret void
}
define internal void @inlined() #2 {
  ret void
}
define internal void @with_loop() #0 {
  call void @hard()
  ret void
}
define internal void @hard() #3 {
  ret void
}
attributes #0 = { "hloc-passes"="few" }
attributes #1 = { nounwind }
attributes #2 = { alwaysinline "hloc-passes"="few" }
attributes #3 = { alwaysinline }
"""
    few, rest = split(text)
    defined = re.findall(r"^define (.*) #", few, re.MULTILINE)
    assert defined == ["hidden void @plain(ptr %a)", "internal void @inlined()"]
    assert "define internal void @with_loop" in rest and "define internal void @hard" in rest
    assert "declare void @plain(ptr %a) #0" in rest and "define internal void @loops" in rest
    assert "@used" in few and "@used" not in rest
    assert split(rest.replace("few", "many")) == ("", rest.replace("few", "many"))


def test_what_a_call_asks_to_inline_goes_where_it_is_called():
    text = """define internal void @small(ptr %a) #0 {
  store i8 1, ptr %a
  ret void
}
define internal void @few(ptr %a) #0 {
  store i8 2, ptr %a
  store i8 3, ptr %a
  store i8 4, ptr %a
  store i8 5, ptr %a
  ret void
}
define internal void @loop(ptr %a) #1 {
  call void @small(ptr %a) alwaysinline
  ret void
}
attributes #0 = { noinline "hloc-passes"="few" }
attributes #1 = { nounwind }
"""
    few, rest = split(text)
    assert "@small" not in few and "define internal void @small" in rest
