"""Who calls whom, how, and what circles are found."""

from hloc.analysis.call_graph import CONTROL, FUSED, OPAQUE, SCALAR, CallGraph, context_of
from hloc.ir.builder import Builder
from hloc.ir.computation import Computation
from hloc.ir.dtypes import F32
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.text.parser import parse

TEXT = """HloModule m

add {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT sum = f32[] add(x, y)
}

fused {
  v = f32[4] parameter(0)
  z = f32[] constant(0)
  ROOT total = f32[] reduce(v, z), dimensions={0}, to_apply=add
}

unused {
  ROOT w = f32[4] parameter(0)
}

body {
  s = f32[4] parameter(0)
  t = f32[] fusion(s), kind=kLoop, calls=fused
  ROOT b = f32[4] broadcast(t), dimensions={}
}

always {
  u = f32[4] parameter(0)
  ROOT yes = pred[] constant(true)
}

ENTRY main {
  a = f32[4] parameter(0)
  c = f32[4] call(a), to_apply=body
  l = f32[4] while(c), condition=always, body=body
  ROOT k = f32[4] custom-call(l), custom_call_target="f", called_computations={body}
}
"""


def names(computations):
    return [computation.name for computation in computations]


def test_callers_and_callees():
    module = parse(TEXT)
    graph = CallGraph(module)
    by_name = module.computations
    assert names(graph.callees(module.entry)) == ["body", "always"]
    assert [site.name for site in graph.call_sites(module.entry)] == ["c", "l", "k"]
    assert [site.name for site in graph.callers(by_name["body"])] == ["c", "l", "k"]
    assert graph.callers(module.entry) == []


def test_reachable_lists_callees_first():
    module = parse(TEXT)
    assert names(CallGraph(module).reachable()) == ["add", "fused", "body", "always", "main"]
    assert names(CallGraph(module).reachable(module.computations["fused"])) == ["add", "fused"]


def test_contexts():
    module = parse(TEXT)
    graph = CallGraph(module)
    contexts = {computation.name: graph.contexts(computation) for computation in module}
    assert contexts == {
        "add": (SCALAR,),
        "fused": (FUSED,),
        "unused": (),
        "body": (CONTROL, OPAQUE),
        "always": (CONTROL,),
        "main": (CONTROL,),
    }
    assert context_of("scan") == context_of("async-start") == CONTROL


def test_a_module_without_entry_reaches_nothing():
    assert CallGraph(Module("empty")).reachable() == []


def calling(*pairs):
    """A module in which each first computation calls the second."""
    module = Module("m")
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        computation = Computation(name)
        computation.root = computation.add(Instruction("parameter", array(F32), [], {"number": 0}))
        module.add_computation(computation, entry=module.entry is None)
    for caller, callee in pairs:
        inside = module.computations[caller]
        call = Instruction("call", array(F32), [inside.root], {"to_apply": module.computations[callee]})
        inside.root = inside.add(call)
    return module


def test_circles():
    assert names(CallGraph(calling("ab", "bc", "ca")).cycle()) == ["a", "b", "c"]
    assert names(CallGraph(calling("ab", "bc", "cb")).cycle()) == ["b", "c"]
    assert names(CallGraph(calling("ab", "bb")).cycle()) == ["b"]
    assert CallGraph(calling("ab", "ac", "bd", "cd")).cycle() == []
    assert CallGraph(calling("ab", "ba")).is_recursive


def test_a_circle_that_the_entry_does_not_reach():
    assert names(CallGraph(calling("ab", "cd", "dc")).cycle()) == ["c", "d"]


def test_a_chain_of_calls_needs_no_stack():
    builder = Builder("deep")
    callee = builder.function("f", [array(F32)], lambda f, x: f.negate(x))
    for _ in range(5000):
        previous = callee
        callee = builder.function("f", [array(F32)], lambda f, x, previous=previous: f.call(previous, x))
    graph = CallGraph(builder.module)
    assert len(graph.reachable(callee)) == 5001
    assert not graph.is_recursive
