"""The process of the `hloc` command, which is `python -m hloc` too."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import NoReturn

from hloc.quick_start import prepare

_GARBAGE = 200_000
"""Objects to make before Python looks for cycles among them. By default it does at every 700th: a tenth of a short
run goes into looking through modules and tables, which live as long as the process."""


_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
"""How many threads NumPy's products of matrices run on. Loading NumPy starts them, and each waits for its first work by
turning: for 20 ms, a processor that a short run has better use for. One also makes what the evaluator says the same
on all machines with one kind of processor."""


def main() -> NoReturn:
    """Run the command line, and end the process."""
    gc.set_threshold(_GARBAGE)
    os.environ.setdefault(_BLAS_THREADS, "1")
    prepare()
    try:
        import_module("hloc.cli").main()
        status = 0
    except SystemExit as leaving:
        if not isinstance(leaving.code, int | None):
            raise
        status = leaving.code or 0
    end(status)


def end(status: int) -> NoReturn:
    """Ends the process as it is. To take it apart, object by object, would take another tenth of a short run.

    An error while writing what is still buffered is left to Python's own end, which reports it. A profiler that
    reports at the end of the process wants `hloc.cli.main`, which returns to it.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(status)
    os._exit(status)


if __name__ == "__main__":
    main()
