"""Makes asynchronous pairs synchronous."""

from __future__ import annotations

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace

_PLAIN = {
    "async-start": "call",
    "copy-start": "copy",
    "all-gather-start": "all-gather",
    "all-reduce-start": "all-reduce",
    "collective-permute-start": "collective-permute",
}
_DONE = ("async-done", "copy-done", "all-gather-done", "all-reduce-done", "collective-permute-done")
_DROPPED = ("cross_program_prefetch_index", "async_execution_thread")


def run(module: Module) -> bool:
    """Replaces each start, its updates and its done by the plain op at the place of the start.

    `async-start` becomes a `call` of its computation. A start whose state somebody else looks into stays.

    Requires: nothing.
    Ensures: starts that are left have users besides the chain to one done; without any, all runs on one thread.
    Leaves: the instructions between start and done in their order. HloError for a send or recv that ends elsewhere
    than in front of its own send-done or recv-done: in another computation, or behind a tuple.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation.instructions:
            if instruction.opcode in ("send", "recv"):
                _check_transfer(instruction)
            if instruction.opcode in _PLAIN:
                chain = _chain(instruction)
                if chain is not None:
                    _make_plain(instruction, chain)
                    changed = True
    return changed | _on_one_thread(module)


def _check_transfer(instruction: Instruction) -> None:
    ends = [user.opcode for user in instruction.users]
    if instruction.is_root or ends != [f"{instruction.opcode}-done"]:
        done = f"its {instruction.opcode}-done takes it from a tuple or in another computation"
        raise HloError(f"a {instruction.opcode} is not supported where {done}", instruction.span)


def _on_one_thread(module: Module) -> bool:
    """Where nothing is asynchronous, computations of other threads are as all others."""
    others = [computation for computation in module if computation.execution_thread != "main"]
    if not others or any(instruction.opcode == "async-start" for instruction in module.instructions()):
        return False
    for computation in others:
        computation.execution_thread = "main"
    return True


def _chain(start: Instruction) -> list[Instruction] | None:
    """The updates, and the done at the end; None if the state is used in another way."""
    chain: list[Instruction] = []
    state = start
    while True:
        if len(state.users) != 1 or state.is_root:
            return None
        user = next(iter(state.users))
        chain.append(user)
        if user.opcode in _DONE:
            return chain
        if user.opcode != "async-update" or len(user.operands) != 1:
            return None
        state = user


def _make_plain(start: Instruction, chain: list[Instruction]) -> None:
    attributes = {name: value for name, value in start.attributes.items() if name not in _DROPPED}
    if start.opcode == "async-start":
        attributes = {"to_apply": attributes["calls"]}
        attributes["to_apply"].execution_thread = "main"
    done = chain[-1]
    plain = Emit.at(start).op(_PLAIN[start.opcode], done.shape, start.operands, **attributes)
    plain.annotations.update(start.annotations)
    replace(done, plain)
    for update in reversed(chain[:-1]):
        update.computation.remove(update)
    computation = start.computation
    for earlier in start.control_predecessors:
        computation.add_control_edge(earlier, plain)
    for later in start.control_successors:
        computation.add_control_edge(plain, later)
    computation.remove(start)
