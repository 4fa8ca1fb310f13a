"""Large values that are copied as they are, by several threads."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.options import Options

SAME = """HloModule m
ENTRY e {
  x = u8[SIZE] parameter(0)
  ROOT t = (u8[SIZE], u8[SIZE]) tuple(x, x)
}"""


def compiled(size: int, **options: object) -> hloc.Executable:
    return hloc.compile(SAME.replace("SIZE", str(size)), options=Options(cache=False, **options))


@pytest.mark.parametrize("size", [1 << 20, (3 << 20) + 1, (5 << 20) - 1])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_byte_is_copied(size: int, threads: int) -> None:
    executable = compiled(size, num_threads=threads)
    assert executable.program.threads == threads
    x = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    for result in executable.execute(x):
        np.testing.assert_array_equal(result, x)
        assert not np.shares_memory(result, x)


@pytest.mark.parametrize(("size", "options"), [((1 << 20) - 1, {}), (1 << 20, {"guard_pages": "end"})])
def test_which_are_not_shared(size: int, options: dict) -> None:
    assert compiled(size, num_threads=2, **options).program.threads == 1
