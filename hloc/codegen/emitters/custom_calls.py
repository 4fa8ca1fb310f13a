"""custom-call: LAPACK's routines, functions registered by name, and the check of a live size."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.host_calls import call_external, operand_arrays, shape_in_memory
from hloc.codegen.kernel import KernelContext, kernel
from hloc.codegen.lapack import recipe_of
from hloc.codegen.lapack_calls import Recipe
from hloc.codegen.lapack_code import LapackCode, scratch_places
from hloc.codegen.llvm import integer
from hloc.codegen.program import CUSTOM, SIZE_FAILED, External
from hloc.codegen.values import same_memory
from hloc.errors import HloError
from hloc.host.custom_calls import config_text, registered
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.reference.custom_calls import SIZE_CHECK, unknown_target


def lapack_recipe(instruction: Instruction) -> Recipe | None:
    """The LAPACK call that an op is; None if it is none. HloError if the target is not known."""
    target = instruction.get("custom_call_target")
    if target == SIZE_CHECK or registered(target) is not None:
        return None
    recipe = recipe_of(instruction)
    if recipe is None:
        raise unknown_target(instruction)
    return recipe


def _scratch(instruction: Instruction) -> int:
    recipe = lapack_recipe(instruction)
    return 0 if recipe is None else scratch_places(recipe, instruction)[1]


def _in_place(instruction: Instruction) -> tuple[tuple[int, int], ...]:
    """A routine works on the copy of an operand: on the operand itself, if nobody else needs it."""
    recipe = lapack_recipe(instruction)
    results = () if recipe is None else recipe.results
    return tuple((r.source, number) for number, r in enumerate(results) if r.source is not None)


@kernel("custom-call", scratch=_scratch, in_place=_in_place, fails=True)
def custom_call(k: KernelContext, instruction: Instruction) -> None:
    recipe = lapack_recipe(instruction)
    if recipe is not None:
        LapackCode(k, recipe).write()
        return
    if instruction.get("custom_call_target") == SIZE_CHECK:
        _checked_size(k)
        return
    _registered_call(k, instruction)


def _registered_call(k: KernelContext, instruction: Instruction) -> None:
    """Calls a function that was registered."""
    arrays = [operand_arrays(k, instruction, number) for number in range(len(instruction.operands))]
    external = registered_external(instruction, [[array.shape for array in each] for each in arrays])
    operands = [array.pointer for each in arrays for array in each]
    call_external(k, external, operands, [array.pointer for array in k.outputs])


def registered_external(instruction: Instruction, lying: Sequence[Sequence[ArrayShape]]) -> External:
    """The call of a function that was registered; `lying` are the operands' leaves as they lie in memory.

    HloError if that is not as the call demands.
    """
    wanted = instruction.get("operand_layout_constraints") or [o.shape for o in instruction.operands]
    for number, (shape, leaves) in enumerate(zip(wanted, lying, strict=True)):
        demanded = [leaf.with_default_layout() for _, leaf in shape.leaves() if leaf.is_array]
        if not all(map(same_memory, leaves, demanded)):
            message = f"operand {number} does not lie as it should: layout_assignment has not run"
            raise HloError(message, instruction.span)
    shapes = tuple(shape_in_memory(shape, iter(leaves)) for shape, leaves in zip(wanted, lying, strict=True))
    target, config = instruction.get("custom_call_target"), config_text(instruction)
    return External(CUSTOM, target, shapes, instruction.shape, config)


def _checked_size(k: KernelContext) -> None:
    """The size as it is; the kernel fails where the condition does not hold."""
    size, holds = k.input_array(0).load(()), k.input_array(1).load(())
    k.outputs[0].store((), size)
    k.status = k.b.select(holds, integer("i32", 0), integer("i32", SIZE_FAILED))
