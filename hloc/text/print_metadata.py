"""Metadata of instructions as text, and the tables of places that it refers to."""

from __future__ import annotations

from hloc.ir.attributes import Metadata
from hloc.text.print_strings import escape, quote

_STRINGS = ("op_type", "op_name", "source_file")
_NUMBERS = ("source_line", "source_end_line", "source_column", "source_end_column")


def metadata_fields(metadata: Metadata, frame: int | None = None) -> str:
    """What stands between the braces, without empty fields; `frame` replaces the stack frame's number."""
    parts = []
    for name in _STRINGS:
        text = getattr(metadata, name)
        if text:
            parts.append(f'{name}="{escape(text)}"')
    for name in _NUMBERS:
        number = getattr(metadata, name)
        if number:
            parts.append(f"{name}={number}")
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
