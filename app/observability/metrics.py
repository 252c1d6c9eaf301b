"""Prometheus metrics, in a registry of each application's own.

No label takes a value that a client chose: routes are templates, codes are those of ``app.problems``, and
what is unknown shares one value. So the number of series is fixed, whatever is sent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import disable_created_metrics as _without_created
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase

from app.problems import CODES
from specsem.media import Death
from specsem.records import AlertName
from specsem.result import Action, ScoredFile, Verdict

if TYPE_CHECKING:
    from app.admission import Admission
    from app.batching import Lane
    from app.engines import Engine
    from app.jobs.service import Jobs
    from app.resumable import ResumableUploads
    from app.services import Works
    from app.videos import VideoStore
    from specsem.records import Status

__all__ = ["DeliveryOutcome", "Described", "Metrics", "Outcome", "Release", "Stage"]

Stage = Literal["receive", "fetch", "decoder_queue", "decode", "scan", "queue", "forward", "total"]
Release = Literal["full", "queue_empty", "shape"]
Outcome = Literal["done", "failed", "retried", "handed_back", "lost"]
DeliveryOutcome = Literal["delivered", "retried", "dead", "handed_back", "lost"]

LANES: "tuple[Lane, ...]" = ("interactive", "bulk")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUS_CLASSES = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
JOB_STATES: "tuple[Status, ...]" = ("queued", "running", "done", "failed", "expired")

# From a forward on a GPU to a job of hours; the middle is where people wait.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
CLIPS = (1, 2, 4, 8, 16, 32, 64)
SCORES = tuple(round(step * 0.05, 2) for step in range(1, 21))

Made = TypeVar("Made", bound=MetricWrapperBase)

_without_created()  # type: ignore[no-untyped-call]  # a second series beside each counter, which no query here needs


@dataclass(frozen=True, slots=True)
class Described:
    """What a metric is, for those who read of it."""

    name: str
    kind: str
    labels: list[str]
    text: str


class Metrics:
    """Every metric of a process. Counting takes about a microsecond and is safe from any thread."""

    def __init__(self, policy: str = "default") -> None:
        """``policy`` is the one that verdicts are given by."""
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        ProcessCollector(registry=self.registry)

        # Requests.
        self._requests = self._made(
            Counter,
            "http_requests",
            "Answers by route template, method and class of status.",
            "route method status",
        )
        self._request_seconds = self._made(
            Histogram,
            "http_request_duration_seconds",
            "From the first byte of a request to the last of its answer; event streams too.",
            "route",
            buckets=SECONDS,
        )
        refusals = self._made(Counter, "refusals", "Problem documents by their code.", "code")
        self._refusals = {code: refusals.labels(code) for code in CODES}

        # A video's way.
        stages = self._made(
            Histogram,
            "stage_duration_seconds",
            "Time of a video in a stage that it got through: receive (upload), fetch (of a job by address), "
            "decoder_queue (waits for a decoder), decode, scan (thorough: decodes and scores in turn), queue "
            "(waits for the model), forward, total (all but receive and fetch).",
            "stage lane",
            buckets=SECONDS,
        )
        self._stages = {
            (stage, lane): stages.labels(stage, lane) for stage in get_args(Stage) for lane in LANES
        }
        deaths = self._made(
            Counter, "decoder_deaths", "Decoder processes that a file cost, by cause.", "cause"
        )
        self._deaths = {cause: deaths.labels(cause) for cause in get_args(Death)}
        verdicts = self._made(Counter, "verdicts", "Verdicts given, jobs' included.", "verdict policy")
        self._verdicts = {verdict: verdicts.labels(verdict, policy) for verdict in get_args(Verdict)}
        self._decisions = self._made(
            Counter,
            "decisions",
            "Actions decided, for jobs and stored answers too. surface: one that a policy names, or other.",
            "action surface policy",
        )
        shadows = self._made(
            Counter,
            "shadow_decisions",
            "The same by what SPECSEM_POLICY_SHADOW would have decided (shadow).",
            "action shadow",
        )
        actions = get_args(Action)
        self._shadows = {(one, other): shadows.labels(one, other) for one in actions for other in actions}
        self._scores = self._made(
            Histogram, "score", "Scores given: watch their distribution for drift.", buckets=SCORES
        )

        self._shift = self._made(
            Gauge,
            "drift_shift",
            "Population stability index of the latest week's scores against the weeks before, looked up "
            "every five minutes; each process says the same. NaN: too few scores.",
        )
        self._alerts = self._made(
            Gauge, "drift_alert", "1 while a figure of /v1/drift is beyond its limit, else 0.", "name"
        )
        self._calibration = self._made(
            Gauge, "calibration_version", "Number of the calibration in use; 0 came with the model."
        )

        # The batcher.
        self._batch_clips = self._made(Histogram, "batch_clips", "Clips in one forward pass.", buckets=CLIPS)
        releases = self._made(
            Counter,
            "batch_releases",
            "Why a batch grew no more: full, queue_empty (nobody else waited), shape (the next one differs).",
            "reason",
        )
        self._releases = {reason: releases.labels(reason) for reason in get_args(Release)}
        self.batch_failures = self._made(
            Counter, "batch_failures", "Forward passes that raised; their clips ran again one by one."
        )
        self._queue_clips = self._made(Gauge, "queue_clips", "Clips that wait for the model.", "lane")
        self._queue_age = self._made(
            Gauge, "queue_oldest_age_seconds", "How long the first in line has waited.", "lane"
        )
        self._forward_age = self._made(
            Gauge, "forward_age_seconds", "How long the forward under way has taken."
        )

        # Jobs.
        self._jobs = self._made(
            Gauge,
            "jobs",
            "Jobs in the database by state, counted every 15 s; each process says the same.",
            "status",
        )
        self._jobs_age = self._made(
            Gauge, "jobs_oldest_queued_age_seconds", "How long the job that waits longest has waited."
        )
        outcomes = self._made(
            Counter,
            "job_attempts",
            "Attempts that ended here: done, failed (the file's fault, or the last attempt), retried (ours), "
            "handed_back (a stop), lost (the lease went to another, or the job was deleted).",
            "outcome",
        )
        self._outcomes = {outcome: outcomes.labels(outcome) for outcome in get_args(Outcome)}
        self.jobs_given_up = self._made(
            Counter, "jobs_given_up", "Jobs failed because they ended their worker too often."
        )

        # Webhooks.
        deliveries = self._made(
            Counter,
            "webhook_deliveries",
            "Attempts to deliver that ended here: delivered, retried (will be), dead (given up), handed_back "
            "(a stop), lost (the lease went to another, or the webhook was disabled or removed).",
            "outcome",
        )
        self._deliveries = {outcome: deliveries.labels(outcome) for outcome in get_args(DeliveryOutcome)}
        self._deliveries_age = self._made(
            Gauge,
            "webhook_oldest_pending_age_seconds",
            "How long the event that waits longest for its receiver has waited, looked up every 15 s.",
        )

        # How it stands.
        self._ready = self._made(Gauge, "ready", "1 while /readyz says so, else 0.")
        self._database_up = self._made(Gauge, "database_up", "1 while the database of jobs answers, else 0.")
        self._admission = self._made(
            Gauge,
            "admission_used_ratio",
            "Share of the permits in use; at 1 requests are refused as busy.",
            "limit",
        )
        self._store_bytes = self._made(Gauge, "store_bytes", "Bytes of kept media.", "kind")
        self._store_limit = self._made(Gauge, "store_limit_bytes", "SPECSEM_MAX_STORED_BYTES.")
        self._disk_free = self._made(
            Gauge, "disk_free_bytes", "Free bytes where the data folder is, looked up every 15 s."
        )
        self._model = self._made(
            Gauge, "model_info", "1: the model in use.", "name version sha256 device policy"
        )
        self._build = self._made(Gauge, "build_info", "1: the software.", "version commit")
        self._policy = policy

    # -- counting -------------------------------------------------------------------------------------------

    def request(self, route: str, method: str, status: int, seconds: float, code: str | None) -> None:
        """An answer went out. ``status`` 0: none did, the client or the server left before."""
        known_method = method if method in METHODS else "other"
        self._requests.labels(route, known_method, STATUS_CLASSES.get(status // 100, "none")).inc()
        self._request_seconds.labels(route).observe(seconds)
        if code is not None:
            self._refusals[code].inc()

    def stage(self, stage: Stage, seconds: float, lane: "Lane") -> None:
        """A video was so long in a stage."""
        self._stages[stage, lane].observe(seconds)

    def decoder_death(self, cause: Death) -> None:
        """A file cost a decoder process."""
        self._deaths[cause].inc()

    def verdict(self, answer: ScoredFile) -> None:
        """A verdict was given."""
        self._verdicts[answer.verdict].inc()
        self._scores.observe(answer.score)

    def decision(self, action: Action, surface: str) -> None:
        """It was decided what to do; ``surface`` is one of few."""
        self._decisions.labels(action, surface, self._policy).inc()

    def shadow_decision(self, action: Action, shadow: Action) -> None:
        """The shadow policy would have decided ``shadow``."""
        self._shadows[action, shadow].inc()

    def batch(self, clips: int, released: Release) -> None:
        """A batch goes to the model."""
        self._batch_clips.observe(clips)
        self._releases[released].inc()

    def attempt(self, outcome: Outcome) -> None:
        """An attempt at a job ended."""
        self._outcomes[outcome].inc()

    def delivery(self, outcome: DeliveryOutcome) -> None:
        """An attempt to deliver an event ended."""
        self._deliveries[outcome].inc()

    # -- looking, at each scrape ----------------------------------------------------------------------------

    def build(self, version: str, commit: str | None) -> None:
        """Say what software this is."""
        self._build.labels(version, commit or "unknown").set(1)

    def model(self, engine: "Engine") -> None:
        """Say which model is loaded."""
        record = engine.record
        self._model.labels(record.name, record.version, record.sha256, engine.device, self._policy).set(1)

    def watch(self, works: "Works") -> None:
        """Look at what works."""
        engine, jobs = works.engine, works.jobs
        for lane in LANES:
            self._queue_clips.labels(lane).set_function(_of_lane(engine, lane, "clips"))
            self._queue_age.labels(lane).set_function(_of_lane(engine, lane, "oldest_s"))
        self._forward_age.set_function(lambda: engine.liveness().forward_s)
        self._ready.set_function(lambda: works.ready)
        for status in JOB_STATES:
            self._jobs.labels(status).set_function(_of_status(jobs, status))
        self._jobs_age.set_function(lambda: jobs.house.oldest_queued_s)
        self._database_up.set_function(lambda: not jobs.database_away)
        self._deliveries_age.set_function(lambda: works.webhooks.oldest_pending_s)
        self._shift.set_function(lambda: _shift(works))
        for alert in get_args(AlertName):
            self._alerts.labels(alert).set_function(_of_alert(works, alert))
        self._calibration.set_function(lambda: engine.calibration.version if engine.ready else 0)
        self._disk_free.set_function(lambda: jobs.house.disk_free_bytes)
        self._store_bytes.labels("jobs").set_function(lambda: sum(jobs.media_bytes.values()))
        self._store_bytes.labels("pictures").set_function(lambda: sum(jobs.views_bytes.values()))
        self._store_limit.set(works.settings.max_stored_bytes)

    def watch_intake(self, admission: "Admission", videos: "VideoStore", partial: "ResumableUploads") -> None:
        """Look at what comes in; a worker has none of it."""
        self._admission.labels("clips").set_function(lambda: admission.clips / admission.max_clips)
        self._admission.labels("bytes").set_function(lambda: admission.bytes / admission.max_bytes)
        self._store_bytes.labels("videos").set_function(lambda: videos.tally.bytes)
        self._store_bytes.labels("resumable").set_function(lambda: partial.tally.bytes)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The text for a scraper that accepts these media types, and which one it is."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    # -- how ------------------------------------------------------------------------------------------------

    def _made(self, kind: type[Made], name: str, text: str, labels: str = "", **more: Any) -> Made:
        """One metric, with its labels in one text."""
        ending = "_total" if kind is Counter else ""
        self.described.append(
            Described(f"specsem_{name}{ending}", kind.__name__.lower(), labels.split(), text)
        )
        return kind(name, text, labels.split(), namespace="specsem", registry=self.registry, **more)


def _of_lane(engine: "Engine", lane: "Lane", field: Literal["clips", "oldest_s"]) -> Callable[[], float]:
    return lambda: getattr(engine.liveness().lanes[lane], field)


def _shift(works: "Works") -> float:
    seen = works.drift.seen
    return math.nan if seen is None or seen.shift is None else seen.shift


def _of_alert(works: "Works", name: AlertName) -> Callable[[], float]:
    return lambda: works.drift.seen is not None and name in {alert.name for alert in works.drift.seen.alerts}


def _of_status(jobs: "Jobs", status: "Status") -> Callable[[], float]:
    return lambda: jobs.house.by_status.get(status, 0)
