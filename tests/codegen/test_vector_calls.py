"""Functions with a shorter way for usual operands: what vector loops call, and that any lane may hold anything."""

import re

import numpy as np
import pytest

import hloc
from hloc.codegen.compile import emit_stage
from hloc.codegen.targets.target import target_named
from hloc.options import Options

SINGLE = "f32[1000]"


def program(opcode, type=SINGLE, before="", after=""):
    """x of one type through an op in another, if conversions are asked for."""
    size = type[type.index("[") :]
    inner = f"{before}{size}" if before else type
    outer = f"{after}{size}" if after else inner
    return "\n".join(
        [
            "HloModule m",
            "ENTRY e {",
            f"  x = {type} parameter(0)",
            f"  a = {inner} convert(x)",
            f"  b = {inner} {opcode}(a)",
            f"  ROOT r = {outer} convert(b)",
            "}",
        ]
    )


def arguments(numpy=np.float32):
    """Numbers of all sizes beside one another, and what is not one."""
    rng = np.random.default_rng(1)
    sizes = 10.0 ** rng.uniform(-10, 4.5 if numpy == np.float16 else 38, 1000)
    x = np.where(rng.uniform(size=1000) < 0.9, rng.normal(size=1000), rng.normal(size=1000) * sizes)
    x[[3, 500, 998]] = np.inf, -np.inf, np.nan
    x[:3] = 0, -0.0, -1e-3
    with np.errstate(over="ignore"):
        return x.astype(numpy)


def check(text, x, numpy, ulps=0.51):
    """Each result is the exact one, rounded; NaN for infinities and NaN."""
    got = np.asarray(hloc.compile(text)(x))
    with np.errstate(invalid="ignore"):
        want = numpy(x.astype(np.float64))
    known = np.isfinite(want)
    assert np.isnan(got[~known]).all()
    spacing = np.spacing(np.maximum(np.abs(want[known]), np.finfo(got.dtype).tiny).astype(got.dtype))
    error = np.abs(got[known].astype(np.float64) - want[known]) / spacing.astype(np.float64)
    assert error.max() <= (ulps if got.dtype != np.float64 else 2**30), x[known][error.argmax()]
    return got


@pytest.mark.parametrize("name", ["sine", "cosine"])
def test_large_operands_beside_small_ones(name):
    numpy = {"sine": np.sin, "cosine": np.cos}[name]
    got = check(program(name), arguments(), numpy)
    alone = [np.asarray(hloc.compile(program(name, "f32[1]"))(arguments()[i : i + 1]))[0] for i in range(12)]
    np.testing.assert_array_equal(got[:12], alone)
    if name == "sine":
        assert np.signbit(got[:2]).tolist() == [False, True]


@pytest.mark.parametrize("name", ["sine", "cosine"])
def test_elements_of_other_widths(name):
    numpy = {"sine": np.sin, "cosine": np.cos}[name]
    check(program(name, "f16[1000]"), arguments(np.float16), numpy)
    x = arguments().astype(np.float64)
    check(program(name, "f64[1000]", before="f32", after="f64"), x, numpy)


def optimized(text):
    """LLVM IR after LLVM's passes."""
    return emit_stage(hloc.optimize(hloc.parse(text)), "llvm-opt", "cpu", Options())


def test_vector_loops_call_the_variant():
    lanes = target_named("cpu").vector_bytes // 4
    text = optimized(program("sine"))
    assert re.search(rf"call .*<{lanes} x float> @hloc.sin.f32.v{lanes}\(", text)


def test_loops_over_wider_elements_call_a_variant_of_fewer_lanes():
    lanes = target_named("cpu").vector_bytes // 8
    text = optimized(program("sine", "f64[1000]", before="f32", after="f64"))
    assert re.search(rf"call .*<{lanes} x float> @hloc.sin.f32.v{lanes}\(", text)
