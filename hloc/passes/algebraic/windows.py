"""Rules of reduce-window and convolution."""

from __future__ import annotations

from hloc.ir.attributes import Window, WindowDim
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import array
from hloc.passes.algebraic.facts import binary_opcode, is_identity
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit, dense
from hloc.passes.patterns import bind, op, splat

x, init, kernel, value = bind("x"), bind("init"), bind("kernel"), bind("value")


def _is_whole(window: WindowDim, size: int) -> bool:
    """Whether the one position of a window has all of a dimension."""
    plain = window.window_dilation == window.base_dilation == 1 and not (window.pad_low or window.pad_high)
    return plain and window.size == size


def _is_point(window: WindowDim) -> bool:
    """Whether a window is of one element at every place."""
    return window._replace(reversed=False, window_dilation=1) == WindowDim(1)


@rule(op("reduce-window", x, init))
def window_to_reduce(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce-window(x) = reshape(reduce(x)), if each window is all of a dimension or one element"""
    windows = instruction.get("window").dims
    whole = [d for d, (w, size) in enumerate(zip(windows, x.shape.dims)) if size != 1 and _is_whole(w, size)]
    if not whole or not all(d in whole or _is_point(w) for d, w in enumerate(windows)):
        return None
    emit = Emit.at(instruction)
    folded = emit.reduce(x, init, whole, instruction.attributes["to_apply"])
    return emit.reshape(folded, instruction.shape.dims)


@rule(op("reduce-window", x, init))
def window_of_points(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce-window(x, init) = f(init, x) with windows of one element, for a reducer f that is one op"""
    opcode = binary_opcode(instruction.attributes["to_apply"])
    if opcode is None or not all(_is_point(w) for w in instruction.get("window").dims):
        return None
    emit = Emit.at(instruction)
    return emit.map(opcode, emit.broadcast(init, x.shape.dims), x)


def _padded(windows: tuple[WindowDim, ...], pad: Instruction) -> Window | None:
    """The windows over what a pad pads; None where one window cannot say both."""
    found = []
    for window, (low, high, interior) in zip(windows, pad.attributes["padding"]):
        if interior and (window.base_dilation != 1 or low < 0 or high < 0):
            return None
        step = window.base_dilation
        found.append(
            window._replace(
                pad_low=window.pad_low + low * step,
                pad_high=window.pad_high + high * step,
                base_dilation=step if not interior else interior + 1,
            )
        )
    return Window(tuple(found))


@rule(op("reduce-window", op("pad", x, value), init))
def fold_pad_into_window(
    instruction: Instruction, x: Instruction, value: Instruction, init: Instruction
) -> Instruction | None:
    """reduce-window(pad(x, e)) = reduce-window(x) with more padding, for the identity e of the op"""
    opcode = binary_opcode(instruction.attributes["to_apply"])
    if opcode is None or not is_identity(opcode, value) or not is_identity(opcode, init):
        return None
    window = _padded(instruction.get("window").dims, instruction.operands[0])
    if window is None:
        return None
    attributes = {**instruction.attributes, "window": window}
    return Emit.at(instruction).op("reduce-window", instruction.shape, (x, init), **attributes)


@rule(op("convolution", op("pad", x, splat(0)), kernel))
def fold_pad_into_convolution(
    instruction: Instruction, x: Instruction, kernel: Instruction
) -> Instruction | None:
    """convolution(pad(x, 0), k) = convolution(x, k) with more padding, if only spatial dimensions are padded

    Products with zeros are left out, as in all padding of a convolution: NaN in k does not reach them.
    """
    labels, pad = instruction.attributes["dim_labels"], instruction.operands[0]
    padding = pad.attributes["padding"]
    if padding[labels.input_batch] != (0, 0, 0) or padding[labels.input_feature] != (0, 0, 0):
        return None
    windows, found = list(instruction.get("window").dims), []
    for window, d in zip(windows, labels.input_spatial):
        low, high, interior = padding[d]
        if window.base_dilation != 1 or low < 0 or high < 0:
            return None
        dilation = interior + 1
        more = {"pad_low": window.pad_low + low, "pad_high": window.pad_high + high}
        found.append(window._replace(**more, base_dilation=dilation))
    attributes = {**instruction.attributes, "window": Window(tuple(found))}
    return Emit.at(instruction).op("convolution", dense(instruction.shape), (x, kernel), **attributes)


@rule(op("convolution", x, op("reverse", kernel)))
def fold_reverse_into_convolution(
    instruction: Instruction, x: Instruction, kernel: Instruction
) -> Instruction | None:
    """convolution(x, reverse(k)) = convolution(x, k) with windows reversed, if only spatial dimensions are"""
    spatial = instruction.attributes["dim_labels"].kernel_spatial
    along = instruction.operands[1].attributes["dimensions"]
    if not set(along) <= set(spatial):
        return None
    windows = tuple(
        w._replace(reversed=not w.reversed) if d in along else w
        for w, d in zip(instruction.get("window").dims, spatial)
    )
    attributes = {**instruction.attributes, "window": Window(windows)}
    return Emit.at(instruction).op("convolution", dense(instruction.shape), (x, kernel), **attributes)


@rule(op("convolution", x, kernel))
def convolution_to_dot(instruction: Instruction, x: Instruction, kernel: Instruction) -> Instruction | None:
    """convolution(x, k) = dot(x, k) with windows of one element, if the result's dimensions come in that order"""
    labels, order = instruction.attributes["dim_labels"], _dot_order(instruction)
    wide = [d for d in order if instruction.shape.dims[d] != 1]
    if not _is_plain_product(instruction) or wide != sorted(wide):
        return None
    emit = Emit.at(instruction)
    features = (labels.kernel_input_feature, labels.kernel_output_feature)
    matrix = emit.reshape(kernel, [kernel.shape.dims[d] for d in sorted(features)])
    shape = array(instruction.shape.dtype, *(instruction.shape.dims[d] for d in order))
    named = {"lhs_contracting_dims": (labels.input_feature,), "rhs_contracting_dims": (int(features[0] > features[1]),)}
    precision = instruction.get("operand_precision")
    product = emit.op("dot", shape, (x, matrix), **named, operand_precision=precision)
    return emit.reshape(product, instruction.shape.dims)


def _is_plain_product(convolution: Instruction) -> bool:
    """Whether all windows are of one element, and nothing is said but how they lie and how precise they are."""
    window = convolution.get("window")
    known = {"window", "dim_labels", "operand_precision"}
    return window is not None and convolution.attributes.keys() <= known and all(map(_is_point, window.dims))


def _dot_order(convolution: Instruction) -> list[int]:
    """The dimensions of the result as a dot would have them: those of the image in order, then the features."""
    labels = convolution.attributes["dim_labels"]
    roles = {labels.input_batch: labels.output_batch, **dict(zip(labels.input_spatial, labels.output_spatial))}
    return [*(roles[d] for d in sorted(roles)), labels.output_feature]
