"""Whole kernels of tiles, barriers and products of warpgroups on the emulator; and what of them is needed."""

from __future__ import annotations

import numpy as np
import pytest
from emulated_kernels import Prepared, Thread, i32
from test_emulator_groups import DTYPES, multiplied, random
from test_emulator_tiles import ARCH
from tile_kernels import Case, Product

from hloc.codegen.gpu.emulated import EmulatedIntrinsics
from hloc.codegen.llvm import Value
from hloc.errors import HloError


def run_case(case: Case, tiles: int = 3, ragged: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel of a case makes, and what it should; the last tile lacks some steps."""
    depth = case.steps * tiles - ragged
    rng, (of_sums, of_lhs, of_rhs) = np.random.default_rng(1), case.product.types
    lhs, rhs = random(rng, of_lhs, 64, depth), random(rng, of_rhs, case.n, depth)
    given = [
        np.ascontiguousarray(side.T) if by_lines else side
        for side, by_lines in ((lhs, case.lhs_by_lines), (rhs, case.rhs_by_lines))
    ]
    out = np.zeros((64, case.n), DTYPES[of_sums])
    kernel = Prepared(lambda t: Product(t, case).write(), 3, 1, case.shared_bytes(), 256, maps=2, arch=ARCH)
    kernel.run([*given, out], 256, scalars=[tiles], maps=case.maps(depth))
    return out, multiplied(lhs, rhs, of_lhs)


@pytest.mark.parametrize(
    "case, ragged",
    [
        (Case(64, "f32.bf16.bf16"), 24),
        (Case(256, "f32.f16.f16", registers=True), 0),
        (Case(128, "f32.bf16.bf16", lhs_by_lines=True, rhs_by_lines=True), 7),
        (Case(40, "f32.tf32.tf32", stages=3), 4),
        (Case(16, "s32.u8.u8"), 48),
    ],
    ids=lambda value: value.names if isinstance(value, Case) else str(value),
)
def test_kernels(case: Case, ragged: int) -> None:
    np.testing.assert_allclose(*run_case(case, ragged=ragged), rtol=1e-5, atol=2e-4)


WAITS = {
    "barrier": 1, "barriers_made": 1, "barrier_expect": 1, "barrier_arrive": 1, "barrier_wait": 2, "copy_tile": 2,
    "group_begin": 1, "group_commit": 1, "group_wait": 1,
}  # fmt: skip


@pytest.mark.parametrize("name, number", [(name, number) for name, count in WAITS.items() for number in range(count)])
def test_nothing_may_be_left_out(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kernel as it is written, one by one."""
    original, count = getattr(EmulatedIntrinsics, name), 0

    def once_without(self, *arguments, **more):
        nonlocal count
        count += 1
        if count - 1 != number:
            return original(self, *arguments, **more)
        return arguments[-1] if name in ("group_begin", "group_wait") else None

    monkeypatch.setattr(EmulatedIntrinsics, name, once_without)
    with pytest.raises(HloError, match=r"kernel k \(%add.1\), block \(0, 0, 0\)"):
        run_case(Case(8, "f32.bf16.bf16"), tiles=5)
    assert count == WAITS[name]


def test_all_warps_wait_for_tiles() -> None:
    case = Case(8, "f32.bf16.bf16")

    def write(t: Thread) -> None:
        wait = t.gpu.barrier_wait

        def of_some(place: Value, parity: Value) -> None:
            with t.b.if_then(t.b.icmp_signed("<", t.gpu.thread(), i32(224))):
                wait(place, parity)

        t.gpu.barrier_wait = of_some
        Product(t, case).write()

    kernel = Prepared(write, 3, 1, case.shared_bytes(), 256, maps=2, arch=ARCH)
    with pytest.raises(HloError, match="multiplies matrices .* and a copy of a tile writes it too"):
        kernel.run([np.zeros((n, 64), np.uint16) for n in (64, 8, 16)], 256, scalars=[1], maps=case.maps(64))
