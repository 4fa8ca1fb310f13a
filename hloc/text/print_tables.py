"""The tables of places behind the header: files, functions, locations, and the stack frames that use them.

Like XLA's parser, a print numbers the frames in the order in which instructions first name them, callers
before callees, and leaves out the rows that no instruction needs.
"""

from __future__ import annotations

from hloc.ir.module import Module
from hloc.text.print_strings import quote

_PLACE = ("line", "end_line", "column", "end_column")


class Frames:
    """The stack frames of one print. `number` says what a frame is called in it."""

    def __init__(self, module: Module):
        self._tables = module.tables
        self._frames = module.tables.get("StackFrames", {})
        self._numbers: dict[int, int] = {}
        self._rows: list[dict[object, int]] = [{}, {}, {}, {}]
        if self._frames:
            for instruction in module.instructions():
                metadata = instruction.metadata
                if metadata is not None and metadata.stack_frame_id:
                    self._intern(metadata.stack_frame_id)

    def number(self, frame: int) -> int:
        """The number in this print; 0 for a frame that the tables do not hold."""
        return self._numbers.get(frame, 0)

    def _intern(self, frame: int) -> None:
        """Number a frame, after those that it was called from."""
        chain = []
        while frame in self._frames and frame not in self._numbers and frame not in chain:
            chain.append(frame)
            frame = self._frames[frame].get("parent_frame_id", 1) - 1
        for frame in reversed(chain):
            fields = self._frames[frame]
            parent = self._numbers.get(fields.get("parent_frame_id", 1) - 1, 0)
            location = self._location(fields.get("file_location_id", 0))
            self._numbers[frame] = self._row(3, (location, parent))

    def _location(self, number: int) -> int:
        fields = self._tables.get("FileLocations", {}).get(number, {})
        file = self._row(0, self._tables.get("FileNames", {}).get(fields.get("file_name_id"), ""))
        function = self._row(1, self._tables.get("FunctionNames", {}).get(fields.get("function_name_id"), ""))
        return self._row(2, (file, function, *(fields.get(name, 0) for name in _PLACE)))

    def _row(self, section: int, content: object) -> int:
        rows = self._rows[section]
        return rows.setdefault(content, len(rows) + 1)

    def text(self) -> str:
        """The sections, each with a blank line before it; "" where no instruction names a frame."""
        if not self._numbers:
            return ""
        files, functions, locations, frames = self._rows
        lines = ["\n\nFileNames", *(f"{number} {quote(name)}" for name, number in files.items())]
        lines += ["\nFunctionNames", *(f"{number} {quote(name)}" for name, number in functions.items())]
        lines.append("\nFileLocations")
        for (file, function, *place), number in locations.items():  # type: ignore[misc]
            named = " ".join(f"{name}={value}" for name, value in zip(_PLACE, place, strict=True))
            lines.append(f"{number} {{file_name_id={file} function_name_id={function} {named}}}")
        lines.append("\nStackFrames")
        for (location, parent), number in frames.items():  # type: ignore[misc]
            lines.append(f"{number} {{file_location_id={location} parent_frame_id={parent + 1}}}")
        return "\n".join(lines) + "\n"
