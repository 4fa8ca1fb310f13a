"""The pool of memory, as LLVM IR: blocks that were used come back with their pages, which are what costs most.

A block of the right class that is idle is taken, the one used last first. Else small blocks come from the C library;
large ones are mapped, with huge pages where that is worth it: a page of 4 KiB costs a microsecond at its first use.
Beyond `most_bytes` of idle blocks, those go that were idle for longest. When it needs memory the system may take those
of _LAZY_BYTES or more (MADV_FREE), all but a share of `most_bytes`: every processor has to hear of what it may take,
for some 40 microseconds, so it is told of many blocks at a time, and seldom of those that are taken again soon.
Python's lock is the pool's: all functions run while it is held.
"""

from __future__ import annotations

import mmap

from hloc.codegen.call_layout import (
    BLOCK_HEAD,
    CLASS_COUNT,
    CLASS_FUNCTION,
    GIVE_BACK_FUNCTION,
    HANDLER_FUNCTIONS,
    MAPPED_BYTES,
    POOL,
    UNIT,
    at,
)
from hloc.codegen.llvm import Builder, Function, Module, Value, const

_HUGE_PAGE = 1 << 21
_SHIFTS, _SHIFT = 16, 4096 + UNIT
"""Mapped blocks begin at one of several distances from a huge page: the lines of a cache that elements of equal index
fall on would be the same for all arrays else."""
_LAZY_BYTES = 4 << 20
_KEPT_SHIFT = 3
"""Of `most_bytes`, an eighth may be in idle blocks that the system may not take."""

_NULL = const("ptr", 0)


def word(value: int) -> Value:
    """A constant of 8 bytes."""
    return const("i64", value)


def load(b: Builder, type: str, table: Value, offset: int) -> Value:
    """A field of a structure in memory."""
    return b.load(type, b.gep("i8", table, word(offset)))


def store(b: Builder, value: Value, table: Value, offset: int) -> None:
    """Sets a field of a structure in memory."""
    b.store(value, b.gep("i8", table, word(offset)))


def size_class(b: Builder, size: Value) -> Value:
    """The class of blocks for so many bytes: steps of UNIT up to 8 of them, then 8 steps for each power of two."""
    last = b.lshr(b.sub(b.select(b.icmp_unsigned(">", size, word(1)), size, word(1)), word(1)), word(6))
    log = b.sub(word(63), b.intrinsic("llvm.ctlz", "i64", [b.or_(last, word(1)), const("i1", 0)], overloads=["i64"]))
    shift = b.sub(log, word(3))
    octaves = b.add(b.shl(shift, word(3)), b.lshr(last, b.and_(shift, word(63))))
    return b.select(b.icmp_unsigned("<", last, word(8)), last, octaves)


def _capacity(b: Builder, number: Value) -> Value:
    """The bytes of blocks of a class."""
    octave = b.lshr(b.sub(number, word(8)), word(3))
    eighths = b.add(b.and_(number, word(7)), word(9))
    units = b.shl(eighths, b.and_(octave, word(63)))
    return b.mul(b.select(b.icmp_unsigned("<", number, word(8)), b.add(number, word(1)), units), word(UNIT))


class PoolCode:
    """Writes the functions of the pool into a module; `take` and `free` are for code beside them, or elsewhere."""

    def __init__(self, module: Module, attributes: str):
        self.module = module
        self.attributes = attributes
        self._release = self._write_release()
        self._allow_taking = self._write_allow_taking()
        self._give_back = self._write_give_back()
        self._mapped = self._write_mapped()
        self.take = self._write_take()
        self._write_size_class()
        self.free = self._write_handler()

    def _function(self, name: str, type: str, *params: tuple[str, str], outside: bool = False) -> Function:
        return self.module.function(name, type, params, self.attributes, "" if outside else "internal")

    def _write_release(self) -> Function:
        """Takes a block out of the lists of idle ones, and gives it to the system."""
        function = self._function("release", "void", ("ptr", "pool"), ("ptr", "head"))
        pool, head = function.args
        b = Builder(function)
        _take_out(b, pool, head)
        mapping = load(b, "ptr", head, at(BLOCK_HEAD, "mapping"))
        capacity = load(b, "i64", head, at(BLOCK_HEAD, "capacity"))
        free = self.module.declare("free", "void", ["ptr"])
        unmap = self.module.declare("munmap", "i32", ["ptr", "i64"])
        b.if_else(
            b.icmp_unsigned("==", mapping, _NULL),
            lambda: b.call(free, [head]) and None,
            lambda: b.call(unmap, [mapping, _mapped_bytes(b, capacity)]) and None,
        )
        b.ret()
        return function

    def _write_allow_taking(self) -> Function:
        """Tells the system of all blocks that count in `kept_bytes`, which is 0 then."""
        function = self._function("allow_taking", "void", ("ptr", "pool"))
        b = Builder(function)
        (pool,) = function.args
        ring = b.gep("i8", pool, word(at(POOL, "newest")))

        def advise(carried: list[Value]) -> list[Value]:
            head = b.gep("i8", carried[0], word(-at(BLOCK_HEAD, "older")))
            mapping = load(b, "i64", head, at(BLOCK_HEAD, "mapping"))
            store(b, b.and_(mapping, word(-2)), head, at(BLOCK_HEAD, "mapping"))
            with b.if_then(b.trunc(mapping, "i1")):
                self._advise(b, head, load(b, "i64", head, at(BLOCK_HEAD, "capacity")), "MADV_FREE")
            return [b.load("ptr", carried[0])]

        newest = b.load("ptr", ring)
        b.while_loop([newest], lambda carried: b.icmp_unsigned("!=", carried[0], ring), advise)
        store(b, word(0), pool, at(POOL, "kept_bytes"))
        b.ret()
        return function

    def _write_give_back(self) -> Function:
        function = self._function(GIVE_BACK_FUNCTION, "void", ("ptr", "pool"), ("i64", "most"), outside=True)
        pool, most = function.args
        b = Builder(function)
        ring = b.gep("i8", pool, word(at(POOL, "newest")))

        def is_too_much(_: list[Value]) -> Value:
            oldest = load(b, "ptr", pool, at(POOL, "oldest"))
            idle = load(b, "i64", pool, at(POOL, "idle_bytes"))
            return b.and_(b.icmp_unsigned(">", idle, most), b.icmp_unsigned("!=", oldest, ring))

        def release(_: list[Value]) -> list[Value]:
            oldest = load(b, "ptr", pool, at(POOL, "oldest"))
            b.call(self._release, [pool, b.gep("i8", oldest, word(-at(BLOCK_HEAD, "older")))])
            return []

        b.while_loop([], is_too_much, release)
        b.ret()
        return function

    def _write_mapped(self) -> Function:
        """The head of a new mapping for `capacity` bytes, in front of a huge page; null if there is no room."""
        function = self._function("map", "ptr", ("ptr", "pool"), ("i64", "capacity"))
        b = Builder(function)
        pool, capacity = function.args
        total = _mapped_bytes(b, capacity)
        map_memory = self.module.declare("mmap", "ptr", ["ptr", "i64", "i32", "i32", "i32", "i64"])
        access = const("i32", mmap.PROT_READ | mmap.PROT_WRITE)
        kind = const("i32", mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapping = b.ptrtoint(b.call(map_memory, [_NULL, total, access, kind, const("i32", -1), word(0)]), "i64")
        failed = b.icmp_unsigned("==", mapping, word(-1))
        with b.if_then(failed):
            b.ret(_NULL)
        start = b.and_(b.add(mapping, word(_HUGE_PAGE - 1 + UNIT)), word(-_HUGE_PAGE))
        number = load(b, "i64", pool, at(POOL, "mappings"))
        store(b, b.add(number, word(1)), pool, at(POOL, "mappings"))
        shift = b.add(b.mul(b.and_(number, word(_SHIFTS - 1)), word(_SHIFT)), word(UNIT))
        head = b.inttoptr(b.sub(start, word(UNIT)), "ptr")
        store(b, mapping, head, at(BLOCK_HEAD, "mapping"))
        store(b, b.add(start, shift), head, at(BLOCK_HEAD, "block"))
        self._advise(b, head, capacity, "MADV_HUGEPAGE")
        b.ret(head)
        return function

    def _advise(self, b: Builder, head: Value, capacity: Value, advice: str) -> None:
        """Tells the system of the pages of a mapped block, if it has that advice; refusal does no harm."""
        if hasattr(mmap, advice):
            advise = self.module.declare("madvise", "i32", ["ptr", "i64", "i32"])
            start = b.gep("i8", head, word(UNIT))
            end = b.add(b.ptrtoint(load(b, "ptr", head, at(BLOCK_HEAD, "block")), "i64"), capacity)
            size = _in_huge_pages(b, b.sub(end, b.ptrtoint(start, "i64")))
            b.call(advise, [start, size, const("i32", getattr(mmap, advice))])

    def _fresh(self, b: Builder, pool: Value, capacity: Value) -> Value:
        """The head of memory from the system, or null."""
        allocate = self.module.declare("aligned_alloc", "ptr", ["i64", "i64"])

        def of_library() -> Value:
            head = b.call(allocate, [word(UNIT), b.add(capacity, word(UNIT))])
            with b.if_then(b.icmp_unsigned("!=", head, _NULL)):
                store(b, _NULL, head, at(BLOCK_HEAD, "mapping"))
                store(b, head, head, at(BLOCK_HEAD, "block"))
            return head

        large = b.icmp_unsigned(">=", capacity, word(MAPPED_BYTES))
        return b.if_else(large, lambda: b.call(self._mapped, [pool, capacity]), of_library)

    def _write_take(self) -> Function:
        """The address of a block of a class; null if there is no memory."""
        function = self._function("hloc_take", "ptr", ("ptr", "pool"), ("i64", "class"), outside=True)
        pool, number = function.args
        b = Builder(function)
        with b.if_then(b.icmp_unsigned(">=", number, word(CLASS_COUNT))):
            b.ret(_NULL)
        ring = b.gep("i8", pool, b.add(b.shl(number, word(4)), word(8 * len(POOL))))
        idle = b.load("ptr", ring)
        with b.if_then(b.icmp_unsigned("!=", idle, ring)):
            _take_out(b, pool, idle)
            b.ret(_block(b, idle))
        capacity = _capacity(b, number)
        first = self._fresh(b, pool, capacity)

        def again() -> Value:
            b.call(self._give_back, [pool, word(0)])
            return self._fresh(b, pool, capacity)

        head = b.if_else(b.icmp_unsigned("==", first, _NULL), again, lambda: first)
        with b.if_then(b.icmp_unsigned("==", head, _NULL)):
            b.ret(_NULL)
        store(b, ring, head, at(BLOCK_HEAD, "ring"))
        store(b, capacity, head, at(BLOCK_HEAD, "capacity"))
        b.ret(_block(b, head))
        return function

    def _write_size_class(self) -> None:
        function = self._function(CLASS_FUNCTION, "i64", ("i64", "size"), outside=True)
        b = Builder(function)
        b.ret(size_class(b, function.args[0]))

    # What NumPy calls: the first argument is the pool

    def _write_handler(self) -> Function:
        malloc, calloc, realloc, free = HANDLER_FUNCTIONS
        give = self._write_free(free)
        new = self._function(malloc, "ptr", ("ptr", "pool"), ("i64", "size"), outside=True)
        b = Builder(new)
        b.ret(b.call(self.take, [new.args[0], size_class(b, new.args[1])]))
        self._write_calloc(calloc)
        self._write_realloc(realloc, give)
        return give

    def _write_calloc(self, name: str) -> None:
        params = ("ptr", "pool"), ("i64", "count"), ("i64", "item")
        function = self._function(name, "ptr", *params, outside=True)
        b = Builder(function)
        pool, count, item = function.args
        size = b.mul(count, item)
        block = b.call(self.take, [pool, size_class(b, size)])
        with b.if_then(b.icmp_unsigned("!=", block, _NULL)):
            b.memset(block, const("i8", 0), size)
        b.ret(block)

    def _write_realloc(self, name: str, free: Function) -> None:
        params = ("ptr", "pool"), ("ptr", "old"), ("i64", "size")
        function = self._function(name, "ptr", *params, outside=True)
        b = Builder(function)
        pool, old, size = function.args
        new = b.call(self.take, [pool, size_class(b, size)])
        either = b.or_(b.icmp_unsigned("==", new, _NULL), b.icmp_unsigned("==", old, _NULL))
        with b.if_then(either):
            b.ret(new)
        held = load(b, "i64", load(b, "ptr", old, -8), at(BLOCK_HEAD, "capacity"))
        b.memcpy(new, old, b.select(b.icmp_unsigned("<", held, size), held, size))
        b.call(free, [pool, old, held])
        b.ret(new)

    def _write_free(self, name: str) -> Function:
        params = ("ptr", "pool"), ("ptr", "block"), ("i64", "size")
        function = self._function(name, "void", *params, outside=True)
        b = Builder(function)
        pool, block, _ = function.args
        with b.if_then(b.icmp_unsigned("==", block, _NULL)):
            b.ret()
        head = load(b, "ptr", block, -8)
        capacity = load(b, "i64", head, at(BLOCK_HEAD, "capacity"))
        _put(b, load(b, "ptr", head, at(BLOCK_HEAD, "ring")), head)
        _put(b, b.gep("i8", pool, word(at(POOL, "newest"))), b.gep("i8", head, word(at(BLOCK_HEAD, "older"))))
        idle = b.add(load(b, "i64", pool, at(POOL, "idle_bytes")), capacity)
        store(b, idle, pool, at(POOL, "idle_bytes"))
        most = load(b, "i64", pool, at(POOL, "most_bytes"))
        with b.if_then(b.icmp_unsigned(">=", capacity, word(_LAZY_BYTES))):
            mapping = load(b, "i64", head, at(BLOCK_HEAD, "mapping"))
            store(b, b.or_(mapping, word(1)), head, at(BLOCK_HEAD, "mapping"))
            kept = b.add(load(b, "i64", pool, at(POOL, "kept_bytes")), capacity)
            store(b, kept, pool, at(POOL, "kept_bytes"))
            with b.if_then(b.icmp_unsigned(">", kept, b.lshr(most, word(_KEPT_SHIFT)))):
                b.call(self._allow_taking, [pool])
        with b.if_then(b.icmp_unsigned(">", idle, most)):
            b.call(self._give_back, [pool, most])
        b.ret()
        return function


def _mapped_bytes(b: Builder, capacity: Value) -> Value:
    """The size of a mapping for a block: with room to begin at a huge page, shifted, and to end with one."""
    last = b.add(capacity, word(_SHIFTS * _SHIFT + 2 * _HUGE_PAGE - 1))
    return b.add(b.and_(last, word(-_HUGE_PAGE)), word(UNIT))


def _block(b: Builder, head: Value) -> Value:
    """The block of a head, in use from now on."""
    block = load(b, "ptr", head, at(BLOCK_HEAD, "block"))
    behind = b.gep("i8", head, word(UNIT))
    block = b.select(b.icmp_unsigned("==", block, head), behind, block)
    store(b, head, block, -8)
    return block


def _in_huge_pages(b: Builder, size: Value) -> Value:
    """The bytes of a mapping that are to lie in huge pages: the last page only if half of it is used."""
    half = _HUGE_PAGE // 2
    return b.select(
        b.icmp_unsigned("<=", b.and_(b.sub(word(0), size), word(_HUGE_PAGE - 1)), word(half)),
        b.and_(b.add(size, word(_HUGE_PAGE - 1)), word(-_HUGE_PAGE)),
        size,
    )


def _put(b: Builder, ring: Value, node: Value) -> None:
    """Makes a node the first of a ring; nodes and rings are two words, next and previous."""
    first = b.load("ptr", ring)
    b.store(first, node)
    store(b, ring, node, 8)
    store(b, node, first, 8)
    b.store(node, ring)


def _take_out(b: Builder, pool: Value, head: Value) -> None:
    """A block is idle no more, and does not count as one."""
    for ring in ("next", "older"):
        following = load(b, "ptr", head, at(BLOCK_HEAD, ring))
        previous = load(b, "ptr", head, at(BLOCK_HEAD, ring) + 8)
        b.store(following, previous)
        store(b, previous, following, 8)
    capacity, mapping = (load(b, "i64", head, at(BLOCK_HEAD, name)) for name in ("capacity", "mapping"))
    store(b, b.and_(mapping, word(-2)), head, at(BLOCK_HEAD, "mapping"))
    counted = b.and_(capacity, b.sub(word(0), b.and_(mapping, word(1))))
    for name, less in (("idle_bytes", capacity), ("kept_bytes", counted)):
        store(b, b.sub(load(b, "i64", pool, at(POOL, name)), less), pool, at(POOL, name))
