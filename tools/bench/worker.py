"""One peer in a process of its own: requests as lines of JSON on standard input, answers on standard output.

Whatever a peer prints goes to standard error. An answer is `{"ok": ...}` or `{"error": "..."}`.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import numpy as np

from tools.bench import peers, tasks


def timed(call: Callable[[], object], calls: int, group: int, warm: int) -> dict[str, float]:
    """Seconds a call: median and least of groups between two looks at the clock, and of all processors together."""
    clock, seconds = time.perf_counter, []
    for _ in repeat(None, warm):
        call()
    gc.collect()
    gc.disable()
    processor = time.process_time()
    for _ in range(max(1, calls // group)):
        start = clock()
        for _ in repeat(None, group):
            call()
        seconds.append((clock() - start) / group)
    processor = time.process_time() - processor
    gc.enable()
    seconds.sort()
    return {
        "median": seconds[len(seconds) // 2],
        "least": seconds[0],
        "cpu": processor / (len(seconds) * group),
    }


class Worker:
    """Answers requests; keeps the peer, which keeps what it has prepared."""

    def __init__(self) -> None:
        self._peers: dict[str, object] = {}
        self._peer = None

    def answer(self, request: dict) -> object:
        return getattr(self, request.pop("op"))(**request)

    def missing(self, peer: str) -> list[str]:
        return peers.missing(peer)

    def versions(self, peer: str) -> list[str]:
        return peers.versions(peer)

    def lower(self, name: str, folder: str) -> dict[str, int]:
        return tasks.lower(name, Path(folder))

    def prepare(self, peer: str, name: str, folder: str, programs: str | None, results: str) -> dict | None:
        """Facts, and a verdict on the results, or else the results in a file; None if the peer has no such task."""
        task = tasks.task_named(name, Path(folder), Path(programs) if programs else None)
        if peer not in self._peers:
            self._peers[peer] = peers.peer_class(peer)()
        self._peer = self._peers[peer]
        facts = self._peer.prepare(task)
        if facts is None:
            return None
        outputs = self._peer.outputs()
        if task.check is not None:
            return facts | {"wrong": task.check(outputs)}
        np.savez(results, *map(_portable, outputs))
        return facts

    def time(self, calls: int, group: int, warm: int) -> dict[str, float]:
        return timed(self._peer.call, calls, group, warm)

    def peak(self) -> float:
        """Megabytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _portable(array: np.ndarray) -> np.ndarray:
    """With an element type that NumPy's files know."""
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = {"ok": worker.answer(json.loads(line))}
        except Exception as error:  # whatever a peer does is a row of the report
            traceback.print_exc()
            first = str(error).strip().split("\n")[0]
            answer = {"error": f"{type(error).__name__}: {first}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
