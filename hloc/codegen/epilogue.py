"""What follows an op with loops of its own inside its kernel: ops applied to each of its results at once.

From the op to a root of the fused computation lead elementwise ops, and reshapes and transposes that only
rename an element's index: `moves`. So the index of a root follows from the op's, and whatever else the root
needs is read there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from hloc.analysis.moves import Moves, lies_as_moved
from hloc.codegen.arrays import Register
from hloc.codegen.bodies import Body, Leaf
from hloc.codegen.loops import Index, reshape_index
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.kernel import KernelContext


@record
class Epilogue:
    """The roots of a kernel, and how each one's index follows from the index of the `own` op's results."""

    own: tuple[Leaf, ...]
    roots: tuple[Leaf, ...]
    moves: tuple[Moves, ...]

    def holder(self) -> int | None:
        """The number of a root in whose memory the op's one result can lie before the rest is applied to it:
        each element at the place of the root's element that is made of it. None if there is none.
        """
        if len(self.own) != 1:
            return None
        shape = self.own[0][0].shape
        for number, (root, leaf) in enumerate(self.roots):
            if lies_as_moved(shape, self.moves[number], root.shape.at(leaf)):
                return number
        return None


class Finisher:
    """Writes an epilogue for results that the op's emitter has in registers."""

    def __init__(self, k: KernelContext, epilogue: Epilogue, body: Body):
        self.k, self.epilogue, self.body = k, epilogue, body
        self._values: list[Register] = []
        for number, leaf in enumerate(epilogue.own):
            body.bind(leaf, partial(self._value, number))

    def _value(self, number: int, index: Index) -> Register:
        return self._values[number]

    def store(self, index: Index, values: Sequence[Register]) -> None:
        """Computes and stores the roots' elements, given the op's results at an index."""
        k, self._values = self.k, list(values)
        dims = self.epilogue.own[0][0].shape.at(self.epilogue.own[0][1]).dims
        places = [_moved(k, index, dims, moves) for moves in self.epilogue.moves]
        pairs = list(zip(self.epilogue.roots, places, strict=True))
        elements = [self.body.evaluate(k, *root, place) for root, place in pairs]
        for output, place, value in zip(k.outputs, places, elements, strict=True):
            output.store(place, value)


def _moved(k: KernelContext, index: Index, dims: Sequence[int], moves: Moves) -> Index:
    for opcode, numbers in moves:
        if opcode == "transpose":
            index, dims = tuple(index[d] for d in numbers), tuple(dims[d] for d in numbers)
        else:
            index, dims = reshape_index(k.b, index, dims, numbers), numbers
    return index
