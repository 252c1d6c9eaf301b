"""The store of uploaded videos: one private folder each, with the file and a small record beside it.

Its interface is narrow on purpose: a database takes over when jobs come.
"""

import asyncio
import logging
import re
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from app.problems import Problem
from app.schemas import Video, VideoMedia
from app.uploads import MEDIA_FILE, PRIVATE, Upload, disk_full

__all__ = ["VideoStore"]

logger = logging.getLogger("specsem.app")

RECORD_FILE = "video.json"
ID_PATTERN = re.compile(r"[0-9a-f]{32}")


class VideoStore:
    """Videos on disk, by an id of 128 random bits. What is here survives a restart."""

    def __init__(self, root: Path, *, ttl_s: float, max_bytes: int) -> None:
        self._root = root
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._bytes = 0
        """Stored bytes as this process knows them; set right at each sweep."""

    @property
    def bytes(self) -> int:
        """Stored bytes, as this process knows them."""
        return self._bytes

    async def open(self) -> None:
        """Make the folder and sweep it."""
        await asyncio.to_thread(self._root.mkdir, mode=PRIVATE, parents=True, exist_ok=True)
        await self.sweep()

    def check_room(self, extra_bytes: int) -> None:
        """Raises ``Problem`` ``storage_full`` (503) where ``extra_bytes`` more would pass the limit."""
        if self._bytes + extra_bytes > self._max_bytes:
            raise Problem(
                "storage_full",
                "The store of videos is full; delete some, or wait until old ones expire.",
                headers={"Retry-After": "60"},
            )

    async def keep(self, upload: Upload, media: VideoMedia) -> Video:
        """Move an arrived file into the store. One rename: what is in the store is always whole."""
        now = datetime.now(UTC)
        video = Video(
            id=secrets.token_hex(16),
            filename=upload.name,
            bytes=upload.bytes,
            sha256=upload.sha256,
            media=media,
            created_at=now,
            expires_at=now + timedelta(seconds=self._ttl_s),
        )
        self.check_room(upload.bytes)
        self._bytes += upload.bytes
        moving = asyncio.ensure_future(asyncio.to_thread(self._move, upload.folder, video))
        try:
            await asyncio.shield(moving)
        except BaseException as error:
            # Who leaves now never learns the id. A move under way can't be stopped, so it ends first.
            await asyncio.wait({moving})
            await asyncio.to_thread(shutil.rmtree, self._folder(video.id), ignore_errors=True)
            self._bytes -= upload.bytes
            if isinstance(error, OSError):
                raise disk_full() from error
            raise
        return video

    def _move(self, folder: Path, video: Video) -> None:
        (folder / RECORD_FILE).write_text(video.model_dump_json(), encoding="utf-8")
        folder.rename(self._root / video.id)

    async def get(self, video_id: str) -> tuple[Video, Path]:
        """A video's record and the path of its file.

        Raises:
            Problem: ``video_not_found`` (404): no such id, or it has expired.
        """
        folder = self._folder(video_id)
        video = await asyncio.to_thread(_read, folder)
        if video is None or video.expires_at <= datetime.now(UTC):
            raise _not_found()
        return video, folder / MEDIA_FILE

    async def delete(self, video_id: str) -> None:
        """Remove a video.

        Raises:
            Problem: ``video_not_found`` (404).
        """
        video, _ = await self.get(video_id)
        await asyncio.to_thread(shutil.rmtree, self._folder(video_id), ignore_errors=True)
        self._bytes = max(0, self._bytes - video.bytes)

    async def sweep(self) -> None:
        """Remove what has expired or can't be read."""
        self._bytes = await asyncio.to_thread(self._sweep)

    def _sweep(self) -> int:
        now = datetime.now(UTC)
        kept = 0
        for folder in self._root.iterdir():
            if not ID_PATTERN.fullmatch(folder.name):
                continue  # not ours
            video = _read(folder)
            # A record of another version may be unreadable to this one: only its age tells that it may go.
            expires = video.expires_at if video else self._expiry_by_age(folder)
            if expires <= now:
                shutil.rmtree(folder, ignore_errors=True)
            elif video:
                kept += video.bytes
        return kept

    def _expiry_by_age(self, folder: Path) -> datetime:
        try:
            made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except FileNotFoundError:  # deleted a moment ago
            made = datetime.now(UTC)
        return made + timedelta(seconds=self._ttl_s)

    def _folder(self, video_id: str) -> Path:
        if not ID_PATTERN.fullmatch(video_id):
            raise _not_found()  # never a path of the client's making
        return self._root / video_id


def _read(folder: Path) -> Video | None:
    try:
        return Video.model_validate_json((folder / RECORD_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        logger.warning("the record of video %s can't be read", folder.name)
        return None


def _not_found() -> Problem:
    return Problem("video_not_found", "There is no video with this id; it may have expired or been deleted.")
