"""From syntax tree to Module: names are looked up in the order of the text, everything is put in its place."""

from __future__ import annotations

from collections.abc import Callable

from hloc.errors import HloError, Source, Span
from hloc.ir.attributes import Alias, Recovery
from hloc.ir.computation import Computation
from hloc.ir.module import Module
from hloc.ir.shapes import Shape, TupleShape
from hloc.text.instructions import InstructionBuilder
from hloc.text.meaning import as_config
from hloc.text.messages import suggest
from hloc.text.scope import Scope
from hloc.text.strings import string_of
from hloc.text.syntax import Attribute, Body, ComputationText, Line, ModuleText
from hloc.text.table_values import read_table
from hloc.text.tokens import Fault, Token, fault_at

# Computations written in place, inside attributes, are built by recursion.
MOST_NESTED = 64


class ModuleBuilder:
    """Builds one module out of its syntax tree.

    `fine` reads the instruction at [start, end) by the fine rules, `read` a
    text of its own.
    """

    def __init__(self, source: Source, fine: Callable[[int, int], Line], read: Callable[[str], Module]):
        self.source = source
        self.read = read
        self.computations: list[Computation] = []
        self.named: dict[str, tuple[Computation, Token]] = {}
        self.depth = 0
        self.instructions = InstructionBuilder(source, self.callee, self.named, self.computations.append, fine)

    def build(self, tree: ModuleText) -> Module:
        if tree.single is not None:
            return self._single(tree.single)
        entry = None
        for text in tree.computations:
            computation = self.computation(text)
            if text.entry is not None:
                if entry is not None:
                    raise fault_at(text.entry, f"a second ENTRY: {entry.name} is the entry")
                entry = computation
        entry = entry or self.computations[-1]
        name = tree.name.value if tree.name is not None else f"module_{entry.name}"
        module = self._module(name, entry)
        if tree.tables is not None:
            self._tables(module, tree)
        self._header(module, tree.attributes)
        return module

    def _module(self, name: str, entry: Computation) -> Module:
        module = Module(name, self.source)
        for computation in self.computations:
            module.add_computation(computation, entry=computation is entry)
        return module

    def _single(self, line: Line) -> Module:
        """A text that is one instruction: operands that are not defined are parameters."""
        opcode = line.operation.opcode
        scope = Scope(Computation("_", Span(self.source, opcode.start, opcode.end)), single=True)
        self.instructions.line(line, scope, default_name="_")
        entry = self._finish(scope)
        self.computations.insert(0, entry)
        module = self._module("_", entry)
        module.is_scheduled = True
        return module

    # Computations.

    def computation(self, text: ComputationText) -> Computation:
        name = text.name
        computation = self.body(text.body, name.value)
        computation.span = Span(self.source, name.start, name.end)
        if text.result is not None and not computation.root.shape.compatible(text.result[1]):
            arrow, shape = text.result
            message = f"the result of {name.value} is declared as {shape!r}, its root is {computation.root.shape!r}"
            raise fault_at(arrow, message)
        for number, attribute in enumerate(text.attributes):
            if any(attribute.name == other.name for other in text.attributes[:number]):
                raise fault_at(attribute.token, f"attribute {attribute.name} is given twice")
            self._computation_attribute(computation, attribute)
        known = self.named.setdefault(name.value, (computation, name))
        if known[0] is not computation:
            line, column = self.source.position(known[1].start)
            raise fault_at(name, f"computation {name.value} is defined already, at {line}:{column}")
        return computation

    def _computation_attribute(self, computation: Computation, attribute: Attribute) -> None:
        if attribute.name == "execution_thread":
            computation.execution_thread = attribute.value
        elif attribute.name in ("backend_config", "frontend_attributes"):
            computation.attributes[attribute.name] = attribute.value
        else:
            known = ("execution_thread", "backend_config", "frontend_attributes")
            message = f"a computation has no attribute {attribute.name!r}"
            raise fault_at(attribute.token, message, suggest(attribute.name, known))

    def body(self, body: Body, name: str) -> Computation:
        """The computation of the instructions between two braces."""
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise fault_at(body.start, f"computations nest deeper than {MOST_NESTED}")
        scope = Scope(Computation(name, Span(self.source, body.start.start, body.start.end)))
        for item in body.items:
            if isinstance(item, Line):
                self.instructions.line(item, scope)
            else:
                self.instructions.plain.run(item.value, scope)
        computation = self._finish(scope)
        self.computations.append(computation)
        self.depth -= 1
        return computation

    def _finish(self, scope: Scope) -> Computation:
        computation = scope.computation
        computation.root = scope.root or scope.last
        for number, parameter in enumerate(computation.parameters):
            if parameter is None:
                raise Fault(f"parameter {number} is missing", *self._place_of_last_parameter(computation))
        return computation

    def _place_of_last_parameter(self, computation: Computation) -> tuple[int, int]:
        span = computation.parameters[-1].span
        return span.start, span.end

    def callee(self, name: Token | Body) -> Computation:
        """The computation that an attribute names or holds."""
        if isinstance(name, Body):
            return self.body(name, "_")
        known = self.named.get(name.value)
        if known is None:
            message = f"computation {name.value!r} is not defined before its use"
            raise fault_at(name, message, suggest(name.value, self.named))
        return known[0]

    # The header.

    def _tables(self, module: Module, tree: ModuleText) -> None:
        for token, end in tree.tables.sections:
            module.tables[token.value] = read_table(token.value, self.source.text[token.end : end])

    def _header(self, module: Module, attributes: list[Attribute]) -> None:
        seen: set[str] = set()
        for attribute in attributes:
            name, value = attribute.name, attribute.value
            if name in seen:
                raise fault_at(attribute.token, f"attribute {name} is given twice")
            seen.add(name)
            if name not in HEADER:
                raise fault_at(attribute.token, f"a module has no attribute {name!r}", suggest(name, HEADER))
            if name == "entry_computation_layout":
                module.entry_layout = value
            elif name == "input_output_alias":
                _check_aliases(module, value, attribute.token)
                module.input_output_alias = value
            elif name == "buffer_donor":
                module.buffer_donors = value
            elif name in ("is_scheduled", "replica_count", "num_partitions"):
                setattr(module, name, value)
            elif isinstance(value, Token):
                raise fault_at(value, "expected a value in braces")
            elif name == "origin_recovery_table":
                self._recovery(module, value)
            else:
                self._say(module, name, value)

    def _say(self, module: Module, name: str, value: object) -> None:
        """Store a header attribute, unless it says what its absence says."""
        if name == "backend_config":
            value = as_config(value)
        if value not in (None, False, (), (False,)):
            module.attributes[name] = value

    def _recovery(self, module: Module, rows: tuple[tuple[str, str, Token | None], ...]) -> None:
        found = []
        for replaced, replacing, program in rows:
            inner = None
            if program is not None:
                try:
                    inner = self.read(string_of(program))
                except HloError as error:
                    raise fault_at(program, f"in the module in quotes: {error.message}") from None
            found.append(Recovery(replaced, replacing, inner))
        if found:
            module.attributes["origin_recovery_table"] = tuple(found)


HEADER = (
    "is_scheduled",
    "entry_computation_layout",
    "input_output_alias",
    "buffer_donor",
    "alias_passthrough_params",
    "replica_count",
    "num_partitions",
    "frontend_attributes",
    "allow_spmd_sharding_propagation_to_parameters",
    "allow_spmd_sharding_propagation_to_output",
    "origin_recovery_table",
    "backend_config",
    "debug_attributes",
)


def _check_aliases(module: Module, aliases: tuple[Alias, ...], place: Token) -> None:
    result = module.entry.root.shape
    seen: set[tuple[int, ...]] = set()
    for alias in aliases:
        index = "{" + ",".join(map(str, alias.output_index)) + "}"
        if not _has(result, alias.output_index):
            raise fault_at(place, f"output {index} does not exist: the result is {result!r}")
        if alias.output_index in seen:
            raise fault_at(place, f"output {index} has two aliases")
        seen.add(alias.output_index)


def _has(shape: Shape, index: tuple[int, ...]) -> bool:
    """Whether a tuple index path leads to a sub-shape."""
    for position in index:
        if not isinstance(shape, TupleShape) or not 0 <= position < len(shape.elements):
            return False
        shape = shape.elements[position]
    return True
