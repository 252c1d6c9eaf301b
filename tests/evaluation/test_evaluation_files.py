"""Scores go through the product's own way, and come back from a file as they were."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specsem.errors import SpecSemError
from specsem.evaluation.files import (
    FileFacts,
    FileScore,
    append_score,
    read_scores,
    score_items,
    write_scores,
)
from specsem.media import DecoderPool
from specsem.registry import read_model
from specsem.scorer import Scorer, WindowScore
from specsem.synthetic import write_clip
from specsem.training.calibrate import calibrate
from specsem.training.data import Item


def made(number: int, generated: bool) -> FileScore:
    rng = np.random.default_rng((number, generated))
    item = Item(
        Path(f"/pack/{generated}/{number}.mp4"),
        generated,
        f"s{number}",
        f"g{number}",
        "val",
        {"path": f"{generated}/{number}.mp4", "sha256": f"{number:064x}"},
    )
    windows = [
        WindowScore(
            0.1 * k, 0.1 * k + 0.3, rng.normal(2.0 * generated), 2.0, 3.0, rng.normal(size=5).astype("f4")
        )
        for k in range(3)
    ]
    return FileScore(item, "level", windows, "", FileFacts("h264", 256, 256, 24.0, 0.667, 16, 12345), "3")


SCORES = [made(number, generated) for generated in (True, False) for number in range(30)]
BROKEN = FileScore(SCORES[0].item, "level", [], "undecodable")


def test_scores_come_back_whole(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.jsonl", [*SCORES, BROKEN])
    back = read_scores(tmp_path / "scores.jsonl", root=Path("/pack"))
    assert [replace(s, windows=[]) for s in back] == [replace(s, windows=[]) for s in [*SCORES, BROKEN]]
    for old, new in zip(SCORES, back, strict=False):
        assert new.logit == old.logit
        assert new.item.facts == old.item.facts
        for before, after in zip(old.windows, new.windows, strict=True):
            np.testing.assert_array_equal(before.features_D, after.features_D)
            assert (before.start_s, before.end_s, before.motion, before.detail) == (
                after.start_s,
                after.end_s,
                after.motion,
                after.detail,
            )
    assert calibrate(back) == calibrate(SCORES)  # a calibration needs all that was kept


def test_a_line_says_plainly_what_it_holds(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.jsonl", SCORES[:1])
    row = json.loads((tmp_path / "scores.jsonl").read_text())
    assert row["path"] == "True/0.mp4"
    assert row["label"] == "generated"
    assert row["fold"] == "3"
    assert row["file"]["n_frames"] == 16
    features = np.frombuffer(base64.b64decode(row["windows"][0]["features"]), "<f4")
    np.testing.assert_array_equal(features, SCORES[0].windows[0].features_D)


def test_what_a_kill_leaves_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    for score in SCORES[:3]:
        append_score(path, score)
    path.write_text(path.read_text()[:-40])
    assert len(read_scores(path, partial_last=True)) == 2
    with pytest.raises(SpecSemError, match="Line 3"):
        read_scores(path)


def test_scoring_writes_the_facts_of_the_file_that_was_scored(tiny_models: Path, tmp_path: Path) -> None:
    items = []
    for number, (width, height) in enumerate(((320, 240), (480, 300), (48, 48))):
        path = tmp_path / f"{number}.mp4"
        write_clip(path, width=width, height=height, seconds=0.8, seed=number)
        items.append(Item(path, number == 0, f"s{number}", f"s{number}", "val"))
    (tmp_path / "text.mp4").write_text("no video")
    items.append(Item(tmp_path / "text.mp4", False, "s3", "s3", "val"))
    scorer = Scorer(read_model(tiny_models / "specsem-compact"), device="cpu")
    with DecoderPool(workers=1) as pool:
        level = list(score_items(items, "level", scorer=scorer, pool=pool, fold="1"))
        as_is = list(score_items(items, "as-is", scorer=scorer, pool=pool))
    assert [s.item for s in level] == items
    first, second, small, text = level
    assert first.file is not None
    assert second.file is not None
    assert (first.file.width, first.file.n_frames, first.file.fps) == (256, 16, 24.0)
    assert first.fold == "1"
    assert small.error == "too_small"
    assert text.error
    assert text.windows == []
    assert as_is[0].file is not None
    assert (as_is[0].file.width, as_is[0].file.n_frames) == (320, 20)
    assert as_is[0].file.bytes == items[0].path.stat().st_size
