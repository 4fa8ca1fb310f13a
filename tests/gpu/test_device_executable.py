"""Commands of hand-made programs on a device of NumPy's: what the interpreter does with each kind."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hloc.analysis.costs import ModuleCost
from hloc.codegen.device_program import (
    ARENA,
    ARGUMENT,
    CONSTANT,
    CONTEXT,
    EXTERNAL,
    RESULT,
    Call,
    Choice,
    Command,
    Copy,
    DeviceCode,
    DeviceComputation,
    Fill,
    HostCall,
    Launch,
    Location,
    Loop,
    Meeting,
)
from hloc.codegen.program import CUSTOM, EVALUATED, INFEED, External, ParameterLeaf, Program, ResultLeaf
from hloc.errors import HloError
from hloc.host.custom_calls import register_custom_call
from hloc.ir.dtypes import F32, PRED, S32
from hloc.ir.shapes import ArrayShape, Layout, TupleShape, array
from hloc.runtime import devices
from hloc.runtime.device import Device
from hloc.runtime.device_executable import DeviceExecutable
from hloc.runtime.device_plan import Step

VECTOR = array(F32, 4)
BYTES = VECTOR.byte_size


def arena(number: int) -> Location:
    return Location(ARENA, number)


ARG, OUT = Location(ARGUMENT, 0), Location(RESULT, 0)


class NumpyDevice(Device):
    """Memory in one array; kernels are functions of `kernels`, on views of what they may touch."""

    kernels: dict[str, Callable[..., None]] = {}

    def __init__(self) -> None:
        self.memory = np.zeros(1 << 16, np.uint8)
        self.end = 256
        self.log: list[str] = []

    def bytes_at(self, address: int, size: int) -> np.ndarray:
        return self.memory[address : address + size]

    def allocate(self, size: int, what: str) -> int:
        address, self.end = self.end, self.end + (size + 255) // 256 * 256
        assert self.end <= self.memory.size
        self.log.append(f"allocate {what}")
        return address

    def free(self, address: int) -> None:
        self.log.append("free")

    def upload(self, address: int, array: np.ndarray) -> None:
        ctypes.memmove(self.memory.ctypes.data + address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(array.ctypes.data, self.memory.ctypes.data + address, array.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        self.bytes_at(target, size)[:] = self.bytes_at(source, size)

    def fill(self, target: int, byte: int, size: int) -> None:
        self.bytes_at(target, size)[:] = byte

    def launch(self, launch: Launch, arguments: Sequence[int]) -> None:
        self.log.append(launch.kernel)
        views = [self.bytes_at(a, size) for a, size in zip(arguments, launch.sizes, strict=True)]
        self.kernels[launch.kernel](*views, *launch.scalars)

    def read(self, address: int, size: int) -> bytes:
        return self.bytes_at(address, size).tobytes()

    def synchronize(self) -> None:
        pass


def launch(kernel: str, *arguments: Location, sizes: Sequence[int] = ()) -> Launch:
    """The kernel on arrays of BYTES each, or of other sizes."""
    given = tuple(sizes or [BYTES] * len(arguments))
    return Launch(kernel, (1, 1, 1), (32, 1, 1), 0, arguments, given, (), kernel)


def program(
    *computations: Sequence[Command],
    parameters: Sequence[ArrayShape] = (VECTOR,),
    results: Sequence[ArrayShape] = (VECTOR,),
    constants: bytes = b"",
    externals: Sequence[External] = (),
    replicas: int = 1,
) -> Program:
    """A program of commands, callees first."""
    made = tuple(DeviceComputation(f"c{i}", tuple(c), 1024) for i, c in enumerate(computations))
    return Program(
        name="p",
        target="numpy",
        object_code=b"",
        entry="",
        arena_bytes=1024,
        constants=np.frombuffer(constants, np.uint8),
        parameter_shapes=tuple(parameters),
        result_shape=TupleShape(tuple(results)) if len(results) != 1 else results[0],
        parameters=tuple(ParameterLeaf(i, (), shape, f"p{i}") for i, shape in enumerate(parameters)),
        results=tuple(ResultLeaf((), shape) for shape in results),
        aliases=(),
        replica_count=replicas,
        num_partitions=1,
        kernels=(),
        externals=tuple(externals),
        memory=(),
        cost=ModuleCost(0, 0, 0, 0, (), (), 0, 0),
        device=DeviceCode("none", b"", (), made),
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[NumpyDevice]:
    """The devices that a test's executable opens."""
    found: list[NumpyDevice] = []

    def open_device(program: Program, number: int) -> Device:
        found.append(NumpyDevice())
        return found[-1]

    monkeypatch.setattr(devices, "open_device", open_device)
    return found


def floats(view: np.ndarray) -> np.ndarray:
    return view.view(np.float32)


def add(target: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    floats(target)[:] = floats(left) + floats(right)


def double(target: np.ndarray, source: np.ndarray) -> None:
    floats(target)[:] = floats(source) * 2


NumpyDevice.kernels |= {"add": add, "double": double}

X = np.arange(4, dtype=np.float32)


def test_launches_copies_and_fills_run_in_order(opened: list[NumpyDevice]) -> None:
    one = np.ones(4, np.float32).tobytes()
    commands = [
        launch("double", arena(0), ARG),
        Copy(arena(64), arena(0), 8),
        Fill(arena(64), 8, 0, 8),
        launch("add", OUT, arena(64), Location(CONSTANT, 16)),
    ]
    run = DeviceExecutable(program(commands, constants=bytes(16) + one))
    np.testing.assert_array_equal(run(X), [1, 3, 1, 1])
    np.testing.assert_array_equal(run(X + 1), [3, 5, 1, 1])


def test_memory_stays_on_the_device_between_calls(opened: list[NumpyDevice]) -> None:
    run = DeviceExecutable(program([launch("double", OUT, ARG)]))
    run(X)
    before = opened[0].end
    run(X)
    assert opened[0].end == before
    assert len(opened) == 1


def test_a_call_binds_leaves_and_an_arena_of_its_own(opened: list[NumpyDevice]) -> None:
    callee = [launch("double", arena(0), ARG), launch("add", OUT, arena(0), ARG)]
    entry = [
        Fill(arena(0), 0, 0, BYTES),
        Call(0, (ARG,), (arena(256),), 512),
        Call(0, (arena(256),), (OUT,), 512),
        launch("add", OUT, OUT, arena(0)),
    ]
    run = DeviceExecutable(program(callee, entry))
    np.testing.assert_array_equal(run(X), 9 * X)


def less_than_100(verdict: np.ndarray, value: np.ndarray) -> None:
    verdict[0] = floats(value)[0] < 100


@pytest.mark.parametrize(("first", "last"), [(1.0, 128.0), (100.0, 100.0)])
def test_a_loop_runs_while_its_verdict_says_so(opened: list[NumpyDevice], first: float, last: float) -> None:
    NumpyDevice.kernels["less"] = less_than_100
    condition = [launch("less", OUT, ARG, sizes=(1, BYTES))]
    body = [launch("double", OUT, ARG)]
    verdict = arena(0)
    loop = Loop(Call(0, (OUT,), (verdict,), 64), Call(1, (OUT,), (OUT,), 64), verdict, "while")
    run = DeviceExecutable(program(condition, body, [Copy(OUT, ARG, BYTES), loop]))
    assert run(np.full(4, first, np.float32))[0] == last


@pytest.mark.parametrize(("index", "taken"), [(0, 1), (1, 2), (2, 3), (3, 3), (-1, 3)])
def test_a_choice_by_index_takes_the_last_out_of_range(opened: list[NumpyDevice], index: int, taken: int) -> None:
    branches = [[Fill(OUT, 0, number, 1)] for number in (1, 2, 3)]
    calls = tuple(Call(number, (), (OUT,), 0) for number in range(3))
    run = DeviceExecutable(program(*branches, [Choice(ARG, False, calls, "c")], parameters=[array(S32)]))
    assert run(np.int32(index)).view(np.uint8)[0] == taken


@pytest.mark.parametrize(("pred", "taken"), [(True, 1), (False, 2)])
def test_a_choice_by_pred_takes_the_first_for_true(opened: list[NumpyDevice], pred: bool, taken: int) -> None:
    calls = (Call(0, (), (OUT,), 0), Call(1, (), (OUT,), 0))
    entry = [Choice(ARG, True, calls, "c")]
    run = DeviceExecutable(program([Fill(OUT, 0, 1, 1)], [Fill(OUT, 0, 2, 1)], entry, parameters=[array(PRED)]))
    assert run(np.bool_(pred)).view(np.uint8)[0] == taken


def test_a_host_call_gets_copies_in_the_layouts_of_its_shapes(opened: list[NumpyDevice]) -> None:
    matrix = ArrayShape(F32, (2, 3), Layout((0, 1)))
    register_custom_call("device_test_twice", lambda x, pair: (pair[0], x * 2))
    external = External(
        CUSTOM, "device_test_twice", (matrix, TupleShape((VECTOR, VECTOR))), TupleShape((VECTOR, matrix))
    )
    places = tuple(Location(ARGUMENT, i) for i in range(3))
    commands = [HostCall(0, places, (Location(RESULT, 0), Location(RESULT, 1)), "call")]
    shapes = [matrix, VECTOR, VECTOR]
    run = DeviceExecutable(program(commands, parameters=shapes, results=[VECTOR, matrix], externals=[external]))
    given = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    first, second = run(given, X, X + 1)
    np.testing.assert_array_equal(first, X)
    np.testing.assert_array_equal(second, given * 2)
    assert second.flags.f_contiguous


def test_a_c_function_is_called_with_addresses(opened: list[NumpyDevice]) -> None:
    pointers = ctypes.POINTER(ctypes.c_void_p)

    @ctypes.CFUNCTYPE(None, pointers, pointers, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int32))
    def negate(outs, ins, config, size, status):
        if ctypes.string_at(config, size) == b"fail":
            status[0] = 1
        source, target = ((ctypes.c_float * 4).from_address(p[0]) for p in (ins, outs))
        for i in range(4):
            target[i] = -source[i]

    register_custom_call("device_test_negate", negate, kind="c")
    for config in ("", "fail"):
        external = External(CUSTOM, "device_test_negate", (VECTOR,), VECTOR, config)
        run = DeviceExecutable(program([HostCall(0, (ARG,), (OUT,), "call")], externals=[external]))
        if config:
            with pytest.raises(HloError, match='"device_test_negate" said that it failed'):
                run(X)
        else:
            np.testing.assert_array_equal(run(X), -X)


def test_the_evaluator_stands_in_for_what_has_no_kernel(opened: list[NumpyDevice]) -> None:
    text = "HloModule m\nENTRY e {\n  p = f32[4] parameter(0)\n  ROOT s = f32[4] sine(p)\n}"
    external = External(EVALUATED, "sine", (VECTOR,), VECTOR, text)
    run = DeviceExecutable(program([HostCall(0, (ARG,), (OUT,), "s")], externals=[external]))
    np.testing.assert_allclose(run(X), np.sin(X), rtol=1e-6)


def test_a_function_that_nobody_registered_is_told_at_once() -> None:
    external = External(CUSTOM, "device_test_nobody", (VECTOR,), VECTOR)
    with pytest.raises(HloError, match="no function is registered for custom call"):
        DeviceExecutable(program([], externals=[external]))


def test_infeed_takes_from_the_hosts_queue(opened: list[NumpyDevice]) -> None:
    external = External(INFEED, "", (), VECTOR)
    run = DeviceExecutable(program([HostCall(0, (), (OUT,), "feed")], parameters=[], externals=[external]))
    with pytest.raises(HloError, match="infeed needs a host on the other side"):
        run()
    run.infeed().put(X)
    np.testing.assert_array_equal(run(), X)


def sum_of_all(*views: np.ndarray) -> None:
    *inputs, target = map(floats, views)
    target[:] = sum(inputs)


class Shared(NumpyDevice):
    """Devices that can read each other's memory: each has a part of the same."""

    everything = np.zeros(1 << 18, np.uint8)
    count = 0

    def __init__(self) -> None:
        super().__init__()
        self.memory = Shared.everything
        Shared.count += 1
        self.end = Shared.count % 4 << 15 | 256


def meeting(devices: int) -> Meeting:
    others = tuple(Location(EXTERNAL, number) for number in range(devices))
    return Meeting((ARG,), (launch("sum_of_all", *others, OUT),), "all-reduce")


def test_devices_meet_and_read_each_others_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    NumpyDevice.kernels["sum_of_all"] = sum_of_all
    monkeypatch.setattr(devices, "open_device", lambda program, number: Shared())
    run = DeviceExecutable(program([meeting(3)], replicas=3))
    results = run.execute_replicated([[X], [X + 1], [X + 2]])
    for (result,) in results:
        np.testing.assert_array_equal(result, 3 * X + 3)


def test_a_device_that_fails_frees_those_that_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_on_one(view: np.ndarray) -> None:
        if floats(view)[0] == 1:
            raise HloError("kernel k failed")

    NumpyDevice.kernels |= {"sum_of_all": sum_of_all, "fail_on_one": fail_on_one}
    monkeypatch.setattr(devices, "open_device", lambda program, number: Shared())
    run = DeviceExecutable(program([launch("fail_on_one", ARG), meeting(3)], replicas=3))
    with pytest.raises(HloError, match="kernel k failed"):
        run.execute_replicated([[X], [X + 1], [X + 2]])
    run.execute_replicated([[X], [X], [X]])


def test_a_device_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    NumpyDevice.kernels["sum_of_all"] = sum_of_all
    monkeypatch.setattr(devices, "open_device", lambda program, number: Shared())
    calls = (Call(0, (ARG,), (OUT,), 0), Call(1, (ARG,), (OUT,), 0))
    entry = [Choice(Location(ARGUMENT, 1), True, calls, "c")]
    made = program([meeting(2)], [], entry, parameters=[VECTOR, array(PRED)], replicas=2)
    run = DeviceExecutable(made)
    run.patience = 0.2
    with pytest.raises(HloError, match="did not come in time"):
        run.execute_replicated([[X, True], [X, False]])


def test_the_context_says_which_device_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "open_device", lambda program, number: Shared())
    context = array(S32, 8)
    run = DeviceExecutable(
        program([Copy(OUT, Location(CONTEXT), 32)], parameters=[], results=[context], replicas=2)
    )
    words = [result.view(np.int64).tolist() for (result,) in run.execute_replicated([[], []])]
    assert words == [[0, 0, 0, 2], [1, 0, 1, 2]]


class Recording(NumpyDevice):
    """Records all but loops."""

    def can_record(self, step: Step) -> bool:
        return type(step).__name__ in ("LaunchStep", "FillStep", "CopyStep")

    def record(self, steps: Sequence[Step]) -> Callable[[], None]:
        self.log.append(f"record {len(steps)}")
        return lambda: self.log.append(f"replay {len(steps)}")


def test_what_is_done_twice_on_the_same_memory_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Recording()
    monkeypatch.setattr(devices, "open_device", lambda program, number: made)
    run = DeviceExecutable(program([launch("double", OUT, ARG), Fill(OUT, 0, 0, 4)]))
    for _ in range(3):
        run(X)
    done = [line for line in made.log if not line.startswith("allocate")]
    assert done == ["double", "record 2", "replay 2", "replay 2"]


def test_a_target_to_look_at_does_not_run() -> None:
    run = DeviceExecutable(program([]))
    with pytest.raises(HloError, match="was compiled for numpy, to look at"):
        run(X)
