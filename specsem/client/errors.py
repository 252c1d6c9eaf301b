"""What a client raises. ``code`` is the service's own, where it gave one.

::

    SpecSemError
    └── ServiceError                   service_error
        ├── ProblemError               as the service says: not_a_video, busy, job_not_found, ...
        ├── JobFailed                  as the job's error says: undecodable, timeout, ...; or job_expired
        ├── StillRunning               still_running
        ├── Unreachable                unreachable
        ├── UnexpectedAnswer           unexpected_answer
        └── NotGenuine                 not_genuine
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from specsem.errors import SpecSemError
from specsem.records import Job, ProblemDocument

__all__ = [
    "JobFailed",
    "NotGenuine",
    "ProblemError",
    "ServiceError",
    "StillRunning",
    "UnexpectedAnswer",
    "Unreachable",
]

PASSING = frozenset({408, 423, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet."""
LASTING = frozenset({"deadline_exceeded", "quota_exceeded"})
"""Codes that come with one of them, and that an attempt soon after would meet again."""


class ServiceError(SpecSemError):
    """Base of all."""

    code = "service_error"


class Unreachable(ServiceError):
    """No answer arrived, again and again."""

    code = "unreachable"


class UnexpectedAnswer(ServiceError):
    """An answer that this version can't read: another service, or a version that is too far away."""

    code = "unexpected_answer"


class NotGenuine(ServiceError):
    """A message to a webhook that wasn't signed with its secret, was changed, or is too old."""

    code = "not_genuine"


class StillRunning(ServiceError):
    """The job hasn't ended in the time that was given to it. It goes on."""

    code = "still_running"

    def __init__(self, job: Job) -> None:
        super().__init__(f"The job {job.id} is still {job.status}.")
        self.job = job


class JobFailed(ServiceError):
    """The job has ended without an answer."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.error.message if job.error else "The job's answer has expired.")
        self.code = job.error.code if job.error else "job_expired"
        self.job = job


class ProblemError(ServiceError):
    """The service refused (RFC 9457)."""

    def __init__(
        self, problem: ProblemDocument, *, request_id: str = "", retry_after_s: float | None
    ) -> None:
        super().__init__(problem.detail)
        self.code = problem.code
        self.problem = problem
        self.request_id = request_id
        """By which the operator finds it in the log."""
        self.retry_after_s = retry_after_s
        """How long the service wants to be left alone, where it says so."""

    def __str__(self) -> str:
        where = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.status} {self.code}{where})"

    @property
    def status(self) -> int:
        """Of the answer."""
        return self.problem.status

    @property
    def passing(self) -> bool:
        """Whether another attempt may go better."""
        return self.status in PASSING and self.code not in LASTING

    @classmethod
    def of(cls, response: httpx.Response) -> "ProblemError":
        """What an answer of 400 or more says; where a proxy gave it, ``code`` is ``http_`` and the status."""
        status = response.status_code
        try:
            problem = ProblemDocument.model_validate_json(response.content)
        except ValidationError:
            problem = ProblemDocument(
                type="about:blank",
                title=response.reason_phrase,
                status=status,
                detail=f"The answer is {status} {response.reason_phrase}".rstrip() + ".",
                code=f"http_{status}",
                errors=None,
            )
        return cls(
            problem,
            request_id=response.headers.get("x-request-id", ""),
            retry_after_s=_seconds(response.headers.get("retry-after")),
        )


def _seconds(retry_after: str | None) -> float | None:
    """From now, of a header that has a number or a date (RFC 9110)."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
