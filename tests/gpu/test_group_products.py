"""Copies of tiles and products of warpgroups as PTX: ptxas takes them, and lets them run at their own pace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from emulated_kernels import Thread, written
from tile_kernels import Case, Product

from hloc.codegen.device_program import TensorMap
from hloc.codegen.gpu.group_products import check_registers, group_product
from hloc.codegen.gpu.tensor_maps import tensor_map_problem
from hloc.codegen.targets import ptxas
from hloc.codegen.targets.target import target_named
from hloc.errors import HloError
from hloc.options import Options

CASES = [
    Case(64, "f32.bf16.bf16"),
    Case(256, "f32.f16.f16", registers=True),
    Case(128, "f32.bf16.bf16", lhs_by_lines=True, rhs_by_lines=True),
    Case(128, "f32.tf32.tf32", stages=3),
    Case(96, "s32.u8.u8"),
    Case(64, "f32.e4m3.e5m2"),
]


def ptx(case: Case, write: Callable[[Thread], object] | None = None) -> str:
    """The kernel of a case."""
    target = target_named("sm_90a")
    module = written(write or (lambda t: Product(t, case).write()), target, 3, 1, case.shared_bytes(), 256, maps=2)
    return str(target.lower(str(module), "ptx", Options()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.names} {case.n}")
def test_ptxas_takes_products_of_warpgroups(case: Case) -> None:
    """The sums stay in registers from product to product: ptxas warns where it has to wait for each."""
    made = ptxas.assemble(ptx(case), "sm_90a")
    (use,) = made.kernels
    assert (use.spill_stores, use.spill_loads, made.warnings) == (0, 0, ())


def test_sums_that_are_touched_too_early_are_told() -> None:
    """So that the other test can fail."""

    def write(t: Thread) -> None:
        product = Product(t, CASES[0])
        wait = product.gpu.group_wait
        product.gpu.group_wait = lambda groups, sums: wait(groups, [t.b.fadd(x, x) for x in sums])
        product.write()

    (said,) = ptxas.assemble(ptx(CASES[0], write), "sm_90a").warnings
    assert "wgmma.mma_async instructions are serialized" in said


def test_products_that_no_machine_has() -> None:
    cases = (64, "f32.f16.bf16"), (260, "f32.f16.f16"), (40, "s32.s8.s8"), (64, "f32.f16"), (4, "f32.f16.f16")
    for n, names in cases:
        with pytest.raises(HloError, match=f"there is no wgmma m64n{n} of {names}"):
            group_product(n, names)
    with pytest.raises(HloError, match="takes operands by steps only"):
        group_product(64, "f32.tf32.tf32", rhs_by_lines=True)
    for count in (20, 100, 264):
        with pytest.raises(HloError, match=f"not {count}"):
            check_registers(count)


def test_maps_that_no_machine_takes() -> None:
    good = TensorMap(0, 0, 2, (100, 7), (208,), (64, 7))
    assert tensor_map_problem(good) is None
    for change, words in (
        ({"box": (32, 7)}, "rows of 32 elements of 2 bytes"),
        ({"box": (64, 257)}, "with a tile of"),
        ({"dims": (100, 0)}, "sizes"),
        ({"strides": (200,)}, "strides of"),
        ({"offset": 8}, "from 8 on"),
        ({"strides": ()}, "2 dims, 0 strides"),
        ({"itemsize": 3}, "elements of 3 bytes"),
    ):
        assert words in tensor_map_problem(good._replace(**change))


def test_who_has_products_of_warpgroups() -> None:
    has = {name: target_named(name).device.has_wgmma for name in ("sm_80", "sm_90", "sm_90a", "sm_100a", "sm_120")}
    assert has == {"sm_80": False, "sm_90": False, "sm_90a": True, "sm_100a": False, "sm_120": False}
    assert target_named("cuda-emulated:sm_90a").device.has_wgmma
