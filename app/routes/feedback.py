"""What people say of answers, one by one or by count, and the queue of those that wait for an operator."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.jobs.feedback import Counted, Said, Waiting
from app.routes._openapi import KEYED, json_body, problems
from app.routes._requests import Cursor, cursor_of, place_of, read_json
from app.routes.jobs import JobId, described
from app.schemas import (
    FeedbackGiven,
    GroupFeedbackGiven,
    OperatorDecision,
    feedback_of,
    group_of,
    summary_of,
)
from app.services import Parts, Sender, Services, Tenant
from specsem.records import FeedbackSummary, GroupFeedback, GroupFeedbackList, ReviewItem, ReviewQueue

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Feedback"], dependencies=KEYED)

PLACE = r"([01]) (\d(?:\.\d+)?(?:e-\d+)?) ([0-9a-f]{32})"
"""Of an answer in the queue: its rank, its margin and its id."""
SAY = ("job_not_found", "job_not_done", "invalid_request", "limits_exceeded", "upload_timeout")
UNSAY = ("job_not_found", "feedback_not_found")


@router.post(
    "/jobs/{job_id}/feedback",
    summary="Say whether an answer is right",
    responses=problems(*SAY),
    openapi_extra=json_body(FeedbackGiven),
)
async def say(job_id: JobId, request: Request, parts: Services, sender: Sender) -> FeedbackSummary:
    """One opinion of each key counts: a later one takes its place, and the earlier is kept as history.

    It changes no score. What is wrong or unsure comes first in the review queue. It outlives the answer, and
    goes when the job is deleted.
    """
    given = await read_json(request, FeedbackGiven, timeout_s=parts.settings.upload_idle_s)
    said = Said("user", sender.key, given.verdict, given.label, given.note)
    await parts.jobs.say(sender.tenant, job_id, said)
    return await _summary(parts, sender, job_id)


@router.delete("/jobs/{job_id}/feedback", status_code=204, summary="Withdraw it", responses=problems(*UNSAY))
async def unsay(job_id: JobId, parts: Services, sender: Sender) -> None:
    """What this key said counts no longer; it is kept as history."""
    await parts.jobs.unsay(sender.tenant, job_id, source="user", actor=sender.key)


@router.post(
    "/feedback",
    status_code=201,
    summary="Say of how many answers something holds",
    responses=problems(*SAY),
    openapi_extra=json_body(GroupFeedbackGiven),
)
async def count(request: Request, parts: Services, sender: Sender) -> GroupFeedback:
    """A count over jobs, without saying which: of these, so many were `upheld`, or so many are `generated`.

    Thresholds can be fitted from counts alone (`specsem recalibrate`). Take jobs together that came together,
    a day's say, rather than those of one verdict. A count goes when one of its jobs is deleted.
    """
    given = await read_json(request, GroupFeedbackGiven, timeout_s=parts.settings.upload_idle_s)
    counted = Counted(given.kind, given.count, given.jobs, sender.key, given.note)
    return group_of(await parts.jobs.count(sender.tenant, counted))


@router.get("/feedback", summary="Counts that were given", responses=problems("invalid_request"))
async def counts(
    parts: Services,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=100, description="Counts on a page.")] = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="`next` of the page before.")] = None,
) -> GroupFeedbackList:
    """The latest first, without their jobs."""
    rows = await parts.jobs.groups(tenant, before=cursor, limit=limit + 1)
    return GroupFeedbackList(
        groups=[group_of(row) for row in rows[:limit]],
        next=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.delete(
    "/feedback/{group_id}",
    status_code=204,
    summary="Withdraw a count",
    responses=problems("feedback_not_found", "invalid_request"),
)
async def uncount(
    group_id: Annotated[int, Path(ge=1, le=2**31 - 1, description="As the answer to it said.")],
    parts: Services,
    sender: Sender,
) -> None:
    """Forgets it."""
    await parts.jobs.uncount(sender.tenant, group_id, actor=sender.key)


@router.get("/review", summary="Answers that wait for an operator", responses=problems("invalid_request"))
async def queue(
    parts: Services,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=100, description="Answers on a page.")] = 50,
    cursor: Cursor = None,
) -> ReviewQueue:
    """First what is inconclusive, was reported, or is to be reviewed by the policy, then all others, each by
    how near to a threshold it came. What an operator has decided, or what has expired, is not in it."""
    after = None
    if cursor:
        rank, margin, job_id = place_of(cursor, PLACE).groups()
        after = int(rank), float(margin), job_id
    found, total = await parts.jobs.waiting(tenant, after=after, limit=limit + 1)
    last = found[limit - 1].place if len(found) > limit else None
    return ReviewQueue(
        items=[_item(waiting) for waiting in found[:limit]],
        waiting=total,
        next=cursor_of(f"{last[0]} {last[1]!r} {last[2]}") if last else None,
    )


@router.put(
    "/review/{job_id}",
    summary="Decide on an answer",
    responses=problems(*SAY),
    openapi_extra=json_body(OperatorDecision),
)
async def decide(job_id: JobId, request: Request, parts: Services, sender: Sender) -> FeedbackSummary:
    """What an operator says of the video, kept as feedback with the source `review`: it leaves the queue."""
    decision = await read_json(request, OperatorDecision, timeout_s=parts.settings.upload_idle_s)
    label = None if decision.label == "unsure" else decision.label
    await parts.jobs.say(sender.tenant, job_id, Said("review", sender.key, label=label, note=decision.note))
    return await _summary(parts, sender, job_id)


@router.delete("/review/{job_id}", status_code=204, summary="Undo a decision", responses=problems(*UNSAY))
async def undo(job_id: JobId, parts: Services, sender: Sender) -> None:
    """This key's decision counts no longer: the answer is back in the queue, unless another operator has
    decided too."""
    await parts.jobs.unsay(sender.tenant, job_id, source="review", actor=sender.key)


async def _summary(parts: Parts, sender: Sender, job_id: str) -> FeedbackSummary:
    return summary_of(await parts.jobs.feedback(sender.tenant, job_id), actor=sender.key)


def _item(waiting: Waiting) -> ReviewItem:
    return ReviewItem.model_validate(
        {
            "job": described(waiting.job, with_result=False),
            "verdict": waiting.job.verdict,
            "action": waiting.job.action,
            "margin": waiting.job.margin,
            "reports": [feedback_of(row) for row in waiting.reports],
        }
    )
