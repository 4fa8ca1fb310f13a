"""Metadata of instructions as text, and the tables of places that it refers to."""

from __future__ import annotations

from hloc.ir.attributes import Metadata
from hloc.text.print_strings import quote

_NUMBERS = ("source_line", "source_end_line", "source_column", "source_end_column")


def metadata_fields(metadata: Metadata, frame: int | None = None) -> str:
    """What stands between the braces, without empty fields; `frame` replaces the stack frame's number."""
    parts = []
    if metadata.op_type:
        parts.append(f"op_type={quote(metadata.op_type)}")
    if metadata.op_name:
        parts.append(f"op_name={quote(metadata.op_name)}")
    if metadata.source_file:
        parts.append(f"source_file={quote(metadata.source_file)}")
    if metadata.source_line is not None or metadata.source_file:
        parts += (f"{name}={number}" for name in _NUMBERS if (number := getattr(metadata, name)))
    if metadata.profile_type:
        parts.append(f"profile_type={{{','.join(map(str, metadata.profile_type))}}}")
    if metadata.deduplicated_name:
        parts.append(f"deduplicated_name={quote(metadata.deduplicated_name)}")
    if metadata.scheduling_name:
        parts.append(f"scheduling_name={quote(metadata.scheduling_name)}")
    number = metadata.stack_frame_id if frame is None else frame
    if number:
        parts.append(f"stack_frame_id={number}")
    if metadata.payload is not None:
        parts.append(f"metadata_payload={quote(metadata.payload)}")
    return " ".join(parts)
