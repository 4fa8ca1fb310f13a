"""Writes samples/*.hlo: small programs traced by JAX, each under a line that says what it shows.

    python tools/make_samples.py samples
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

f32 = jnp.float32


def array(*dims: int, dtype: object = f32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def chain(x):
    y = x * 1.5
    y = y + 0.25
    y = jnp.abs(y)
    y = y * x
    y = jnp.sqrt(y + 1.0)
    y = y - x
    y = jnp.maximum(y, -2.0)
    y = y * 0.5
    return jnp.tanh(y)


def mlp_loss(params, x, labels):
    for weights, bias in params[:-1]:
        x = jax.nn.relu(x @ weights + bias)
    weights, bias = params[-1]
    log_probabilities = jax.nn.log_softmax(x @ weights + bias)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def mlp_train_step(params, x, labels):
    loss, gradients = jax.value_and_grad(mlp_loss)(params, x, labels)
    return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)


def attention(x, w_query, w_key, w_value, w_out):
    length, width = x.shape
    heads = 4
    query, key, value = ((x @ w).reshape(length, heads, width // heads) for w in (w_query, w_key, w_value))
    scores = jnp.einsum("qhd,khd->hqk", query, key) / jnp.sqrt(width / heads).astype(f32)
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e30)
    mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), value)
    return x + mixed.reshape(length, width) @ w_out


def convolution(images, filters, bias):
    y = jax.lax.conv_general_dilated(images, filters, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = jax.nn.relu(y + bias)
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def rnn_scan(w_state, w_input, inputs):
    def step(state, x):
        state = jnp.tanh(w_state @ state + w_input @ x)
        return state, state.sum()

    return jax.lax.scan(step, jnp.zeros(w_state.shape[0]), inputs)


def newton(x):
    """The square root of x by Newton's method, until it moves no more."""

    def moving(state):
        guess, last, step = state
        return (jnp.abs(guess - last) > 1e-6) & (step < 50)

    def improve(state):
        guess, _, step = state
        return (0.5 * (guess + x / guess), guess, step + 1)

    guess, _, steps = jax.lax.while_loop(moving, improve, (x, jnp.zeros(()), 0))
    return guess, steps


def random_normal():
    key, first = jax.random.split(jax.random.PRNGKey(42))
    return jax.random.normal(first, (4, 4)), key


LAYERS = [(array(64, 128), array(128)), (array(128, 10), array(10))]

SAMPLES: list[tuple[Callable, tuple, str]] = [
    (softmax, (array(64, 512),), "Softmax of rows: two reductions, broadcasts, and the elementwise ops around them."),
    (chain, (array(1024, 1024),), "Ten elementwise ops in a row: they become one kernel, one read and one write."),
    (
        mlp_train_step,
        (LAYERS, array(32, 64), array(32, dtype=jnp.int32)),
        "A training step of a two-layer network: loss, gradients by value_and_grad, and the updated parameters.",
    ),
    (
        attention,
        (array(32, 64), *(array(64, 64),) * 4),
        "A causal attention block with four heads: dots with batch dimensions, a mask, softmax, a residual.",
    ),
    (
        convolution,
        (array(2, 16, 16, 3), array(3, 3, 3, 8), array(8)),
        "A 3x3 convolution with bias, relu and 2x2 max pooling (reduce-window).",
    ),
    (rnn_scan, (array(16, 16), array(16, 8), array(20, 8)), "A recurrent network over 20 steps: scan is a while loop."),
    (newton, (array(),), "A loop whose number of steps depends on the data: while with a tuple of scalars."),
    (random_normal, (), "Random numbers from a key: JAX's threefry in integer operations, with no argument at all."),
]


def main(folder: str) -> None:
    for function, arguments, shows in SAMPLES:
        text = jax.jit(function).lower(*arguments).as_text(dialect="hlo")
        path = Path(folder, f"{function.__name__}.hlo")
        path.write_text(f"// {shows}\n\n{text.strip()}\n")
        print(path, len(text))


if __name__ == "__main__":
    main(*sys.argv[1:])
