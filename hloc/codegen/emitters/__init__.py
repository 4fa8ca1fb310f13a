"""The emitters, a file a family. Importing this fills the tables ELEMENTS and KERNELS."""

from hloc.codegen.emitters import (
    collectives,
    convolution,
    custom_calls,
    data_movement,
    dot,
    elementwise,
    fft,
    host,
    indexing,
    linalg,
    reduce,
    reduce_window,
    rng,
    scatter,
    select_and_scatter,
    sort,
)

__all__ = [
    "collectives",
    "convolution",
    "custom_calls",
    "data_movement",
    "dot",
    "elementwise",
    "fft",
    "host",
    "indexing",
    "linalg",
    "reduce",
    "reduce_window",
    "rng",
    "scatter",
    "select_and_scatter",
    "sort",
]
