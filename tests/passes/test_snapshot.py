"""What a snapshot tells of changes, and that looking at those alone finds every fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hloc.analysis.verifier import verify
from hloc.ir.computation import Computation
from hloc.ir.dtypes import dtype_named
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.passes.snapshot import Snapshot
from hloc.text.parser import parse
from hloc.text.printer import print_module

SAMPLES = sorted((Path(__file__).parent.parent.parent / "samples").glob("*.hlo"))
TEXT = """HloModule m

add {
  lhs = f32[] parameter(0)
  rhs = f32[] parameter(1)
  ROOT sum = f32[] add(lhs, rhs)
}

ENTRY main {
  x = f32[4] parameter(0)
  zero = f32[] constant(0)
  a = f32[4] all-reduce(x), replica_groups={}, to_apply=add
  b = f32[] reduce(a, zero), dimensions={0}, to_apply=add
  c = f32[4] negate(x)
  ROOT t = (f32[4], f32[], f32[4]) tuple(a, b, c)
}
"""


def found(module: Module, name: str) -> Instruction:
    return next(instruction for instruction in module.instructions() if instruction.name == name)


def swap(module: Module) -> None:
    module.entry.move_before(found(module, "c"), found(module, "b"))


CHANGES: dict[str, tuple[Callable[[Module], object], set[str]]] = {
    "a shape": (lambda m: setattr(found(m, "c"), "shape", array(dtype_named("f32"), 5)), {"c", "t"}),
    "an attribute": (lambda m: found(m, "b").attributes.update(dimensions=(1,)), {"b", "t"}),
    "an annotation": (lambda m: found(m, "c").annotations.update(backend_config="x"), {"c"}),
    "a name": (lambda m: setattr(found(m, "c"), "name", "d"), set()),
    "an operand": (lambda m: m.entry.set_operand(found(m, "c"), 0, found(m, "b")), {"c"}),
    "an operand for one of its shape": (lambda m: m.entry.set_operand(found(m, "c"), 0, found(m, "a")), set()),
    "a callee's root": (
        lambda m: setattr(m.computations["add"], "root", m.computations["add"].parameters[0]),
        {"a", "b"},
    ),
    "a callee's parameter": (
        lambda m: setattr(m.computations["add"].parameters[0], "shape", array(dtype_named("f64"))),
        {"lhs", "sum", "a", "b"},
    ),
    "an order": (swap, set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_affects_what_stands_on_it(name: str) -> None:
    change, names = CHANGES[name]
    module = parse(TEXT)
    before = Snapshot(module)
    assert before.again() == (before, None)
    change(module)
    after, difference = before.again()
    assert after is not before and difference is not None
    affected = difference.affected().instructions
    assert {instruction.name for instruction in affected} == names
    assert after.again() == (after, None)


def test_a_change_of_the_header_affects_all() -> None:
    module = parse(TEXT)
    before = Snapshot(module)
    module.replica_count = 2
    assert before.again()[1].affected() is None


def test_new_and_removed_instructions_are_differences() -> None:
    module = parse(TEXT)
    first = Snapshot(module)
    module.entry.add(Instruction("negate", module.entry.parameters[0].shape, [module.entry.parameters[0]]))
    second, difference = first.again()
    assert [i.name for i in difference.changed] == ["negate"] and not difference.gone
    assert second.instruction_count == first.instruction_count + 1
    module.entry.remove(found(module, "negate"))
    third, difference = second.again()
    assert difference.changed == () and [i.name for i in difference.gone] == ["negate"]
    assert difference.affected().computations == {module.entry}
    assert third.instruction_count == first.instruction_count


def test_an_earlier_state_is_had_back() -> None:
    module = parse(TEXT)
    text = print_module(module)
    before = Snapshot(module)
    module.entry.replace_uses(found(module, "c"), found(module, "x"))
    module.entry.remove(found(module, "c"))
    after, _ = before.again()
    assert print_module(before.restored()) == text
    assert print_module(after.restored()) == print_module(module)


def damage(module: Module, draw: np.random.Generator, edited: set[Instruction]) -> None:
    """Break something, at random: a shape, an opcode, an attribute, an operand, a root, an edge.

    Operands are changed by hand, which leaves the users as they were, where nothing else has changed them.
    """
    instructions = list(module.instructions())
    victim = instructions[draw.integers(len(instructions))]
    other = instructions[draw.integers(len(instructions))]
    computation: Computation = victim.computation
    kind = draw.integers(6)
    if kind == 0:
        victim.shape = other.shape
    elif kind == 1:
        victim.opcode = other.opcode
    elif kind == 2:
        victim.attributes = dict(other.attributes)
    elif kind == 3 and victim.operands and victim not in edited:
        edited.add(victim)
        computation.set_operand(victim, int(draw.integers(len(victim.operands))), other)
    elif kind == 4:
        computation.root = computation.instructions[draw.integers(len(computation))]
    elif victim not in edited:
        edited.add(victim)
        victim.operands = list(other.operands)


def test_looking_at_changes_alone_finds_every_fault() -> None:
    broken = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        module = parse(TEXT if seed % 4 == 0 else SAMPLES[seed % len(SAMPLES)].read_text())
        before = Snapshot(module)
        edited: set[Instruction] = set()
        for _ in range(1 + seed % 3):
            damage(module, draw, edited)
        _, difference = before.again()
        every = [str(fault) for fault in verify(module)]
        found = [] if difference is None else [str(fault) for fault in verify(module, difference.affected())]
        assert found == every, f"seed {seed}"
        broken += bool(every)
    assert broken > 30
