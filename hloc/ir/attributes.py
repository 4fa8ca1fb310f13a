"""The structured attribute values of instructions and modules. Plain ints, bools, strings and tuples stay such.

Every class here is immutable and hashable, so that two instructions can be compared attribute by
attribute. Their text forms are known to the parser and the printer alone.
"""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.records import NamedTuple, record


class WindowDim(NamedTuple):
    """One dimension of a window. Dilations count from element to element: 1 is dense. Padding may be negative."""

    size: int
    stride: int = 1
    pad_low: int = 0
    pad_high: int = 0
    base_dilation: int = 1
    window_dilation: int = 1
    reversed: bool = False

    @property
    def dilated_size(self) -> int:
        """Positions of the base that the window spans."""
        return (self.size - 1) * self.window_dilation + 1 if self.size else 0

    def output_size(self, base: int) -> int:
        """How many window positions fit a base dimension of that size."""
        dilated = (base - 1) * self.base_dilation + 1 if base > 0 else 0
        room = dilated + self.pad_low + self.pad_high - self.dilated_size
        return room // self.stride + 1 if room >= 0 else 0


@record
class Window:
    """`window={size=3x3 stride=2x2 pad=1_1x1_1}`, one WindowDim a dimension."""

    dims: tuple[WindowDim, ...] = ()


@record
class ConvDims:
    """`dim_labels=b01f_01io->b01f`: which dimension of input, kernel and output plays which part."""

    input_batch: int
    input_feature: int
    input_spatial: tuple[int, ...]
    kernel_input_feature: int
    kernel_output_feature: int
    kernel_spatial: tuple[int, ...]
    output_batch: int
    output_feature: int
    output_spatial: tuple[int, ...]


class SliceDim(NamedTuple):
    """`[start:limit:stride]` of one dimension."""

    start: int
    limit: int
    stride: int = 1


class PadDim(NamedTuple):
    """`low_high_interior` of one dimension; low and high may be negative (they cut)."""

    low: int
    high: int
    interior: int = 0


@record
class IotaTile:
    """`[dims]<=[reshape_dims]T(permutation)`: a device array counted up, reshaped and transposed."""

    dims: tuple[int, ...]
    reshape_dims: tuple[int, ...]
    permutation: tuple[int, ...]

    def devices(self) -> tuple[int, ...]:
        """The device ids, flattened row-major over `dims`."""
        ids = np.arange(prod(self.reshape_dims)).reshape(self.reshape_dims)
        return tuple(int(i) for i in ids.transpose(self.permutation).reshape(-1))


@record
class MeshAxes:
    """`mesh['a'=2,'b'=4] {'a'}`: a device mesh and the axes that one group spans.

    `mesh` holds (axis name, size) pairs, `device_ids` an order other than counting up, `axes` entries of
    (name, sub-axis (pre-size, size) or None).
    """

    mesh: tuple[tuple[str, int], ...]
    axes: tuple[tuple[str, tuple[int, int] | None], ...]
    device_ids: IotaTile | tuple[int, ...] | None = None


@record
class ReplicaGroups:
    """Which devices take part together: listed, counted (`[2,4]<=[8]`), or by mesh axes. Empty: all together."""

    listed: tuple[tuple[int, ...], ...] = ()
    iota: IotaTile | None = None
    mesh: MeshAxes | None = None

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The groups as tuples of ids, in order; () stands for one group of all."""
        if self.iota is not None:
            count, size = self.iota.dims
            ids = self.iota.devices()
            return tuple(ids[i * size : (i + 1) * size] for i in range(count))
        if self.mesh is not None:
            return _mesh_groups(self.mesh)
        return self.listed


def _mesh_groups(mesh: MeshAxes) -> tuple[tuple[int, ...], ...]:
    names = [name for name, _ in mesh.mesh]
    sizes = [size for _, size in mesh.mesh]
    ids = np.arange(prod(sizes))
    if isinstance(mesh.device_ids, IotaTile):
        ids = np.array(mesh.device_ids.devices())
    elif mesh.device_ids is not None:
        ids = np.array(mesh.device_ids)
    dims: list[int] = []
    inside: list[bool] = []
    for name, size in zip(names, sizes, strict=True):
        sub = next((s for n, s in mesh.axes if n == name), None)
        used = any(n == name for n, _ in mesh.axes)
        parts = [(size, used)] if sub is None else [(sub[0], False), (sub[1], True), (size // (sub[0] * sub[1]), False)]
        dims += [part for part, _ in parts]
        inside += [flag for _, flag in parts]
    order = [i for i, flag in enumerate(inside) if not flag] + [i for i, flag in enumerate(inside) if flag]
    group = prod(d for d, flag in zip(dims, inside, strict=True) if flag)
    table = ids.reshape(dims).transpose(order).reshape(-1, group)
    return tuple(tuple(int(i) for i in row) for row in table)


class Alias(NamedTuple):
    """An output leaf that may live in (or must share) a parameter's or operand's memory."""

    output_index: tuple[int, ...]
    number: int
    input_index: tuple[int, ...] = ()
    must: bool = False


class Donor(NamedTuple):
    """A parameter leaf whose memory the program may use for anything."""

    number: int
    index: tuple[int, ...] = ()


@record
class ResultAccuracy:
    """`result_accuracy=`: a mode ("default", "highest"), or a tolerance of which any part may be absent."""

    mode: str | None = None
    atol: float | None = None
    rtol: float | None = None
    ulps: int | None = None


@record
class Metadata:
    """Where an instruction came from. Fields are those of the text; None where absent."""

    op_type: str | None = None
    op_name: str | None = None
    source_file: str | None = None
    source_line: int | None = None
    source_end_line: int | None = None
    source_column: int | None = None
    source_end_column: int | None = None
    profile_type: tuple[int, ...] | None = None
    deduplicated_name: str | None = None
    scheduling_name: str | None = None
    stack_frame_id: int | None = None
    payload: str | None = None


class Recovery(NamedTuple):
    """A row of `origin_recovery_table`: the array that went, the one to compute it from, and the program for that.

    The two are origins such as `{"a" {1}}`; `module` is the hloc.ir.module.Module, None where the arrays are equal.
    """

    replaced: str
    replacing: str
    module: object = None


@record
class Raw:
    """Text kept as it was written, braces and all (a `backend_config` dictionary, an MLIR attribute)."""

    text: str
