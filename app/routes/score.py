"""``POST /v1/score``: one file in, its calibrated verdict out."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from app.disconnect import unless_gone
from app.problems import Problem
from app.routes._openapi import file_body, problems
from app.routes.videos import BAD_FILE, UPLOAD, FileName, arriving
from app.schemas import ScoreVideo
from app.services import Parts, Services
from app.uploads import content_type
from specsem.errors import NotFound
from specsem.result import ScoredFile

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Score"])

MAX_JSON_BYTES = 64 * 1024
_BOOLEAN = TypeAdapter(bool)


@router.post(
    "/score",
    summary="Score a video",
    responses=problems("video_not_found", "invalid_request", *UPLOAD, *BAD_FILE, "not_ready"),
    openapi_extra=file_body(with_json=ScoreVideo.model_json_schema()),
)
async def score(
    request: Request,
    parts: Services,
    filename: FileName = "",
    thorough: Annotated[
        bool, Query(description="Scan the whole time line instead of a few windows.")
    ] = False,
) -> ScoredFile:
    """The verdict on a video with its time line: the same answer as `specsem score --json` gives.

    Send the file as the field `file` of a form or as a raw body, or name a stored one: `{"video": "<id>"}`.
    The file of a form or raw body is removed before the answer arrives. Leaving cancels the work.
    """
    parts.engine.check_ready()
    if content_type(request)[0] == "application/json":
        return await _score_stored(request, parts, thorough)
    async with arriving(request, parts, filename) as upload:
        work = parts.scoring.score(
            upload.path,
            name=upload.name,
            sha256=upload.sha256,
            thorough=thorough or _flag(upload.fields.get("thorough")),
        )
        return await unless_gone(request, work)


async def _score_stored(request: Request, parts: Parts, thorough: bool) -> ScoredFile:
    try:
        async with asyncio.timeout(parts.settings.upload_idle_s):
            asked = await _read_json(request)
    except TimeoutError:
        raise Problem("upload_timeout", "The JSON body took too long to arrive.") from None
    video, path = await parts.videos.get(asked.video)
    with parts.admission.permit():
        work = parts.scoring.score(
            path, name=video.filename, sha256=video.sha256, thorough=thorough or asked.thorough
        )
        try:
            return await unless_gone(request, work)
        except NotFound as error:  # deleted while it waited
            raise Problem("video_not_found", "The video was deleted before it could be scored.") from error


async def _read_json(request: Request) -> ScoreVideo:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise Problem("limits_exceeded", "The JSON body is too large.", status=413)
    try:
        return ScoreVideo.model_validate_json(bytes(body))
    except ValidationError as error:
        raise RequestValidationError(
            [{**found, "loc": ("body", *found["loc"])} for found in error.errors(include_url=False)]
        ) from error


def _flag(text: str | None) -> bool:
    try:
        return _BOOLEAN.validate_python(text or "false")
    except ValidationError as error:
        raise RequestValidationError(
            [{**found, "loc": ("body", "thorough")} for found in error.errors(include_url=False)]
        ) from error
