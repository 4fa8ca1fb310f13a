"""The runtime for GPUs on a driver that is not there: what it asks of the driver, and what it makes of its answers."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from click.testing import CliRunner
from fake_driver import ILLEGAL_ADDRESS, FakeDriver
from test_device_executable import ARG, OUT, X, arena, launch, program

import hloc
from hloc import program_cache
from hloc.cli import main
from hloc.codegen.device_program import (
    Call,
    Choice,
    Copy,
    DeviceCode,
    DeviceKernel,
    Fill,
    Loop,
)
from hloc.codegen.program import Program
from hloc.codegen.targets import nvptx, ptxas
from hloc.errors import HloError
from hloc.host import gpus
from hloc.ir.dtypes import BF16, F32, PRED, S32
from hloc.ir.shapes import array
from hloc.records import replace
from hloc.runtime import cuda_gpu
from hloc.runtime.cuda_graph import takes_edge_data
from hloc.runtime.device_array import DeviceArray
from hloc.runtime.device_executable import DeviceExecutable

KERNELS = ("double", "add", "less", "mapped")


def forget() -> None:
    for cached in (gpus.driver, gpus.gpu, nvptx.device_target):
        cached.cache_clear()
    cuda_gpu._opened.clear()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeDriver]]:
    """Makes a fake driver that of this process."""

    def install_(*arguments, kind: type[FakeDriver] = FakeDriver, **keywords) -> FakeDriver:
        fake = kind(*arguments, **keywords)
        forget()
        monkeypatch.setattr(gpus, "import_module", lambda name: fake)
        monkeypatch.setattr(ptxas, "find_tools", lambda name: iter(()))
        fake.kernels |= {"double": _double, "add": _add, "less": _less}
        return fake

    yield install_
    gc.collect()
    forget()


@pytest.fixture
def fake(install) -> FakeDriver:
    return install()


def _floats(address: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * 4).from_address(address))


def _double(source: int, target: int) -> None:
    _floats(target)[:] = 2 * _floats(source)


def _add(left: int, right: int, target: int) -> None:
    _floats(target)[:] = _floats(left) + _floats(right)


def _less(value: int, verdict: int) -> None:
    ctypes.c_uint8.from_address(verdict).value = int(_floats(value)[0] < 100)


def for_gpu(made: Program, shared: int = 0, target: str = "cuda:0") -> DeviceExecutable:
    code = made.device
    kernels = tuple(DeviceKernel(name, (f"{name}.1",), 32, shared) for name in KERNELS)
    head = b"\n.version 8.0\n.target sm_90a\n"
    return DeviceExecutable(replace(made, target=target, device=DeviceCode("sm_90a", head, kernels, code.computations)))


def on_gpu(run: DeviceExecutable, values: np.ndarray = X) -> DeviceArray:
    """An array on the GPU, made by an upload."""
    run.load()
    shape = array({"float32": F32, "bfloat16": BF16}[values.dtype.name], *values.shape)
    made = run._homes[0].device.array_maker(shape)()
    made.gpu.upload(made.address, np.ascontiguousarray(values))
    return made


TWICE = program([launch("double", ARG, OUT)])
FOUR_TIMES = program([launch("double", ARG, arena(0)), launch("double", arena(0), OUT)])


def test_numpy_goes_in_and_comes_out(fake: FakeDriver) -> None:
    run = for_gpu(FOUR_TIMES)
    result = run(X)
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, 4 * X)
    assert fake.log.count("cuLaunchKernel") == 2


def test_the_second_call_replays_a_graph_that_the_third_shares(fake: FakeDriver) -> None:
    run = for_gpu(FOUR_TIMES)
    for number in range(3):
        np.testing.assert_array_equal(run(X + number), 4 * (X + number))
    assert fake.log.count("cuLaunchKernel") == 2
    assert fake.log.count("cuGraphInstantiate") == 1
    assert fake.log.count("cuGraphLaunch") == 2
    assert fake.log.count("cuGraphAddKernelNode") == 2


def test_a_single_launch_is_made_ready_without_a_graph(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    for number in range(3):
        np.testing.assert_array_equal(run(X + number), 2 * (X + number))
    assert fake.log.count("cuLaunchKernel") == 3 and "cuGraphCreate" not in fake.log
    fake.fails["cuLaunchKernel"] = ILLEGAL_ADDRESS
    with pytest.raises(HloError, match=r"kernel double \(%double.1\)"):
        run(X)


def test_copies_and_fills_are_nodes_too(fake: FakeDriver) -> None:
    run = for_gpu(program([Copy(OUT, ARG, 16), Fill(OUT, 4, 0, 8), Copy(OUT, ARG, 0)]))
    for _ in range(2):
        np.testing.assert_array_equal(run(X + 1), [1, 0, 0, 4])
    assert fake.log.count("cuGraphAddMemcpyNode") == 1
    assert fake.log.count("cuGraphAddMemsetNode") == 1


CONDITION, BODY = [launch("less", ARG, OUT, sizes=(16, 1))], [launch("double", ARG, OUT)]
WHILE = Loop(Call(0, (OUT,), (arena(0),), 64), Call(1, (OUT,), (OUT,), 64), arena(0), "while")
LOOP = program(CONDITION, BODY, [Copy(OUT, ARG, 16), WHILE])


def test_a_loop_is_a_conditional_node(fake: FakeDriver) -> None:
    run = for_gpu(LOOP)
    for first, last in ((1.0, 128.0), (3.0, 192.0), (100.0, 100.0)):
        assert run(np.full(4, first, np.float32))[0] == last
    assert fake.log.count("cuGraphConditionalHandleCreate") == 1
    assert fake.log.count("cuGraphLaunch") == 2
    assert fake.images[1].startswith(b".version 8.0\n.target sm_90a\n")
    assert b".visible .entry hloc_set_by_byte" in fake.images[1]


def test_a_driver_without_conditional_nodes_gets_its_loops_from_the_host(install) -> None:
    fake = install(version=12030)
    run = for_gpu(program(CONDITION, BODY, [Copy(OUT, ARG, 16), Copy(OUT, ARG, 16), WHILE]))
    for _ in range(3):
        assert run(np.ones(4, np.float32))[0] == 128
    assert "cuGraphConditionalHandleCreate" not in fake.log
    assert fake.log.count("cuGraphInstantiate") == 1


def test_a_graph_that_the_driver_refuses_is_done_by_the_host(fake: FakeDriver) -> None:
    fake.fails["cuGraphConditionalHandleCreate"] = 801
    run = for_gpu(LOOP)
    for _ in range(3):
        assert run(np.ones(4, np.float32))[0] == 128
    assert "cuGraphLaunch" not in fake.log


@pytest.mark.parametrize("index", [0, 1, 2, 3, -1])
def test_a_choice_is_a_conditional_node_a_branch(fake: FakeDriver, index: int) -> None:
    branches = [[Fill(OUT, 0, number, 1)] for number in (1, 2, 3)]
    calls = tuple(Call(number, (), (OUT,), 0) for number in range(3))
    run = for_gpu(program(*branches, [Choice(ARG, False, calls, "c")], parameters=[array(S32)]))
    expected = index + 1 if 0 <= index < 3 else 3
    for _ in range(3):
        assert run(np.int32(index)).view(np.uint8)[0] == expected
    assert fake.log.count("cuGraphConditionalHandleCreate") == 3


def test_a_choice_by_pred_leaves_out_branches_without_steps(fake: FakeDriver) -> None:
    calls = (Call(0, (), (OUT,), 0), Call(1, (), (OUT,), 0))
    entry = [Fill(OUT, 0, 9, 1), Choice(ARG, True, calls, "c")]
    run = for_gpu(program([], [Fill(OUT, 0, 2, 1)], entry, parameters=[array(PRED)]))
    for pred in (True, False, True, False):
        assert run(np.bool_(pred)).view(np.uint8)[0] == (9 if pred else 2)
    assert fake.log.count("cuGraphConditionalHandleCreate") == 1


def test_much_shared_memory_is_asked_for_once(fake: FakeDriver) -> None:
    run = for_gpu(TWICE, shared=100 * 1024)
    run(X)
    run(X)
    assert fake.log.count("double may have 102400 bytes") == 1


def test_large_arrays_go_through_pinned_memory_in_parts(fake: FakeDriver) -> None:
    shape = array(F32, 3_000_000)
    run = for_gpu(program([Copy(OUT, ARG, shape.byte_size)], parameters=[shape], results=[shape]))
    given = np.random.default_rng(0).random(3_000_000).astype(np.float32)
    np.testing.assert_array_equal(run(given), given)
    assert fake.log.count("cuMemHostAlloc") == 2
    assert fake.log.count("cuMemcpyHtoDAsync") >= 3


# Errors


def test_a_failed_launch_names_kernel_and_instruction(fake: FakeDriver) -> None:
    fake.fails["cuLaunchKernel"] = ILLEGAL_ADDRESS
    said = r"kernel double \(%double.1\) of p, 1x1x1 blocks of 32x1x1 threads: CUDA_ERROR_ILLEGAL_ADDRESS"
    with pytest.raises(HloError, match=said):
        for_gpu(TWICE)(X)


def test_an_error_that_shows_later_names_what_was_begun(fake: FakeDriver) -> None:
    fake.fails["cuMemcpyDtoHAsync"] = ILLEGAL_ADDRESS
    said = r"work on GPU 0 failed: cuMemcpyDtoHAsync: CUDA_ERROR_ILLEGAL_ADDRESS .*, after kernel double \(%double.1\)"
    with pytest.raises(HloError, match=said) as caught:
        for_gpu(TWICE)(X)
    assert "CUDA_LAUNCH_BLOCKING" in caught.value.hint


def test_an_error_that_shows_in_a_result_names_what_was_begun(fake: FakeDriver) -> None:
    run = for_gpu(program([launch("double", ARG, arena(0)), launch("add", arena(0), arena(0), OUT)]))
    given = on_gpu(run)
    result = [run(given) for _ in range(3)][-1]
    fake.fails["cuStreamSynchronize"] = ILLEGAL_ADDRESS
    with pytest.raises(HloError, match=r"after these, or some before: kernel double .*, kernel add \(%add.1\) of p"):
        result.block_until_ready()


def test_blocking_launches_are_not_recorded(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    run = for_gpu(FOUR_TIMES)
    run(X)
    run(X)
    assert "cuGraphLaunch" not in fake.log


def test_missing_memory_is_told_with_sizes(install) -> None:
    fake = install(memory=1 << 20)
    shape = array(F32, 1 << 20)
    with pytest.raises(HloError, match=r"takes 4194304 bytes, and GPU 0 has \d+ of 1048576 bytes free"):
        for_gpu(program([Copy(OUT, ARG, 16)], parameters=[shape], results=[shape]))(np.zeros(1 << 20, np.float32))
    assert fake.used() < 1 << 16


def test_the_memory_of_a_program_that_goes_is_used_again(install) -> None:
    install(memory=1 << 18)
    shape = array(F32, 16_000)
    made = program([Copy(OUT, ARG, shape.byte_size)], parameters=[shape], results=[shape])
    for _ in range(5):
        for_gpu(made)(np.zeros(16_000, np.float32))
        gc.collect()


def test_unused_memory_makes_room(install) -> None:
    install(memory=1 << 16)
    gpu = cuda_gpu.gpu_of_process(0)
    held = [gpu.allocate(20_000, "a") for _ in range(3)]
    for address in held:
        gpu.free(address)
    gpu.allocate(60_000, "b")


def test_the_drivers_assembler_is_quoted(fake: FakeDriver) -> None:
    fake.jit_says, fake.fails["cuModuleLoadDataEx"] = b"ptxas: line 3;  no such op", 218
    with pytest.raises(HloError, match=r"cuModuleLoadDataEx \(ptxas: line 3; no such op\): CUDA_ERROR_INVALID_PTX"):
        for_gpu(TWICE)(X)


def test_a_driver_too_old_for_the_code_is_told(fake: FakeDriver) -> None:
    fake.fails["cuModuleLoadDataEx"] = 222
    with pytest.raises(HloError, match=r"are for sm_90a, which the driver \(for CUDA 12.4\) of GPU 0 does not take"):
        for_gpu(TWICE)(X)


# What is missing


def target_error(target: str = "cuda") -> str:
    with pytest.raises(HloError) as caught:
        hloc.compile("HloModule m\nENTRY e {\n  ROOT c = f32[] constant(0)\n}", target)
    return caught.value.message


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    assert target_error() == "GPUs need the package cuda-python: pip install 'hloc[gpu]'"


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibrary:
        @staticmethod
        def cuInit(flags: int) -> None:
            raise RuntimeError("libcuda.so.1: cannot open shared object file")

    forget()
    monkeypatch.setattr(gpus, "import_module", lambda name: NoLibrary)
    assert target_error() == "this machine has no NVIDIA driver (libcuda), which running on a GPU takes"


def test_a_missing_gpu_is_told(install) -> None:
    install(gpus=())
    assert target_error() == "this machine has no NVIDIA GPU"


def test_a_number_too_high_is_told(install) -> None:
    install(gpus=[(9, 0)])
    assert target_error("cuda:1") == "there is no GPU 1: this machine has only GPU 0"
    install(gpus=[(9, 0), (8, 0)])
    assert target_error("cuda:2") == "there is no GPU 2: this machine has GPUs 0 to 1"
    assert target_error("cuda:x").startswith('"x" is no number of a GPU')


def test_a_gpu_too_old_is_told(install) -> None:
    install(gpus=[(6, 1)])
    assert target_error().startswith("GPU 0 (Fake 0) is sm_61, which is too old")


@pytest.mark.parametrize(("gpu", "arch"), [((8, 6), "sm_86"), ((9, 0), "sm_90a"), ((13, 0), "sm_121")])
def test_the_architecture_is_the_gpus_or_the_latest_before_it(install, gpu: tuple[int, int], arch: str) -> None:
    install(gpus=[gpu])
    target = nvptx.device_target("")
    assert target.device.multiprocessors == 114
    assert (target.device.arch, target.name) == (arch, "cuda:0")


def test_programs_of_other_gpus_are_kept_apart(install) -> None:
    install(gpus=[(8, 0), (9, 0)])
    names = {program_cache.Slot("m", target, hloc.Options())._name for target in ("cuda:0", "cuda:1")}
    install(gpus=[(9, 0)])
    names.add(program_cache.Slot("m", "cuda:0", hloc.Options())._name)
    assert len(names) == 3


def test_devices_are_listed(install) -> None:
    install(gpus=[(9, 0), (6, 1)])
    lines = CliRunner().invoke(main, ["devices"]).output.splitlines()
    (first, second) = (line for line in lines if line.startswith("cuda:"))
    assert first.split() == ["cuda:0", "Fake", "0", "sm_90a", "0.1", "GiB", "driver", "for", "CUDA", "12.4"]
    assert second.endswith("too old: sm_70 is the least")
    assert any(line.startswith("no ptxas") for line in lines)


# Several GPUs


def test_the_devices_of_a_run_take_the_machines_gpus_in_turn(install) -> None:
    fake = install(gpus=[(9, 0), (9, 0)])
    run = for_gpu(replace(TWICE, replica_count=3))
    results = run.execute_replicated([[X], [X + 1], [X + 2]])
    for number, (result,) in enumerate(results):
        np.testing.assert_array_equal(result, 2 * (X + number))
    assert fake.log.count("cuStreamCreate") == 2
    assert fake.log.count("cuCtxEnablePeerAccess") == 2


def test_the_shape_of_cuGraphAddNode_tells_the_version_of_the_bindings(fake: FakeDriver) -> None:
    assert takes_edge_data(fake)
