"""Kernel steps of a device program as launches; equal steps share their kernels."""

from __future__ import annotations

from hloc.codegen.device_program import DeviceKernel
from hloc.codegen.gpu.loops import write_loops
from hloc.codegen.gpu.step import GpuStep, Template, launches_of
from hloc.codegen.kernel_keys import Keys
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.llvm import Module
from hloc.codegen.program import External, Kernel
from hloc.codegen.targets.target import Target
from hloc.lazy import lazy
from hloc.options import Options

attention = lazy("hloc.codegen.gpu.attention")
row_kernel = lazy("hloc.codegen.gpu.row_kernel")


class GpuKernels:
    """The kernels of a program."""

    def __init__(self, module: Module, target: Target, options: Options):
        self.module, self.target, self.options = module, target, options
        self.externals: dict[External, int] = {}
        self._keys = Keys()
        self._known: dict[object, list[Template]] = {}
        self._names: dict[str, list[str]] = {}
        self._sizes: dict[str, tuple[int, int, int, int]] = {}
        self._parameters: dict[str, list[str]] = {}

    def templates(self, step: KernelStep, shared: dict[int, int]) -> list[Template]:
        """The commands of a step; `shared` maps inputs to the outputs whose memory they are."""
        key = self._keys.key(step, shared)
        found = self._known.get(key)
        if found is None:
            g = GpuStep(self.module, self.target, self.options, step, shared, self.externals)
            _write(g)
            found = self._known[key] = g.templates
            read = sum(view.shape.byte_size for view in step.inputs)
            written = sum(view.shape.byte_size for view in step.outputs)
            for template in launches_of(found):
                if template.kernel not in self._names:
                    threads = template.block[0] * template.block[1] * template.block[2]
                    self._names[template.kernel] = []
                    self._sizes[template.kernel] = read, written, threads, template.shared_bytes
                    self._parameters[template.kernel] = _parameters(step, shared)
        for kernel in dict.fromkeys(template.kernel for template in launches_of(found)):
            self._names[kernel].append(step.instruction.name)
        return found

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels, in the order in which they were needed first."""
        return tuple(Kernel(name, tuple(names), *self._sizes[name][:2]) for name, names in self._names.items())

    @property
    def device_kernels(self) -> tuple[DeviceKernel, ...]:
        """The same as the device's image has them."""
        return tuple(DeviceKernel(name, tuple(names), *self._sizes[name][2:]) for name, names in self._names.items())


    def comments(self) -> dict[str, list[str]]:
        """Of each kernel the lines that tell a reader what it is: its instructions, and its parameters in order."""
        return {
            name: [f"HLO: {', '.join('%' + instruction for instruction in names)}", *self._parameters[name]]
            for name, names in self._names.items()
        }


def _parameters(step: KernelStep, shared: dict[int, int]) -> list[str]:
    own = [view for number, view in enumerate(step.inputs) if number not in shared]
    written = {output: number for number, output in shared.items()}
    outputs = [
        f"{'read and ' if number in written else ''}written: {view.shape!r}" for number, view in enumerate(step.outputs)
    ]
    rest = [f"scratch: {step.scratch_bytes} bytes", "context of the run"]
    metadata = step.instruction.metadata
    name = [f"op_name: {metadata.op_name}"] if metadata is not None and metadata.op_name else []
    lines = [*(f"read: {view.shape!r}" for view in own), *outputs, *rest]
    return [*name, *(f"param_{number} {line}" for number, line in enumerate(lines))]


def _write(g: GpuStep) -> None:
    form = g.form
    if form.own is not None:
        assert form.row is not None
        form.row.emit(g, form.own)
    elif form.attention is not None:
        attention.write_attention(g, form.attention)
    elif form.stages is not None:
        row_kernel.write_rows(g, form.stages, form.roots)
    else:
        write_loops(g)
