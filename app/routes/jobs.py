"""``/v1/jobs``: work that outlives its request, and the process that does it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.jobs.similar import Alike
from app.jobs.table import JobRow
from app.problems import Problem
from app.routes._openapi import KEYED, file_body, problems
from app.routes._requests import (
    Cursor,
    Ordered,
    Preferences,
    Prefers,
    asked_in_form,
    cursor_of,
    place_of,
    read_json,
    surface_in_form,
)
from app.routes.videos import STORED, UPLOAD, FileName, arriving, stored
from app.schemas import AppealAsked, Job, JobLinks, JobList, JobProgress, NamedVideo, summary_of
from app.services import Sender, Services, Tenant
from app.uploads import content_type
from specsem.fingerprint import HASH_BYTES
from specsem.records import SimilarJob, SimilarJobs, Status
from specsem.result import ErrorBody

__all__ = ["SUBMIT", "JobId", "accepted", "described", "router"]

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"], dependencies=KEYED)

JobId = Annotated[str, Path(description="The id that the submission answered.")]
ViewName = Annotated[str, Path(description="As `3-residual`.", pattern=r"^\d{1,9}-[a-z-]{1,32}$")]

SUBMIT = ("idempotency_key_reused", "busy", "storage_full", "not_ready")
PLACE = r"(\d+\.\d+) ([0-9a-f]{32})"
"""Of a job in the list: when it was made, and its id."""
LOOK_S = 0.5
"""How often an event stream looks at the row: whoever works on the job may be another process."""
OVER = frozenset({"done", "failed", "expired"})


class PngResponse(Response):
    """A picture."""

    media_type = "image/png"


@router.post(
    "",
    status_code=202,
    summary="Submit a job",
    response_model=Job,
    responses=problems("url_invalid", "url_refused", "invalid_request", *STORED, *UPLOAD, *SUBMIT),
    openapi_extra=file_body(with_json=NamedVideo.model_json_schema(), options=True),
)
async def submit(
    request: Request,
    parts: Services,
    *,
    order: Ordered,
    prefers: Prefers,
    filename: FileName = "",
) -> Response:
    """Takes a video for scoring later, by this process or another: `Location` says where its answer will be.

    Send the file as the field `file` of a form or as a raw body, or name a stored one: `{"video": "<id>"}`.
    Where the operator has switched that on, name where it is: `{"url": "https://..."}`. The query of a URL
    may hold credentials: nothing of it is shown, and nothing is kept once the job has ended.

    Bytes that were scored before with the same model and options are answered at once (`from_store`), unless
    `Cache-Control: no-cache` is sent; the decision is made anew. The file is removed once the job has ended.
    """
    if content_type(request)[0] == "application/json":
        asked = await read_json(request, NamedVideo, timeout_s=parts.settings.upload_idle_s)
        order = order.also(asked.options).on(asked.surface)
        if asked.url is not None:
            return accepted(await parts.jobs.submit_url(asked.url, order), prefers)
        assert asked.video is not None  # noqa: S101 - the model wants one of the two
        video, path = await stored(parts, order.tenant, asked.video)
        return accepted(await parts.jobs.submit_video(video, path, order), prefers)
    async with arriving(request, parts, order.tenant, filename) as (upload, _):
        order = order.also(asked_in_form(upload.fields)).on(surface_in_form(upload.fields))
        return accepted(await parts.jobs.submit_upload(upload, order), prefers)


@router.get("", summary="List jobs", responses=problems("invalid_request"))
async def list_jobs(
    parts: Services,
    tenant: Tenant,
    status: Annotated[list[Status] | None, Query(description="Only jobs in one of these states.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    cursor: Cursor = None,
) -> JobList:
    """The latest first, each without its `result`. What comes in meanwhile moves nothing between pages."""
    before = None
    if cursor:
        created_at, job_id = place_of(cursor, PLACE).groups()
        before = float(created_at), job_id
    rows = await parts.jobs.page(tenant, statuses=status or (), before=before, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return JobList(
        jobs=[described(row, with_result=False) for row in rows[:limit]],
        next=cursor_of(f"{last.created_at!r} {last.id}") if last else None,
    )


@router.get("/{job_id}", summary="A job and its answer", responses=problems("job_not_found"))
async def get(job_id: JobId, parts: Services, sender: Sender) -> Job:
    """Its state, how far it is, its answer once there is one, and what was said of that."""
    job = described(await parts.jobs.find(sender.tenant, job_id))
    said = await parts.jobs.feedback(sender.tenant, job_id)
    appeal = await parts.jobs.appeal(sender.tenant, job_id)
    links = job.links.model_copy(update={"appeal": f"/v1/jobs/{appeal.id}" if appeal else None})
    return job.model_copy(update={"feedback": summary_of(said, actor=sender.key), "links": links})


@router.post(
    "/{job_id}/appeal",
    status_code=202,
    summary="Appeal: have the video looked at again",
    response_model=Job,
    responses=problems(
        "job_not_found",
        "job_not_done",
        "appeal_refused",
        "media_gone",
        "other_video",
        "invalid_request",
        *STORED,
        *UPLOAD,
        *SUBMIT,
    ),
    openapi_extra=file_body(with_json=AppealAsked.model_json_schema(), required=False),
)
async def appeal(
    job_id: JobId,
    request: Request,
    parts: Services,
    *,
    sender: Sender,
    prefers: Prefers,
    filename: FileName = "",
) -> Response:
    """A second job for the same video, thorough, by the model and calibration that are active now; where they
    had looked at all of it before, deliveries are tried as well. Each links to the other, and a second appeal
    answers with the first one's job.

    The file is needed again, as in a submission or as the id of a stored video, unless it is kept
    (`SPECSEM_KEEP_MEDIA`): then the body may be empty.
    """
    first = await parts.jobs.find(sender.tenant, job_id)
    if under_way := await parts.jobs.appeal(sender.tenant, job_id):
        return accepted(under_way, prefers)
    order = parts.jobs.second_look(first, key=sender.key)
    if content_type(request)[0] == "application/json":
        asked = await read_json(request, AppealAsked, timeout_s=parts.settings.upload_idle_s)
        if asked.video is not None:
            video, path = await stored(parts, sender.tenant, asked.video)
            _check_same(first, video.sha256)
            return accepted(await parts.jobs.submit_video(video, path, order), prefers)
        return accepted(await parts.jobs.submit_kept(first, order), prefers)
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return accepted(await parts.jobs.submit_kept(first, order), prefers)
    async with arriving(request, parts, sender.tenant, filename) as (upload, _):
        _check_same(first, upload.sha256)
        return accepted(await parts.jobs.submit_upload(upload, order), prefers)


def _check_same(first: JobRow, sha256: str) -> None:
    """Raises ``Problem`` ``other_video`` (422)."""
    if sha256 != first.sha256:
        raise Problem("other_video", "This is not the video of that job: its SHA-256 is another.")


@router.delete("/{job_id}", status_code=204, summary="Delete a job", responses=problems("job_not_found"))
async def delete(job_id: JobId, parts: Services, sender: Sender) -> None:
    """Removes its answer and its media at once; one that is under way is cancelled."""
    await parts.jobs.delete(sender.tenant, job_id, key=sender.key)


@router.get(
    "/{job_id}/views/{name}.png",
    summary="A picture of a job's evidence",
    response_class=PngResponse,
    responses=problems("job_not_found", "view_not_found", "invalid_request"),
)
async def view(job_id: JobId, name: ViewName, parts: Services, tenant: Tenant) -> Response:
    """What the model looked at, as the views of the job's `evidence` name it. Removed with the answer."""
    job = await parts.jobs.find(tenant, job_id)
    png = await parts.jobs.view(job, name) if job.status_now == "done" else None
    if png is None:
        raise Problem("view_not_found", "This job has no picture of this name.")
    return PngResponse(png, headers={"Content-Disposition": f'inline; filename="{job.id[:8]}-{name}.png"'})


@router.get(
    "/{job_id}/similar",
    summary="Jobs that look like it",
    responses=problems("job_not_found", "job_not_done", "invalid_request"),
)
async def similar(
    job_id: JobId,
    parts: Services,
    sender: Sender,
    limit: Annotated[int, Query(ge=1, le=100, description="So many at most.")] = 20,
) -> SimilarJobs:
    """Near-duplicates among the tenant's jobs, by perceptual hashes of some frames (PDQ): re-encoded, scaled
    or cut versions, and the same bytes. Flips, crops and overlays may hide one.

    What an operator decided on one of them is offered in its `decision`, and changes nothing here: who agrees
    says so of this job (`PUT /v1/review/{job_id}`). Of a job that has expired, only what was decided is left.
    """
    hashes, found = await parts.jobs.similar(sender.tenant, job_id, limit=limit)
    return SimilarJobs(
        hashes=[hashes[at : at + HASH_BYTES].hex() for at in range(0, len(hashes), HASH_BYTES)],
        jobs=[_alike(alike, actor=sender.key) for alike in found.alike],
        compared=found.compared,
        complete=found.complete,
    )


async def _watched(job_id: JobId, parts: Services, tenant: Tenant) -> JobRow:
    """Looked up before the stream begins, so that an unknown id is a 404."""
    return await parts.jobs.find(tenant, job_id)


@router.get(
    "/{job_id}/events",
    summary="Watch a job",
    response_class=EventSourceResponse,
    responses=problems("job_not_found"),
)
async def events(
    job: Annotated[JobRow, Depends(_watched)], parts: Services, tenant: Tenant
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` at each change, then one named after how it ended (`done`, `failed`,
    `expired`) with the whole job, or `deleted`; then the stream ends."""
    told: tuple[Status, JobProgress] | None = None
    while not parts.jobs.stopping:
        now = described(job)
        if now.status in OVER:
            yield ServerSentEvent(event=now.status, raw_data=_json(now))
            return
        if told != (news := (now.status, now.progress)):
            told = news
            progress = {"id": job.id, "status": job.status, "progress": now.progress.model_dump()}
            yield ServerSentEvent(event="progress", raw_data=json.dumps(progress))
        await asyncio.sleep(LOOK_S)
        try:
            job = await parts.jobs.find(tenant, job.id)
        except Problem:
            yield ServerSentEvent(event="deleted", raw_data=json.dumps({"id": job.id}))
            return


def accepted(job: JobRow, prefers: Preferences) -> Response:
    """202 with where the job is."""
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if prefers.respond_async:
        headers["Preference-Applied"] = "respond-async"
    return Response(
        _json(described(job)), status_code=202, headers=headers, media_type=JSONResponse.media_type
    )


def _json(job: Job) -> str:
    return job.model_dump_json()


def described(job: JobRow, *, with_result: bool = True) -> Job:
    """The job as its client sees it."""
    status = job.status_now
    result: dict[str, Any] | None = None
    if with_result and status == "done" and job.result is not None:
        result = json.loads(job.result)
    error = None
    if job.error_code is not None and status == "failed":
        error = ErrorBody(code=job.error_code, message=job.error_message or "")
    return Job(
        id=job.id,
        status=status,
        progress=JobProgress(
            stage=status if status == "expired" else job.stage, fraction=job.fraction, eta_s=job.eta_s
        ),
        result=result,
        error=error,
        filename=job.filename,
        bytes=job.bytes,
        sha256=job.sha256,
        url=job.url,
        thorough=job.thorough,
        evidence=job.evidence,
        stability=job.stability,
        surface=job.surface,
        action=job.action if status == "done" else None,
        from_store=job.from_store,
        created_at=_time(job.created_at),
        started_at=_time(job.started_at),
        finished_at=_time(job.finished_at),
        expires_at=_time(job.expires_at),
        links=JobLinks(
            self=f"/v1/jobs/{job.id}",
            events=f"/v1/jobs/{job.id}/events",
            views=f"/v1/jobs/{job.id}/views/",
            similar=f"/v1/jobs/{job.id}/similar",
            report=f"/v1/jobs/{job.id}/report",
            statement=f"/v1/jobs/{job.id}/statement",
            appeal_of=f"/v1/jobs/{job.appeal_of}" if job.appeal_of else None,
        ),
    )


def _alike(alike: Alike, *, actor: str) -> SimilarJob:
    """A job that looks like another, for this actor."""
    job = alike.job
    has_answer = job is not None and job.status_now == "done"
    summary = summary_of(alike.feedback, actor=actor)
    return SimilarJob.model_validate(
        {
            "job": alike.job_id,
            "share": alike.share,
            "bits": alike.bits,
            "same_bytes": alike.same_bytes,
            "filename": job.filename if job else None,
            "verdict": job.verdict if job is not None and has_answer else None,
            "created_at": _time(job.created_at) if job else None,
            "decision": summary.decision,
            "feedback": summary,
        }
    )


def _time(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)
