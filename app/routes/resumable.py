"""``/v1/videos`` for clients of the resumable protocol tus 1.0.0: create, look, append."""

import asyncio

from fastapi import APIRouter, Request, Response

from app.digests import TUS_ALGORITHMS
from app.disconnect import unless_gone
from app.problems import Problem, too_large
from app.resumable import CAPABILITIES, HeldUpload, UploadProgress, metadata_of, parse_metadata, parse_number
from app.routes._openapi import KEYED, answered_headers, problems, sent_headers
from app.routes._tus import TusOnlyRoute, TusRoute
from app.routes.videos import BAD_FILE, UPLOAD, VideoId, delete
from app.schemas import VideoMedia
from app.services import Parts, Services, Tenant
from app.uploads import Pace, check_announced_length, content_type
from specsem.errors import MediaError

__all__ = ["creation", "router"]

PIECE = "application/offset+octet-stream"

router = APIRouter(prefix="/v1/videos", tags=["Uploads in pieces"], dependencies=KEYED, route_class=TusRoute)
creation = APIRouter(prefix="/v1/videos", route_class=TusOnlyRoute)
"""Shares its addresses with plain uploads and takes precedence of them for clients that speak tus."""

PARTIAL = ("video_not_found", "upload_expired", "upload_locked", "unsupported_tus_version")
PIECE_BODY = {
    "requestBody": {"required": True, "content": {PIECE: {"schema": {"type": "string", "format": "binary"}}}}
}
TUS_RESUMABLE = "1.0.0: the version of the protocol."
PROGRESS = {
    "Upload_Offset": "Bytes that have arrived and are on disk.",
    "Upload_Length": "Bytes of the whole file, once they are known.",
    "Upload_Expires": "All of it must have arrived by then.",
}


@router.options(
    "",
    status_code=204,
    summary="What uploads in pieces can do",
    responses=answered_headers(
        204,
        "The protocol's version and extensions.",
        Tus_Version="Versions spoken here.",
        Tus_Extension="Extensions known here.",
        Tus_Max_Size="Largest file in bytes.",
        Tus_Checksum_Algorithm="Algorithms of `Upload-Checksum`.",
    ),
)
@router.options("/{video_id}", status_code=204, include_in_schema=False)
async def capabilities(parts: Services) -> Response:
    """The tus resumable protocol 1.0.0, its extensions, and the largest file."""
    most = {"Tus-Max-Size": str(parts.settings.max_upload_bytes)}
    return Response(status_code=204, headers=CAPABILITIES | most)


@creation.post("", include_in_schema=False)
async def create(request: Request, parts: Services, tenant: Tenant) -> Response:
    """Begin an upload in pieces; a body is its first piece."""
    headers, most = request.headers, parts.settings.max_upload_bytes
    deferred, said = headers.get("upload-defer-length"), headers.get("upload-length")
    if (deferred is None) == (said is None) or deferred not in {None, "1"}:
        raise Problem("malformed_header", "Send either Upload-Length or `Upload-Defer-Length: 1`.")
    length = None if said is None else parse_number("Upload-Length", said)
    if length is not None and length > most:
        raise too_large(most)
    if length == 0:
        raise Problem("not_a_video", "The file is empty.")
    raw_metadata = headers.get("upload-metadata", "")
    metadata = parse_metadata(raw_metadata)
    name = metadata.get("filename") or metadata.get("name") or ""
    has_piece = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    if has_piece:
        _check_is_piece(request)
    record = await parts.resumable.create(tenant, length=length, metadata=raw_metadata, name=name)
    upload = UploadProgress(record, 0)
    if has_piece:
        try:
            async with parts.resumable.hold(tenant, record.id) as upload:
                await _take(request, parts, upload, 0)
        except BaseException:  # its client has not learned the address, and can't go on with it
            await parts.resumable.delete(tenant, record.id)
            raise
    return Response(status_code=201, headers=upload.headers() | {"Location": f"/v1/videos/{record.id}"})


@router.head(
    "/{video_id}",
    summary="How far an upload is",
    response_class=Response,  # headers alone
    responses=answered_headers(
        200,
        "How far it is.",
        **PROGRESS,
        Upload_Defer_Length="1 while its length is not known.",
        Upload_Metadata="As it was sent.",
    )
    | problems(*PARTIAL, *BAD_FILE, "busy", "storage_full", "deadline_exceeded"),
    openapi_extra=sent_headers(Tus_Resumable=TUS_RESUMABLE),
)
async def look(request: Request, video_id: VideoId, parts: Services, tenant: Tenant) -> Response:
    """Where the next piece begins. Of a stored video, in pieces or not, offset and length are the same."""
    upload = await parts.resumable.find(tenant, video_id)
    if upload is not None and upload.whole:
        # The server went away between the last byte and the answer to it.
        try:
            async with parts.resumable.hold(tenant, video_id) as held:
                with parts.admission.permit(tenant=tenant):
                    await _finish(request, parts, held)
        except Problem as problem:
            if problem.code != "video_not_found":  # else another request has just stored it
                raise
        upload = None
    if upload is None:
        video, path = await parts.videos.get(tenant, video_id)
        metadata = await asyncio.to_thread(metadata_of, path)
        headers = {"Upload-Offset": str(video.bytes), "Upload-Length": str(video.bytes)}
    else:
        metadata = upload.record.metadata
        headers = upload.headers()
    return Response(headers=headers | ({"Upload-Metadata": metadata} if metadata else {}))


@router.patch(
    "/{video_id}",
    status_code=204,
    summary="Send a piece of a video",
    responses=answered_headers(204, "It is on disk.", **PROGRESS)
    | problems("offset_mismatch", *PARTIAL, *UPLOAD, *BAD_FILE),
    openapi_extra=PIECE_BODY
    | sent_headers(
        Tus_Resumable=TUS_RESUMABLE,
        Upload_Offset="Where this piece begins: where the last one ended.",
        Upload_Length="Bytes of the whole file, where that was deferred.",
        Upload_Checksum=f"Of this piece: one of {', '.join(TUS_ALGORITHMS)}, a space, its Base64.",
    ),
)
async def append(request: Request, video_id: VideoId, parts: Services, tenant: Tenant) -> Response:
    """Appends a piece. What arrived before a connection broke off stays, unless a checksum was sent.

    After the last piece the file is looked at: a video is then stored under this very id, and of a file that
    can't be scored nothing is kept.
    """
    _check_is_piece(request)
    offset = parse_number("Upload-Offset", request.headers.get("upload-offset", ""))
    if await parts.resumable.find(tenant, video_id) is None:
        video, _ = await parts.videos.get(tenant, video_id)
        raise Problem(
            "offset_mismatch",
            "All of this video has arrived.",
            headers={"Upload-Offset": str(video.bytes)},
        )
    async with parts.resumable.hold(tenant, video_id) as held:
        if (length := request.headers.get("upload-length")) is not None:
            await held.set_length(parse_number("Upload-Length", length), parts.settings.max_upload_bytes)
        await _take(request, parts, held, offset)
        return Response(status_code=204, headers=held.headers())


@creation.post("/{video_id}", include_in_schema=False)
async def override(request: Request, video_id: VideoId, parts: Services, tenant: Tenant) -> Response:
    """For clients that can send neither ``PATCH`` nor ``DELETE``: the method is in a header."""
    match request.headers.get("x-http-method-override", "").upper():
        case "PATCH":
            return await append(request, video_id, parts, tenant)
        case "DELETE":
            await delete(video_id, parts, tenant)
            return Response(status_code=204)
        case _:
            raise Problem("method_not_allowed", "Send PATCH or DELETE here, or name it in a header.")


def _check_is_piece(request: Request) -> None:
    """Raises ``Problem`` ``unsupported_media_type`` (415) for a body that says it is something else."""
    if content_type(request)[0] != PIECE:
        raise Problem("unsupported_media_type", f"Send a piece as {PIECE}.")


async def _take(request: Request, parts: Parts, held: HeldUpload, offset: int) -> None:
    """The piece in a request's body, under a permit that is taken before a byte of it is read."""
    settings = parts.settings
    announced = check_announced_length(request, settings.max_upload_bytes)
    held.check_fits(offset, announced)
    with parts.admission.permit(announced, held.record.tenant) as permit:
        await held.receive(
            request,
            permit,
            max_bytes=settings.max_upload_bytes,
            pace=Pace.of(settings),
        )
        if held.whole:
            await _finish(request, parts, held)


async def _finish(request: Request, parts: Parts, held: HeldUpload) -> None:
    """Store what is a video, and remove what isn't.

    Raises:
        MediaError: it isn't. Any other error leaves it, and the next ``HEAD`` tries again.
    """
    try:
        info = await unless_gone(request, parts.scoring.probe(held.path))
    except MediaError:
        await parts.resumable.remove(held)
        raise
    await parts.resumable.finish(held, VideoMedia.of(info), parts.videos)
