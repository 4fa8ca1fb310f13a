"""A module becomes a Program: its computations scheduled, their buffers planned, a kernel for each op."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hloc.analysis.cost_analysis import cost_of
from hloc.codegen.computations import (
    PARAMETERS,
    Compiled,
    ComputationCode,
    ConstantPool,
    Variant,
    variants_of,
)
from hloc.codegen.kernel_code import KernelCode, function_attributes
from hloc.codegen.llvm import Builder, Module
from hloc.codegen.program import ENTRY, WORKER, Guards, MemoryPlan, ParameterLeaf, Program, ResultLeaf
from hloc.codegen.routine_objects import object_files
from hloc.codegen.routines import LIGHT, OPTIMIZED, QUICK, Routines
from hloc.codegen.schedule import Schedule, schedule
from hloc.codegen.targets.target import Target, target_named
from hloc.codegen.threads_code import worker_entry
from hloc.codegen.values import CallStep, argument_shapes, array_shapes
from hloc.errors import HloError
from hloc.ir.module import Module as HloModule
from hloc.ir.shapes import ArrayShape, Shape, TupleShape
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.pipeline import run_pipeline
from hloc.records import record

if TYPE_CHECKING:
    from hloc.analysis.costs import ModuleCost
    from hloc.codegen.gpu.generate import DeviceParts

device_program = lazy("hloc.codegen.device_program")
gpu = lazy("hloc.codegen.gpu.generate")

STAGES = ("hlo", "llvm", "llvm-opt", "asm", "obj", "ptx", "cubin", "sass")
"""What `emit_stage` can write: the module after its passes, and what becomes of it; each target has some of them."""

_LITTLE, _TRANSCENDENTAL = 1 << 20, 8
"""The work of a run up to which code may be LIGHT, as operations and bytes; and what a function counts there."""

_COMMENT = {"llvm-opt": ";", "asm": "#", "ptx": "//"}
"""What begins a comment in the text that LLVM writes at a stage."""


def compile_module(module: HloModule, target: Target, options: Options) -> Program:
    """Native code for a module whose instructions run in the order they have.

    HloError, at the instruction's place, for an op that the target does not support.
    """
    if target.device is not None:
        return _compile_for_device(module, target, options)
    code = _generate(module, target, options, apart=True)
    cost = cost_of(module)
    stage = QUICK if code.kernels.only_calls else LIGHT if _is_little(cost) else OPTIMIZED
    try:
        object_code = target.lower(str(code.llvm), stage, options)
    except RuntimeError as error:
        raise RuntimeError(_blamed(str(code.llvm), str(error))) from None
    return _program(
        module,
        target,
        options,
        cost=cost,
        object_code=object_code,
        routines=object_files(code.llvm.parts.values(), target, options),
        arena_bytes=code.memory[-1].arena_bytes,
        constants=code.constants.block(),
        kernels=code.kernels.kernels,
        externals=tuple(code.kernels.externals),
        memory=code.memory,
        threads=code.kernels.threads,
        guards=code.guards,
        donors=_donors(module, options),
    )


def _is_little(cost: ModuleCost) -> bool:
    """Whether a run takes so little that its code need not be the best."""
    if cost.unknown_loops or cost.opaque_calls:
        return False
    work = cost.flops + _TRANSCENDENTAL * cost.transcendentals + cost.integer_ops + cost.bytes_accessed
    return work <= _LITTLE


def _program(module: HloModule, target: Target, options: Options, **parts: Any) -> Program:
    """The Program of a module, with what the code generator has made of it."""
    parameter_shapes, result_shape = module.bounded_shapes or module.entry_shapes
    return Program(
        name=module.name,
        target=target.name,
        entry=ENTRY,
        parameter_shapes=parameter_shapes,
        result_shape=result_shape,
        parameters=tuple(_parameters(module)),
        results=tuple(ResultLeaf(index, leaf) for index, leaf in result_shape.leaves() if leaf.is_array),
        aliases=module.input_output_alias,
        replica_count=module.replica_count,
        num_partitions=module.num_partitions,
        **parts,
    )


def _compile_for_device(module: HloModule, target: Target, options: Options) -> Program:
    """A program whose kernels run on a device; no code of the host's."""
    parts = _device_parts(module, target, options)
    image = _lowered(parts, target, target.image, options)
    code = device_program.DeviceCode(
        target.device.arch,
        image.encode() if isinstance(image, str) else image,
        parts.device_kernels,
        parts.computations,
    )
    return _program(
        module,
        target,
        options,
        cost=cost_of(module),
        object_code=b"",
        arena_bytes=parts.memory[-1].arena_bytes,
        constants=parts.constants.block(),
        kernels=parts.kernels,
        externals=tuple(parts.externals),
        memory=parts.memory,
        device=code,
    )


def _device_parts(module: HloModule, target: Target, options: Options) -> DeviceParts:
    if options.guard_pages:
        raise HloError("guard pages are for the CPU: the emulator checks every access of its own accord")
    return gpu.generate(module.name, _plans(module, target, ()), target, options)


def _lowered(parts: DeviceParts, target: Target, stage: str, options: Options) -> str | bytes:
    try:
        lowered = target.lower(str(parts.llvm), stage, options)
    except RuntimeError as error:
        raise RuntimeError(_blamed(str(parts.llvm), str(error))) from None
    return gpu.with_comments(lowered, parts.comments) if stage == "ptx" else lowered


def emit_stage(
    module: HloModule, stage: str, target: str, options: Options, tool: str | None = None
) -> str | bytes:
    """The module at one of STAGES, after the passes of the target or of `options`. The module is changed.

    `tool` is the path of the ptxas that makes a cubin, if it is not the first that is found. HloError if the target
    has no such stage.
    """
    machine = target_named(target)
    if stage not in machine.stage_names:
        raise HloError(f'target {machine.name} has no stage "{stage}"; it has: {", ".join(machine.stage_names)}')
    run_pipeline(module, options.pipeline or machine.pipeline, options)
    if stage == "hlo":
        return module.to_text()
    if machine.device is not None:
        return _device_stage(module, stage, machine, options, tool)
    llvm_ir = str(_generate(module, machine, options).llvm)
    if stage == "llvm":
        return llvm_ir
    return _headed(machine.lower(llvm_ir, stage, options), stage, options)


def _device_stage(
    module: HloModule, stage: str, machine: Target, options: Options, tool: str | None
) -> str | bytes:
    parts = _device_parts(module, machine, options)
    if stage == "llvm":
        return str(parts.llvm)
    if stage in machine.assembly:
        return machine.assembly[stage](_lowered(parts, machine, machine.image, options), tool)
    return _headed(_lowered(parts, machine, stage, options), stage, options)


def _headed(lowered: str | bytes, stage: str, options: Options) -> str | bytes:
    """A text with a comment on top that says how floats are computed."""
    return f"{_COMMENT[stage]} {options.numbers}\n{lowered}" if stage in _COMMENT else lowered


def _parameters(module: HloModule) -> list[ParameterLeaf]:
    leaves = []
    for number, shape in enumerate((module.bounded_shapes or module.entry_shapes)[0]):
        name = module.entry.parameters[number].name
        for index, leaf in shape.leaves():
            if leaf.is_array:
                leaves.append(ParameterLeaf(number, index, leaf.with_default_layout(), name))
    return leaves


@record
class _Generated:
    """A module's LLVM IR, and what belongs to it."""

    llvm: Module
    kernels: KernelCode
    constants: ConstantPool
    memory: tuple[MemoryPlan, ...]
    guards: Guards | None


def _generate(module: HloModule, target: Target, options: Options, apart: bool = False) -> _Generated:
    """The code of a module; routines are written into it, or `apart`, as its parts."""
    llvm = Module(module.name, target.triple, target.data_layout, options.numbers)
    llvm.parts = {} if apart else None
    llvm.vector_bytes, llvm.vector_attributes = target.vector_bytes, function_attributes(target, options)
    # Other processors are not told to flush: see `Target.enter_flushing` of the CPU.
    llvm.flushes_denormals = options.flush_denormals and target.triple.startswith("x86_64")
    kernels = KernelCode(llvm, target, options)
    constants = ConstantPool(options.guard_pages)
    compiled: dict[Variant, Compiled] = {}
    plans = _plans(module, target, _donors(module, options))
    calls = Counter(callee for plan in plans.values() for callee in _called(plan))
    for variant, plan in plans.items():
        name = f"computation.{len(compiled)}.{variant.computation.name}"
        is_called_once = calls[variant] <= 1  # the entry by nobody here, but by the one function that others see
        compiled[variant] = ComputationCode(name, plan, variant, kernels, constants, compiled, is_called_once).write()
    main = compiled[variant]  # the entry comes last
    _write_entry(llvm, main, target, options)
    if kernels.threads > 1:
        worker_entry(Routines(llvm, target), WORKER)
    guards = None
    if constants.arena is not None:
        apart = tuple(constants.guarded)
        guards = Guards(options.guard_pages, main.buffers, apart, constants.arena.bytes)
    return _Generated(llvm, kernels, constants, tuple(part.memory for part in compiled.values()), guards)


def _donors(module: HloModule, options: Options) -> tuple[int | None, ...]:
    """For each leaf of the result the leaf of the parameters whose memory it takes over."""
    several = module.replica_count * module.num_partitions > 1
    if not options.donate or options.guard_pages or several or module.bounded_shapes:
        return ()
    shapes, result = module.entry_shapes
    parameters = _array_leaves(TupleShape(tuple(shapes)))
    results = _array_leaves(result)
    numbers = {index: number for number, (index, _) in enumerate(parameters)}
    sources = {alias.output_index: (alias.number, *alias.input_index) for alias in module.input_output_alias}
    donors = []
    for index, shape in results:
        number = numbers.get(sources.get(index, ()))
        fits = number is not None and shape == parameters[number][1]
        donors.append(number if fits and number not in donors else None)
    return tuple(donors)


def _array_leaves(shape: Shape) -> list[tuple[tuple[int, ...], ArrayShape]]:
    return [(index, leaf.with_default_layout()) for index, leaf in shape.leaves() if leaf.is_array]


def _plans(module: HloModule, target: Target, donors: tuple[int | None, ...]) -> dict[Variant, Schedule]:
    """The schedules of the entry and of all that it calls, callees first."""
    parameters, result = module.entry_shapes
    arguments = [leaf for shape in parameters for leaf in array_shapes(shape)]
    slots = tuple(donors.index(number) if number in donors else None for number in range(len(arguments)))
    entry = Variant(module.entry, tuple(array_shapes(result)), slots)
    plans = {entry: schedule(module.entry, arguments, entry.results, slots, target.kernels)}
    done: dict[Variant, Schedule] = {}
    stack = [(entry, _called(plans[entry]))]
    while stack:
        variant, callees = stack[-1]
        callee = next(callees, None)
        if callee is None:
            stack.pop()
            done[variant] = plans[variant]
        elif callee not in plans:
            computation = callee.computation
            plans[callee] = schedule(
                computation, argument_shapes(computation), callee.results, callee.slots, target.kernels
            )
            stack.append((callee, _called(plans[callee])))
    return done


def _called(plan: Schedule) -> Iterator[Variant]:
    for step in plan.steps:
        if isinstance(step, CallStep):
            yield from variants_of(step)


def _write_entry(llvm: Module, main: Compiled, target: Target, options: Options) -> None:
    """The one function that others see: it sets how floats behave, and runs the entry computation."""
    function = llvm.function(ENTRY, "i32", PARAMETERS, function_attributes(target, options))
    function.settled = True
    b = Builder(function)
    before = target.enter_flushing(b) if options.flush_denormals else None
    status = b.call(main.function, function.args)
    if before is not None:
        target.leave_flushing(b, before)
    b.ret(status)


def _blamed(llvm_ir: str, message: str) -> str:
    """LLVM's message with the function that holds the line it names."""
    found = re.search(r":(\d+):\d+: error", message)
    if not found:
        return message
    lines = llvm_ir.splitlines()[: int(found[1])]
    heads = [line for line in lines if line.startswith("define ")]
    return f"{message}\nin {heads[-1].split('(')[0]}" if heads else message
