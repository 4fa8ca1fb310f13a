"""dot on devices: sums of products over contracting dimensions.

`gemm_plan.py` chooses among kernels: a thread for each result (small products), warps for a few columns (few rows),
tiles in shared memory, multiplied by threads or, from sm_80 on, by matrix units where those give as much; on sm_90a by
units of warpgroups, where operands lie so that tiles are fetched whole. Floats below f32 are summed in f32 and rounded
once; integers wrap in the result's type. In a fusion, operands are read where they lie, or computed on the way into
shared memory, and the epilogue is applied to sums as they are stored.
"""

from __future__ import annotations

from math import gcd

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.gemm_mma import write_units
from hloc.codegen.gpu.gemm_parts import Operand, store_results, thread_number
from hloc.codegen.gpu.gemm_plan import GROUPS, PLAIN, THIN, UNITS, GemmPlan, dot_plan, gemm_plan, most_scratch
from hloc.codegen.gpu.gemm_simt import write_tiled
from hloc.codegen.gpu.gemm_thin import write_thin
from hloc.codegen.gpu.gemm_units import unit_of
from hloc.codegen.gpu.gemm_wgmma import write_groups
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat, delinearize
from hloc.codegen.products import multiply_accumulate
from hloc.codegen.routines import i64
from hloc.codegen.strided import Strided
from hloc.ir.instruction import Instruction

_THREADS = 256


def _computed(instruction: Instruction) -> list[int]:
    return [number for number, operand in enumerate(instruction.operands) if Strided.of(operand) is None]


def _scratch(instruction: Instruction, epilogue: Epilogue | None = None, is_fused: bool = False) -> int:
    dot = dot_plan(instruction, epilogue, is_fused)
    return most_scratch(dot, instruction) if dot.k and instruction.shape.count else 0


@gpu_kernel(
    "dot",
    element_operands=_computed,
    scratch=_scratch,
    fused_scratch=lambda instruction, epilogue: _scratch(instruction, epilogue, True),
    takes_epilogue=lambda instruction: True,
    strided=True,
    written_once=lambda instruction, epilogue: range(len(epilogue.roots)),
)
def dot(g: GpuStep, instruction: Instruction) -> None:
    if instruction.shape.count == 0:
        return
    product = dot_plan(instruction, g.form.epilogue, g.is_fused)
    if product.k == 0:
        _write_plain(g, GemmPlan(product, PLAIN))
        return
    unit = unit_of(product, instruction, g.device.sm, g.options)
    plan = gemm_plan(product, unit, g.device.shared_bytes, g.device.has_wgmma)
    if plan.kind == PLAIN:
        _write_plain(g, plan)
    elif plan.kind == THIN:
        write_thin(g, plan)
    elif plan.kind == GROUPS:
        write_groups(g, plan)
    elif plan.kind == UNITS:
        write_units(g, plan)
    else:
        write_tiled(g, plan)


def _write_plain(g: GpuStep, plan: GemmPlan) -> None:
    """A thread for each result, or a few neighbours: small products, and those of very few steps."""
    dot = plan.dot
    width = 1
    if dot.k <= 1:
        itemsize = max(view.shape.dtype.itemsize for view in g.step.outputs)
        width = gcd(max(1, 16 // itemsize), dot.n)
    count = plan.batches * dot.m * dot.n // width
    with g.launch(-(-count // _THREADS), _THREADS) as k:
        b, thread = k.b, thread_number(k)
        with b.if_then(b.icmp_unsigned("<", thread, i64(count))):
            batch, row, group = Flat(b, thread, [plan.batches, dot.m, dot.n // width]).parts()
            place = tuple(delinearize(b, batch, dot.batch))
            first = b.mul(group, i64(width))
            columns = [b.add(first, i64(number)) for number in range(width)]
            lhs, rhs = (Operand(k, side, place, dot.dtype) for side in (dot.lhs, dot.rhs))
            sums = [_sum(k, lhs, rhs, row, column) for column in columns]
            store_results(k, plan, place, row, columns, sums)


def _sum(k: GpuContext, lhs: Operand, rhs: Operand, row: Value, column: Value) -> Register:
    def step(index: Index, sums: list[Register]) -> list[Register]:
        x, y = lhs.element(row, index[0]), rhs.element(column, index[0])
        return [multiply_accumulate(k.b, lhs.dtype, x, y, sums[0])]

    return k.reduce_loop([lhs.steps], [scalar.constant(lhs.dtype, 0)], step)[0]
