"""custom-call: LAPACK's routines, functions registered by name, and the check of a live size."""

from __future__ import annotations

from hloc.codegen.host_calls import call_external, operand_arrays, shape_in_memory
from hloc.codegen.kernel import KernelContext, kernel
from hloc.codegen.lapack import recipe_of
from hloc.codegen.lapack_code import LapackCode, scratch_places
from hloc.codegen.llvm import integer
from hloc.codegen.program import CUSTOM, SIZE_FAILED, External
from hloc.codegen.values import same_memory
from hloc.host.custom_calls import config_text, registered
from hloc.ir.instruction import Instruction
from hloc.reference.custom_calls import SIZE_CHECK, unknown_target


def _recipe(instruction: Instruction):
    """The LAPACK call that an op is; None if it is none. HloError if the target is not known."""
    target = instruction.get("custom_call_target")
    if target == SIZE_CHECK or registered(target) is not None:
        return None
    recipe = recipe_of(instruction)
    if recipe is None:
        raise unknown_target(instruction)
    return recipe


def _scratch(instruction: Instruction) -> int:
    recipe = _recipe(instruction)
    return 0 if recipe is None else scratch_places(recipe, instruction)[1]


def _in_place(instruction: Instruction) -> tuple[tuple[int, int], ...]:
    """A routine works on the copy of an operand: on the operand itself, if nobody else needs it."""
    recipe = _recipe(instruction)
    results = () if recipe is None else recipe.results
    return tuple((r.source, number) for number, r in enumerate(results) if r.source is not None)


@kernel("custom-call", scratch=_scratch, in_place=_in_place, fails=True)
def custom_call(k: KernelContext, instruction: Instruction) -> None:
    recipe = _recipe(instruction)
    if recipe is not None:
        LapackCode(k, recipe).write()
        return
    if instruction.get("custom_call_target") == SIZE_CHECK:
        _checked_size(k)
        return
    _registered_call(k, instruction)


def _registered_call(k: KernelContext, instruction: Instruction) -> None:
    """Calls a function that was registered, with operands that lie as the call demands."""
    wanted = instruction.get("operand_layout_constraints") or [o.shape for o in instruction.operands]
    operands, shapes = [], []
    for number, shape in enumerate(wanted):
        arrays = operand_arrays(k, instruction, number)
        leaves = [leaf.with_default_layout() for _, leaf in shape.leaves() if leaf.is_array]
        if not all(same_memory(array.shape, leaf) for array, leaf in zip(arrays, leaves, strict=True)):
            raise k.error(f"operand {number} does not lie as it should: layout_assignment has not run")
        operands += [array.pointer for array in arrays]
        shapes.append(shape_in_memory(shape, iter(arrays)))
    target, config = instruction.get("custom_call_target"), config_text(instruction)
    external = External(CUSTOM, target, tuple(shapes), instruction.shape, config)
    call_external(k, external, operands, [array.pointer for array in k.outputs])


def _checked_size(k: KernelContext) -> None:
    """The size as it is; the kernel fails where the condition does not hold."""
    size, holds = k.input_array(0).load(()), k.input_array(1).load(())
    k.outputs[0].store((), size)
    k.status = k.b.select(holds, integer("i32", 0), integer("i32", SIZE_FAILED))
