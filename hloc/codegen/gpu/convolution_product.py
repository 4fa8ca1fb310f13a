"""A convolution as products of matrices, one for each group: implicit GEMM.

Results at one position of one image are a row of output features: sums over the places of the window and the input
features. The matrix of what lies under the windows is never in memory: its elements are found by their row and step
when a tile of them is fetched. Kernels of products (`gemm_simt.py`, `gemm_mma.py`) take it for any other operand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import gcd, prod

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.bodies import lies_in_memory
from hloc.codegen.convolution_plan import ConvolutionPlan
from hloc.codegen.gpu.blocks import digits
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import Elements
from hloc.codegen.gpu.gemm_plan import greatest_power
from hloc.codegen.gpu.gemm_sides import OwnSide
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import i64
from hloc.codegen.windows import WindowSpace
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_CHANNEL = -1
"""What stands for the input feature among the dimensions of the steps; the others are the window's."""


class ConvolutionProduct:
    """A convolution as `DotPlan` has products: `batch` counts groups, of either kind.

    Rows are positions and columns output features, or the other way round if neighbours in the result are of one
    feature. `m`, `n` and `k` are the sizes of one product. In a fusion (`is_fused`), operands may be computed.
    """

    def __init__(self, instruction: Instruction, plan: ConvolutionPlan, is_fused: bool):
        self.plan, self.dtype, self.is_fused = plan, plan.dtype, is_fused
        self.batch = (plan.groups * plan.batch_groups,)
        labels, out = plan.labels, plan.out
        order = sorted((labels.output_batch, *labels.output_spatial), key=lambda d: -out.strides[d])
        self.position_dims = order
        self.position_sizes = [out.dims[d] for d in order]
        # Input features go fastest if they are neighbours in memory.
        channel_first = plan.lhs.strides[labels.input_feature] != 1 and plan.features > 1
        window = list(range(len(plan.windows)))
        self.step_dims = [_CHANNEL, *window] if channel_first else [*window, _CHANNEL]
        self.step_sizes = [plan.features if d == _CHANNEL else plan.windows[d].size for d in self.step_dims]
        self.k = prod(self.step_sizes)
        sides: list[_Side] = [_Patches(self, instruction), _Weights(self, instruction)]
        self.is_turned = out.strides[labels.output_feature] != 1 and plan.group_outputs > 1
        self.lhs, self.rhs = sides[::-1] if self.is_turned else sides
        self.m, self.n = self.lhs.lines, self.rhs.lines
        self.out = _Result(self, instruction)

    def positions(self, b: Builder, number: Value) -> dict[int, Value]:
        """The index of the result at a position, but for the feature."""
        return dict(zip(self.position_dims, digits(b, number, self.position_sizes), strict=True))

    def _step(self, given: Sequence[Value]) -> tuple[list[Value], Value]:
        """The place in the window, and the input feature in its group."""
        found = dict(zip(self.step_dims, given, strict=True))
        channel = found.pop(_CHANNEL)
        return [found[d] for d in range(len(found))], channel

    def patch(self, b: Builder, group: Value, position: Value, step: Value) -> tuple[Index, Value | None]:
        """Where under a window a step lies in the input, and whether there is an element there (None: always)."""
        plan, labels = self.plan, self.plan.labels
        at = self.positions(b, position)
        window, channel = self._step(digits(b, step, self.step_sizes))
        space = WindowSpace(plan.windows, plan.base, plan.positions)
        place, inside = space.position(b, [at[d] for d in labels.output_spatial], window)
        batch = at[labels.output_batch]
        if plan.batch_groups > 1:
            batch = b.add(batch, b.mul(group, i64(plan.images)))
        if plan.groups > 1:
            channel = b.add(channel, b.mul(group, i64(plan.features)))
        return plan.input_index(batch, channel, place), inside

    def weight(self, b: Builder, group: Value, feature: Value, step: Value) -> Index:
        """Where a step of an output feature of a group lies in the kernel."""
        window, channel = self._step(delinearize(b, step, self.step_sizes))
        return self.plan.kernel_index(b, channel, self.feature(b, group, feature), window)

    def feature(self, b: Builder, group: Value, feature: Value) -> Value:
        """The number among all output features of one of a group."""
        if self.batch == (1,):
            return feature
        return b.add(b.mul(group, i64(self.plan.group_outputs)), feature)


class _Side(OwnSide):
    """Operand `number` of a convolution, by `lines` and steps."""

    def __init__(self, product: ConvolutionProduct, instruction: Instruction, number: int, lines: int):
        self.product, self.number, self.lines = product, number, lines
        self.value = instruction.operands[number]
        self.shape: ArrayShape = self.value.shape
        self.copied = product.is_fused and not lies_in_memory(self.value)

    def width_of(self, run: int, others: Sequence[int]) -> int:
        """Elements of one access, for runs of so many in memory that begin at sums of multiples of `others`."""
        return greatest_power(gcd(run, max(1, 16 // self.shape.dtype.itemsize), *others))

    def others(self, *dims: int) -> list[int]:
        """The strides of all dimensions but these."""
        return [s for d, s in enumerate(self.shape.strides) if d not in dims and self.shape.dims[d] != 1]


class _Patches(_Side):
    """What lies under the windows: a line for each position."""

    def __init__(self, product: ConvolutionProduct, instruction: Instruction):
        super().__init__(product, instruction, 0, prod(product.position_sizes))
        labels, plan = product.plan.labels, product.plan
        feature, batch = labels.input_feature, labels.input_batch
        self.width = 1
        if product.step_dims[-1] == _CHANNEL and self.shape.strides[feature] == 1:
            self.width = self.width_of(plan.features, self.others(feature))
        # One by one, elements of one line are better: the line's place is found only once.
        self.along_steps = self.width > 1
        if product.position_dims[-1] == labels.output_batch and self.shape.strides[batch] == 1 and plan.images > 1:
            self.along_steps, self.width = False, self.width_of(plan.images, self.others(batch))

    def operand(self, k: GpuContext, batch: Index, dtype: DType) -> Elements:
        return _PatchElements(k, self, batch[0], dtype)


class _Weights(_Side):
    """The kernel: a line for each output feature of a group."""

    def __init__(self, product: ConvolutionProduct, instruction: Instruction):
        plan = product.plan
        super().__init__(product, instruction, 1, plan.group_outputs)
        labels, strides = plan.labels, self.shape.strides
        feature = labels.kernel_output_feature
        by_lines = strides[feature] == 1 and plan.group_outputs > 1
        self.along_steps = not by_lines
        if by_lines:
            self.width = self.width_of(plan.group_outputs, self.others(feature))
            return
        run, within = 1, []
        for place, size in reversed(list(zip(product.step_dims, product.step_sizes, strict=True))):
            d = labels.kernel_input_feature if place == _CHANNEL else labels.kernel_spatial[place]
            if size > 1 and (strides[d] != run or (place != _CHANNEL and plan.windows[place].reversed)):
                break
            run *= size
            within.append(d)
        self.width = self.width_of(run, self.others(*within))

    def operand(self, k: GpuContext, batch: Index, dtype: DType) -> Elements:
        return _WeightElements(k, self, batch[0], dtype)


class _Result(OwnSide):
    """The result, of the shape that sums are rounded to."""

    def __init__(self, product: ConvolutionProduct, instruction: Instruction):
        self.product, self.value, self.shape = product, instruction, instruction.shape

    def index(self, k: GpuContext, batch: Index, row: Value, column: Value) -> Index:
        product, b = self.product, k.b
        position, feature = (column, row) if product.is_turned else (row, column)
        at = product.positions(b, position)
        at[product.plan.labels.output_feature] = product.feature(b, batch[0], feature)
        return tuple(at[d] for d in range(self.shape.rank))


class _Elements(Elements):
    """The elements of a side, read where they lie or computed."""

    def __init__(self, k: GpuContext, side: _Side, group_number: Value, dtype: DType):
        self.k, self.side, self.group_number, self.dtype = k, side, group_number, dtype
        self.lines, self.steps, self.source = side.lines, side.product.k, side.shape.dtype
        self.along_steps, self.width = side.along_steps, side.width
        self.array = k.input_array(side.number) if k.is_in_memory(side.number) else None
        self.base = None if self.array is None else self.array.pointer

    @abstractmethod
    def place(self, line: Value, step: Value) -> tuple[Index, Value | None]:
        """The index of an element, and whether it exists (None: it does)."""

    def element(self, line: Value, step: Value) -> Register:
        return self.group(line, step, 1)[0]

    def address(self, line: Value, step: Value) -> Value:
        assert self.array is not None
        b, (index, inside) = self.k.b, self.place(line, step)
        offset = self.array.offset(index)
        offset = offset if inside is None else b.select(inside, offset, i64(0))
        return b.gep(scalar.memory_type(self.source), self.base, offset)

    def inside(self, line: Value, step: Value) -> Value | None:
        return self.place(line, step)[1]

    def group(self, line: Value, step: Value, count: int) -> list[Register]:
        b = self.k.b
        if self.array is None:
            return [self._computed(*self.neighbour(line, step, number)) for number in range(count)]
        type, first, inside = scalar.memory_type(self.source), self.address(line, step), self.inside(line, step)
        values = [scalar.load(b, self.source, b.gep(type, first, i64(number))) for number in range(count)]
        return [self._given(value, inside) for value in values]

    def _computed(self, line: Value, step: Value) -> Register:
        index, inside = self.place(line, step)
        if inside is not None:
            index = tuple(self.k.b.select(inside, part, i64(0)) for part in index)
        return self._given(self.k.input(self.side.number)(index), inside)

    def _given(self, value: Register, inside: Value | None) -> Register:
        b, zero = self.k.b, scalar.zero(self.dtype)
        value = scalar.convert(b, value, self.source, self.dtype)
        if inside is None:
            return value
        if isinstance(value, tuple):
            return b.select(inside, value[0], zero[0]), b.select(inside, value[1], zero[1])
        return b.select(inside, value, zero)


class _PatchElements(_Elements):
    """What lies under windows."""

    def place(self, line: Value, step: Value) -> tuple[Index, Value | None]:
        return self.side.product.patch(self.k.b, self.group_number, line, step)


class _WeightElements(_Elements):
    """The kernel's elements."""

    def place(self, line: Value, step: Value) -> tuple[Index, Value | None]:
        return self.side.product.weight(self.k.b, self.group_number, line, step), None
