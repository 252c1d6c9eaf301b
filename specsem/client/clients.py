"""The two clients: the same operations (``specsem.client.flows``), run with and without an event loop."""

import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Literal, Self, TypeVar

import anyio
import httpx

from specsem import __version__
from specsem.client.flows import FilePath, Flow, Flows, Send, Sent, Told, job_path, video_path
from specsem.records import (
    FeedbackSummary,
    Job,
    Label,
    ModelList,
    Opinion,
    PolicyList,
    Readiness,
    SimilarJobs,
    Status,
    Video,
)
from specsem.result import ScoredFile

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")

RETRIES = 5
CONNECT_S = 10.0
WRITE_S = 60.0
SCORE_S = 660.0
"""The service's own limit (``SPECSEM_REQUEST_TIMEOUT_S``, 600 s) comes before, and is a clear refusal."""

ReportFormat = Literal["json", "html", "pdf"]


def _headers(key: str | None) -> dict[str, str]:
    named = {"User-Agent": f"specsem-client/{__version__}"}
    return named if key is None else {**named, "Authorization": f"Bearer {key}"}


def _options(*, thorough: bool, evidence: bool, stability: bool) -> dict[str, bool]:
    return {"thorough": thorough, "evidence": evidence, "stability": stability}


def _request(
    http: httpx.Client | httpx.AsyncClient, send: Send, content: Iterable[bytes] | AsyncIterable[bytes] | None
) -> httpx.Request:
    headers = dict(send.headers)
    if send.body is not None:
        headers["Content-Length"] = str(send.body.length)
    return http.build_request(
        send.method,
        send.path,
        params=send.params,
        headers=headers,
        json=send.json,
        content=content,
        timeout=httpx.Timeout(send.answer_s, connect=CONNECT_S, write=WRITE_S, pool=CONNECT_S),
    )


class Client:
    """A client for programs without an event loop. One for many threads; close it, or use it with ``with``.

    Every call raises ``ProblemError`` where the service refuses, ``Unreachable`` where no answer arrives and
    ``UnexpectedAnswer`` where one can't be read.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        retries: int = RETRIES,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``url`` is where the service is, ``key`` one of `specsem keys create`. ``verify`` is how TLS is
        checked, and ``transport`` for tests and unusual networks, as httpx has both."""
        self._http = httpx.Client(
            base_url=url, headers=_headers(key), verify=verify, transport=transport, follow_redirects=False
        )
        self._flows = Flows(retries)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- scoring --------------------------------------------------------------------------------------------

    def score(
        self,
        video: FilePath | Video,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        timeout_s: float = SCORE_S,
        on_sent: Sent | None = None,
        on_progress: Told | None = None,
    ) -> ScoredFile:
        """The verdict on a file or a stored video. A long one becomes a job, and is waited for.

        ``on_sent`` hears (bytes sent, bytes in all), ``on_progress`` how far the job is.

        Raises:
            JobFailed: it became a job, and that failed.
            StillRunning: it became a job that hasn't ended within ``timeout_s`` seconds.
        """
        options = _options(thorough=thorough, evidence=evidence, stability=stability)
        return self._run(
            self._flows.score(video, options, timeout_s=timeout_s, on_sent=on_sent, on_progress=on_progress)
        )

    def submit(
        self,
        video: FilePath | Video,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        idempotency_key: str | None = None,
        fresh: bool = False,
        on_sent: Sent | None = None,
    ) -> Job:
        """A job for a file or a stored video; its answer comes later.

        With an ``idempotency_key`` of your own, the same request made later, by another process too, is the
        same job; without one, each call is another. ``fresh``: not from the store of answers.
        """
        options = _options(thorough=thorough, evidence=evidence, stability=stability)
        return self._run(
            self._flows.submit(video, options, key=idempotency_key, on_sent=on_sent, fresh=fresh)
        )

    def submit_url(
        self,
        url: str,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        idempotency_key: str | None = None,
        fresh: bool = False,
    ) -> Job:
        """A job for what is at an address, where the service may fetch (``SPECSEM_URL_FETCH``)."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability)
        return self._run(self._flows.submit(None, options, url=url, key=idempotency_key, fresh=fresh))

    def wait(self, job: Job | str, *, timeout_s: float | None = None, on_progress: Told | None = None) -> Job:
        """The job once it has ended, well or not. Raises ``StillRunning`` after ``timeout_s`` seconds."""
        return self._run(self._flows.wait(job, timeout_s=timeout_s, tell=on_progress))

    # -- jobs -----------------------------------------------------------------------------------------------

    def job(self, job: Job | str) -> Job:
        """A job as it is now."""
        return self._run(self._flows.job(job))

    def jobs(self, *statuses: Status) -> Iterator[Job]:
        """All jobs, or those in one of these states; the latest first, each without its answer."""
        cursor: str | None = None
        while True:
            page = self._run(self._flows.jobs(statuses, cursor))
            yield from page.jobs
            if (cursor := page.next) is None:
                return

    def say(
        self, job: Job | str, verdict: Opinion, *, label: Label | None = None, note: str = ""
    ) -> FeedbackSummary:
        """Whether a job's answer is right. One opinion of each key counts, the latest."""
        return self._run(self._flows.say(job, verdict, label, note))

    def report(self, job: Job | str, format: ReportFormat = "json") -> bytes:  # noqa: A002 - as the query has it
        """The signed report of a job, byte for byte: as a file, `specsem verify` checks it."""
        return self._run(self._flows.fetch(job_path(job) + "/report", format=format))

    def view(self, job: Job | str, name: str) -> bytes:
        """A picture of a job's evidence (PNG), as its views name it."""
        return self._run(self._flows.fetch(f"{job_path(job)}/views/{name}.png"))

    def similar(self, job: Job | str) -> SimilarJobs:
        """Jobs that look like it, with what operators decided on those. Nothing follows from it by itself."""
        return self._run(self._flows.read(SimilarJobs, job_path(job) + "/similar"))

    def delete_job(self, job: Job | str) -> None:
        """Remove a job with its answer and its file; one under way is cancelled."""
        self._run(self._flows.delete(job_path(job)))

    # -- videos ---------------------------------------------------------------------------------------------

    def upload(self, path: FilePath, *, on_sent: Sent | None = None) -> Video:
        """Store a file, to be scored as often as wanted. It goes on where a connection broke off."""
        return self._run(self._flows.upload(path, on_sent=on_sent))

    def video(self, video: Video | str) -> Video:
        """Facts of a stored video."""
        return self._run(self._flows.video(video_path(video)))

    def delete_video(self, video: Video | str) -> None:
        """Remove a stored video."""
        self._run(self._flows.delete(video_path(video)))

    # -- the service ----------------------------------------------------------------------------------------

    def models(self) -> ModelList:
        """Its models."""
        return self._run(self._flows.read(ModelList, "/v1/models"))

    def policies(self) -> PolicyList:
        """Its policies, with their thresholds and what was measured of them."""
        return self._run(self._flows.read(PolicyList, "/v1/policies"))

    def ready(self) -> Readiness:
        """With which model it is ready. While it isn't, this raises ``ProblemError`` ``not_ready``."""
        return self._run(self._flows.read(Readiness, "/readyz"))

    def _run(self, flow: Flow[T]) -> T:
        try:
            send = next(flow)
            while True:
                if send.after_s:
                    time.sleep(send.after_s)
                try:
                    response = self._http.send(_request(self._http, send, send.body))
                except httpx.TransportError as error:
                    send = flow.throw(error)
                else:
                    send = flow.send(response)
        except StopIteration as end:
            result: T = end.value
            return result


class AsyncClient:
    """As ``Client``, for asyncio and trio. Close it, or use it with ``async with``.

    ``on_sent`` and ``on_progress`` are plain functions here too, called in the event loop.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        retries: int = RETRIES,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As ``Client``."""
        self._http = httpx.AsyncClient(
            base_url=url, headers=_headers(key), verify=verify, transport=transport, follow_redirects=False
        )
        self._flows = Flows(retries)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- scoring --------------------------------------------------------------------------------------------

    async def score(
        self,
        video: FilePath | Video,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        timeout_s: float = SCORE_S,
        on_sent: Sent | None = None,
        on_progress: Told | None = None,
    ) -> ScoredFile:
        """As ``Client.score``."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability)
        return await self._run(
            self._flows.score(video, options, timeout_s=timeout_s, on_sent=on_sent, on_progress=on_progress)
        )

    async def submit(
        self,
        video: FilePath | Video,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        idempotency_key: str | None = None,
        fresh: bool = False,
        on_sent: Sent | None = None,
    ) -> Job:
        """As ``Client.submit``."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability)
        return await self._run(
            self._flows.submit(video, options, key=idempotency_key, on_sent=on_sent, fresh=fresh)
        )

    async def submit_url(
        self,
        url: str,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        idempotency_key: str | None = None,
        fresh: bool = False,
    ) -> Job:
        """As ``Client.submit_url``."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability)
        return await self._run(self._flows.submit(None, options, url=url, key=idempotency_key, fresh=fresh))

    async def wait(
        self, job: Job | str, *, timeout_s: float | None = None, on_progress: Told | None = None
    ) -> Job:
        """As ``Client.wait``."""
        return await self._run(self._flows.wait(job, timeout_s=timeout_s, tell=on_progress))

    # -- jobs -----------------------------------------------------------------------------------------------

    async def job(self, job: Job | str) -> Job:
        """As ``Client.job``."""
        return await self._run(self._flows.job(job))

    async def jobs(self, *statuses: Status) -> AsyncIterator[Job]:
        """As ``Client.jobs``."""
        cursor: str | None = None
        while True:
            page = await self._run(self._flows.jobs(statuses, cursor))
            for job in page.jobs:
                yield job
            if (cursor := page.next) is None:
                return

    async def say(
        self, job: Job | str, verdict: Opinion, *, label: Label | None = None, note: str = ""
    ) -> FeedbackSummary:
        """As ``Client.say``."""
        return await self._run(self._flows.say(job, verdict, label, note))

    async def report(self, job: Job | str, format: ReportFormat = "json") -> bytes:  # noqa: A002 - as the query has it
        """As ``Client.report``."""
        return await self._run(self._flows.fetch(job_path(job) + "/report", format=format))

    async def view(self, job: Job | str, name: str) -> bytes:
        """As ``Client.view``."""
        return await self._run(self._flows.fetch(f"{job_path(job)}/views/{name}.png"))

    async def similar(self, job: Job | str) -> SimilarJobs:
        """As ``Client.similar``."""
        return await self._run(self._flows.read(SimilarJobs, job_path(job) + "/similar"))

    async def delete_job(self, job: Job | str) -> None:
        """As ``Client.delete_job``."""
        await self._run(self._flows.delete(job_path(job)))

    # -- videos ---------------------------------------------------------------------------------------------

    async def upload(self, path: FilePath, *, on_sent: Sent | None = None) -> Video:
        """As ``Client.upload``."""
        return await self._run(self._flows.upload(path, on_sent=on_sent))

    async def video(self, video: Video | str) -> Video:
        """As ``Client.video``."""
        return await self._run(self._flows.video(video_path(video)))

    async def delete_video(self, video: Video | str) -> None:
        """As ``Client.delete_video``."""
        await self._run(self._flows.delete(video_path(video)))

    # -- the service ----------------------------------------------------------------------------------------

    async def models(self) -> ModelList:
        """As ``Client.models``."""
        return await self._run(self._flows.read(ModelList, "/v1/models"))

    async def policies(self) -> PolicyList:
        """As ``Client.policies``."""
        return await self._run(self._flows.read(PolicyList, "/v1/policies"))

    async def ready(self) -> Readiness:
        """As ``Client.ready``."""
        return await self._run(self._flows.read(Readiness, "/readyz"))

    async def _run(self, flow: Flow[T]) -> T:
        try:
            send = next(flow)
            while True:
                if send.after_s:
                    await anyio.sleep(send.after_s)
                try:
                    content = send.body and send.body.chunks()
                    response = await self._http.send(_request(self._http, send, content))
                except httpx.TransportError as error:
                    send = flow.throw(error)
                else:
                    send = flow.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
