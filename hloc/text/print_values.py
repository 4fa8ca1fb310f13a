"""Attribute values as text: one function for each kind of the op table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hloc.ir import opcodes as kinds
from hloc.ir.attributes import (
    Alias,
    ConvDims,
    Metadata,
    PadDim,
    Raw,
    ReplicaGroups,
    ResultAccuracy,
    SliceDim,
    Window,
)
from hloc.ir.literals import Literal
from hloc.ir.shapes import Shape
from hloc.ir.sharding import Domain
from hloc.text.print_literals import print_literal
from hloc.text.print_metadata import metadata_fields
from hloc.text.print_shapes import print_shape
from hloc.text.print_sharding import print_mesh_axes, print_order, print_sharding
from hloc.text.print_strings import escape, quote, quote_unless_dictionary


def print_dims(dims: tuple[int, ...]) -> str:
    return f"{{{','.join(map(str, dims))}}}"


def print_lists(lists: tuple[tuple[int, ...], ...]) -> str:
    return f"{{{','.join(map(print_dims, lists))}}}"


def print_bools(values: tuple[bool, ...]) -> str:
    return f"{{{','.join('true' if value else 'false' for value in values)}}}"


def print_window(window: Window) -> str:
    """`{size=3x3 stride=2x2}`; fields that all dimensions have at their default are left out."""
    dims = window.dims
    fields = [("size", [str(dim.size) for dim in dims])] if dims else []
    if any(dim.stride != 1 for dim in dims):
        fields.append(("stride", [str(dim.stride) for dim in dims]))
    if any(dim.pad_low or dim.pad_high for dim in dims):
        fields.append(("pad", [f"{dim.pad_low}_{dim.pad_high}" for dim in dims]))
    if any(dim.base_dilation != 1 for dim in dims):
        fields.append(("lhs_dilate", [str(dim.base_dilation) for dim in dims]))
    if any(dim.window_dilation != 1 for dim in dims):
        fields.append(("rhs_dilate", [str(dim.window_dilation) for dim in dims]))
    if any(dim.reversed for dim in dims):
        fields.append(("rhs_reversal", ["1" if dim.reversed else "0" for dim in dims]))
    return f"{{{' '.join(name + '=' + 'x'.join(parts) for name, parts in fields)}}}"


def print_conv_dims(dims: ConvDims) -> str:
    """`b01f_01io->b01f`."""
    inputs = _labels((("b", dims.input_batch), ("f", dims.input_feature)), dims.input_spatial)
    features = (("i", dims.kernel_input_feature), ("o", dims.kernel_output_feature))
    kernel = _labels(features, dims.kernel_spatial)
    output = _labels((("b", dims.output_batch), ("f", dims.output_feature)), dims.output_spatial)
    return f"{inputs}_{kernel}->{output}"


def _labels(named: tuple[tuple[str, int], ...], spatial: tuple[int, ...]) -> str:
    placed = [*named, *((str(number), place) for number, place in enumerate(spatial))]
    labels = ["?"] * (max(place for _, place in placed) + 1)
    for letter, place in placed:
        labels[place] = letter
    return "".join(labels)


def print_slice(dims: tuple[SliceDim, ...]) -> str:
    if all(dim.stride == 1 for dim in dims):
        return f"{{{', '.join(f'[{dim.start}:{dim.limit}]' for dim in dims)}}}"
    return f"{{{', '.join(f'[{dim.start}:{dim.limit}:{dim.stride}]' for dim in dims)}}}"


def print_padding(dims: tuple[PadDim, ...]) -> str:
    if any(dim.interior for dim in dims):
        return "x".join(f"{dim.low}_{dim.high}_{dim.interior}" for dim in dims)
    return "x".join(f"{dim.low}_{dim.high}" for dim in dims)


def print_groups(groups: ReplicaGroups) -> str:
    if groups.iota is not None:
        return f"[{','.join(map(str, groups.iota.dims))}]{print_order(groups.iota)}"
    if groups.mesh is not None:
        return print_mesh_axes(groups.mesh)
    return print_lists(groups.listed)


def print_aliases(aliases: tuple[Alias, ...]) -> str:
    """`{{}: (0, {}), {1}: (1, {0})}`."""
    rows = (f"{print_dims(a.output_index)}: ({a.number}, {print_dims(a.input_index)})" for a in aliases)
    return f"{{{', '.join(rows)}}}"


def print_accuracy(accuracy: ResultAccuracy) -> str:
    if accuracy.mode is not None:
        return f"{{mode={accuracy.mode}}}"
    parts = f"atol={accuracy.atol or 0:g},rtol={accuracy.rtol or 0:g},ulps={accuracy.ulps or 0}"
    return f"{{tolerance={{{parts}}}}}"


def print_literal_with_shape(literal: Literal) -> str:
    """`s32[2]{0} {1, 2}`; of a tuple, its elements so, in parentheses."""
    if literal.is_tuple:
        return f"( {', '.join(map(print_literal_with_shape, literal.value))} )"
    return f"{print_shape(literal.shape)} {print_literal(literal)}"


def print_dictionary(pairs: tuple[tuple[str, str | Raw], ...]) -> str:
    """`{a="1",d={x=1}}`."""
    return f"{{{','.join(f'{key}={print_config(value)}' for key, value in pairs)}}}"


def print_config(value: str | Raw) -> str:
    return value.text if isinstance(value, Raw) else quote_unless_dictionary(value)


def print_raw(value: str | Raw) -> str:
    """A nested dictionary such as `{rhs={sparsity=1x4 dimension=0}}`, its fields one blank apart."""
    text = value.text if isinstance(value, Raw) else str(value)
    return re.sub(r"(?<=\{) | (?=\})", "", " ".join(text.split()))


def print_verbatim(value: Raw) -> str:
    return value.text


def _print_domain(domain: Domain) -> str:
    entry, exit = print_sharding(domain.entry), print_sharding(domain.exit)
    return f'{{kind="{escape(domain.kind)}", entry={entry}, exit={exit}}}'


def _print_shapes(shapes: tuple[Shape, ...]) -> str:
    return f"{{{', '.join(map(print_shape, shapes))}}}"


def _print_enums(words: tuple[str, ...]) -> str:
    return f"{{{','.join(words)}}}"


def _print_metadata(metadata: Metadata) -> str:
    return f"{{{metadata_fields(metadata)}}}"


PRINTERS: dict[str, Callable[[Any], str]] = {
    kinds.INT: str,
    kinds.BOOL: lambda value: "true" if value else "false",
    kinds.FLOAT_VALUE: "{:g}".format,
    kinds.DIMS: print_dims,
    kinds.STRING: quote,
    kinds.ENUM: str,
    kinds.ENUMS: _print_enums,
    kinds.LITERAL: print_literal_with_shape,
    kinds.SHAPE: print_shape,
    kinds.SHAPES: _print_shapes,
    kinds.WINDOW: print_window,
    kinds.CONV_DIMS: print_conv_dims,
    kinds.SLICE: print_slice,
    kinds.PADDING: print_padding,
    kinds.GROUPS: print_groups,
    kinds.LISTS: print_lists,
    kinds.ALIASES: print_aliases,
    kinds.ACCURACY: print_accuracy,
    kinds.DOMAIN: _print_domain,
    kinds.SHARDING: print_sharding,
    kinds.METADATA: _print_metadata,
    kinds.DICTIONARY: print_dictionary,
    kinds.CONFIG: print_config,
    kinds.ORIGIN: print_verbatim,
    kinds.STATISTICS: print_verbatim,
    kinds.BOOLS: print_bools,
    kinds.RAW: print_raw,
}
"""The text of a value by its kind. Kinds that name computations or instructions need the print's options."""
