"""Family model: training steps and inference of whole networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.convolution import convolve, image_for_torch, kernel_for_torch
from tools.bench.workloads.workload import Maker, Workload, constant, f32, given, normal, product_flops, s32

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")

RATE = 0.1  # of learning


def _cross_entropy(scores, labels):
    """The mean over all but the last dimension, by JAX."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[..., None], -1).mean()


def _descend(loss_and_gradients, weights):
    """(loss, every weight after one step)."""
    loss, gradients = loss_and_gradients(list(weights))
    return (loss, *(weight - RATE * gradient for weight, gradient in zip(weights, gradients)))


def _descend_jax(loss, weights):
    return _descend(jax.value_and_grad(loss), weights)


def _descend_torch(loss, weights):
    return _descend(lambda weights: torch.func.grad_and_value(loss)(weights)[::-1], weights)


# A network of two layers

PIXELS, HIDDEN, DIGITS, IMAGES = 784, 512, 10, 64


def _mlp_jax(*arrays):
    *weights, images, labels = arrays

    def loss(weights):
        w1, b1, w2, b2 = weights
        return _cross_entropy(jax.nn.relu(images @ w1 + b1) @ w2 + b2, labels)

    return _descend_jax(loss, weights)


def _mlp_torch(*arrays):
    *weights, images, labels = arrays

    def loss(weights):
        w1, b1, w2, b2 = weights
        return torch.nn.functional.cross_entropy(torch.relu(images @ w1 + b1) @ w2 + b2, labels.long())

    return _descend_torch(loss, weights)


_MLP = Workload(
    "mlp_train_64",
    "model",
    given(
        normal(PIXELS, HIDDEN, scale=0.05),
        constant(0, HIDDEN),
        normal(HIDDEN, DIGITS, scale=0.05),
        constant(0, DIGITS),
        f32(IMAGES, PIXELS, low=0),
        s32(DIGITS, IMAGES),
    ),
    jax=_mlp_jax,
    torch=_mlp_torch,
    flops=product_flops(IMAGES, PIXELS * HIDDEN * 2 + HIDDEN * DIGITS * 3),
)


# A transformer that predicts the next token

LAYERS, WIDTH, LENGTH, BATCH, HEADS, TOKENS = 4, 256, 128, 4, 8, 512


def _gpt_weights() -> list[Maker]:
    layer = [
        constant(1, WIDTH),
        normal(WIDTH, 3 * WIDTH, scale=0.02),
        normal(WIDTH, WIDTH, scale=0.02),
        constant(1, WIDTH),
        normal(WIDTH, 4 * WIDTH, scale=0.02),
        normal(4 * WIDTH, WIDTH, scale=0.02),
    ]
    embeddings = [normal(TOKENS, WIDTH, scale=0.02), normal(LENGTH, WIDTH, scale=0.02)]
    return [*embeddings, *layer * LAYERS, constant(1, WIDTH)]


def _layers(weights: Sequence) -> Iterator[Sequence]:
    return (weights[2 + 6 * number : 8 + 6 * number] for number in range(LAYERS))


def _normed(x, scale):
    centered = x - x.mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + 1e-5) * scale


def _gpt_jax(*arrays):
    *weights, tokens = arrays
    hidden = weights[0][tokens] + weights[1]
    seen = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    for norm1, to_qkv, from_heads, norm2, up, down in _layers(weights):
        parts = jnp.split(_normed(hidden, norm1) @ to_qkv, 3, -1)
        q, k, v = (part.reshape(BATCH, LENGTH, HEADS, -1).transpose(0, 2, 1, 3) for part in parts)
        scores = jnp.where(seen, q @ k.transpose(0, 1, 3, 2) / math.sqrt(WIDTH // HEADS), -1e9)
        mixed = (jax.nn.softmax(scores, -1) @ v).transpose(0, 2, 1, 3)
        hidden = hidden + mixed.reshape(BATCH, LENGTH, WIDTH) @ from_heads
        hidden = hidden + jax.nn.gelu(_normed(hidden, norm2) @ up, approximate=True) @ down
    return _normed(hidden, weights[-1]) @ weights[0].T


def _gpt_torch(*arrays):
    *weights, tokens = arrays
    functional = torch.nn.functional
    hidden = weights[0][tokens.long()] + weights[1]
    for norm1, to_qkv, from_heads, norm2, up, down in _layers(weights):
        parts = (functional.layer_norm(hidden, (WIDTH,), norm1) @ to_qkv).chunk(3, -1)
        q, k, v = (part.reshape(BATCH, LENGTH, HEADS, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        hidden = hidden + mixed.reshape(BATCH, LENGTH, WIDTH) @ from_heads
        inner = functional.gelu(functional.layer_norm(hidden, (WIDTH,), norm2) @ up, approximate="tanh")
        hidden = hidden + inner @ down
    return functional.layer_norm(hidden, (WIDTH,), weights[-1]) @ weights[0].t()


def _gpt_step_jax(*arrays):
    *weights, tokens, labels = arrays
    return _descend_jax(lambda weights: _cross_entropy(_gpt_jax(*weights, tokens), labels), weights)


def _gpt_step_torch(*arrays):
    *weights, tokens, labels = arrays

    def loss(weights):
        scores = _gpt_torch(*weights, tokens)
        return torch.nn.functional.cross_entropy(scores.reshape(-1, TOKENS), labels.reshape(-1).long())

    return _descend_torch(loss, weights)


def _gpt_flops() -> float:
    rows = BATCH * LENGTH
    layer = product_flops(rows, WIDTH, 12 * WIDTH) + 2 * product_flops(rows, LENGTH, WIDTH)
    return LAYERS * layer + product_flops(rows, WIDTH, TOKENS)


_tokens = s32(TOKENS, BATCH, LENGTH)
_GPT_STEP = Workload(
    "gpt_train",
    "model",
    given(*_gpt_weights(), _tokens, _tokens),
    jax=_gpt_step_jax,
    torch=_gpt_step_torch,
    flops=3 * _gpt_flops(),
    tolerance=1e-4,
)
_GPT = Workload(
    "gpt_fwd",
    "model",
    given(*_gpt_weights(), _tokens),
    jax=_gpt_jax,
    torch=_gpt_torch,
    flops=_gpt_flops(),
    tolerance=1e-4,
)


# ResNet-18 with its batch normalizations as they are at inference: a scale and a shift

SIDE, CLASSES = 224, 1000
BLOCKS = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))  # (channels, stride)


def _resnet_convolutions() -> Iterator[tuple[int, int, int, int]]:
    """(kernel's side, channels in and out, side of the result), in the order of their use."""
    yield 7, 3, 64, SIDE // 2
    before, side = 64, SIDE // 4
    for channels, stride in BLOCKS:
        side //= stride
        yield 3, before, channels, side
        yield 3, channels, channels, side
        if channels != before:
            yield 1, before, channels, side
        before = channels


def _resnet_inputs() -> list[Maker]:
    makers = [f32(1, SIDE, SIDE, 3, low=0)]
    for side, before, channels, _ in _resnet_convolutions():
        scale = 0.7 * math.sqrt(2 / (side * side * before))
        makers.append(normal(side, side, before, channels, scale=scale))
        makers += [f32(channels, low=0.9, high=1.1), normal(channels, scale=0.01)]
    return [*makers, normal(512, CLASSES, scale=0.05), constant(0, CLASSES)]


def _resnet(x, weights, convolution, relu, pool):
    """The features before the last layer; `convolution` takes (image, weights, stride, padding)."""

    def layer(x, stride, padding):
        kernel, scale, shift = next(weights), next(weights), next(weights)
        return convolution(x, kernel, stride, padding) * scale + shift

    x, before = pool(relu(layer(x, 2, 3))), 64
    for channels, stride in BLOCKS:
        inner = layer(relu(layer(x, stride, 1)), 1, 1)
        skipped = x if channels == before else layer(x, stride, 0)
        x, before = relu(inner + skipped), channels
    return x


def _resnet_jax(image, *weights):
    def pool(x):
        window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)

    *of_layers, last, bias = weights
    features = _resnet(image, iter(of_layers), convolve, jax.nn.relu, pool)
    return features.mean((1, 2)) @ last + bias


def _resnet_torch(image, *weights):
    functional = torch.nn.functional

    def convolution(x, kernel, stride, padding):
        return functional.conv2d(x, kernel, stride=stride, padding=padding)

    *of_layers, last, bias = weights
    pool = lambda x: functional.max_pool2d(x, 3, 2, 1)  # noqa: E731
    features = _resnet(image, iter(of_layers), convolution, functional.relu, pool)
    return features.mean((2, 3)) @ last + bias


def _resnet_for_torch(arrays: Sequence[np.ndarray]) -> list:
    image, *of_layers, last, bias = arrays
    tensors = [image_for_torch(image)]
    for array in of_layers:
        tensors.append(kernel_for_torch(array) if array.ndim == 4 else torch.from_numpy(array)[:, None, None])
    return [*tensors, torch.from_numpy(last), torch.from_numpy(bias)]


_RESNET = Workload(
    "resnet18_b1",
    "model",
    given(*_resnet_inputs()),
    jax=_resnet_jax,
    torch=_resnet_torch,
    torch_inputs=_resnet_for_torch,
    flops=sum(product_flops(out, out, k, k, i, o) for k, i, o, out in _resnet_convolutions())
    + product_flops(512, CLASSES),
    tolerance=1e-4,
)

WORKLOADS = [_MLP, _GPT_STEP, _GPT, _RESNET]
