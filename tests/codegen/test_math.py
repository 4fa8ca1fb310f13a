"""Elementary functions: accuracy against mpmath, special arguments, and the promises to LLVM's vectorizer."""

import ctypes
import re

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest

import hloc
from hloc.codegen import math
from hloc.codegen.llvm import Builder, Module, const
from hloc.options import Options

TYPES = {"float": np.float32, "double": np.float64}
PAIRS = ("atan2", "power")

# The largest error allowed, in units of the last place: f32, f64 (None: there is no such function).
ULP = {
    "acos": (0.7, 0.7),
    "acosh": (1.3, 1.1),
    "asin": (0.7, 0.7),
    "asinh": (1.4, 1.1),
    "atan": (0.51, 0.53),
    "atan2": (0.51, 0.53),
    "atanh": (1.1, 0.6),
    "cbrt": (0.8, 0.8),
    "cos": (0.51, 0.53),
    "cosh": (1.6, 1.6),
    "erf": (2.8, 0.9),
    "erf_inv": (3.7, None),
    "exp": (0.9, 1.0),
    "exp_of_negative": (0.9, 1.0),
    "expm1": (1.6, 1.9),
    "log": (1.1, 0.51),
    "log1p": (1.7, 0.51),
    "logistic": (1.6, 1.6),
    "power": (0.51, 0.55),
    "rsqrt": (1.5, 1.5),
    "sin": (0.51, 0.53),
    "sinh": (1.8, 1.8),
    "sqrt": (0.5, 0.5),
    "tan": (0.51, 0.53),
    "tanh": (2.5, 1.6),
}
SPECIAL = {
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "erf_inv": mpmath.erfinv,
    "exp_of_negative": mpmath.exp,
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
}
WRITTEN = [(name, type) for name in ULP for type, bound in zip(TYPES, ULP[name], strict=True) if bound is not None]
EXACT = {name: SPECIAL.get(name) or getattr(mpmath, name) for name in ULP}


def host_machine(level=3):
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=level
    )


def loops(names_and_types):
    """A module with a loop over arrays for each function and type."""
    module = Module("math")
    for name, type in names_and_types:
        count = 2 if name in PAIRS else 1
        pointers = [("ptr", f"x{index}", "noalias") for index in range(count)]
        function = module.function(
            f"{name}.{type}", "void", [*pointers, ("ptr", "y", "noalias"), ("i64", "n")]
        )
        b = Builder(function)
        with b.for_loop(0, function.args[-1]) as i:
            values = [b.load(type, b.gep(type, source, i)) for source in function.args[:count]]
            b.store(math.call(b, name, values), b.gep(type, function.args[count], i))
        b.ret()
    return module


def optimize(module, machine):
    """At level 3: the pipeline that vectorizes."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


class Compiled:
    def __init__(self, names_and_types):
        machine = host_machine()
        parsed = optimize(loops(names_and_types), machine)
        self.text, self.assembly = str(parsed), machine.emit_assembly(parsed)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)

    def __call__(self, name, *operands):
        operands = [np.ascontiguousarray(operand) for operand in operands]
        type = next(type for type, numpy in TYPES.items() if operands[0].dtype == numpy)
        result = np.empty_like(operands[0])
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(operands) + 1), ctypes.c_int64)
        address = self._engine.get_function_address(f"{name}.{type}")
        signature(address)(*[array.ctypes.data for array in (*operands, result)], result.size)
        return result


@pytest.fixture(scope="module")
def compiled():
    return Compiled(WRITTEN)


def arguments(name, numpy, count=300):
    """Numbers of all sizes within the function's domain, negative ones too."""
    rng = np.random.default_rng(1)
    limit = {"acos": 1, "asin": 1, "atanh": 1, "erf_inv": 1}.get(name)
    if limit:
        return [np.concatenate([rng.uniform(-1, 1, count), rng.normal(0, 1e-3, 20)]).astype(numpy)]
    scales = np.repeat([1e-6, 0.05, 0.5, 1.0, 3.0, 20.0, 80.0], count // 7 + 1)
    x = (rng.normal(0, 1, scales.size) * scales).astype(numpy)
    if name == "power":
        x = np.exp(rng.normal(0, 1, x.size) * np.minimum(scales, 3)).astype(numpy)
        return [x, rng.normal(0, 5, x.size).astype(numpy)]
    if name == "atan2":
        return [x, rng.permutation(x)]
    if name in ("log", "sqrt", "rsqrt"):
        return [np.abs(x)]
    if name == "exp_of_negative":
        return [-np.abs(x)]
    if name in ("log1p", "acosh"):
        return [(np.abs(x) if name == "log1p" else np.abs(x) + 1).astype(numpy)]
    if name in ("sin", "cos", "tan"):
        return [np.concatenate([x, (x * 1e6).astype(numpy), np.exp(rng.uniform(0, 88, 50)).astype(numpy)])]
    return [x]


def ulps(got, want):
    """The error of a float in units of the last place of the exact result."""
    bits, least = (24, -126) if got.dtype == np.float32 else (53, -1022)
    exponent = max(mpmath.frexp(want)[1] - 1, least)
    return abs(mpmath.mpf(float(got)) - want) / mpmath.ldexp(1, exponent - bits + 1)


@pytest.mark.parametrize("name, type", WRITTEN)
def test_accuracy(compiled, name, type):
    operands = arguments(name, TYPES[type])
    got = compiled(name, *operands)
    bound = ULP[name][list(TYPES).index(type)]
    with mpmath.workprec(160), np.errstate(all="ignore"):
        for value, row in zip(got, zip(*operands, strict=True), strict=True):
            want = EXACT[name](*[mpmath.mpf(float(x)) for x in row])
            if abs(want) > float(np.finfo(TYPES[type]).max):
                assert np.isinf(value), (name, row)
            else:
                assert ulps(value, want) <= bound, (name, row, value, mpmath.nstr(want, 20))


def test_every_function_has_a_bound():
    assert set(ULP) == set(math.FUNCTIONS)


@pytest.mark.parametrize("numpy", list(TYPES.values()))
def test_trigonometry_of_huge_arguments(compiled, numpy):
    """Up to the largest number, and where a quarter turn is met most closely."""
    largest = float(np.finfo(numpy).max)
    hardest = 16367173.0 * 2.0**72 if numpy == np.float32 else 6381956970095103.0 * 2.0**797
    x = np.array([largest, -largest, 1e22, 1e10, 3.14159274, 1.5707963267948966, hardest], numpy)
    with mpmath.workprec(1400):
        for name in ("sin", "cos", "tan"):
            for value, argument in zip(compiled(name, x), x, strict=True):
                assert ulps(value, EXACT[name](mpmath.mpf(float(argument)))) < 0.53, (name, argument)


@pytest.mark.parametrize("numpy", list(TYPES.values()))
def test_zeros_keep_their_sign(compiled, numpy):
    zeros = np.array([0.0, -0.0], numpy)
    for name in (
        "asin",
        "asinh",
        "atan",
        "atanh",
        "cbrt",
        "erf",
        "expm1",
        "log1p",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
    ):
        got = compiled(name, zeros)
        assert (got == 0).all() and np.signbit(got).tolist() == [False, True], name


@pytest.mark.parametrize("name, type", WRITTEN)
def test_nan_in_nan_out(compiled, name, type):
    nan, two = np.array([[np.nan], [2]], TYPES[type])
    operands = [(nan, two), (two, nan)] if name in PAIRS else [(nan,)]
    assert all(np.isnan(compiled(name, *pair)).all() for pair in operands)


def test_powers_near_the_ends_of_the_range(compiled):
    """Where the exponent of two has most digits in front of its point, and fewest behind it."""
    rng = np.random.default_rng(2)
    x = np.exp2(np.concatenate([rng.uniform(-2, 2, 200), rng.uniform(-126, 127, 100)])).astype(np.float32)
    target = rng.uniform(118, 127.9, x.size) * rng.choice([-0.98, 1], x.size)
    y = (target / np.log2(x.astype(np.float64))).astype(np.float32)
    with mpmath.workprec(160):
        for value, *row in zip(compiled("power", x, y), x, y, strict=True):
            want = mpmath.power(*[mpmath.mpf(float(operand)) for operand in row])
            assert ulps(value, want) <= 0.51, (row, value)


@pytest.mark.parametrize("numpy", list(TYPES.values()))
def test_power_of_special_numbers(compiled, numpy):
    """Every pair of them as C's pow has it."""
    values = np.array(
        [0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, np.inf, -np.inf, np.nan, 1.5, -7, 1e30, -1e30], numpy
    )
    x, y = (grid.reshape(-1) for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    got = compiled("power", x, y)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    ordered = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[ordered].all()


@pytest.mark.parametrize("numpy", list(TYPES.values()))
def test_atan2_of_special_numbers(compiled, numpy):
    values = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-30, -1e30], numpy)
    y, x = (grid.reshape(-1) for grid in np.meshgrid(values, values))
    got, want = compiled("atan2", y, x), np.arctan2(y, x)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    ordered = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[ordered].all()


def test_no_library_calls(compiled):
    called = set(re.findall(r"\bcallq?\s+(\S+)", compiled.assembly))
    assert not called, called


@pytest.mark.parametrize("name, type", WRITTEN)
def test_loops_vectorize(compiled, name, type):
    start = compiled.text.index(f"@{name}.{type}(")
    body = compiled.text[start : compiled.text.index("\n}", start)]
    assert re.search(r"store <\d+ x ", body), f"the loop around {name} stayed scalar"


def test_a_function_is_emitted_once_a_module_and_type():
    module = Module()
    function = module.function("f", "float", [("float", "x"), ("double", "y")])
    b = Builder(function)
    first = math.call(b, "exp", [function.args[0]])
    assert math.call(b, "exp", [function.args[0]]) is first
    math.call(b, "exp", [first])
    math.call(b, "exp", [function.args[1]])
    assert sorted(module.functions) == ["f", "hloc.exp.f32", "hloc.exp.f64"]


@pytest.mark.parametrize("flush", [True, False])
def test_logarithms_of_subnormal_numbers(flush):
    """They are zeros where these are flushed, and what they are elsewhere."""
    x = np.resize(np.array([1e-40, -0.0, 1.0], np.float32), 30)
    run = hloc.compile(
        "HloModule m\nENTRY e { x = f32[30] parameter(0)\n ROOT y = f32[30] log(x) }",
        options=Options(flush_denormals=flush),
    )
    np.testing.assert_allclose(run(x)[:3], [-np.inf if flush else np.log(1e-40), -np.inf, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["exp", "sin", "power"])
def test_vectors(name):
    """A vector of doubles gives what its lanes give, in one function without a loop."""
    module = Module()
    function = module.function("f", params=[("ptr", "x")])
    b = Builder(function)
    vector = b.load("<4 x double>", function.args[0], align=8)
    operands = [vector, const("<4 x double>", 1.5)] if name == "power" else [vector]
    b.store(math.call(b, name, operands), function.args[0], align=8)
    b.ret()
    machine = host_machine()
    engine = llvm.create_mcjit_compiler(optimize(module, machine), machine)
    x = np.array([0.5, 1e100 if name == "sin" else 2.0, 3.0, 0.0])
    want = {"exp": np.exp, "sin": np.sin, "power": lambda v: v**1.5}[name](x)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("f"))(x.ctypes.data)
    np.testing.assert_allclose(x, want, rtol=1e-15)
