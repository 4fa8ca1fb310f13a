"""Global memory of the emulator: which bytes an access may touch, and who else touches them in the same launch.

An access lies within the bytes of one of the launch's arguments, most often of the very argument that its pointer is
made from. Nothing orders the blocks of a launch, nor the threads of a kernel that never meet. So a table keeps, for
words of memory, who wrote them last and who has read them since: the launch, and the number of the block or thread
(`emulated.racer`). What it read of others' matters when it writes next: threads beyond the last row may read a row
again, for nothing. The table is a fixed one, in which words drive out others: what it reports is so, but not all is
found. It is left alone by kernels that order blocks by themselves, which have fences or look at what others write.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.gpu.emulator_code import COLD, EmulatorCode
from hloc.codegen.llvm import Builder, Function, Value
from hloc.codegen.routines import i64

READ, WRITE, ATOMIC, LOOK = "read", "write", "atomic", "look"
"""What is done to memory: loads, stores, and changes and loads that others may change the place at the time of."""

OUTSIDE = "{site} at offset {0}, and there are {1} bytes"
MISALIGNED = "{site} at offset {0}, which is not a multiple of {1}"
UNORDERED = "{{site}} at offset {{0}}, and another {{racer}} of the launch {} it too: nothing says which comes first"

_WORDS = 1 << 18
"""Words that the table has room for."""

_PAIRS = ((WRITE, 0), (READ, 2))
"""Where in an entry are the word with the bytes of it, and the racer, of the last write and of reads."""

_RACER_BITS = 40
_MANY = (1 << _RACER_BITS) - 1
"""Stands for more than one reader."""


class EmulatedGlobalMemory(EmulatorCode):
    """See EmulatorCode."""

    def set_racer(self, b: Builder, number: Value) -> None:
        """Says which block or thread, of those that nothing orders, goes on from now on."""
        epoch = b.shl(self.get(b, "launches"), i64(_RACER_BITS))
        self.set(b, "racer", b.or_(epoch, number))

    def check(self, kind: str, bytes: int) -> Function:
        """An access of so many bytes at `p`, by a pointer made from `base`, where there are `size` bytes.

        `mask` is the alignment less one; the base is aligned to 16.
        """

        def write(b: Builder, p: SimpleNamespace) -> None:
            offset = b.sub(b.ptrtoint(p.p, "i64"), b.ptrtoint(p.base, "i64"))
            starts = b.intrinsic("llvm.usub.sat", "i64", [p.size, i64(bytes - 1)])
            bad = b.or_(
                b.icmp_unsigned(">=", offset, starts), b.icmp_signed("!=", b.and_(offset, p.mask), i64(0))
            )
            with b.if_then(bad):
                b.call(self._bad_access(), [offset, p.size, p.mask, starts, p.site])
                b.unreachable()
            if kind in (READ, WRITE) and (bytes in (1, 2) or bytes % 4 == 0):
                with b.if_then(b.icmp_signed("!=", self.launched(b, "watch"), i64(0))):
                    self._watch(b, kind, bytes, p, offset)

        params = "ptr p, ptr base, i64 size, i64 mask, ptr site"
        return self.function(f"check.{kind}.{bytes}", params, write)

    def _bad_access(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            self.fail_unless(b, b.icmp_unsigned("<", p.offset, p.starts), OUTSIDE, p.site, p.offset, p.size)
            self.fail(b, MISALIGNED, p.site, p.offset, b.add(p.mask, i64(1)))

        params = "i64 offset, i64 size, i64 mask, i64 starts, ptr site"
        return self.function("bad_access", params, write, attributes=COLD)

    # Who else touches it

    def _watch(self, b: Builder, kind: str, bytes: int, p: SimpleNamespace, offset: Value) -> None:
        address = b.ptrtoint(p.p, "i64")
        first = b.lshr(address, i64(2))
        if kind == WRITE:
            with b.if_then(b.icmp_signed("==", self.get(b, "suspect"), self.get(b, "racer"))):
                self._fail_unordered(b, WRITE, self.get(b, "suspect_site", "ptr"), self.get(b, "suspect_offset"))
        if bytes < 4:
            part = b.shl(i64((1 << bytes) - 1), b.and_(address, i64(3)))
            self._watch_word(b, kind, first, part, p, offset)
            return
        with b.for_loop(i64(0), i64(bytes // 4)) as i:
            self._watch_word(b, kind, b.add(first, i), i64(15), p, offset)

    def _watch_word(
        self, b: Builder, kind: str, word: Value, part: Value, p: SimpleNamespace, offset: Value
    ) -> None:
        """`part` has a bit for each byte of the word that is touched."""
        racer = self.get(b, "racer")
        number = b.mul(b.and_(word, i64(_WORDS - 1)), i64(4))
        entry = self.place(b, "touched", "i64", 4 * _WORDS, number)
        pair = {what: [b.gep("i64", entry, i64(at)), b.gep("i64", entry, i64(at + 1))] for what, at in _PAIRS}

        def by_others(what: str) -> tuple[Value, Value]:
            """Whether another has touched some of the same bytes in this launch; the bytes that have been."""
            key, who = (b.load("i64", place) for place in pair[what])
            same = b.icmp_signed("==", b.lshr(key, i64(4)), word)
            now = b.icmp_signed("==", b.lshr(b.xor(who, racer), i64(_RACER_BITS)), i64(0))
            overlap = b.icmp_signed("!=", b.and_(key, part), i64(0))
            other = b.and_(b.icmp_signed("!=", who, racer), overlap)
            return b.and_(b.and_(same, now), other), b.and_(key, i64(15))

        with b.if_then(by_others(WRITE)[0]):
            if kind == WRITE:
                self._fail_unordered(b, WRITE, p.site, offset)
            else:
                for name, value in (("suspect", racer), ("suspect_site", p.site), ("suspect_offset", offset)):
                    self.set(b, name, value)
        if kind == WRITE:
            with b.if_then(by_others(READ)[0]):
                self._fail_unordered(b, READ, p.site, offset)
        own = b.or_(b.shl(word, i64(4)), part)
        if kind == READ:
            others, bytes = by_others(READ)
            own = b.select(others, b.or_(own, bytes), own)
            racer = b.select(others, b.or_(racer, i64(_MANY)), racer)
        b.store(own, pair[kind][0])
        b.store(racer, pair[kind][1])

    def _fail_unordered(self, b: Builder, what: str, site: Value, offset: Value) -> None:
        self.fail(b, UNORDERED.format(f"{what}s"), site, offset)
