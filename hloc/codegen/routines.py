"""Functions that several kernels of a module call, each written the first time that one asks for it.

A routine takes sizes and strides as arguments, so that one body serves kernels of all shapes: large pieces of
code (packed matrix products, Fourier passes, barriers) are compiled once a module, or, as a part of it, once a
machine (`routine_objects.py`). What a routine does follows from its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from hloc.codegen.llvm import Builder, Function, Module, Value, integer
from hloc.codegen.targets.target import Target

Writer = Callable[[Builder, SimpleNamespace], Value | None]
"""Writes a body, given the parameters by name; what it gives is returned."""


OPTIMIZED, LIGHT, PLAIN, QUICK = "obj", "light-obj", "plain-obj", "quick-obj"
"""How code is compiled: with LLVM's passes; with them, but leaving out what code generation gains least by, since it
has little to do; without them, since it is written as they would leave it; or in the least time, since it mostly calls
others.
"""


def i64(number: int) -> Value:
    """An i64 known now."""
    return integer("i64", number)


class Routines:
    """The routines of one LLVM module, for one target."""

    def __init__(self, module: Module, target: Target):
        self.module = module
        self.target = target

    def get(
        self, name: str, params: str, write: Writer, result: str = "void", stage: str = OPTIMIZED, part: str = ""
    ) -> Function:
        """The function of that name; `params` as in LLVM's text, `ptr noalias a, i64 count`.

        Apart, it is compiled by the `stage`, together with others of its `part`, if that has a name: those must be
        what the same programs ask for in the same order.
        """
        part = part or name
        for module in (self.module, (self.module.parts or {}).get(part)):
            if module is not None and name in module.functions:
                return module.functions[name]
        split = [param.split() for param in params.split(",")]
        attributes = f"{self.target.function_attributes} noinline".strip()
        home = self.module.part(part, stage)
        linkage = "internal" if home is self.module else ""
        function = home.function(
            name, result, [(type, at, " ".join(rest)) for type, *rest, at in split], attributes, linkage
        )
        b = Builder(function)
        arguments = {param[-1]: value for param, value in zip(split, function.args, strict=True)}
        b.ret(write(b, SimpleNamespace(**arguments)))
        return function


def least(b: Builder, x: Value, y: Value) -> Value:
    """The lesser of two signed integers."""
    return b.select(b.icmp_signed("<", x, y), x, y)


@contextmanager
def blocks(b: Builder, size: Value, block: Value) -> Iterator[tuple[Value, Value]]:
    """A loop over the (start, size) of the blocks of 0 .. size - 1; the last one may be smaller."""
    count = b.udiv(b.sub(b.add(size, block), i64(1)), block)
    with b.for_loop(i64(0), count, unroll=False) as number:
        start = b.mul(number, block)
        yield start, least(b, block, b.sub(size, start))


def even_block(b: Builder, size: Value, most: int, unit: int) -> Value:
    """The size of blocks, `most` at most, of which the last one is little smaller than the others: whole `unit`s, as
    `most` is.
    """

    def divided(x: Value, y: Value) -> Value:
        return b.udiv(b.sub(b.add(x, y), i64(1)), y)

    each = divided(size, divided(size, i64(most)))
    return b.mul(divided(each, i64(unit)), i64(unit))
