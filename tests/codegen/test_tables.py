"""The tables whose rows are loaded late: each row comes from the module that is said to be its home."""

from __future__ import annotations

from pathlib import Path

import pytest

from hloc.codegen import emitters
from hloc.codegen.gpu import emitters as gpu_emitters
from hloc.codegen.gpu.emitters import GPU_HOMES, GPU_KERNELS
from hloc.codegen.kernel import ELEMENTS, KERNELS
from hloc.codegen.math.functions import COMPLEX_FUNCTIONS, FUNCTIONS
from hloc.ir.opcodes import OPS
from hloc.lazy import Table, homes


@pytest.mark.parametrize("opcode", ELEMENTS)
def test_elements_are_at_home(opcode: str) -> None:
    assert opcode in OPS
    assert ELEMENTS[opcode].__module__ == emitters.ELEMENT_HOMES[opcode]


@pytest.mark.parametrize("opcode", KERNELS)
def test_kernels_are_at_home(opcode: str) -> None:
    assert opcode in OPS
    assert KERNELS[opcode].emit.__module__ == emitters.KERNEL_HOMES[opcode]


@pytest.mark.parametrize("opcode", GPU_KERNELS)
def test_device_kernels_are_at_home(opcode: str) -> None:
    assert opcode in OPS
    assert GPU_KERNELS[opcode].emit.__module__ == GPU_HOMES[opcode]


def test_devices_have_every_op_that_the_cpu_has() -> None:
    assert set(KERNELS) - set(ELEMENTS) <= set(GPU_KERNELS)


def test_every_emitter_is_a_home() -> None:
    named = {*emitters.ELEMENT_HOMES.values(), *emitters.KERNEL_HOMES.values()}
    for package, homes_named in ((emitters, named), (gpu_emitters, set(GPU_HOMES.values()))):
        files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
        assert {f"{package.__name__}.{name}" for name in files} == homes_named


@pytest.mark.parametrize("table", [FUNCTIONS, COMPLEX_FUNCTIONS])
def test_every_function_is_found(table: Table) -> None:
    assert all(table[name] is not None for name in table)


def test_a_row_without_a_home_is_refused() -> None:
    with pytest.raises(KeyError, match="x has no home"):
        Table(homes({"some.module": "a b"})).enter("x", 1)


def test_a_second_row_is_refused() -> None:
    table = Table(homes({"some.module": "a b"}))
    table.enter("a", 1)
    with pytest.raises(KeyError, match="a has two rows"):
        table.enter("a", 2)
    assert table["a"] == 1 and list(table) == ["a", "b"]
