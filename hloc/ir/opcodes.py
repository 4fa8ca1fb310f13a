"""THE op table: one row for each of HLO's 136 opcodes.

A row names the operands it takes, its own attributes (those that every instruction may carry are in
COMMON), its traits, the shape rule (a function of that name in `shape_inference.py`) and its meaning. The
parser, the verifier, the printer and the builder read what they need from here; `hloc/reference` holds a
function for every row. The table is one, so the file is longer than others.
"""

from __future__ import annotations

from hloc.ir.attributes import Window
from hloc.records import record

# Kinds of attribute value, and the Python value of each.
INT = "int"  # int
BOOL = "bool"  # bool
FLOAT_VALUE = "float"  # float
DIMS = "dims"  # tuple of ints
STRING = "string"  # str
ENUM = "enum"  # str, one of the choices
ENUMS = "enums"  # tuple of str, each one of the choices
COMPUTATION = "computation"  # Computation
COMPUTATIONS = "computations"  # tuple of Computations
LITERAL = "literal"  # Literal
SHAPE = "shape"  # Shape
SHAPES = "shapes"  # tuple of Shapes
WINDOW = "window"  # attributes.Window
CONV_DIMS = "conv_dims"  # attributes.ConvDims
SLICE = "slice"  # tuple of attributes.SliceDim
PADDING = "padding"  # tuple of attributes.PadDim
GROUPS = "groups"  # attributes.ReplicaGroups
LISTS = "lists"  # tuple of tuples of ints: {{0,1},{1,0}}
ALIASES = "aliases"  # tuple of attributes.Alias
ACCURACY = "accuracy"  # attributes.ResultAccuracy
DOMAIN = "domain"  # sharding.Domain
SHARDING = "sharding"  # sharding.Sharding
METADATA = "metadata"  # attributes.Metadata
DICTIONARY = "dictionary"  # tuple of (key, str | Raw) pairs, sorted by key
CONFIG = "config"  # str | Raw
INSTRUCTIONS = "instructions"  # tuple of Instructions
ORIGIN = "origin"  # attributes.Raw
STATISTICS = "statistics"  # attributes.Raw
BOOLS = "bools"  # tuple of bools
RAW = "raw"  # attributes.Raw


@record
class Attribute:
    """What a row says of one attribute. A value equal to `default` is not stored in the instruction."""

    name: str
    kind: str
    required: bool = False
    default: object = None
    choices: tuple[str, ...] = ()


# Traits.
ELEMENTWISE = "elementwise"  # each result element depends on the operands' elements at its index alone
COMMUTATIVE = "commutative"  # the two operands may change places
SIDE_EFFECT = "side effect"  # must not be removed, merged or moved across another one
IMPURE = "impure"  # two executions may differ: never folded, never merged
COLLECTIVE = "collective"  # takes part with other devices
MOVES_DATA = "moves data"  # every result element is an element of an operand (or a fill value)
REDUCES = "reduces"  # folds many elements into one by a computation
CALLS = "calls"  # runs computations as control flow: call, while, conditional, fusion, async
NEW = "new"  # not known to jaxlib 0.10.2, taken from XLA's head


@record
class Op:
    """One row: `arity` is (least, most) with None for no limit."""

    name: str
    arity: tuple[int, int | None]
    rule: str
    meaning: str
    attributes: dict[str, Attribute]
    traits: frozenset[str] = frozenset()

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def has(self, trait: str) -> bool:
        return trait in self.traits

    @property
    def is_elementwise(self) -> bool:
        return ELEMENTWISE in self.traits


OPS: dict[str, Op] = {}


def _attribute(text: str) -> Attribute:
    """`name:kind`, `name!:kind` for a required one."""
    name, kind = text.split(":")
    required = name.endswith("!")
    name = name.rstrip("!")
    choices = CHOICES.get(name, ())
    default: object = {
        BOOL: False,
        DIMS: (),
        LISTS: (),
        ALIASES: (),
        SHAPES: (),
        COMPUTATIONS: (),
    }.get(kind)
    if name in DEFAULTS:
        default = DEFAULTS[name]
    return Attribute(name, kind, required, None if required else default, choices)


def _op(name: str, arity: int | tuple[int, int | None], rule: str, attributes: str, meaning: str, *traits: str) -> None:
    span = (arity, arity) if isinstance(arity, int) else arity
    rows = [_attribute(text) for text in attributes.split()]
    OPS[name] = Op(name, span, rule, meaning, {row.name: row for row in rows}, frozenset(traits))


PRECISIONS = ("default", "high", "highest")
ALGORITHMS = (
    "unset",
    "dot_any_f8_any_f8_f32",
    "dot_any_f8_any_f8_f32_fast_accum",
    "dot_f16_f16_f16",
    "dot_f16_f16_f32",
    "dot_bf16_bf16_bf16",
    "dot_bf16_bf16_f32",
    "dot_bf16_bf16_f32_x3",
    "dot_bf16_bf16_f32_x6",
    "dot_bf16_bf16_f32_x9",
    "dot_tf32_tf32_f32",
    "dot_tf32_tf32_f32_x3",
    "dot_f32_f32_f32",
    "dot_f64_f64_f64",
)
RNG_ALGORITHMS = ("rng_default", "rng_three_fry", "rng_philox")

CHOICES: dict[str, tuple[str, ...]] = {
    "operand_precision": PRECISIONS,
    "direction": ("EQ", "NE", "GE", "GT", "LE", "LT"),
    "type": ("FLOAT", "TOTALORDER", "SIGNED", "UNSIGNED"),
    "order": ("TOTAL", "PARTIAL"),
    "kind": ("kLoop", "kInput", "kOutput", "kCustom"),
    "distribution": ("rng_uniform", "rng_normal"),
    "fft_type": ("FFT", "IFFT", "RFFT", "IRFFT"),
    "transpose_a": ("TRANSPOSE_INVALID", "NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"),
    "schedule": ("SCHEDULE_NONE", "SCHEDULE_LATEST", "SCHEDULE_EARLIEST"),
    "api_version": (
        "API_VERSION_ORIGINAL",
        "API_VERSION_STATUS_RETURNING",
        "API_VERSION_STATUS_RETURNING_UNIFIED",
        "API_VERSION_TYPED_FFI",
    ),
    "padding_type": ("PADDING_INVALID", "PADDING_VALID", "PADDING_SAME"),
    "convolution_kind": ("unset", "fprop", "dgrad", "wgrad"),
}

DEFAULTS: dict[str, object] = {
    "feature_group_count": 1,
    "batch_group_count": 1,
    "schedule": "SCHEDULE_NONE",
    "api_version": "API_VERSION_ORIGINAL",
    "padding_type": "PADDING_INVALID",
    "convolution_kind": "unset",
    "largest": True,
    "async_execution_thread": "main",
    "is_stable": False,
    "window": Window(),
    "operand_layout_constraints": None,  # an empty list is a constraint too: that there are no operands
}

# Attributes that every instruction may carry (rows A01 to A08 of the language).
COMMON: dict[str, Attribute] = {
    name: Attribute(name, kind)
    for name, kind in (
        ("sharding", SHARDING),
        ("frontend_attributes", DICTIONARY),
        ("metadata", METADATA),
        ("backend_config", CONFIG),
        ("control-predecessors", INSTRUCTIONS),
        ("origin", ORIGIN),
        ("statistics", STATISTICS),
        ("parameter_replication", BOOLS),
    )
}

_GROUP = "replica_groups:groups channel_id:int"
_GATHERED = f"{_GROUP} constrain_layout:bool use_global_device_ids:bool dimensions!:dims"
_REDUCED = f"{_GROUP} constrain_layout:bool use_global_device_ids:bool to_apply!:computation mode:raw"
_DOT = (
    "lhs_batch_dims:dims lhs_contracting_dims:dims rhs_batch_dims:dims rhs_contracting_dims:dims "
    "operand_precision:enums"
)
_ASYNC = "calls:computation async_execution_thread:string"
_PEER = "channel_id:int is_host_transfer:bool"
_NORM = "epsilon!:float feature_index!:int"
_N: tuple[int, None] = (0, None)
_ANY: tuple[int, None] = (1, None)


def _table() -> None:
    _unary()
    _binary()
    _structure()
    _data_movement()
    _contractions()
    _folds()
    _indexing()
    _control()
    _collectives()
    _outside()


def _unary() -> None:
    for name, meaning in (
        ("acos", "arc cosine"),
        ("acosh", "inverse hyperbolic cosine"),
        ("asin", "arc sine"),
        ("asinh", "inverse hyperbolic sine"),
        ("atan", "arc tangent"),
        ("atanh", "inverse hyperbolic tangent"),
        ("cbrt", "cube root"),
        ("cosine", "cosine of radians"),
        ("cosh", "hyperbolic cosine"),
        ("erf", "error function"),
        ("exponential", "e to the x"),
        ("exponential-minus-one", "e to the x, less one, exact near 0"),
        ("log", "natural logarithm"),
        ("log-plus-one", "logarithm of 1 + x, exact near 0"),
        ("logistic", "1 / (1 + e to the -x)"),
        ("rsqrt", "1 / square root"),
        ("sine", "sine of radians"),
        ("sinh", "hyperbolic sine"),
        ("sqrt", "square root"),
        ("tan", "tangent of radians"),
        ("tanh", "hyperbolic tangent"),
    ):
        new = (NEW,) if name == "atan" else ()
        _op(name, 1, "unary_math", "result_accuracy:accuracy", meaning, ELEMENTWISE, *new)
    for name, rule, meaning in (
        ("abs", "abs", "magnitude; of a complex number, its modulus"),
        ("ceil", "unary_float", "least integer not below"),
        ("count-leading-zeros", "unary_integer", "zero bits above the highest set bit"),
        ("floor", "unary_float", "greatest integer not above"),
        ("imag", "complex_part", "imaginary part; 0 of a real number"),
        ("is-finite", "is_finite", "neither infinite nor NaN"),
        ("negate", "unary_numeric", "additive inverse"),
        ("not", "unary_bits", "every bit flipped; logical not of pred"),
        ("popcnt", "unary_integer", "number of set bits"),
        ("real", "complex_part", "real part"),
        ("round-nearest-afz", "unary_float", "nearest integer, halves away from zero"),
        ("round-nearest-even", "unary_float", "nearest integer, halves to even"),
        ("sign", "unary_numeric", "-1, 0 or 1; of a complex number, x / |x|"),
        ("convert", "convert", "the value in another element type, as rows X07 to X10 say"),
        ("copy", "same_shape", "the same value in memory of its own, perhaps in another layout"),
    ):
        _op(name, 1, rule, "", meaning, ELEMENTWISE)
    _op(
        "reduce-precision",
        1,
        "unary_float",
        "exponent_bits!:int mantissa_bits!:int",
        "rounded to a float format of fewer bits and back",
        ELEMENTWISE,
    )
    _op("bitcast-convert", 1, "bitcast_convert", "", "the same bits as another element type", MOVES_DATA)
    _op("stochastic-convert", 2, "stochastic_convert", "", "rounded up or down by random bits", ELEMENTWISE)


def _binary() -> None:
    for name, rule, meaning, *traits in (
        ("add", "binary", "sum; of pred, or", COMMUTATIVE),
        ("and", "binary_bits", "bitwise and", COMMUTATIVE),
        ("atan2", "binary_float", "angle of the point (second, first)"),
        ("complex", "complex", "complex number of real and imaginary part"),
        ("divide", "binary", "quotient; of integers, toward zero"),
        ("maximum", "binary", "the greater; NaN if either is", COMMUTATIVE),
        ("minimum", "binary", "the less; NaN if either is", COMMUTATIVE),
        ("mulhi", "binary_integer", "high half of the double-width product", COMMUTATIVE),
        ("multiply", "binary", "product; of pred, and", COMMUTATIVE),
        ("or", "binary_bits", "bitwise or", COMMUTATIVE),
        ("power", "binary", "first to the second"),
        ("remainder", "binary", "what truncated division leaves, with the sign of the first"),
        ("shift-left", "binary_integer", "bits up; 0 from the width on"),
        ("shift-right-arithmetic", "binary_integer", "bits down, the sign coming in"),
        ("shift-right-logical", "binary_integer", "bits down, zeros coming in"),
        ("subtract", "binary", "difference"),
        ("xor", "binary_bits", "bitwise exclusive or", COMMUTATIVE),
    ):
        _op(name, 2, rule, "", meaning, ELEMENTWISE, *traits)
    _op(
        "compare",
        2,
        "compare",
        "direction!:enum type:enum order:enum",
        "pred of a relation; IEEE or total order for floats",
        ELEMENTWISE,
    )
    _op("select", 3, "select", "", "second where the first is true, else third", ELEMENTWISE)
    _op("clamp", 3, "clamp", "", "min(max(first, second), third), bounds perhaps scalar", ELEMENTWISE)
    _op("map", _ANY, "map", "to_apply!:computation dimensions:dims", "a computation of scalars, element by element",
        ELEMENTWISE)


def _structure() -> None:
    _op("parameter", 0, "given", "", "an argument of the computation")
    _op("constant", 0, "given", "", "a literal")
    _op("iota", 0, "iota", "iota_dimension!:int", "each element its index along one dimension")
    _op("tuple", _N, "tuple", "", "operands side by side")
    _op("get-tuple-element", 1, "get_tuple_element", "index!:int", "one element of a tuple")
    _op("after-all", _N, "token", "", "a token that follows all operands", SIDE_EFFECT)
    _op("add-dependency", 2, "first_operand", "", "the first operand, not before the token", SIDE_EFFECT)
    _op("opt-barrier", 1, "first_operand", "", "its operand, over which nothing is moved")
    _op("domain", 1, "same_shape", "domain!:domain", "its operand, on the border of two shardings")
    _op("partition-id", 0, "u32_scalar", "", "u32[] number of this partition")
    _op("replica-id", 0, "u32_scalar", "", "u32[] number of this replica")
    _op("get-dimension-size", 1, "get_dimension_size", "dimensions!:dims", "s32[] size of a dimension now")
    _op("set-dimension-size", 2, "set_dimension_size", "dimensions!:dims", "the array, one dimension cut to a size")


def _data_movement() -> None:
    def moves(name: str, arity: int | tuple[int, int | None], attributes: str, meaning: str) -> None:
        _op(name, arity, name.replace("-", "_"), attributes, meaning, MOVES_DATA)

    moves("bitcast", 1, "", "the same memory under another shape")
    moves("broadcast", 1, "dimensions:dims", "operand dimensions placed at `dimensions`, repeated over the rest")
    moves("concatenate", _ANY, "dimensions!:dims", "operands one after the other along a dimension")
    moves("pad", 2, "padding!:padding", "edge and interior padding with a scalar; negative edges cut")
    moves("reshape", 1, "inferred_dimension:int", "the elements in row-major order under other dimensions")
    moves("dynamic-reshape", _ANY, "", "reshape to sizes given by scalars, within bounds")
    moves("reverse", 1, "dimensions!:dims", "order turned round along dimensions")
    moves("slice", 1, "slice!:slice", "strided part between static limits")
    moves("transpose", 1, "dimensions!:dims", "result dimension i is operand dimension dimensions[i]")
    moves("shuffle", 1, "dimensions!:dims mode!:raw shifts:dims indices:literal", "elements rotated or permuted")
    OPS["shuffle"] = Op(**{**OPS["shuffle"].__dict__, "traits": frozenset({MOVES_DATA, NEW})})


def _contractions() -> None:
    _op("dot", 2, "dot", f"{_DOT} algorithm:enum", "sums of products over contracting dimensions")
    _op("scaled-dot", 4, "scaled_dot", f"{_DOT} algorithm:enum", "dot of block-scaled operands")
    _op("ragged-dot", 3, "ragged_dot", f"{_DOT} lhs_ragged_dims:dims rhs_group_dims:dims", "dot over groups of rows")
    _op(
        "convolution",
        (2, None),
        "convolution",
        "window:window dim_labels!:conv_dims feature_group_count:int batch_group_count:int "
        "operand_precision:enums convolution_kind:enum sparsity_config:raw algorithm:enum block_scaling_config:raw",
        "window sums of products, with strides, dilations, reversal and groups",
    )
    _op("fft", 1, "fft", "fft_type!:enum fft_length!:dims", "discrete Fourier transform of the last dimensions")
    _op("cholesky", 1, "cholesky", "lower:bool", "triangular factor of a positive definite matrix")
    _op(
        "triangular-solve",
        2,
        "triangular_solve",
        "left_side:bool lower:bool unit_diagonal:bool transpose_a:enum",
        "x of op(a) x = b or x op(a) = b, a triangular",
    )


def _folds() -> None:
    _op("reduce", (2, None), "reduce", "to_apply!:computation dimensions!:dims", "dimensions folded", REDUCES)
    _op("reduce-window", (2, None), "reduce_window", "to_apply!:computation window:window", "windows folded", REDUCES)
    _op(
        "select-and-scatter",
        3,
        "select_and_scatter",
        "select!:computation scatter!:computation window:window",
        "each window's chosen element receives its source element",
    )
    _op(
        "scan",
        _ANY,
        "scan",
        "to_apply!:computation dimensions!:dims num_carries!:int is_reverse:bool is_associative:bool",
        "a computation folded along a dimension, every step's output kept",
    )
    _op(
        "sort",
        _ANY,
        "sort",
        "dimensions!:dims to_apply!:computation is_stable:bool",
        "operands permuted together along a dimension by a comparator",
    )
    _op("topk", 1, "topk", "k!:int largest:bool is_stable:bool", "k greatest (least) of the last dimension, and where")
    _op("batch-norm-training", 3, "batch_norm_training", _NORM, "normalized by the batch, with mean and variance")
    _op("batch-norm-inference", 5, "batch_norm_inference", _NORM, "normalized by given mean and variance")
    _op("batch-norm-grad", 5, "batch_norm_grad", _NORM, "gradients of the training form")


def _indexing() -> None:
    _op("dynamic-slice", _ANY, "dynamic_slice", "dynamic_slice_sizes!:dims", "part at computed starts, clamped",
        MOVES_DATA)
    _op("dynamic-update-slice", (2, None), "dynamic_update_slice", "", "array with a part at computed starts replaced",
        MOVES_DATA)
    _op(
        "gather",
        2,
        "gather",
        "offset_dims!:dims collapsed_slice_dims!:dims start_index_map!:dims operand_batching_dims:dims "
        "start_indices_batching_dims:dims index_vector_dim!:int slice_sizes!:dims indices_are_sorted:bool",
        "slices at computed indices, clamped",
        MOVES_DATA,
    )
    _op(
        "scatter",
        (3, None),
        "scatter",
        "update_window_dims!:dims inserted_window_dims!:dims scatter_dims_to_operand_dims!:dims "
        "input_batching_dims:dims scatter_indices_batching_dims:dims index_vector_dim!:int "
        "indices_are_sorted:bool unique_indices:bool to_apply!:computation",
        "updates folded in at computed indices; those out of range are dropped",
    )
    _op("rng", (1, None), "rng", "distribution!:enum", "random numbers of a distribution", IMPURE)
    _op("rng-bit-generator", 1, "rng_bit_generator", "algorithm!:enum", "new state and random bits from a state")
    _op("rng-get-and-update-state", 0, "given", "delta!:int", "u64[2] state of the device, advanced",
        IMPURE, SIDE_EFFECT)
    row = OPS["rng-bit-generator"].attributes
    row["algorithm"] = Attribute("algorithm", ENUM, True, None, RNG_ALGORITHMS)
    for name in ("dot", "scaled-dot", "convolution"):
        OPS[name].attributes["algorithm"] = Attribute("algorithm", ENUM, False, "unset", ALGORITHMS)


def _control() -> None:
    _op("call", _N, "called_root", "to_apply!:computation is_composite:bool output_to_operand_aliasing:aliases",
        "a computation applied to the operands", CALLS)
    _op("fusion", _N, "called_root", "kind!:enum calls!:computation output_to_operand_aliasing:aliases",
        "a computation that is one kernel", CALLS)
    _op("while", 1, "while", "condition!:computation body!:computation", "body while condition holds", CALLS)
    _op(
        "conditional",
        _ANY,
        "conditional",
        "true_computation:computation false_computation:computation branch_computations:computations",
        "the branch chosen by a pred or an index, on its operand",
        CALLS,
    )
    begun = "calls!:computation async_execution_thread:string output_to_operand_aliasing:aliases"
    _op("async-start", _N, "async_start", begun, "begins a computation", CALLS)
    _op("async-update", _ANY, "async_update", f"{_ASYNC} output_to_operand_aliasing:aliases", "a step of it", CALLS)
    _op("async-done", 1, "async_done", _ASYNC, "waits for its result", CALLS)
    _op("copy-start", 1, "copy_start", "cross_program_prefetch_index:int", "begins a copy: (result, source, u32[])")
    _op("copy-done", 1, "copy_done", "", "the copy, finished")
    _op(
        "custom-call",
        _N,
        "given",
        "custom_call_target!:string to_apply:computation called_computations:computations window:window "
        "dim_labels:conv_dims feature_group_count:int batch_group_count:int operand_precision:enums "
        "padding_type:enum operand_layout_constraints:shapes custom_call_has_side_effect:bool literal:literal "
        "output_to_operand_aliasing:aliases schedule:enum api_version:enum",
        "a function known by name",
    )


def _collectives() -> None:
    def together(name: str, arity: int | tuple[int, int | None], rule: str, attributes: str, meaning: str) -> None:
        _op(name, arity, rule, attributes, meaning, COLLECTIVE)

    together("all-gather", _ANY, "all_gather", _GATHERED, "all devices' operands joined along a dimension")
    together("all-gather-start", _ANY, "all_gather_start", _GATHERED, "begins an all-gather")
    together("all-gather-done", 1, "all_gather_done", "", "its result")
    together("all-reduce", _ANY, "all_reduce", _REDUCED, "all devices' operands folded elementwise")
    together("all-reduce-start", _ANY, "all_reduce", _REDUCED, "begins an all-reduce")
    together("all-reduce-done", 1, "first_operand", "", "its result")
    together("reduce-scatter", _ANY, "reduce_scatter", f"{_REDUCED} dimensions!:dims", "folded, then split")
    together("all-to-all", _ANY, "all_to_all", f"{_GROUP} constrain_layout:bool dimensions:dims", "parts exchanged")
    together("ragged-all-to-all", 6, "ragged_all_to_all", f"{_GROUP} dimensions:dims", "parts of given sizes exchanged")
    together(
        "collective-permute", _ANY, "collective_permute",
        "channel_id:int source_target_pairs!:lists slice_sizes:lists", "sent from source to target; others get zeros")
    together(
        "collective-permute-start", _ANY, "collective_permute_start",
        "channel_id:int source_target_pairs!:lists slice_sizes:lists", "begins a collective-permute")
    together("collective-permute-done", 1, "collective_permute_done", "", "its result")
    together("collective-broadcast", _ANY, "collective_broadcast", f"{_GROUP} has_dynamic_root:bool",
             "the group's first device's operand on all")
    together("collective-reduce", _ANY, "collective_broadcast",
             f"{_GROUP} constrain_layout:bool use_global_device_ids:bool to_apply!:computation has_dynamic_root:bool",
             "folded on one device of the group")
    OPS["collective-reduce"] = Op(**{**OPS["collective-reduce"].__dict__, "traits": frozenset({COLLECTIVE, NEW})})


def _outside() -> None:
    _op("infeed", 1, "given", "infeed_config:string", "(data, token) from the host", SIDE_EFFECT)
    _op("outfeed", 2, "token", "outfeed_config:string outfeed_shape:shape", "data to the host", SIDE_EFFECT)
    _op("send", 2, "send", _PEER, "begins to send: (data, u32[], token)", SIDE_EFFECT)
    _op("send-done", 1, "token", _PEER, "the data are sent", SIDE_EFFECT)
    _op("recv", 1, "recv", _PEER, "begins to receive: (data, u32[], token)", SIDE_EFFECT)
    _op("recv-done", 1, "recv_done", _PEER, "(data, token)", SIDE_EFFECT)


_table()
