"""Same input, same bytes: whatever order a process's hashes have."""

from __future__ import annotations

from pathlib import Path

from tools.determinism import differences, digests, programs_in, under_seed

SAMPLES = Path(__file__).parent.parent / "samples"


def test_samples_compile_to_the_same_bytes_under_two_hash_seeds() -> None:
    names = [path.stem for path in programs_in(SAMPLES, ())]
    one, other = (under_seed(seed, SAMPLES, names) for seed in (1, 2))
    assert list(one) == names
    assert list(differences(one, other)) == []
    assert all("llvm" in stages and len(stages) > 5 for stages in one.values())


def test_digests_tell_what_differs(tmp_path: Path) -> None:
    text = (SAMPLES / "chain.hlo").read_text()
    for name, content in (("one", text), ("other", text.replace("constant(", "constant(-"))):
        (tmp_path / f"{name}.hlo").write_text(content)
    one, other = (digests(path) for path in programs_in(tmp_path, ()))
    (name, stage), = differences({"chain": one}, {"chain": other})
    assert name == "chain" and stage in one


def test_optimized_texts_are_no_programs(tmp_path: Path) -> None:
    for name in ("a.hlo", "a.opt.hlo", "b.hlo"):
        (tmp_path / name).touch()
    assert [path.name for path in programs_in(tmp_path, ())] == ["a.hlo", "b.hlo"]
    assert [path.name for path in programs_in(tmp_path, ("b",))] == ["b.hlo"]
