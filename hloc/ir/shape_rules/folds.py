"""Shape rules of reductions, scans, sorts and normalizations."""

from __future__ import annotations

from hloc.ir.dtypes import PRED, S32
from hloc.ir.shape_rules.common import (
    FLOATS,
    Site,
    check_parameters,
    check_reducer,
    check_returns,
    compatible,
    dims_agree,
    make_array,
    one_or_tuple,
    scalar_shape,
    sizes_agree,
)
from hloc.ir.shape_rules.contractions import window_output
from hloc.ir.shapes import UNBOUNDED, ArrayShape, Shape, TupleShape


def _inputs_and_inits(site: Site) -> list[ArrayShape]:
    """The first half of the operands, all of the same dimensions; the rest are scalars of their types."""
    count, odd = divmod(len(site.shapes), 2)
    if odd:
        raise site.error(
            "REDUCE_C1", f"{len(site.shapes)} operands, expected as many initial values as inputs"
        )
    inputs = [site.array(number) for number in range(count)]
    for number in range(count):
        site.same_dims(number)
        site.scalar(count + number)
        site.same_type(count + number, number)
    return inputs


def _returns_tuple(site: Site) -> bool:
    computation = site.get("to_apply")
    return computation.root is not None and computation.root.shape.is_tuple


def reduce(site: Site) -> Shape:
    inputs = _inputs_and_inits(site)
    dropped = site.dimensions("dimensions", inputs[0].rank)
    check_reducer(site, site.get("to_apply"), [shape.dtype for shape in inputs])
    kept = [d for d in range(inputs[0].rank) if d not in dropped]
    dims = [inputs[0].dims[d] for d in kept]
    flags = [inputs[0].is_dynamic_dim(d) for d in kept]
    return one_or_tuple([make_array(shape.dtype, dims, flags) for shape in inputs], _returns_tuple(site))


def reduce_window(site: Site) -> Shape:
    inputs = _inputs_and_inits(site)
    check_reducer(site, site.get("to_apply"), [shape.dtype for shape in inputs])
    window = site.get("window")
    dims = window_output(site, inputs[0].dims, window.dims if window is not None else ())
    flags = inputs[0].dynamic
    return one_or_tuple([make_array(shape.dtype, dims, flags) for shape in inputs], _returns_tuple(site))


def select_and_scatter(site: Site) -> Shape:
    operand, source = site.array(0), site.array(1)
    site.same_type(1)
    site.scalar(2)
    site.same_type(2)
    scalar = scalar_shape(operand.dtype)
    select = site.get("select")
    result = check_parameters(site, select, [scalar, scalar], "select")
    check_returns(site, select, result, scalar_shape(PRED), "select")
    check_reducer(site, site.get("scatter"), [operand.dtype], "scatter")
    window = site.get("window")
    places = window_output(site, operand.dims, window.dims if window is not None else ())
    if not dims_agree(source.dims, places):
        raise site.error(
            "SELECT_AND_SCATTER_C1",
            f"{site.name(1)} is {source!r}, but the window has {places} places in {operand!r}",
        )
    return operand


def scan(site: Site) -> Shape:
    """Inputs, then carries; the computation takes a slice of each input and the carries.

    It returns a slice of each output, then the new carries; so does the scan, with whole outputs.
    """
    carries = site.get("num_carries")
    if not 0 <= carries <= len(site.shapes):
        raise site.error("SCAN_C1", f"num_carries={carries} of {len(site.shapes)} operands")
    count = len(site.shapes) - carries
    if not count:
        raise site.error("SCAN_C2", "there is no input to scan along")
    inputs = [site.array(number) for number in range(count)]
    along = site.dimension("dimensions", min(shape.rank for shape in inputs))
    length = inputs[0].dims[along]
    for number, shape in enumerate(inputs):
        if not sizes_agree(shape.dims[along], length):
            raise site.error(
                "SCAN_C3", f"{site.name(number)} is {shape!r}, expected {length} steps in dimension {along}"
            )
    body = site.get("to_apply")
    states = list(site.shapes[count:])
    result = check_parameters(
        site, body, [*(_without(shape, along) for shape in inputs), *states], "to_apply"
    )
    parts = list(result.elements) if isinstance(result, TupleShape) else [result]
    outputs = parts[: len(parts) - carries]
    if len(parts) < carries or not all(map(compatible, parts[len(outputs) :], states)):
        raise site.error(
            "CALLED_C3", f"to_apply %{body.name} returns {result!r}, expected it to end with the carries"
        )
    whole = [_with(site, shape, along, length, inputs[0].is_dynamic_dim(along)) for shape in outputs] + states
    as_tuple = len(whole) != 1 or site.declared is not None and site.declared.is_tuple
    return one_or_tuple(whole, as_tuple or site.declared is None and result.is_tuple)


def _without(shape: ArrayShape, along: int) -> ArrayShape:
    keep = [d for d in range(shape.rank) if d != along]
    return make_array(shape.dtype, [shape.dims[d] for d in keep], [shape.is_dynamic_dim(d) for d in keep])


def _with(site: Site, shape: Shape, along: int, length: int, moves: bool) -> Shape:
    """An output's slice with the scanned dimension put back."""
    if not isinstance(shape, ArrayShape) or not shape.is_array or along > shape.rank:
        raise site.error(
            "SCAN_C4", f"an output's slice is {shape!r}, expected an array of rank {along} at least"
        )
    flags = list(shape.dynamic or (False,) * shape.rank)
    dims = (*shape.dims[:along], length, *shape.dims[along:])
    return make_array(shape.dtype, dims, (*flags[:along], moves, *flags[along:]))


def sort(site: Site) -> Shape:
    shapes = [site.array(number) for number in range(len(site.shapes))]
    for number in range(1, len(shapes)):
        site.same_dims(number)
    site.dimension("dimensions", shapes[0].rank)
    comparator = site.get("to_apply")
    pairs = [scalar_shape(shape.dtype) for shape in shapes for _ in range(2)]
    result = check_parameters(site, comparator, pairs, "to_apply")
    check_returns(site, comparator, result, scalar_shape(PRED), "to_apply")
    return one_or_tuple(shapes)


def topk(site: Site) -> Shape:
    operand, count = site.array(0), site.get("k")
    if not operand.dims or count < 0 or count > operand.dims[-1] != UNBOUNDED:
        raise site.error("TOPK_C1", f"k={count} of the last dimension of {operand!r}")
    dims, flags = (*operand.dims[:-1], count), (*operand.dynamic[:-1], False) if operand.dynamic else ()
    return TupleShape((make_array(operand.dtype, dims, flags), make_array(S32, dims, flags)))


def _normalized(site: Site, vectors: range) -> tuple[ArrayShape, ArrayShape]:
    """The operand, and the shape of a vector with an entry for each feature; `vectors` are such operands."""
    operand = site.typed(0, FLOATS)
    feature = site.get("feature_index")
    if not 0 <= feature < operand.rank:
        raise site.error("DIMENSIONS_C1", f"feature_index={feature} is not a dimension of {operand!r}")
    vector = make_array(operand.dtype, (operand.dims[feature],))
    for number in vectors:
        site.same_type(number)
        if not dims_agree(site.array(number).dims, vector.dims):
            raise site.error(
                "BATCH_NORM_C1", f"{site.name(number)} is {site.shapes[number]!r}, expected {vector!r}"
            )
    return operand, vector


def batch_norm_training(site: Site) -> Shape:
    operand, vector = _normalized(site, range(1, 3))
    return TupleShape((operand, vector, vector))


def batch_norm_inference(site: Site) -> Shape:
    return _normalized(site, range(1, 5))[0]


def batch_norm_grad(site: Site) -> Shape:
    operand, vector = _normalized(site, range(1, 4))
    site.same_type(4)
    site.same_dims(4)
    return TupleShape((operand, vector, vector))
