"""Python's search for cycles: not while a program is compiled, and as before afterwards."""

import gc

import pytest

import hloc
from hloc import collection
from hloc.codegen import compile as codegen
from hloc.errors import HloError
from hloc.options import Options

_TEXT = "HloModule m\nENTRY e {\n  x = f32[3] parameter(0)\n  ROOT y = f32[3] negate(x)\n}\n"


def test_pauses_nest():
    with collection.paused():
        with collection.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_who_has_it_off_keeps_it_off():
    gc.disable()
    try:
        with collection.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_compile_is_one_pause(monkeypatch):
    seen = []
    lowered = codegen.compile_module
    monkeypatch.setattr(codegen, "compile_module", lambda *given: seen.append(gc.isenabled()) or lowered(*given))
    hloc.compile(_TEXT, options=Options(cache=False))
    assert seen == [False]
    assert gc.isenabled()


def test_it_goes_on_after_a_fault():
    with pytest.raises(HloError):
        hloc.compile("HloModule m\nENTRY e { ROOT y = f32[3] negate(x) }", options=Options(cache=False))
    assert gc.isenabled()
