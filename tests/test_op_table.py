"""Every row of the op table is whole: a rule, an evaluator, attributes of known kinds, a meaning."""

import pytest

from hloc.analysis import verify_attributes
from hloc.ir import opcodes
from hloc.ir.opcodes import COMMON, OPS
from hloc.ir.shape_inference import RULES
from hloc.reference.table import FUNCTIONS, GENERATORS

KINDS = {value for name, value in vars(opcodes).items() if name.isupper() and isinstance(value, str)}
# A parameter is given; an async-start is evaluated by what it calls.
EVALUATED = {*FUNCTIONS, *GENERATORS, "parameter"}


def test_there_are_136_opcodes():
    assert len(OPS) == 136
    assert sum(op.has(opcodes.NEW) for op in OPS.values()) == 3


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
class TestRow:
    def test_is_whole(self, op):
        assert OPS[op.name] is op
        assert op.meaning and not op.meaning.endswith(".")
        least, most = op.arity
        assert least >= 0 and (most is None or most >= least)

    def test_has_a_shape_rule(self, op):
        assert op.rule in RULES

    def test_has_an_evaluator(self, op):
        assert op.name in EVALUATED

    def test_has_attributes_that_can_be_checked(self, op):
        for name, row in op.attributes.items():
            assert row.name == name
            assert row.kind in KINDS
            assert row.kind in verify_attributes.FITS
            assert name not in COMMON
            assert not (row.required and row.default is not None)
            if row.kind in (opcodes.ENUM, opcodes.ENUMS):
                assert row.choices
                assert row.default is None or row.default in row.choices

    def test_traits_agree(self, op):
        if op.has(opcodes.COMMUTATIVE):
            assert op.arity == (2, 2) and op.is_elementwise
        if op.has(opcodes.CALLS):
            kinds = {row.kind for row in op.attributes.values()}
            assert kinds & {opcodes.COMPUTATION, opcodes.COMPUTATIONS}


def test_every_rule_is_of_use():
    assert set(RULES) == {op.rule for op in OPS.values()}


def test_evaluators_are_those_of_the_table():
    assert set(OPS) == EVALUATED
