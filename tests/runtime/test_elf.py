"""The loader of object files: code, constants, calls out of it; and what it refuses."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import pytest

from hloc.codegen.targets.cpu import new_machine
from hloc.runtime import elf, mcjit

LOOK_UP = """
@table = internal constant [4 x i32] [i32 10, i32 20, i32 30, i32 40]
@scale = internal constant i32 3
declare ptr @memcpy(ptr, ptr, i64)
define i32 @scaled(i64 %i, ptr %from, ptr %to) {
  %copied = call ptr @memcpy(ptr %to, ptr %from, i64 4)
  %p = getelementptr i32, ptr @table, i64 %i
  %x = load i32, ptr %p
  %s = load volatile i32, ptr @scale
  %y = mul i32 %x, %s
  ret i32 %y
}
"""

CALLER = """
@own = internal constant i32 5
declare i32 @scaled(i64, ptr, ptr)
define i32 @twice(i64 %i, ptr %from, ptr %to) {
  %x = call i32 @scaled(i64 %i, ptr %from, ptr %to)
  %y = mul i32 %x, 2
  %five = load volatile i32, ptr @own
  %z = add i32 %y, %five
  ret i32 %z
}
"""

UNKNOWN = "declare i32 @no_such_function()\ndefine i32 @f() {\n  %x = call i32 @no_such_function()\n  ret i32 %x\n}"


def object_of(text: str) -> bytes:
    return new_machine().emit_object(llvm.parse_assembly(text))


@pytest.fixture(params=[elf.Loaded, mcjit.Loaded], ids=["elf", "mcjit"])
def load(request):
    if request.param is elf.Loaded and not elf.is_loadable(object_of(LOOK_UP)):
        pytest.skip("object files of this machine are not ELF for x86-64: LLVM loads them")
    return request.param


def test_code_finds_its_constants_and_the_c_library(load) -> None:
    loaded = load(object_of(LOOK_UP))
    scaled = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(
        loaded.address("scaled")
    )
    source, target = ctypes.create_string_buffer(b"abcd", 4), ctypes.create_string_buffer(4)
    assert scaled(2, ctypes.addressof(source), ctypes.addressof(target)) == 90
    assert target.raw == b"abcd"


@pytest.mark.parametrize("turned", [False, True])
def test_files_call_each_other(load, turned: bool) -> None:
    files = [object_of(CALLER), object_of(LOOK_UP)]
    loaded = load(*(files[::-1] if turned else files))
    twice = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(loaded.address("twice"))
    source, target = ctypes.create_string_buffer(b"abcd", 4), ctypes.create_string_buffer(4)
    assert twice(2, ctypes.addressof(source), ctypes.addressof(target)) == 185
    assert target.raw == b"abcd"
    if load is elf.Loaded:
        assert loaded.name_at(loaded.address("scaled") + 1) == "scaled"


def test_a_symbol_that_is_not_there(load) -> None:
    with pytest.raises(RuntimeError, match="no hloc_entry"):
        load(object_of(LOOK_UP)).address("hloc_entry")


def test_a_function_that_nobody_has() -> None:
    with pytest.raises(RuntimeError, match="calls no_such_function"):
        elf.Loaded(object_of(UNKNOWN))


def test_what_is_no_object_file_of_this_machine() -> None:
    data = object_of(LOOK_UP)
    assert elf.is_loadable(data)
    assert not elf.is_loadable(b"")
    assert not elf.is_loadable(b"MZ" + data[2:])
    assert not elf.is_loadable(data[:18] + b"\xb7" + data[19:])  # AArch64
