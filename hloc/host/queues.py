"""The host's side of a device that feeds and is fed while a program runs: infeed, outfeed, send and recv."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any


class Channel:
    """A channel of send and recv, as the host sees it: what it puts, recv takes; what send gives, it gets."""

    def __init__(self) -> None:
        self.to_device: SimpleQueue[Any] = SimpleQueue()
        self.from_device: SimpleQueue[Any] = SimpleQueue()

    def put(self, value: Any) -> None:
        """Gives a value to the device's next recv."""
        self.to_device.put(value)

    def get(self, timeout: float | None = None) -> Any:
        """The next value that the device sends; `queue.Empty` if none has come after `timeout` seconds."""
        return self.from_device.get(timeout=timeout)


class HostQueues:
    """The queues of one device, first in first out; any thread may use them.

    `infeed.put(value)` is for the device's infeed, `outfeed.get(timeout=...)` gives what its outfeed gave,
    `channel(number)` is one of its channels of send and recv. Values are arrays, or tuples of them.
    `attended` says that somebody has asked for them, who may give or take values later.
    """

    def __init__(self) -> None:
        self.infeed: SimpleQueue[Any] = SimpleQueue()
        self.outfeed: SimpleQueue[Any] = SimpleQueue()
        self.attended = False
        self._channels: dict[int, Channel] = {}

    def channel(self, number: int) -> Channel:
        """The channel of that number."""
        return self._channels.setdefault(number, Channel())
