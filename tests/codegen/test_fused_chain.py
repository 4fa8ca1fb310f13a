"""The promise of fusion: a chain of elementwise ops goes over memory once."""

from __future__ import annotations

import hloc

OPS = ("multiply", "add", "subtract", "maximum", "minimum")


def chain(length: int, size: int) -> str:
    """A program of that many elementwise ops, each on the result before and one of two arguments."""
    lines = [f"  v{i + 1} = f32[{size}] {OPS[i % len(OPS)]}({f'v{i}' if i else 'x'}, y)" for i in range(length)]
    lines[-1] = f"  ROOT {lines[-1].strip()}"
    parameters = f"  x = f32[{size}] parameter(0)\n  y = f32[{size}] parameter(1)\n"
    return f"HloModule chain\n\nENTRY main {{\n{parameters}" + "\n".join(lines) + "\n}\n"


def test_ten_ops_are_one_kernel_that_reads_and_writes_each_element_once() -> None:
    size = 100_000
    (kernel,) = hloc.compile(chain(10, size)).program.kernels
    assert kernel.bytes_read == 2 * 4 * size, "each element of both arguments is read once"
    assert kernel.bytes_written == 4 * size, "each element of the result is written once"


def test_the_kernel_needs_no_memory_beside() -> None:
    assert hloc.compile(chain(10, 100_000)).program.arena_bytes == 0
