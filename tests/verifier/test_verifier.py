"""Each .hlo file here breaks the invariant it is named for, and says first what the verifier must find.

`broken_graphs` has the faults that no text can have: made on the graph, by a careless pass or builder.
"""

from pathlib import Path

import pytest
from broken_graphs import BROKEN, REFUSED, convolution

from hloc.analysis.verifier import INVARIANTS, verify
from hloc.errors import HloError
from hloc.text.parser import parse

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.hlo"))


def expectations(text):
    """The (label, fragment of the message) pairs of the lines `// expect LABEL: fragment`."""
    lines = [line.removeprefix("// expect ") for line in text.splitlines() if line.startswith("// expect ")]
    return sorted(tuple(line.split(": ", 1)) for line in lines)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_what_is_broken(file):
    text = file.read_text()
    expected = expectations(text)
    faults = sorted(verify(parse(text, file.name)), key=lambda fault: fault.label)
    assert [fault.label for fault in faults] == [label for label, _ in expected]
    for fault, (_, fragment) in zip(faults, expected, strict=True):
        assert fragment in fault.message
    assert file.stem.upper() in [fault.label for fault in faults]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_points_at_the_place(file):
    for fault in verify(parse(file.read_text(), file.name)):
        if fault.span is None:
            assert fault.label.startswith("MODULE_")
        else:
            assert str(fault).startswith(f"{file.name}:{fault.span.source.position(fault.span.start)[0]}:")
            assert f"[{fault.label}]" in str(fault)


def test_every_invariant_has_a_test():
    tested = {file.stem.upper() for file in FILES} | set(BROKEN) | set(REFUSED)
    assert tested == set(INVARIANTS)


def test_all_faults_are_reported_in_order_of_the_text():
    module = parse(
        """HloModule m

        ENTRY main {
          a = f32[4] parameter(0)
          b = s32[4] parameter(1)
          c = f32[4] add(a, b)
          d = f32[5] negate(c)
          ROOT e = pred[4] is-finite(b)
        }
        """
    )
    assert [fault.label for fault in verify(module)] == ["TYPE_C2", "SHAPE_C1", "TYPE_C1"]


@pytest.mark.parametrize("label", BROKEN)
def test_names_what_is_broken_in_a_graph(label):
    faults = verify(BROKEN[label]())
    assert {fault.label for fault in faults} == {label}


@pytest.mark.parametrize("label", REFUSED)
def test_inference_is_refused(label):
    with pytest.raises(HloError) as caught:
        REFUSED[label]()
    assert caught.value.label == label


def test_a_built_module_is_good():
    assert verify(convolution()) == []
