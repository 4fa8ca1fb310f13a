"""Attention by matrix units (`mma.sync`, sm_80 on), of bf16 or f16 summed in f32: see `attention.py`.

Each warp has 16 queries, or twice as many. Scores stay in registers: what a unit leaves as the sums of two products of
8 keys is, rounded, what it takes for 16 steps of the second product. While a tile of keys is worked on, the next one is
on its way.
"""

from __future__ import annotations

from math import log

from hloc.codegen import scalar
from hloc.codegen.attention_rows import Rows
from hloc.codegen.gpu.attention import DeviceAttention, block_place
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_mma import Fragments
from hloc.codegen.gpu.gemm_parts import Operand, i32
from hloc.codegen.gpu.gemm_staged import StagedTile, Steps
from hloc.codegen.gpu.gemm_units import BF16_UNIT, F16_UNIT, Unit, source_of
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.llvm import Value, const
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32

_KEYS = 64
"""Keys of a tile: the steps that a tile of values has."""

_DEPTH = 64
"""Terms of scores that a tile of queries or keys has."""

_WIDEST = 128
"""Columns of the values that a block takes, at most."""

_FRAGMENT = 16
"""Queries of a fragment."""

_MANY = 256
"""Queries of a batch from which on a block has twice as many."""


def unit_of(way: DeviceAttention, sm: int) -> Unit | None:
    """The unit for both products on an architecture, if the program rounds all that they multiply to its type."""
    plan = way.plan
    if sm < 80 or way.dtype is not F32:
        return None
    weights = plan.found.product.operands[plan.found.weights]
    sources = {source_of(side) for side in (plan.queries, plan.keys, plan.values)} | {weights.shape.dtype}
    return next((unit for unit in (BF16_UNIT, F16_UNIT) if sources == {unit.lhs}), None)


class _Shape:
    """The sizes of a block. Shared memory: queries, then two stages of keys and values.

    A warp has one or two `fragments` of queries. What it loads of keys and values serves both; but there are registers
    for the results of two only if these are narrow.
    """

    def __init__(self, way: DeviceAttention):
        plan = way.plan
        self.fragments = 2 if plan.m >= _MANY and plan.width <= 64 else 1
        self.warps = 8 if plan.m >= _MANY and self.fragments == 1 else 4
        self.queries = self.warps * self.fragments * _FRAGMENT
        self.width = -(-min(plan.width, _WIDEST) // 64) * 64
        self.parts = -(-plan.width // self.width)
        self.depths = -(-plan.depth // _DEPTH)
        self.query_bytes = self.queries * _DEPTH * 2
        self.key_bytes = _KEYS * _DEPTH * 2
        self.stage_bytes = self.depths * self.key_bytes + self.width * _KEYS * 2
        self.shared_bytes = self.depths * self.query_bytes + 2 * self.stage_bytes
        self.tiles = -(-plan.m // self.queries)


def write_units(g: GpuStep, way: DeviceAttention) -> bool:
    """The launch, if a unit can do it and its tiles fit into shared memory; whether it has been made."""
    unit, shape = unit_of(way, g.device.sm), _Shape(way)
    if unit is None or shape.shared_bytes > g.device.shared_bytes:
        return False
    with g.launch(shape.tiles * shape.parts * way.batches, 32 * shape.warps, shape.shared_bytes) as k:
        _Units(k, way, unit, shape).write()
    return True


class _State:
    """What a lane knows of a fragment of queries so far, of each of its two rows: the greatest score, its part of the
    sum of powers; and its part of the results.
    """

    def __init__(self, mosts: list[Value], totals: list[Value], sums: list[Value]):
        self.mosts, self.totals, self.sums = mosts, totals, sums

    @staticmethod
    def of(values: list[Value], number: int, count: int) -> _State:
        """The state of one of `count` fragments, whose values are `flat` one after the other."""
        size = len(values) // count
        own = values[number * size : (number + 1) * size]
        return _State(own[:2], own[2:4], own[4:])

    @property
    def flat(self) -> list[Value]:
        return [*self.mosts, *self.totals, *self.sums]


class _Units:
    """The kernel of a block."""

    def __init__(self, k: GpuContext, way: DeviceAttention, unit: Unit, shape: _Shape):
        self.k, self.b, self.way, self.plan, self.unit, self.shape = k, k.b, way, way.plan, unit, shape
        b, plan = k.b, way.plan
        tile, part, batch = block_place(k, way, shape.tiles, shape.parts)
        self.row, self.column = b.mul(tile, i64(shape.queries)), b.mul(part, i64(shape.width))
        self.rows = Rows(k, way, batch)
        sides = (plan.queries, plan.keys, plan.values)
        self.queries, self.keys, self.values = (Operand(k, side, self.rows.batch, unit.lhs) for side in sides)
        lane = b.zext(k.gpu.lane(), "i64")
        self.warp_row = b.mul(b.zext(k.gpu.warp(), "i64"), i64(shape.fragments * _FRAGMENT))
        self.group, self.pair = b.lshr(lane, i64(2)), b.mul(b.and_(lane, i64(3)), i64(2))
        # The lane's rows, two of each fragment.
        first = b.add(b.add(self.row, self.warp_row), self.group)
        self.own_rows = [b.add(first, i64(8 * number)) for number in range(2 * shape.fragments)]
        self.known_rows = [self._least(row, plan.m - 1) for row in self.own_rows]
        # Fragments of 8 columns of the results, in pairs.
        self.columns = -(-min(plan.width, shape.width) // 16) * 2

    def _least(self, value: Value, most: int) -> Value:
        return self.b.select(self.b.icmp_unsigned("<", value, i64(most)), value, i64(most))

    def write(self) -> None:
        b, plan = self.b, self.plan
        tiles = -(-plan.n // _KEYS)
        for depth in range(self.shape.depths):
            tile, slot = self._query_tile(), self._at(depth * self.shape.query_bytes)
            tile.copy(self._depth_steps(depth), slot)
            tile.write(tile.read(self._depth_steps(depth)), slot)
        self._put(self._begin(i64(0), i64(0)), i64(0))
        self.k.gpu.commit_copies()
        low, zero = const("float", float("-inf")), const("float", 0)
        initial = [low, low, zero, zero, *[zero] * (4 * self.columns)] * self.shape.fragments

        def turn(number: Value, carried: list[Value]) -> list[Value]:
            self.k.gpu.wait_copies(0)
            self.k.gpu.barrier()
            stage, following = b.and_(number, i64(1)), b.add(number, i64(1))
            other = b.xor(stage, i64(1))
            values = self._begin(following, other, tiles)
            self.k.gpu.commit_copies()
            made = self._tile(b.mul(number, i64(_KEYS)), stage, carried)
            self._put(values, other)
            return made

        found = b.for_loop_carrying(i64(0), i64(tiles), initial, turn, unroll=False)
        for fragment in range(self.shape.fragments):
            self._finish(fragment, _State.of(found, fragment, self.shape.fragments))

    # Tiles

    def _at(self, offset: int) -> Value:
        return self.b.gep("i8", self.k.gpu.shared(), i64(offset))

    def _depth_steps(self, depth: int) -> Steps:
        return Steps(i64(depth * _DEPTH), i64(self.plan.depth), self.plan.depth % _DEPTH != 0)

    def _query_tile(self) -> StagedTile:
        return StagedTile(self.k, self.queries, self.shape.queries, self.row, self.unit.lhs, 1)

    def _key_tile(self, first: Value) -> StagedTile:
        return StagedTile(self.k, self.keys, _KEYS, first, self.unit.lhs, 1)

    def _value_tile(self) -> StagedTile:
        return StagedTile(self.k, self.values, self.shape.width, self.column, self.unit.lhs, 1)

    def _stage(self, stage: Value) -> tuple[list[Value], Value]:
        """Where a stage's tiles of keys, and its tile of values, begin."""
        b, shape = self.b, self.shape
        base = b.gep("i8", self._at(shape.depths * shape.query_bytes), b.mul(stage, i64(shape.stage_bytes)))
        places = [b.gep("i8", base, i64(number * shape.key_bytes)) for number in range(shape.depths + 1)]
        return places[:-1], places[-1]

    def _begin(self, number: Value, stage: Value, tiles: int | None = None) -> list[tuple]:
        """Begins the copies of a tile of keys, if it is one of `tiles`; what is read of it by the thread itself."""
        b, plan = self.b, self.plan
        first = b.mul(number, i64(_KEYS))
        keys, values = self._key_tile(first), self._value_tile()
        keys_at, values_at = self._stage(stage)
        steps = Steps(first, i64(plan.n), plan.n % _KEYS != 0)
        parts = [(keys, self._depth_steps(depth), place) for depth, place in enumerate(keys_at)]
        parts.append((values, steps, values_at))
        exists = b.icmp_unsigned("<", number, i64(tiles)) if tiles is not None else None
        if exists is None:
            for tile, steps, place in parts:
                tile.copy(steps, place)
            return [(tile, tile.read(steps)) for tile, steps, _ in parts]
        with b.if_then(exists):
            for tile, steps, place in parts:
                tile.copy(steps, place)
        # Of a tile that does not exist something is read, and never looked at.
        return [(tile, tile.read(steps._replace(first=self._known(tile, steps, exists)))) for tile, steps, _ in parts]

    def _known(self, tile: StagedTile, steps: Steps, exists: Value) -> Value:
        return self.b.select(exists, steps.first, i64(0)) if tile.operand is self.values else steps.first

    def _put(self, values: list[tuple], stage: Value) -> None:
        keys_at, values_at = self._stage(stage)
        for (tile, given), place in zip(values, [*keys_at, values_at], strict=True):
            tile.write(given, place)

    # One tile

    def _tile(self, first: Value, stage: Value, carried: list[Value]) -> list[Value]:
        """Both products for a tile of keys; the states of all fragments after it."""
        count = self.shape.fragments
        states = [_State.of(carried, fragment, count) for fragment in range(count)]
        keys_at, values_at = self._stage(stage)
        values = Fragments(self.k, self._value_tile(), 8, self.columns, i64(0))
        scores = self._scores(keys_at)
        powers = [
            self._powers(self._given(fragment, first, scores[fragment]), state) for fragment, state in enumerate(states)
        ]
        for number in range(_KEYS // 16):
            loaded = values.load(values_at, number, False)
            for own, state in zip(powers, states, strict=True):
                state.sums = self._products(self._weights(own, number), loaded, state.sums)
        return [value for state in states for value in state.flat]

    def _products(self, a: list[Value], fragments: list[list[Value]], sums: list[Value]) -> list[Value]:
        made = []
        for j, fragment in enumerate(fragments):
            made += self._mma(a, fragment, sums[4 * j : 4 * j + 4])
        return made

    def _mma(self, a: list[Value], b: list[Value], c: list[Value]) -> list[Value]:
        return self.k.gpu.mma(self.unit.ptx_shape, self.unit.names, a, b, c)

    def _scores(self, keys_at: list[Value]) -> list[list[Value]]:
        """Scores of each fragment: for each 8 keys, two of the first row that the lane has, two of the second."""
        shape = self.shape
        sums = [[const("float", 0)] * (_KEYS // 2)] * shape.fragments
        queries = Fragments(self.k, self._query_tile(), _FRAGMENT, shape.fragments, self.warp_row)
        keys = Fragments(self.k, self._key_tile(i64(0)), 8, _KEYS // 8, i64(0))
        for depth, place in enumerate(keys_at):
            slot = self._at(depth * shape.query_bytes)
            for number in range(min(-(-(self.plan.depth - depth * _DEPTH) // 16), _DEPTH // 16)):
                own, loaded = queries.load(slot, number, True), keys.load(place, number, False)
                sums = [self._products(query, loaded, before) for query, before in zip(own, sums, strict=True)]
        return sums

    def _given(self, fragment: int, first: Value, scores: list[Value]) -> list[Value]:
        """What the softmax has for scores; minus infinity for keys that do not exist."""
        b, plan, found = self.b, self.plan, []
        for number, score in enumerate(scores):
            key = b.add(b.add(first, self.pair), i64(number // 4 * 8 + number % 2))
            known = key if plan.n % _KEYS == 0 else self._least(key, plan.n - 1)
            value = self.rows.given(self.known_rows[2 * fragment + number % 4 // 2], known, score)
            if plan.n % _KEYS:
                value = b.select(b.icmp_unsigned("<", key, i64(plan.n)), value, const("float", float("-inf")))
            found.append(value)
        return found

    def _powers(self, given: list[Value], state: _State) -> list[Value]:
        """Powers of a fragment's scores; its state becomes relative to the greatest score so far."""
        b, gpu, rows = self.b, self.k.gpu, self.rows
        scale, powers, factors = const("float", 1 / log(2)), list(given), []
        for half in (0, 1):
            own = [number for number in range(len(given)) if number % 4 // 2 == half]
            most = given[own[0]]
            for number in own[1:]:
                most = rows.greater(most, given[number])
            for step in (1, 2):
                most = rows.greater(most, gpu.shuffle("xor", most, i32(step)))
            most = rows.greater(state.mosts[half], most)
            less = b.fneg(b.fmul(rows.relative(most), scale))
            factors.append(gpu.exp2(multiply_add(b, state.mosts[half], scale, less)))
            total = b.fmul(state.totals[half], factors[half])
            for number in own:
                powers[number] = gpu.exp2(multiply_add(b, given[number], scale, less))
                total = b.fadd(total, powers[number])
            state.mosts[half], state.totals[half] = most, total
        state.sums = [b.fmul(value, factors[number % 4 // 2]) for number, value in enumerate(state.sums)]
        return powers

    def _weights(self, powers: list[Value], number: int) -> list[Value]:
        """The fragment of 16 keys' powers, rounded."""
        low, high = powers[8 * number : 8 * number + 4], powers[8 * number + 4 : 8 * number + 8]
        pairs = (low[:2], low[2:], high[:2], high[2:])
        return [self.k.gpu.packed(self.unit.lhs, *pair) for pair in pairs]

    # Results

    def _finish(self, fragment: int, state: _State) -> None:
        b, gpu, plan = self.b, self.k.gpu, self.plan
        for half in (0, 1):
            total = state.totals[half]
            for step in (1, 2):
                total = b.fadd(total, gpu.shuffle("xor", total, i32(step)))
            row = self.own_rows[2 * fragment + half]
            with b.if_then(b.icmp_unsigned("<", row, i64(plan.m))):
                own = [value for number, value in enumerate(state.sums) if number % 4 // 2 == half]
                self._store(row, self.rows.finished(row, state.mosts[half], total, own))

    def _store(self, row: Value, results: list[Value]) -> None:
        b, plan, dtype = self.b, self.plan, self.plan.found.product.shape.dtype
        ragged = plan.width % (8 * self.columns) != 0
        for number, value in enumerate(results):
            column = b.add(b.add(self.column, self.pair), i64(number // 2 * 8 + number % 2))
            exists = b.icmp_unsigned("<", column, i64(plan.width)) if ragged else const("i1", 1)
            with b.if_then(exists):
                index = plan.product_index(b, self.rows.batch, row, column)
                self.k.store(index, [scalar.convert(b, value, F32, dtype)])
