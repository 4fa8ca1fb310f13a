"""Module, function and block: the containers of the text, and the metadata they share.

Text is made once, by `str(module)`. Equal construction gives equal text: all tables keep insertion order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .values import Value

_PLAIN_NAME = re.compile(r"[A-Za-z$._-][A-Za-z0-9$._-]*")
_NUMBERED = re.compile(r"%(\d+)\b")
_ESCAPED = [chr(i) if 32 <= i < 127 and i not in b'"\\' else f"\\{i:02X}" for i in range(256)]


def quoted(name: str) -> str:
    """A name as LLVM reads it: quoted when it holds anything but letters, digits and `$._-`."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return '"' + escaped(name.encode()) + '"'


def escaped(data: bytes) -> str:
    """Bytes as the inside of an LLVM string."""
    return "".join([_ESCAPED[byte] for byte in data])


class Block:
    """A basic block: phis, then lines, the last of which is the terminator.

    `tables` are the value tables of this block and of those that dominate it, nearest first: from
    instruction text to the Value that already holds its result.
    """

    __slots__ = ("function", "lines", "name", "phis", "placed", "tables", "terminated")

    def __init__(self, name: str, function: Function, dominator: Block | None):
        self.name = name
        self.function = function
        self.phis: list[Phi] = []
        self.lines: list[str] = []
        self.tables: list[dict[object, object]] = [{}, *(dominator.tables if dominator else ())]
        self.terminated = False
        self.placed = False


class Phi(Value):
    """A phi node; edges are added as the blocks they come from are finished."""

    __slots__ = ("incoming",)

    def __init__(self, type: str, text: str):
        self.type = type
        self.text = text
        self.incoming: list[tuple[Value, Block]] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        """Takes `value` when control comes from `block`."""
        self.incoming.append((value, block))

    def line(self) -> str:
        """The instruction's text."""
        edges = ", ".join([f"[ {value.text}, %{block.name} ]" for value, block in self.incoming])
        return f"  {self.text} = phi {self.type} {edges}"


class Callee:
    """What a call names: a function's symbol, return type and parameter types."""

    __slots__ = ("name", "parameter_types", "return_type", "text")

    def __init__(self, name: str, return_type: str, parameter_types: list[str]):
        self.name = name
        self.return_type = return_type
        self.parameter_types = parameter_types
        self.text = "@" + quoted(name)


class Function(Callee):
    """A function with a body. `args` are its parameters as values.

    `params` are (type, name) or (type, name, attributes) with attributes as LLVM text, for instance
    `"noalias readonly align 64 dereferenceable(4096)"`. `attributes` is the text of the function's
    attribute group, `linkage` LLVM text such as `internal`. Of the loop under construction, `interleave` is how many
    vectors it works on at a time, if that is asked for, and `lanes` how many the functions take that it calls.

    If it `widens`, loops become loops over vectors (`vector_loops.py`), up to the first that cannot. It is `settled` if
    there is nothing left for LLVM to make vectors of: it need not do much then. `barriers` counts what it makes no
    vectors around: loops that are closed, calls that it cannot look into. `apart` are pointers to memory that nothing
    else leads to; `addresses` says what addresses were made of.
    """

    __slots__ = (
        "addresses",
        "apart",
        "args",
        "attributes",
        "barriers",
        "block_names",
        "blocks",
        "interleave",
        "lanes",
        "linkage",
        "module",
        "out_of_order",
        "settled",
        "signature",
        "values",
        "widens",
    )

    def __init__(
        self,
        module: Module,
        name: str,
        return_type: str,
        params: Iterable[tuple],
        attributes: str = "nounwind",
        linkage: str = "",
    ):
        params = [tuple(param) for param in params]
        super().__init__(name, return_type, [param[0] for param in params])
        self.module = module
        self.args = [Value(param[0], "%" + quoted(param[1])) for param in params]
        self.signature = ", ".join(
            " ".join([param[0], *param[2:], arg.text]).replace("  ", " ")
            for param, arg in zip(params, self.args)
        )
        self.attributes = attributes
        self.linkage = linkage
        self.interleave = self.lanes = 0
        self.blocks: list[Block] = []
        self.block_names: dict[str, int] = {param[1]: 1 for param in params}
        self.values = self.barriers = 0
        self.out_of_order = self.widens = self.settled = False
        self.apart = {arg.text for param, arg in zip(params, self.args) if "noalias" in "".join(param[2:])}
        self.addresses: dict[str, str] = {}

    def append_block(self, name: str = "b", dominator: Block | None = None) -> Block:
        """A new block, laid out where it is first positioned at.

        With `dominator`, equal instructions of that block (and its own dominators) are reused here.
        """
        names = self.block_names
        unique, count = name, names.get(name, 0)
        while unique in names:  # blocks and parameters share one name space
            unique, count = f"{name}.{count}", count + 1
        names[name] = max(count, 1)
        names[unique] = 1
        return Block(quoted(unique), self, dominator)

    def definition(self) -> str:
        """The function's text. ValueError if a block lacks a terminator."""
        head = " ".join(filter(None, ["define", self.linkage, self.return_type]))
        attributes = f'{self.attributes} "hloc-passes"="few"' if self.settled else self.attributes
        lines = [f"{head} {self.text}({self.signature}) {self.module.attribute_group(attributes)} {{"]
        for block in self.blocks:
            if not block.terminated:
                raise ValueError(f"block {block.name} of {self.name} has no terminator")
            lines.append(f"{block.name}:")
            lines += [phi.line() for phi in block.phis]
            lines += block.lines
        lines.append("}\n")
        body = "\n".join(lines)
        return _renumbered(body) if self.out_of_order else body


def _renumbered(body: str) -> str:
    """The body with numbered values in order of definition, as LLVM wants them.

    Only needed when instructions were added to a block after later blocks had received some.
    """
    defined = re.findall(r"^  %(\d+) = ", body, re.MULTILINE)
    order = {number: str(index) for index, number in enumerate(defined)}
    return _NUMBERED.sub(lambda match: "%" + order[match[1]], body)


class Module:
    """One LLVM module under construction; `str(module)` is its text.

    `comment` stands at its head, if there is one; `attributes` is LLVM text that every function carries beside its own.
    `parts` are modules of routines, which are compiled apart from it, each by a `stage` of the target; None: routines
    are written into it.
    `vector_bytes` is the width of vectors for which functions of scalars may be given variants, 0 for none, and
    `vector_attributes` what such variants carry. `flushes_denormals`: its code runs where these count as zeros.
    `variants` gives, for functions of scalars that have such, the function of so many lanes; `straight` has, for those
    that were written out in loops, their instructions and what they return.
    """

    def __init__(
        self, name: str = "hloc", triple: str = "", data_layout: str = "", comment: str = "", attributes: str = ""
    ):
        self.name = name
        self.comment = comment
        self.attributes = attributes
        self.triple = triple
        self.data_layout = data_layout
        self.parts: dict[str, Module] | None = None
        self.stage = "obj"
        self.vector_bytes = 0
        self.vector_attributes = ""
        self.flushes_denormals = False
        self.functions: dict[str, Function] = {}
        self.declarations: dict[str, tuple[Callee, str]] = {}
        self.globals: dict[str, str] = {}
        self._groups: dict[str, int] = {}
        self._metadata: list[str] = []
        self._metadata_ids: dict[str, str] = {}
        self._named_metadata: list[str] = []
        self._constants: dict[tuple, Value] = {}
        self._kept: dict[str, None] = {}
        self.variants: dict[str, Callable[[int], Function]] = {}
        self.straight: dict[str, tuple[list, str]] = {}

    def function(
        self,
        name: str,
        return_type: str = "void",
        params: Iterable[tuple] = (),
        attributes: str = "nounwind",
        linkage: str = "",
    ) -> Function:
        """A new function with a body to be built. ValueError if the name is taken."""
        if name in self.functions or name in self.declarations:
            raise ValueError(f"function {name} exists already")
        function = Function(self, name, return_type, params, attributes, linkage)
        self.functions[name] = function
        return function

    def declare(
        self, name: str, return_type: str, parameter_types: Iterable[str], attributes: str = "nounwind"
    ) -> Callee:
        """An external function; the same name is declared once."""
        known = self.declarations.get(name)
        if known is None:
            known = (Callee(name, return_type, list(parameter_types)), attributes)
            self.declarations[name] = known
        return known[0]

    def keep(self, function: Function) -> None:
        """Let LLVM's passes not remove a function that is not called yet."""
        self._kept[f"ptr {function.text}"] = None

    def part(self, name: str, stage: str) -> Module:
        """The module to write routines of that part into: one of `parts`, or this one."""
        if self.parts is None:
            return self
        if name in self.parts:
            return self.parts[name]
        part = Module(name, self.triple, self.data_layout, attributes=self.attributes)
        part.parts, part.stage = self.parts, stage
        part.vector_bytes, part.vector_attributes = self.vector_bytes, self.vector_attributes
        part.flushes_denormals = self.flushes_denormals
        self.parts[name] = part
        return part

    def attribute_group(self, attributes: str) -> str:
        """`#N` for a set of function attributes, equal sets sharing a number; nothing for none."""
        attributes = f"{attributes} {self.attributes}".strip()
        if not attributes:
            return ""
        return f"#{self._groups.setdefault(attributes, len(self._groups))}"

    def global_variable(
        self,
        name: str,
        type: str,
        initializer: str = "zeroinitializer",
        *,
        constant: bool = False,
        linkage: str = "internal",
        align: int = 0,
    ) -> Value:
        """A global of the given type and initializer text; the value is its address."""
        if name in self.globals:
            raise ValueError(f"global {name} exists already")
        kind = "constant" if constant else "global"
        unnamed = "unnamed_addr " if constant else ""
        suffix = f", align {align}" if align else ""
        symbol = "@" + quoted(name)
        self.globals[name] = f"{symbol} = {linkage} {unnamed}{kind} {type} {initializer}{suffix}"
        return Value("ptr", symbol)

    def constant_bytes(self, data: bytes, align: int = 64, name: str = "const") -> Value:
        """The address of a read-only copy of `data`; equal data is stored once."""
        key = (data, align)
        if key not in self._constants:
            self._constants[key] = self.global_variable(
                f"{name}.{len(self._constants)}",
                f"[{len(data)} x i8]",
                f'c"{escaped(data)}"',
                constant=True,
                linkage="private",
                align=align,
            )
        return self._constants[key]

    def metadata(self, body: str) -> str:
        """`!N` for a uniqued node such as `!{!"a", i32 1}`; equal text shares a node."""
        if body not in self._metadata_ids:
            self._metadata_ids[body] = f"!{len(self._metadata)}"
            self._metadata.append(body)
        return self._metadata_ids[body]

    def distinct_metadata(self, *fields: str) -> str:
        """`!N` for a new node whose first field is itself, as loop and alias-scope nodes have it."""
        reference = f"!{len(self._metadata)}"
        self._metadata.append(f"distinct !{{{', '.join([reference, *fields])}}}")
        return reference

    def alias_domain(self, name: str) -> str:
        """A new alias-scope domain: one per function or per inlined body."""
        return self.distinct_metadata(f'!"{escaped(name.encode())}"')

    def alias_scope(self, domain: str, name: str) -> str:
        """A new scope in a domain: one per buffer."""
        return self.distinct_metadata(domain, f'!"{escaped(name.encode())}"')

    def metadata_list(self, nodes: Iterable[str]) -> str:
        """The node that lists other nodes: what `alias_scope=` and `noalias=` of loads and stores take."""
        return self.metadata("!{" + ", ".join(nodes) + "}")

    def loop_metadata(
        self,
        *,
        vectorize: bool | None = None,
        width: int = 0,
        interleave: int = 0,
        unroll: bool | int | None = None,
        align: int = 0,
    ) -> str:
        """A new `llvm.loop` node. None leaves a choice to LLVM; `unroll` is off, on, or a count.

        The loop's code begins at a multiple of `align` bytes, if that is given.
        """
        hints = []
        if vectorize is not None:
            hints.append(f'!{{!"llvm.loop.vectorize.enable", i1 {"true" if vectorize else "false"}}}')
        if width:
            hints.append(f'!{{!"llvm.loop.vectorize.width", i32 {width}}}')
        if interleave:
            hints.append(f'!{{!"llvm.loop.interleave.count", i32 {interleave}}}')
        if unroll is not None and unroll is not False and unroll is not True:
            hints.append(f'!{{!"llvm.loop.unroll.count", i32 {unroll}}}')
        elif unroll is not None:
            hints.append('!{!"llvm.loop.unroll.enable"}' if unroll else '!{!"llvm.loop.unroll.disable"}')
        if align:
            hints.append(f'!{{!"llvm.loop.align", i32 {align}}}')
        return self.distinct_metadata(*[self.metadata(hint) for hint in hints])

    def add_named_metadata(self, name: str, nodes: Iterable[str]) -> None:
        """A module-level list such as `!nvvm.annotations`."""
        self._named_metadata.append(f"!{name} = !{{{', '.join(nodes)}}}")

    def __str__(self) -> str:
        bodies = [function.definition() for function in self.functions.values()]
        parts = [f"; ModuleID = '{escaped(self.name.encode())}'"]
        if self.comment:
            parts.append(f"; {self.comment}")
        if self.data_layout:
            parts.append(f'target datalayout = "{self.data_layout}"')
        if self.triple:
            parts.append(f'target triple = "{self.triple}"')
        parts += ["", *self.globals.values(), ""]
        if self._kept:
            kept = f"[{len(self._kept)} x ptr] [{', '.join(self._kept)}]"
            parts.append(f'@llvm.compiler.used = appending global {kept}, section "llvm.metadata"')
        for callee, attributes in self.declarations.values():
            types = ", ".join(callee.parameter_types)
            parts.append(
                f"declare {callee.return_type} {callee.text}({types}) {self.attribute_group(attributes)}"
            )
        parts += ["", *bodies]
        parts += [f"attributes #{number} = {{ {text} }}" for text, number in self._groups.items()]
        parts += self._named_metadata
        parts += [f"!{number} = {text}" for number, text in enumerate(self._metadata)]
        return "\n".join(parts) + "\n"
