"""The inverse error function as programs spell it: found in a fused computation, and written as one function."""

import numpy as np
import pytest
import scipy.special

import hloc
from hloc.analysis.erf_inv import operand_of_erf_inv
from hloc.codegen.compile import emit_stage
from hloc.options import Options

NEAR = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087)
NEAR += (-4.39150654e-06, -3.5233877e-06, 3.43273939e-07, 2.81022636e-08)
FAR = (2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773)
FAR += (-0.00367342844, 0.00134934322, 0.000100950558, -0.000200214257)


def program(size=1000, near=NEAR, type="f32", limit=5):
    """JAX's expansion, with a doubled result so that it is a fusion."""
    lines, constants = [], {}

    def constant(value):
        name = constants.setdefault(value, f"k{len(constants)}")
        if name not in "".join(lines).split():
            lines.append(f"{name} = {type}[] constant({value})")
            lines.append(f"{name}.b = {type}[{size}] broadcast({name}), dimensions={{}}")
        return f"{name}.b"

    def op(name, opcode, *operands, result=type, rest=""):
        lines.append(f"{name} = {result}[{size}] {opcode}({', '.join(operands)}){rest}")
        return name

    x = op("x", "parameter", "0")
    op("size", "abs", x)
    op("is_one", "compare", "size", constant(1), result="pred", rest=", direction=EQ")
    op("infinite", "multiply", x, constant("inf"))
    op("opposite", "negate", x)
    op("square", "multiply", x, "opposite")
    op("log", "log-plus-one", "square")
    w = op("w", "negate", "log")
    op("near", "compare", w, constant(limit), result="pred", rest=", direction=LT")
    op("z.near", "subtract", w, constant(2.5))
    op("root", "sqrt", w)
    op("z.far", "subtract", "root", constant(3))
    z = op("z", "select", "near", "z.near", "z.far")
    p = ""
    for n in reversed(range(9)):
        c = op(f"c{n}", "select", "near", constant(near[n]), constant(FAR[n]))
        if p:
            op(f"product{n}", "multiply", p, z)
            p = op(f"p{n}", "add", c, f"product{n}")
        else:
            p = c
    op("inside", "multiply", p, x)
    op("r", "select", "is_one", "infinite", "inside")
    op("ROOT doubled", "add", "r", "r")
    return "HloModule m\nENTRY e {\n  " + "\n  ".join(lines) + "\n}\n"


def found(text):
    """The operands of the inverse error functions in a program."""
    module = hloc.parse(text)
    operands = [operand_of_erf_inv(instruction) for instruction in module.entry]
    return [operand.name for operand in operands if operand is not None]


def test_it_is_found():
    assert found(program()) == ["x"]


@pytest.mark.parametrize("other", [{"near": (1.5, *NEAR[1:])}, {"limit": 6}, {"type": "f64"}])
def test_others_are_not(other):
    assert found(program(**other)) == []


def test_one_function_is_written():
    module = hloc.optimize(hloc.parse(program()))
    assert "@hloc.erf_inv.f32" in emit_stage(module, "llvm", "cpu", Options())
    assert "erf_inv" not in emit_stage(module, "llvm", "sm_90a", Options())


@pytest.mark.parametrize("size", [1000, 1 << 17])
def test_results(size):
    rng = np.random.default_rng(3)
    x = np.where(rng.uniform(size=size) < 0.9, rng.uniform(-1, 1, size), 1 - np.exp(-rng.uniform(1, 16, size)))
    x = x.astype(np.float32)
    x[:8] = 0, -0.0, 1, -1, 1.5, np.inf, np.nan, 1e-20
    x[100:200] *= 1e-3
    got = np.asarray(hloc.compile(program(size))(x)) / 2
    assert np.isnan(got[4:7]).all() and got[2] == np.inf and got[3] == -np.inf
    assert np.signbit(got[:2]).tolist() == [False, True]
    usual = np.abs(x) < 1
    want = scipy.special.erfinv(x[usual].astype(np.float64))
    error = np.abs(got[usual] - want) / np.spacing(np.maximum(np.abs(want), 1e-30).astype(np.float32))
    assert error.max() < 4
