"""What a print shows."""

from __future__ import annotations

from hloc.records import record


@record
class PrintOptions:
    """The default shows everything, so that parsing the print gives the same module.

    `large_constants` False writes `{...}` for tuple constants and those of more than 10 elements. `ids` False
    drops module and computation names and the suffixes that make names unique. `compact_operands` shows at
    most four operands, `operand_comments` numbers every fifth one. The other fields say by their name what
    they show: `%` before names, shapes of operands beside their names, layouts in shapes, signatures of
    computations, metadata (of instructions and shardings, and the tables of places), and so on. `indent`
    counts steps of two spaces.
    """

    large_constants: bool = True
    metadata: bool = True
    backend_config: bool = True
    ids: bool = True
    percent: bool = True
    layouts: bool = True
    result_shapes: bool = True
    operand_shapes: bool = False
    operand_names: bool = True
    operand_comments: bool = True
    compact_operands: bool = False
    program_shapes: bool = True
    attributes: bool = True
    control_dependencies: bool = True
    indent: int = 0

    @staticmethod
    def short() -> PrintOptions:
        """The least that parses to a program of the same meaning."""
        return PrintOptions(
            metadata=False,
            percent=False,
            program_shapes=False,
            control_dependencies=False,
            operand_comments=False,
        )
