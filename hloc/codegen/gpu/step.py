"""A kernel step as launches: what the emitters of devices write into.

A launch has a function of its own, with the parameters of the step: its inputs (but those that share an output's
memory), its outputs, scratch, context, then the launch's scalars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import Body, immediate, is_alias, source
from hloc.codegen.device_program import TensorMap
from hloc.codegen.epilogue import Finisher
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.tensor_maps import tensor_map_problem
from hloc.codegen.graphs import operand_leaves
from hloc.codegen.kernel import Index
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.llvm import Builder, Module, Value, integer
from hloc.codegen.program import CONTEXT_FIELDS, External
from hloc.codegen.targets.target import Target
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.options import Options
from hloc.records import NamedTuple

ALIGNMENT = 16
"""Bytes to which arguments of kernels are aligned: what one load takes."""

MOST_BLOCKS = (1 << 31) - 1


class LaunchTemplate(NamedTuple):
    """A launch without its memory, which is that of the whole step."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    scalars: tuple[int, ...]
    maps: tuple[TensorMap, ...] = ()


class CopyTemplate(NamedTuple):
    """All of an input's bytes copied to an output."""

    input: int
    output: int


class FillTemplate(NamedTuple):
    """Bytes of an output (or of scratch, number None) from an offset on set to one value."""

    output: int | None
    offset: int
    byte: int
    size: int


class HostTemplate(NamedTuple):
    """The external of a number called by the host, with these inputs and outputs of the step."""

    external: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class MeetingTemplate(NamedTuple):
    """The launches run by all devices of a run together; kernels take these inputs of all devices: see `meeting`."""

    launches: tuple[LaunchTemplate, ...]
    devices: int
    inputs: tuple[int, ...]


Template = LaunchTemplate | CopyTemplate | FillTemplate | HostTemplate | MeetingTemplate


def launches_of(templates: Sequence[Template]) -> list[LaunchTemplate]:
    """The launches among some commands, those of meetings included."""
    found: list[LaunchTemplate] = []
    for template in templates:
        if isinstance(template, MeetingTemplate):
            found += template.launches
        elif isinstance(template, LaunchTemplate):
            found.append(template)
    return found


class GpuStep:
    """A step being written. `instruction` is the op with loops of its own, or the step's own instruction.

    `shared` maps inputs to the outputs whose memory they are. `templates` are the commands so far.
    """

    def __init__(
        self,
        module: Module,
        target: Target,
        options: Options,
        step: KernelStep,
        shared: dict[int, int],
        externals: dict[External, int],
    ):
        assert target.device is not None
        self.module, self.target, self.options = module, target, options
        self.device = target.device
        self.step, self.form, self.shared = step, step.form, shared
        self.instruction: Instruction = step.form.own or step.instruction
        self.is_fused = step.instruction.opcode == "fusion"
        self.templates: list[Template] = []
        self._externals = externals
        self._devices = 0
        self._shown: list[int] = []

    # Commands

    @contextmanager
    def launch(
        self,
        grid: tuple[int, int, int] | int,
        block: tuple[int, int, int] | int,
        shared: int = 0,
        scalars: Sequence[int] = (),
        name: str = "",
        resident: int = 1,
        maps: Sequence[TensorMap] = (),
    ) -> Iterator[GpuContext]:
        """A kernel, written inside, that is launched once; see `again` for more launches of it.

        `shared` are bytes of shared memory a block, `scalars` numbers that `k.scalars` stand for. `name` tells the
        parts of a step from each other. A multiprocessor holds `resident` blocks or more: threads have no more
        registers than that leaves. `maps`, by `tensor_map`, are what `k.maps` stand for. HloError if the machine has no
        such grid or block.
        """
        grid, block = _three(grid), _three(block)
        self._check(grid, block, shared)
        kernel = self._symbol(name)
        k = self._context(kernel, grid, block, shared, len(scalars), len(maps))
        if resident > 1:
            self.device.dialect.keep_resident(self.module.functions[kernel], resident)
        yield k
        k.b.ret()
        self.templates.append(LaunchTemplate(kernel, grid, block, shared, tuple(scalars), tuple(maps)))

    def tensor_map(
        self,
        number: int | None,
        itemsize: int,
        dims: Sequence[int],
        strides: Sequence[int],
        box: Sequence[int],
        offset: int = 0,
        rounds: bool = False,
    ) -> TensorMap:
        """An array in the step's input of a number (or in scratch, None), for `launch`: see TensorMap.

        AssertionError if it is none that the machine takes: see `tensor_map_problem`.
        """
        assert not self._devices, "what devices show each other is not copied by tiles"
        own = [n for n in range(len(self.step.inputs)) if n not in self.shared]
        outputs = len(self.step.outputs)
        argument = len(own) + (outputs if number is None else self.shared.get(number, 0))
        if number in own:
            argument = own.index(number)
        made = TensorMap(argument, offset, itemsize, tuple(dims), tuple(strides), tuple(box), rounds)
        problem = tensor_map_problem(made)
        assert problem is None, problem
        return made

    def again(self, scalars: Sequence[int], grid: tuple[int, int, int] | int | None = None) -> None:
        """The last launched kernel once more, with other scalars, and perhaps another grid."""
        self.relaunch(self.last_launch, scalars, grid)

    def relaunch(
        self, kernel: LaunchTemplate, scalars: Sequence[int], grid: tuple[int, int, int] | int | None = None
    ) -> None:
        """A kernel launched before (`last_launch`) once more."""
        grid = kernel.grid if grid is None else _three(grid)
        self._check(grid, kernel.block, kernel.shared_bytes)
        self.templates.append(kernel._replace(scalars=tuple(scalars), grid=grid))

    @property
    def last_launch(self) -> LaunchTemplate:
        """The kernel launched last, for `relaunch`."""
        return next(t for t in reversed(self.templates) if isinstance(t, LaunchTemplate))

    @contextmanager
    def meeting(self, devices: int, inputs: Sequence[int] | None = None) -> Iterator[None]:
        """The launches written inside are run by all of so many devices together.

        Each begins when all devices have come here, and none goes on before all have done the launches: they read
        each other's inputs of the numbers given (default: all), `k.sources[device][number]`. `k.input` and
        `k.input_array` are the device's own; there are no others.
        """
        before, self.templates, self._devices = self.templates, [], devices
        self._shown = list(range(len(self.step.inputs)) if inputs is None else inputs)
        yield
        launches = tuple(t for t in self.templates if isinstance(t, LaunchTemplate))
        assert len(launches) == len(self.templates)
        self.templates, self._devices = [*before, MeetingTemplate(launches, devices, tuple(self._shown))], 0

    def copy(self, operand: int, output: int, leaf: tuple[int, ...] = ()) -> None:
        """Lets an output begin as a copy of an operand (or a leaf of it) in memory, unless it lies there already.

        The operand is one that the row does not take as elements. Layouts may differ.
        """
        leaf_input = self.input_number(operand, leaf)
        if self.shared.get(leaf_input) == output:
            return
        source, target = self.input_shape(operand, leaf), self.step.outputs[output].shape
        if source.minor_to_major == target.minor_to_major:
            if target.byte_size:
                self.templates.append(CopyTemplate(leaf_input, output))
            return
        if target.count == 0:
            return
        with self.launch(-(-target.count // 256), 256, name="copy") as k:

            def one(indices: list[Index]) -> None:
                k.outputs[output].store(indices[0], k.input_array(operand, leaf).load(indices[0]))

            over_elements(k, k.global_index(), target, 1, one)

    def discard(self) -> None:
        """Takes the last launch back, to write it anew."""
        last = self.templates.pop()
        assert isinstance(last, LaunchTemplate)
        del self.module.functions[last.kernel]

    def fill(self, output: int | None, byte: int, size: int, offset: int = 0) -> None:
        """Sets bytes of an output, or of scratch (None)."""
        if size:
            self.templates.append(FillTemplate(output, offset, byte, size))

    def host_call(
        self, external: External, operands: Sequence[int] | None = None, outputs: Sequence[int] | None = None
    ) -> None:
        """A function outside of the program, called by the host with all leaves of these operands (default: of all).

        It gives these outputs of the step (default: all).
        """
        operands = range(len(self.instruction.operands)) if operands is None else operands
        leaves = [(number, leaf) for number, leaf, _ in operand_leaves(self.instruction) if number in operands]
        inputs = [self.input_number(number, leaf) for number, leaf in leaves]
        outputs = range(len(self.step.outputs)) if outputs is None else outputs
        number = self._externals.setdefault(external, len(self._externals))
        self.templates.append(HostTemplate(number, tuple(inputs), tuple(outputs)))

    def input_number(self, operand: int, leaf: tuple[int, ...] = ()) -> int:
        """The number among the step's inputs of an operand in memory, or of a leaf of it."""
        return self._input(self.instruction.operands[operand], leaf)[0]

    def number_of(self, value: Instruction) -> int:
        """The number among the step's inputs of a value that lies in memory."""
        return self._input(value, ())[0]

    def input_shape(self, operand: int, leaf: tuple[int, ...] = ()) -> ArrayShape:
        """The shape of an operand in memory, with the layout in which it lies."""
        number, alias = self._input(self.instruction.operands[operand], leaf)
        return self.step.inputs[number].shape if alias is None else alias

    def _input(self, value: Instruction, leaf: tuple[int, ...]) -> tuple[int, ArrayShape | None]:
        """The number of an input, and the shape that a bitcast gives it."""
        instruction, leaf = source(value, leaf)
        alias: ArrayShape | None = None
        while (instruction, leaf) not in self.step.bound and is_alias(instruction):
            alias = alias or instruction.shape.with_default_layout()
            instruction, leaf = source(instruction.operands[0], ())
        return self.step.bound.index((instruction, leaf)), alias

    def error(self, message: str) -> HloError:
        """An error about the instruction, to be raised."""
        return HloError(message, self.instruction.span)

    def _check(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int) -> None:
        threads = block[0] * block[1] * block[2]
        if grid[0] > MOST_BLOCKS or max(grid[1:]) > 65535 or threads > 1024 or block[2] > 64 or min(*grid, *block) < 1:
            raise self.error(f"{self.instruction.opcode} needs a grid of {grid} blocks of {block} threads")
        if shared > self.device.shared_bytes:
            most = self.device.shared_bytes
            raise self.error(f"{self.instruction.opcode} needs {shared} bytes of shared memory a block, of {most}")

    # Code

    def _symbol(self, name: str) -> str:
        """PTX has no dots or dashes in names."""
        stem = self.step.instruction.name + (f"_{name}" if name else "")
        stem = "k_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in stem)
        symbol, count = stem, 0
        while symbol in self.module.functions or symbol in self.module.declarations:
            count += 1
            symbol = f"{stem}_{count}"
        return symbol

    def _context(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        scalars: int,
        maps: int,
    ) -> GpuContext:
        step, dialect = self.step, self.device.dialect
        pointer, inputs = dialect.pointer, self._input_parameters(dialect.pointer)
        outputs = [(pointer, f"out{n}", f"noalias align {ALIGNMENT}") for n in range(len(step.outputs))]
        rest = [(pointer, "scratch", f"noalias align {ALIGNMENT}"), (pointer, "context", "readonly")]
        params = [*inputs, *outputs, *rest, *(("i64", f"scalar{n}") for n in range(scalars))]
        params += [dialect.map_parameter(f"map{n}") for n in range(maps)]
        threads = block[0] * block[1] * block[2]
        function = dialect.kernel(self.module, name, params, threads, self.target.function_attributes)
        b = dialect.builder(function, step.instruction.name)
        b.fast = "fast" if self.options.fast_math else "contract" if self.options.fma else ""
        given, made = function.args[: len(inputs)], function.args[len(inputs) :][: len(outputs)]
        tail = function.args[len(inputs) + len(outputs) :]
        sources: list[dict[int, ArrayRef]] = []
        if self._devices:
            count = len(self._shown)
            sources = [self._arrays(b, self._shown, given[d * count :][:count]) for d in range(self._devices)]
            own = _of_device(b, tail[1], sources)
        else:
            own = dict(zip([n for n in range(len(step.inputs)) if n not in self.shared], given, strict=True))
        own |= {number: made[output] for number, output in self.shared.items()}
        arrays = {step.bound[n]: array for n, array in self._arrays(b, list(own), list(own.values())).items()}
        body = Body({leaf: immediate(literal) for leaf, literal in step.immediates}, arrays)
        results: list[ArrayRef] = [
            ArrayRef(b, view.shape, out) for view, out in zip(step.outputs, made, strict=True)
        ]
        scratch, context = tail[0], tail[1]
        values: Sequence[Value] = tail[2:]
        k = GpuContext(
            b, self.target, self.instruction, body, results, scratch, context, None, self._externals, self.is_fused,
            gpu=dialect.intrinsics(b, shared), grid=grid, block=block, scalars=values[:scalars],
            sources=sources, maps=values[scalars:],
        )
        if step.form.epilogue is not None:
            k.finisher = Finisher(k, step.form.epilogue, body)
        return k

    def _input_parameters(self, pointer: str) -> list[tuple[str, str, str]]:
        """Those of the step, or in a meeting what is shown by one device after the other."""
        if self._devices:
            devices = range(self._devices)
            return [(pointer, f"in{n}_of{d}", f"align {ALIGNMENT}") for d in devices for n in self._shown]
        own = [number for number in range(len(self.step.inputs)) if number not in self.shared]
        return [(pointer, f"in{n}", f"noalias readonly align {ALIGNMENT}") for n in own]

    def _arrays(self, b: Builder, numbers: Sequence[int], pointers: Sequence[Value]) -> dict[int, ArrayRef]:
        """Inputs of the step, by their numbers, where they lie."""
        inputs = self.step.inputs
        return {n: ArrayRef(b, inputs[n].shape, pointer) for n, pointer in zip(numbers, pointers, strict=True)}


def _of_device(b: Builder, context: Value, sources: Sequence[Mapping[int, ArrayRef]]) -> dict[int, Value]:
    """The addresses of the inputs of the device that runs the kernel."""
    device = b.load("i64", b.gep("i64", context, integer("i64", CONTEXT_FIELDS.index("device"))))
    return {number: chosen(b, device, [arrays[number].pointer for arrays in sources]) for number in sources[0]}


def chosen(b: Builder, number: Value, values: Sequence[Value]) -> Value:
    """One of some values, by its i64 number."""
    result = values[0]
    for position, value in enumerate(values[1:], 1):
        if value.text != values[0].text:
            result = b.select(b.icmp_signed("==", number, integer("i64", position)), value, result)
    return result


def _three(size: tuple[int, int, int] | int) -> tuple[int, int, int]:
    return (size, 1, 1) if isinstance(size, int) else size
