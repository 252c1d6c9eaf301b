"""``/v1/videos``: upload once, score as often as wanted."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.admission import Permit
from app.disconnect import unless_gone
from app.problems import Problem
from app.routes._openapi import KEYED, file_body, problems, sent_headers
from app.routes._tus import TusRoute
from app.schemas import Video, VideoMedia
from app.services import Parts, Services, Tenant
from app.uploads import Pace, Upload, check_announced_length, content_type
from app.videos import StoredVideo

__all__ = ["BAD_FILE", "STORED", "UPLOAD", "FileName", "VideoId", "arriving", "router", "stored"]

router = APIRouter(prefix="/v1/videos", tags=["Videos"], dependencies=KEYED, route_class=TusRoute)

VideoId = Annotated[str, Path(description="The id that the upload answered.")]
FileName = Annotated[str, Query(description="Name of a raw body, for showing.", max_length=1000)]

FORMS_THAT_HOLD_NO_FILE = {
    "application/x-www-form-urlencoded": "Send the file itself: as multipart/form-data with the field "
    "`file`, or as a raw body with its own Content-Type such as video/mp4.",
    "application/json": "Send the file itself; JSON holds none.",
}
UPLOAD = (
    "malformed_body",
    "malformed_header",
    "checksum_mismatch",
    "cross_site",
    "upload_timeout",
    "limits_exceeded",
    "quota_exceeded",
    "unsupported_media_type",
    "missing_file",
    "busy",
    "storage_full",
    "deadline_exceeded",
)
STORED = ("video_not_found", "upload_incomplete", "upload_expired")
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
    responses=problems(*UPLOAD, *BAD_FILE, "unsupported_tus_version"),
    openapi_extra=file_body()
    | sent_headers(
        Tus_Resumable="1.0.0: begins an upload in pieces.",
        Upload_Length="With it: bytes of the whole file.",
        Upload_Defer_Length="With it, instead of the length, 1: it comes later.",
        Upload_Metadata="With it: names, each with a text in Base64. `filename` is for showing.",
        Content_Digest="sha-256 or sha-512 of the body (RFC 9530).",
        Repr_Digest="The same.",
    ),
)
async def upload(
    request: Request, response: Response, parts: Services, tenant: Tenant, filename: FileName = ""
) -> Video:
    """Stores a video and answers its id, checksum and facts.

    The file is the field `file` of a form, or the raw body under any other type. Nothing of a file that can't
    be scored is kept. A stored video goes when it expires or is deleted. A body, of a form all of it, is
    checked against its `Content-Digest` or `Repr-Digest`.

    With `Tus-Resumable: 1.0.0` it begins an upload in pieces, which survives a broken connection. The answer
    is empty then; `Location` is where the pieces go (`PATCH`), and the video after the last one. Any tus
    client does this.
    """
    async with arriving(request, parts, tenant, filename) as (arrived, permit):
        video = await unless_gone(request, _keep(parts, tenant, arrived, permit))
    response.headers["Location"] = f"/v1/videos/{video.id}"
    return video


async def _keep(parts: Parts, tenant: str, arrived: Upload, permit: Permit) -> Video:
    media = VideoMedia.of(await parts.scoring.probe(arrived.path))
    video = await parts.videos.keep(tenant, arrived, media)
    permit.release()  # the store counts it now
    return video


@router.get("/{video_id}", summary="Facts of a video", responses=problems(*STORED))
async def facts(video_id: VideoId, parts: Services, tenant: Tenant) -> Video:
    """What the upload answered. The file itself is never served."""
    video, _ = await stored(parts, tenant, video_id)
    return video


@router.delete(
    "/{video_id}",
    status_code=204,
    summary="Delete a video",
    responses=problems("video_not_found", "upload_expired", "upload_locked"),
)
async def delete(video_id: VideoId, parts: Services, tenant: Tenant) -> None:
    """Removes the file and its record at once, or as much of an upload in pieces as there is."""
    if not await parts.resumable.delete(tenant, video_id):
        await parts.videos.delete(tenant, video_id)


async def stored(parts: Parts, tenant: str, video_id: str) -> tuple[StoredVideo, FilePath]:
    """A tenant's video and the path of its file.

    Raises:
        Problem: ``video_not_found`` (404); ``upload_incomplete`` (409), ``upload_expired`` (410).
    """
    # In this order: an upload that is completed in between is found.
    upload = await parts.resumable.find(tenant, video_id)
    if upload is None:
        return await parts.videos.get(tenant, video_id)
    raise Problem(
        "upload_incomplete", f"Of this video {upload.offset} bytes have arrived; send the rest first."
    )


@asynccontextmanager
async def arriving(
    request: Request, parts: Parts, tenant: str, filename: str
) -> AsyncIterator[tuple[Upload, Permit]]:
    """The file of a form or raw body, and its permit, which was taken before a byte of it was read.

    It is gone when the block ends, unless the block has moved it. Raises the ``Problem`` of each of `UPLOAD`.
    """
    _refuse_other_bodies(request)
    settings = parts.settings
    announced = check_announced_length(request, settings.max_upload_bytes)
    begun = time.monotonic()
    with parts.admission.permit(announced, tenant) as permit:
        async with parts.inbox.receive(
            request,
            max_bytes=settings.max_upload_bytes,
            permit=permit,
            name=filename,
            pace=Pace.of(settings),
        ) as upload:
            parts.telemetry.stage("receive", begun)
            yield upload, permit


def _refuse_other_bodies(request: Request) -> None:
    """Raises ``Problem`` ``unsupported_media_type`` (415) for a body that can't be a file."""
    kind, _ = content_type(request)
    if hint := FORMS_THAT_HOLD_NO_FILE.get(kind):
        raise Problem("unsupported_media_type", hint)
