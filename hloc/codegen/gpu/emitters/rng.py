"""Random bits: each thread makes those of its own counter."""

from __future__ import annotations

from math import prod

from hloc.codegen.emitters.rng import draws_of, update_state
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.grids import THREADS, blocks_for
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction


@gpu_kernel("rng-bit-generator")
def rng_bit_generator(g: GpuStep, instruction: Instruction) -> None:
    bits = instruction.shape.elements[1]
    with g.launch(blocks_for(bits.count), THREADS) as k:
        draws, thread = draws_of(k, instruction), k.global_index()
        with k.b.if_then(k.b.icmp_unsigned("<", thread, i64(prod(draws.dims)))):
            draws.one(tuple(delinearize(k.b, thread, draws.dims)))
        if draws.rest is not None:
            with k.b.if_then(k.b.icmp_signed("==", thread, i64(prod(draws.dims)))):
                draws.rest()
        with k.b.if_then(k.b.icmp_signed("==", thread, i64(0))):
            for position, value in enumerate(draws.state):
                k.outputs[0].store((i64(position),), value)


@gpu_kernel("rng-get-and-update-state")
def rng_get_and_update_state(g: GpuStep, instruction: Instruction) -> None:
    with g.launch(1, 1) as k:
        update_state(k, instruction)
