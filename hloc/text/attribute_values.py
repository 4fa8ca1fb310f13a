"""Callbacks of the grammar's rules for attribute values: tokens to the classes of hloc.ir.attributes."""

from __future__ import annotations

from typing import Any

from hloc.ir.attributes import (
    Alias,
    ConvDims,
    Donor,
    Metadata,
    PadDim,
    Raw,
    ReplicaGroups,
    ResultAccuracy,
    SliceDim,
    Window,
    WindowDim,
)
from hloc.ir.device_order import iota_tile
from hloc.records import of_fields
from hloc.text.messages import suggest
from hloc.text.print_strings import quote
from hloc.text.shape_values import shapes_of
from hloc.text.strings import float_of, int_of, string_of, unescape
from hloc.text.tokens import Fault, Token, fault_at

_STRINGS = ("op_type", "op_name", "source_file", "deduplicated_name", "scheduling_name", "metadata_payload")
_NUMBERS = ("source_line", "source_end_line", "source_column", "source_end_column", "stack_frame_id")
METADATA_FIELDS = (*_STRINGS, *_NUMBERS, "profile_type")
_INT32 = range(-(2**31), 2**31)

_WINDOW_FIELDS = {
    "size": "size",
    "stride": "stride",
    "lhs_dilate": "base_dilation",
    "rhs_dilate": "window_dilation",
    "rhs_reversal": "reversed",
}


class AttributeValues:
    """One method a rule, called with the rule's children."""

    def boolean(self, children: list[Token]) -> bool:
        return children[0].type == "TRUE"

    def booleans(self, children: list[bool]) -> tuple[bool, ...]:
        return tuple(children)

    def number(self, children: list[Token]) -> float:
        return float_of(children[0])

    def list(self, children: list[Any]) -> tuple[int, ...]:
        return children[0] if children else ()

    def lists(self, children: list[Any]) -> tuple[tuple[int, ...], ...]:
        return tuple(children)

    def flat_list(self, children: list[Any]) -> tuple[int, ...]:
        return children[0]

    def words(self, children: list[Token]) -> tuple[Token, ...]:
        return tuple(children)

    def names(self, children: list[Token]) -> tuple[Token, ...]:
        return tuple(children)

    def shapes(self, children: list[Any]) -> tuple[Any, ...]:
        return tuple(children)

    def callees(self, children: list[Any]) -> tuple[Any, ...]:
        return tuple(children)

    def callee(self, children: list[Any]) -> Any:
        return children[0]

    # Windows, slices, padding, convolutions.

    def window(self, children: list[Token]) -> Window:
        fields: dict[str, list[int]] = {}
        pads: list[list[int]] | None = None
        for key, value in zip(children[::2], children[1::2]):
            name = key.value
            if name in fields or (name == "pad" and pads is not None):
                raise fault_at(key, f"window has {name} twice")
            if name == "pad":
                pads = _pads(value, 2)
            elif name in _WINDOW_FIELDS:
                fields[name] = _sizes(value)
            else:
                known = (*_WINDOW_FIELDS, "pad")
                raise fault_at(key, f"a window has no field {name!r}", suggest(name, known))
        return _window(children, fields, pads)

    def slices(self, children: list[SliceDim]) -> tuple[SliceDim, ...]:
        return tuple(children)

    def slice(self, children: list[Token]) -> SliceDim:
        return SliceDim(*map(int_of, children))

    # Devices.

    def groups(self, children: list[Any]) -> ReplicaGroups:
        value = children[0]
        if isinstance(value, ReplicaGroups):
            return value
        if isinstance(value, tuple):
            return ReplicaGroups(listed=value)
        if len(value.dims) != 2:
            raise fault_at(value.start, f"groups are counted in 2 dimensions, number and size, not {len(value.dims)}")
        try:
            return ReplicaGroups(iota=iota_tile(value.dims, value.reshape_dims, value.permutation))
        except ValueError as error:
            raise fault_at(value.start, str(error)) from None

    def iota(self, children: list[Any]) -> Iota:
        start, dims, _, _, bracket, reshape_dims, _, *permutation = children
        if bool(permutation) != (len(reshape_dims) > 1):
            message = "expected the order T(...) of the dimensions" if not permutation else "a single dimension has no order"
            raise fault_at(bracket, message)
        return Iota(start, dims, reshape_dims, permutation[0] if permutation else None)

    def permutation(self, children: list[Any]) -> tuple[int, ...]:
        return children[0]

    def aliases(self, children: list[Alias]) -> tuple[Alias, ...]:
        return tuple(children)

    def alias(self, children: list[Any]) -> Alias:
        output, number, index, *kind = children
        if kind and kind[0].value not in ("may-alias", "must-alias"):
            raise fault_at(kind[0], f"expected may-alias or must-alias, got {kind[0].value!r}")
        return Alias(output, int_of(number), index, bool(kind) and kind[0].value == "must-alias")

    def donors(self, children: list[Donor]) -> tuple[Donor, ...]:
        return tuple(children)

    def donor(self, children: list[Any]) -> Donor:
        return Donor(int_of(children[0]), children[1])

    def entry_layout(self, children: list[Any]) -> tuple[tuple[Any, ...], Any]:
        return tuple(shapes_of(children[:-1])), children[-1]

    # Accuracy.

    def accuracy(self, children: list[Token]) -> ResultAccuracy:
        key, mode = children
        _want_key(key, "mode", ("mode", "tolerance"))
        if mode.value.lower() not in ("default", "highest"):
            raise fault_at(mode, f"expected default or highest, got {mode.value!r}")
        return ResultAccuracy(mode=mode.value.lower())

    def tolerances(self, children: list[Any]) -> ResultAccuracy:
        key, *parts = children
        _want_key(key, "tolerance", ("mode", "tolerance"))
        fields: dict[str, Any] = {}
        for name, value in parts:
            if name.value not in ("atol", "rtol", "ulps"):
                raise fault_at(name, f"expected atol, rtol or ulps, got {name.value!r}")
            if name.value == "ulps" and value != value // 1:
                raise fault_at(name, f"ulps counts units in the last place, so it is whole, not {value}")
            fields[name.value] = int(value) if name.value == "ulps" else value
        return ResultAccuracy(None, fields.get("atol", 0.0), fields.get("rtol", 0.0), fields.get("ulps", 0))

    def tolerance(self, children: list[Any]) -> tuple[Token, float]:
        return children[0], children[1]

    # Dictionaries, metadata and what is kept as text.

    def dictionary(self, children: list[tuple[str, str | Raw]]) -> tuple[tuple[str, str | Raw], ...]:
        return tuple(sorted(dict(children).items(), key=lambda item: item[0]))

    def entry(self, children: list[Token]) -> tuple[str, str | Raw]:
        key, value = children
        return key.value, Raw(value.value) if value.type == "DICT" else string_of(value)

    def metadata(self, children: list[Any]) -> Metadata:
        fields: dict[str, Any] = {}
        for key, value in zip(children[::2], children[1::2]):
            name = key.value
            if name in fields:
                raise fault_at(key, f"metadata has {name} twice")
            fields[name] = _metadata_field(key, value)
        return _metadata(fields)

    def statistics(self, children: list[Token]) -> Raw | None:
        """Canonical text; None if there is no statistic."""
        if len(children) <= 2:
            return None
        first, index, *rest = children
        if first.value != "visualizing_index":
            raise fault_at(first, f"expected visualizing_index=, got {first.value}=")
        parts = [f"visualizing_index={int_of(index)}"]
        parts += [f"{key.value}={float_of(value):g}" for key, value in zip(rest[::2], rest[1::2])]
        return Raw("{" + ",".join(parts) + "}")

    def origin(self, children: list[Any]) -> Raw:
        depth = 0
        for part in children:
            sign = part.value if isinstance(part, Token) else ""
            depth += (sign == "(") - (sign == ")")
            if depth < 0 or (sign == "," and depth == 0):
                raise fault_at(part, f"unexpected {sign!r} outside of a tuple of origins")
        if depth:
            raise fault_at(children[0], "a tuple of origins lacks its ')'")
        signs = [part if isinstance(part, str) else part.value.replace(",", ", ") for part in children[1:-1]]
        return Raw("{" + ("".join(signs).replace(", )", ")") or "()") + "}")

    def synthetic_origin(self, children: list[Token]) -> Raw:
        if children[2].value != "synthetic_call":
            raise fault_at(children[2], f"expected synthetic_call, got {children[2].value!r}")
        return Raw("{[synthetic_call]}")

    def origin_array(self, children: list[Any]) -> str:
        if not children:
            return "{}"
        name, *index = children
        return "{" + quote(string_of(name)) + (" {" + ",".join(map(str, index[0])) + "}" if index else "") + "}"

    def recovery(self, children: list[tuple[str, str, Token | None]]) -> tuple[tuple[str, str, Token | None], ...]:
        return tuple(children)

    def recovery_row(self, children: list[Any]) -> tuple[str, str, Token | None]:
        replaced, replacing, *program = children
        return replaced, replacing, program[0] if program else None


class Iota:
    """`[dims]<=[reshape_dims]T(permutation)` as written; `start` is its first bracket."""

    def __init__(self, start: Token, dims: tuple[int, ...], reshape_dims: tuple[int, ...], permutation: Any):
        self.start = start
        self.dims = dims
        self.reshape_dims = reshape_dims
        self.permutation = permutation


def conv_dims(token: Token) -> ConvDims:
    """`b01f_01io->b01f`: where each part of input, kernel and output lies; `?` dimensions have no part."""
    left, output = token.value.split("->")
    inputs, kernel = left.split("_")
    parts = [_labels(token, labels, letters) for labels, letters in ((inputs, "bf"), (kernel, "io"), (output, "bf"))]
    if len({len(spatial) for _, _, spatial in parts}) != 1:
        counts = ", ".join(str(len(spatial)) for _, _, spatial in parts)
        raise fault_at(token, f"input, kernel and output must have equally many spatial dimensions, got {counts}")
    return ConvDims(*(field for part in parts for field in part))


def _labels(token: Token, labels: str, letters: str) -> tuple[int, int, tuple[int, ...]]:
    named = labels.replace("?", "")
    spatial = sorted(label for label in named if label not in letters)
    if len(set(named)) != len(named) or not set(letters) <= set(named):
        raise fault_at(token, f"expected each of {', '.join(letters)} and the digits once, got {labels!r}")
    if spatial != [str(n) for n in range(len(spatial))]:
        raise fault_at(token, f"spatial dimensions count up from 0, got {labels!r}")
    return labels.index(letters[0]), labels.index(letters[1]), tuple(labels.index(label) for label in spatial)


def padding(token: Token) -> tuple[PadDim, ...]:
    """`0_0_1x2_3`: low, high and perhaps interior padding of each dimension."""
    return tuple(PadDim(*part) for part in _pads(token, 3))


def _pads(token: Token, most: int) -> list[list[int]]:
    """The numbers of `l_hxl_h`, at most `most` a dimension."""
    if token.type != "PADS":
        raise fault_at(token, f"expected padding such as 0_0x1_2, got {token.value!r}")
    parts = [[_int64(token, number) for number in part.split("_")] for part in token.value.split("x")]
    if any(len(part) > most for part in parts):
        raise fault_at(token, "window padding is low_high of each dimension")
    return parts


def _sizes(token: Token) -> list[int]:
    """The numbers of `3` or `3x3`."""
    if token.type == "PADS":
        raise fault_at(token, f"expected sizes such as 3x3, got {token.value!r}")
    return [_int64(token, number) for number in token.value.split("x")]


def _int64(token: Token, digits: str) -> int:
    return int_of(Token("INT", digits, token.start, token.end))


def _window(children: list[Token], fields: dict[str, list[int]], pads: list[list[int]] | None) -> Window:
    rank = len(fields.get("size", ()))
    for name, values in (*fields.items(), ("pad", pads)):
        if values is not None and len(values) != rank:
            key = next(token for token in children[::2] if token.value == name)
            raise fault_at(key, f"expected {name} for {rank} dimensions as in size, got {len(values)}")
    dims = []
    for i in range(rank):
        parts: dict[str, Any] = {_WINDOW_FIELDS[name]: values[i] for name, values in fields.items()}
        if "reversed" in parts:
            parts["reversed"] = parts["reversed"] == 1
        if pads is not None:
            parts["pad_low"], parts["pad_high"] = pads[i]
        dims.append(WindowDim(**parts))
    return Window(tuple(dims))


def _want_key(key: Token, wanted: str, known: tuple[str, ...]) -> None:
    if key.value != wanted:
        raise fault_at(key, f"expected {wanted}=, got {key.value}=", suggest(key.value, known))


def _metadata_field(key: Token, value: Any) -> Any:
    name = key.value
    if name in _STRINGS:
        if not isinstance(value, Token) or value.type != "STRING":
            raise fault_at(key, f"metadata {name} is a string")
        return string_of(value)
    if name in _NUMBERS:
        if not isinstance(value, Token) or value.type != "INT" or int_of(value) not in _INT32:
            raise fault_at(key, f"metadata {name} is a 32-bit integer")
        return int_of(value)
    if name == "profile_type":
        if not isinstance(value, tuple):
            raise fault_at(key, "metadata profile_type is a list of integers")
        return value
    if name == "metadata_payload":
        if not isinstance(value, Token) or value.type != "STRING":
            raise fault_at(key, f"metadata {name} is a string")
        return string_of(value)
    raise fault_at(key, f"metadata has no field {name!r}", suggest(name, METADATA_FIELDS))


def quick_metadata(pairs: list[tuple[str, str, str]]) -> Metadata | None:
    """Metadata of (name, string body, digits) rows; None if anything is out of the ordinary."""
    fields: dict[str, Any] = {}
    for name, body, digits in pairs:
        if name in _STRINGS:
            if digits:
                return None
            try:
                fields[name] = body if "\\" not in body else unescape(body, Token("STRING", body, 0, 0))
            except Fault:
                return None
        elif name in _NUMBERS and digits and len(digits) < 10:
            fields[name] = int(digits)
        else:
            return None
    return _metadata(fields) if pairs and len(fields) == len(pairs) else None


def _metadata(fields: dict[str, Any]) -> Metadata:
    if "metadata_payload" in fields:
        fields["payload"] = fields.pop("metadata_payload")
    return of_fields(Metadata, fields)
