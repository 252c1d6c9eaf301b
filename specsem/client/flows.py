"""What a client does, written once for both kinds: a flow yields the requests that are to be sent, gets their
answers, and returns what came of it. Who runs a flow (``specsem.client.clients``) does the input and output.

A request may be sent again at any time: reading, deleting and saying one's opinion change nothing the second
time; a job has an idempotency key; of an upload in pieces (tus 1.0.0) the service knows how much arrived.
What would be done twice is sent ``once``: again only where the service said that it did nothing.
"""

import base64
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import anyio.to_thread
import httpx
from pydantic import BaseModel, ValidationError

from specsem.client.errors import (
    JobFailed,
    ProblemError,
    StillRunning,
    UnexpectedAnswer,
    Unreachable,
)
from specsem.errors import FileUnusable
from specsem.records import Delivery, Job, JobProgress, Video, Webhook
from specsem.result import ScoredFile

__all__ = [
    "FilePath",
    "Flow",
    "Flows",
    "Options",
    "Send",
    "Sent",
    "Told",
    "answer_of",
    "delivery_path",
    "job_path",
    "review_path",
    "video_path",
    "webhook_path",
]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

FilePath = str | os.PathLike[str]
Sent = Callable[[int, int], None]
"""Told how many bytes of how many were sent. After a failure it may fall back."""
Told = Callable[[JobProgress], None]
Options = Mapping[str, bool | str]
"""What is asked for beside the file, by the names of the service's parameters."""

CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 32 * 1024**2
"""Of an upload: so much is sent again at most after a connection broke off without a word."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LONGEST_WISH_S = 300.0
"""A service that wants to be left alone for longer is asked again after so long."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.25, 2.0
ANSWER_S = 120.0
"""The last piece of an upload is answered once a decoder has looked at the file."""
TUS = {"Tus-Resumable": "1.0.0"}
PAGE = "100"
"""Entries on a page, the most that the service gives."""
UNDONE = frozenset({408, 423, 429, 503})
"""Statuses of what was refused before anything was done."""


@dataclass(frozen=True, slots=True)
class FileBody:
    """A part of a file as the body of a request; opened anew each time it is sent."""

    path: Path
    start: int
    length: int
    size: int
    """Of the whole file, as ``on_sent`` is told it."""
    on_sent: Sent | None = None

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.length
            while left:
                chunk = self._chunk(file, left)
                left -= len(chunk)
                yield chunk
                self._tell(left)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The same, read in threads."""
        with await anyio.to_thread.run_sync(self.path.open, "rb") as file:
            await anyio.to_thread.run_sync(file.seek, self.start)
            left = self.length
            while left:
                chunk = await anyio.to_thread.run_sync(self._chunk, file, left)
                left -= len(chunk)
                yield chunk
                self._tell(left)

    def _chunk(self, file: BinaryIO, left: int) -> bytes:
        chunk = file.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise FileUnusable("The file became shorter while it was sent.")
        return chunk

    def _tell(self, left: int) -> None:
        if self.on_sent is not None:
            self.on_sent(self.start + self.length - left, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A request."""

    method: str
    path: str
    params: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: FileBody | None = None
    after_s: float = 0.0
    """To be sent after so many seconds."""
    answer_s: float = ANSWER_S
    """How long the service may be silent, in seconds."""
    once: bool = False
    """Done twice, it would be another: a second webhook, another secret, a count over again."""


Flow = Generator[Send, httpx.Response, T]


@dataclass(frozen=True, slots=True)
class Flows:
    """The operations. Each raises ``ProblemError``, ``Unreachable`` and ``UnexpectedAnswer``."""

    retries: int
    """Attempts after the first one."""

    # -- scoring --------------------------------------------------------------------------------------------

    def score(
        self,
        video: FilePath | Video,
        options: Options,
        *,
        key: str | None,
        fresh: bool,
        timeout_s: float,
        on_sent: Sent | None,
        on_progress: Told | None,
    ) -> Flow[ScoredFile]:
        """Raises ``JobFailed`` and ``StillRunning`` as well: a long video becomes a job."""
        ends = time.monotonic() + timeout_s
        send = _with_video("/v1/score", video, options, on_sent)
        send = replace(_ordered(send, key, fresh=fresh), answer_s=timeout_s)
        response = yield from self._exchange(send)
        if response.status_code != httpx.codes.ACCEPTED:
            return _read(ScoredFile, response)
        left_s = max(0.0, ends - time.monotonic())
        return answer_of((yield from self.wait(_read(Job, response), timeout_s=left_s, tell=on_progress)))

    def submit(
        self,
        video: FilePath | Video | None,
        options: Options,
        *,
        url: str | None = None,
        key: str | None,
        on_sent: Sent | None = None,
        fresh: bool = False,
    ) -> Flow[Job]:
        """A job for a file, a stored video, or what is at ``url``."""
        if url is not None:
            send = Send(method="POST", path="/v1/jobs", json={"url": url, **options})
        else:
            assert video is not None  # noqa: S101 - the clients name one of the two
            send = _with_video("/v1/jobs", video, options, on_sent)
        return _read(Job, (yield from self._exchange(_ordered(send, key, fresh=fresh))))

    def appeal(self, job: Job | str, video: FilePath | Video | None, *, on_sent: Sent | None) -> Flow[Job]:
        """A second look; the service answers with the first one's job where there is one."""
        path = job_path(job) + "/appeal"
        if video is None:
            send = Send(method="POST", path=path, json={})
        else:
            send = _with_video(path, video, {}, on_sent)
        return _read(Job, (yield from self._exchange(send)))

    def wait(self, job: Job | str, *, timeout_s: float | None, tell: Told | None) -> Flow[Job]:
        """Raises ``StillRunning``."""
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        found = job if isinstance(job, Job) else (yield from self.job(job))
        pause_s, told = FIRST_LOOK_S, None
        while not found.over:
            if tell is not None and found.progress != told:
                told = found.progress
                tell(told)
            if ends is not None and time.monotonic() + pause_s > ends:
                raise StillRunning(found)
            found = yield from self.job(found, after_s=pause_s)
            pause_s = min(LONGEST_LOOK_S, pause_s * 1.5)
        return found

    # -- jobs -----------------------------------------------------------------------------------------------

    def job(self, job: Job | str, *, after_s: float = 0.0) -> Flow[Job]:
        """A job as it is now."""
        return (yield from self._get(Job, job_path(job), after_s=after_s))

    # -- videos ---------------------------------------------------------------------------------------------

    def upload(self, path: FilePath, *, on_sent: Sent | None) -> Flow[Video]:
        """In pieces, each going on where the last one ended, whatever happened in between."""
        file = Path(path)
        size = _size(file)
        name = base64.b64encode(file.name.encode("utf-8", "backslashreplace")).decode("ascii")
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
        created = yield from self._exchange(Send(method="POST", path="/v1/videos", headers=headers))
        # Of the address only the id is used: whatever answers there, the key goes to our service alone.
        where = video_path(created.headers.get("location", "").rpartition("/")[2])
        offset, failures, pause_s = 0, 0, 0.0
        while offset < size:
            send = self._piece(where, file, offset, size, on_sent)
            try:
                response = yield replace(send, after_s=pause_s)
                if response.is_success:
                    offset, failures, pause_s = _offset(response), 0, 0.0
                    continue
                failure: Exception = ProblemError.of(response)
            except httpx.TransportError as error:
                failure = error
            if isinstance(failure, ProblemError):
                astray = failure.code == "offset_mismatch"  # an earlier attempt got further than we heard
                if not (failure.passing or astray):
                    raise failure
            failures += 1
            if failures > self.retries:
                raise failure if isinstance(failure, ProblemError) else _unreachable(failure)
            look = Send(method="HEAD", path=where, headers=TUS, after_s=_pause(failures - 1, failure))
            offset = _offset((yield from self._exchange(look)))
        return (yield from self.video(where))

    def video(self, where: str) -> Flow[Video]:
        """Facts of a stored one."""
        return (yield from self._get(Video, where))

    def _piece(self, where: str, file: Path, offset: int, size: int, on_sent: Sent | None) -> Send:
        headers = {
            **TUS,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        body = FileBody(file, offset, min(PIECE_BYTES, size - offset), size, on_sent)
        return Send(method="PATCH", path=where, headers=headers, body=body)

    # -- anything -------------------------------------------------------------------------------------------

    def read(self, model: type[M], path: str, **params: str | Sequence[str]) -> Flow[M]:
        """What is at a path, as this record."""
        return (yield from self._get(model, path, params))

    def page(
        self, model: type[M], path: str, cursor: str | int | None, **params: str | Sequence[str]
    ) -> Flow[M]:
        """A page of what is at a path: the first one, or that behind a ``next``."""
        after: dict[str, str] = {} if cursor is None else {"cursor": str(cursor)}
        return (yield from self._get(model, path, {**params, "limit": PAGE, **after}))

    def tell(
        self, model: type[M], method: str, path: str, given: Mapping[str, Any], *, once: bool = False
    ) -> Flow[M]:
        """The answer to what is said, as this record."""
        send = Send(method=method, path=path, json=given, once=once)
        return _read(model, (yield from self._exchange(send)))

    def fetch(self, path: str, **params: str) -> Flow[bytes]:
        """A file that the service made."""
        return (yield from self._exchange(Send(method="GET", path=path, params=params))).content

    def document(self, path: str) -> Flow[dict[str, Any]]:
        """A JSON object that the service made, for others to fill in or pass on."""
        response = yield from self._exchange(Send(method="GET", path=path))
        try:
            found = response.json()
        except ValueError as error:
            raise _unreadable() from error
        if not isinstance(found, dict):
            raise _unreadable()
        return found

    def delete(self, path: str) -> Flow[None]:
        """Remove what is there."""
        yield from self._exchange(Send(method="DELETE", path=path))

    def _get(
        self,
        model: type[M],
        path: str,
        params: Mapping[str, str | Sequence[str]] | None = None,
        *,
        after_s: float = 0.0,
    ) -> Flow[M]:
        send = Send(method="GET", path=path, params=params or {}, after_s=after_s)
        return _read(model, (yield from self._exchange(send)))

    def _exchange(self, send: Send) -> Flow[httpx.Response]:
        """The answer to a request, sent again for as long as that may help."""
        attempt = 0
        while True:
            try:
                response = yield send
                if response.status_code < 400:
                    return response
                if send.method == "DELETE" and attempt and response.status_code == httpx.codes.NOT_FOUND:
                    return response  # an earlier attempt got through, and we didn't hear of it
                failure: Exception = ProblemError.of(response)
            except httpx.TransportError as error:
                failure = error
            again = attempt < self.retries and (_nothing_done(failure) or not send.once)
            if isinstance(failure, ProblemError):
                if not (again and failure.passing):
                    raise failure
            elif not again or _is_patience_over(failure, send):
                raise _unreachable(failure)
            send = replace(send, after_s=_pause(attempt, failure))
            attempt += 1


def _with_video(path: str, video: FilePath | Video, options: Options, on_sent: Sent | None) -> Send:
    """A request about a file, which it brings, or a stored video, which it names."""
    if isinstance(video, Video):
        return Send(method="POST", path=path, json={"video": video.id, **options})
    file = Path(video)
    size = _size(file)
    name = os.fsencode(file.name).decode("utf-8", "backslashreplace")
    return Send(
        method="POST",
        path=path,
        params={"filename": name, **{option: _in_query(said) for option, said in options.items() if said}},
        headers={"Content-Type": "application/octet-stream"},
        body=FileBody(file, 0, size, size, on_sent),
    )


def _in_query(said: bool | str) -> str:
    return "true" if said is True else str(said)


def _ordered(send: Send, key: str | None, *, fresh: bool) -> Send:
    """The same, as a job that is made once however often it is sent; ``fresh``: not from the store."""
    headers = {**send.headers, "Idempotency-Key": key or uuid.uuid4().hex}
    return replace(send, headers=headers | {"Cache-Control": "no-cache"} if fresh else headers)


def _size(file: Path) -> int:
    """Raises ``FileUnusable``."""
    try:
        with file.open("rb") as opened:
            return os.fstat(opened.fileno()).st_size
    except OSError as error:
        raise FileUnusable(f"The file {file.name} can't be read: {error.strerror}.") from error


def job_path(job: Job | str) -> str:
    return f"/v1/jobs/{quote(job.id if isinstance(job, Job) else job, safe='')}"


def review_path(job: Job | str) -> str:
    return f"/v1/review/{quote(job.id if isinstance(job, Job) else job, safe='')}"


def webhook_path(webhook: Webhook | str) -> str:
    return f"/v1/webhooks/{quote(webhook.id if isinstance(webhook, Webhook) else webhook, safe='')}"


def delivery_path(webhook: Webhook | str, event: Delivery | str) -> str:
    name = event.id if isinstance(event, Delivery) else event
    return f"{webhook_path(webhook)}/deliveries/{quote(name, safe='')}"


def video_path(video: Video | str) -> str:
    return f"/v1/videos/{quote(video.id if isinstance(video, Video) else video, safe='')}"


def answer_of(job: Job) -> ScoredFile:
    """Raises ``JobFailed``, ``UnexpectedAnswer``."""
    if job.status != "done":
        raise JobFailed(job)
    try:
        answer = job.answer
    except ValidationError as error:
        raise _unreadable() from error
    if answer is None:
        raise _unreadable()
    return answer


def _read(model: type[M], response: httpx.Response) -> M:
    """The answer as a record; fields that a newer service adds are left out."""
    try:
        return model.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise _unreadable() from error


def _offset(response: httpx.Response) -> int:
    offset = response.headers.get("upload-offset", "")
    if not offset.isdecimal():
        raise _unreadable()
    return int(offset)


def _unreadable() -> UnexpectedAnswer:
    return UnexpectedAnswer("The answer is of another form than this version of the client knows.")


def _unreachable(error: Exception) -> Unreachable:
    failed = Unreachable(f"The service gave no answer ({type(error).__name__}).")
    failed.__cause__ = error
    return failed


def _nothing_done(failure: Exception) -> bool:
    """Whether it is known that the service did nothing of what was asked."""
    if isinstance(failure, ProblemError):
        return failure.status in UNDONE
    return isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _is_patience_over(error: Exception, send: Send) -> bool:
    """Whether the service was silent for as long as it was allowed to work: it would work as long again."""
    return isinstance(error, httpx.ReadTimeout) and send.method == "POST"


def _pause(attempt: int, failure: Exception) -> float:
    """Seconds before the next attempt: as the service wishes, else longer each time, with chance so that many
    clients don't come back together."""
    wish = failure.retry_after_s if isinstance(failure, ProblemError) else None
    if wish is not None:
        return min(wish, LONGEST_WISH_S)
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311 - nobody has to guess it
