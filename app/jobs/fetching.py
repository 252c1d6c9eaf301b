"""Brings in the files of jobs that were submitted by their address."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from urllib.parse import unquote

from app.admission import Admission
from app.folders import remove_folder
from app.jobs.files import JobFiles
from app.outbound import Answer, Outbound, Target, parse_url
from app.problems import Problem, too_large
from app.room import Room
from app.settings import Settings
from app.uploads import MEDIA_FILE, Sink, clean_name, disk_full

__all__ = ["Fetched", "Fetcher", "name_of"]

MAX_REDIRECTS = 5
PASSING_STATUSES = frozenset({408, 425, 429})
"""With all from 500 up: it may go better another time."""
HEADERS = (("Accept", "video/*, application/octet-stream;q=0.9, */*;q=0.1"),)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that arrived whole and is the job's now."""

    bytes: int
    sha256: str


class Fetcher:
    """Fetches what clients name, where the operator has switched that on."""

    def __init__(
        self,
        settings: Settings,
        files: JobFiles,
        *,
        room: Room,
        outbound: Outbound | None = None,
    ) -> None:
        """``outbound`` is for tests."""
        self._on = settings.url_fetch
        self._max_bytes = settings.max_upload_bytes
        self._files = files
        self._outbound = outbound or Outbound(settings.fetch_rules)
        # How many fetch at a time is the worker's business; here their bytes are counted together.
        self._admission = Admission(max_clips=sys.maxsize, max_bytes=sys.maxsize, room=room)

    def close(self) -> None:
        """Fetch nothing more."""
        self._outbound.close()

    async def admit(self, url: str) -> Target:
        """Read an address that a client names, and say at once where it can't be fetched.

        Raises:
            Problem: ``url_invalid`` (422), ``url_refused`` (403).
        """
        self._check_on()
        return await self._outbound.admit(url)

    async def fetch(
        self, job_id: str, url: str, tell: Callable[[str, float], None], *, tenant: str
    ) -> Fetched:
        """Make what is at an address the file of a job. ``tell`` hears the fraction that has arrived.

        Raises:
            Problem: ``url_refused``, ``not_fetchable``, ``limits_exceeded``, ``quota_exceeded`` and
                ``not_a_video``: it won't go better another time; ``fetch_failed``, ``storage_full``: it may.
        """
        self._check_on()
        tell("fetch", 0.0)
        try:
            folder = await asyncio.to_thread(self._files.begin, job_id)
            try:
                with (
                    FileIO(folder / MEDIA_FILE, "x") as file,
                    self._admission.permit(tenant=tenant) as permit,
                ):
                    sink = Sink(file, self._max_bytes, permit)
                    async with self._outbound.open(
                        "GET", parse_url(url), headers=HEADERS, redirects=MAX_REDIRECTS
                    ) as answer:
                        length = self._length(answer)
                        async for chunk in answer.chunks:
                            sink.take(chunk)
                            if length:
                                tell("fetch", sink.bytes / length)
                            await sink.flush_if_full()
                    await sink.flush()
                    if sink.bytes == 0:
                        raise Problem("not_a_video", "The file is empty.")
                    await asyncio.to_thread(self._files.move_in, job_id, folder)
            finally:
                await remove_folder(folder)
        except OSError as error:
            raise disk_full() from error
        return Fetched(sink.bytes, sink.digest())

    def _length(self, answer: Answer) -> int | None:
        """The announced bytes of a file, None where there is no telling; h11 holds the sender to them."""
        host, status = answer.target.host, answer.status
        if status >= 500 or status in PASSING_STATUSES:
            raise Problem("fetch_failed", f"The host {host} answered with status {status}.")
        if status != 200:
            raise Problem("not_fetchable", f"The host {host} answered with status {status}.")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem("not_fetchable", f"The host {host} sends the file compressed, unasked.")
        announced = answer.headers.get("content-length")
        length = int(announced) if announced is not None else None
        if length is not None and length > self._max_bytes:
            raise too_large(self._max_bytes)
        return length

    def _check_on(self) -> None:
        if not self._on:
            raise Problem("url_refused", "This service fetches nothing from addresses; send the file itself.")


def name_of(target: Target) -> str:
    """What to call a file from there: the last part of its path."""
    return clean_name(unquote(target.path))
