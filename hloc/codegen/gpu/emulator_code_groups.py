"""Products of warpgroups on the emulator (`wgmma`).

A product is done when it begins, by the last thread of the warpgroup to come. But what it reads of shared memory is
marked as read until it is waited for, and sums stay with the emulator: a thread has tokens for them meanwhile, floats
that are no numbers, which tell the sums of a product. Who looks at them too early finds nothing; whoever changes them
has no tokens to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from hloc.codegen.device_program import EMULATED_GROUPS
from hloc.codegen.gpu.emulator_code import i32
from hloc.codegen.gpu.emulator_code_barriers import SETS
from hloc.codegen.gpu.emulator_code_matrix import OUTPUTS
from hloc.codegen.gpu.emulator_code_operands import BY_LINES, COLUMNS, EmulatedOperands
from hloc.codegen.gpu.emulator_code_order import CLOCK
from hloc.codegen.gpu.group_products import ROWS, WARPGROUP, GroupProduct
from hloc.codegen.llvm import Builder, Function, Value, const
from hloc.codegen.routines import i64

LHS, RHS, FRESH = 256, 257, 258
"""Slots of a thread for what it gives a product beside sums."""

_PRODUCTS = 64
"""The most products of a warpgroup that are not waited for."""

_REGISTERS, _MOST_REGISTERS = 1 << 16, 256
"""Of a multiprocessor, and of a thread."""

_TOKEN, _SET_AT, _AGE_AT = 0x7F800000, 19, 7
"""A token: a float without a number, the set of sums, the set's age (1 to 4095), and the number of the register."""

_AGES = 4095

ALONE = "{site}, in a warpgroup of {0} threads"
UNLIKE = "{site}, whose operands are not the same in threads {0} and {1}"
NOT_BEGUN = "{site}, and nothing says that the registers of its sums are free for it"
MANY_SETS = "{site}, to sums beside {0} others that are not waited for"
CHANGED = "{site}, and sum {0} of thread {1} was changed while products add to it"
MANY_PRODUCTS = "{site}, and {0} are not waited for"
UNCOMMITTED = "{site}, and products were begun that are of no group yet"


GREEDY = "wait for registers: warpgroups want {0} for each of their threads together, and have {1}"


class EmulatedGroups(EmulatedOperands):
    """See EmulatorCode."""

    # Meetings

    def _meet_group(self, b: Builder, site: Value, together: Callable[[Value], object]) -> None:
        """The threads of a warpgroup come here; the last does what they do together, given the first one's number."""
        self.use_state(b)
        group = b.lshr(self.thread(b), i64(7))
        first = b.shl(group, i64(7))
        threads = b.sub(self.get(b, "threads"), first)
        self.fail_unless(b, b.icmp_signed(">=", threads, i64(WARPGROUP)), ALONE, site, threads)
        counter = self.state(b, "group.met", group)
        place = self.place(b, "group.meeting", "ptr", EMULATED_GROUPS, group)

        def completed() -> None:
            together(first)
            self.wake(b, first, i64(WARPGROUP))

        b.if_else(self.arrive(b, counter, place, i64(WARPGROUP), site), completed, lambda: self.wait(b, site))

    def group_begin(self) -> Function:
        """Nothing touches registers any more that products add to."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self.check_room(b, p.site)
            self._meet_group(b, p.site, lambda first: b.store(i64(1), self._of_group(b, "begun", first)))

        return self.function("group_begin", "ptr site", write)

    def group_commit(self) -> Function:
        """The products begun since the last time are a group."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self._meet_group(b, p.site, lambda first: self.count(b, self._of_group(b, "committed", first), i64(1)))

        return self.function("group_commit", "ptr site", write)

    def _of_group(self, b: Builder, name: str, first: Value) -> Value:
        return self.state(b, f"group.{name}", b.lshr(first, i64(7)))

    def set_registers(self) -> Function:
        """A thread's warpgroup has another number of registers for each thread."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self.use_state(b)
            b.store(p.count, self.state(b, "group.registers", b.lshr(self.thread(b), i64(7))))

        return self.function("set_registers", "i64 count", write)

    def _registers_at_first(self, b: Builder) -> Value:
        """The most that each thread of the block can have when it begins: ptxas may give it less."""
        each = b.and_(b.udiv(i64(_REGISTERS), self.get(b, "threads")), i64(-8))
        return b.intrinsic("llvm.smin", "i64", [each, i64(_MOST_REGISTERS)])

    def check_end(self, b: Builder) -> None:
        super().check_end(b)
        first = self._registers_at_first(b)
        groups = b.lshr(self.get(b, "threads"), i64(7))

        def add(group: Value, carried: list[Value]) -> list[Value]:
            count = b.load("i64", self.state(b, "group.registers", group))
            return [b.add(carried[0], b.select(b.icmp_signed("==", count, i64(0)), first, count))]

        wanted = b.for_loop_carrying(i64(0), groups, [i64(0)], add)[0]
        there = b.mul(first, groups)
        self.fail_unless(b, b.icmp_signed("<=", wanted, there), GREEDY, const("ptr", 0), wanted, there)

    # Products

    def group_multiply(self, product: GroupProduct, lhs_by_lines: bool, rhs_by_lines: bool) -> Function:
        """Each thread leaves sums, and LHS, RHS and FRESH in slots, and finds tokens for its sums in its results."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            def together(first: Value) -> None:
                b.call(self._check_alike(), [first, p.site])
                lhs, rhs, fresh = (b.load("i64", self.slot(b, first, number)) for number in (LHS, RHS, FRESH))
                count = i64(product.registers)
                number = b.call(self._open(), [first, count, fresh, p.site])
                site = self.text(f"multiplies matrices ({'.'.join(product.types)}) in shared memory")
                shapes = [i64(shape) for shape in shapes_of(product, lhs_by_lines, rhs_by_lines)]
                for matrix, shape in zip((lhs, rhs), shapes, strict=True):
                    b.call(self.read_operand(), [matrix, shape, first, site])
                sums = self._sums(b, number, i64(0))
                b.call(self.product(product, lhs_by_lines, rhs_by_lines), [lhs, rhs, sums])
                b.call(self._keep(), [first, number, lhs, rhs, *shapes, p.site])
                b.call(self._give_tokens(), [first, number, count])

            self._meet_group(b, p.site, together)

        names = "".join("n" if by_lines else "k" for by_lines in (lhs_by_lines, rhs_by_lines))
        return self.function(f"group_multiply.{product.n}.{'.'.join(product.types)}.{names}", "ptr site", write)

    def slot(self, b: Builder, thread: Value, number: int | Value) -> Value:
        """One of a thread's slots."""
        return b.gep("i64", self.slots(b, thread), i64(number) if isinstance(number, int) else number)

    def _check_alike(self) -> Function:
        """The threads of a group have the same operands."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.for_loop(i64(1), i64(WARPGROUP)) as lane:
                t = b.add(p.first, lane)
                for number in (LHS, RHS, FRESH):
                    same = b.icmp_signed(
                        "==", *(b.load("i64", self.slot(b, thread, number)) for thread in (p.first, t))
                    )
                    self.fail_unless(b, same, UNLIKE, p.site, p.first, t)

        return self.function("check_alike", "i64 first, ptr site", write)

    # Sums

    def _sums(self, b: Builder, number: Value, index: Value) -> Value:
        """An element of a set's sums, 64 rows of COLUMNS."""
        room = ROWS * COLUMNS
        return self.place(b, "group.sums", "i32", EMULATED_GROUPS * SETS * room, b.add(b.mul(number, i64(room)), index))

    def _where(self, b: Builder, thread: Value, register: Value) -> Value:
        """Which element a thread of a group has in a register."""
        warp, lane = b.lshr(thread, i64(5)), b.and_(thread, i64(31))
        half, column = b.and_(b.lshr(register, i64(1)), i64(1)), b.and_(register, i64(1))
        row = b.add(b.add(b.shl(warp, i64(4)), b.lshr(lane, i64(2))), b.shl(half, i64(3)))
        column = b.add(column, b.shl(b.and_(lane, i64(3)), i64(1)))
        column = b.add(column, b.shl(b.lshr(register, i64(2)), i64(3)))
        return b.add(b.mul(row, i64(COLUMNS)), column)

    def _token(self, b: Builder, number: Value) -> Value:
        """The token for the first register of a set, an i32."""
        age = b.load("i64", self.place(b, "set.age", "i64", EMULATED_GROUPS * SETS, number))
        word = b.or_(b.shl(b.and_(number, i64(SETS - 1)), i64(_SET_AT)), b.shl(age, i64(_AGE_AT)))
        return b.or_(b.trunc(word, "i32"), i32(_TOKEN))

    def _set_of(self, b: Builder, first: Value, word: Value) -> tuple[Value, Value]:
        """The set that a register's bits may be a token of, and whether they are."""
        group = b.lshr(first, i64(7))
        bits = b.zext(word, "i64")
        number = b.add(b.shl(group, i64(3)), b.and_(b.lshr(bits, i64(_SET_AT)), i64(SETS - 1)))
        register = b.and_(bits, i64((1 << _AGE_AT) - 1))
        same = b.icmp_signed("==", b.and_(word, i32(-1 << _AGE_AT)), self._token(b, number))
        known = b.icmp_signed("<", register, b.load("i64", self.state(b, "set.registers", number)))
        return number, b.and_(same, known)

    def _each_sum(self, b: Builder, first: Value, count: Value, do: Callable[[Value, Value, Value], object]) -> None:
        """Code for each thread's slot and register of a group: `do(slot, thread in the group, register)`."""
        with b.for_loop(i64(0), i64(WARPGROUP)) as lane:
            slots = self.slots(b, b.add(first, lane))
            with b.for_loop(i64(0), count) as register:
                do(b.gep("i64", slots, register), lane, register)

    def _open(self) -> Function:
        """The set of sums that the slots of a group have tokens of, or a new one with what the slots have."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            number, is_token = self._set_of(b, p.first, b.load("i32", self.slot(b, p.first, 0)))
            with b.if_then(b.not_(is_token)):
                b.ret(b.call(self._new_set(), [p.first, p.count, p.fresh, p.site]))
            token = self._token(b, number)

            def check(slot: Value, lane: Value, register: Value) -> None:
                same = b.icmp_signed("==", b.load("i32", slot), b.add(token, b.trunc(register, "i32")))
                self.fail_unless(b, same, CHANGED, p.site, register, b.add(p.first, lane))

            self._each_sum(b, p.first, p.count, check)
            with b.if_then(b.icmp_signed("!=", p.fresh, i64(0))):
                b.memset(self._sums(b, number, i64(0)), const("i8", 0), i64(4 * ROWS * COLUMNS))
            return number

        return self.function("open", "i64 first, i64 count, i64 fresh, ptr site", write, "i64")

    def _new_set(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> Value:
            begun = b.load("i64", self._of_group(b, "begun", p.first))
            self.fail_unless(b, b.icmp_signed("!=", begun, i64(0)), NOT_BEGUN, p.site)
            start = b.lshr(p.first, i64(4))
            end = b.add(start, i64(SETS))

            def taken(carried: list[Value]) -> Value:
                registers = b.load("i64", self.state(b, "set.registers", carried[0]))
                return b.and_(b.icmp_signed("<", carried[0], end), b.icmp_signed("!=", registers, i64(0)))

            number = b.while_loop([start], taken, lambda carried: [b.add(carried[0], i64(1))])[0]
            self.fail_unless(b, b.icmp_signed("<", number, end), MANY_SETS, p.site, i64(SETS))
            age = self.place(b, "set.age", "i64", EMULATED_GROUPS * SETS, number)
            b.store(b.add(b.urem(b.load("i64", age), i64(_AGES)), i64(1)), age)
            b.store(p.count, self.state(b, "set.registers", number))
            b.store(b.mul(p.count, i64(WARPGROUP)), self.state(b, "set.left", number))
            self.count(b, self.state(b, "sets"), i64(1))

            def take(slot: Value, lane: Value, register: Value) -> None:
                value = b.select(b.icmp_signed("!=", p.fresh, i64(0)), i32(0), b.load("i32", slot))
                b.store(value, self._sums(b, number, self._where(b, lane, register)))

            self._each_sum(b, p.first, p.count, take)
            return number

        return self.function("new_set", "i64 first, i64 count, i64 fresh, ptr site", write, "i64")

    def _give_tokens(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            token = self._token(b, p.number)

            def give(slot: Value, lane: Value, register: Value) -> None:
                b.store(b.add(token, b.trunc(register, "i32")), b.gep("i64", slot, i64(OUTPUTS)))

            self._each_sum(b, p.first, p.count, give)

        return self.function("give_tokens", "i64 first, i64 number, i64 count", write)

    def claim(self) -> Function:
        """Some slots of this thread, with sums in place of tokens of those that are complete, in its results."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            this = self.thread(b)
            first, slots = b.and_(this, i64(-WARPGROUP)), self.slots(b, this)
            with b.for_loop(i64(0), p.count) as i:
                slot = b.gep("i64", slots, i)
                word = b.load("i32", slot)
                result = b.gep("i64", slot, i64(OUTPUTS))
                b.store(word, result)
                number, is_token = self._set_of(b, first, word)
                busy = b.load("i64", self.state(b, "set.busy", number))
                with b.if_then(b.and_(is_token, b.icmp_signed("==", busy, i64(0)))):
                    register = b.and_(b.zext(word, "i64"), i64((1 << _AGE_AT) - 1))
                    place = self._sums(b, number, self._where(b, b.sub(this, first), register))
                    b.store(b.load("i32", place), result)
                    left = self.count(b, self.state(b, "set.left", number), i64(-1))
                    with b.if_then(b.icmp_signed("==", left, i64(0))):
                        b.store(i64(0), self.state(b, "set.registers", number))
                        self.count(b, self.state(b, "sets"), i64(-1))

        return self.function("claim", "i64 count", write)

    # Products that are not waited for

    def _product(self, b: Builder, first: Value, number: Value) -> list[Value]:
        """The places of what is kept of a group's product: group, set, and of both operands matrix and shape."""
        index = b.add(b.mul(b.lshr(first, i64(7)), i64(_PRODUCTS)), b.urem(number, i64(_PRODUCTS)))
        place = self.place(b, "group.products", "i64", EMULATED_GROUPS * _PRODUCTS * 6, b.mul(index, i64(6)))
        return [b.gep("i64", place, i64(field)) for field in range(6)]

    def _keep(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            head, tail = (b.load("i64", self._of_group(b, name, p.first)) for name in ("head", "tail"))
            under_way = b.sub(tail, head)
            room = b.icmp_signed("<", under_way, i64(_PRODUCTS))
            self.fail_unless(b, room, MANY_PRODUCTS, p.site, under_way)
            group = b.load("i64", self._of_group(b, "committed", p.first))
            values = (group, p.number, p.lhs, p.rhs, p.lhs_shape, p.rhs_shape)
            for place, value in zip(self._product(b, p.first, tail), values, strict=True):
                b.store(value, place)
            b.store(b.add(tail, i64(1)), self._of_group(b, "tail", p.first))
            self.count(b, self.state(b, "set.busy", p.number), i64(1))

        params = "i64 first, i64 number, i64 lhs, i64 rhs, i64 lhs_shape, i64 rhs_shape, ptr site"
        return self.function("keep", params, write)

    def group_wait(self) -> Function:
        """The products of all but the latest groups are done with their operands, and their sums may be claimed."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self._meet_group(b, p.site, lambda first: b.call(self._finish(), [first, p.groups, p.site]))

        return self.function("group_wait", "i64 groups, ptr site", write)

    def _finish(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            committed, tail = (b.load("i64", self._of_group(b, name, p.first)) for name in ("committed", "tail"))
            limit = b.sub(committed, p.groups)
            engine = b.add(self.get(b, "engines"), b.lshr(p.first, i64(7)))
            record = b.or_(b.shl(self.tick(b), i64(CLOCK)), engine)

            def goes_on(carried: list[Value]) -> Value:
                group = b.load("i64", self._product(b, p.first, carried[0])[0])
                within = b.icmp_signed("<", carried[0], tail)
                none = b.and_(within, b.icmp_signed("==", group, committed))
                self.fail_unless(b, b.not_(none), UNCOMMITTED, p.site)
                return b.and_(within, b.icmp_signed("<", group, limit))

            def finish(carried: list[Value]) -> list[Value]:
                fields = self._product(b, p.first, carried[0])
                _, number, lhs, rhs, lhs_shape, rhs_shape = (b.load("i64", place) for place in fields)
                for matrix, shape in ((lhs, lhs_shape), (rhs, rhs_shape)):
                    b.call(self.leave_operand(), [matrix, shape, record])
                self.count(b, self.state(b, "set.busy", number), i64(-1))
                return [b.add(carried[0], i64(1))]

            head = self._of_group(b, "head", p.first)
            b.store(b.while_loop([b.load("i64", head)], goes_on, finish)[0], head)
            b.store(i64(0), self._of_group(b, "begun", p.first))
            now = self.tick(b)
            with b.for_loop(i64(0), i64(WARPGROUP)) as lane:
                b.store(now, self.known(b, b.add(p.first, lane), engine))
            self.begin_to_tell(b)

        return self.function("finish", "i64 first, i64 groups, ptr site", write)


def shapes_of(product: GroupProduct, lhs_by_lines: bool, rhs_by_lines: bool) -> tuple[int, int]:
    """Lines of both operands, each with the bit BY_LINES if it is by lines."""
    return ROWS | lhs_by_lines << BY_LINES, product.n | rhs_by_lines << BY_LINES
