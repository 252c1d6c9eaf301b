"""The two clients: the same operations (``specsem.client.flows``), run with and without an event loop."""

import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import anyio
import httpx

from specsem import __version__
from specsem.client.flows import (
    FilePath,
    Flow,
    Flows,
    Options,
    Send,
    Sent,
    Told,
    delivery_path,
    job_path,
    review_path,
    video_path,
    webhook_path,
)
from specsem.records import (
    CalibrationList,
    Delivery,
    DeliveryList,
    DeliveryStatus,
    Drift,
    EventType,
    FeedbackSummary,
    GroupFeedback,
    GroupFeedbackList,
    Job,
    JobList,
    Label,
    ModelList,
    Opinion,
    PolicyInfo,
    PolicyList,
    Readiness,
    Redelivered,
    ReviewItem,
    ReviewQueue,
    SentDelivery,
    SimilarJobs,
    Status,
    Version,
    Video,
    Webhook,
    WebhookList,
    WebhookWithSecret,
)
from specsem.result import ScoredFile

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")
Page = TypeVar("Page", JobList, GroupFeedbackList, ReviewQueue, DeliveryList)

RETRIES = 5
CONNECT_S = 10.0
WRITE_S = 60.0
SCORE_S = 660.0
"""The service's own limit (``SPECSEM_REQUEST_TIMEOUT_S``, 600 s) comes before, and is a clear refusal."""

ReportFormat = Literal["json", "html", "pdf"]


def _headers(key: str | None) -> dict[str, str]:
    named = {"User-Agent": f"specsem-client/{__version__}"}
    return named if key is None else {**named, "Authorization": f"Bearer {key}"}


def _options(*, thorough: bool, evidence: bool, stability: bool, surface: str) -> Options:
    return {"thorough": thorough, "evidence": evidence, "stability": stability, "surface": surface}


def _ids(jobs: Iterable[Job | str]) -> list[str]:
    return [job.id if isinstance(job, Job) else job for job in jobs]


def _said(**given: Any) -> dict[str, Any]:
    """What of it is said: None is for what isn't."""
    return {name: value for name, value in given.items() if value is not None}


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
        surface: str = "",
        idempotency_key: str | None = None,
        fresh: bool = False,
        timeout_s: float = SCORE_S,
        on_sent: Sent | None = None,
        on_progress: Told | None = None,
    ) -> ScoredFile:
        """The verdict on a file or a stored video. A long one becomes a job, and is waited for.

        ``surface`` is where it is to appear, by a name of yours that policies know. ``fresh``: not from the
        store of answers. ``idempotency_key``: as in ``submit``. ``on_sent`` hears (bytes sent, bytes in all),
        ``on_progress`` how far the job is.

        Raises:
            JobFailed: it became a job, and that failed.
            StillRunning: it became a job that hasn't ended within ``timeout_s`` seconds.
        """
        options = _options(thorough=thorough, evidence=evidence, stability=stability, surface=surface)
        return self._run(
            self._flows.score(
                video,
                options,
                key=idempotency_key,
                fresh=fresh,
                timeout_s=timeout_s,
                on_sent=on_sent,
                on_progress=on_progress,
            )
        )

    def submit(
        self,
        video: FilePath | Video,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        surface: str = "",
        idempotency_key: str | None = None,
        fresh: bool = False,
        on_sent: Sent | None = None,
    ) -> Job:
        """A job for a file or a stored video; its answer comes later.

        With an ``idempotency_key`` of your own, the same request made later, by another process too, is the
        same job; without one, each call is another. ``fresh``: not from the store of answers.
        """
        options = _options(thorough=thorough, evidence=evidence, stability=stability, surface=surface)
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
        surface: str = "",
        idempotency_key: str | None = None,
        fresh: bool = False,
    ) -> Job:
        """A job for what is at an address, where the service may fetch (``SPECSEM_URL_FETCH``)."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability, surface=surface)
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
        for page in self._pages(JobList, "/v1/jobs", status=statuses):
            yield from page.jobs

    def appeal(
        self, job: Job | str, video: FilePath | Video | None = None, *, on_sent: Sent | None = None
    ) -> Job:
        """A second look at a job's video, to be waited for; where there is one already, that one.

        The file or the stored video is needed again, unless the service keeps it (`SPECSEM_KEEP_MEDIA`).
        """
        return self._run(self._flows.appeal(job, video, on_sent=on_sent))

    def statement(self, job: Job | str) -> dict[str, Any]:
        """A draft of a statement of reasons; its ``to_supply`` names what is for you to fill in."""
        return self._run(self._flows.document(job_path(job) + "/statement"))

    def report(self, job: Job | str, format: ReportFormat = "json") -> bytes:  # noqa: A002 - as the query has it
        """The signed report of a job, byte for byte: as a file, `specsem verify` checks it."""
        return self._run(self._flows.fetch(job_path(job) + "/report", format=format))

    def view(self, job: Job | str, name: str) -> bytes:
        """A picture of a job's evidence (PNG), as its views name it."""
        return self._run(self._flows.fetch(f"{job_path(job)}/views/{name}.png"))

    def similar(self, job: Job | str, *, limit: int = 20) -> SimilarJobs:
        """Jobs that look like it, with what operators decided on those. Nothing follows from it by itself."""
        return self._run(self._flows.read(SimilarJobs, job_path(job) + "/similar", limit=str(limit)))

    def delete_job(self, job: Job | str) -> None:
        """Remove a job with its answer and its file; one under way is cancelled."""
        self._run(self._flows.delete(job_path(job)))

    # -- what people say ------------------------------------------------------------------------------------

    def say(
        self, job: Job | str, verdict: Opinion, *, label: Label | None = None, note: str = ""
    ) -> FeedbackSummary:
        """Whether a job's answer is right. One opinion of each key counts, the latest."""
        given = {"verdict": verdict, "label": label, "note": note}
        return self._run(self._flows.tell(FeedbackSummary, "POST", job_path(job) + "/feedback", given))

    def unsay(self, job: Job | str) -> None:
        """Withdraw what this key said of a job's answer."""
        self._run(self._flows.delete(job_path(job) + "/feedback"))

    def count(
        self,
        jobs: Iterable[Job | str],
        *,
        upheld: int | None = None,
        generated: int | None = None,
        note: str = "",
    ) -> GroupFeedback:
        """Of how many of these jobs something holds, without saying which: of ``upheld`` ones the answer was
        right; or so many of the videos are ``generated``. It is not sent again where no answer arrived."""
        given = _said(jobs=_ids(jobs), upheld=upheld, generated=generated, note=note)
        return self._run(self._flows.tell(GroupFeedback, "POST", "/v1/feedback", given, once=True))

    def counts(self) -> Iterator[GroupFeedback]:
        """Counts that were given, the latest first."""
        for page in self._pages(GroupFeedbackList, "/v1/feedback"):
            yield from page.groups

    def uncount(self, count: GroupFeedback | int) -> None:
        """Withdraw a count."""
        number = count.id if isinstance(count, GroupFeedback) else count
        self._run(self._flows.delete(f"/v1/feedback/{number}"))

    def waiting(self) -> Iterator[ReviewItem]:
        """Answers that wait for an operator, the most urgent first."""
        for page in self._pages(ReviewQueue, "/v1/review"):
            yield from page.items

    def decide(self, job: Job | str, label: Label | Literal["unsure"], *, note: str = "") -> FeedbackSummary:
        """What a video is, as an operator has found: it leaves the queue."""
        given = {"label": label, "note": note}
        return self._run(self._flows.tell(FeedbackSummary, "PUT", review_path(job), given))

    def undecide(self, job: Job | str) -> None:
        """Withdraw this key's decision: the answer waits again, unless another operator decided too."""
        self._run(self._flows.delete(review_path(job)))

    # -- webhooks -------------------------------------------------------------------------------------------

    def create_webhook(
        self, url: str, *, events: Sequence[EventType] = (), description: str = ""
    ) -> WebhookWithSecret:
        """Have an address told of these events, or of all. Its secret, for ``verify``, is shown this once. It
        is not sent again where no answer arrived: there may be a webhook whose secret nobody knows."""
        given = {"url": url, "events": list(events), "description": description}
        return self._run(self._flows.tell(WebhookWithSecret, "POST", "/v1/webhooks", given, once=True))

    def webhooks(self) -> list[Webhook]:
        """All of them, the latest first."""
        return self._run(self._flows.read(WebhookList, "/v1/webhooks")).webhooks

    def webhook(self, webhook: Webhook | str) -> Webhook:
        """A webhook as it is now."""
        return self._run(self._flows.read(Webhook, webhook_path(webhook)))

    def change_webhook(
        self,
        webhook: Webhook | str,
        *,
        url: str | None = None,
        events: Sequence[EventType] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change what is not None."""
        given = _said(url=url, events=events, description=description, enabled=enabled)
        return self._run(self._flows.tell(Webhook, "PATCH", webhook_path(webhook), given))

    def delete_webhook(self, webhook: Webhook | str) -> None:
        """Remove it with all its deliveries."""
        self._run(self._flows.delete(webhook_path(webhook)))

    def rotate_webhook(self, webhook: Webhook | str, *, overlap_s: float | None = None) -> WebhookWithSecret:
        """A new secret. For ``overlap_s`` seconds, else as the operator has set it, the old one signs too. It
        is not sent again where no answer arrived: a second rotation would end the old secret."""
        path, given = webhook_path(webhook) + "/rotate", _said(overlap_s=overlap_s)
        return self._run(self._flows.tell(WebhookWithSecret, "POST", path, given, once=True))

    def ping_webhook(self, webhook: Webhook | str) -> Delivery:
        """Send it a `webhook.ping`; the delivery tells whether that arrived."""
        return self._run(self._flows.tell(Delivery, "POST", webhook_path(webhook) + "/ping", {}))

    def deliveries(self, webhook: Webhook | str, *statuses: DeliveryStatus) -> Iterator[Delivery]:
        """What became of its events, of all or of those in one of these states; the latest first."""
        for page in self._pages(DeliveryList, webhook_path(webhook) + "/deliveries", status=statuses):
            yield from page.deliveries

    def delivery(self, webhook: Webhook | str, event: Delivery | str) -> SentDelivery:
        """A delivery with what is sent."""
        return self._run(self._flows.read(SentDelivery, delivery_path(webhook, event)))

    def redeliver(self, webhook: Webhook | str, event: Delivery | str | None = None) -> int:
        """Send an event again, or every dead letter. How many that are."""
        path = webhook_path(webhook) if event is None else delivery_path(webhook, event)
        return self._run(self._flows.tell(Redelivered, "POST", path + "/redeliver", {})).deliveries

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

    def policy(self, name: str) -> PolicyInfo:
        """A policy: by its name alone the highest version, else that of ``name@version``."""
        return self._run(self._flows.read(PolicyInfo, f"/v1/policies/{quote(name, safe='@')}"))

    def calibrations(self) -> CalibrationList:
        """The calibrations of the model in use, the latest first."""
        return self._run(self._flows.read(CalibrationList, "/v1/calibrations"))

    def drift(self, *, weeks: int = 12) -> Drift:
        """Scores by week, and what operators found, over all tenants."""
        return self._run(self._flows.read(Drift, "/v1/drift", weeks=str(weeks)))

    def version(self) -> Version:
        """What software answers, and with which model."""
        return self._run(self._flows.read(Version, "/version"))

    def ready(self) -> Readiness:
        """With which model it is ready. While it isn't, this raises ``ProblemError`` ``not_ready``."""
        return self._run(self._flows.read(Readiness, "/readyz"))

    def _pages(self, kind: type[Page], path: str, **params: Sequence[str]) -> Iterator[Page]:
        cursor: str | int | None = None
        while True:
            page = self._run(self._flows.page(kind, path, cursor, **params))
            yield page
            if (cursor := page.next) is None:
                return

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
        surface: str = "",
        idempotency_key: str | None = None,
        fresh: bool = False,
        timeout_s: float = SCORE_S,
        on_sent: Sent | None = None,
        on_progress: Told | None = None,
    ) -> ScoredFile:
        """As ``Client.score``."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability, surface=surface)
        return await self._run(
            self._flows.score(
                video,
                options,
                key=idempotency_key,
                fresh=fresh,
                timeout_s=timeout_s,
                on_sent=on_sent,
                on_progress=on_progress,
            )
        )

    async def submit(
        self,
        video: FilePath | Video,
        *,
        thorough: bool = False,
        evidence: bool = False,
        stability: bool = False,
        surface: str = "",
        idempotency_key: str | None = None,
        fresh: bool = False,
        on_sent: Sent | None = None,
    ) -> Job:
        """As ``Client.submit``."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability, surface=surface)
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
        surface: str = "",
        idempotency_key: str | None = None,
        fresh: bool = False,
    ) -> Job:
        """As ``Client.submit_url``."""
        options = _options(thorough=thorough, evidence=evidence, stability=stability, surface=surface)
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
        async for page in self._pages(JobList, "/v1/jobs", status=statuses):
            for job in page.jobs:
                yield job

    async def appeal(
        self, job: Job | str, video: FilePath | Video | None = None, *, on_sent: Sent | None = None
    ) -> Job:
        """As ``Client.appeal``."""
        return await self._run(self._flows.appeal(job, video, on_sent=on_sent))

    async def statement(self, job: Job | str) -> dict[str, Any]:
        """As ``Client.statement``."""
        return await self._run(self._flows.document(job_path(job) + "/statement"))

    async def report(self, job: Job | str, format: ReportFormat = "json") -> bytes:  # noqa: A002 - as the query has it
        """As ``Client.report``."""
        return await self._run(self._flows.fetch(job_path(job) + "/report", format=format))

    async def view(self, job: Job | str, name: str) -> bytes:
        """As ``Client.view``."""
        return await self._run(self._flows.fetch(f"{job_path(job)}/views/{name}.png"))

    async def similar(self, job: Job | str, *, limit: int = 20) -> SimilarJobs:
        """As ``Client.similar``."""
        return await self._run(self._flows.read(SimilarJobs, job_path(job) + "/similar", limit=str(limit)))

    async def delete_job(self, job: Job | str) -> None:
        """As ``Client.delete_job``."""
        await self._run(self._flows.delete(job_path(job)))

    # -- what people say ------------------------------------------------------------------------------------

    async def say(
        self, job: Job | str, verdict: Opinion, *, label: Label | None = None, note: str = ""
    ) -> FeedbackSummary:
        """Whether a job's answer is right. One opinion of each key counts, the latest."""
        given = {"verdict": verdict, "label": label, "note": note}
        return await self._run(self._flows.tell(FeedbackSummary, "POST", job_path(job) + "/feedback", given))

    async def unsay(self, job: Job | str) -> None:
        """As ``Client.unsay``."""
        await self._run(self._flows.delete(job_path(job) + "/feedback"))

    async def count(
        self,
        jobs: Iterable[Job | str],
        *,
        upheld: int | None = None,
        generated: int | None = None,
        note: str = "",
    ) -> GroupFeedback:
        """Of how many of these jobs something holds, without saying which: of ``upheld`` ones the answer was
        right; or so many of the videos are ``generated``. It is not sent again where no answer arrived."""
        given = _said(jobs=_ids(jobs), upheld=upheld, generated=generated, note=note)
        return await self._run(self._flows.tell(GroupFeedback, "POST", "/v1/feedback", given, once=True))

    async def counts(self) -> AsyncIterator[GroupFeedback]:
        """As ``Client.counts``."""
        async for page in self._pages(GroupFeedbackList, "/v1/feedback"):
            for each in page.groups:
                yield each

    async def uncount(self, count: GroupFeedback | int) -> None:
        """As ``Client.uncount``."""
        number = count.id if isinstance(count, GroupFeedback) else count
        await self._run(self._flows.delete(f"/v1/feedback/{number}"))

    async def waiting(self) -> AsyncIterator[ReviewItem]:
        """As ``Client.waiting``."""
        async for page in self._pages(ReviewQueue, "/v1/review"):
            for each in page.items:
                yield each

    async def decide(
        self, job: Job | str, label: Label | Literal["unsure"], *, note: str = ""
    ) -> FeedbackSummary:
        """What a video is, as an operator has found: it leaves the queue."""
        given = {"label": label, "note": note}
        return await self._run(self._flows.tell(FeedbackSummary, "PUT", review_path(job), given))

    async def undecide(self, job: Job | str) -> None:
        """As ``Client.undecide``."""
        await self._run(self._flows.delete(review_path(job)))

    # -- webhooks -------------------------------------------------------------------------------------------

    async def create_webhook(
        self, url: str, *, events: Sequence[EventType] = (), description: str = ""
    ) -> WebhookWithSecret:
        """Have an address told of these events, or of all. Its secret, for ``verify``, is shown this once. It
        is not sent again where no answer arrived: there may be a webhook whose secret nobody knows."""
        given = {"url": url, "events": list(events), "description": description}
        return await self._run(self._flows.tell(WebhookWithSecret, "POST", "/v1/webhooks", given, once=True))

    async def webhooks(self) -> list[Webhook]:
        """As ``Client.webhooks``."""
        return (await self._run(self._flows.read(WebhookList, "/v1/webhooks"))).webhooks

    async def webhook(self, webhook: Webhook | str) -> Webhook:
        """As ``Client.webhook``."""
        return await self._run(self._flows.read(Webhook, webhook_path(webhook)))

    async def change_webhook(
        self,
        webhook: Webhook | str,
        *,
        url: str | None = None,
        events: Sequence[EventType] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """As ``Client.change_webhook``."""
        given = _said(url=url, events=events, description=description, enabled=enabled)
        return await self._run(self._flows.tell(Webhook, "PATCH", webhook_path(webhook), given))

    async def delete_webhook(self, webhook: Webhook | str) -> None:
        """As ``Client.delete_webhook``."""
        await self._run(self._flows.delete(webhook_path(webhook)))

    async def rotate_webhook(
        self, webhook: Webhook | str, *, overlap_s: float | None = None
    ) -> WebhookWithSecret:
        """As ``Client.rotate_webhook``."""
        path, given = webhook_path(webhook) + "/rotate", _said(overlap_s=overlap_s)
        return await self._run(self._flows.tell(WebhookWithSecret, "POST", path, given, once=True))

    async def ping_webhook(self, webhook: Webhook | str) -> Delivery:
        """As ``Client.ping_webhook``."""
        return await self._run(self._flows.tell(Delivery, "POST", webhook_path(webhook) + "/ping", {}))

    async def deliveries(self, webhook: Webhook | str, *statuses: DeliveryStatus) -> AsyncIterator[Delivery]:
        """As ``Client.deliveries``."""
        async for page in self._pages(DeliveryList, webhook_path(webhook) + "/deliveries", status=statuses):
            for each in page.deliveries:
                yield each

    async def delivery(self, webhook: Webhook | str, event: Delivery | str) -> SentDelivery:
        """As ``Client.delivery``."""
        return await self._run(self._flows.read(SentDelivery, delivery_path(webhook, event)))

    async def redeliver(self, webhook: Webhook | str, event: Delivery | str | None = None) -> int:
        """As ``Client.redeliver``."""
        path = webhook_path(webhook) if event is None else delivery_path(webhook, event)
        return (await self._run(self._flows.tell(Redelivered, "POST", path + "/redeliver", {}))).deliveries

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

    async def policy(self, name: str) -> PolicyInfo:
        """As ``Client.policy``."""
        return await self._run(self._flows.read(PolicyInfo, f"/v1/policies/{quote(name, safe='@')}"))

    async def calibrations(self) -> CalibrationList:
        """As ``Client.calibrations``."""
        return await self._run(self._flows.read(CalibrationList, "/v1/calibrations"))

    async def drift(self, *, weeks: int = 12) -> Drift:
        """As ``Client.drift``."""
        return await self._run(self._flows.read(Drift, "/v1/drift", weeks=str(weeks)))

    async def version(self) -> Version:
        """As ``Client.version``."""
        return await self._run(self._flows.read(Version, "/version"))

    async def ready(self) -> Readiness:
        """As ``Client.ready``."""
        return await self._run(self._flows.read(Readiness, "/readyz"))

    async def _pages(self, kind: type[Page], path: str, **params: Sequence[str]) -> AsyncIterator[Page]:
        cursor: str | int | None = None
        while True:
            page = await self._run(self._flows.page(kind, path, cursor, **params))
            yield page
            if (cursor := page.next) is None:
                return

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
