"""Every refusal as a problem document (RFC 9457): ``{type, title, status, detail, code}``.

``code`` is stable; a file's own codes are those of ``specsem.errors`` and the same as the command line's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from specsem.errors import Cancelled, LimitsExceeded, MediaError, SpecSemError

__all__ = [
    "CODES",
    "MEDIA_TYPE",
    "Code",
    "Problem",
    "ProblemResponse",
    "code_of_answer",
    "from_error",
    "from_status",
    "stopping",
    "too_large",
]

MEDIA_TYPE = "application/problem+json"
CODE_KEY = "specsem.code"


@dataclass(frozen=True, slots=True)
class Code:
    """One stable code: the HTTP status that it comes with, and a title."""

    status: int
    title: str
    also: int | None = None
    """Another status that it may come with: 413 for an upload that is too large."""


CODES: dict[str, Code] = {
    # The file.
    "not_a_video": Code(422, "Not a video"),
    "no_video_stream": Code(422, "No moving pictures in this file"),
    "unsupported": Code(422, "A kind of video that is not supported"),
    "undecodable": Code(422, "No usable frame could be decoded"),
    "encrypted": Code(422, "The video is encrypted"),
    "too_short": Code(422, "The video is too short"),
    "too_small": Code(422, "The frames are too small"),
    "limits_exceeded": Code(422, "Beyond the configured limits", also=413),
    "timeout": Code(422, "Decoding took too long"),
    "attempts_exceeded": Code(422, "The work on this file ended before its time, again and again"),
    "fetch_failed": Code(422, "The file could not be fetched, again and again"),
    "not_fetchable": Code(422, "There is no file to be had at this address"),
    # The request.
    "malformed_request": Code(400, "No request that can be read"),
    "malformed_body": Code(400, "The body is not what its header says"),
    "malformed_header": Code(400, "A header can't be read"),
    "checksum_mismatch": Code(400, "The body is not what its checksum says", also=460),
    "invalid_request": Code(422, "The request is not valid"),
    "missing_file": Code(422, "No file in the form"),
    "url_invalid": Code(422, "Not an address that can be used"),
    "other_video": Code(422, "Another video than the job's"),
    "idempotency_key_reused": Code(422, "The key belongs to another request"),
    "unauthorized": Code(401, "A key is needed"),
    "forbidden": Code(403, "Not with this key"),
    "rate_limited": Code(429, "Too many requests"),
    "host_refused": Code(403, "This host name is not served"),
    "cross_site": Code(403, "Requests from other sites are refused"),
    "exposure_refused": Code(403, "Not open to other machines without a key"),
    "url_refused": Code(403, "This address is not used here"),
    "video_not_found": Code(404, "No such video"),
    "job_not_found": Code(404, "No such job"),
    "view_not_found": Code(404, "No such picture"),
    "policy_not_found": Code(404, "No such policy"),
    "webhook_not_found": Code(404, "No such webhook"),
    "delivery_not_found": Code(404, "No such delivery"),
    "feedback_not_found": Code(404, "No such feedback"),
    "no_such_route": Code(404, "No such address"),
    "method_not_allowed": Code(405, "Method not allowed"),
    "request_timeout": Code(408, "The request took too long"),
    "upload_timeout": Code(408, "The upload took too long"),
    "webhook_disabled": Code(409, "The webhook is disabled"),
    "too_many_webhooks": Code(409, "No more webhooks for this tenant"),
    "report_unavailable": Code(409, "There is no answer to report on", also=410),
    "upload_incomplete": Code(409, "Not all of it has arrived"),
    "job_not_done": Code(409, "The job has no answer"),
    "appeal_refused": Code(409, "No second look at this job"),
    "media_gone": Code(409, "The file is not kept"),
    "offset_mismatch": Code(409, "The upload goes on elsewhere"),
    "upload_expired": Code(410, "The upload has expired"),
    "unsupported_tus_version": Code(412, "Another version of tus is spoken here"),
    "quota_exceeded": Code(413, "No room left for this tenant", also=429),
    "unsupported_media_type": Code(415, "Unsupported type of body"),
    "upload_locked": Code(423, "Another request has this upload"),
    # Us.
    "internal_error": Code(500, "Something went wrong here"),
    "busy": Code(503, "Busy"),
    "storage_full": Code(503, "The store is full"),
    "not_ready": Code(503, "Not ready yet"),
    "deadline_exceeded": Code(503, "Not finished in time"),
}

_BY_STATUS = {404: "no_such_route", 405: "method_not_allowed"}


class Problem(Exception):
    """A refusal on its way to the client. ``detail`` is one sentence and names no path of ours."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status or CODES[code].status
        self.headers = dict(headers or {})
        self.extra = extra
        if self.status == 503:
            self.headers.setdefault("Retry-After", "2")

    def document(self) -> dict[str, Any]:
        """The document that the client gets."""
        return {
            "type": f"/docs#error-{self.code}",
            "title": CODES[self.code].title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }


def from_error(error: SpecSemError) -> Problem:
    """The problem that stands for an error of the library. A bad file is 422, never 5xx."""
    if isinstance(error, MediaError):
        code = error.code if error.code in CODES else "undecodable"
        return Problem(code, error.message)
    if isinstance(error, Cancelled):  # by the decoder's pool, which closes before the last request has ended
        return stopping()
    return Problem("internal_error", "The request could not be completed.")


def from_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for an HTTP error that the framework raised by itself (404, 405, 400...)."""
    code = _BY_STATUS.get(status, "internal_error" if status >= 500 else "invalid_request")
    return Problem(code, detail, status=status, headers=headers)


class ProblemResponse(JSONResponse):
    """``application/problem+json``."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.document(), status_code=problem.status, headers=problem.headers)
        self.code = problem.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CODE_KEY] = self.code
        await super().__call__(scope, receive, send)


def code_of_answer(scope: Scope) -> str | None:
    """The code of the problem that answered this request; None where no problem did."""
    code: str | None = scope.get(CODE_KEY)
    return code


def stopping() -> Problem:
    """The service was told to stop (503): what comes too late, or isn't done in time, goes elsewhere."""
    return Problem("not_ready", "The service is stopping.")


def too_large(limit_bytes: int) -> Problem:
    """The upload passed its limit (413); the code is the command line's for a file that is too large."""
    return Problem(
        LimitsExceeded.code,
        f"The file is larger than the {_in_words(limit_bytes)} that this service accepts.",
        status=413,
        title="The file is too large",
        limit_bytes=limit_bytes,
    )


def _in_words(count: int) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"
