"""Stored answers under another policy."""

from pathlib import Path

import pytest

from specsem.errors import FileUnusable, PolicyRefused
from specsem.policy import PolicyBook, decide
from specsem.registry import read_model
from specsem.replay import Replayed, Skipped, Stored, read_answers, replay
from specsem.result import FailedFile, ScoredFile
from tests.test_policy import BLOCK, POINTS, answer, policy


@pytest.fixture
def ours(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """SHA-256 of weights whose thresholds are known: generated from 0.9 up, false alarms 5% at most."""
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    return read_model(tiny_models / "specsem-compact").sha256


def given(score: float, sha256: str, *, with_decision: bool = True) -> ScoredFile:
    one = answer(score)
    one = one.model_copy(update={"model": one.model.model_copy(update={"sha256": sha256})})
    default = PolicyBook.read().policy("default@1")
    decision = decide(default, one, POINTS) if with_decision else None
    return one.model_copy(update={"decision": decision})


STRICT = policy(BLOCK | {"when": {"max_fpr": 0.06}})


def test_what_would_change_and_what_nobody_knows(ours: str) -> None:
    stored = [
        Stored("1", given(0.95, ours)),
        Stored("2", given(0.5, ours)),
        Stored("3", given(0.95, ours, with_decision=False)),
        Stored("4", given(0.95, "of other weights")),
        Stored("5", None),
    ]
    first, second, third, *skipped = replay(STRICT, stored)
    found = [one for one in (first, second, third) if isinstance(one, Replayed)]
    assert [(one.was, one.now.action, one.changed) for one in found] == [
        ("review", "block", True),
        ("allow", "allow", False),
        (None, "block", True),
    ]
    assert [one.why for one in skipped if isinstance(one, Skipped)] == ["other_weights", "unreadable"]


def test_against_another_policy_instead_of_what_was_decided(ours: str) -> None:
    [one] = replay(STRICT, [Stored("1", given(0.95, ours))], against=policy(version=1))
    assert isinstance(one, Replayed)
    assert (one.was, one.now.action) == ("allow", "block")


def test_surface_and_tenant_are_those_of_the_job(ours: str) -> None:
    rules = policy({"when": {"surface": ["ads"], "tenant": ["acme"]}, "then": "review"})
    stored = [Stored("1", given(0.5, ours), "acme", "ads"), Stored("2", given(0.5, ours), "acme", "")]
    assert [one.now.action for one in replay(rules, stored) if isinstance(one, Replayed)] == [
        "review",
        "allow",
    ]


def test_a_policy_that_the_calibration_can_t_support_is_refused(ours: str) -> None:
    with pytest.raises(PolicyRefused, match="no false alarm at all among the calibration's 60 camera clips"):
        list(replay(policy(BLOCK), [Stored("1", given(0.95, ours))]))


def test_lines_of_the_command_line(tmp_path: Path, ours: str) -> None:
    failed = FailedFile.model_validate({"path": "b", "error": {"code": "not_a_video", "message": "None."}})
    lines = tmp_path / "answers.jsonl"
    lines.write_text("\n".join([given(0.95, ours).model_dump_json(), failed.model_dump_json(), "{}"]))
    first, unreadable = read_answers(lines)
    assert first.answer == given(0.95, ours)
    assert unreadable.answer is None
    with pytest.raises(FileUnusable, match="can't be read"):
        list(read_answers(tmp_path / "missing"))
