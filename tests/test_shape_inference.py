"""Inferred shapes: those that XLA's parser infers for the same text, and those that it does not infer."""

import re

import pytest

from hloc.analysis.verifier import verify
from hloc.errors import HloError
from hloc.ir.dtypes import F32, S32
from hloc.ir.shape_inference import infer_shape
from hloc.ir.shapes import ArrayShape, TupleShape, array
from hloc.text.parser import parse
from hloc.text.print_shapes import print_shape

COMPUTATIONS = """
add {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT sum = f32[] add(x, y)
}

both {
  x = f32[] parameter(0)
  i = s32[] parameter(1)
  y = f32[] parameter(2)
  j = s32[] parameter(3)
  sum = f32[] add(x, y)
  ROOT r = (f32[], s32[]) tuple(sum, j)
}

cut {
  x = f32[4] parameter(0)
  ROOT y = f32[4] negate(x)
}

above {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT is = pred[] compare(x, y), direction=GT
}

running {
  x = f32[3] parameter(0)
  c = f32[3] parameter(1)
  s = f32[3] add(x, c)
  ROOT r = (f32[3], f32[3]) tuple(s, s)
}
"""

# Operand shapes, and the operation without its result shape, which XLA's parser infers as well.
INFERRED = [
    ("f32[2,3]{0,1}", "negate(p0)"),
    ("c64[2,3]", "abs(p0)"),
    ("c128[2]", "real(p0)"),
    ("f32[2]", "imag(p0)"),
    ("f32[2,<=3]", "is-finite(p0)"),
    ("u8[4]", "not(p0)"),
    ("pred[4]", "not(p0)"),
    ("f32[2,3]{0,1} f32[2,3]", "add(p0, p1)"),
    ("f32[2,3]{0,1} f32[2,3]", "add(p1, p0)"),
    ("f32[<=2,3]{0,1} f32[2,3]", "add(p1, p0)"),
    ("f32[<=2,3]{0,1} f32[?,3]", "add(p1, p0)"),
    ("f32[?,3]{1,0} f32[2,3]", "add(p1, p0)"),
    ("f32[4] f32[4]", "complex(p0, p1)"),
    ("f32[2,3]{0,1} f32[2,3]", "compare(p0, p1), direction=LT"),
    ("pred[2,3]{0,1} f32[2,3] f32[2,3]", "select(p0, p1, p2)"),
    ("f32[] f32[2,3]{0,1} f32[]", "clamp(p0, p1, p2)"),
    ("f32[2,3,4]{0,2,1}", "transpose(p0), dimensions={1,0,2}"),
    ("f32[2,3]{0,1}", "reverse(p0), dimensions={0}"),
    ("f32[2,3] f32[2,5]", "concatenate(p0, p1), dimensions={1}"),
    ("f32[2,<=3] f32[2,5]", "concatenate(p0, p1), dimensions={1}"),
    ("f32[2,3] f32[]", "pad(p0, p1), padding=1_2_1x0_-1_0"),
    ("f32[2,<=3] f32[]", "pad(p0, p1), padding=0_0x1_1"),
    ("f32[4,6] s32[] s32[]", "dynamic-slice(p0, p1, p2), dynamic_slice_sizes={2,6}"),
    ("f32[4,6]{0,1} f32[2,6] s32[] s32[]", "dynamic-update-slice(p0, p1, p2, p3)"),
    (
        "f32[5,6] s32[3,1]",
        "gather(p0, p1), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
        "index_vector_dim=1, slice_sizes={1,6}",
    ),
    (
        "f32[5,<=6] s32[<=3]",
        "gather(p0, p1), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
        "index_vector_dim=1, slice_sizes={1,6}",
    ),
    (
        "f32[3,4,5] s32[3,7,1]",
        "gather(p0, p1), offset_dims={2}, collapsed_slice_dims={1}, start_index_map={1}, "
        "operand_batching_dims={0}, start_indices_batching_dims={0}, index_vector_dim=2, slice_sizes={1,1,5}",
    ),
    (
        "f32[5,6]{0,1} s32[3,1] f32[3,6]",
        "scatter(p0, p1, p2), update_window_dims={1}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=add",
    ),
    ("f32[2,3] f32[3,5]", "dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"),
    (
        "f32[7,<=2,3] f32[7,3,5]",
        "dot(p0, p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
        "rhs_contracting_dims={1}",
    ),
    (
        "f32[4,28,28,3] f32[5,3,3,16]",
        "convolution(p0, p1), window={size=5x3 stride=2x1 pad=2_1x0_0 rhs_dilate=1x2}, "
        "dim_labels=b01f_01io->b01f",
    ),
    (
        "f32[4,9,6] f32[3,3,16]",
        "convolution(p0, p1), window={size=3 lhs_dilate=2}, dim_labels=b0f_0io->fb0, feature_group_count=2",
    ),
    (
        "f32[4,9,3] f32[3,3,16]",
        "convolution(p0, p1), window={size=3}, dim_labels=b0f_0io->b0f, batch_group_count=2",
    ),
    ("f32[2,16]", "fft(p0), fft_type=RFFT, fft_length={16}"),
    ("c64[2,9]{0,1}", "fft(p0), fft_type=IRFFT, fft_length={16}"),
    ("c64[2,9]{0,1}", "fft(p0), fft_type=FFT, fft_length={9}"),
    ("f32[3,3]{0,1}", "cholesky(p0)"),
    ("f32[3,3] f32[3,2]{0,1}", "triangular-solve(p0, p1), left_side=true, transpose_a=NO_TRANSPOSE"),
    ("f32[2,<=3,4] f32[]", "reduce(p0, p1), dimensions={0,2}, to_apply=add"),
    ("f32[2,3] s32[2,3] f32[] s32[]", "reduce(p0, p1, p2, p3), dimensions={0}, to_apply=both"),
    ("f32[6,8] f32[]", "reduce-window(p0, p1), window={size=3x2 stride=2x2 pad=0_1x0_0}, to_apply=add"),
    ("f32[2,3]{0,1} f32[2,3]", "map(p0, p1), dimensions={0,1}, to_apply=add"),
    (
        "f32[4,6]{0,1} f32[2,3] f32[]",
        "select-and-scatter(p0, p1, p2), window={size=2x2 stride=2x2}, select=above, scatter=add",
    ),
    ("f32[2,3]{0,1}", "sort(p0), dimensions={1}, to_apply=above"),
    ("f32[2,5]{0,1}", "topk(p0), k=3, largest=true"),
    ("f32[2,3,4] f32[4] f32[4]", "batch-norm-training(p0, p1, p2), epsilon=0.001, feature_index=2"),
    (
        "f32[2,4] f32[4] f32[4] f32[4] f32[4]",
        "batch-norm-inference(p0, p1, p2, p3, p4), epsilon=0.001, feature_index=1",
    ),
    (
        "f32[2,4] f32[4] f32[4] f32[4] f32[2,4]",
        "batch-norm-grad(p0, p1, p2, p3, p4), epsilon=0.001, feature_index=1",
    ),
    ("f32[2,3]{0,1} s32[]", "tuple(p0, p1)"),
    ("(f32[2,3]{0,1}, s32[])", "get-tuple-element(p0), index=0"),
    ("(s32[], f32[2]{0})", "copy(p0)"),
    ("token[] token[]", "after-all(p0, p1)"),
    ("f32[2] token[]", "add-dependency(p0, p1)"),
    ("f32[2,3]", "get-dimension-size(p0), dimensions={0}"),
    ("f32[2,3]{0,1} s32[]", "set-dimension-size(p0, p1), dimensions={0}"),
    ("", "partition-id()"),
    ("", "replica-id()"),
    ("f32[2,3]{0,1}", "all-reduce(p0), replica_groups={}, to_apply=add"),
    ("f32[2,3] s32[2,3]", "all-to-all(p0, p0), replica_groups={{0,1}}"),
    ("f32[2,3]{0,1}", "collective-permute(p0), source_target_pairs={{0,1}}"),
    ("f32[2,3]{0,1}", "collective-broadcast(p0), replica_groups={{0,1}}"),
]


def text_of(shapes, operation, *before):
    parts = re.findall(r"\(.*?\)(?= |$)|\S+", shapes) if shapes else []
    lines = [f"  p{number} = {shape} parameter({number})" for number, shape in enumerate(parts)]
    return f"HloModule m\n{COMPUTATIONS}\nENTRY main {{\n" + "\n".join(
        [*lines, *before, f"  ROOT r = {operation}", "}"]
    )


def root_shape(text):
    """The result shape of the entry's root as XLA prints it."""
    entry = text[text.index("\nENTRY") :]
    return re.search(r"ROOT %\S+ = (.*?) [a-z][a-z-]*\(", entry).group(1)


@pytest.mark.parametrize(("shapes", "operation"), INFERRED, ids=[operation for _, operation in INFERRED])
def test_is_what_xla_infers(shapes, operation):
    hlo = pytest.importorskip("jaxlib._hlo")
    text = text_of(shapes, operation)
    module = parse(text)
    assert verify(module) == []
    try:
        expected = root_shape(hlo.hlo_module_from_text(text).to_string())
    except Exception as error:
        assert "cannot infer shape" in str(error)  # hloc infers a few more than XLA's parser does
    else:
        assert print_shape(module.entry.root.shape) == expected


# Operand shapes, and an operation with its result shape that the verifier must let pass.
ACCEPTED = [
    # Shapes that do not follow from the operands.
    ("f32[4]", "bf16[4] convert(p0)"),
    ("c64[4]", "f32[4] convert(p0)"),
    ("f32[3]", "f32[2,3,5] broadcast(p0), dimensions={1}"),
    ("f32[3,4]", "f32[4,3] broadcast(p0), dimensions={1,0}"),
    ("f32[<=3]", "f32[2,<=3] broadcast(p0), dimensions={1}"),
    ("f32[2,3]", "f32[3,2] reshape(p0)"),
    ("f32[0,3]", "f32[7,0] reshape(p0)"),
    ("f32[2,<=3]", "f32[<=6] reshape(p0), inferred_dimension=0"),
    ("f32[6] s32[] s32[]", "f32[2,<=3] dynamic-reshape(p0, p1, p2)"),
    ("", "s32[4,5] iota(), iota_dimension=1"),
    ("u8[2,4]", "u32[2] bitcast-convert(p0)"),
    ("u32[2]", "u8[2,4] bitcast-convert(p0)"),
    ("f32[2]", "s32[2] bitcast-convert(p0)"),
    ("s4[8]{0:E(4)}", "s8[4] bitcast(p0)"),
    ("f32[2,3]", "f32[6] bitcast(p0)"),
    ("f32[4] u32[4]", "bf16[4] stochastic-convert(p0, p1)"),
    ("f32[] f32[]", "f32[8] rng(p0, p1), distribution=rng_normal"),
    ("u64[2]", "(u64[2], u32[7]) rng-bit-generator(p0), algorithm=rng_three_fry"),
    ("", "u64[2] rng-get-and-update-state(), delta=256"),
    # Scalars where the others are arrays, several types, unknown sizes.
    ("pred[] f32[2,3] f32[2,3]", "f32[2,3] select(p0, p1, p2)"),
    ("f32[] f32[2,3] f32[2,3]", "f32[2,3] clamp(p0, p1, p2)"),
    ("bf16[2,3] f32[3,5]", "f32[2,5] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"),
    ("s8[2,3] s8[3,5]", "s32[2,5] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"),
    ("f32[?,3] f32[3,5]", "f32[?,5] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"),
    ("f32[?,3]", "f32[1,3] slice(p0), slice={[0:1], [0:3]}"),
    ("f32[4]", "f32[<=4] negate(p0)"),
    ("f32[4,6] s32[2]", "f32[2,6] dynamic-slice(p0, p1), dynamic_slice_sizes={2,6}"),
    # Products.
    (
        "f8e4m3fn[4,64] f8e4m3fn[64,4] f8e8m0fnu[4,2] f8e8m0fnu[2,4]",
        "f32[4,4] scaled-dot(p0, p1, p2, p3), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    ),
    (
        "f32[11,5] f32[3,5,7] s32[3]",
        "f32[11,7] ragged-dot(p0, p1, p2), lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
        "lhs_ragged_dims={0}, rhs_group_dims={0}",
    ),
    (
        "f32[11,5] f32[5,7] s32[3]",
        "f32[3,11,7] ragged-dot(p0, p1, p2), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
        "lhs_ragged_dims={1}",
    ),
    (
        "f32[3,11,5] f32[3,5,7] s32[3]",
        "f32[3,11,7] ragged-dot(p0, p1, p2), lhs_batch_dims={0}, lhs_contracting_dims={2}, "
        "rhs_batch_dims={0}, rhs_contracting_dims={1}, lhs_ragged_dims={0}",
    ),
    # Folds.
    ("f32[3,4] f32[3]", "(f32[3,4], f32[3]) scan(p0, p1), dimensions={1}, num_carries=1, to_apply=running"),
    (
        "f32[2,3] s32[2,3] f32[] s32[]",
        "(f32[2], s32[2]) reduce(p0, p1, p2, p3), dimensions={1}, to_apply=both",
    ),
    ("f32[2,3] f32[]", "f32[0,3] reduce-window(p0, p1), window={size=3x1}, to_apply=add"),
    # Begun and finished.
    (
        "f32[4]",
        "f32[4] all-reduce-done(s)",
        "  s = f32[4] all-reduce-start(p0), replica_groups={}, to_apply=add",
    ),
    (
        "f32[4]",
        "f32[8] all-gather-done(s)",
        "  s = (f32[4], f32[8]) all-gather-start(p0), replica_groups={{0,1}}, dimensions={0}",
    ),
    (
        "f32[4]",
        "f32[4] collective-permute-done(s)",
        "  s = (f32[4], f32[4], u32[], u32[]) collective-permute-start(p0), source_target_pairs={{0,1}}",
    ),
    ("f32[4]", "f32[4]{0:S(1)} copy-done(s)", "  s = (f32[4]{0:S(1)}, f32[4], u32[]) copy-start(p0)"),
    (
        "f32[4] token[]",
        "token[] send-done(s), channel_id=1",
        "  s = (f32[4], u32[], token[]) send(p0, p1), channel_id=1",
    ),
    (
        "token[]",
        "(f32[4], token[]) recv-done(s), channel_id=1",
        "  s = (f32[4], u32[], token[]) recv(p0), channel_id=1",
    ),
    (
        "f32[4]",
        "f32[4] async-done(s), calls=cut",
        "  s = ((f32[4]), f32[4], s32[]) async-start(p0), calls=cut",
    ),
    # Among devices.
    ("f32[4] f32[5]", "(f32[8], f32[10]) all-gather(p0, p1), replica_groups={{0,1}}, dimensions={0}"),
    ("f32[4]", "f32[8] all-gather(p0), replica_groups={}, dimensions={0}"),
    ("f32[4]", "f32[8] all-gather(p0), replica_groups={{0}}, dimensions={0}"),
    ("f32[8]", "f32[4] reduce-scatter(p0), replica_groups={{0,1}}, dimensions={0}, to_apply=add"),
    (
        "f32[8]",
        "f32[2] reduce-scatter(p0), channel_id=1, replica_groups={{0,1}}, dimensions={0}, to_apply=add",
    ),
    ("f32[8,2]", "f32[8,2] all-to-all(p0), replica_groups={{0,1}}, dimensions={0}"),
    ("f32[8] f32[9] s32[2]", "f32[9] ragged-all-to-all(p0, p1, p2, p2, p2, p2), replica_groups={{0,1}}"),
    ("f32[8] s32[1]", "f32[8] collective-broadcast(p0, p1), replica_groups={{0,1}}, has_dynamic_root=true"),
    ("f32[4]", "f32[4] all-reduce(p0), replica_groups={{0},{1,2}}, to_apply=add"),
    # The outside.
    ("token[]", "((f32[3], pred[]), token[]) infeed(p0)"),
    ("f32[3] token[]", "token[] outfeed(p0, p1), outfeed_shape=f32[3]"),
    (
        "f32[4]",
        'b(f32[4]) custom-call(p0), custom_call_target="Pin", output_to_operand_aliasing={{}: (0, {})}',
    ),
]


@pytest.mark.parametrize("case", ACCEPTED, ids=[case[1] for case in ACCEPTED])
def test_is_accepted(case):
    shapes, operation, *begun = case
    text = text_of(shapes, operation, *begun)
    assert list(map(str, verify(parse(text)))) == []


def test_a_shape_that_does_not_follow_must_be_given():
    with pytest.raises(HloError, match="must be written"):
        infer_shape("broadcast", [ArrayShape(F32)])
    assert infer_shape("broadcast", [ArrayShape(S32)], {}, array(F32, 2)).dtype is S32


def test_layouts_are_handed_on_with_the_shape():
    assert infer_shape("negate", [array(F32, 2)]).layout is not None
    assert infer_shape("concatenate", [array(F32, 2)], {"dimensions": (0,)}).layout is None


def test_deep_tuples_need_no_stack():
    shape = array(F32, 2)
    for _ in range(10_000):
        shape = TupleShape((shape,))
    with pytest.raises(HloError, match="nest deeper"):
        infer_shape("tuple", [shape])
