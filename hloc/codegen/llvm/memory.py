"""Loads, stores, addresses, atomics and calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .core import Core
from .module import Callee, Function, escaped
from .values import Constant, Value, bit_width, integer, mangled


class Memory(Core):
    """Instructions that touch memory or leave the function, and address arithmetic."""

    def alloca(self, type: str, count: int | Value = 1, align: int = 0) -> Value:
        """Stack space for `count` elements, freed at return; added at the current place, see also `room`."""
        count = integer("i64", count) if isinstance(count, int) else count
        number = "" if count.__class__ is Constant and count.number == 1 else f", {count.type} {count.text}"
        name = self._named("stack")
        self._effect(f"{name} = alloca {type}{number}{f', align {align}' if align else ''}")
        return Value("ptr", name)

    def room(self, type: str, count: int, align: int = 0) -> Value:
        """Stack space for `count` elements, taken where the function begins: the current place may be in a loop."""
        name = self._named("stack")
        text = f"  {name} = alloca {type}, i64 {count}{f', align {align}' if align else ''}"
        self.function.blocks[0].lines.insert(0, text)
        return Value("ptr", name)

    def gep(
        self,
        element_type: str,
        pointer: Value,
        index: Value | Sequence[Value],
        inbounds: bool = True,
        result_type: str = "",
    ) -> Value:
        """The address of an element: `pointer` plus index (or indices, the first in whole elements).

        It has the pointer's type. A vector index gives a vector of addresses: say so in `result_type`.
        """
        if isinstance(index, Value):
            if index.__class__ is Constant and index.number == 0:
                return pointer
            where = f"{index.type} {index.text}"
        else:
            where = ", ".join([f"{i.type} {i.text}" for i in index])
        flag = "inbounds " if inbounds else ""
        address = self._numbered(
            result_type or pointer.type, f"getelementptr {flag}{element_type}, {pointer.type} {pointer.text}, {where}"
        )
        self.function.addresses[address.text] = pointer.text
        return address

    def load(
        self,
        type: str,
        pointer: Value,
        *,
        align: int = 0,
        invariant: bool = False,
        volatile: bool = False,
        nontemporal: bool = False,
        alias_scope: str = "",
        noalias: str = "",
    ) -> Value:
        """The value at an address. An invariant load (of memory nobody writes) is shared like pure code."""
        text = (
            f"load {'volatile ' if volatile else ''}{type}, {pointer.type} {pointer.text}"
            f"{f', align {align}' if align else ''}{self._access(nontemporal, alias_scope, noalias)}"
        )
        if invariant:
            return self._numbered(type, f"{text}, !invariant.load {self.module.metadata('!{}')}")
        return self._result(type, text)

    def store(
        self,
        value: Value,
        pointer: Value,
        *,
        align: int = 0,
        volatile: bool = False,
        nontemporal: bool = False,
        alias_scope: str = "",
        noalias: str = "",
    ) -> None:
        """Puts a value at an address."""
        self._effect(
            f"store {'volatile ' if volatile else ''}{value.type} {value.text}, {pointer.type} {pointer.text}"
            f"{f', align {align}' if align else ''}{self._access(nontemporal, alias_scope, noalias)}"
        )

    def _access(self, nontemporal: bool, alias_scope: str, noalias: str) -> str:
        text = f", !nontemporal {self.module.metadata('!{i32 1}')}" if nontemporal else ""
        if alias_scope:
            text += f", !alias.scope {alias_scope}"
        if noalias:
            text += f", !noalias {noalias}"
        return text

    def load_atomic(self, type: str, pointer: Value, ordering: str = "acquire") -> Value:
        """The value of 1 to 8 bytes at an address that another thread may store to at the same time."""
        align = bit_width(type) // 8
        return self._result(
            type, f"load atomic {type}, {pointer.type} {pointer.text} {ordering}, align {align}"
        )

    def store_atomic(self, value: Value, pointer: Value, ordering: str = "release") -> None:
        """Puts a value of 1 to 8 bytes where another thread may load it at the same time."""
        align = bit_width(value.type) // 8
        self._effect(
            f"store atomic {value.type} {value.text}, {pointer.type} {pointer.text} {ordering}, align {align}"
        )

    def prefetch(self, address: Value, write: bool = False, near: int = 3) -> None:
        """Asks for the cache line at an address, soon to be read, or written; any address will do.

        `near` is 3 for the innermost cache, 2 for the second one.
        """
        flags = [integer("i32", int(write)), integer("i32", near), integer("i32", 1)]
        self.intrinsic("llvm.prefetch", "void", [address, *flags], overloads=["ptr"], pure=False)

    def memcpy(self, target: Value, source: Value, size: Value) -> None:
        """Copies `size` bytes between places that do not overlap (or are the same)."""
        self.intrinsic(
            "llvm.memcpy",
            "void",
            [target, source, size, integer("i1", 0)],
            overloads=[target.type, source.type, size.type],
            pure=False,
        )

    def memset(self, target: Value, byte: Value, size: Value) -> None:
        """Fills `size` bytes."""
        self.intrinsic(
            "llvm.memset",
            "void",
            [target, byte, size, integer("i1", 0)],
            overloads=[target.type, size.type],
            pure=False,
        )

    def atomicrmw(self, op: str, pointer: Value, value: Value, ordering: str = "monotonic") -> Value:
        """`*pointer = *pointer op value` at once, op as in LLVM (`add`, `fadd`, ...); the value before."""
        return self._result(
            value.type, f"atomicrmw {op} {pointer.type} {pointer.text}, {value.type} {value.text} {ordering}"
        )

    def cmpxchg(
        self,
        pointer: Value,
        expected: Value,
        new: Value,
        ordering: str = "seq_cst",
        failure: str = "monotonic",
    ) -> tuple[Value, Value]:
        """Stores `new` if the place holds `expected`; the value before, and whether it was stored."""
        pair = self._result(
            f"{{ {new.type}, i1 }}",
            f"cmpxchg {pointer.type} {pointer.text}, {expected.type} {expected.text}, "
            f"{new.type} {new.text} {ordering} {failure}",
        )
        return self.extractvalue(pair, 0, new.type), self.extractvalue(pair, 1, "i1")

    def fence(self, ordering: str = "seq_cst") -> None:
        """Orders memory accesses before it and after it among threads."""
        self._effect(f"fence {ordering}")

    # Calls

    def call(
        self,
        callee: Callee | Value,
        args: Iterable[Value],
        return_type: str | None = None,
        *,
        pure: bool = False,
        attributes: str = "",
    ) -> Value | None:
        """Calls a function, or the function at an address (then `return_type` is needed).

        A pure call (no effects, same arguments give the same result) is shared. None for a void result.
        """
        if return_type is None:
            return_type = callee.return_type
            if isinstance(callee, Function) and callee.module is not self.module:
                self.module.declare(callee.name, return_type, callee.parameter_types)
        actual = ", ".join([f"{arg.type} {arg.text}" for arg in args])
        text = f"call {return_type} {callee.text}({actual}){' ' + attributes if attributes else ''}"
        is_inlined = isinstance(callee, Function) and "alwaysinline" in callee.attributes
        self.function.barriers += not (pure or is_inlined)
        if return_type == "void":
            return self._effect(text)
        return self._numbered(return_type, text) if pure else self._result(return_type, text)

    def intrinsic(
        self,
        name: str,
        return_type: str,
        args: Sequence[Value],
        *,
        overloads: Iterable[str] | None = None,
        pure: bool = True,
        flags: str = "",
    ) -> Value | None:
        """Calls an LLVM intrinsic; no declaration is needed.

        `name` is without the suffix of its overloaded types, `overloads` are these types (the return
        type if not given), `flags` say what LLVM may assume of floats:
        `intrinsic("llvm.fptosi.sat", "i32", [x], overloads=["i32", "float"])`.
        """
        suffix = "".join(
            ["." + mangled(type) for type in ([return_type] if overloads is None else overloads)]
        )
        actual = ", ".join([f"{arg.type} {arg.text}" for arg in args])
        text = f"call {flags}{' ' if flags else ''}{return_type} @{name}{suffix}({actual})"
        if return_type == "void":
            return self._effect(text)
        return self._numbered(return_type, text) if pure else self._result(return_type, text)

    def inline_asm(
        self,
        return_type: str,
        assembly: str,
        constraints: str,
        args: Iterable[Value] = (),
        side_effects: bool = True,
        attributes: str = "",
    ) -> Value | None:
        """Target assembly, in LLVM's constraint language; `attributes` are the call's."""
        actual = ", ".join([f"{arg.type} {arg.text}" for arg in args])
        kind = "sideeffect " if side_effects else ""
        text = f'call {return_type} asm {kind}"{escaped(assembly.encode())}", "{constraints}"({actual})'
        text += f" {attributes}" if attributes else ""
        if return_type == "void":
            return self._effect(text)
        return self._result(return_type, text) if side_effects else self._numbered(return_type, text)
