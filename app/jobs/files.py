"""The media of jobs: a folder for each, on disk for good before its row is."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from app.uploads import MEDIA_FILE, PRIVATE

__all__ = ["JobFiles"]

PART = ".part"
OURS = re.compile(r"[0-9a-f]{32}((\.[0-9a-f]{8})?\.part)?")


class JobFiles:
    """A folder for each job under ``root``, which all processes on one database share. Blocking."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self) -> None:
        """Make the folder."""
        self._root.mkdir(mode=PRIVATE, parents=True, exist_ok=True)

    def path(self, job_id: str) -> Path:
        """Where a job's file is, if it still is."""
        return self._root / job_id / MEDIA_FILE

    def move_in(self, job_id: str, folder: Path) -> None:
        """Take over the folder of an upload that arrived. Raises ``OSError``."""
        _sync(folder / MEDIA_FILE)
        os.utime(folder)  # from now it counts as new: a big upload may have begun an hour ago
        _sync(folder)
        folder.rename(self._root / job_id)
        _sync(self._root)

    def link_in(self, job_id: str, path: Path) -> None:
        """Give a job its own name for a stored file: it may be deleted from the store meanwhile.

        Raises:
            OSError: FileNotFoundError where it has been deleted already.
        """
        part = self._new_part(job_id)
        try:
            (part / MEDIA_FILE).hardlink_to(path)
            self.move_in(job_id, part)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def begin(self, job_id: str) -> Path:
        """A fresh folder for a file that is fetched; what earlier attempts left goes. Raises ``OSError``.

        Each attempt has a folder of its own: one that lost its lease and doesn't know yet spoils nothing.
        """
        for left in (self._root / job_id, *self._root.glob(f"{job_id}.*{PART}")):
            shutil.rmtree(left, ignore_errors=True)
        return self._new_part(job_id)

    def _new_part(self, job_id: str) -> Path:
        part = self._root / f"{job_id}.{secrets.token_hex(4)}{PART}"
        part.mkdir(mode=PRIVATE)
        return part

    def remove(self, job_id: str) -> None:
        """Remove a job's media, if there are any."""
        shutil.rmtree(self._root / job_id, ignore_errors=True)

    def older_than(self, age_s: float) -> Iterator[str]:
        """Ids of folders of at least this age; what was left half made is removed on the way."""
        limit = time.time() - age_s
        for folder in self._root.iterdir():
            if not OURS.fullmatch(folder.name):
                continue
            is_part = folder.name.endswith(PART)
            written_at = _written_at(folder)
            if is_part:  # a fetch may take longer than any age, but it writes
                written_at = max(written_at, _written_at(folder / MEDIA_FILE))
            if written_at > limit:
                continue
            if is_part:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                yield folder.name


def _written_at(path: Path) -> float:
    """Seconds since the epoch, 0 where there is nothing."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _sync(path: Path) -> None:
    """Onto the disk itself: a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
