"""What the native function behind calls leaves to Python, as LLVM IR: see `call_stub`."""

from __future__ import annotations

from hloc.codegen.call_layout import HOST, at
from hloc.codegen.llvm import Builder, Function, Module, Value, const
from hloc.codegen.pool_code import load, word

_NULL = const("ptr", 0)


def python(b: Builder, name: str, type: str, *args: Value) -> Value | None:
    """Calls a function of the interpreter."""
    return b.call(b.module.declare(name, type, [arg.type for arg in args]), args)


def failure(module: Module, attributes: str) -> Function:
    """Has Python raise for a status."""
    params = ("ptr", "host"), ("ptr", "callable"), ("i32", "status")
    function = module.function("hloc_fail", "ptr", params, attributes)
    b = Builder(function)
    host, callable, status = function.args
    number = python(b, "PyLong_FromLong", "ptr", b.sext(status, "i64"))
    with b.if_then(b.icmp_unsigned("==", number, _NULL)):
        b.ret(_NULL)
    result = _call_python(b, load(b, "ptr", host, at(HOST, "failed")), callable, number)
    python(b, "Py_DecRef", "void", number)
    b.ret(result)
    return function


def slow_call(module: Module, attributes: str) -> Function:
    """Has Python do a call: all arguments, those with names too, as a tuple; then the names, or None."""
    params = ("ptr", "host"), ("ptr", "callable"), ("ptr", "args"), ("i64", "count"), ("ptr", "names")
    function = module.function("hloc_call_slowly", "ptr", params, attributes)
    b = Builder(function)
    host, callable, args, count, names = function.args
    none = load(b, "ptr", host, at(HOST, "none"))
    named = b.icmp_unsigned("!=", names, _NULL)
    more = b.if_else(named, lambda: python(b, "PyTuple_Size", "i64", names), lambda: word(0))
    total = b.add(count, more)
    given = python(b, "PyTuple_New", "ptr", total)
    with b.if_then(b.icmp_unsigned("==", given, _NULL)):
        b.ret(_NULL)
    with b.for_loop(0, total) as i:
        item = b.load("ptr", b.gep("ptr", args, i))
        python(b, "Py_IncRef", "void", item)
        python(b, "PyTuple_SetItem", "i32", given, i, item)
    slow = load(b, "ptr", host, at(HOST, "slow"))
    result = _call_python(b, slow, callable, given, b.select(named, names, none))
    python(b, "Py_DecRef", "void", given)
    b.ret(result)
    return function


def _call_python(b: Builder, function: Value, *args: Value) -> Value:
    room = b.alloca("ptr", len(args))
    for number, arg in enumerate(args):
        b.store(arg, b.gep("ptr", room, word(number)))
    return python(b, "PyObject_Vectorcall", "ptr", function, room, word(len(args)), _NULL)
