"""The media of jobs, a folder for each, on disk for good before its row is; and the pictures of their
answers, an archive for each, on disk for good before the answer is."""

import os
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.folders import sync
from app.uploads import MEDIA_FILE, PRIVATE

__all__ = ["JobFiles"]

PART = ".part"
VIEWS = ".views"
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
        sync(folder / MEDIA_FILE)
        os.utime(folder)  # from now it counts as new: a big upload may have begun an hour ago
        sync(folder)
        folder.rename(self._root / job_id)
        sync(self._root)

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

    def write_views(self, job_id: str, pngs: Mapping[str, bytes]) -> None:
        """Keep a job's pictures by name, in place of any before. Raises ``OSError``."""
        part = self._new_part(job_id)
        try:
            archive = part / MEDIA_FILE
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
                for name, png in pngs.items():
                    file.writestr(zipfile.ZipInfo(f"{name}.png"), png)
            sync(archive)
            archive.replace(self._views(job_id))
            sync(self._root)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def share_views(self, of: str, job_id: str) -> None:
        """Give a job the pictures of another, whose answer it gets; none where that has none.

        Raises ``OSError``.
        """
        if self._views(of).exists():
            self.remove_views(job_id)
            self._views(job_id).hardlink_to(self._views(of))
            os.utime(self._views(job_id))  # from now it counts as new: its row is on the way

    def view(self, job_id: str, name: str) -> bytes | None:
        """A picture; None where there is none of this name."""
        try:
            with zipfile.ZipFile(self._views(job_id)) as file:
                return file.read(f"{name}.png")
        except (FileNotFoundError, KeyError):
            return None

    def views_bytes(self, job_id: str) -> int:
        """What a job's pictures take; 0 where it has none."""
        try:
            return self._views(job_id).stat().st_size
        except FileNotFoundError:
            return 0

    def remove_views(self, job_id: str) -> None:
        """Remove a job's pictures, if there are any."""
        self._views(job_id).unlink(missing_ok=True)

    def views_older_than(self, age_s: float) -> Iterator[str]:
        """Ids of jobs whose pictures are of at least this age."""
        limit = time.time() - age_s
        for archive in self._root.glob(f"*{VIEWS}"):
            if _written_at(archive) <= limit:
                yield archive.stem

    def _views(self, job_id: str) -> Path:
        return self._root / f"{job_id}{VIEWS}"

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
