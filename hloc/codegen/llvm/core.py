"""What every family of builder methods stands on: where instructions go, and reuse of equal ones."""

from __future__ import annotations

from .module import Block, Function, Phi
from .values import Value


class Core:
    """The insertion point of a function, and the two ways to add an instruction.

    `fast` is the text of the fast-math flags that float instructions get, none by default; `contract`,
    for instance, lets LLVM fuse a product and a sum.
    """

    rounds_bf16 = False
    """Whether the machine has an instruction that rounds to LLVM's bfloat."""

    def __init__(self, function: Function, block: Block | None = None):
        self.function = function
        self.module = function.module
        self._fast = ""
        self.position_at_end(
            block or (function.blocks[0] if function.blocks else function.append_block("entry"))
        )

    @property
    def fast(self) -> str:
        """Fast-math flags, separated by blanks; `""` for exact IEEE arithmetic."""
        return self._fast.rstrip()

    @fast.setter
    def fast(self, flags: str) -> None:
        self._fast = flags + " " if flags else ""

    def position_at_end(self, block: Block) -> None:
        """Adds to `block` from now on."""
        blocks = self.function.blocks
        if not block.placed:
            block.placed = True
            blocks.append(block)
        elif blocks[-1] is not block:
            self.function.out_of_order = True
        self.block = block
        self._lines = block.lines
        self._table, *self._outer = block.tables

    def append_block(self, name: str = "b", dominator: Block | None = None) -> Block:
        """A new block of this function; see `Function.append_block`."""
        return self.function.append_block(name, dominator)

    def _numbered(self, type: str, text: str) -> Value:
        """The result of a pure instruction: the earlier equal one where one dominates this place."""
        table = self._table
        known = table.get(text)
        if known is not None:
            return known
        for outer in self._outer:
            known = outer.get(text)
            if known is not None:
                return known
        function = self.function
        number = function.values
        function.values = number + 1
        name = f"%{number}"
        self._lines.append(f"  {name} = {text}")
        value = table[text] = Value(type, name)
        return value

    def _result(self, type: str, text: str) -> Value:
        """The result of an instruction that must not be shared."""
        function = self.function
        number = function.values
        function.values = number + 1
        name = f"%{number}"
        self._lines.append(f"  {name} = {text}")
        return Value(type, name)

    def _effect(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append("  " + text)

    def _end(self, text: str) -> None:
        """The block's terminator."""
        self._lines.append("  " + text)
        self.block.terminated = True

    def _named(self, prefix: str) -> str:
        """A fresh name that is not a number: for what is not defined in the order of the text.

        The `$` keeps it apart from the names of blocks.
        """
        function = self.function
        function.values += 1
        return f"%{prefix}${function.values - 1}"

    def comment(self, text: str) -> None:
        """A comment line, for readers of the dump."""
        self._lines.append("  ; " + " ".join(text.split()))

    def phi(self, type: str, name: str = "phi") -> Phi:
        """A phi at the head of the current block, its edges to be added."""
        phi = Phi(type, self._named(name))
        self.block.phis.append(phi)
        return phi
