"""The head that names families: right where a family carries over to new sources, silent where none does."""

import json
from pathlib import Path

import numpy as np
import pytest

from specsem.attribution import HEAD_FILE, TENSORS_FILE, Attributor
from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.registry import read_model
from specsem.scorer import WindowScore
from specsem.training.attribution import fit_attributor
from specsem.training.data import Item

D = 60


def scores(*, carries_over: bool) -> list[FileScore]:
    """Three families of three sources, and lone ones; a family shows in the features, or only the source."""
    rng = np.random.default_rng(0)
    found = []
    for family in (*"abc", *"vwxyz"):
        of_family = rng.normal(size=D) * 3
        for number in range(3 if family in "abc" else 1):
            of_source = of_family if carries_over else rng.normal(size=D) * 3
            for clip in range(6):
                item = Item(Path(f"{family}{number}{clip}"), True, f"{family}{number}", family, "train")
                shown_D = (of_source + rng.normal(size=D)).astype(np.float32)
                window = WindowScore(0, 1, 1.0, 1.0, 1.0, np.zeros(1, np.float32), 0.5, shown_D)
                found.append(FileScore(item, "as-is", [window]))
    return found


def test_a_family_that_carries_over_is_named_and_a_lone_one_is_unknown() -> None:
    head, figures = fit_attributor(scores(carries_over=True))
    assert head.families == ("a", "b", "c")
    assert (figures.clips, figures.families, figures.guessable) == (84, 8, 54)
    assert figures.guessable_right > 50
    assert figures.named_right > 40
    own = scores(carries_over=True)
    named = head.guess(own[0].windows[0].shown_D)
    assert named.family == "a"
    assert named.probability > 0.8
    assert named.basis == figures.sentence
    assert named.candidates[0].name == "a"
    lone = head.guess(own[-1].windows[0].shown_D)
    assert lone.family == "unknown"
    assert lone.probability == pytest.approx(1 - sum(c.probability for c in lone.candidates), abs=1e-3)


def test_where_only_sources_can_be_told_no_family_is_named_with_confidence() -> None:
    _, figures = fit_attributor(scores(carries_over=False))
    assert figures.guessable_right < 40
    assert figures.named < 10
    assert str(figures.guessable_right) in figures.sentence


def test_too_few_families_are_refused() -> None:
    with pytest.raises(SpecSemError):
        fit_attributor([s for s in scores(carries_over=True) if s.item.group in "avw"])
    with pytest.raises(SpecSemError):
        fit_attributor([])


def test_the_shipped_head_is_of_the_shipped_weights() -> None:
    record = read_model(Path(__file__).parents[2] / "models" / "specsem-compact")
    head = Attributor.load(record)
    assert head is not None
    fields = json.loads((record.folder / HEAD_FILE).read_text("utf-8"))
    assert fields["weights_sha256"] == record.sha256
    assert fields["figures"]["named_right"] <= fields["figures"]["named"]
    guess = head.guess(np.zeros(len(head.project_DQ), np.float32))
    assert sum(c.probability for c in guess.candidates) <= 1 + 1e-3
    assert set(record.files) >= {HEAD_FILE, TENSORS_FILE}
