"""Attribute values as text: rows A, E, RG and those of the op table, each kind with its Python value."""

from __future__ import annotations

import pytest
from parsing import ADD, root, unary

from hloc.errors import HloError
from hloc.ir.attributes import (
    Alias,
    ConvDims,
    IotaTile,
    MeshAxes,
    Metadata,
    PadDim,
    Raw,
    ReplicaGroups,
    ResultAccuracy,
    SliceDim,
    WindowDim,
)
from hloc.ir.opcodes import COMMON, OPS
from hloc.text.lexer import HEADER_KINDS, KIND_OF_NAME

P = "  p = f32[4,6] parameter(0)\n  z = f32[] constant(0)\n  ROOT r = "


def of(line: str, name: str):
    """The value of an attribute of an op on p, f32[4,6], and z, f32[]."""
    return root(P + line, ADD).attributes.get(name)


@pytest.mark.parametrize("line, name, value", [
    ("f32[6,4] transpose(p), dimensions={1,0}", "dimensions", (1, 0)),
    ("f32[4,6] broadcast(z), dimensions={}", "dimensions", None),
    ("f32[4] reduce(p, z), dimensions={1}, to_apply=add", "dimensions", (1,)),
    ("s32[4,5] iota(), iota_dimension=1", "iota_dimension", 1),
    ("f32[4,6] cholesky(p), lower=true", "lower", True),
    ("f32[4,6] cholesky(p), lower=false", "lower", None),
    ("pred[4,6] compare(p, p), direction=NE", "direction", "NE"),
    ("pred[4,6] compare(p, p), direction=NE, type=TOTALORDER", "type", "TOTALORDER"),
    ("pred[4,6] compare(p, p), direction=NE, order=TOTAL", "order", "TOTAL"),
    ("f32[2,2] slice(p), slice={[1:3:1], [0:6:3]}", "slice", (SliceDim(1, 3), SliceDim(0, 6, 3))),
    ("f32[7,15] pad(p, z), padding=1_2_0x0_-1_2", "padding", (PadDim(1, 2), PadDim(0, -1, 2))),
    ("f32[4,4] dot(p, p), lhs_contracting_dims={1}, rhs_contracting_dims={1}, operand_precision={HIGH,default}",
     "operand_precision", ("high", "default")),
    ("f32[4,4] dot(p, p), lhs_contracting_dims={1}, rhs_contracting_dims={1}, operand_precision={default,default}",
     "operand_precision", None),
    ("f32[4,4] dot(p, p), lhs_contracting_dims={1}, rhs_contracting_dims={1}, algorithm=dot_bf16_bf16_f32_x3",
     "algorithm", "dot_bf16_bf16_f32_x3"),
    ("f32[4,6] rng(z, z), distribution=rng_normal", "distribution", "rng_normal"),
    ("c64[4,9] fft(p), fft_type=RFFT, fft_length={16}", "fft_type", "RFFT"),
    ("u64[2] rng-get-and-update-state(), delta=256", "delta", 256),
    ("(f32[4,3], s32[4,3]) topk(p), k=3, largest=true", "largest", None),
    ("(f32[4,3], s32[4,3]) topk(p), k=3, largest=false", "largest", False),
    ("f32[4,6] triangular-solve(p, p), transpose_a=NO_TRANSPOSE", "transpose_a", "NO_TRANSPOSE"),
    ("f32[4,6] shuffle(p), dimensions={0}, mode=rotate, shifts={1}", "mode", Raw("rotate")),
    ("f32[4,6] reshape(p), inferred_dimension=-1", "inferred_dimension", None),
    ('f32[] custom-call(p), custom_call_target="a\\"b"', "custom_call_target", 'a"b'),
    ('f32[] custom-call(p), custom_call_target="x", schedule=SCHEDULE_LATEST', "schedule", "SCHEDULE_LATEST"),
    ('f32[] custom-call(p), custom_call_target="x", api_version=API_VERSION_ORIGINAL', "api_version", None),
    ('f32[] custom-call(p), custom_call_target="x", output_to_operand_aliasing={{}: (0, {1})}',
     "output_to_operand_aliasing", (Alias((), 0, (1,)),)),
    ("f32[4,6] collective-permute(p), source_target_pairs={{0,1},{1,0}}", "source_target_pairs", ((0, 1), (1, 0))),
    ("f32[4,6] collective-permute(p, p, z, z), source_target_pairs={{0,1}}, slice_sizes={{4,6}}", "slice_sizes", ((4, 6),)),
    ("f32[4,6] exponential(p), result_accuracy={mode=highest}", "result_accuracy", ResultAccuracy("highest")),
    ("f32[4,6] exponential(p), result_accuracy={mode=default}", "result_accuracy", None),
    ("f32[4,6] exponential(p), result_accuracy={tolerance={rtol=0.5,ulps=2}}", "result_accuracy",
     ResultAccuracy(None, 0.0, 0.5, 2)),
])  # fmt: skip
def test_values(line: str, name: str, value: object) -> None:
    assert of(line, name) == value


def test_shapes_and_literals_as_values() -> None:
    call = root(P + 'f32[4]{0} custom-call(p), custom_call_target="x", operand_layout_constraints={f32[4,6]{0,1}}, '
                "literal=s32[2]{0} {1, 2}, window={size=1}, dim_labels=b0f_0io->b0f")  # fmt: skip
    assert call.get("operand_layout_constraints")[0].layout.minor_to_major == (0, 1)
    assert call.get("literal").array.tolist() == [1, 2]
    pair = root('  ROOT r = f32[] custom-call(), custom_call_target="x", literal=(s32[2]{0} {1, 2}, f32[] 4)')
    assert [part.array.tolist() for part in pair.get("literal").value] == [[1, 2], 4.0]
    none = root('  ROOT r = f32[] custom-call(), custom_call_target="x", operand_layout_constraints={}')
    assert none.attributes["operand_layout_constraints"] == ()


def test_windows() -> None:
    line = "f32[4,6] reduce-window(p, z), window={size=1x3 stride=1x2 pad=0_0x2_-1 lhs_dilate=2x1 rhs_dilate=1x3 " \
           "rhs_reversal=1x0}, to_apply=add"  # fmt: skip
    assert of(line, "window").dims == (WindowDim(1, base_dilation=2, reversed=True), WindowDim(3, 2, 2, -1, 1, 3))
    one = of("f32[4,6] reduce-window(p, z), window={size=2}, to_apply=add", "window")
    assert one.dims == (WindowDim(2),)


def test_dimension_labels() -> None:
    conv = root("  a = f32[2,8,9,3] parameter(0)\n  b = f32[3,3,3,16] parameter(1)\n"
                "  ROOT c = f32[2,6,7,16] convolution(a, b), window={size=3x3}, dim_labels=b01f_01io->b01f")  # fmt: skip
    assert conv.get("dim_labels") == ConvDims(0, 3, (1, 2), 2, 3, (0, 1), 0, 3, (1, 2))
    call = root('  ROOT c = f32[] custom-call(), custom_call_target="x", dim_labels=?b0f_0?io->b0f?')
    assert call.get("dim_labels") == ConvDims(1, 3, (2,), 2, 3, (0,), 0, 2, (1,))


@pytest.mark.parametrize("text, groups", [
    ("{{0,1},{2,3}}", ReplicaGroups(((0, 1), (2, 3)))),
    ("{{0},{1,2}}", ReplicaGroups(((0,), (1, 2)))),
    ("[2,4]<=[8]", ReplicaGroups(iota=IotaTile((2, 4), (8,), (0,)))),
    ("[2,4]<=[4,2]T(1,0)", ReplicaGroups(iota=IotaTile((2, 4), (4, 2), (1, 0)))),
    ("mesh['a'=2,'b'=4] {'a','b':(1)2}", ReplicaGroups(mesh=MeshAxes((("a", 2), ("b", 4)), (("a", None), ("b", (1, 2)))))),
])  # fmt: skip
def test_replica_groups(text: str, groups: ReplicaGroups) -> None:
    assert of(f"f32[4,6] all-reduce(p), replica_groups={text}, to_apply=add", "replica_groups") == groups


def test_metadata() -> None:
    text = ("{op_type=\"t\" op_name='n\\101', source_file=\"f\" source_line=3 source_end_line=4 source_column=5 "
            "source_end_column=6 profile_type={1} deduplicated_name=\"d\" scheduling_name=\"s\" stack_frame_id=1 "
            "metadata_payload=\"p\"}")  # fmt: skip
    assert unary(f"metadata={text}").metadata == Metadata("t", "nA", "f", 3, 4, 5, 6, (1,), "d", "s", 1, "p")
    assert unary("metadata={}").metadata is None
    assert unary('metadata={op_name="a b" source_line=3}').metadata == Metadata(op_name="a b", source_line=3)


@pytest.mark.parametrize("text, value", [
    ('{"a": {"b": "}"}}', Raw('{"a": {"b": "}"}}')),
    ('"{\\"a\\":1}"', Raw('{"a":1}')),
    ('"opaque \\001\\303\\251\\377"', "opaque \1é\udcff"),
    ('""', None),
])  # fmt: skip
def test_backend_config(text: str, value: object) -> None:
    assert unary(f"backend_config={text}").annotations.get("backend_config") == value


@pytest.mark.parametrize("text, value", [
    ('origin={{"p"}}', '{{"p"}}'),
    ("origin={({'a' {0}}, ({\"b\"},{}), )}", '{({"a" {0}}, ({"b"}, {}))}'),
    ("origin={[synthetic_call]}", "{[synthetic_call]}"),
    ("origin={}", "{()}"),
    ("statistics={visualizing_index=0, s=33, t=44.5}", "{visualizing_index=0,s=33,t=44.5}"),
    ("statistics={visualizing_index=0}", None),
])  # fmt: skip
def test_what_is_kept_as_text(text: str, value: str | None) -> None:
    assert unary(text).annotations.get(text.partition("=")[0]) == (None if value is None else Raw(value))


def test_flags_of_a_parameter() -> None:
    parameter = root("  ROOT p = (f32[4], s32[]) parameter(0), parameter_replication={true,false}")
    assert parameter.annotations["parameter_replication"] == (True, False)


@pytest.mark.parametrize("attributes, message", [
    ("window={size=1x1 stride=1}", "expected stride for 2 dimensions as in size, got 1"),
    ("window={size=1x1 size=1x1}", "window has size twice"),
    ("window={size=1x1 siez=1x1}", "a window has no field 'siez'"),
    ("window={size=1_1}", "expected sizes such as 3x3"),
    ("window={size=1x1 pad=0_0_0x0_0_0}", "window padding is low_high"),
])  # fmt: skip
def test_wrong_windows(attributes: str, message: str) -> None:
    with pytest.raises(HloError, match=message):
        of(f"f32[4,6] reduce-window(p, z), {attributes}, to_apply=add", "window")


def test_a_name_has_one_syntax_wherever_it_stands() -> None:
    """What the lexer relies on: the kind of an attribute follows from its name, but for slice_sizes."""
    rows = [a for op in OPS.values() for a in op.attributes.values()] + list(COMMON.values())
    kinds = {(row.name, row.kind) for row in rows} | set(HEADER_KINDS.items())
    assert {name for name, kind in kinds if KIND_OF_NAME[name] != kind} == {"slice_sizes"}
