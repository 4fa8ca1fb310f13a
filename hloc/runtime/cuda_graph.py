"""Steps of a program as one CUDA graph, which the GPU does without the host in between.

Nodes follow each other in the order of the steps. A loop is a conditional node: its condition's steps come before it
and at the end of its body, each time with a kernel behind them that tells the graph what the condition left. A choice
is a conditional node for each branch, told before the first of them which one is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hloc.codegen.device_program import Launch
from hloc.host.gpus import check
from hloc.runtime.cuda_arguments import Packed, packed
from hloc.runtime.cuda_gpu import CudaGpu
from hloc.runtime.device_plan import ChoiceStep, CopyStep, FillStep, LaunchStep, LoopStep, Step

SET_BY_BYTE, SET_BY_INDEX = "hloc_set_by_byte", "hloc_set_by_index"

LEAST_DRIVER = (12, 4)
"""The version of CUDA from which on drivers have conditional nodes."""

_SETTERS = """
.address_size 64

.extern .func cudaGraphSetConditional
(
    .param .b64 handle,
    .param .b32 value
)
;

// The handle becomes 1 where the byte at `place` is 0 or not, as `wanted` says; else 0.
.visible .entry hloc_set_by_byte(.param .u64 handle, .param .u64 place, .param .u64 wanted)
{
    .reg .pred %is_set, %is_wanted, %holds;
    .reg .b32 %byte, %value;
    .reg .b64 %handle, %place, %wanted;
    ld.param.u64 %handle, [handle];
    ld.param.u64 %place, [place];
    ld.param.u64 %wanted, [wanted];
    cvta.to.global.u64 %place, %place;
    ld.global.u8 %byte, [%place];
    setp.ne.u32 %is_set, %byte, 0;
    setp.ne.u64 %is_wanted, %wanted, 0;
    xor.pred %holds, %is_set, %is_wanted;
    selp.u32 %value, 0, 1, %holds;
    {
        .param .b64 first;
        .param .b32 second;
        st.param.b64 [first], %handle;
        st.param.b32 [second], %value;
        call.uni cudaGraphSetConditional, (first, second);
    }
    ret;
}

// The handle becomes 1 where the s32 at `place` is `number`, or is none of 0 .. `last` and `number` is `last`; else 0.
.visible .entry hloc_set_by_index(.param .u64 handle, .param .u64 place, .param .u64 number, .param .u64 last)
{
    .reg .pred %is_beyond, %holds;
    .reg .b32 %index, %number, %last, %value;
    .reg .b64 %handle, %place, %wide;
    ld.param.u64 %handle, [handle];
    ld.param.u64 %place, [place];
    ld.param.u64 %wide, [number];
    cvt.u32.u64 %number, %wide;
    ld.param.u64 %wide, [last];
    cvt.u32.u64 %last, %wide;
    cvta.to.global.u64 %place, %place;
    ld.global.u32 %index, [%place];
    setp.hi.u32 %is_beyond, %index, %last;
    selp.u32 %index, %last, %index, %is_beyond;
    setp.eq.u32 %holds, %index, %number;
    selp.u32 %value, 1, 0, %holds;
    {
        .param .b64 first;
        .param .b32 second;
        st.param.b64 [first], %handle;
        st.param.b32 [second], %value;
        call.uni cudaGraphSetConditional, (first, second);
    }
    ret;
}
"""


def setters(image: bytes) -> bytes:
    """PTX text of the kernels that set handles, for what a program's image is for."""
    head = re.findall(rb"^\.(?:version|target) .*$", image, re.MULTILINE)
    return b"\n".join(head) + _SETTERS.encode() + b"\0"


class Recording:
    """A graph that was made of steps; calling it begins all of them."""

    def __init__(self, gpu: CudaGpu, graph: Any):
        self._gpu, self._graph = gpu, graph
        self._executable = gpu.call("cuGraphInstantiate", graph, 0)

    def __call__(self) -> None:
        gpu = self._gpu
        cu = gpu.driver
        # Written out, as what a call of a small program takes is mostly this.
        cu.cuCtxSetCurrent(gpu.context)
        answer = cu.cuGraphLaunch(self._executable, gpu.stream)
        if answer[0]:
            check(cu, answer, "cuGraphLaunch")

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the driver may be gone
            self._gpu.enter()
            if hasattr(self, "_executable"):
                self._gpu.call("cuGraphExecDestroy", self._executable)
            self._gpu.call("cuGraphDestroy", self._graph)


def record(
    gpu: CudaGpu, steps: Sequence[Step], function: Callable[[Launch], Any], setter: Callable[[str], Any]
) -> Recording:
    """The graph of some steps. `function` gives the function of a launch, `setter` that of a kernel that sets handles.

    DriverError if the driver does not take it.
    """
    gpu.enter()
    graph = gpu.call("cuGraphCreate", 0)
    Chain(gpu, graph, function, setter).add(steps)
    return Recording(gpu, graph)


class Chain:
    """Nodes of one graph, or of the body of a conditional node, each after the one before."""

    def __init__(self, gpu: CudaGpu, graph: Any, function: Callable[[Launch], Any], setter: Callable[[str], Any]):
        self._gpu, self._graph, self._function, self._setter = gpu, graph, function, setter
        self._last: list[Any] = []

    def add(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._KINDS[type(step)](self, step)

    def _launch(self, step: LaunchStep) -> None:
        launch = step.launch
        arguments = packed(self._gpu, launch, step.arguments)
        self._kernel(self._function(launch), arguments, launch.grid, launch.block, launch.shared_bytes)

    def _kernel(
        self,
        function: Any,
        arguments: Packed,
        grid: tuple[int, int, int] = (1, 1, 1),
        block: tuple[int, int, int] = (1, 1, 1),
        shared: int = 0,
    ) -> None:
        node = self._gpu.driver.CUDA_KERNEL_NODE_PARAMS()
        node.func = function
        node.gridDimX, node.gridDimY, node.gridDimZ = grid
        node.blockDimX, node.blockDimY, node.blockDimZ = block
        node.sharedMemBytes = shared
        node.kernelParams = arguments.address  # the driver copies what they point to
        self._follow("cuGraphAddKernelNode", node)

    def _copy(self, step: CopyStep) -> None:
        if not step.size:
            return
        cu = self._gpu.driver
        node = cu.CUDA_MEMCPY3D()
        node.srcMemoryType = node.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
        node.srcDevice, node.dstDevice = cu.CUdeviceptr(step.source), cu.CUdeviceptr(step.target)
        node.WidthInBytes, node.Height, node.Depth = step.size, 1, 1
        self._follow("cuGraphAddMemcpyNode", node, self._gpu.context)

    def _fill(self, step: FillStep) -> None:
        if not step.size:
            return
        cu = self._gpu.driver
        node = cu.CUDA_MEMSET_NODE_PARAMS()
        node.dst, node.value = cu.CUdeviceptr(step.target), step.byte
        node.elementSize, node.width, node.height = 1, step.size, 1
        self._follow("cuGraphAddMemsetNode", node, self._gpu.context)

    def _loop(self, step: LoopStep) -> None:
        handle = self._handle()

        def judge(chain: Chain) -> None:
            chain.add(step.condition)
            chain._kernel(self._setter(SET_BY_BYTE), Packed((int(handle), step.verdict, 1)))

        judge(self)
        body = self._conditional(handle, "CU_GRAPH_COND_TYPE_WHILE")
        body.add(step.body)
        judge(body)

    def _choice(self, step: ChoiceStep) -> None:
        taken = [(number, branch, self._handle()) for number, branch in enumerate(step.branches) if branch]
        for number, _, handle in taken:
            if step.by_pred:
                self._kernel(self._setter(SET_BY_BYTE), Packed((int(handle), step.selector, number == 0)))
            else:
                last = len(step.branches) - 1
                self._kernel(self._setter(SET_BY_INDEX), Packed((int(handle), step.selector, number, last)))
        for _, branch, handle in taken:
            self._conditional(handle, "CU_GRAPH_COND_TYPE_IF").add(branch)

    def _handle(self) -> Any:
        return self._gpu.call("cuGraphConditionalHandleCreate", self._graph, self._gpu.context, 0, 0)

    def _conditional(self, handle: Any, kind: str) -> Chain:
        """A node that does its body if, or as long as, the handle is not 0; the chain of that body."""
        cu = self._gpu.driver
        node = cu.CUgraphNodeParams()
        node.type = cu.CUgraphNodeType.CU_GRAPH_NODE_TYPE_CONDITIONAL
        node.conditional.handle = handle
        node.conditional.type = getattr(cu.CUgraphConditionalNodeType, kind)
        node.conditional.size = 1
        node.conditional.ctx = self._gpu.context
        dependencies = (self._last, len(self._last))
        if takes_edge_data(cu):
            dependencies = (self._last, None, len(self._last))
        self._last = [self._gpu.call("cuGraphAddNode", self._graph, *dependencies, node)]
        return Chain(self._gpu, node.conditional.phGraph_out[0], self._function, self._setter)

    def _follow(self, add: str, node: Any, *context: Any) -> None:
        self._last = [self._gpu.call(add, self._graph, self._last, len(self._last), node, *context)]

    _KINDS: dict[type, Callable[[Chain, Any], None]] = {
        LaunchStep: _launch,
        CopyStep: _copy,
        FillStep: _fill,
        LoopStep: _loop,
        ChoiceStep: _choice,
    }


def takes_edge_data(driver: Any) -> bool:
    """Whether cuGraphAddNode has a parameter for data of edges, as it has in cuda-python from 13 on."""
    return "dependencyData" in (driver.cuGraphAddNode.__doc__ or "").split("\n")[0]
