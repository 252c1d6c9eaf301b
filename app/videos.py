"""The store of uploaded videos."""

import asyncio
import secrets
from datetime import UTC, datetime
from pathlib import Path

from app.disconnect import to_the_end
from app.folders import FolderStore, not_found, remove_folder, sync, write_synced
from app.room import Room
from app.schemas import Video, VideoMedia
from app.uploads import MEDIA_FILE, Upload, disk_full

__all__ = ["StoredVideo", "VideoStore"]

RECORD_FILE = "video.json"


class StoredVideo(Video):
    """A video as its record has it."""

    tenant: str = ""


class VideoStore(FolderStore[StoredVideo]):
    """Videos on disk. One rename brings a video in: what is in the store is always whole."""

    def __init__(self, root: Path, *, ttl_s: float, room: Room) -> None:
        super().__init__(root, RECORD_FILE, StoredVideo.model_validate_json, ttl_s=ttl_s, room=room)
        self._coming: set[str] = set()

    async def keep(
        self, tenant: str, upload: Upload, media: VideoMedia, *, video_id: str | None = None
    ) -> StoredVideo:
        """Move an arrived file into the store, under an id of its own or one that was promised.

        It is counted from here on: the caller, who has counted it so far, lets go of its bytes at once.
        """
        video = StoredVideo(
            id=video_id or secrets.token_hex(16),
            tenant=tenant,
            filename=upload.name,
            bytes=upload.bytes,
            sha256=upload.sha256,
            media=media,
            created_at=datetime.now(UTC),
            expires_at=self.expires_at(),
        )
        self._coming.add(video.id)
        try:
            await to_the_end(asyncio.to_thread(self._move, upload.folder, video))
        except (OSError, asyncio.CancelledError) as error:
            if video_id is None:  # the client never learns it
                await remove_folder(self.root / video.id)
            if isinstance(error, OSError):
                raise disk_full() from error
            raise
        finally:
            self._coming.discard(video.id)
        self.tally.set(video.id, tenant, video.bytes)
        return video

    def _move(self, folder: Path, video: StoredVideo) -> None:
        sync(folder / MEDIA_FILE)
        write_synced(folder / RECORD_FILE, video.model_dump_json())
        folder.rename(self.root / video.id)
        sync(self.root)

    async def get(self, tenant: str, video_id: str) -> tuple[StoredVideo, Path]:
        """A video's record and the path of its file.

        Raises:
            Problem: ``video_not_found`` (404): no such id with this tenant, or it has expired.
        """
        video = await self.record(tenant, video_id)
        if video is None or video.expires_at <= datetime.now(UTC):
            raise not_found()
        return video, self.folder(video_id) / MEDIA_FILE

    async def delete(self, tenant: str, video_id: str) -> None:
        """Remove a video.

        Raises:
            Problem: ``video_not_found`` (404).
        """
        await self.get(tenant, video_id)
        await remove_folder(self.folder(video_id))
        self.tally.drop(video_id)

    def _size(self, _folder: Path, record: StoredVideo) -> int:
        return record.bytes

    def _is_changing(self, file_id: str) -> bool:
        return file_id in self._coming
