"""What the runtime hands to cuda-python is of the types that its functions take.

They convert their arguments before they look for the driver's library: where there is none, a call of right types ends
with the sentence that it is missing, one of wrong types with a TypeError.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from hloc.codegen.device_program import Launch, TensorMap
from hloc.runtime.cuda_arguments import EncodedMaps, Packed
from hloc.runtime.cuda_graph import Chain, takes_edge_data
from hloc.runtime.device_plan import ChoiceStep, CopyStep, FillStep, LaunchStep, LoopStep

driver: Any = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is for Linux and Windows")

ROOM = ctypes.create_string_buffer(64)
AT = ctypes.addressof(ROOM)


def has_driver() -> bool:
    try:
        driver.cuInit(0)
    except RuntimeError:
        return False
    return True


pytestmark = pytest.mark.skipif(has_driver(), reason="with a driver, the calls would be done")

GRAPH, STREAM, CONTEXT = driver.CUgraph(1), driver.CUstream(1), driver.CUcontext(9)
EVENT, DEVICE, FUNCTION, MODULE = driver.CUevent(1), driver.CUdevice(0), driver.CUfunction(1), driver.CUmodule(1)
LOG = [driver.CUjit_option.CU_JIT_ERROR_LOG_BUFFER, driver.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
SHARED = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

CALLS: dict[str, tuple] = {
    "cuDriverGetVersion": (),
    "cuDeviceGetCount": (),
    "cuDeviceGet": (0,),
    "cuDeviceGetName": (128, DEVICE),
    "cuDeviceTotalMem": (DEVICE,),
    "cuDeviceGetAttribute": (driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, DEVICE),
    "cuDevicePrimaryCtxRetain": (DEVICE,),
    "cuCtxSetCurrent": (CONTEXT,),
    "cuDeviceCanAccessPeer": (DEVICE, DEVICE),
    "cuCtxEnablePeerAccess": (CONTEXT, 0),
    "cuStreamCreate": (driver.CUstream_flags.CU_STREAM_NON_BLOCKING,),
    "cuStreamSynchronize": (STREAM,),
    "cuStreamWaitEvent": (1, EVENT, 0),
    "cuEventCreate": (driver.CUevent_flags.CU_EVENT_DISABLE_TIMING,),
    "cuEventRecord": (EVENT, 77),
    "cuEventQuery": (EVENT,),
    "cuEventSynchronize": (EVENT,),
    "cuEventDestroy": (EVENT,),
    "cuMemAlloc": (512,),
    "cuMemFree": (AT,),
    "cuMemGetInfo": (),
    "cuMemHostAlloc": (512, 0),
    "cuMemcpyHtoDAsync": (AT, AT, 8, STREAM),
    "cuMemcpyDtoHAsync": (AT, AT, 8, STREAM),
    "cuMemcpyDtoDAsync": (AT, AT, 8, STREAM),
    "cuMemsetD8Async": (AT, 1, 8, STREAM),
    "cuModuleLoadDataEx": (AT, 2, LOG, [bytearray(64), 64]),
    "cuModuleGetFunction": (MODULE, b"kernel"),
    "cuModuleUnload": (MODULE,),
    "cuFuncSetAttribute": (FUNCTION, SHARED, 100_000),
    "cuLaunchKernel": (FUNCTION, 1, 1, 1, 32, 1, 1, 0, STREAM, Packed((AT, 5)).address, 0),
    "cuGetProcAddress": (b"cuTensorMapEncodeTiled", 12000, 0),
    "cuGraphCreate": (0,),
    "cuGraphConditionalHandleCreate": (GRAPH, CONTEXT, 0, 0),
    "cuGraphInstantiate": (GRAPH, 0),
    "cuGraphLaunch": (driver.CUgraphExec(1), STREAM),
    "cuGraphExecDestroy": (driver.CUgraphExec(1),),
    "cuGraphDestroy": (GRAPH,),
    "cuGetErrorName": (driver.CUresult.CUDA_ERROR_INVALID_VALUE,),
    "cuGetErrorString": (driver.CUresult.CUDA_ERROR_INVALID_VALUE,),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_take_what_they_are_given(name: str) -> None:
    try:
        getattr(driver, name)(*CALLS[name])
    except RuntimeError as error:
        assert "driver" in str(error)


class Gpu:
    """Stands for a CudaGpu: every call goes to cuda-python, and what it would give is made up."""

    driver, context = driver, CONTEXT

    def __init__(self) -> None:
        self.called: list[str] = []

    def call(self, name: str, *arguments: Any) -> Any:
        self.called.append(name)
        with pytest.raises(RuntimeError, match="driver"):
            getattr(driver, name)(*arguments)
        kind = driver.CUgraphConditionalHandle if name == "cuGraphConditionalHandleCreate" else driver.CUgraphNode
        return kind(len(self.called))


LAUNCH = LaunchStep(Launch("k", (2, 1, 1), (64, 1, 1), 1024, (), (), (7,), "x"), (AT, AT))


@pytest.mark.parametrize("step", [LAUNCH, CopyStep(AT, AT, 8), FillStep(AT, 1, 8)])
def test_nodes_are_taken(step: Any) -> None:
    gpu = Gpu()
    Chain(gpu, GRAPH, lambda launch: FUNCTION, lambda name: FUNCTION).add([step, step])
    assert len(gpu.called) == 2


@pytest.mark.parametrize("step", [LoopStep((), (), AT, "w"), ChoiceStep(AT, True, ((LAUNCH,), ()), "c")])
def test_conditional_nodes_are_taken(step: Any) -> None:
    gpu = Gpu()
    Chain(gpu, GRAPH, lambda launch: FUNCTION, lambda name: FUNCTION).add([step])
    kernel = "cuGraphAddKernelNode"
    assert gpu.called == ["cuGraphConditionalHandleCreate", kernel, "cuGraphAddNode", kernel]


@pytest.mark.parametrize("rounds", [False, True])
def test_maps_are_described_by_what_the_bindings_have(rounds: bool) -> None:
    """The driver's function itself is not cuda-python's: it is stood for by one that takes the same."""
    given: list[tuple] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint64] * 8, *[ctypes.c_uint32] * 4)
    def encode(*arguments):
        given.append(arguments)
        return 1

    class Encoding(Gpu):
        number = 0

        def enter(self) -> None:
            return None

        def call(self, name: str, *arguments: Any) -> Any:
            return ctypes.cast(encode, ctypes.c_void_p).value, 0

    maps = (TensorMap(1, 32, 4, (100, 7), (208,), (32, 7), rounds),)
    launch = Launch("k", (1, 1, 1), (32, 1, 1), 0, (), (), (), "x", maps)
    with pytest.raises(RuntimeError, match="driver"):  # who asks for the name of the error
        EncodedMaps(Encoding(), launch, (AT, 4096))
    ((place, kind, rank, address, *_, interleave, swizzle, promotion, fill),) = given
    assert place % 128 == 0 and (rank & 0xFFFFFFFF, address) == (2, 4128)
    kinds = driver.CUtensorMapDataType
    wanted = kinds.CU_TENSOR_MAP_DATA_TYPE_TFLOAT32 if rounds else kinds.CU_TENSOR_MAP_DATA_TYPE_UINT32
    assert kind & 0xFFFFFFFF == wanted
    assert (interleave, swizzle, promotion, fill) == (0, 3, 3, 0)


def test_the_version_of_the_bindings_is_told_by_a_signature() -> None:
    assert takes_edge_data(driver) == ("dependencyData" in driver.cuGraphAddNode.__doc__.split("\n")[0])
