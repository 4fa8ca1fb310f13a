"""What the tests of the emitters share: programs of a few ops, run natively and by the evaluator."""

from __future__ import annotations

import numpy as np

import hloc
from hloc.ir.attributes import WindowDim
from hloc.ir.dtypes import dtype_named
from hloc.options import Options
from hloc.reference.evaluate import evaluate, evaluate_replicated
from hloc.text.parser import parse_shape

NONE = Options(pipeline="none")

TOLERANCES = {"f64": 1e-12, "c128": 1e-12, "f32": 2e-5, "c64": 2e-5, "f16": 4e-3, "bf16": 3e-2}


def computation(name: str, opcode: str, dtype: str) -> str:
    """A computation of two scalars that is one op; `opcode` may end in attributes."""
    op, _, attributes = opcode.partition(" ")
    result = "pred" if op == "compare" else dtype
    return (
        f"{name} {{\n  a = {dtype}[] parameter(0)\n  b = {dtype}[] parameter(1)\n"
        f"  ROOT r = {result}[] {op}(a, b){', ' + attributes if attributes else ''}\n}}\n\n"
    )


def program(parameters: list[str], ops: list[str], computations: str = "") -> str:
    """A module that gives the results of some ops of its parameters p0, p1, ...; an op is `shape
    opcode(...)`.

    An op may use the ones before it as r0, r1, ...
    """
    lines = [f"  p{i} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
    lines += [f"  r{i} = {op}" for i, op in enumerate(ops)]
    shapes = ", ".join(_result_shape(op) for op in ops)
    names = ", ".join(f"r{i}" for i in range(len(ops)))
    root = f"  ROOT results = ({shapes}) tuple({names})"
    return f"HloModule cases\n\n{computations}ENTRY main {{\n" + "\n".join([*lines, root]) + "\n}\n"


def _result_shape(op: str) -> str:
    depth = 0
    for position, character in enumerate(op):
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            return op[:position]
    raise ValueError(op)


def window_sizes(sizes: str, window: str) -> str:
    """Sizes of the array of windows over dimensions of the given sizes, both as in `5,6`."""
    keys = dict(part.split("=") for part in window.split())
    whole = [int(size) for size in sizes.split(",")]
    ones = "x".join("1" for _ in whole)
    columns = [keys.get(key, ones).split("x") for key in ("size", "stride", "lhs_dilate", "rhs_dilate")]
    pads = keys.get("pad", "x".join("0_0" for _ in whole)).split("x")
    result = []
    for size, pad, *numbers in zip(whole, pads, *columns, strict=True):
        window_size, stride, base, dilation = map(int, numbers)
        low, high = map(int, pad.split("_"))
        dimension = WindowDim(window_size, stride, low, high, base, dilation)
        result.append(str(dimension.output_size(size)))
    return ",".join(result)


def value(shape: str, seed: int = 0) -> np.ndarray:
    """Random numbers of a shape, in its layout: small integers for integers, both signs where there are
    signs.
    """
    array_shape = parse_shape(shape)
    generator = np.random.default_rng([seed, *array_shape.dims])
    numbers = generator.standard_normal(array_shape.dims)
    dtype = array_shape.dtype
    if dtype.is_complex:
        numbers = numbers + 1j * generator.standard_normal(array_shape.dims)
    if dtype.name == "pred":
        return np.asarray(numbers > 0)
    if dtype.is_integer:
        numbers = np.abs(numbers * 9) if dtype.is_unsigned else numbers * 9
    order = array_shape.minor_to_major[::-1]
    dense = np.ascontiguousarray(np.asarray(numbers).transpose(order)).astype(dtype.numpy)
    return dense.transpose(np.argsort(order)) if order else dense.reshape(())


def same(got: np.ndarray, wanted: np.ndarray, tolerance: float | None = None, what: object = "") -> None:
    """Asserts that arrays are equal: integers exactly, others within a tolerance, relative to the greatest
    element.
    """
    assert got.shape == wanted.shape and got.dtype == wanted.dtype, what
    name = next((name for name in TOLERANCES if dtype_named(name).numpy == got.dtype), None)
    if name is None and tolerance is None:
        assert np.array_equal(got, wanted), what
        return
    wide = np.complex128 if got.dtype.kind == "c" else np.float64
    got, wanted = got.astype(wide), wanted.astype(wide)
    finite = np.abs(wanted[np.isfinite(wanted)])
    scale = max(1.0, finite.max(initial=0.0))
    bound = (TOLERANCES[name] if tolerance is None else tolerance) * scale
    with np.errstate(invalid="ignore"):
        close = (np.abs(got - wanted) <= bound) | (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    assert close.all(), f"{what}: {got[~close][:3]} for {wanted[~close][:3]}"


def check(
    parameters: list[str],
    ops: list[str],
    computations: str = "",
    arguments: list[np.ndarray] | None = None,
    tolerance: float | None = None,
    target: str = "cpu",
) -> list[np.ndarray]:
    """Runs a program on a target, without passes, and by the evaluator; the results, which must be the same."""
    text = program(parameters, ops, computations)
    if arguments is None:
        arguments = [value(shape, number) for number, shape in enumerate(parameters)]
    with np.errstate(all="ignore"):
        expected = [np.asarray(result) for result in evaluate(hloc.parse(text), arguments)]
    got = hloc.compile(text, target, NONE).execute(*arguments)
    leaves = [op for op in ops for _ in parse_shape(_result_shape(op)).leaves()]
    for op, result, wanted in zip(leaves, got, expected, strict=True):
        same(result, wanted, tolerance, op)
    return got


def collective(parameters: list[str], root: str, replicas: int, partitions: int) -> str:
    """A program for several devices of f32 parameters and a root; `add` is a computation in it."""
    lines = [f"  p{i} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
    header = f"HloModule m, replica_count={replicas}, num_partitions={partitions}\n\n"
    return header + computation("add", "add", "f32") + "ENTRY main {\n" + "\n".join([*lines, root]) + "\n}\n"


def check_collective(
    parameters: list[str], root: str, replicas: int = 4, partitions: int = 1, arguments=None, target: str = "cpu"
) -> None:
    """Fails unless each device's results are the evaluator's, at the first run and at the second."""
    text = collective(parameters, root, replicas, partitions)
    if arguments is None:
        arguments = [
            [value(shape, 100 * device + i) for i, shape in enumerate(parameters)]
            for device in range(replicas * partitions)
        ]
    expected = evaluate_replicated(hloc.parse(text), arguments)
    executable = hloc.compile(text, target, NONE)
    for _ in range(2):
        for got, wanted in zip(executable.execute_replicated(arguments), expected, strict=True):
            for result, right in zip(got, wanted, strict=True):
                same(result, np.asarray(right), what=root)
