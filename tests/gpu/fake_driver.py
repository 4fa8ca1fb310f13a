"""A stand-in for `cuda.bindings.driver`: memory of NumPy's, kernels of Python's, graphs that are lists of nodes.

Calls are written down in `log`. What a kernel does is a function of `kernels`, on the u64 values of its arguments, of
tensor maps the addresses.
Work is done when it is begun, but for graphs: their nodes do nothing before they are launched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, ILLEGAL_ADDRESS, NOT_READY = 0, 1, 2, 100, 700, 600
NAMES = {
    SUCCESS: "CUDA_SUCCESS",
    INVALID_VALUE: "CUDA_ERROR_INVALID_VALUE",
    OUT_OF_MEMORY: "CUDA_ERROR_OUT_OF_MEMORY",
    NO_DEVICE: "CUDA_ERROR_NO_DEVICE",
    218: "CUDA_ERROR_INVALID_PTX",
    222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    NOT_READY: "CUDA_ERROR_NOT_READY",
    ILLEGAL_ADDRESS: "CUDA_ERROR_ILLEGAL_ADDRESS",
    801: "CUDA_ERROR_NOT_SUPPORTED",
}


_ENCODER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64,
    *[ctypes.POINTER(kind) for kind in (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32)],
    *[ctypes.c_int] * 4,
)  # fmt: skip


class CUgraphConditionalNodeType(IntEnum):
    CU_GRAPH_COND_TYPE_IF = 0
    CU_GRAPH_COND_TYPE_WHILE = 1


class Graph:
    """Nodes in order: what each does."""

    def __init__(self) -> None:
        self.nodes: list[Callable[[], None]] = []
        self.kinds: list[Any] = []

    def run(self) -> None:
        for node in self.nodes:
            node()


class FakeDriver:
    """One machine. `gpus` are the compute capabilities of its GPUs."""

    CUgraphConditionalNodeType = CUgraphConditionalNodeType
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="multiprocessors",
    )
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    CUmemorytype = SimpleNamespace(CU_MEMORYTYPE_DEVICE=2)
    CUgraphNodeType = SimpleNamespace(CU_GRAPH_NODE_TYPE_CONDITIONAL=13)
    CUjit_option = SimpleNamespace(CU_JIT_ERROR_LOG_BUFFER=5, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES=6)
    CUtensorMapDataType = SimpleNamespace(
        CU_TENSOR_MAP_DATA_TYPE_UINT8=0,
        CU_TENSOR_MAP_DATA_TYPE_UINT16=1,
        CU_TENSOR_MAP_DATA_TYPE_UINT32=2,
        CU_TENSOR_MAP_DATA_TYPE_TFLOAT32=11,
    )
    CUtensorMapInterleave = SimpleNamespace(CU_TENSOR_MAP_INTERLEAVE_NONE=0)
    CUtensorMapSwizzle = SimpleNamespace(CU_TENSOR_MAP_SWIZZLE_128B=3)
    CUtensorMapL2promotion = SimpleNamespace(CU_TENSOR_MAP_L2_PROMOTION_L2_256B=3)
    CUtensorMapFloatOOBfill = SimpleNamespace(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE=0)
    CUDA_KERNEL_NODE_PARAMS = CUDA_MEMCPY3D = CUDA_MEMSET_NODE_PARAMS = SimpleNamespace

    def __init__(self, gpus: Sequence[tuple[int, int]] = ((9, 0),), version: int = 12040, memory: int = 1 << 26):
        self.gpus, self.version, self.memory = gpus, version, memory
        self.log: list[str] = []
        self.kernels: dict[str, Callable[..., None]] = {
            "hloc_set_by_byte": self._set_by_byte,
            "hloc_set_by_index": self._set_by_index,
        }
        self.fails: dict[str, int] = {}
        self.images: list[bytes] = []
        self.maps: list[tuple] = []
        self.refuses_maps = False
        self._encoder = _ENCODER(self._encode)
        self.jit_says = b""
        self._blocks: dict[int, ctypes.Array] = {}
        self._handles: dict[int, int] = {}
        self._next = 1000

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("cu") or not callable(value):
            return value

        def called(*arguments: Any) -> Any:
            if not name.startswith("cuGetError"):
                self.log.append(name)
            answer = value(*arguments)
            return (self.fails[name], *answer[1:]) if name in self.fails else answer

        called.__doc__ = value.__doc__
        return called

    def _new(self) -> int:
        self._next += 1
        return self._next

    # Errors, devices, contexts

    def cuInit(self, flags):
        return (0,) if self.gpus else (NO_DEVICE,)

    def cuGetErrorName(self, status):
        return (0, NAMES[int(status)].encode())

    def cuGetErrorString(self, status):
        return (0, b"so it is")

    def cuDriverGetVersion(self):
        return (0, self.version)

    def cuDeviceGetCount(self):
        return (0, len(self.gpus))

    def cuDeviceGet(self, number):
        return (0, number)

    def cuDeviceGetName(self, length, device):
        return (0, f"Fake {device}".encode().ljust(length, b"\0"))

    def cuDeviceGetAttribute(self, attribute, device):
        major, minor = self.gpus[device]
        return (0, {"major": major, "minor": minor, "multiprocessors": 114}[attribute])

    def cuDeviceTotalMem(self, device):
        return (0, self.memory)

    def cuDevicePrimaryCtxRetain(self, device):
        return (0, 100 + device)

    def cuCtxSetCurrent(self, context):
        return (0,)

    def cuDeviceCanAccessPeer(self, device, other):
        return (0, 1)

    def cuCtxEnablePeerAccess(self, context, flags):
        return (0,)

    def cuStreamCreate(self, flags):
        return (0, self._new())

    def cuStreamSynchronize(self, stream):
        return (0,)

    # Memory

    def used(self) -> int:
        return sum(map(len, self._blocks.values()))

    def cuMemAlloc(self, size):
        if self.used() + size > self.memory:
            return (OUT_OF_MEMORY, None)
        room = ctypes.create_string_buffer(size + 256)
        address = -(-ctypes.addressof(room) // 256) * 256
        ctypes.memset(address, 0xFF, size)
        self._blocks[address] = room
        return (0, address)

    def cuMemFree(self, address):
        del self._blocks[address]
        return (0,)

    def cuMemGetInfo(self):
        return (0, self.memory - self.used(), self.memory)

    def cuMemHostAlloc(self, size, flags):
        room = ctypes.create_string_buffer(size)
        self._blocks[-ctypes.addressof(room)] = room
        return (0, ctypes.addressof(room))

    def _copy(self, target, source, size, *stream):
        ctypes.memmove(int(target), int(source), size)
        return (0,)

    def cuMemcpyHtoDAsync(self, *arguments):
        return self._copy(*arguments)

    def cuMemcpyDtoHAsync(self, *arguments):
        return self._copy(*arguments)

    def cuMemcpyDtoDAsync(self, *arguments):
        return self._copy(*arguments)

    def cuMemsetD8Async(self, target, byte, size, stream):
        ctypes.memset(target, byte, size)
        return (0,)

    def CUdeviceptr(self, value):
        return value

    # Events

    def cuEventCreate(self, flags):
        return (0, self._new())

    def cuEventRecord(self, event, stream):
        self.log.append(f"record in {stream}")
        return (0,)

    def cuEventQuery(self, event):
        return (0,)

    def cuEventSynchronize(self, event):
        return (0,)

    def cuEventDestroy(self, event):
        return (0,)

    def cuStreamWaitEvent(self, stream, event, flags):
        self.log.append(f"wait in {stream}")
        return (0,)

    # Modules and kernels

    def cuModuleLoadDataEx(self, image, count, options, values):
        self.images.append(ctypes.string_at(image))
        values[0][: len(self.jit_says)] = self.jit_says
        return (0, self._new())

    def cuModuleUnload(self, module):
        return (0,)

    def cuModuleGetFunction(self, module, name):
        return (0, name.decode())

    def cuFuncSetAttribute(self, function, attribute, value):
        self.log.append(f"{function} may have {value} bytes")
        return (0,)

    def _kernel(self, function: str, pointers: int, count: int = 16) -> Callable[[], None]:
        """What a launch will do: the values of its arguments are taken now."""
        wanted = self.kernels[function].__code__.co_argcount - (1 if hasattr(self.kernels[function], "__self__") else 0)
        places = (ctypes.c_void_p * wanted).from_address(pointers)
        values = [ctypes.c_uint64.from_address(place).value for place in places]

        def run() -> None:
            self.log.append(f"run {function}")
            self.kernels[function](*values)

        return run

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        self._kernel(function, parameters)()
        return (0,)

    # Tensor maps

    def CUresult(self, status):
        return status

    def cuGetProcAddress(self, name, version, flags):
        assert (name, version, flags) == (b"cuTensorMapEncodeTiled", 12000, 0)
        return (0, ctypes.cast(self._encoder, ctypes.c_void_p).value, 0)

    def _encode(self, place, kind, rank, address, dims, strides, box, steps, *choices):
        """A map's first word is the address of its array; what else it is is put down in `maps`."""
        self.log.append("cuTensorMapEncodeTiled")
        numbers = [tuple(array[:count]) for array, count in ((dims, rank), (strides, rank - 1), (box, rank))]
        self.maps.append((kind, *numbers, choices))
        ctypes.c_uint64.from_address(place).value = address
        good = not self.refuses_maps and place % 128 == 0 and address % 16 == 0 and tuple(steps[:rank]) == (1,) * rank
        return SUCCESS if good else INVALID_VALUE

    # Graphs

    def cuGraphCreate(self, flags):
        return (0, Graph())

    def _node(self, graph: Graph, dependencies: list, count: int, kind: Any, run: Callable[[], None]) -> tuple:
        assert dependencies == graph.kinds[-1:] and count == len(dependencies), "each node follows the last"
        graph.nodes.append(run)
        graph.kinds.append(kind)
        return (0, kind)

    def cuGraphAddKernelNode(self, graph, dependencies, count, node):
        return self._node(graph, dependencies, count, node, self._kernel(node.func, node.kernelParams))

    def cuGraphAddMemcpyNode(self, graph, dependencies, count, node, context):
        assert node.srcMemoryType == node.dstMemoryType == 2 and node.Height == node.Depth == 1
        run = lambda: self._copy(node.dstDevice, node.srcDevice, node.WidthInBytes)  # noqa: E731
        return self._node(graph, dependencies, count, node, run)

    def cuGraphAddMemsetNode(self, graph, dependencies, count, node, context):
        assert node.elementSize == node.height == 1
        run = lambda: ctypes.memset(node.dst, node.value, node.width)  # noqa: E731
        return self._node(graph, dependencies, count, node, run)

    def CUgraphNodeParams(self):
        return SimpleNamespace(type=None, conditional=SimpleNamespace())

    def cuGraphConditionalHandleCreate(self, graph, context, value, flags):
        return (0, self._new())

    def cuGraphAddNode(self, graph, dependencies, edges, count, node):
        """cuGraphAddNode(hGraph, dependencies, dependencyData, numDependencies, nodeParams)"""
        body, handle = Graph(), node.conditional.handle
        node.conditional.phGraph_out = [body]

        def run_if() -> None:
            if self._handles[handle]:
                body.run()

        def run_while() -> None:
            while self._handles[handle]:
                body.run()

        is_loop = node.conditional.type == CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_WHILE
        return self._node(graph, dependencies, count, node, run_while if is_loop else run_if)

    def cuGraphInstantiate(self, graph, flags):
        return (0, graph)

    def cuGraphLaunch(self, graph, stream):
        graph.run()
        return (0,)

    def cuGraphExecDestroy(self, graph):
        return (0,)

    def cuGraphDestroy(self, graph):
        return (0,)

    # What the PTX of `cuda_graph` does

    def _set_by_byte(self, handle, place, wanted):
        self._handles[handle] = (ctypes.c_uint8.from_address(place).value != 0) == (wanted != 0)

    def _set_by_index(self, handle, place, number, last):
        index = ctypes.c_uint32.from_address(place).value
        self._handles[handle] = (index if index <= last else last) == number
