"""What there is to tell: the types of events and their data (``app.schemas`` describes both to clients)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.jobs.table import FeedbackRow
from app.schemas import FeedbackEventData, JobEventData
from specsem.records import EventType
from specsem.result import Action, Decision, ErrorBody, Verdict

__all__ = ["PING", "Event", "feedback_created", "job_ended"]

PING = "webhook.ping"
"""Goes to one endpoint, whatever it asked for."""

_DECISIONS: dict[Action, EventType] = {"review": "decision.review", "block": "decision.block"}
"""By the action of a policy. The others (allow, label) need nobody."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    type: EventType
    data: Mapping[str, Any]


def job_ended(
    job_id: str,
    *,
    verdict: Verdict | None = None,
    score: float | None = None,
    decision: Decision | None = None,
    error: ErrorBody | None = None,
) -> list[Event]:
    """What the end of a job is to others. ``error``: why there is no answer."""
    data = JobEventData(
        job=job_id,
        status="done" if error is None else "failed",
        verdict=verdict,
        score=score,
        decision=decision,
        error=error,
        links=_links(job_id),
    ).model_dump(mode="json")
    if error is not None:
        return [Event("job.failed", data)]
    decided = _DECISIONS.get(decision.action) if decision is not None else None
    return [Event("job.done", data), *([Event(decided, data)] if decided else [])]


def feedback_created(row: FeedbackRow) -> Event:
    """What somebody's opinion is to others. The note stays here: it goes with the job, and what was told
    can't be taken back."""
    data = FeedbackEventData.model_validate(
        {
            "job": row.job_id,
            "source": row.source,
            "opinion": row.opinion,
            "label": row.label,
            "verdict": row.answer,
            "score": row.score,
            "links": _links(row.job_id),
        }
    )
    return Event("feedback.created", data.model_dump(mode="json"))


def _links(job_id: str) -> dict[str, str]:
    return {"job": f"/v1/jobs/{job_id}"}
