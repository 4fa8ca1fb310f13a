"""The native function behind the call of an executable, for all programs: what Python would do, without Python.

It looks at the arguments' NumPy structures, takes memory for results and the arena, runs the entry, and gives the
results their structure. Whatever is not an aligned array of exactly the right type and layout goes to the Python
function `slow` with all arguments, before anything is done. `call_layout` describes the tables that it reads.

The layout of NumPy's array is that of "ndarraytypes.h", part of NumPy's binary interface. Arrays own their memory and
have it freed by functions of the pool, as NEP 49 lets them.
"""

from __future__ import annotations

from hloc.codegen.call_layout import (
    ARRAY_FUNCTION,
    CALL,
    CALL_FUNCTION,
    HOST,
    LEAF,
    PARAMETER,
    RESULT,
    UNIT,
    VECTORCALL_OFFSET,
    at,
)
from hloc.codegen.call_slowly import failure, python, slow_call
from hloc.codegen.llvm import Block, Builder, Function, Module, Value, const
from hloc.codegen.pool_code import PoolCode, load, store, word
from hloc.codegen.routines import PLAIN, QUICK
from hloc.codegen.targets.target import Target
from hloc.options import Options

# Offsets in NumPy's array object; its type is where every Python object has it.
_TYPE, _DATA, _RANK, _DIMS, _STRIDES, _DTYPE, _FLAGS, _HANDLER = 8, 16, 24, 32, 40, 56, 64, 88

_OWNS_DATA, _CREATED = 0x4, 0x501
"""Flags of NumPy's arrays; a new one is C-contiguous, aligned and writeable."""

_POSITIONAL = (1 << 63) - 1
"""The bits of a vectorcall's count that are a number."""

_NULL = const("ptr", 0)


def object_files(target: Target) -> tuple[bytes, ...]:
    """The functions named in `call_layout`, as object files for a CPU."""
    return tuple(target.lower(str(part), part.stage, Options()) for part in modules(target))


def modules(target: Target) -> tuple[Module, ...]:
    """The same as LLVM IR, each with the stage that compiles it."""
    stub = CallStub(target)
    return stub.call, stub.others


class CallStub:
    """Writes the function `hloc_call`, and apart from it what it calls.

    That has no loops that most calls go through: compiled in the least time it is as fast.
    """

    def __init__(self, target: Target):
        self.call = Module("call", target.triple, target.data_layout)
        self.others = Module("call.others", target.triple, target.data_layout)
        self.call.stage, self.others.stage = PLAIN, QUICK
        self._attributes = target.function_attributes
        self.pool = PoolCode(self.others, self._attributes)
        self._new_array = self._write_new_array()
        self._drop = self._write_drop()
        self._call_slowly = slow_call(self.others, self._attributes)
        self._fail = failure(self.others, self._attributes)
        self._abandon = self._write_abandon()
        self._strides_fit = self._write_strides_fit()
        self._given = self._write_given()
        self._run_released = self._write_run_released()
        self._structured = self._write_structured()
        self._are_apart = self._write_are_apart()
        self._write_call()

    def _function(self, name: str, type: str, *params: tuple[str, str]) -> Function:
        """A function that `hloc_call` calls."""
        return self.others.function(f"hloc_{name}", type, params, self._attributes)

    def _write_new_array(self) -> Function:
        """A new array with memory of the pool, which it gives back at its end."""
        params = ("ptr", "host"), ("ptr", "row")
        function = self.others.function(ARRAY_FUNCTION, "ptr", params, self._attributes)
        b = Builder(function)
        host, row = function.args
        pool = load(b, "ptr", host, at(HOST, "pool"))
        data = b.call(self.pool.take, [pool, load(b, "i64", row, at(RESULT, "size_class"))])
        with b.if_then(b.icmp_unsigned("==", data, _NULL)):
            b.ret(python(b, "PyErr_NoMemory", "ptr"))
        dtype = load(b, "ptr", row, at(RESULT, "dtype"))
        python(b, "Py_IncRef", "void", dtype)  # the array takes this reference
        rank = b.trunc(load(b, "i64", row, at(RESULT, "rank")), "i32")
        dims, strides = (load(b, "ptr", row, at(RESULT, name)) for name in ("dims", "strides"))
        kind = load(b, "ptr", host, at(HOST, "array_type"))
        arguments = [kind, dtype, rank, dims, strides, data, const("i32", _CREATED), _NULL]
        array = b.call(load(b, "ptr", host, at(HOST, "new_array")), arguments, "ptr")
        with b.if_then(b.icmp_unsigned("==", array, _NULL)):
            b.call(self.pool.free, [pool, data, word(0)])
            b.ret(_NULL)
        handler = load(b, "ptr", host, at(HOST, "handler"))
        python(b, "Py_IncRef", "void", handler)
        store(b, handler, array, _HANDLER)
        flags = b.or_(load(b, "i32", array, _FLAGS), const("i32", _OWNS_DATA))
        store(b, flags, array, _FLAGS)
        b.ret(array)
        return function

    def _write_drop(self) -> Function:
        """Gives up the references to objects, from `first` to `end` in a list of pointers."""
        function = self._function("drop", "void", ("ptr", "objects"), ("i64", "first"), ("i64", "end"))
        b = Builder(function)
        objects, first, end = function.args
        with b.for_loop(first, end) as i:
            python(b, "Py_DecRef", "void", b.load("ptr", b.gep("ptr", objects, i)))
        b.ret()
        return function

    def _write_structured(self) -> Function:
        """The value that the steps of a structure make of the leaves, to which it takes over the references."""
        function = self._function("structured", "ptr", ("ptr", "state"), ("ptr", "leaves"), ("ptr", "stack"))
        b = Builder(function)
        state, leaves, stack = function.args
        none = load(b, "ptr", load(b, "ptr", state, at(CALL, "host")), at(HOST, "none"))
        steps = load(b, "ptr", state, at(CALL, "structure"))

        def step(i: Value, carried: list[Value]) -> list[Value]:
            size, used = carried
            kind = b.load("i64", b.gep("i64", steps, i))

            def some_to_one() -> list[Value]:
                with b.if_then(b.icmp_signed("==", self._pack(b, stack, size, kind), const("i32", 0))):
                    b.call(self._drop, [stack, word(0), size])
                    b.call(self._drop, [leaves, used, load(b, "i64", state, at(CALL, "result_count"))])
                    b.ret(_NULL)
                return [b.add(b.sub(size, kind), word(1)), used]

            def leaf() -> list[Value]:
                b.store(b.load("ptr", b.gep("ptr", leaves, used)), b.gep("ptr", stack, size))
                return [b.add(size, word(1)), b.add(used, word(1))]

            def token() -> list[Value]:
                python(b, "Py_IncRef", "void", none)
                b.store(none, b.gep("ptr", stack, size))
                return [b.add(size, word(1)), used]

            is_leaf = b.icmp_signed("==", kind, word(LEAF))
            return b.if_else(
                is_leaf, leaf, lambda: b.if_else(b.icmp_signed(">=", kind, word(0)), some_to_one, token)
            )

        b.for_loop_carrying(0, load(b, "i64", state, at(CALL, "structure_count")), [word(0), word(0)], step)
        b.ret(b.load("ptr", stack))
        return function

    def _pack(self, b: Builder, stack: Value, size: Value, count: Value) -> Value:
        """Makes the last values of a stack one tuple, in place of the first; 0, and nothing changed, if that fails."""
        made = python(b, "PyTuple_New", "ptr", count)

        def fill() -> Value:
            start = b.gep("ptr", stack, b.sub(size, count))
            with b.for_loop(0, count) as i:
                python(b, "PyTuple_SetItem", "i32", made, i, b.load("ptr", b.gep("ptr", start, i)))
            b.store(made, start)
            return const("i32", 1)

        return b.if_else(b.icmp_unsigned("==", made, _NULL), lambda: const("i32", 0), fill)

    def _write_call(self) -> None:
        params = ("ptr", "callable"), ("ptr", "args"), ("i64", "count"), ("ptr", "names")
        function = self.call.function(CALL_FUNCTION, "ptr", params, self._attributes)
        b = Builder(function)
        callable, args, flagged, names = function.args
        state = load(b, "ptr", callable, VECTORCALL_OFFSET + 8)
        host = load(b, "ptr", state, at(CALL, "host"))
        slow = b.append_block("slow", b.block)
        count = b.and_(flagged, word(_POSITIONAL))
        parameters = load(b, "i64", state, at(CALL, "parameter_count"))
        _require(b, b.and_(b.icmp_unsigned("==", names, _NULL), b.icmp_unsigned("==", count, parameters)), slow)
        inputs = b.alloca("ptr", load(b, "i64", state, at(CALL, "words")))
        self._check(b, state, host, args, inputs, slow)
        with b.if_then(b.icmp_unsigned("!=", load(b, "i64", state, at(CALL, "donates")), word(0))):
            _require(b, b.call(self._are_apart, [state, inputs]), slow)
        result_count = load(b, "i64", state, at(CALL, "result_count"))
        outputs = b.gep("ptr", inputs, count)
        leaves = b.gep("ptr", outputs, result_count)
        pool = load(b, "ptr", host, at(HOST, "pool"))
        self._make_results(b, state, host, args, outputs, leaves, slow)
        arena_class = load(b, "i64", state, at(CALL, "arena_class"))
        no_arena = b.append_block("no_arena", b.block)

        def taken() -> Value:
            block = b.call(self.pool.take, [pool, arena_class])
            _require(b, b.icmp_unsigned("!=", block, _NULL), no_arena)
            return block

        on_stack = b.icmp_signed("<", arena_class, word(0))
        arena = b.if_else(on_stack, lambda: self._stack_arena(b, state, inputs), taken)
        status = self._run(b, state, inputs, outputs, arena)
        with b.if_then(b.not_(on_stack)):
            b.call(self.pool.free, [pool, arena, word(0)])
        with b.if_then(b.icmp_signed("!=", status, const("i32", 0))):
            b.call(self._drop, [leaves, word(0), result_count])
            b.ret(b.call(self._fail, [host, callable, status]))
        is_one = b.icmp_unsigned("==", load(b, "i64", state, at(CALL, "structure_count")), word(1))
        with b.if_then(b.and_(is_one, b.icmp_unsigned("==", result_count, word(1)))):
            b.ret(b.load("ptr", leaves))
        b.ret(b.call(self._structured, [state, leaves, b.gep("ptr", leaves, result_count)]))
        b.position_at_end(no_arena)
        b.call(self._drop, [leaves, word(0), result_count])
        b.branch(slow)
        b.position_at_end(slow)
        b.ret(b.call(self._call_slowly, [host, callable, args, count, names]))

    def _stack_arena(self, b: Builder, state: Value, inputs: Value) -> Value:
        """The arena at the end of the room that begins with `inputs`."""
        end = b.add(b.ptrtoint(inputs, "i64"), b.shl(load(b, "i64", state, at(CALL, "words")), word(3)))
        start = b.sub(end, load(b, "i64", state, at(CALL, "arena_room")))
        return b.inttoptr(b.and_(start, word(-UNIT)), "ptr")

    def _check(self, b: Builder, state: Value, host: Value, args: Value, inputs: Value, slow: Block) -> None:
        """Where the arguments' elements lie, into `inputs`; to `slow` if one is not exactly as it should be."""
        kind = load(b, "ptr", host, at(HOST, "array_type"))
        rows = load(b, "ptr", state, at(CALL, "parameters"))
        with b.for_loop(0, load(b, "i64", state, at(CALL, "parameter_count"))) as i:
            array = b.load("ptr", b.gep("ptr", args, i))
            row = b.gep("i8", rows, b.mul(i, word(8 * len(PARAMETER))))
            _require(b, b.icmp_unsigned("==", load(b, "ptr", array, _TYPE), kind), slow)
            same = b.icmp_unsigned("==", load(b, "ptr", array, _DTYPE), load(b, "ptr", row, at(PARAMETER, "dtype")))
            rank = load(b, "i64", row, at(PARAMETER, "rank"))
            same = b.and_(same, b.icmp_unsigned("==", b.zext(load(b, "i32", array, _RANK), "i64"), rank))
            flags = b.trunc(load(b, "i64", row, at(PARAMETER, "flags")), "i32")
            has = b.and_(load(b, "i32", array, _FLAGS), flags)
            _require(b, b.and_(same, b.icmp_unsigned("==", has, flags)), slow)
            dims, got = load(b, "ptr", row, at(PARAMETER, "dims")), load(b, "ptr", array, _DIMS)
            with b.for_loop(0, rank) as d:
                _require(b, b.icmp_unsigned("==", _item(b, dims, d), _item(b, got, d)), slow)
            strides = load(b, "ptr", row, at(PARAMETER, "strides"))
            with b.if_then(b.icmp_unsigned("!=", strides, _NULL)):
                fit = b.call(self._strides_fit, [dims, strides, load(b, "ptr", array, _STRIDES), rank])
                _require(b, b.icmp_unsigned("!=", fit, word(0)), slow)
            b.store(load(b, "ptr", array, _DATA), b.gep("ptr", inputs, i))

    def _make_results(
        self, b: Builder, state: Value, host: Value, args: Value, outputs: Value, leaves: Value, slow: Block
    ) -> None:
        """The arrays of the results into `leaves`, and where their elements lie into `outputs`."""
        rows = load(b, "ptr", state, at(CALL, "results"))
        failed = b.append_block("no_result", b.block)
        with b.for_loop(0, load(b, "i64", state, at(CALL, "result_count"))) as i:
            array = self._result(b, host, args, b.gep("i8", rows, b.mul(i, word(8 * len(RESULT)))))
            made = b.block
            _require(b, b.icmp_unsigned("!=", array, _NULL), failed)
            b.store(array, b.gep("ptr", leaves, i))
            b.store(load(b, "ptr", array, _DATA), b.gep("ptr", outputs, i))
        after = b.block
        b.position_at_end(failed)
        ready = b.phi("i64")
        ready.add_incoming(i, made)
        b.call(self._abandon, [leaves, ready])
        b.branch(slow)
        b.position_at_end(after)

    def _result(self, b: Builder, host: Value, args: Value, row: Value) -> Value:
        """A new array, or the argument that becomes the result."""
        donor = load(b, "i64", row, at(RESULT, "donor"))
        is_new = b.icmp_signed("<", donor, word(0))
        return b.if_else(
            is_new, lambda: b.call(self._new_array, [host, row]), lambda: b.call(self._given, [args, donor])
        )

    def _write_given(self) -> Function:
        """The argument that becomes a result."""
        function = self._function("given", "ptr", ("ptr", "args"), ("i64", "number"))
        b = Builder(function)
        args, number = function.args
        array = b.load("ptr", b.gep("ptr", args, number))
        python(b, "Py_IncRef", "void", array)
        b.ret(array)
        return function

    def _write_are_apart(self) -> Function:
        """Whether no argument reaches into the memory of one that a result is written into."""
        function = self._function("are_apart", "i1", ("ptr", "state"), ("ptr", "inputs"))
        b = Builder(function)
        state, inputs = function.args
        rows, count = load(b, "ptr", state, at(CALL, "parameters")), load(b, "i64", state, at(CALL, "parameter_count"))
        meet = b.append_block("meet", b.block)

        def piece(number: Value) -> tuple[Value, Value, Value]:
            row = b.gep("i8", rows, b.mul(number, word(8 * len(PARAMETER))))
            start = b.ptrtoint(b.load("ptr", b.gep("ptr", inputs, number)), "i64")
            return start, b.add(start, load(b, "i64", row, at(PARAMETER, "bytes"))), row

        with b.for_loop(0, count) as i:
            start, end, row = piece(i)
            with (
                b.if_then(b.icmp_unsigned("!=", load(b, "i64", row, at(PARAMETER, "is_donor")), word(0))),
                b.for_loop(0, count) as j,
            ):
                first, last, _ = piece(j)
                before, after = b.icmp_unsigned("<=", last, start), b.icmp_unsigned("<=", end, first)
                _require(b, b.or_(b.or_(before, after), b.icmp_unsigned("==", i, j)), meet)
        b.ret(const("i1", 1))
        b.position_at_end(meet)
        b.ret(const("i1", 0))
        return function

    def _run(self, b: Builder, state: Value, inputs: Value, outputs: Value, arena: Value) -> Value:
        """The status of the program. Other Python threads go on meanwhile if it is worth their while."""
        releases = b.icmp_unsigned("!=", load(b, "i64", state, at(CALL, "releases")), word(0))
        arguments = [state, inputs, outputs, arena]
        return b.if_else(
            releases, lambda: b.call(self._run_released, arguments), lambda: self._run_entry(b, *arguments)
        )

    def _run_entry(self, b: Builder, state: Value, inputs: Value, outputs: Value, arena: Value) -> Value:
        constants, context = (load(b, "ptr", state, at(CALL, name)) for name in ("constants", "context"))
        return b.call(load(b, "ptr", state, at(CALL, "entry")), [inputs, outputs, arena, constants, context], "i32")

    def _write_run_released(self) -> Function:
        """The status of a program that runs without Python's lock."""
        params = ("ptr", "state"), ("ptr", "inputs"), ("ptr", "outputs"), ("ptr", "arena")
        function = self._function("run_released", "i32", *params)
        b = Builder(function)
        thread = python(b, "PyEval_SaveThread", "ptr")
        status = self._run_entry(b, *function.args)
        python(b, "PyEval_RestoreThread", "void", thread)
        b.ret(status)
        return function

    def _write_strides_fit(self) -> Function:
        """1 if an array's steps are those that are wanted, wherever there is more than one index; else 0."""
        params = ("ptr", "dims"), ("ptr", "strides"), ("ptr", "steps"), ("i64", "rank")
        function = self._function("strides_fit", "i64", *params)
        b = Builder(function)
        dims, strides, steps, rank = function.args
        differ = b.append_block("differ", b.block)
        with b.for_loop(0, rank) as d:
            fits = b.icmp_unsigned("==", _item(b, strides, d), _item(b, steps, d))
            single = b.icmp_unsigned("==", _item(b, dims, d), word(1))
            _require(b, b.or_(fits, single), differ)
        b.ret(word(1))
        b.position_at_end(differ)
        b.ret(word(0))
        return function

    def _write_abandon(self) -> Function:
        """Gives up the first of the results, after one could not be made."""
        function = self._function("abandon", "void", ("ptr", "leaves"), ("i64", "count"))
        b = Builder(function)
        leaves, count = function.args
        b.call(self._drop, [leaves, word(0), count])
        python(b, "PyErr_Clear", "void")
        b.ret()
        return function


def _require(b: Builder, condition: Value, otherwise: Block) -> None:
    """Goes on where a condition holds."""
    holds = b.append_block("ok", b.block)
    b.cbranch(condition, holds, otherwise)
    b.position_at_end(holds)


def _item(b: Builder, items: Value, index: Value) -> Value:
    return b.load("i64", b.gep("i64", items, index))
