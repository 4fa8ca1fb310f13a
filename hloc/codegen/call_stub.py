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
from hloc.codegen.llvm import Block, Builder, Module, Value, const
from hloc.codegen.pool_code import SELDOM, PoolCode, load, store, word
from hloc.codegen.targets.target import Target
from hloc.options import Options

# Offsets in NumPy's array object; its type is where every Python object has it.
_TYPE, _DATA, _RANK, _DIMS, _STRIDES, _DTYPE, _FLAGS, _HANDLER = 8, 16, 24, 32, 40, 56, 64, 88

_OWNS_DATA, _CREATED = 0x4, 0x501
"""Flags of NumPy's arrays; a new one is C-contiguous, aligned and writeable."""

_POSITIONAL = (1 << 63) - 1
"""The bits of a vectorcall's count that are a number."""

_NULL = const("ptr", 0)


def object_code(target: Target) -> bytes:
    """The functions named in `call_layout`, as an object file for a CPU."""
    return target.lower(str(module(target)), "plain-obj", Options())


def module(target: Target) -> Module:
    """The same as LLVM IR."""
    return CallStub(target).module


class CallStub:
    """Writes the function `hloc_call`, and what it needs."""

    def __init__(self, target: Target):
        self.module = Module("call", target.triple, target.data_layout)
        self.attributes = target.function_attributes
        self._seldom = f"{self.attributes} {SELDOM}"
        self.pool = PoolCode(self.module, self.attributes)
        self._new_array = self._write_new_array()
        self._drop = self._write_drop()
        self._structured = self._write_structured()
        self._are_apart = self._write_are_apart()
        self._write_call()

    def _python(self, b: Builder, name: str, type: str, *args: Value) -> Value | None:
        """Calls a function of the interpreter."""
        return b.call(self.module.declare(name, type, [arg.type for arg in args]), args)

    def _write_new_array(self):
        """A new array with memory of the pool, which it gives back at its end."""
        params = ("ptr", "host"), ("ptr", "row")
        function = self.module.function(ARRAY_FUNCTION, "ptr", params, self.attributes)
        b = Builder(function)
        host, row = function.args
        pool = load(b, "ptr", host, at(HOST, "pool"))
        data = b.call(self.pool.take, [pool, load(b, "i64", row, at(RESULT, "size_class"))])
        with b.if_then(b.icmp_unsigned("==", data, _NULL)):
            b.ret(self._python(b, "PyErr_NoMemory", "ptr"))
        dtype = load(b, "ptr", row, at(RESULT, "dtype"))
        self._python(b, "Py_IncRef", "void", dtype)  # the array takes this reference
        rank = b.trunc(load(b, "i64", row, at(RESULT, "rank")), "i32")
        dims, strides = (load(b, "ptr", row, at(RESULT, name)) for name in ("dims", "strides"))
        kind = load(b, "ptr", host, at(HOST, "array_type"))
        arguments = [kind, dtype, rank, dims, strides, data, const("i32", _CREATED), _NULL]
        array = b.call(load(b, "ptr", host, at(HOST, "new_array")), arguments, "ptr")
        with b.if_then(b.icmp_unsigned("==", array, _NULL)):
            b.call(self.pool.free, [pool, data, word(0)])
            b.ret(_NULL)
        handler = load(b, "ptr", host, at(HOST, "handler"))
        self._python(b, "Py_IncRef", "void", handler)
        store(b, handler, array, _HANDLER)
        flags = b.or_(load(b, "i32", array, _FLAGS), const("i32", _OWNS_DATA))
        store(b, flags, array, _FLAGS)
        b.ret(array)
        return function

    def _write_drop(self):
        """Gives up the references to objects, from `first` to `end` in a list of pointers."""
        params = ("ptr", "objects"), ("i64", "first"), ("i64", "end")
        function = self.module.function("drop", "void", params, self._seldom, "internal")
        b = Builder(function)
        objects, first, end = function.args
        with b.for_loop(first, end) as i:
            self._python(b, "Py_DecRef", "void", b.load("ptr", b.gep("ptr", objects, i)))
        b.ret()
        return function

    def _write_structured(self):
        """The value that the steps of a structure make of the leaves, to which it takes over the references."""
        params = ("ptr", "state"), ("ptr", "leaves"), ("ptr", "stack")
        function = self.module.function("structured", "ptr", params, self._seldom, "internal")
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
                self._python(b, "Py_IncRef", "void", none)
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
        made = self._python(b, "PyTuple_New", "ptr", count)

        def fill() -> Value:
            start = b.gep("ptr", stack, b.sub(size, count))
            with b.for_loop(0, count) as i:
                self._python(b, "PyTuple_SetItem", "i32", made, i, b.load("ptr", b.gep("ptr", start, i)))
            b.store(made, start)
            return const("i32", 1)

        return b.if_else(b.icmp_unsigned("==", made, _NULL), lambda: const("i32", 0), fill)

    def _write_call(self) -> None:
        params = ("ptr", "callable"), ("ptr", "args"), ("i64", "count"), ("ptr", "names")
        function = self.module.function(CALL_FUNCTION, "ptr", params, self.attributes)
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
            b.ret(self._failed(b, host, callable, status))
        is_one = b.icmp_unsigned("==", load(b, "i64", state, at(CALL, "structure_count")), word(1))
        with b.if_then(b.and_(is_one, b.icmp_unsigned("==", result_count, word(1)))):
            b.ret(b.load("ptr", leaves))
        b.ret(b.call(self._structured, [state, leaves, b.gep("ptr", leaves, result_count)]))
        b.position_at_end(no_arena)
        b.call(self._drop, [leaves, word(0), result_count])
        b.branch(slow)
        b.position_at_end(slow)
        self._go_slow(b, host, callable, args, count, names)

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
                steps = load(b, "ptr", array, _STRIDES)
                with b.for_loop(0, rank) as d:
                    fits = b.icmp_unsigned("==", _item(b, strides, d), _item(b, steps, d))
                    single = b.icmp_unsigned("==", _item(b, dims, d), word(1))
                    _require(b, b.or_(fits, single), slow)
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
        b.call(self._drop, [leaves, word(0), ready])
        self._python(b, "PyErr_Clear", "void")
        b.branch(slow)
        b.position_at_end(after)

    def _result(self, b: Builder, host: Value, args: Value, row: Value) -> Value:
        """A new array, or the argument that becomes the result."""
        donor = load(b, "i64", row, at(RESULT, "donor"))

        def given() -> Value:
            array = b.load("ptr", b.gep("ptr", args, donor))
            self._python(b, "Py_IncRef", "void", array)
            return array

        return b.if_else(b.icmp_signed("<", donor, word(0)), lambda: b.call(self._new_array, [host, row]), given)

    def _write_are_apart(self):
        """Whether no argument reaches into the memory of one that a result is written into."""
        params = ("ptr", "state"), ("ptr", "inputs")
        function = self.module.function("are_apart", "i1", params, self._seldom, "internal")
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
        thread = b.if_else(releases, lambda: self._python(b, "PyEval_SaveThread", "ptr"), lambda: _NULL)
        constants, context = (load(b, "ptr", state, at(CALL, name)) for name in ("constants", "context"))
        entry = load(b, "ptr", state, at(CALL, "entry"))
        status = b.call(entry, [inputs, outputs, arena, constants, context], "i32")
        with b.if_then(releases):
            self._python(b, "PyEval_RestoreThread", "void", thread)
        return status

    def _failed(self, b: Builder, host: Value, callable: Value, status: Value) -> Value:
        """Has Python raise for a status."""
        number = self._python(b, "PyLong_FromLong", "ptr", b.sext(status, "i64"))
        with b.if_then(b.icmp_unsigned("==", number, _NULL)):
            b.ret(_NULL)
        result = self._call_python(b, load(b, "ptr", host, at(HOST, "failed")), callable, number)
        self._python(b, "Py_DecRef", "void", number)
        return result

    def _go_slow(self, b: Builder, host: Value, callable: Value, args: Value, count: Value, names: Value) -> None:
        """Has Python do the call: all arguments, those with names too, as a tuple; then the names, or None."""
        none = load(b, "ptr", host, at(HOST, "none"))
        named = b.icmp_unsigned("!=", names, _NULL)
        more = b.if_else(named, lambda: self._python(b, "PyTuple_Size", "i64", names), lambda: word(0))
        total = b.add(count, more)
        given = self._python(b, "PyTuple_New", "ptr", total)
        with b.if_then(b.icmp_unsigned("==", given, _NULL)):
            b.ret(_NULL)
        with b.for_loop(0, total) as i:
            item = b.load("ptr", b.gep("ptr", args, i))
            self._python(b, "Py_IncRef", "void", item)
            self._python(b, "PyTuple_SetItem", "i32", given, i, item)
        slow = load(b, "ptr", host, at(HOST, "slow"))
        result = self._call_python(b, slow, callable, given, b.select(named, names, none))
        self._python(b, "Py_DecRef", "void", given)
        b.ret(result)

    def _call_python(self, b: Builder, function: Value, *args: Value) -> Value:
        room = b.alloca("ptr", len(args))
        for number, arg in enumerate(args):
            b.store(arg, b.gep("ptr", room, word(number)))
        return self._python(b, "PyObject_Vectorcall", "ptr", function, room, word(len(args)), _NULL)


def _require(b: Builder, condition: Value, otherwise: Block) -> None:
    """Goes on where a condition holds."""
    holds = b.append_block("ok", b.block)
    b.cbranch(condition, holds, otherwise)
    b.position_at_end(holds)


def _item(b: Builder, items: Value, index: Value) -> Value:
    return b.load("i64", b.gep("i64", items, index))
