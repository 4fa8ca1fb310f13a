"""What a call of a LAPACK routine is: its arguments in order, the memory behind them, and the results."""

from __future__ import annotations

import numpy as np

from hloc.errors import HloError
from hloc.host.lapack import function_address, workspace_sizes
from hloc.ir.dtypes import C64, C128, F32, F64, DType
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple, record, replace
from hloc.reference.lapack import attributes_of

PRECISIONS = {"s": (F32, F32), "d": (F64, F64), "c": (C64, F32), "z": (C128, F64)}
"""LAPACK's letters: the type of the matrices, and that of their absolute values."""

_MOST = 2**31 - 1
"""LAPACK's integers have 32 bits."""

Dims = tuple[int, ...]


class In(NamedTuple):
    """An operand's matrix (or vector), which the routine only reads."""

    number: int


class Copy(NamedTuple):
    """A copy of an operand's matrix, which the routine may write over."""

    number: int


class Out(NamedTuple):
    """A result's matrix, vector or number, from the element `start` on."""

    number: int
    start: int = 0


class Room(NamedTuple):
    """Temporary memory: `count` elements, or as many as the routine asks for if None."""

    name: str
    dtype: DType
    count: int | None = None


class RoomSize(NamedTuple):
    """The number of elements of a room."""

    name: str


Argument = str | int | bytes | None | In | Copy | Out | Room | RoomSize
"""A letter, an integer, the bytes of another scalar, a null pointer, or memory."""


class Result(NamedTuple):
    """A result for one matrix: at first a copy of an operand's, or zeros."""

    dtype: DType
    dims: Dims
    source: int | None = None


@record
class Recipe:
    """One call of a routine. `ranks` are the dimensions that each operand has beside those of the batch.

    `finite_only`: a matrix with an infinity or NaN is not given to the routine; its results are NaN and its
    info -4. `pairs` maps rooms that hold real vectors as LAPACK packs those of conjugate pairs to the complex
    results that they become; the imaginary parts of the values are result 1. `nan_unless` is a room: if the
    number there is not 0, all results are NaN.
    """

    function: str
    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]
    batch: Dims
    finite_only: bool = False
    pairs: tuple[tuple[str, int], ...] = ()
    nan_unless: str = ""

    @property
    def rooms(self) -> list[Room]:
        return [argument for argument in self.arguments if isinstance(argument, Room)]


class Call:
    """What a recipe is made of: the shapes and attributes of a custom call."""

    def __init__(self, instruction: Instruction, letter: str, ranks: Dims):
        self.instruction, self.letter = instruction, letter
        self.dtype, self.real = PRECISIONS[letter]
        self.is_real = self.dtype is self.real
        self.operands = [operand.shape for operand in instruction.operands]
        if len(self.operands) != len(ranks):
            raise self.error(f"takes {len(ranks)} operands, not {len(self.operands)}")
        self.batch = self.operands[0].dims[: self.operands[0].rank - ranks[0]]
        for shape, rank in zip(self.operands, ranks, strict=True):
            if shape.dims[: len(self.batch)] != self.batch or shape.rank != len(self.batch) + rank:
                raise self.error(f"does not take operands of {', '.join(map(repr, self.operands))}")
        if max((size for shape in self.operands for size in shape.dims), default=0) > _MOST:
            raise self.error("takes no dimension beyond 32 bits")

    def dims(self, number: int) -> Dims:
        """The dimensions of an operand's matrix."""
        return self.operands[number].dims[len(self.batch) :]

    def require(self, condition: bool, what: str) -> None:
        if not condition:
            raise self.error(what)

    def character(self, name: str, allowed: str) -> str:
        """An attribute that is one of some letters."""
        value = self.integer(name)
        if chr(value % 256) not in allowed:
            raise self.error(f"takes one of {', '.join(allowed)} as {name}, not {value}")
        return chr(value)

    def integer(self, name: str) -> int:
        """An attribute."""
        attributes = attributes_of(self.instruction)
        if name not in attributes:
            raise self.error(f"needs the attribute {name}")
        return attributes[name]

    def recipe(self, name: str, arguments: list[Argument], results: list[Result], **rest: object) -> Recipe:
        """The recipe, with results held against the call's and the sizes of all rooms known."""
        shape = self.instruction.shape
        given = [(leaf.dtype, leaf.dims) for _, leaf in shape.leaves()]
        wanted = [(result.dtype, self.batch + result.dims) for result in results]
        if given != wanted:
            shapes = ", ".join(f"{dtype}[{','.join(map(str, dims))}]" for dtype, dims in wanted)
            raise self.error(f"gives ({shapes}), not {shape!r}")
        for result in results:
            source = None if result.source is None else self.operands[result.source]
            if source is not None and (source.dtype, source.dims) != (result.dtype, self.batch + result.dims):
                raise self.error(f"does not take {source!r} as operand {result.source}")
        for argument in arguments:
            if isinstance(argument, In | Copy) and self.operands[argument.number].dtype is not self.dtype:
                raise self.error(f"does not take {self.operands[argument.number]!r}")
        function_address(self.letter + name)
        recipe = Recipe(self.letter + name, tuple(arguments), tuple(results), self.batch, **rest)
        return _with_rooms(recipe)

    def error(self, what: str) -> HloError:
        target = self.instruction.get("custom_call_target")
        return HloError(f"{target} {what}", self.instruction.span)


def _with_rooms(recipe: Recipe) -> Recipe:
    """The recipe after the routine said what room it wants."""
    asked = {room.name: np.zeros(16, np.uint8) for room in recipe.rooms}
    open_ = [room for room in recipe.rooms if room.count is None]
    if not open_:
        return recipe
    values: list[str | int | bytes | np.ndarray | None] = []
    for argument in recipe.arguments:
        if isinstance(argument, RoomSize):
            values.append(-1)
        elif isinstance(argument, Room):
            values.append(asked[argument.name])
        else:
            values.append(np.zeros(16, np.uint8) if isinstance(argument, In | Copy | Out) else argument)
    workspace_sizes(recipe.function, values)
    counts = {room: _count(room.dtype, asked[room.name]) for room in open_}
    if max(counts.values()) > _MOST:
        raise HloError(f"{recipe.function} takes more room than it can say in 32 bits")
    arguments = tuple(
        argument._replace(count=counts[argument]) if argument in counts else argument
        for argument in recipe.arguments
    )
    return replace(recipe, arguments=arguments)


def _count(dtype: DType, answer: np.ndarray) -> int:
    """The room asked for. In f32 it may have been rounded down."""
    number = answer[: dtype.itemsize].view(dtype.numpy)[0]
    if dtype.is_integer:
        return max(1, int(number))
    return max(1, int(np.ceil(np.nextafter(number.real, np.inf))))
