"""Manifests, folds, and balanced odds."""

from pathlib import Path

import numpy as np
import pytest

from specsem.errors import SpecSemError
from specsem.training.data import Item, assign_folds, balanced_weights, read_manifest


def item(generated: bool, source: str) -> Item:
    return Item(Path("x.mp4"), generated, source, source, "train")


def test_splits_share_no_group(drawn_pack: Path) -> None:
    train, val = (read_manifest(drawn_pack, split=split) for split in ("train", "val"))
    assert len(train) == len(val) == 12
    assert not {i.group for i in train} & {i.group for i in val}
    assert {i.group for i in train if i.generated} == {"family-0", "family-4"}
    assert len(read_manifest(drawn_pack)) == 24


def test_lines_of_aggregate_observations_are_left_to_others(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"group": ["a.mp4"], "observation": {"kind": "any"}}\n')
    assert read_manifest(manifest) == []


def test_classes_are_drawn_alike_and_large_sources_less_than_by_their_size() -> None:
    items = [item(True, "big")] * 16 + [item(True, "small")] + [item(False, "camera")] * 2
    odds = balanced_weights(items)
    assert odds.sum() == pytest.approx(1)
    assert odds[:17].sum() == pytest.approx(0.5)
    assert odds[:16].sum() / odds[16] == pytest.approx(4)


def test_a_manifest_of_less_weight_is_drawn_less(drawn_pack: Path) -> None:
    items = read_manifest(drawn_pack, drawn_pack, split="train", weights=[1.0, 0.25])
    odds = balanced_weights(items)
    assert odds[:12].sum() / odds[12:].sum() == pytest.approx(4)
    with pytest.raises(SpecSemError, match="as many weights"):
        read_manifest(drawn_pack, weights=[1.0, 2.0])


def test_folds_share_no_group_and_hold_their_share_of_both_labels() -> None:
    rng = np.random.default_rng(0)
    items = [item(bool(n % 2), f"{n % 2}-{rng.integers(20)}") for n in range(400)]
    fold = assign_folds(items, 4)
    for key in {(i.generated, i.group) for i in items}:
        assert len({f for i, f in zip(items, fold, strict=True) if (i.generated, i.group) == key}) == 1
    for generated in (True, False):
        sizes = np.bincount(fold[[i.generated is generated for i in items]], minlength=4)
        assert sizes.min() > 35
    assert (fold == assign_folds(items, 4)).all()
    assert (fold != assign_folds(items, 4, seed=1)).any()


def test_as_many_folds_as_families_leave_one_generator_out(drawn_pack: Path) -> None:
    items = read_manifest(drawn_pack)
    families = {i.group for i in items if i.generated}
    fold = assign_folds(items, len(families))
    for number in range(len(families)):
        assert len({i.group for i, f in zip(items, fold, strict=True) if i.generated and f == number}) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not JSON", "line 1: no JSON"),
        ("[1]", "no JSON object"),
        ('{"path": "a.mp4", "label": "real"}', "without source"),
        ('{"path": "a.mp4", "label": "fake", "source": "x"}', "'fake'"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(SpecSemError, match=says):
        read_manifest(tmp_path / "m.jsonl")
