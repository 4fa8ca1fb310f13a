"""Straight code for one index, rewritten for several: the instructions of a loop's body.

A value that depends on the loop's counter by sums and constant factors alone is kept as it is for the first lane, with
what it grows by from lane to lane: addresses and counters. A value that does not depend on the counter is computed
before the loop. Everything else becomes vectors, `copies` of them side by side, which hide the latency of one another;
for that, functions are written out where they are called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from hloc.records import record, replace

from .module import Function, Module
from .values import FLOAT_BITS, bit_width

WIDEST_BODY = 400
"""Instructions of a body that is rewritten, at most."""

_BINARY = frozenset(
    ("add", "sub", "mul", "shl", "lshr", "ashr", "and", "or", "xor", "fadd", "fsub", "fmul", "fdiv", "icmp", "fcmp")
)
_DIVISIONS = frozenset(("udiv", "sdiv", "urem", "srem"))
_CASTS = frozenset(
    ("trunc", "zext", "sext", "fptrunc", "fpext", "fptosi", "fptoui", "sitofp", "uitofp", "bitcast")
)
_FLOATS = ("fma", "fmuladd", "sqrt", "fabs", "floor", "ceil", "trunc", "rint", "roundeven", "copysign", "minnum",
           "maxnum", "minimum", "maximum", "fptosi.sat", "fptoui.sat")
_INTEGERS = ("smax", "smin", "umax", "umin", "abs", "ctpop", "ctlz", "cttz", "fshl", "fshr")
_INTRINSICS = frozenset(_FLOATS + _INTEGERS)
_IMMEDIATE = frozenset(("abs", "ctlz", "cttz"))
"""Intrinsics whose last operand says something about the operation: it stays as it is."""

_CALL = re.compile(r"call ((?:[a-z]+ )*?)([a-z]\w*) @([^(]+)\((.*)\)(.*)")
_SUFFIX = re.compile(r"\.(bf16|f16|f32|f64|i\d+)")


class Memory(Protocol):
    """What is known of addresses."""

    def is_invariant(self, pointer: str) -> bool:
        """Whether no iteration changes what lies there."""


class Unfit(Exception):
    """What keeps code from being rewritten; the message names it."""


@record
class Instruction:
    """An instruction's parts: `head` is all in front of the operands' type, `tail` what follows the operands.

    `operands` are (type, text); `name` is empty if there is no result, `type` that of the result or of what is stored.
    """

    name: str
    op: str
    head: str
    type: str
    operands: tuple[tuple[str, str], ...]
    tail: str = ""


def parsed(line: str) -> Instruction | None:
    """The instruction of a line as the Builder writes it; None for a comment. Unfit if it is none to be widened."""
    text = line.strip()
    if text[0] == ";":
        return None
    if "<" in text or "{" in text:
        raise Unfit("vectors or structures")
    name, text = text.split(" = ", 1) if text[0] == "%" else ("", text)
    op = text[: text.index(" ")]
    if op == "call":
        return _parsed_call(name, text)
    words = text.split(" ")
    if op in _BINARY or op in _DIVISIONS:
        type, operands = words[-3], ((words[-3], words[-2][:-1]), (words[-3], words[-1]))
        return Instruction(name, op, " ".join(words[:-3]), "i1" if op[1:] == "cmp" else type, operands)
    if op == "fneg":
        return Instruction(name, op, op, words[1], ((words[1], words[2]),))
    if op in _CASTS:
        return Instruction(name, op, op, words[-1], ((words[-4], words[-3]),))
    return _parsed_by_commas(name, op, text)


def _parsed_by_commas(name: str, op: str, text: str) -> Instruction:
    first, *rest = text.split(", ")
    words = first.split(" ")
    if op == "select":
        operands = (tuple(words[-2:]), *[tuple(part.split(" ")) for part in rest])
        return Instruction(name, op, " ".join(words[:-2]), operands[1][0], operands)
    if op == "getelementptr" and len(rest) == 2 and not words[-1].endswith("]"):
        return Instruction(name, op, " ".join(words[:-1]), words[-1], tuple(tuple(part.split(" ")) for part in rest))
    plain = "nontemporal" not in text
    tail = "".join([f", {part}" for part in rest[1:]])
    if op == "load" and len(words) == 2 and plain:
        return Instruction(name, op, op, words[1], (tuple(rest[0].split(" ")),), tail)
    if op == "store" and len(words) == 3 and plain:
        return Instruction(name, op, op, words[1], (tuple(words[1:]), tuple(rest[0].split(" "))), tail)
    raise Unfit(op)


def _parsed_call(name: str, text: str) -> Instruction:
    found = _CALL.fullmatch(text)
    if found is None or not name:
        raise Unfit("a call with effects")
    flags, type, callee, args, tail = found.groups()
    operands = tuple(tuple(arg.split(" ")) for arg in args.split(", ")) if args else ()
    if any(len(operand) != 2 for operand in operands):
        raise Unfit("attributes of operands")
    return Instruction(name, "call", f"call {flags}", type, operands, callee)


def element_bytes(type: str) -> int:
    """Bytes from one element of a type to the next in memory. Unfit if they are no power of two."""
    bits = bit_width(type) if type == "ptr" or type in FLOAT_BITS or type[0] == "i" else 0
    if bits not in (8, 16, 32, 64):
        raise Unfit(f"{type} in memory")
    return bits // 8


class Widener:
    """Rewrites instructions for `lanes` indices at a time, `copies` times: see the module's docstring.

    `before` receives lines for the code in front, `lines` those of the body. `vectors` holds the names of a value's
    copies, `strides` what a number or (in bytes) an address grows by, `names` what scalars are called now. `memory`
    says what may be loaded earlier than it was.
    """

    def __init__(self, function: Function, lanes: int, copies: int, memory: Memory):
        self.function = function
        self.module: Module = function.module
        self.lanes, self.copies = lanes, copies
        self.memory = memory
        self.before: list[str] = []
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self.strides: dict[str, int] = {}
        self.vectors: dict[str, list[str]] = {}
        self._calls = 0
        self._splats: dict[tuple[str, str], str] = {}
        self._places: dict[tuple[str, int], str] = {}

    def fresh(self) -> str:
        """A name that nothing has."""
        self.function.values += 1
        return f"%w${self.function.values - 1}"

    def add(self, lines: list[str], text: str) -> str:
        """A line with a result; its name."""
        name = self.fresh()
        lines.append(f"  {name} = {text}")
        return name

    def vector(self, type: str) -> str:
        """The type of one copy."""
        return f"<{self.lanes} x {type}>"

    # Operands

    def _is_uniform(self, text: str) -> bool:
        return text not in self.vectors and text not in self.strides

    def _scalar(self, text: str) -> str:
        return self.names.get(text, text)

    def operand(self, type: str, text: str, copy: int) -> str:
        """A copy's operand, without its type."""
        known = self.vectors.get(text)
        if known is not None:
            return known[copy]
        if text in self.strides:
            self.vectors[text] = [self._counted(type, text, number) for number in range(self.copies)]
            return self.vectors[text][copy]
        return self.splat(type, text)

    def splat(self, type: str, text: str) -> str:
        """A value that does not depend on the lane, in all of them."""
        if type == "ptr":
            raise Unfit("addresses as data")
        if text[0] not in "%@":
            return f"splat ({type} {text})" if text != "poison" else text
        key = (type, text)
        if key not in self._splats:
            self._splats[key] = self._repeated(self.before, type, self._scalar(text))
        return self._splats[key]

    def _repeated(self, lines: list[str], type: str, text: str) -> str:
        vector = self.vector(type)
        first = self.add(lines, f"insertelement {vector} poison, {type} {text}, i64 0")
        return self.add(lines, f"shufflevector {vector} {first}, {vector} poison, <{self.lanes} x i32> zeroinitializer")

    def _counted(self, type: str, text: str, copy: int) -> str:
        """The lanes of a number that grows from lane to lane."""
        if type == "ptr":
            raise Unfit("addresses as data")
        stride, bits = self.strides[text], bit_width(type)
        first = copy * self.lanes
        steps = ", ".join([f"{type} {(first + lane) * stride % (1 << bits)}" for lane in range(self.lanes)])
        base = self._repeated(self.lines, type, self._scalar(text))
        return self.add(self.lines, f"add {self.vector(type)} {base}, <{steps}>")

    # Instructions

    def take(self, instruction: Instruction) -> None:
        """Rewrites the next instruction. Unfit if that is not possible."""
        op, operands = instruction.op, instruction.operands
        if op == "load":
            self._load(instruction)
        elif op == "store":
            self._store(instruction)
        elif all(self._is_uniform(text) for _, text in operands):
            self._once(instruction, self.before)
        elif op == "getelementptr":
            self._address(instruction)
        elif (stride := self._stride(instruction)) is not None:
            self._once(instruction, self.lines)
            self.strides[instruction.name] = stride
        elif op == "call" and not instruction.tail.startswith("llvm.") and instruction.tail not in self.module.variants:
            self._inline(instruction)
        else:
            self._wide(instruction)

    def _inline(self, call: Instruction) -> None:
        """Rewrites the instructions of the function that is called."""
        function = self.module.functions.get(call.tail)
        if function is None:
            raise Unfit("a function from elsewhere")
        body, result = _straight(function)
        self._calls += 1
        names = {arg.text: text for arg, (_, text) in zip(function.args, call.operands, strict=True)}
        for instruction in body:
            operands = tuple([(type, names.get(text, text)) for type, text in instruction.operands])
            names[instruction.name] = f"{instruction.name}~{self._calls}"
            self.take(replace(instruction, name=names[instruction.name], operands=operands))
        value = names.get(result, result)
        for known in (self.vectors, self.strides, self.names):
            if value in known:
                known[call.name] = known[value]
        if self._is_uniform(call.name):
            self.names[call.name] = self._scalar(value)

    def _once(self, instruction: Instruction, lines: list[str]) -> None:
        """The instruction as it is: for all lanes, or for the first one."""
        self.names[instruction.name] = self.add(lines, _text(instruction, self._scalar))

    def _stride(self, instruction: Instruction) -> int | None:
        """What an integer grows by from lane to lane; None if that is no constant."""
        op = instruction.op
        if op == "trunc":
            return self.strides.get(instruction.operands[0][1])
        if op not in ("add", "sub", "mul", "shl"):
            return None
        (_, a), (_, b) = instruction.operands
        if a in self.vectors and a not in self.strides or b in self.vectors and b not in self.strides:
            return None
        if op in ("add", "sub"):
            other = self.strides.get(b, 0)
            return self.strides.get(a, 0) + (other if op == "add" else -other)
        factor = int(b) if b[0] not in "%@" else None
        if factor is None or a not in self.strides:
            return None
        return self.strides[a] * factor if op == "mul" else self.strides[a] << factor

    def _address(self, instruction: Instruction) -> None:
        (_, pointer), (type, index) = instruction.operands
        if type != "i64" or pointer in self.vectors or (index in self.vectors and index not in self.strides):
            raise Unfit("computed addresses")
        stride = self.strides.get(pointer, 0) + self.strides.get(index, 0) * element_bytes(instruction.type)
        self._once(instruction, self.lines)
        self.strides[instruction.name] = stride

    def _load(self, instruction: Instruction) -> None:
        ((_, pointer),) = instruction.operands
        if self._is_uniform(pointer):
            if not self.memory.is_invariant(pointer):
                raise Unfit("a load that may change")
            self._once(instruction, self.before)
            return
        size, type = element_bytes(instruction.type), instruction.type
        if pointer not in self.strides:
            raise Unfit("computed addresses")
        if self.strides[pointer] != size:
            raise Unfit("loads that lie apart")
        tail = _aligned(instruction)
        self.vectors[instruction.name] = [
            self.add(self.lines, f"load {self.vector(type)}, ptr {self._place(pointer, copy * size)}{tail}")
            for copy in range(self.copies)
        ]

    def _store(self, instruction: Instruction) -> None:
        (type, value), (_, pointer) = instruction.operands
        size = element_bytes(type)
        if self.strides.get(pointer) != size:
            raise Unfit("stores that lie apart")
        values = [self.operand(type, value, copy) for copy in range(self.copies)]
        for copy, text in enumerate(values):
            place = self._place(pointer, copy * size)
            self.lines.append(f"  store {self.vector(type)} {text}, ptr {place}{_aligned(instruction)}")

    def _place(self, pointer: str, step: int) -> str:
        """An address so many times `lanes` bytes on."""
        offset = step * self.lanes
        if not offset:
            return self._scalar(pointer)
        key = (pointer, offset)
        if key not in self._places:
            text = f"getelementptr inbounds i8, ptr {self._scalar(pointer)}, i64 {offset}"
            self._places[key] = self.add(self.lines, text)
        return self._places[key]

    def _wide(self, instruction: Instruction) -> None:
        if instruction.op in _DIVISIONS and instruction.operands[1][1][0] in "%@":
            raise Unfit("divisions")
        made = []
        for copy in range(self.copies):
            operands = [(type, self.operand(type, text, copy)) for type, text in instruction.operands]
            made.append(self.add(self.lines, self.wide_text(instruction, operands)))
        self.vectors[instruction.name] = made

    def wide_text(self, instruction: Instruction, operands: Sequence[tuple[str, str]]) -> str:
        """An instruction of vectors, without its result's name."""
        op, head, result = instruction.op, instruction.head, self.vector(instruction.type)
        typed = [f"{self.vector(type)} {text}" for type, text in operands]
        if op in _CASTS:
            return f"{op} {typed[0]} to {result}"
        if op != "call":
            return f"{head} {', '.join(typed if op == 'select' else [typed[0], *[text for _, text in operands[1:]]])}"
        name = instruction.tail
        if not name.startswith("llvm."):
            return f"{head}{result} {self.module.variants[name](self.lanes).text}({', '.join(typed)})"
        kind = _SUFFIX.sub("", name[5:])
        if kind not in _INTRINSICS:
            raise Unfit(f"llvm.{kind}")
        if kind in _IMMEDIATE:
            typed[-1] = " ".join(instruction.operands[-1])
        wide = _SUFFIX.sub(lambda found: f".v{self.lanes}{found[1]}", name)
        return f"{head}{result} @{wide}({', '.join(typed)})"


def _aligned(instruction: Instruction) -> str:
    """A load's or a store's tail, which says how an element is aligned: a vector's own alignment would be wider."""
    tail = instruction.tail
    return tail if tail.startswith(", align") else f", align {element_bytes(instruction.type)}{tail}"


def _text(instruction: Instruction, name) -> str:
    """The instruction's text with other names."""
    operands = [f"{type} {name(text)}" for type, text in instruction.operands]
    op, head, type = instruction.op, instruction.head, instruction.type
    if op in _CASTS:
        return f"{op} {operands[0]} to {type}"
    if op == "call":
        return f"{head}{type} @{instruction.tail}({', '.join(operands)})"
    if op in ("load", "getelementptr"):
        return f"{head} {type}, {', '.join(operands)}{instruction.tail}"
    if op == "select":
        return f"{head} {', '.join(operands)}"
    return f"{head} {', '.join([operands[0], *[name(text) for _, text in instruction.operands[1:]]])}"


def _straight(function: Function) -> tuple[list[Instruction], str]:
    """The instructions of a function, and what it returns. Unfit if it is more than one block of code."""
    known = function.module.straight.get(function.name)
    if known is None:
        if len(function.blocks) != 1 or "alwaysinline" not in function.attributes:
            raise Unfit("a function of several blocks")
        *lines, last = function.blocks[0].lines
        body = [instruction for line in lines if (instruction := parsed(line)) is not None]
        known = function.module.straight[function.name] = (body, last.split()[-1])
    return known
