"""Stored answers under another policy: what would be decided of them now, and what would change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from specsem.calibration import Calibration
from specsem.errors import FileUnusable
from specsem.policy import Policy, decide, require_supported
from specsem.registry import ModelRecord, list_models
from specsem.result import Action, Decision, ScoredFile, Threshold

__all__ = ["Replayed", "Skipped", "Stored", "read_answers", "replay"]

Why = Literal["unreadable", "other_weights"]


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was given."""

    id: str
    """Of its job, or its path."""
    answer: ScoredFile | None
    """None: it was written by another version, and can't be read."""
    tenant: str = ""
    surface: str = ""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of an answer."""

    stored: Stored
    was: Action | None
    """None: nothing was decided then."""
    now: Decision
    score: float

    @property
    def changed(self) -> bool:
        """Whether something else would be done."""
        return self.was != self.now.action


@dataclass(frozen=True, slots=True)
class Skipped:
    """An answer of which nothing can be said: it can't be read, or no registered model has its weights, so
    nobody knows its thresholds."""

    stored: Stored
    why: Why


def replay(
    policy: Policy, stored: Iterable[Stored], *, against: Policy | None = None
) -> Iterator[Replayed | Skipped]:
    """Decide on each anew, by the calibration of the model that gave it.

    Args:
        policy: The one that is tried.
        stored: Answers as they were given.
        against: What it is compared with; None: what was decided then.

    Raises:
        PolicyRefused: a policy promises more than a calibration supports.
    """
    models = {record.sha256: record for record in list_models() if record.present}
    points = {sha256: _points(record) for sha256, record in models.items()}
    supported = set()
    for one in stored:
        answer = one.answer
        if answer is None or answer.model.sha256 not in points:
            yield Skipped(one, "unreadable" if answer is None else "other_weights")
            continue
        its_points = points[answer.model.sha256]
        if answer.model.sha256 not in supported:
            for each in filter(None, (policy, against)):
                require_supported(each, its_points)
            supported.add(answer.model.sha256)
        now = decide(policy, answer, its_points, tenant=one.tenant, surface=one.surface)
        was = answer.decision
        if against is not None:
            was = decide(against, answer, its_points, tenant=one.tenant, surface=one.surface)
        yield Replayed(one, was.action if was is not None else None, now, answer.score)


def _points(record: ModelRecord) -> dict[str, Threshold]:
    return Calibration.load(record.folder).policies


def read_answers(path: Path) -> Iterator[Stored]:
    """The lines that ``specsem score --json`` wrote; those of files that could not be scored are left out.

    Raises:
        FileUnusable: it can't be read.
    """
    try:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    answer = ScoredFile.model_validate_json(line)
                except ValidationError:
                    if b'"error"' not in line:
                        yield Stored(path.name, None)
                    continue
                surface = answer.decision.surface if answer.decision is not None else ""
                yield Stored(answer.path, answer, surface=surface)
    except OSError as error:
        raise FileUnusable(f"{path} can't be read: {error.strerror or type(error).__name__}.") from None
