"""Rules of reduce-window and convolution."""

from __future__ import annotations

from math import prod

from hloc.ir.attributes import ConvDims, SliceDim, Window, WindowDim
from hloc.ir.dtypes import BF16, F16
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import array
from hloc.passes.algebraic.facts import binary_opcode, is_identity
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit, dense
from hloc.passes.patterns import bind, op, splat

x, init, kernel, value = bind("x"), bind("init"), bind("kernel"), bind("value")

_PLAIN = {"window", "dim_labels", "operand_precision"}
"""What is said of convolutions of one group."""

_LEAST_DILATION = 4
"""From which dilation on it is worth to move the results."""


_FEW, _MANY = 16, 128
"""Places of a dimension without windows that are counted with the one before, at most: where it is the only other one,
threads have nothing to share any more; and where it is not.
"""

_WHOLE = 32
"""So many places are whole vectors, whose sums stay in registers."""


_PAYS = 3
"""How many times fewer operations pay for an array in between."""

_VECTOR = 8
"""So many places, or several times as many, are vectors."""


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


def _grows(window: WindowDim, size: int) -> bool:
    """Whether all windows have an end of a dimension: each is made from the one before (a cumulative sum)."""
    return window.output_size(size) - 1 <= window.pad_low or window.size - window.pad_low >= size


@rule(op("reduce-window", x, init))
def windows_one_by_one(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce-window over two dimensions = reduce-window over the last of them of one over the other, for a known op

    A window of 8 x 8 takes 16 operations in place of 64. It pays for large ones; and for those along rows of few places
    whose windows are further apart, of which each is made alone. In which order elements are added is open, as it is
    with XLA, which sums by trees of windows; but sums of floats narrower than f32 are rounded once.
    """
    windows, dtype = instruction.get("window").dims, instruction.shape.dtype
    opcode = binary_opcode(instruction.attributes["to_apply"])
    wide = [d for d, w in enumerate(windows) if not _is_point(w)]
    if len(wide) < 2 or opcode is None or not is_identity(opcode, init) or 0 in instruction.shape.dims:
        return None
    if opcode not in ("maximum", "minimum") and (opcode != "add" or dtype.is_complex or dtype in (BF16, F16)):
        return None
    (*first, last), sizes = wide, [windows[d].size for d in wide]
    few = prod(x.shape.dims[last + 1 :])
    is_alone = windows[last].stride > 1 and few % _VECTOR != 0 and few <= _MANY
    saved = prod(sizes) - sum(sizes)
    if prod(sizes) < _PAYS * sum(sizes) and not (is_alone and (saved > 0 or (saved == 0 and few > 1))):
        return None
    if any(_grows(windows[d], x.shape.dims[d]) for d in wide):
        return None
    emit, inner = Emit.at(instruction), x
    for some in (first, [last]):
        own = tuple(w if d in some else WindowDim(1) for d, w in enumerate(windows))
        sizes = [w.output_size(size) for w, size in zip(own, inner.shape.dims)]
        attributes = {**instruction.attributes, "window": Window(own)}
        inner = emit.op("reduce-window", array(dtype, *sizes), (inner, init), **attributes)
    return inner


@rule(op("reduce-window", x, init))
def windows_beside_few(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce-window(x[..., w, c]) = reduce-window(x[..., w*c]), whose windows have gaps of c, for a few c

    Results along the last dimension are made together: those of c places alone would be few.
    """
    windows, dims = instruction.get("window").dims, x.shape.dims
    if len(dims) < 2 or 0 in instruction.shape.dims or windows[-1] != WindowDim(1) or _is_point(windows[-2]):
        return None
    w, few = windows[-2], dims[-1]
    most = _MANY if prod(instruction.shape.dims[:-2]) > 1 else _FEW
    if not 1 < few <= most or few % _WHOLE == 0 or w.stride != 1 or w.base_dilation != 1 or _grows(w, dims[-2]):
        return None
    wide = w._replace(pad_low=w.pad_low * few, pad_high=w.pad_high * few, window_dilation=w.window_dilation * few)
    emit = Emit.at(instruction)
    attributes = {**instruction.attributes, "window": Window((*windows[:-2], wide))}
    results = array(instruction.shape.dtype, *instruction.shape.dims[:-2], instruction.shape.dims[-2] * few)
    given = emit.reshape(x, (*dims[:-2], dims[-2] * few))
    return emit.reshape(emit.op("reduce-window", results, (given, init), **attributes), instruction.shape.dims)


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


@rule(op("convolution", x, kernel))
def dilation_to_features(instruction: Instruction, x: Instruction, kernel: Instruction) -> Instruction | None:
    """convolution(x, k), x dilated d times along a dimension = a convolution with d times the features of result

    Of d neighbouring results, each meets every d-th element of the kernel (a polyphase filter: Crochiere and Rabiner,
    Multirate Digital Signal Processing, 1983). Where d divides the kernel's size, each meets equally many of the same
    elements of x: one window with d kernels side by side, whose results stand behind each other. The zeros between
    elements of x meet nothing any more: where the kernel is infinite they make no NaN, as with XLA.
    """
    window, labels = instruction.get("window"), instruction.attributes["dim_labels"]
    if window is None or not instruction.attributes.keys() <= _PLAIN:
        return None
    dilated = [n for n, w in enumerate(window.dims) if w.base_dilation > 1]
    if len(dilated) != 1:
        return None
    (n,) = dilated
    w, size, step = window.dims[n], instruction.shape.dims[labels.output_spatial[n]], window.dims[n].base_dilation
    moves = labels.output_spatial[n] + 1 != labels.output_feature
    if w.stride != 1 or w.window_dilation != 1 or w.size % step or 0 in instruction.shape.dims:
        return None
    if step < (_LEAST_DILATION if moves else 2) or 0 in x.shape.dims:
        return None
    skipped = (step - 1 - w.pad_low) % step
    places, taps, low = -(-(size + skipped) // step), w.size // step, (w.pad_low + skipped) // step
    high = places - 1 + taps - x.shape.dims[labels.input_spatial[n]] - low
    windows = (*window.dims[:n], WindowDim(taps, 1, low, high, reversed=w.reversed), *window.dims[n + 1 :])
    emit = Emit.at(instruction)
    kernels = _side_by_side(emit, kernel, labels, n, step, w.reversed)
    dims = list(instruction.shape.dims)
    dims[labels.output_spatial[n]] = places
    dims[labels.output_feature] *= step
    attributes = {**instruction.attributes, "window": Window(windows)}
    product = emit.op("convolution", array(instruction.shape.dtype, *dims), (x, kernels), **attributes)
    product = _moved(emit, product, labels.output_feature, step, labels.output_spatial[n], before=False)
    if product.shape.dims == instruction.shape.dims:
        return product
    ranges = [SliceDim(0, limit) for limit in instruction.shape.dims]
    ranges[labels.output_spatial[n]] = SliceDim(skipped, skipped + size)
    return emit.slice(product, ranges)


def _side_by_side(
    emit: Emit, kernel: Instruction, labels: ConvDims, n: int, step: int, is_reversed: bool
) -> Instruction:
    """The kernel of every `step`-th element along spatial dimension `n`, and behind each other the further ones'.

    The kernel of the first of `step` results begins with the last one of so many elements; with the first one if the
    window is reversed.
    """
    d = labels.kernel_spatial[n]
    dims = list(kernel.shape.dims)
    parts = emit.reshape(kernel, [*dims[:d], dims[d] // step, step, *dims[d + 1 :]])
    if not is_reversed:
        parts = emit.op("reverse", dense(parts.shape), (parts,), dimensions=(d + 1,))
    dims[d] //= step
    return _regrouped(emit, parts, dims, d + 1, labels.kernel_output_feature, before=True)


def _moved(emit: Emit, value: Instruction, source: int, count: int, target: int, before: bool) -> Instruction:
    """The first factor `count` of a dimension made a factor of another: the first one if `before`, or the last one."""
    dims = list(value.shape.dims)
    dims[source] //= count
    parts = emit.reshape(value, [*dims[:source], count, *dims[source:]])
    return _regrouped(emit, parts, dims, source, target, before)


def _regrouped(
    emit: Emit, parts: Instruction, dims: list[int], extra: int, target: int, before: bool
) -> Instruction:
    """An array of `dims` and one more dimension, the one numbered `extra`, which becomes a factor of another one."""
    others = [d for d in range(parts.shape.rank) if d != extra]
    others.insert(target if before else target + 1, extra)
    count = parts.shape.dims[extra]
    return emit.reshape(
        emit.transpose(parts, others), [size * count if d == target else size for d, size in enumerate(dims)]
    )


def _is_plain_product(convolution: Instruction) -> bool:
    """Whether all windows are of one element, and nothing is said but how they lie and how precise they are."""
    window = convolution.get("window")
    return window is not None and convolution.attributes.keys() <= _PLAIN and all(map(_is_point, window.dims))


def _dot_order(convolution: Instruction) -> list[int]:
    """The dimensions of the result as a dot would have them: those of the image in order, then the features."""
    labels = convolution.attributes["dim_labels"]
    roles = {labels.input_batch: labels.output_batch, **dict(zip(labels.input_spatial, labels.output_spatial))}
    return [*(roles[d] for d in sorted(roles)), labels.output_feature]
