"""Turns of long sorts: chunks of one turn may come in any order, whatever the memory has held before."""

from __future__ import annotations

import ctypes
from itertools import permutations

import numpy as np
import pytest

from hloc.codegen.llvm import Builder, Module, integer
from hloc.codegen.long_sort import Entries, LongSort
from hloc.codegen.routines import i64
from hloc.codegen.targets.target import target_named
from hloc.ir.dtypes import U32
from hloc.options import Options
from hloc.runtime import elf

SIZE, CHUNKS, BITS = 1001, 3, 32


def turns() -> tuple[elf.Loaded, object]:
    """`run(first, second, memory, turn, chunk)`, which gives where the entries are."""
    target = target_named("cpu")
    module = Module("turns", target.triple, target.data_layout)
    params = [*(("ptr", name) for name in ("first", "second", "memory")), ("i64", "turn"), ("i64", "chunk")]
    function = module.function("run", "ptr", params, target.function_attributes)
    b = Builder(function)
    first, second, memory, turn, chunk = function.args
    long = LongSort(Entries(b, [U32], SIZE), BITS, CHUNKS, first, second, memory)

    def key(entry: list) -> object:
        return entry[0]

    with b.if_then(b.icmp_signed("==", turn, i64(0))):
        long.begin(chunk, integer("i32", 0))
    is_even = b.icmp_signed("==", b.and_(turn, i64(1)), i64(0))
    with b.if_then(b.icmp_signed("<", turn, i64(LongSort.turns(BITS) - 1))):
        b.if_else(is_even, lambda: long.count(turn, chunk, key), lambda: long.move(turn, chunk, key))
    b.ret(long.place(turn))
    loaded = elf.Loaded(target.lower(str(module), "obj", Options()))
    kind = ctypes.CFUNCTYPE(ctypes.c_void_p, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)
    return loaded, kind(loaded.address("run"))


@pytest.mark.parametrize("order", list(permutations(range(CHUNKS))), ids=str)
def test_any_order_of_chunks(order: tuple[int, ...]) -> None:
    loaded, run = turns()
    values = np.random.default_rng(4).integers(0, 1 << 32, SIZE, np.uint32)
    arrays = values.copy(), np.zeros(SIZE, np.uint32)
    memory = np.full(LongSort.scratch_bytes, 0xFF, np.uint8)
    places = [array.ctypes.data for array in (*arrays, memory)]
    for turn in range(LongSort.turns(BITS)):
        found = [run(*places, turn, chunk) for chunk in order]
    np.testing.assert_array_equal(arrays[places.index(found[0])], np.sort(values))
    assert loaded
