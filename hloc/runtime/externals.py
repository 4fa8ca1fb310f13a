"""The functions outside of a program that it calls, as addresses; and what happens when one of them fails.

Functions of this process (Python's custom calls, the host's queues) stand behind ctypes callbacks. They run
on the thread of the device that called them, which is how they find the run that they are part of. An
exception must not pass through native code: it is kept in the run, and raised when the native code has
returned.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from hloc.codegen.program import (
    CUSTOM,
    EVALUATED,
    INFEED,
    LAPACK,
    OUTFEED,
    RECV,
    SEND,
    External,
    external_failed,
)
from hloc.errors import HloError
from hloc.host.custom_calls import CustomFunction, call_python, registered
from hloc.host.lapack import function_address
from hloc.host.queues import HostQueues
from hloc.host.values import given_leaves, structured
from hloc.ir.shapes import ArrayShape, Shape
from hloc.lazy import lazy
from hloc.runtime.memory import address, new_array

evaluator = lazy("hloc.reference.evaluate")
parser = lazy("hloc.text.parser")

_CALLBACK = ctypes.CFUNCTYPE(
    None,
    *[ctypes.POINTER(ctypes.c_void_p)] * 2,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_int32),
)

_GLANCE = 0.05
"""Seconds between two looks whether the run has failed elsewhere, while a device waits for the host."""


class Deserted(HloError):
    """A device gave up because another one had failed."""


class Run:
    """One device's run of a program, as functions of the host see it.

    `deadline` is how many seconds it waits for the host; `communicator` tells whether another device has
    failed (`program.communicator_bytes`); `failure` is what a function has raised.
    """

    def __init__(self, queues: HostQueues, deadline: float, communicator: np.ndarray):
        self.queues = queues
        self.deadline = deadline
        self.communicator = communicator
        self.failure: BaseException | None = None


class Externals:
    """The externals of one program in this process: `table` holds their addresses."""

    def __init__(self, externals: Sequence[External]):
        self._externals = externals
        self._threads = threading.local()
        self._kept: list[Any] = []
        self.table = np.array([self._address(external) for external in externals], np.int64)

    @property
    def have_hosts(self) -> bool:
        """Whether any of them is a function of the host: then calls need `serving`."""
        return any(external.kind != LAPACK for external in self._externals)

    @contextmanager
    def serving(self, run: Run) -> Iterator[None]:
        """While this lasts, functions of the host that this thread calls belong to the run."""
        before = getattr(self._threads, "run", None)
        self._threads.run = run
        try:
            yield
        finally:
            self._threads.run = before

    def failure(self, status: int, run: Run) -> BaseException | None:
        """What to raise for a program's status; None if it is not about an external."""
        number = external_failed(status)
        if not 0 <= number < len(self._externals):
            return None
        if run.failure is not None:
            return run.failure
        return _said_that_it_failed(self._externals[number])

    # Addresses

    def _address(self, external: External) -> int:
        if external.kind == LAPACK:
            return function_address(external.name)
        if external.kind == CUSTOM:
            custom = _registered(external.name)
            if custom.kind == "c":
                self._kept.append(custom)
                return custom.address
        return self._callback(external, service_of(external))

    def _callback(self, external: External, serve: Service) -> int:
        ins = [leaf for shape in external.operands for leaf in _array_leaves(shape)]
        outs = _array_leaves(external.result)

        def call(out_pointers: Any, in_pointers: Any, config: int, size: int, status: Any) -> None:
            run = self._threads.run
            try:
                arrays = iter([_view(in_pointers[i], shape, False) for i, shape in enumerate(ins)])
                operands = [structured(shape, arrays) for shape in external.operands]
                for i, leaf in enumerate(serve(external, operands, run)):
                    _view(out_pointers[i], outs[i], True)[...] = leaf
            except BaseException as error:
                run.failure = error
                status[0] = 1

        callback = _CALLBACK(call)
        self._kept.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value


def _array_leaves(shape: Shape) -> list[ArrayShape]:
    return [leaf for _, leaf in shape.leaves() if leaf.is_array]


def _view(pointer: int | None, shape: ArrayShape, writable: bool) -> np.ndarray:
    """The array at an address, in the layout of its shape."""
    dtype = shape.dtype.numpy
    if shape.count == 0:
        return np.empty(shape.dims, dtype)
    order = shape.minor_to_major[::-1]
    memory = (ctypes.c_char * shape.byte_size).from_address(pointer)
    dense = np.frombuffer(memory, dtype).reshape([shape.dims[d] for d in order])
    dense.flags.writeable = writable
    return dense.transpose([order.index(d) for d in range(len(order))])


Service = Callable[[External, list[Any], Run], list[np.ndarray]]
"""What stands behind a callback: takes the operands, gives the leaves of the result."""


def service_of(external: External) -> Service:
    """What this process does for an external that takes arrays; HloError if its function is not registered."""
    if external.kind == EVALUATED:
        return _evaluation(external)
    if external.kind != CUSTOM:
        return _QUEUES[external.kind]
    custom = _registered(external.name)
    return _c_call(custom) if custom.kind == "c" else _python_call(custom)


def _registered(target: str) -> CustomFunction:
    custom = registered(target)
    if custom is None:
        raise HloError(f'no function is registered for custom call "{target}"')
    return custom


def _said_that_it_failed(external: External) -> HloError:
    return HloError(f'the function of custom call "{external.name}" said that it failed')


def _evaluation(external: External) -> Service:
    """The reference evaluator, on the program in `config`."""
    module = parser.parse(external.config, external.name)

    def serve(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
        return evaluator.evaluate(module, operands)

    return serve


def _c_call(custom: CustomFunction) -> Service:
    """A C function, given arrays that lie in the layouts of their shapes."""
    pointer = ctypes.c_void_p
    function = ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_char_p, ctypes.c_size_t, pointer)(custom.address)

    def serve(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
        outs = [new_array(shape, "a result of a custom call") for shape in _array_leaves(external.result)]
        config, status = external.config.encode(), ctypes.c_int32(0)
        ins = list(_flat(operands))
        function(_pointers(outs), _pointers(ins), config, len(config), ctypes.addressof(status))
        if status.value:
            raise _said_that_it_failed(external)
        return outs

    return serve


def _flat(value: Any) -> Iterator[np.ndarray]:
    """The arrays in nested tuples and lists, without what stands for tokens."""
    if isinstance(value, tuple | list):
        for element in value:
            yield from _flat(element)
    elif value is not None:
        yield value


def _pointers(arrays: Sequence[np.ndarray]) -> ctypes.Array:
    return (ctypes.c_void_p * max(len(arrays), 1))(*map(address, arrays))


def _python_call(custom: CustomFunction) -> Service:
    def serve(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
        value = call_python(custom, operands, external.config)
        return given_leaves(f'the function of custom call "{custom.target}"', value, external.result)

    return serve


# The host's queues


def _infeed(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
    value = _taken(run, run.queues.infeed, "infeed", "infeed(device).put(value) first")
    return given_leaves("the host, for infeed,", value, external.result)


def _recv(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
    queue = run.queues.channel(int(external.name)).to_device
    what = f"recv on channel {external.name}"
    value = _taken(run, queue, what, f"channel({external.name}, device).put(value) first")
    return given_leaves(f"the host, for {what},", value, external.result)


def _taken(run: Run, queue: SimpleQueue[Any], what: str, how: str) -> Any:
    """The next value of a queue. HloError if the host is late, or there is none that could give a value."""
    if not run.queues.attended and queue.empty():
        raise HloError(f"{what} needs a host on the other side", hint=f"call Executable.{how}")
    end = time.monotonic() + run.deadline
    while not run.communicator[0]:
        left = end - time.monotonic()
        try:
            return queue.get(timeout=max(0.0, min(left, _GLANCE)))
        except Empty:
            if left <= 0:
                message = f"{what}: nothing came from the host within {run.deadline:g} seconds"
                raise HloError(message) from None
    raise Deserted(f"{what}: another device of this run failed")


def _outfeed(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
    run.queues.outfeed.put(_own(operands[0]))
    return []


def _send(external: External, operands: list[Any], run: Run) -> list[np.ndarray]:
    run.queues.channel(int(external.name)).from_device.put(_own(operands[0]))
    return []


def _own(value: Any) -> Any:
    """The value in memory of its own: the program's is used again."""
    return tuple(map(_own, value)) if isinstance(value, tuple) else np.array(value, order="C")


_QUEUES: dict[str, Service] = {INFEED: _infeed, OUTFEED: _outfeed, SEND: _send, RECV: _recv}
