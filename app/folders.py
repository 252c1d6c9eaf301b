"""Private folders by id, each with a file and a small record beside it: what is in one survives a restart."""

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import ValidationError

from app.disconnect import to_the_end
from app.problems import Problem
from app.room import Room, Taken, Tally
from app.uploads import PRIVATE

__all__ = ["ID_PATTERN", "FolderStore", "not_found", "remove_folder", "sync", "write_synced"]

logger = logging.getLogger("specsem.app")

ID_PATTERN = re.compile(r"[0-9a-f]{32}")
"""Of every id that is given out here: 128 random bits."""


async def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there, with all that is in it: to the end, whoever leaves meanwhile."""
    await to_the_end(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


class Record(Protocol):
    """What every record says."""

    @property
    def tenant(self) -> str: ...
    @property
    def expires_at(self) -> datetime: ...


R = TypeVar("R", bound=Record)


class FolderStore(Generic[R]):
    """Folders by an id of 128 random bits, each with a record; what they take of the room is tallied."""

    def __init__(
        self, root: Path, record_file: str, parse: Callable[[bytes], R], *, ttl_s: float, room: Room
    ) -> None:
        self.root = root
        self.ttl_s = ttl_s
        self.tally = Tally(room)
        self._record_file = record_file
        self._parse = parse

    async def open(self) -> None:
        """Make the root, remove what has expired, count the rest."""
        await asyncio.to_thread(self.root.mkdir, mode=PRIVATE, parents=True, exist_ok=True)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove what has expired or can't be read for long."""
        before = self.tally.snapshot()
        found = await asyncio.to_thread(self._sweep)
        self.tally.reconcile(
            before,
            found,
            lambda file_id: not self._is_changing(file_id) and (self.root / file_id).exists(),
        )

    def expires_at(self) -> datetime:
        """When something expires that is made now."""
        return datetime.now(UTC) + timedelta(seconds=self.ttl_s)

    def folder(self, file_id: str) -> Path:
        """The folder of an id, there or not. Raises ``Problem`` ``video_not_found`` where it can't be one."""
        if not ID_PATTERN.fullmatch(file_id):
            raise not_found()  # never a path of the client's making
        return self.root / file_id

    async def record(self, tenant: str, file_id: str) -> R | None:
        """A tenant's record; None: there is none, or it is another tenant's."""
        found = await asyncio.to_thread(self._read, self.folder(file_id))
        return found if found is not None and found.tenant == tenant else None

    def _sweep(self) -> dict[str, Taken]:
        now = datetime.now(UTC)
        found: dict[str, Taken] = {}
        for folder in self.root.iterdir():
            if not ID_PATTERN.fullmatch(folder.name):
                continue  # not ours
            record = self._read(folder)
            # A record of another version may be unreadable to this one: only its age tells that it may go.
            expires_at = record.expires_at if record else self._expiry_by_age(folder)
            if expires_at <= now and self._expire(folder, expires_at):
                continue
            if record and (size := self._size(folder, record)) is not None:
                found[folder.name] = (record.tenant, size)
        return found

    def _expire(self, folder: Path, _expired_at: datetime) -> bool:
        """Remove what has expired. False: it must stay for now."""
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def _size(self, folder: Path, record: R) -> int | None:
        """Bytes that the file takes; None: it is gone."""
        raise NotImplementedError

    def _is_changing(self, file_id: str) -> bool:
        """Whether this process is at it, and will count it when it is done."""
        raise NotImplementedError

    def _expiry_by_age(self, folder: Path) -> datetime:
        try:
            made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except FileNotFoundError:  # deleted a moment ago
            made = datetime.now(UTC)
        return made + timedelta(seconds=self.ttl_s)

    def _read(self, folder: Path) -> R | None:
        try:
            return self._parse((folder / self._record_file).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            logger.warning("the record of %s can't be read", folder.name)
            return None


def not_found() -> Problem:
    """No such id with this tenant (404)."""
    return Problem("video_not_found", "There is no video with this id; it may have expired or been deleted.")


def sync(path: Path) -> None:
    """Onto the disk itself: a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a small file in one go: whatever happens, it is all there or as it was before."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    sync(part)
    part.replace(path)
    sync(path.parent)
