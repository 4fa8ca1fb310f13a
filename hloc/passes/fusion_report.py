"""What fusion decided, edge by edge: which values are computed where they are used, which are stored, and why."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Protocol

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.lazy import lazy
from hloc.passes.report import Remark, Report

json = lazy("json")
traffic = lazy("hloc.analysis.traffic")

_NO_VALUES = ("parameter", "constant", "tuple", "get-tuple-element")
"""Ops whose results no kernel makes."""


class Kernel(Protocol):
    """Instructions that are computed in one kernel, and those among them that it stores."""

    members: Collection[Instruction]
    outputs: Collection[Instruction]


class Verdicts:
    """Why producers stay out of groups of users: an obstacle, or costs.

    `costs` are (work done again, work saved), `repeated` the work in each turn that would be done elsewhere too;
    `free` are those that are other names of their operands' memory.
    """

    def __init__(self) -> None:
        self.obstacles: dict[tuple[Instruction, Hashable], str] = {}
        self.costs: dict[Instruction, tuple[float, float]] = {}
        self.repeated: dict[Instruction, float] = {}
        self.free: set[Instruction] = set()

    def reason(self, producer: Instruction, homes: Collection[Hashable]) -> str:
        """Why a producer is in none of the groups that its user is in."""
        if producer in self.free:
            return "it moves nothing, and is only another name for what lies in memory"
        if not homes:
            return "its user has no loops that it could be computed in"
        for home in homes:
            if (producer, home) in self.obstacles:
                return self.obstacles[producer, home]
        if producer in self.repeated:
            return f"its users do {self.repeated[producer]:g} units of work in each turn again already"
        extra, worth = self.costs.get(producer, (0.0, 0.0))
        if extra > worth:
            return f"computing it again costs {extra:.0f} units of work, storing and loading it {worth:.0f}"
        if any(obstacle for (other, _), obstacle in self.obstacles.items() if other is producer):
            return "another user needs it in memory"
        return "it has loops of its own"

    def figures(self, producer: Instruction) -> dict[str, float]:
        """The numbers behind a decision."""
        if producer not in self.costs:
            return {}
        extra, worth = self.costs[producer]
        return {"work_again": round(extra, 1), "work_saved": worth}


class Edges:
    """The edges of one computation before fusion, each a remark once the fusions are written.

    An edge is a value and one of its users, both made by kernels. Those that a kernel has inside are told by the pass
    that made the kernel, others by the last pass, which knows why (`verdicts`, and each instruction's `homes`).
    """

    def __init__(self, pass_name: str, computation: Computation):
        self.pass_name = pass_name
        self.order = [i for i in computation if i.opcode not in _NO_VALUES]
        self.users = {i: list(dict.fromkeys(u for u in i.users if u.opcode not in _NO_VALUES)) for i in self.order}
        self.bytes = {i: sum(leaf.byte_size for _, leaf in i.shape.leaves() if leaf.is_array) for i in self.order}
        self.kernels: dict[Instruction, list[tuple[Kernel, str]]] = {}

    def enter(self, kernel: Kernel, fusion: Instruction) -> None:
        """A kernel that has become a fusion."""
        for member in kernel.members:
            self.kernels.setdefault(member, []).append((kernel, fusion.name))

    def fused(self, verdicts: Verdicts | None = None) -> Iterator[Remark]:
        """The edges inside of kernels."""
        for producer, user in self._pairs():
            for kernel, name in self._shared(producer, user):
                stored = producer in kernel.outputs
                saved = self.bytes[producer] * (1 if stored else 2)
                text = f"is computed in %{name} with its user %{user.name}" + (", and stored" if stored else "")
                figures = verdicts.figures(producer) if verdicts is not None else {}
                data = {"consumer": user.name, "fused": True, "kernel": name, "bytes_saved": saved, **figures}
                yield Remark(self.pass_name, producer.name, f"{text}: {saved} bytes less to move", data)

    def stored(self, verdicts: Verdicts, homes: dict[Instruction, list[Hashable]]) -> Iterator[Remark]:
        """The edges between kernels."""
        for producer, user in self._pairs():
            if any(True for _ in self._shared(producer, user)):
                continue
            reason = verdicts.reason(producer, homes.get(user, ()))
            if user.opcode == "fusion":
                reason = "its user is the kernel of an earlier pass"
            data = {"consumer": user.name, "fused": False, "reason": reason, "bytes": self.bytes[producer]}
            text = f"is stored for its user %{user.name}: {reason}"
            yield Remark(self.pass_name, producer.name, text, {**data, **verdicts.figures(producer)})

    def _pairs(self) -> Iterator[tuple[Instruction, Instruction]]:
        return ((producer, user) for producer in self.order for user in self.users[producer])

    def _shared(self, producer: Instruction, user: Instruction) -> Iterator[tuple[Kernel, str]]:
        return (pair for pair in self.kernels.get(producer, ()) if user in pair[0].members)


def explained(module: Module, report: Report, as_json: bool) -> str:
    """The edges that passes with the option `explain` told of, and the fusions in the module after all passes.

    As lines for people, or as JSON: {"edges": [{"pass", "producer", "consumer", "fused", ...}], "fusions": [{"name",
    "kind", "computation", "instructions", "bytes_read", "bytes_written"}]}.
    """
    edges = [remark for remark in report.remarks() if {"consumer", "fused"} <= remark.data.keys()]
    fusions = [_figures(instruction) for instruction in module.instructions() if instruction.opcode == "fusion"]
    if as_json:
        rows = [{"pass": edge.pass_name, "producer": edge.instruction, **edge.data} for edge in edges]
        return json.dumps({"edges": rows, "fusions": fusions}, indent=1)
    lines = [str(edge) for edge in edges]
    inside = sum(bool(edge.data["fused"]) for edge in edges)
    lines.append(f"{inside} of {len(edges)} edges are inside of kernels")
    for row in fusions:
        figures = f"{row['instructions']} instructions, reads {row['bytes_read']} bytes, writes {row['bytes_written']}"
        lines.append(f"%{row['name']} in %{row['computation']}, {row['kind']}: {figures}")
    return "\n".join(lines)


def _figures(fusion: Instruction) -> dict[str, object]:
    moved = traffic.traffic(fusion)
    return {
        "name": fusion.name,
        "kind": fusion.get("kind"),
        "computation": fusion.computation.name,
        "instructions": sum(i.opcode not in _NO_VALUES for i in fusion.called[0]),
        "bytes_read": round(sum(moved.operands) + moved.constants),
        "bytes_written": round(moved.written),
    }
