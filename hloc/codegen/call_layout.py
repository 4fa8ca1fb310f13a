"""What the code of `call_stub` and the runtime have in common: the tables of 8-byte words through which they talk.

A call of an executable is one native function for all programs. The interpreter gives it the executable, in which
two words lie behind what Python keeps there (VECTORCALL_OFFSET): the function's address, and that of the program's
CALL table. All tables are filled by the runtime, and outlive the calls.

A block of the pool has a BLOCK_HEAD, whose address stands in the word before the block while that is in use. Blocks
belong to size classes (`size_class`). The table of the pool is POOL, followed by a ring of idle blocks for each class:
two words, the first and the last block.
"""

from __future__ import annotations

VECTORCALL_OFFSET = 64
"""Bytes from an executable's start to the address of the function that calls it; the CALL table's is next."""

HOST = (
    "array_type",  # ptr to numpy.ndarray
    "new_array",  # ptr to PyArray_NewFromDescr
    "handler",  # ptr to the capsule with the pool's functions, for arrays to give their memory back
    "none",  # ptr to None
    "slow",  # ptr to a Python function (executable, arguments, names): for whatever needs a closer look
    "failed",  # ptr to a Python function (executable, status) that raises
    "pool",  # ptr to POOL
)
"""One for the process."""

CALL = (
    "host",  # ptr to HOST
    "entry",  # ptr to the program's entry
    "constants",  # ptr
    "context",  # ptr
    "arena_class",  # i64: the size class of the arena; -1 if it lies on the stack
    "releases",  # i64: whether other Python threads go on meanwhile
    "parameters",  # ptr to rows of PARAMETER
    "parameter_count",  # i64
    "results",  # ptr to rows of RESULT
    "result_count",  # i64
    "structure",  # ptr to i64: how results become one value, see LEAF
    "structure_count",  # i64
    "words",  # i64: room that a call needs on the stack
    "arena_room",  # i64: bytes at its end for the arena, from a boundary of 64 bytes at most 64 before them on
    "donates",  # i64: whether results lie in the memory of arguments
)
"""One for a program."""

PARAMETER = (
    "dtype",  # ptr to the only numpy.dtype that fits
    "flags",  # i64: bits of the array's flags that must be set
    "rank",  # i64
    "dims",  # ptr to i64
    "strides",  # ptr to i64, in bytes; 0 where the flags say it
    "bytes",  # i64
    "is_donor",  # i64: whether a result is written into it, so that no other argument may reach there
)

RESULT = (
    "dtype",  # ptr
    "rank",  # i64
    "dims",  # ptr to i64
    "strides",  # ptr to i64, in bytes; 0 for row-major arrays
    "size_class",  # i64
    "donor",  # i64: the number of the argument that becomes this result; -1 for a new array
)

LEAF, TOKEN = -1, -2
"""Steps of a structure, which put the next result, or None, on a stack. Any other number is that of the values
on top of it that become a tuple."""

POOL = (
    "idle_bytes",  # i64: in blocks that nobody uses
    "most_bytes",  # i64: what these may come to; the ones idle for longest go
    "kept_bytes",  # i64: in large idle blocks that the system may not take
    "mappings",  # i64: how many there have been
    "newest",  # ptr: a ring of all idle blocks, in the order of time
    "oldest",  # ptr
)

BLOCK_HEAD = (
    "next",  # ptr: the ring of the block's class
    "previous",  # ptr
    "older",  # ptr: the ring of all idle blocks
    "newer",  # ptr
    "ring",  # ptr: the ring of the class itself
    "capacity",  # i64: bytes
    "mapping",  # ptr: what to unmap, 1 more if it counts in kept_bytes; 0 for blocks of the C library
    "block",  # ptr: the block of a mapping; for those of the C library, which lie right behind, the head itself
)

UNIT = 64
"""Classes are so many bytes apart at least; also the size of BLOCK_HEAD, and the alignment of blocks."""

MAPPED_BYTES = 1 << 20
"""Blocks from this size on are mapped on their own, at the boundary of a huge page."""

CLASS_COUNT = 304
"""For blocks up to 2**46 bytes."""

CALL_FUNCTION, ARRAY_FUNCTION, CLASS_FUNCTION, GIVE_BACK_FUNCTION = (
    "hloc_call",  # a vectorcallfunc
    "hloc_new_array",  # ptr (ptr host, ptr result_row): a new reference, or null with an exception
    "hloc_size_class",  # i64 (i64 bytes); CLASS_COUNT or more if there is none
    "hloc_give_back",  # void (ptr pool, i64 bytes): until no more are idle than that
)
HANDLER_FUNCTIONS = ("hloc_malloc", "hloc_calloc", "hloc_realloc", "hloc_free")
"""In the order in which NumPy's table of allocators has them."""


def at(table: tuple[str, ...], name: str) -> int:
    """Where a field lies in a table, in bytes."""
    return 8 * table.index(name)
