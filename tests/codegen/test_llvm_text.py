"""The LLVM text builder: what it writes is read by LLVM, folds exactly, and computes what it says."""

import ctypes
import struct

import llvmlite.binding as llvm
import numpy as np
import pytest

from hloc.codegen.llvm import Builder, Constant, Module, Value, const, float_from_bits, poison

I64 = "i64"


def start(return_type="i64", params=((I64, "x"), (I64, "y"))):
    """A module, its one function `f`, and a builder in it."""
    module = Module("test")
    function = module.function("f", return_type, params)
    return module, function, Builder(function)


def compile_text(module):
    """The function `f` of a module as machine code, and the engine that keeps it alive."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(parsed, machine)


def run(module, *args):
    """Calls i64 function `f` with i64 arguments or pointers."""
    engine = compile_text(module)
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(args))
    return signature(engine.get_function_address("f"))(*args)


def test_integer_arithmetic_runs():
    module, f, b = start()
    x, y = f.args
    terms = [b.add(x, y), b.sub(x, y), b.mul(x, y), b.sdiv(x, y), b.srem(x, y), b.udiv(x, y), b.urem(x, y)]
    terms += [b.shl(x, y), b.lshr(x, y), b.ashr(x, y), b.and_(x, y), b.or_(x, y), b.xor(x, y), b.not_(x)]
    total = terms[0]
    for term in terms[1:]:
        total = b.add(b.mul(total, const(I64, 31)), term)
    b.ret(total)
    x, y = 1234567, 7
    values = [x + y, x - y, x * y, x // y, x % y, x // y, x % y, x << y, x >> y, x >> y]
    values += [x & y, x | y, x ^ y, ~x]
    expected = values[0]
    for value in values[1:]:
        expected = expected * 31 + value
    assert run(module, x, y) == (expected + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize(
    "op, a, b, expected",
    [
        ("add", 127, 1, -128),
        ("sub", -128, 1, 127),
        ("mul", 100, 3, 44),
        ("sdiv", -7, 2, -3),
        ("srem", -7, 2, -1),
        ("udiv", -1, 2, 127),
        ("urem", -1, 10, 5),
        ("shl", 3, 7, -128),
        ("lshr", -1, 1, 127),
        ("ashr", -128, 7, -1),
        ("and_", -1, 12, 12),
        ("or_", 1, -128, -127),
        ("xor", -1, 1, -2),
    ],
)
def test_constants_fold_in_their_width(op, a, b, expected):
    _, _, builder = start()
    result = getattr(builder, op)(const("i8", a), const("i8", b))
    assert isinstance(result, Constant) and result.number == expected
    assert builder.block.lines == []


def test_neutral_and_absorbing_operands_fold():
    _, f, b = start()
    x, zero, one, ones = f.args[0], const(I64, 0), const(I64, 1), const(I64, -1)
    same = [b.add(x, zero), b.add(zero, x), b.sub(x, zero), b.mul(x, one), b.mul(one, x), b.sdiv(x, one)]
    same += [b.udiv(x, one), b.shl(x, zero), b.and_(x, ones), b.or_(x, zero), b.xor(zero, x), b.and_(x, x)]
    assert all(value is x for value in same)
    zeros = [b.mul(x, zero), b.srem(x, one), b.urem(x, one), b.and_(x, zero), b.sub(x, x), b.xor(x, x)]
    assert all(value.number == 0 for value in zeros)
    assert b.block.lines == []


def test_undefined_quotients_are_left_to_run_time():
    _, _, b = start()
    assert not isinstance(b.sdiv(const("i8", -128), const("i8", -1)), Constant)
    assert not isinstance(b.udiv(const("i8", 1), const("i8", 0)), Constant)
    assert not isinstance(b.shl(const("i8", 1), const("i8", 8)), Constant)


def test_comparisons_and_selects_of_constants_fold():
    _, f, b = start()
    assert b.icmp_signed("<", const("i8", -1), const("i8", 1)).text == "true"
    assert b.icmp_unsigned("<", const("i8", -1), const("i8", 1)).text == "false"
    assert b.select(const("i1", True), *f.args) is f.args[0]
    assert b.select(const("i1", 0), *f.args) is f.args[1]


def test_equal_instructions_are_one_where_the_first_dominates():
    _, f, b = start()
    outer = b.add(*f.args)
    assert b.add(*f.args) is outer
    with b.for_loop(0, 4):
        assert b.add(*f.args) is outer
        inner = b.mul(*f.args)
    assert b.mul(*f.args) is not inner, "the loop body does not dominate what follows"


def test_loads_are_shared_only_when_invariant():
    _, f, b = start(params=[("ptr", "p")])
    assert b.load(I64, f.args[0]) is not b.load(I64, f.args[0])
    assert b.load(I64, f.args[0], invariant=True) is b.load(I64, f.args[0], invariant=True)


def test_conversions_of_constants_fold():
    _, _, b = start()
    assert b.zext(const("i8", -1), "i32").number == 255
    assert b.sext(const("i8", -1), "i32").number == -1
    assert b.sext(const("i1", 1), "i8").number == -1
    assert b.trunc(const("i32", 300), "i8").number == 44


@pytest.mark.parametrize(
    "type, bits, text",
    [
        ("float", 0x3DCCCCCD, "0x3FB99999A0000000"),
        ("float", 0x7FC00001, "0x7FF8000020000000"),
        ("float", 0x00000001, "0x36A0000000000000"),
        ("double", 0xFFF0000000000000, "0xFFF0000000000000"),
        ("half", 0x7E01, "0xH7E01"),
        ("bfloat", 0x7F80, "0xR7F80"),
        ("<4 x float>", 0x80000000, "splat (float 0x8000000000000000)"),
    ],
)
def test_float_constants_are_exact(type, bits, text):
    assert float_from_bits(type, bits).text == text


def test_float_constant_bits_survive_llvm():
    patterns = [0x00000001, 0x80000000, 0x3DCCCCCD, 0x7F800000, 0x7FC12345, 0xFF800000, 0xFFC00001]
    module, f, b = start("void", [("ptr", "out")])
    for index, bits in enumerate(patterns):
        b.store(float_from_bits("float", bits), b.gep("float", f.args[0], const(I64, index)))
    b.ret()
    out = np.zeros(len(patterns), np.uint32)
    engine = compile_text(module)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("f"))(out.ctypes.data)
    assert out.tolist() == patterns


def test_const_rounds_and_refuses_what_does_not_fit():
    assert const("float", 0.1).number == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    with pytest.raises(OverflowError):
        const("float", 1e39)
    with pytest.raises(ValueError, match="bfloat"):
        const("bfloat", 0.1)


def test_for_loop_over_arrays():
    module, f, b = start("i64", [("ptr", "x"), ("ptr", "y"), (I64, "n")])
    x, y, n = f.args
    with b.for_loop(0, n, vectorize=True) as i:
        value = b.load("double", b.gep("double", x, i), align=8)
        b.store(b.fma(value, value, const("double", 1.0)), b.gep("double", y, i), align=8)
    b.ret(const(I64, 0))
    engine = compile_text(module)
    for count in (0, 1, 7):
        source, target = np.arange(7.0), np.full(7, -1.0)
        signature = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        signature(engine.get_function_address("f"))(source.ctypes.data, target.ctypes.data, count)
        assert target[:count].tolist() == (source[:count] ** 2 + 1).tolist()
        assert (target[count:] == -1).all()


@pytest.mark.parametrize(
    "first, last, step",
    [(0, 10, 3), (0, 0, 1), (5, 2, 1), (9, -1, -2), (0, 1, 1), (3, 8, 5), (3, 9, 5), (4, 2, -2), (4, 1, -2)],
)
@pytest.mark.parametrize("known", [True, False])
def test_carried_values(first, last, step, known):
    module, f, b = start()
    bounds = (first, last) if known else tuple(f.args)
    total, count = b.for_loop_carrying(
        *bounds,
        [const(I64, 100), const(I64, 0)],
        lambda i, carried: [b.add(carried[0], i), b.add(carried[1], const(I64, 1))],
        step=step,
    )
    b.ret(b.add(b.mul(total, const(I64, 1000)), count))
    indices = range(first, last, step)
    assert run(module, first, last) == (100 + sum(indices)) * 1000 + len(indices)


@pytest.mark.parametrize("first, last, step, loops", [(0, 1, 1, 0), (2, 7, 5, 0), (2, 8, 5, 1), (0, -3, -3, 0)])
def test_a_single_turn_needs_no_loop(first, last, step, loops):
    _, f, b = start()
    with b.for_loop(first, last, step) as i:
        b.store(i, Value("ptr", "%x"))
    b.ret(f.args[1])
    assert f.definition().count("phi") == loops


def test_nested_loops_and_conditions():
    module, f, b = start()

    def row(i, carried):
        def cell(j, inner):
            even = b.icmp_signed("==", b.and_(b.add(i, j), const(I64, 1)), const(I64, 0))
            return [b.if_else(even, lambda: b.add(inner[0], b.mul(i, j)), lambda: b.sub(inner[0], j))]

        return b.for_loop_carrying(0, f.args[1], carried, cell, name="j")

    b.ret(b.for_loop_carrying(0, f.args[0], [const(I64, 0)], row)[0])
    expected = sum(i * j if (i + j) % 2 == 0 else -j for i in range(5) for j in range(6))
    assert run(module, 5, 6) == expected


def test_while_loop_and_if_then():
    module, f, b = start()
    place = b.alloca(I64)
    b.store(const(I64, 0), place)
    (power,) = b.while_loop(
        [const(I64, 1)],
        lambda values: b.icmp_signed("<", values[0], f.args[0]),
        lambda values: [b.mul(values[0], const(I64, 3))],
    )
    with b.if_then(b.icmp_signed(">", power, f.args[1])):
        b.store(power, place)
    b.ret(b.load(I64, place))
    assert run(module, 100, 5) == 243
    assert run(module, 100, 1000) == 0


def test_switch_and_hand_made_blocks_out_of_order():
    module, f, b = start()
    one, two, other, end = (b.append_block(name) for name in ("case", "case", "case", "end"))
    b.switch(f.args[0], other, [(1, one), (2, two)])
    results = []
    for block, factor in ((one, 10), (two, 20), (other, 30)):
        b.position_at_end(block)
        results.append((b.mul(f.args[1], const(I64, factor)), block))
    for value, block in reversed(results):
        b.position_at_end(block)
        b.block.lines.append("  ; revisited")
        results[results.index((value, block))] = (b.add(value, const(I64, 1)), block)
        b.branch(end)
    b.position_at_end(end)
    phi = b.phi(I64)
    for value, block in results:
        phi.add_incoming(value, block)
    b.ret(phi)
    assert [run(module, case, 7) for case in (1, 2, 3)] == [71, 141, 211]


def test_vectors():
    module, f, b = start("i64", [(I64, "x")])
    vector = b.insertelement(b.splat(f.args[0], 4), const(I64, 5), 2)
    mixed = b.shufflevector(vector, b.mul(vector, b.splat(const(I64, 3), 4)), [2, 7, 0, 6])
    parts = [b.extractelement(mixed, lane) for lane in range(4)]
    total = parts[0]
    for part in parts[1:]:
        total = b.add(b.mul(total, const(I64, 100)), part)
    b.ret(total)
    assert run(module, 2) == ((5 * 100 + 6) * 100 + 2) * 100 + 15


def test_calls_intrinsics_and_globals():
    module = Module("test")
    square = module.function("square", I64, [(I64, "v")], "nounwind memory(none) willreturn", "internal")
    inner = Builder(square)
    inner.ret(inner.mul(square.args[0], square.args[0]))
    f = module.function("f", I64, [(I64, "x"), (I64, "y")])
    b = Builder(f)
    table = module.constant_bytes(np.arange(4, dtype=np.int64).tobytes())
    assert module.constant_bytes(np.arange(4, dtype=np.int64).tobytes()) is table
    assert b.call(square, [f.args[0]], pure=True) is b.call(square, [f.args[0]], pure=True)
    entry = b.load(I64, b.gep(I64, table, f.args[1]))
    larger = b.intrinsic("llvm.smax", I64, [b.call(square, [f.args[0]], pure=True), entry])
    saturated = b.intrinsic("llvm.fptosi.sat", "i32", [const("float", 1e20)], overloads=["i32", "float"])
    b.ret(b.add(larger, b.sext(saturated, I64)))
    assert run(module, 9, 3) == 81 + 2**31 - 1
    assert run(module, 0, 3) == 3 + 2**31 - 1


def test_atomics_and_memory_intrinsics():
    module, f, b = start("i64", [("ptr", "p"), (I64, "x")])
    place, x = f.args
    before = b.atomicrmw("add", place, x)
    stored, done = b.cmpxchg(place, b.add(before, x), const(I64, 77))
    b.fence()
    b.memcpy(b.gep(I64, place, const(I64, 1)), place, const(I64, 8))
    b.memset(b.gep(I64, place, const(I64, 2)), const("i8", 1), const(I64, 8))
    b.ret(b.select(done, stored, const(I64, -1)))
    data = np.array([5, 0, 0], np.int64)
    assert run(module, data.ctypes.data, 4) == 9
    assert data.tolist() == [77, 77, 0x0101010101010101]


def test_fast_math_flags_only_when_asked():
    _, f, b = start("void", [("float", "x")])
    exact = b.fadd(f.args[0], f.args[0])
    b.fast = "contract nnan"
    b.fadd(f.args[0], f.args[0])
    assert b.fast == "contract nnan"
    assert b.block.lines == [
        f"  {exact.text} = fadd float %x, %x",
        "  %1 = fadd contract nnan float %x, %x",
    ]


def test_metadata_and_attributes_are_read_by_llvm():
    module, f, b = start("void", [("ptr", "odd name", "noalias align 64"), ("ptr", "y", "readonly")])
    domain = module.alias_domain("kernel")
    scopes = [module.metadata_list([module.alias_scope(domain, name)]) for name in ("a", "b")]
    hints = module.loop_metadata(vectorize=True, width=8, interleave=2, unroll=False)
    with b.for_loop(0, 100, metadata=hints) as i:
        value = b.load(
            "float", b.gep("float", f.args[1], i), alias_scope=scopes[0], noalias=scopes[1], align=4
        )
        place = b.gep("float", f.args[0], i)
        b.store(value, place, alias_scope=scopes[1], noalias=scopes[0], nontemporal=True, align=4)
    b.inline_asm("void", "nop", "")
    b.ret()
    text = str(llvm.parse_assembly(str(module)))
    for part in (
        "!llvm.loop",
        "vectorize.width",
        "!nontemporal",
        "!alias.scope",
        '%"odd name"',
        "asm sideeffect",
    ):
        assert part in text


def test_same_construction_gives_same_text():
    def build():
        module, f, b = start()
        with b.for_loop(0, f.args[0], unroll=4) as i:
            b.call(module.declare("g", "void", [I64]), [i])
        b.ret(b.add(*f.args))
        return str(module)

    assert build() == build()


def test_misuse_is_refused():
    module, _, b = start()
    with pytest.raises(ValueError, match="no terminator"):
        str(module)
    with pytest.raises(ValueError, match="exists"):
        module.function("f")
    assert isinstance(poison("<4 x i32>"), Value)
