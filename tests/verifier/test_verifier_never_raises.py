"""Whatever a module has become, the verifier lists faults; it never fails itself."""

import random
from pathlib import Path

import pytest

from hloc.analysis.verifier import Diagnostic, verify
from hloc.ir.attributes import PadDim, SliceDim, Window, WindowDim
from hloc.ir.dtypes import ALL
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import TOKEN_SHAPE, UNBOUNDED, ArrayShape, Layout, TupleShape
from hloc.text.parser import parse

FILES = sorted(Path(__file__).parent.glob("*.hlo"))
SIZES = (UNBOUNDED, 0, 1, 2, 3, 4, 7, 2**40)


def some_shape(random, depth=0):
    kind = random.randrange(6)
    if kind == 0 and depth < 2:
        return TupleShape(tuple(some_shape(random, depth + 1) for _ in range(random.randrange(3))))
    if kind == 1:
        return TOKEN_SHAPE
    dims = tuple(random.choice(SIZES) for _ in range(random.randrange(5)))
    order = tuple(random.sample(range(len(dims)), len(dims)))
    dynamic = tuple(size == UNBOUNDED or random.random() < 0.2 for size in dims)
    return ArrayShape(random.choice(ALL), dims, random.choice([None, Layout(order)]), dynamic)


def some_value(random, row):
    numbers = tuple(random.choice((-1, 0, 1, 2, 3, 5, 2**40)) for _ in range(random.randrange(8)))
    return {
        "dims": numbers,
        "int": random.choice((-1, 0, 1, 2, 100)),
        "enum": random.choice(row.choices) if row.choices else "",
        "slice": tuple(SliceDim(a, a + 1, a) for a in numbers),
        "padding": tuple(PadDim(a, -a, a) for a in numbers),
        "window": Window(tuple(WindowDim(a, a, a, -a, a, a) for a in numbers)),
        "lists": (numbers, numbers),
    }.get(row.kind)


def corrupt(module, random):
    """One change that no method of Computation would make."""
    instructions = list(module.instructions())
    instruction = random.choice(instructions)
    kind = random.randrange(7)
    if kind == 0:
        instruction.shape = some_shape(random)
    elif kind == 1 and instruction.op.attributes:
        row = random.choice(list(instruction.op.attributes.values()))
        instruction.attributes[row.name] = some_value(random, row)
    elif kind == 2:
        instruction.operands = [random.choice(instructions) for _ in range(random.randrange(5))]
    elif kind == 3:
        instruction.opcode = random.choice(list(OPS))
    elif kind == 4:
        random.choice(list(module)).root = random.choice([None, *instructions])
    elif kind == 5 and instruction.called:
        instruction.replace_called(instruction.called[0], random.choice(list(module)))
    elif kind == 6 and instruction.attributes:
        instruction.attributes.pop(next(iter(instruction.attributes)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_lists_faults_of_corrupted_modules(file):
    for seed in range(8):
        chance = random.Random(f"{file.stem} {seed}")
        module = parse(file.read_text(), file.name)
        for _ in range(chance.randrange(1, 5)):
            corrupt(module, chance)
        for fault in verify(module):
            assert isinstance(fault, Diagnostic)
            assert fault.label and fault.message in str(fault)
