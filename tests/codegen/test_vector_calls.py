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


LARGE = 1 << 17
"""Elements of arrays that several vectors are worked on at a time for."""


def test_loops_over_large_arrays_hand_over_several_vectors():
    lanes = target_named("cpu").vector_bytes
    for name, function in (("sine", "sin"), ("log-plus-one", "log1p"), ("power", "power")):
        operands = "x, x" if name == "power" else "x"
        given = f"  x = f32[{LARGE}] parameter(0)\n"
        text = f"HloModule m\nENTRY e {{\n{given}  ROOT r = f32[{LARGE}] {name}({operands})\n}}"
        called = re.escape(f"@hloc.{function}.f32.v{lanes}(")
        assert re.search(rf"call .*<{lanes} x float> {called}", optimized(text)), name


def in_large_arrays(opcode, *arrays):
    """What an op gives for each of a few operands, among many usual ones and alone."""
    count = len(arrays)
    names = ", ".join(f"p{n}" for n in range(count))
    results = []
    for size in (LARGE, 1):
        shape = f"f32[{size}]"
        parameters = "".join(f"  p{n} = {shape} parameter({n})\n" for n in range(count))
        run = hloc.compile(f"HloModule m\nENTRY e {{\n{parameters}  ROOT r = {shape} {opcode}({names})\n}}\n")
        if size == 1:
            rows = zip(*arrays, strict=True)
            results.append(np.concatenate([run(*[np.float32([x]) for x in row]) for row in rows]))
            continue
        wide = [np.full(LARGE, 0.5, np.float32) for _ in range(count)]
        places = np.arange(len(arrays[0])) * 37
        for array, values in zip(wide, arrays, strict=True):
            array[places] = values
        results.append(np.asarray(run(*wide))[places])
    return results


def test_special_operands_among_usual_ones():
    inf, nan = np.inf, np.nan
    x = np.float32([0, -0.0, 1e-40, -1e-40, 2e-38, -1, -2, inf, -inf, nan, 3e38, -0.9999999, 1e-10, 2.5])
    got, alone = in_large_arrays("log-plus-one", x)
    np.testing.assert_array_equal(got, alone)
    assert np.signbit(got[:4]).tolist() == [False, True, False, True]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got[4:], np.log1p(x[4:].astype(np.float64)), rtol=3e-7)


def test_special_bases_and_exponents_among_usual_ones():
    inf, nan = np.inf, np.nan
    numbers = [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, inf, -inf, nan, 3e38, 2e-38]
    x, y = (np.float32(array.reshape(-1)) for array in np.meshgrid(numbers, numbers))
    got, alone = in_large_arrays("power", x, y)
    np.testing.assert_array_equal(got, alone)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    want[np.abs(want) < np.finfo(np.float32).tiny] = 0
    np.testing.assert_allclose(got, want, rtol=1e-7)


def test_an_operand_that_is_the_same_in_every_call():
    """LLVM may not make a function of one parameter of that of two which the variants are of."""
    text = """HloModule m

ENTRY e {
  p = f32[4,4] parameter(0)
  s = f32[] parameter(1)
  two = f32[] constant(2)
  power = f32[] power(two, s)
  spread = f32[4,4] broadcast(power), dimensions={}
  ROOT quotient = f32[4,4] divide(p, spread)
}
"""
    run = hloc.compile(text, options=Options(cache=False))
    assert (run(np.full((4, 4), 24, np.float32), np.float32(3)) == 3).all()
