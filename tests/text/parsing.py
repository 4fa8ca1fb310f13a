"""Short programs for the tests of the parser."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.text.parser import parse

ADD = "add { a = f32[] parameter(0) b = f32[] parameter(1) ROOT c = f32[] add(a, b) }\n"


def body(lines: str, before: str = "", head: str = "HloModule m") -> Module:
    """A module whose entry has these lines."""
    return parse(f"{head}\n{before}ENTRY e {{\n{lines}\n}}\n")


def root(lines: str, before: str = "") -> Instruction:
    """The root of an entry of these lines."""
    return body(lines, before).entry.root


def unary(attributes: str, opcode: str = "exponential") -> Instruction:
    """An op on `p`, f32[4,6], with attributes."""
    return root(f"  p = f32[4,6] parameter(0)\n  ROOT r = f32[4,6] {opcode}(p), {attributes}")


def names(module: Module) -> dict[str, list[str]]:
    """The instructions' names by computation, in order."""
    return {computation.name: [i.name for i in computation] for computation in module}
