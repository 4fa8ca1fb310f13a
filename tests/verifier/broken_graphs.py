"""Modules broken by hand: what no text can say, because the parser refuses it or makes it impossible."""

import numpy as np

from hloc.ir.attributes import ConvDims, IotaTile, ReplicaGroups, Window, WindowDim
from hloc.ir.builder import Builder
from hloc.ir.computation import Computation
from hloc.ir.dtypes import F32, TOKEN, U32
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module
from hloc.ir.shape_inference import infer_shape
from hloc.ir.shapes import ArrayShape, Layout, TupleShape, array

VECTOR = array(F32, 4)


def _chain():
    """(module, a, b, c) of b = negate(a), c = sine(b)."""
    builder = Builder("broken")
    a = builder.parameter(VECTOR, name="a")
    b = builder.negate(a, name="b")
    c = builder.sine(b, name="c")
    return builder.build(c), a, b, c


def _with(opcode, shape, operands=1, **attributes):
    """A module whose root is made without any check."""
    builder = Builder("broken")
    a = builder.parameter(VECTOR, name="a")
    root = Instruction(opcode, shape, [a] * operands, attributes, name="r")
    return builder.build(builder.computation.add(root))


def no_entry():
    return Module("broken")


def two_of_a_name():
    module, _, b, c = _chain()
    c.name = b.name
    return module


def endless_call():
    builder = Builder("broken")
    a = builder.parameter(VECTOR)
    inner = builder.function("inner", [VECTOR], lambda f, x: f.negate(x))
    x = inner.parameters[0]
    call = Instruction("call", VECTOR, [x], {"to_apply": inner})
    inner.root = inner.add(call)
    return builder.build(builder.call(inner, a))


def foreign_callee():
    module = _with("call", VECTOR, to_apply=next(iter(_chain()[0])))
    return module


def foreign_root():
    module, *_ = _chain()
    module.entry.root = _chain()[3]
    return module


def gap_in_parameters():
    module, *_ = _chain()
    module.entry.add(Instruction("parameter", VECTOR, [], {"number": 2}))
    return module


def one_number_twice():
    module, *_ = _chain()
    module.entry.add(Instruction("parameter", VECTOR, [], {"number": 0}))
    return module


def foreign_operand():
    module, _, _, c = _chain()
    module.entry.set_operand(c, 0, _chain()[2])
    return module


def late_operand():
    module, _, b, _ = _chain()
    module.entry.move_before(b, None)
    return module


def foreign_control_edge():
    module, _, _, c = _chain()
    module.entry.add_control_edge(_chain()[1], c)
    return module


def late_control_edge():
    module, _, b, c = _chain()
    module.entry.add_control_edge(c, b)
    return module


def one_sided_control_edge():
    module, a, _, c = _chain()
    c.control_predecessors += (a,)
    return module


def edited_operands():
    module, a, _, c = _chain()
    c.operands[0] = a
    return module


def negative_size():
    return _with("custom-call", ArrayShape(F32, (-3,)), custom_call_target="f")


def sized_token():
    return _with("custom-call", ArrayShape(TOKEN, (2,)), custom_call_target="f")


def incomplete_layout():
    return _with("negate", ArrayShape(F32, (4,), Layout(())))


def negative_memory_space():
    return _with("negate", ArrayShape(F32, (4,), Layout((0,), memory_space=-1)))


def two_operands_of_negate():
    return _with("negate", VECTOR, operands=2)


def iota_without_dimension():
    return _with("iota", VECTOR, operands=0)


def negate_with_dimensions():
    return _with("negate", VECTOR, dimensions=(0,))


def unknown_direction():
    return _with("compare", array(F32, 4), operands=2, direction="ALMOST")


def dimensions_in_a_list():
    return _with("reverse", VECTOR, dimensions=[0])


def nested_tuples():
    shape, depth = VECTOR, 65
    for _ in range(depth):
        shape = TupleShape((shape,))
    builder = Builder("broken")
    a = builder.parameter(shape.elements[0], name="a")
    root = Instruction("tuple", shape, [a])
    return builder.build(builder.computation.add(root))


def replication_of_too_many_leaves():
    module, a, _, _ = _chain()
    a.annotations["parameter_replication"] = (True, False)
    return module


def map_over_turned_dimensions():
    builder = Builder("broken")
    a = builder.parameter(array(F32, 4, 4))
    body = builder.function("body", [ArrayShape(F32)], lambda f, x: f.negate(x))
    root = Instruction("map", a.shape, [a], {"to_apply": body, "dimensions": (1, 0)})
    return builder.build(builder.computation.add(root))


def convolution_with_one_label_twice():
    module = convolution()
    labels = module.entry.root.attributes["dim_labels"]
    module.entry.root.attributes["dim_labels"] = type(labels)(0, 2, (1,), 1, 2, (0,), 0, 0, (1,))
    return module


def convolution():
    builder = Builder("good")
    lhs, rhs = builder.parameter(array(F32, 4, 8, 3)), builder.parameter(array(F32, 3, 3, 16))
    window = Window((WindowDim(3, pad_low=1, pad_high=1),))
    labels = ConvDims(0, 2, (1,), 1, 2, (0,), 0, 2, (1,))
    return builder.build(builder.convolution(lhs, rhs, window=window, dim_labels=labels))


def constant_of_another_shape():
    return _with("constant", VECTOR, operands=0, literal=Literal.of(np.zeros(3, np.float32)))


def _all_reduce(**attributes):
    builder = Builder("broken")
    a = builder.parameter(VECTOR)
    return builder.build(builder.all_reduce(a, to_apply=builder.reducer("add", F32), **attributes))


def uncountable_groups():
    module = _all_reduce()
    groups = ReplicaGroups(iota=IotaTile((2, 4), (4,), (0,)))
    module.entry.root.attributes["replica_groups"] = groups
    return module


def three_in_a_pair():
    return _with("collective-permute", VECTOR, source_target_pairs=((0, 1, 2),))


def infer_iota():
    infer_shape("iota", [], {"iota_dimension": 0})


def infer_the_end_of_nothing():
    infer_shape("async-done", [TupleShape((VECTOR, VECTOR))])


def call_an_empty_computation():
    infer_shape("call", [], {"to_apply": Computation("empty")})


def _async(done_calls=None, thread="main"):
    """A negate that is begun on a thread, and finished by an op that names `done_calls`."""
    builder = Builder("broken")
    a = builder.parameter(VECTOR, name="a")
    callee = builder.function("callee", [VECTOR], lambda f, x: f.negate(x))
    begun = TupleShape((TupleShape((VECTOR,)), VECTOR, array(U32)))
    start = builder.async_start(a, calls=callee, async_execution_thread=thread, shape=begun)
    more = {} if done_calls is None else {"calls": done_calls(builder)}
    return builder.build(builder.async_done(start, async_execution_thread=thread, **more))


def finished_on_another_computation():
    return _async(lambda b: b.function("other", [VECTOR], lambda f, x: f.sine(x)))


def begun_on_another_thread():
    return _async(thread="host")


# Labels, and calls of infer_shape that are refused with them; a module shows other faults in such a case.
REFUSED = {
    "ASYNC_C1": infer_the_end_of_nothing,
    "CALLED_C4": call_an_empty_computation,
    "SHAPE_C2": infer_iota,
}

# Labels, and modules that break that invariant and no other.
BROKEN = {
    "MODULE_C1": no_entry,
    "MODULE_C2": two_of_a_name,
    "MODULE_C3": endless_call,
    "MODULE_C4": foreign_callee,
    "COMPUTATION_C1": foreign_root,
    "COMPUTATION_C2": gap_in_parameters,
    "COMPUTATION_C3": one_number_twice,
    "OPERAND_C1": foreign_operand,
    "OPERAND_C2": late_operand,
    "CONTROL_C1": foreign_control_edge,
    "CONTROL_C2": late_control_edge,
    "CONTROL_C3": one_sided_control_edge,
    "USERS_C1": edited_operands,
    "SHAPE_C4": negative_size,
    "SHAPE_C5": sized_token,
    "LAYOUT_C1": incomplete_layout,
    "LAYOUT_C4": negative_memory_space,
    "ARITY_C1": two_operands_of_negate,
    "ATTRIBUTE_C1": iota_without_dimension,
    "ATTRIBUTE_C2": negate_with_dimensions,
    "ATTRIBUTE_C3": unknown_direction,
    "ATTRIBUTE_C4": dimensions_in_a_list,
    "TUPLE_C2": nested_tuples,
    "REPLICATION_C1": replication_of_too_many_leaves,
    "MAP_C1": map_over_turned_dimensions,
    "CONVOLUTION_C2": convolution_with_one_label_twice,
    "CONSTANT_C1": constant_of_another_shape,
    "PAIR_C3": finished_on_another_computation,
    "THREAD_C1": begun_on_another_thread,
    "REPLICA_GROUPS_C1": uncountable_groups,
    "SOURCE_TARGET_C1": three_in_a_pair,
}
