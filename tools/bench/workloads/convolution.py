"""Families conv and attention. Images are NHWC; torch has the same memory by its `channels_last` format."""

from __future__ import annotations

import math

from hloc.lazy import lazy
from tools.bench.workloads.workload import Workload, f32, given, product_flops

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")


def convolve(image, kernel, stride: int, padding: int, groups: int = 1):
    """By JAX: NHWC and HWIO, the same padding on all sides."""
    return jax.lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def image_for_torch(image):
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def kernel_for_torch(kernel):
    return torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _convolution(name: str, image: tuple[int, ...], kernel: tuple[int, ...], stride: int, groups: int) -> Workload:
    padding = kernel[0] // 2
    side = image[1] // stride

    def by_torch(x, weights):
        result = torch.nn.functional.conv2d(x, weights, stride=stride, padding=padding, groups=groups)
        return result.permute(0, 2, 3, 1)

    return Workload(
        name,
        "conv",
        given(f32(*image), f32(*kernel)),
        jax=lambda x, weights: convolve(x, weights, stride, padding, groups),
        torch=by_torch,
        torch_inputs=lambda arrays: [image_for_torch(arrays[0]), kernel_for_torch(arrays[1])],
        flops=product_flops(image[0], side, side, *kernel),
    )


def _convolutions() -> list[Workload]:
    return [
        _convolution("conv3x3_64_56", (1, 56, 56, 64), (3, 3, 64, 64), 1, 1),
        _convolution("conv3x3_256_14", (1, 14, 14, 256), (3, 3, 256, 256), 1, 1),
        _convolution("conv3x3_64_56_b8", (8, 56, 56, 64), (3, 3, 64, 64), 1, 1),
        _convolution("conv1x1_256_56", (1, 56, 56, 256), (1, 1, 256, 64), 1, 1),
        _convolution("conv7x7_stem", (1, 224, 224, 3), (7, 7, 3, 64), 2, 1),
        _convolution("conv3x3_dw_56", (1, 56, 56, 128), (3, 3, 1, 128), 1, 128),
    ]


def _attend(queries, keys, values):
    scores = jnp.einsum("bhqd,bhkd->bhqk", queries, keys) / math.sqrt(queries.shape[-1])
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores, -1), values)


def _attention(length: int) -> Workload:
    heads, depth = 8, 64
    part = f32(1, heads, length, depth)
    return Workload(
        f"attn_{length}",
        "attention",
        given(part, part, part),
        jax=_attend,
        torch=lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v),
        flops=2 * product_flops(heads, length, length, depth),
    )


WORKLOADS = [*_convolutions(), _attention(512), _attention(2048)]
