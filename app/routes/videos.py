"""``/v1/videos``: upload once, score as often as wanted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.disconnect import unless_gone
from app.problems import Problem
from app.routes._openapi import KEYED, file_body, problems
from app.schemas import Video, VideoMedia
from app.services import Parts, Services
from app.uploads import Upload, check_announced_length, content_type

__all__ = ["BAD_FILE", "UPLOAD", "FileName", "arriving", "router"]

router = APIRouter(prefix="/v1/videos", tags=["Videos"], dependencies=KEYED)

VideoId = Annotated[str, Path(description="The id that the upload answered.")]
FileName = Annotated[str, Query(description="Name of a raw body, for showing.", max_length=1000)]

FORMS_THAT_HOLD_NO_FILE = {
    "application/x-www-form-urlencoded": "Send the file itself: as multipart/form-data with the field "
    "`file`, or as a raw body with its own Content-Type such as video/mp4.",
    "application/json": "Send the file itself; JSON holds none.",
}
UPLOAD = (
    "malformed_body",
    "cross_site",
    "upload_timeout",
    "limits_exceeded",
    "unsupported_media_type",
    "missing_file",
    "busy",
    "storage_full",
    "deadline_exceeded",
)
BAD_FILE = (
    "not_a_video",
    "no_video_stream",
    "unsupported",
    "undecodable",
    "encrypted",
    "too_short",
    "too_small",
    "timeout",
)


@router.post(
    "",
    status_code=201,
    summary="Upload a video",
    responses=problems(*UPLOAD, *BAD_FILE),
    openapi_extra=file_body(),
)
async def upload(request: Request, response: Response, parts: Services, filename: FileName = "") -> Video:
    """Stores a video and answers its id, checksum and facts.

    The file is the field `file` of a form, or the raw body under any other type. Nothing of a file that can't
    be scored is kept. A stored video goes when it expires or is deleted.
    """
    async with arriving(request, parts, filename) as arrived:
        video = await unless_gone(request, _keep(parts, arrived))
    response.headers["Location"] = f"/v1/videos/{video.id}"
    return video


async def _keep(parts: Parts, arrived: Upload) -> Video:
    info = await parts.scoring.probe(arrived.path)
    media = VideoMedia(
        container=info.container,
        codec=info.codec,
        width=info.width,
        height=info.height,
        fps=info.fps,
        duration_s=info.duration_s,
    )
    return await parts.videos.keep(arrived, media)


@router.get("/{video_id}", summary="Facts of a video", responses=problems("video_not_found"))
async def facts(video_id: VideoId, parts: Services) -> Video:
    """What the upload answered. The file itself is never served."""
    video, _ = await parts.videos.get(video_id)
    return video


@router.delete(
    "/{video_id}", status_code=204, summary="Delete a video", responses=problems("video_not_found")
)
async def delete(video_id: VideoId, parts: Services) -> None:
    """Removes the file and its record at once."""
    await parts.videos.delete(video_id)


@asynccontextmanager
async def arriving(request: Request, parts: Parts, filename: str) -> AsyncIterator[Upload]:
    """The file of a form or raw body, under a permit that was taken before a byte of it was read.

    It is gone when the block ends, unless the block has moved it. Raises the ``Problem`` of each of `UPLOAD`.
    """
    _refuse_other_bodies(request)
    settings = parts.settings
    announced = check_announced_length(request, settings.max_upload_bytes)
    with parts.admission.permit(announced) as permit:
        async with parts.inbox.receive(
            request,
            max_bytes=settings.max_upload_bytes,
            permit=permit,
            name=filename,
            idle_s=settings.upload_idle_s,
            timeout_s=settings.upload_timeout_s,
        ) as upload:
            yield upload


def _refuse_other_bodies(request: Request) -> None:
    """Raises ``Problem`` ``unsupported_media_type`` (415) for a body that can't be a file."""
    kind, _ = content_type(request)
    if hint := FORMS_THAT_HOLD_NO_FILE.get(kind):
        raise Problem("unsupported_media_type", hint)
