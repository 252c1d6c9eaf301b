"""Uploads in pieces, which survive a broken connection and a restart: the resumable protocol tus 1.0.0.

https://tus.io/protocols/resumable-upload. An upload is a folder with a record and the file as far as it has
arrived; its offset is the size of that file. One request at a time may change it: it holds a lock on the
file, which the system takes back from a process that dies. Bytes that are still to be checked lie behind a
mark and don't count: whatever happens, they are cut off before the next piece.
"""

import asyncio
import base64
import binascii
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import file_digest
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from app.admission import Permit
from app.digests import TUS_ALGORITHMS, Digests
from app.disconnect import to_the_end
from app.folders import FolderStore, not_found, remove_folder, sync, write_synced
from app.problems import Problem, too_large
from app.room import Room, Tally
from app.schemas import VideoMedia
from app.uploads import MEDIA_FILE, PRIVATE, Pace, Sink, Upload, arriving_chunks, clean_name, disk_full
from app.videos import StoredVideo, VideoStore
from specsem.errors import LimitsExceeded

__all__ = [
    "CAPABILITIES",
    "VERSION",
    "HeldUpload",
    "PartialUpload",
    "ResumableUploads",
    "UploadProgress",
    "metadata_of",
    "parse_metadata",
    "parse_number",
]

P = ParamSpec("P")
T = TypeVar("T")

VERSION = "1.0.0"
CAPABILITIES = {
    "Tus-Version": VERSION,
    "Tus-Extension": "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination",
    "Tus-Checksum-Algorithm": ",".join(TUS_ALGORITHMS),
}
"""What ``OPTIONS`` answers, beside the largest size."""

RECORD_FILE = "upload.json"
MARK_FILE = "checked"
MAX_METADATA_CHARACTERS = 4096
SILENT_S = 2.0
"""A request that has heard nothing for so long makes way for another one: where a network went away without a
word, its client is back long before the connection is given up."""


class PartialUpload(BaseModel):
    """An upload as its record has it. ``length`` is None until the client knows it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    tenant: str
    filename: str
    length: int | None
    metadata: str
    created_at: datetime
    expires_at: datetime


@dataclass
class UploadProgress:
    """How far an upload is."""

    record: PartialUpload
    offset: int

    @property
    def whole(self) -> bool:
        """Whether all of it has arrived."""
        return self.offset == self.record.length

    def headers(self) -> dict[str, str]:
        """What a client is told."""
        told = {
            "Upload-Offset": str(self.offset),
            "Upload-Expires": format_datetime(self.record.expires_at, usegmt=True),
        }
        if self.record.length is None:
            return told | {"Upload-Defer-Length": "1"}
        return told | {"Upload-Length": str(self.record.length)}


@dataclass(slots=True)
class _Holder:
    """The request that has an upload, as other requests see it."""

    heard_at: float = 0.0
    waiting: asyncio.Timeout | None = None
    wanted: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def silent(self) -> bool:
        """Whether its client has sent nothing for a while."""
        return self.waiting is not None and asyncio.get_running_loop().time() - self.heard_at > SILENT_S

    def take_over(self) -> None:
        """Let it end as soon as it waits for its client."""
        if not self.wanted and self.waiting is not None:
            self.waiting.reschedule(asyncio.get_running_loop().time())
        self.wanted = True

    async def heard(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks as they come. Raises ``Problem`` ``upload_locked`` where it was taken over."""
        loop = asyncio.get_running_loop()
        while True:
            self.heard_at = loop.time()
            try:
                async with asyncio.timeout_at(self.heard_at if self.wanted else None) as self.waiting:
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _locked("Another request has taken over this upload.") from None
            finally:
                self.waiting = None
            yield chunk


class HeldUpload(UploadProgress):
    """An upload that this request alone may change."""

    def __init__(
        self, record: PartialUpload, offset: int, *, file: FileIO, folder: Path, holder: _Holder, tally: Tally
    ) -> None:
        super().__init__(record, offset)
        self.folder = folder
        self.path = folder / MEDIA_FILE
        self._file = file
        self._holder = holder
        self._tally = tally
        self._sha256: str | None = None
        """Of the whole file, where all of it went through this request."""

    async def set_length(self, length: int, max_bytes: int) -> None:
        """The client has come to know how long it is.

        Raises:
            Problem: ``limits_exceeded`` (413); ``malformed_header`` (400), it was said otherwise before.
        """
        if self.record.length not in {None, length} or length < self.offset:
            raise Problem("malformed_header", "The Upload-Length is not the one that this upload has.")
        if length > max_bytes:
            raise too_large(max_bytes)
        if self.record.length is None:
            self.record = self.record.model_copy(update={"length": length})
            text = self.record.model_dump_json()
            await _on_disk(write_synced, self.folder / RECORD_FILE, text)

    def check_fits(self, offset: int, announced: int | None) -> None:
        """Whether a piece goes on where the file ends, and not beyond its end.

        Raises:
            Problem: ``offset_mismatch`` (409), ``limits_exceeded`` (413).
        """
        if offset != self.offset:
            raise Problem(
                "offset_mismatch",
                f"The upload goes on at byte {self.offset}.",
                headers={"Upload-Offset": str(self.offset)},
            )
        length = self.record.length
        if length is not None and announced is not None and offset + announced > length:
            raise _too_long(length - offset)

    async def receive(self, request: Request, permit: Permit, *, max_bytes: int, pace: Pace) -> None:
        """Append a body. What came of it before it broke off stays, unless there is a checksum for all of it.

        ``max_bytes`` is for an upload whose length is not known.

        Raises:
            Problem: as an inbox's ``receive``; ``checksum_mismatch`` (460), ``upload_locked`` (423).
            starlette.requests.ClientDisconnect: the client left.
        """
        begun, length = self.offset, self.record.length
        digests = Digests.announced(request.headers)
        if length is None:
            sink = Sink(self._file, max_bytes - begun, permit, lambda _: too_large(max_bytes))
        else:
            sink = Sink(self._file, length - begun, permit, _too_long)
        if digests:
            await _on_disk(write_synced, self.folder / MARK_FILE, str(begun))
        stays = not digests
        try:
            chunks = digests.checked(arriving_chunks(request, pace))
            async for chunk in self._holder.heard(chunks):
                sink.take(chunk)
                await sink.flush_if_full()
            stays = True
        finally:
            try:
                if stays:
                    await sink.flush()
            finally:
                self.offset = await _on_disk(self._settle, None if stays else begun)
                permit.release()
                self._tally.set(self.record.id, self.record.tenant, self.offset)
        if begun == 0:
            self._sha256 = sink.digest()

    def _settle(self, cut_at: int | None) -> int:
        """Bring what stays onto the disk. Returns how many bytes that is."""
        if cut_at is not None:
            os.ftruncate(self._file.fileno(), cut_at)
        os.fsync(self._file)
        _unmark(self.folder)
        return os.fstat(self._file.fileno()).st_size

    async def arrived(self) -> Upload:
        """The whole file, as any other upload that has arrived."""
        sha256 = self._sha256
        if sha256 is None:
            sha256 = await _on_disk(self._digest)
        return Upload(self.folder, self.path, self.record.filename, self.offset, sha256, {})

    def _digest(self) -> str:
        self._file.seek(0)
        return file_digest(self._file, "sha256").hexdigest()


class ResumableUploads(FolderStore[PartialUpload]):
    """Uploads on their way into the store of videos, whose ids they have from the start."""

    def __init__(self, root: Path, *, ttl_s: float, room: Room, max_per_tenant: int) -> None:
        super().__init__(root, RECORD_FILE, PartialUpload.model_validate_json, ttl_s=ttl_s, room=room)
        self._room = room
        self._max_per_tenant = max_per_tenant
        self._holders: dict[str, _Holder] = {}

    async def create(self, tenant: str, *, length: int | None, metadata: str, name: str) -> PartialUpload:
        """Begin an upload of ``length`` bytes; what it takes of the room is what has arrived of it.

        Raises:
            Problem: ``quota_exceeded``, ``storage_full``: it can't ever fit as things are.
        """
        self._room.check(tenant, length or 0)
        if self.tally.count(tenant) >= self._max_per_tenant:
            raise Problem(
                "quota_exceeded",
                "You have too many unfinished uploads; finish or delete some, or wait until they expire.",
                status=429,
            )
        record = PartialUpload(
            id=secrets.token_hex(16),
            tenant=tenant,
            filename=clean_name(name),
            length=length,
            metadata=metadata,
            created_at=datetime.now(UTC),
            expires_at=self.expires_at(),
        )
        self.tally.set(record.id, tenant, 0)
        try:
            await _on_disk(self._make, record)
        except BaseException:
            await self._remove(record.id)
            raise
        return record

    def _make(self, record: PartialUpload) -> None:
        folder = self.root / record.id
        folder.mkdir(mode=PRIVATE)
        (folder / MEDIA_FILE).touch()
        write_synced(folder / RECORD_FILE, record.model_dump_json())
        sync(self.root)

    async def find(self, tenant: str, upload_id: str) -> UploadProgress | None:
        """How far an upload is; None: no such id with this tenant, or it is stored.

        A request that has it and went silent ends first, so that what it got counts.

        Raises:
            Problem: ``upload_expired`` (410).
        """
        record = await self.record(tenant, upload_id)
        if record is None:
            return None
        if record.expires_at <= datetime.now(UTC):
            raise _expired()
        if (holder := self._holders.get(upload_id)) is not None and holder.silent:
            await self._take_over(holder)
        try:
            return UploadProgress(record, await asyncio.to_thread(_offset, self.folder(upload_id)))
        except FileNotFoundError:  # it went meanwhile, into the store say
            return None

    @asynccontextmanager
    async def hold(self, tenant: str, upload_id: str, *, insist: bool = False) -> AsyncIterator[HeldUpload]:
        """An upload for this request alone. ``insist``: another request that has it must end.

        Raises:
            Problem: ``video_not_found`` (404), ``upload_expired`` (410), ``upload_locked`` (423).
        """
        if await self.find(tenant, upload_id) is None:
            raise not_found()
        if insist and (holder := self._holders.get(upload_id)) is not None:
            await self._take_over(holder)
        if upload_id in self._holders:
            raise _locked("Another request sends to this upload.")
        holder = self._holders[upload_id] = _Holder()
        try:
            folder = self.folder(upload_id)
            record, file, offset = await _on_disk(self._open, folder)
            with file:  # and let go of its lock
                self.tally.set(upload_id, tenant, offset)
                yield HeldUpload(record, offset, file=file, folder=folder, holder=holder, tally=self.tally)
        finally:
            del self._holders[upload_id]
            holder.released.set()

    @staticmethod
    async def _take_over(holder: _Holder) -> None:
        holder.take_over()
        await holder.released.wait()

    def _open(self, folder: Path) -> tuple[PartialUpload, FileIO, int]:
        """Lock the file and cut off what was never checked; it is at its end then."""
        file, record = _lock(folder), self._read(folder)
        if file is None or record is None:
            raise not_found()
        offset = _offset(folder)
        os.ftruncate(file.fileno(), offset)
        _unmark(folder)
        file.seek(offset)
        return record, file, offset

    async def finish(self, upload: HeldUpload, media: VideoMedia, store: VideoStore) -> StoredVideo:
        """Move a whole upload into the store, under its own id. Raises ``Problem`` ``storage_full``."""
        return await to_the_end(self._finish(upload, media, store))

    async def _finish(self, upload: HeldUpload, media: VideoMedia, store: VideoStore) -> StoredVideo:
        record = upload.record
        video = await store.keep(record.tenant, await upload.arrived(), media, video_id=record.id)
        self.tally.drop(record.id)
        return video

    async def remove(self, upload: HeldUpload) -> None:
        """Remove an upload with all that has arrived of it."""
        await self._remove(upload.record.id)

    async def _remove(self, upload_id: str) -> None:
        await remove_folder(self.root / upload_id)
        self.tally.drop(upload_id)

    async def delete(self, tenant: str, upload_id: str) -> bool:
        """Remove an upload; a request that has it ends. False: there is none, or it was completed meanwhile.

        Raises:
            Problem: ``upload_expired`` (410), ``upload_locked`` (423, by another process).
        """
        if await self.find(tenant, upload_id) is None:
            return False
        try:
            async with self.hold(tenant, upload_id, insist=True) as upload:
                await self.remove(upload)
        except Problem as problem:
            if problem.code == "video_not_found":
                return False
            raise
        return True

    def _expire(self, folder: Path, expired_at: datetime) -> bool:
        """The file goes; the record stays as long again, so that its client is told what became of it."""
        try:
            file = _lock(folder)
        except Problem:
            return False  # a piece is arriving, and may be the last one
        if expired_at + timedelta(seconds=self.ttl_s) <= datetime.now(UTC):
            shutil.rmtree(folder, ignore_errors=True)
        elif file is not None:
            (folder / MEDIA_FILE).unlink()
            _unmark(folder)
        if file is not None:
            file.close()
        return True

    def _size(self, folder: Path, _record: PartialUpload) -> int | None:
        try:
            return _offset(folder)
        except FileNotFoundError:
            return None

    def _is_changing(self, file_id: str) -> bool:
        return file_id in self._holders


def parse_number(header: str, value: str) -> int:
    """A header that is a number of bytes. Raises ``Problem`` ``malformed_header`` (400)."""
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Problem("malformed_header", f"The {header} is not a number of bytes.")
    return int(value)


def parse_metadata(header: str) -> dict[str, str]:
    """``Upload-Metadata``: names, each with a text in Base64.

    Raises:
        Problem: ``malformed_header`` (400): it can't be read, or is too long.
    """
    found: dict[str, str] = {}
    printable = header.isascii() and header.isprintable()  # it is sent back as it came
    for pair in header.split(",") if header.strip() else ():
        key, _, value = pair.strip().partition(" ")
        try:
            decoded = base64.b64decode(value.strip(), validate=True)
        except binascii.Error:
            printable = False
        if not printable or not key or key in found or len(header) > MAX_METADATA_CHARACTERS:
            raise Problem("malformed_header", "The Upload-Metadata can't be read, or is too long.")
        found[key] = decoded.decode("utf-8", "replace")
    return found


def metadata_of(path: Path) -> str:
    """``Upload-Metadata`` of a stored video as its client sent it; empty where it came without. Blocking."""
    try:
        record = (path.parent / RECORD_FILE).read_bytes()
        return PartialUpload.model_validate_json(record).metadata
    except (OSError, ValidationError):
        return ""


async def _on_disk(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """In a thread, to its end. Raises ``Problem`` ``storage_full`` where the disk refuses."""
    try:
        return await to_the_end(asyncio.to_thread(call, *args, **kwargs))
    except OSError as error:
        raise disk_full() from error


def _lock(folder: Path) -> FileIO | None:
    """The file of an upload, locked until it is closed; None: it is gone. Raises ``upload_locked`` (423)."""
    try:
        file = FileIO(folder / MEDIA_FILE, "r+")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise _locked("Another request sends to this upload.") from None
    if os.fstat(file.fileno()).st_nlink:
        return file
    file.close()  # removed by whoever had the lock before
    return None


def _offset(folder: Path) -> int:
    """How much of an upload counts. Raises ``FileNotFoundError``."""
    size = (folder / MEDIA_FILE).stat().st_size
    try:
        return min(size, int((folder / MARK_FILE).read_text(encoding="ascii")))
    except FileNotFoundError:
        return size


def _unmark(folder: Path) -> None:
    mark = folder / MARK_FILE
    if mark.exists():
        mark.unlink()
        sync(folder)


def _locked(detail: str) -> Problem:
    return Problem("upload_locked", detail, headers={"Retry-After": "1"})


def _expired() -> Problem:
    return Problem("upload_expired", "This upload was not completed in time; begin again.")


def _too_long(left: int) -> Problem:
    return Problem(
        LimitsExceeded.code, f"Only {left} bytes are left of this upload's Upload-Length.", status=413
    )
