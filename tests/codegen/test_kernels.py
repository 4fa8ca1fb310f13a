"""Kernels as LLVM IR: loops over several dimensions, no needless division, vectors, equal ones made once."""

from __future__ import annotations

import re

import numpy as np
import pytest

import hloc
from hloc.arrays import compare
from hloc.codegen import buffers, computations, kernel_code
from hloc.codegen.compile import compile_module, emit_stage
from hloc.codegen.targets.target import target_named
from hloc.errors import HloError
from hloc.options import Options

NONE = Options(pipeline="none")


def entry(body: str) -> str:
    return "HloModule m\n\nENTRY main {\n" + body + "\n}\n"


def llvm_ir(body: str, stage: str = "llvm", options: Options = NONE) -> str:
    return emit_stage(hloc.parse(entry(body)), stage, "cpu", options)


def fused(lines: list[str]) -> str:
    """A module that is one fusion from f32[64] to f32[64]."""
    call = "  x = f32[64] parameter(0)\n  ROOT f = f32[64] fusion(x), kind=kLoop, calls=fused"
    return entry(call).replace("ENTRY", "fused {\n" + "\n".join(lines) + "\n}\n\nENTRY")


def loops(text: str) -> int:
    return len(re.findall(r"br i1 .*, label %i", text))


def test_elementwise_over_all_dimensions_is_one_loop() -> None:
    text = llvm_ir("""
  x = f32[5,6,7] parameter(0)
  ROOT y = f32[5,6,7] add(x, x)""")
    assert loops(text) == 1
    assert "icmp slt i64" in text and ", 210" in text


def test_a_row_broadcast_divides_the_loop_and_computes_no_division() -> None:
    text = llvm_ir("""
  x = f32[5,6,7] parameter(0)
  b = f32[7] parameter(1)
  bb = f32[5,6,7] broadcast(b), dimensions={2}
  ROOT y = f32[5,6,7] add(x, bb)""", options=Options())
    assert loops(text) == 2
    assert "urem" not in text and "udiv" not in text


def test_a_transpose_of_blocks_keeps_them_together() -> None:
    text = llvm_ir("""
  x = f32[5,6,7,8] parameter(0)
  ROOT y = f32[7,8,5,6] transpose(x), dimensions={2,3,0,1}""")
    assert loops(text) == 2
    assert "urem" not in text and "udiv" not in text


def test_reshapes_that_merge_or_split_dimensions_compute_no_division() -> None:
    text = llvm_ir("""
  x = f32[4,6,8] parameter(0)
  a = f32[24,8] reshape(x)
  b = f32[24,2,4] reshape(a)
  ROOT y = f32[24,2,4] negate(b)""", options=Options())
    assert "urem" not in text and "udiv" not in text


def test_a_chain_is_vectorized_and_needs_no_check_of_overlap() -> None:
    text = llvm_ir("""
  x = f32[4096] parameter(0)
  y = f32[4096] parameter(1)
  a = f32[4096] add(x, y)
  b = f32[4096] multiply(a, y)
  ROOT c = f32[4096] maximum(b, x)""", "llvm-opt", Options())
    lanes = target_named("cpu").vector_bytes // 4
    assert f"fadd <{lanes} x float>" in text
    assert "memcheck" not in text


@pytest.mark.parametrize("stage, start", [("hlo", "HloModule m"), ("asm", "# flush_denormals"), ("obj", b"\x7fELF")])
def test_stages(stage: str, start: str | bytes) -> None:
    content = llvm_ir("  x = f32[4] parameter(0)\n  ROOT y = f32[4] negate(x)", stage)
    assert content[: len(start)] == start


def test_equal_kernels_are_made_once() -> None:
    module = hloc.parse(entry("""
  x = f32[64] parameter(0)
  a = f32[64] reverse(x), dimensions={0}
  b = f32[64] reverse(a), dimensions={0}
  ROOT c = f32[64] reverse(b), dimensions={0}"""))
    (kernel,) = compile_module(module, target_named("cpu"), Options()).kernels
    assert kernel.instructions == ("a", "b", "c")
    assert kernel.bytes_read == kernel.bytes_written == 256


def test_kernels_of_unlike_attributes_differ() -> None:
    module = hloc.parse(entry("""
  x = f32[8,8] parameter(0)
  a = f32[8,8] reverse(x), dimensions={0}
  ROOT b = f32[8,8] reverse(a), dimensions={1}"""))
    assert len(compile_module(module, target_named("cpu"), Options()).kernels) == 2


def test_the_same_module_gives_the_same_text() -> None:
    body = """
  x = f32[8,8] parameter(0)
  t = f32[8,8] transpose(x), dimensions={1,0}
  ROOT b = f32[8,8] add(x, t)"""
    assert llvm_ir(body) == llvm_ir(body)


@pytest.mark.parametrize(
    "body, words",
    [
        ('  ROOT r = f32[3] custom-call(), custom_call_target="nobody"', "target 'nobody'"),
        ("  x = f32[<=4] parameter(0)\n  ROOT r = f32[<=4] negate(x)", "dynamic shape f32[<=4]"),
        ("  x = f32[] parameter(0)\n  ROOT b = f32[4611686018427387904] broadcast(x), dimensions={}", "byte"),
    ],
)
def test_what_is_not_supported_is_named_at_its_place(body: str, words: str) -> None:
    with pytest.raises(HloError) as caught:
        compile_module(hloc.parse(entry(body)), target_named("cpu"), Options())
    assert words in caught.value.message
    assert caught.value.span is not None


def test_ten_thousand_chained_ops_compile() -> None:
    lines = ["  x0 = f32[64] parameter(0)"]
    lines += [f"  x{i + 1} = f32[64] {'negate' if i % 2 else 'abs'}(x{i})" for i in range(10_000)]
    program = compile_module(hloc.parse(entry("\n".join(lines))), target_named("cpu"), Options())
    assert program.arena_bytes == 0


def test_a_fused_chain_of_thousands_compiles_without_recursion() -> None:
    lines = ["  x0 = f32[64] parameter(0)"]
    lines += [f"  x{i + 1} = f32[64] {'negate' if i % 2 else 'abs'}(x{i})" for i in range(3000)]
    text = fused(lines)
    (kernel,) = compile_module(hloc.parse(text), target_named("cpu"), Options()).kernels
    assert kernel.instructions == ("f",)


def test_a_fusion_that_would_compute_everything_many_times_is_taken_apart() -> None:
    lines = ["  x0 = f32[64] parameter(0)"]
    for i in range(20):  # each level reads the one before at two indices: a million elements for one
        lines.append(f"  r{i} = f32[64] reverse(x{i}), dimensions={{0}}")
        lines.append(f"  x{i + 1} = f32[64] subtract(x{i}, r{i})")
    text = fused(lines)
    assert len(compile_module(hloc.parse(text), target_named("cpu"), Options()).kernels) > 1


def nested_calls(levels: int) -> str:
    """A function of scalars that is so many calls deep."""
    functions = ["f0 {\n  x = f32[] parameter(0)\n  ROOT y = f32[] negate(x)\n}"]
    functions += [
        f"f{i} {{\n  x = f32[] parameter(0)\n  ROOT y = f32[] call(x), to_apply=f{i - 1}\n}}"
        for i in range(1, levels)
    ]
    return "HloModule m\n\n" + "\n\n".join(functions) + "\n\n"


def test_calls_nested_a_thousand_deep_are_functions() -> None:
    text = nested_calls(1000) + "ENTRY main {\n  x = f32[] parameter(0)\n"
    text += "  ROOT y = f32[] call(x), to_apply=f999\n}\n"
    assert len(compile_module(hloc.parse(text), target_named("cpu"), Options()).kernels) == 1


def test_a_kernel_inlines_calls_to_a_limit_that_is_told() -> None:
    text = nested_calls(1000) + "ENTRY main {\n  x = f32[4] parameter(0)\n"
    text += "  ROOT y = f32[4] map(x), dimensions={0}, to_apply=f999\n}\n"
    with pytest.raises(HloError, match="levels deep"):
        compile_module(hloc.parse(text), target_named("cpu"), Options())


def test_a_long_computation_is_divided_and_calls_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (buffers, computations):
        monkeypatch.setattr(module, "LONG", 4)
    monkeypatch.setattr(computations, "_PART", 3)
    lines = ["a0 = f32[4] parameter(0)", "c = s32[] constant(1)"]
    lines += [f"a{i} = f32[4] {('sine', 'negate')[i % 2]}(a{i - 1})" for i in range(1, 8)]
    lines += ["a8 = f32[4] conditional(c, a6, a7), branch_computations={left, right}", "ROOT r = f32[4] cosine(a8)"]
    branches = "".join(
        f"{name} {{ x = f32[4] parameter(0)  ROOT r = f32[4] {op}(x) }}\n"
        for name, op in (("left", "negate"), ("right", "tanh"))
    )
    text = f"HloModule m\n{branches}ENTRY main {{\n" + "\n".join(lines) + "\n}\n"
    ir = emit_stage(hloc.parse(text), "llvm", "cpu", NONE)
    parts = re.findall(r"define internal i32 @(\S+\.part\.\d+)\(", ir)
    assert [int(name.rsplit(".", 1)[1]) for name in parts] == [0, 3, 6]
    calls = re.findall(r"call void @kernel\S+\(.*\).*", ir)
    assert sum(call.endswith(" noinline") for call in calls) == 8  # all but those of the branches
    x = np.linspace(-2, 2, 4).astype(np.float32)
    assert compare(hloc.compile(text, options=NONE)(x), hloc.evaluate(text, x)).equal


def test_of_many_kernels_llvm_leaves_out_those_with_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_code, "MANY", 1)
    text = llvm_ir("""
  x = f32[64] parameter(0)
  y = f32[64,1024] parameter(1)
  a = f32[64] negate(x)
  b = f32[64] abs(x)
  c = f32[64,1024] negate(y)
  ROOT t = (f32[64], f32[64], f32[64,1024]) tuple(a, b, c)""")
    groups = dict(re.findall(r"attributes (#\d+) = \{(.*)\}", text))
    kernels = re.findall(r"define internal void @(kernel[\w.]+)\(.*\) (#\d+)", text)
    quick = [name for name, group in kernels if "optnone" in groups[group]]
    assert quick == ["kernel.b", "kernel.c.task", "kernel.c"]  # what is around a thread's part is but a call of it
