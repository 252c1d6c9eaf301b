"""Reports as the route sees them: composed, signed, noted in the audit trail."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from app.audit import Event
from app.jobs.service import Jobs
from app.jobs.table import JobRow
from app.problems import Problem
from app.reports import html
from app.reports.document import Format, Picture, Report, compose
from app.reports.layout import lay_out
from app.reports.sealing import seal
from app.signing import PublicKeys, Signer
from specsem.result import ScoredFile

__all__ = ["Issued", "Reports", "answer_of"]

THREADS = 2
"""A PDF takes half a second of a core: more of them at a time would only slow the scoring down."""
MEDIA_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed report as a file."""

    content: bytes
    media_type: str
    filename: str


class Reports:
    """Issues the reports of jobs."""

    def __init__(self, jobs: Jobs, signer: Signer, commit: str | None) -> None:
        self._jobs = jobs
        self._signer = signer
        self._commit = commit
        self._keys = PublicKeys(jobs.database)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="specsem-reports")

    async def open(self) -> None:
        """See that the public key is known to all who ask.

        Raises:
            SigningKeyUnusable: it was withdrawn.
        """
        await asyncio.to_thread(self._keys.add, self._signer)

    async def aclose(self) -> None:
        """Let the threads end."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def key_set(self) -> Mapping[str, Any]:
        """The public keys (JWKS) of all that ever signed here and weren't withdrawn."""
        return await asyncio.to_thread(self._keys.key_set)

    async def issue(self, job: JobRow, rendering: Format, *, key: str) -> Issued:
        """The report of a job; ``key`` is the public part of the API key that asks.

        Raises:
            Problem: ``report_unavailable`` (409): there is no answer to report on.
        """
        result = answer_of(job)
        pictures = {
            view.name: png
            for view in (result.evidence.views if result.evidence else ())
            if (png := await self._jobs.view(job, view.name)) is not None
        }
        make = partial(self._make, job, result, pictures, rendering)
        content = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        # Noted before it leaves: who has a report finds it in the trail.
        details = {"format": rendering, "sha256": sha256(content).hexdigest(), "kid": self._signer.kid}
        await self._jobs.note(Event("report_issued", job.tenant, key, job.id, details))
        return Issued(content, MEDIA_TYPES[rendering], f"specsem-report-{job.id}.{rendering}")

    def _make(
        self, job: JobRow, result: ScoredFile, pictures: Mapping[str, bytes], rendering: Format
    ) -> bytes:
        report = compose(
            job,
            result,
            [
                Picture(name=name, bytes=len(png), sha256=sha256(png).hexdigest())
                for name, png in pictures.items()
            ],
            issued_at=datetime.now(UTC).replace(microsecond=0),
            commit=self._commit,
        )
        return seal(report.content(), self._signer, rendering, self._renderer(report, pictures, rendering))

    def _renderer(self, report: Report, pictures: Mapping[str, bytes], rendering: Format) -> "partial[bytes]":
        page = lay_out(report, pictures, self._signer.kid)
        if rendering == "pdf":
            from app.reports import pdf  # noqa: PLC0415 - takes a second, which every start would pay

            return partial(pdf.render, page, issued_at=report.issued_at)
        return partial(html.render, page)


def answer_of(job: JobRow) -> ScoredFile:
    """The answer of a job that is done. Raises ``Problem`` ``report_unavailable`` (409, 410)."""
    status = job.status_now
    if status in {"queued", "running"}:
        raise Problem("report_unavailable", "The job has not ended yet; there is nothing to report on.")
    if status == "failed":
        raise Problem("report_unavailable", "The job failed: there is no verdict to report on.")
    if status == "expired" or job.result is None:
        raise Problem("report_unavailable", "The job's answer has expired.", status=410)
    try:
        return ScoredFile.model_validate_json(job.result)
    except ValidationError as error:
        raise Problem(
            "report_unavailable",
            "The answer was written by another version of SpecSem; submit the file again.",
        ) from error
