"""Family loop."""

from __future__ import annotations

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.workload import Workload, f32, given, product_flops

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")

_NO_LOOPS = "a Python loop would be measured, step by step"
STEPS, BATCH, FEATURES, HIDDEN = 128, 16, 128, 256


def _lstm_jax(inputs, hidden, cell, from_input, from_hidden, bias):
    def step(carry, x):
        hidden, cell = carry
        gates = x @ from_input + hidden @ from_hidden + bias
        enter, forget, new, leave = jnp.split(gates, 4, -1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (hidden, cell), hidden

    return jax.lax.scan(step, (hidden, cell), inputs)[1]


def _lstm_torch(inputs, hidden, cell, from_input, from_hidden, bias):
    of_inputs, all_hidden = inputs @ from_input + bias, []
    for gates in of_inputs:
        enter, forget, new, leave = (gates + hidden @ from_hidden).chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        all_hidden.append(hidden)
    return torch.stack(all_hidden)


def _scalar_steps(x):
    return jax.lax.fori_loop(0, 1_000_000, lambda i, x: x * np.float32(0.999) + np.float32(0.25), x)


def _small_steps(x, matrix):
    return jax.lax.fori_loop(0, 10_000, lambda i, x: jnp.tanh(matrix @ x), x)


WORKLOADS = [
    Workload(
        "lstm_128",
        "loop",
        given(
            f32(STEPS, BATCH, FEATURES),
            f32(BATCH, HIDDEN),
            f32(BATCH, HIDDEN),
            f32(FEATURES, 4 * HIDDEN, low=-0.1, high=0.1),
            f32(HIDDEN, 4 * HIDDEN, low=-0.1, high=0.1),
            f32(4 * HIDDEN),
        ),
        jax=_lstm_jax,
        torch=_lstm_torch,
        flops=product_flops(STEPS, BATCH, FEATURES + HIDDEN, 4 * HIDDEN),
    ),
    Workload(
        "while_1e6",
        "loop",
        given(f32()),
        jax=_scalar_steps,
        left_out=dict.fromkeys(("torch", "inductor", "numpy"), _NO_LOOPS) | {"iree": "half a minute a call"},
        flops=2e6,
    ),
    Workload(
        "scan_small_10000",
        "loop",
        given(f32(8), f32(8, 8, low=-0.3, high=0.3)),
        jax=_small_steps,
        left_out=dict.fromkeys(("torch", "inductor", "numpy"), _NO_LOOPS),
        flops=10_000 * product_flops(8, 8),
    ),
]
