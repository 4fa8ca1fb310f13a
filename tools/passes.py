"""Passes to try on a program: each one alone, and random orders of them.

`variants("pass:each")` and its like (see KINDS) say what to try; `transformed` tries it. What comes out must mean
what the program meant, whatever the pass and the order: `tools.fuzz` and `tools.corpus` ask the evaluator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hloc.errors import HloError
from hloc.ir.clone import clone_module
from hloc.ir.module import Module
from hloc.passes.pipeline import ORDER, PASSES, run_pipeline

KINDS = ("pass:NAME", "pass:each", "order:NUMBER", "orders:COUNT")
_STEPS = 30


@dataclass(frozen=True)
class Variant:
    """Passes to run one after the other, under a name that `variants` takes."""

    name: str
    passes: tuple[str, ...]


def is_variant(text: str) -> bool:
    """Whether a text is of one of KINDS. Raises HloError or ValueError if it is, but names nothing."""
    known = text.partition(":")[0] in {kind.partition(":")[0] for kind in KINDS}
    return known and bool(list(variants(text)))


def variants(text: str, seed: int = 0) -> Iterator[Variant]:
    """What a text of KINDS stands for; `orders:COUNT` are as many orders, others for each seed."""
    kind, _, value = text.partition(":")
    if kind == "pass":
        yield from (alone(name) for name in (PASSES if value == "each" else (value,)))
    elif kind == "order":
        yield random_order(int(value))
    else:
        yield from (random_order(seed * int(value) + number) for number in range(int(value)))


def alone(name: str) -> Variant:
    if name not in PASSES:
        raise HloError(f"there is no pass named {name}")
    return Variant(f"pass:{name}", (name,))


def random_order(number: int) -> Variant:
    """Some passes in an order that keeps ORDER, some of them again and again; the same for a number."""
    draw = np.random.default_rng(number)
    open_, passes = list(PASSES), []
    while open_ and len(passes) < _STEPS:
        passes.append(open_[int(draw.integers(len(open_)))])
        # What should have come before may not come any more.
        closed = {earlier for earlier, later, _ in ORDER if later == passes[-1]}
        open_ = [name for name in open_ if name not in closed]
    return Variant(f"order:{number}", tuple(passes))


def transformed(module: Module, passes: Sequence[str]) -> Module | None:
    """What the passes make of the module, which stays as it is, or None if they have nothing to change.

    Raises HloError where a pass refuses the module, InternalError where one breaks it.
    """
    made = clone_module(module)
    return made if run_pipeline(made, list(passes)).changed else None


def live(results: Sequence[np.ndarray], module: Module) -> list[np.ndarray]:
    """The results of all devices as the program's caller has them.

    Where dynamic_padding has run, arrays of bounded sizes come out whole, each with its live sizes behind it.
    """
    if module.bounded_shapes is None:
        return list(results)
    rest, found = iter(results), []
    for _ in range(module.replica_count * module.num_partitions):
        for _, leaf in module.bounded_shapes[1].leaves():
            array = next(rest)
            sizes = [int(next(rest)) if leaf.is_dynamic_dim(d) else size for d, size in enumerate(leaf.dims)]
            found.append(array[tuple(map(slice, sizes))])
    return found
