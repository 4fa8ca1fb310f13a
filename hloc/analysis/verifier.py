"""The verifier: every invariant of a module, by name. All faults are collected; nothing is raised.

INVARIANTS is the list. The code that finds a fault, the message and the tests name it by its label, and the
sentence here is what holds in a good module. Invariants of one op stand in its shape rule
(`hloc/ir/shape_rules/`), those of the whole in the `verify_*` files beside this one. They follow XLA's
HloVerifier, and go beyond it only where a module would have no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

from hloc.analysis.verify_async import async_faults
from hloc.analysis.verify_attributes import annotation_faults, attribute_faults
from hloc.analysis.verify_devices import device_faults
from hloc.analysis.verify_graph import graph_faults
from hloc.analysis.verify_module import module_faults
from hloc.analysis.verify_shapes import shape_faults
from hloc.errors import HloError, Span
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shape_inference import check_instruction
from hloc.records import record

INVARIANTS: dict[str, str] = {
    # The module.
    "MODULE_C1": "the entry is one of the module's computations",
    "MODULE_C2": "names of instructions, and of computations, are unique in the module",
    "MODULE_C3": "no computation calls itself, directly or through others",
    "MODULE_C4": "computations that are called belong to the module",
    "MODULE_C5": "replica_count and num_partitions are positive",
    "ENTRY_LAYOUT_C1": "entry_computation_layout has as many parameters as the entry",
    "ENTRY_LAYOUT_C2": "its parameter shapes are the entry's but for layouts",
    "ENTRY_LAYOUT_C3": "its result shape is the entry's but for layouts",
    "ALIAS_C1": "input_output_alias names an array of the result",
    "ALIAS_C2": "it names an array of a parameter",
    "ALIAS_C3": "both have as many bytes; the same shape where the alias is a must",
    "ALIAS_C4": "an array has at most one alias",
    "DONOR_C1": "buffer_donor names a parameter",
    "DONOR_C2": "a donor is not in input_output_alias too",
    # The graph.
    "COMPUTATION_C1": "a computation has a root among its instructions",
    "COMPUTATION_C2": "parameter numbers have no gap",
    "COMPUTATION_C3": "two parameters have two numbers",
    "OPERAND_C1": "operands are in the computation of their user",
    "OPERAND_C2": "operands come before their user",
    "CONTROL_C1": "control predecessors are in the same computation",
    "CONTROL_C2": "control predecessors come before what waits for them",
    "CONTROL_C3": "control edges are known at both ends",
    "USERS_C1": "the users of an instruction are those that have it as operand",
    # Shapes and layouts.
    "SHAPE_C1": "the declared result shape is the inferred one, but for layouts and dynamic dimensions",
    "SHAPE_C2": "a result shape that does not follow from the operands is declared",
    "SHAPE_C3": "64 bits can count the bytes of an array",
    "SHAPE_C4": "sizes are not negative, but for an unbounded dimension",
    "SHAPE_C5": "tokens and opaques have no dimensions",
    "LAYOUT_C1": "a layout orders each dimension once",
    "LAYOUT_C2": "tiles have positive sizes",
    "LAYOUT_C3": "split configurations name a dimension, and increasing indices",
    "LAYOUT_C4": "the numbers of a layout are not negative",
    # Operands and attributes of any op.
    "ARITY_C1": "an op has as many operands as its row in the op table says",
    "ATTRIBUTE_C1": "required attributes are present",
    "ATTRIBUTE_C2": "an op has no attribute but those of its row",
    "ATTRIBUTE_C3": "words are among the choices of their attribute",
    "ATTRIBUTE_C4": "attribute values are of their kind",
    "ARRAY_C1": "operands that are to be arrays are",
    "TYPE_C1": "element types are of a kind that the op takes",
    "TYPE_C2": "operands that are to have one element type do; precisions do not mix",
    "SCALAR_C1": "operands that are to be scalars are",
    "TOKEN_C1": "operands that are to be tokens are",
    "TUPLE_C1": "operands that are to be tuples are, and are long enough",
    "TUPLE_C2": "tuples nest 64 deep at most",
    "DIMENSIONS_C1": "dimension numbers are below the rank",
    "DIMENSIONS_C2": "no list names a dimension twice",
    "DIMENSIONS_C3": "lists that are to be in increasing order are",
    "DIMENSIONS_C4": "lists with an entry for each dimension have the right length",
    "DIMENSIONS_C5": "operands that are to have the same dimensions do",
    "WINDOW_C1": "a window has a dimension for each (spatial) dimension",
    "WINDOW_C2": "sizes, strides and dilations of a window are positive",
    "PRECISION_C1": "operand_precision has no more entries than there are operands",
    "ACCURACY_C1": "result_accuracy is a known mode, or tolerances that are not negative",
    "REPLICATION_C1": "parameter_replication has an entry for each leaf",
    "OUTPUT_ALIAS_C1": "output_to_operand_aliasing names an element of the result",
    "OUTPUT_ALIAS_C2": "it names an element of an operand",
    "OUTPUT_ALIAS_C3": "the two have one shape",
    # Called computations.
    "CALLED_C1": "a called computation takes as many parameters as it is given values",
    "CALLED_C2": "its parameters have the shapes of what it is given",
    "CALLED_C3": "it returns what the op expects",
    "CALLED_C4": "it is whole",
    "COMPOSITE_C1": "a composite call has a name in its frontend_attributes",
    # Elementwise ops.
    "REDUCE_PRECISION_C1": "a reduced float has an exponent",
    "COMPARE_C1": "the type of a comparison compares such elements",
    "COMPLEX_C1": "the parts of a complex number are f32 or f64",
    "STOCHASTIC_CONVERT_C1": "random numbers are as wide as the operand's elements",
    "MAP_C1": "a map goes over all dimensions in order",
    # Moving data.
    "BITCAST_C1": "a bitcast keeps the number of bytes",
    "BITCAST_CONVERT_C1": "a bitcast-convert is between complex types, or between others",
    "BITCAST_CONVERT_C2": "one width divides the other",
    "BITCAST_CONVERT_C3": "elements that make up a wider one are the last dimension",
    "BROADCAST_C1": "operand dimensions have the size of those that they become",
    "CONCATENATE_C1": "operands differ only in the dimension of concatenation",
    "PAD_C1": "interior padding is not negative",
    "PAD_C2": "padding leaves no negative size",
    "RESHAPE_C1": "a reshape keeps the number of elements",
    "DYNAMIC_RESHAPE_C1": "a dynamic-reshape has a size for each dimension",
    "SLICE_C1": "strides are positive",
    "SLICE_C2": "0 <= start <= limit <= size",
    "SHUFFLE_C1": "a rotation has a shift for each dimension",
    "SHUFFLE_C2": "a shuffle rotates or permutes",
    "SHUFFLE_C3": "a permutation has integer indices for each place",
    "INDICES_C1": "there is a start index for each dimension",
    "DYNAMIC_SLICE_C1": "a slice fits in its operand",
    "DYNAMIC_UPDATE_SLICE_C1": "an update has the rank of its operand",
    "DYNAMIC_UPDATE_SLICE_C2": "an update fits in its operand",
    "DIMENSION_SIZE_C1": "a size that is asked for fits in s32",
    "INDEX_VECTOR_C1": "index vectors have an entry for each dimension that they index",
    "BATCHING_C1": "batching dimensions have no other part",
    "BATCHING_C2": "batching dimensions have the same size on both sides",
    "WINDOW_DIMS_C1": "window, dropped and batching dimensions make up the operand",
    "GATHER_C1": "slices of a gather fit in its operand",
    "GATHER_C2": "dimensions that a gather drops have a slice size of 0 or 1",
    "SCATTER_C1": "a scatter has operands, indices and as many updates as operands",
    "SCATTER_C2": "updates have the rank of their batch and window dimensions",
    "SCATTER_C3": "windows of updates fit in the operand",
    "SCATTER_C4": "updates have the batch dimensions of the indices",
    # Sums of products.
    "DOT_C1": "a dimension is either contracting, or batch, or group, or kept",
    "DOT_C2": "both operands have as many contracting, and as many batch dimensions",
    "DOT_C3": "dimensions that go together have the same size",
    "SCALED_DOT_C1": "a scale has a value for each block of its operand",
    "RAGGED_DOT_C1": "rhs has a group dimension exactly where the ragged one is kept",
    "RAGGED_DOT_C2": "there is a size for each group",
    "CONVOLUTION_C1": "operands have the rank of dim_labels",
    "CONVOLUTION_C2": "each part of dim_labels names each dimension once",
    "CONVOLUTION_C3": "the window has the size of the kernel",
    "CONVOLUTION_C4": "group counts are positive, one of them 1",
    "CONVOLUTION_C5": "input features are those of the kernel in each feature group",
    "CONVOLUTION_C6": "output features can be split into groups",
    "CONVOLUTION_C7": "the batch can be split into groups",
    "FFT_C1": "an fft is over one to three dimensions that the operand has",
    "FFT_C2": "an RFFT takes f32 or f64, the others complex numbers",
    "FFT_C3": "fft_length fits the operand's last dimensions",
    "CHOLESKY_C1": "the matrices are square",
    "TRIANGULAR_SOLVE_C1": "the matrices of a are square",
    "TRIANGULAR_SOLVE_C2": "b goes with a",
    "TRIANGULAR_SOLVE_C3": "transpose_a is given",
    # Folds.
    "REDUCE_C1": "there are as many initial values as inputs",
    "SELECT_AND_SCATTER_C1": "the source has an element for each window",
    "SCAN_C1": "num_carries is a number of operands",
    "SCAN_C2": "a scan has an input",
    "SCAN_C3": "inputs have the same number of steps",
    "SCAN_C4": "outputs have a place for the scanned dimension",
    "TOPK_C1": "k is at most the size of the last dimension",
    "BATCH_NORM_C1": "scale, offset, mean and variance have an entry for each feature",
    # Values from nowhere, tuples, transfers.
    "CONSTANT_C1": "a constant has the shape of its literal",
    "GET_TUPLE_ELEMENT_C1": "the index is that of an element",
    "CUSTOM_CALL_C1": "there are none or all operand_layout_constraints",
    "CUSTOM_CALL_C2": "layout constraints have the operands' shapes",
    "CUSTOM_CALL_C3": "annotations by custom call keep their operand's shape",
    "INFEED_C1": "an infeed gives (data, token[])",
    "OUTFEED_C1": "outfeed_shape is the operand's shape",
    "TRANSFER_C1": "what send and recv begin is (data, u32[], token[])",
    "COPY_DONE_C1": "destination and source of a copy have one shape",
    "RNG_C1": "rng has two operands",
    "RNG_C2": "the distribution has numbers of that type",
    "RNG_C3": "random bits are integers",
    "RNG_C4": "a state is as long as the algorithm's",
    # Control flow and asynchronous work.
    "CONDITIONAL_C1": "pred[] chooses between a true and a false branch, s32[] from a list of them",
    "CONDITIONAL_C2": "a branch is chosen by pred[] or s32[]",
    "CONDITIONAL_C3": "each branch has an operand",
    "ASYNC_C1": "what an async-start begins is ((operands), result, ...)",
    "PAIR_C1": "what is begun has one user, which goes on with it or ends it",
    "PAIR_C2": "what goes on or ends was begun",
    "PAIR_C3": "it names the computation that was begun",
    "CHANNEL_C1": "a transfer and its end agree on channel_id and is_host_transfer",
    "THREAD_C1": "an async computation runs on the thread that its instruction names",
    "THREAD_C2": "fused, loop and branch computations run on the thread of their caller",
    # Devices.
    "REPLICA_GROUPS_C1": "counted groups are a matrix of all counted devices",
    "REPLICA_GROUPS_C2": "no group is empty",
    "REPLICA_GROUPS_C3": "no device is named twice",
    "REPLICA_GROUPS_C4": "devices are numbered from 0 without gap",
    "REPLICA_GROUPS_C5": "groups name all devices that the module has",
    "REPLICA_GROUPS_C6": "use_global_device_ids comes with a channel_id and with groups",
    "REPLICA_GROUPS_C7": "groups are of one size, but for all-reduce",
    "SOURCE_TARGET_C1": "source_target_pairs are pairs",
    "SOURCE_TARGET_C2": "sources and targets are devices of the module",
    "SOURCE_TARGET_C3": "a device sends once and receives once",
    "ALL_GATHER_C1": "the gathered dimension grows by a whole number",
    "ALL_GATHER_C2": "it grows by the size of a group",
    "REDUCE_SCATTER_C1": "the scattered dimension is shared out in whole parts",
    "REDUCE_SCATTER_C2": "there are as many parts as a group has devices",
    "ALL_TO_ALL_C1": "an all-to-all has one operand and a dimension, or an operand for each device",
    "ALL_TO_ALL_C2": "the dimension can be split among a group",
    "COLLECTIVE_PERMUTE_C1": "slices that are sent fit into both arrays",
    "COLLECTIVE_PERMUTE_C2": "there is a start for each dimension of them",
    "RAGGED_ALL_TO_ALL_C1": "offsets and sizes are vectors or matrices",
    "COLLECTIVE_ROOT_C1": "a dynamic root is one number",
    "SHARDING_C1": "a tuple sharding has an entry for each leaf",
    "SHARDING_C2": "a sharding cuts dimensions that there are",
    "SHARDING_C3": "a sharding names a device once",
    "SHARDING_C4": "a sharding names devices of the module",
}


@record
class Diagnostic:
    """One fault: the sentence, its place in the text (or None), the label of the broken invariant."""

    message: str
    span: Span | None
    label: str
    severity: str = "error"
    hint: str | None = None

    def __str__(self) -> str:
        return str(HloError(self.message, self.span, label=self.label, hint=self.hint))


# What stands at its own place: the incomplete computation itself, the groups of every collective.
_REPORTED_ELSEWHERE = ("CALLED_C4", "REPLICA_GROUPS_C1")

_Check = Callable[[Module, Sequence[Instruction]], Iterator[HloError]]
_OF_SINGLE_ONES: tuple[_Check, ...] = (shape_faults, device_faults)


@record
class Scope:
    """What a change may have broken in a module that was good before it.

    `instructions` are those that may be ill-formed by themselves. The users of those `linked` may not be those that
    they list, and what begins or ends asynchronous work may have lost its other end. In `computations` the order,
    the parameters or the root may be wrong; `calls` says that of the calls among computations.
    """

    instructions: Sequence[Instruction]
    linked: Sequence[Instruction]
    computations: Set[Computation]
    calls: bool


def verify(module: Module, scope: Scope | None = None) -> list[Diagnostic]:
    """All faults of a module, in the order of the text; an empty list for a good one.

    Values that are not of their attribute's kind, which no text makes, are told alone: all else reads them.
    With `scope` faults are looked for only there: the rest is as it was when it was found good.
    """
    instructions = [instruction for computation in module for instruction in computation.instructions]
    single, linked = (instructions, instructions) if scope is None else (scope.instructions, scope.linked)
    faults = [fault for instruction in single for fault in attribute_faults(instruction)]
    if not faults:
        faults += module_faults(module, instructions, calls=scope is None or scope.calls)
        faults += graph_faults([c for c in module if scope is None or c in scope.computations], linked)
        faults += async_faults(module, linked)
        faults += [fault for check in _OF_SINGLE_ONES for fault in check(module, single)]
        for instruction in single:
            faults.extend(_instruction_faults(instruction))
    faults.sort(key=lambda fault: (fault.span is not None, fault.span.start if fault.span else 0))
    return [Diagnostic(fault.message, fault.span, fault.label or "", hint=fault.hint) for fault in faults]


def _instruction_faults(instruction: Instruction) -> list[HloError]:
    faults = list(annotation_faults(instruction)) if instruction.annotations or instruction.attributes else []
    try:
        check_instruction(instruction)
    except HloError as fault:
        if fault.label not in _REPORTED_ELSEWHERE:
            faults.append(fault)
    return faults
