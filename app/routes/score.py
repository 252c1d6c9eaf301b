"""``POST /v1/score``: one file in, its calibrated verdict out."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from app.disconnect import unless_gone
from app.jobs.service import Order
from app.problems import Problem
from app.routes._openapi import KEYED, answered_headers, file_body, problems
from app.routes._requests import (
    Ordered,
    Preferences,
    Prefers,
    asked_in_form,
    read_json,
    surface_in_form,
)
from app.routes.jobs import SUBMIT, accepted
from app.routes.videos import BAD_FILE, STORED, UPLOAD, FileName, arriving, stored
from app.schemas import Job, NamedVideo
from app.services import Parts, Services
from app.uploads import Upload, content_type
from specsem.errors import NotFound
from specsem.result import ScoredFile

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Score"], dependencies=KEYED)

LEAST_BYTES_PER_S = 8_000
"""A file of fewer bytes than this for each second is taken for short without a look: no video that is worth
a score has less, and the look costs the decoder a turn."""

BECAME_A_JOB: dict[int | str, dict[str, Any]] = {
    202: {"model": Job, "description": "Became a job; `Location` says where."}
}


@router.post(
    "/score",
    summary="Score a video",
    response_model=ScoredFile,
    responses=BECAME_A_JOB
    | answered_headers(
        200, "The verdict.", Cache_Status="`specsem; hit`: a job answered for these bytes before."
    )
    | problems("url_refused", "invalid_request", *STORED, *UPLOAD, *BAD_FILE, *SUBMIT, "not_ready"),
    openapi_extra=file_body(with_json=NamedVideo.model_json_schema(), options=True),
)
async def score(
    request: Request,
    response: Response,
    parts: Services,
    *,
    order: Ordered,
    prefers: Prefers,
    filename: FileName = "",
) -> ScoredFile | Response:
    """The verdict on a video with its time line: the same answer as `specsem score --json` gives.

    Send the file as the field `file` of a form or as a raw body, or name a stored one: `{"video": "<id>"}`.
    The file of a form or raw body is removed before the answer arrives. Leaving cancels the work.

    Bytes that a job has answered for with the same model and options are not scored again (`Cache-Status`
    says `hit`), unless the request says `Cache-Control: no-cache` or asks for evidence. What is to be done
    is decided anew.

    A long video becomes a job (202), and with `Prefer: respond-async` any; with `Prefer: wait` none does.
    """
    if not prefers.respond_async:
        parts.engine.check_ready()
    if content_type(request)[0] == "application/json":
        return await _score_stored(request, response, parts, order, prefers)
    async with arriving(request, parts, order.tenant, filename) as (upload, _):
        order = order.also(asked_in_form(upload.fields)).on(surface_in_form(upload.fields))
        if prefers.respond_async or await _is_long(request, parts, prefers, upload):
            return accepted(await parts.jobs.submit_upload(upload, order), prefers)
        return await _answer(
            request, response, parts, order, path=upload.path, name=upload.name, sha256=upload.sha256
        )


async def _answer(
    request: Request,
    response: Response,
    parts: Parts,
    order: Order,
    *,
    path: Path,
    name: str,
    sha256: str,
) -> ScoredFile:
    """From the store or made now, decided now."""
    answer = await parts.jobs.known_answer(order, sha256, name)
    if answer is None:
        work = parts.scoring.score(path, name=name, sha256=sha256, options=order.options)
        answer = await unless_gone(request, work)
    else:
        response.headers["Cache-Status"] = "specsem; hit"  # RFC 9211
    return parts.jobs.decider.decide(answer, tenant=order.tenant, surface=order.surface)


async def _is_long(request: Request, parts: Parts, prefers: Preferences, upload: Upload) -> bool:
    limit_s = parts.settings.long_video_s
    if prefers.wait or upload.bytes < limit_s * LEAST_BYTES_PER_S:
        return False
    info = await unless_gone(request, parts.scoring.probe(upload.path))
    return info.duration_s > limit_s


async def _score_stored(
    request: Request, response: Response, parts: Parts, order: Order, prefers: Preferences
) -> ScoredFile | Response:
    asked = await read_json(request, NamedVideo, timeout_s=parts.settings.upload_idle_s)
    if asked.video is None:
        raise Problem("url_refused", "An address is fetched by a job: send it to POST /v1/jobs.")
    order = order.also(asked.options).on(asked.surface)
    video, path = await stored(parts, order.tenant, asked.video)
    is_long = video.media.duration_s > parts.settings.long_video_s
    if prefers.respond_async or (is_long and not prefers.wait):
        return accepted(await parts.jobs.submit_video(video, path, order), prefers)
    with parts.admission.permit(tenant=order.tenant):
        try:
            return await _answer(
                request, response, parts, order, path=path, name=video.filename, sha256=video.sha256
            )
        except NotFound as error:  # deleted while it waited
            raise Problem("video_not_found", "The video was deleted before it could be scored.") from error
