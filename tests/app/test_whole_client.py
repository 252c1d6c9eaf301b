"""The client against the application, in this process: every operation of the service has its call."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import doubles
import httpx
import pytest
from fastapi.testclient import TestClient
from receiver import Receiver, receiver
from test_jobs_routes import service

from specsem.client import Client, ProblemError, verify
from specsem.records import FeedbackEvent, Job

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "openapi.json"
PATHS = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
WITHOUT_A_CALL = {
    "health_healthz",
    "jobs_events",
    "jobs_keys",
    "policies_schema",
    "uploads_in_pieces_capabilities",
    "uploads_in_pieces_look",
}
"""For browsers, monitors and other tools; and where an upload stands is asked only after it broke off."""


class Watching(httpx.BaseTransport):
    """Hands on what is asked, and remembers it."""

    def __init__(self, application: TestClient) -> None:
        self.application = application
        self.asked: set[tuple[str, str]] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.add((request.method, request.url.path))
        answer = self.application.request(
            request.method, str(request.url), headers=dict(request.headers), content=request.read()
        )
        headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
        return httpx.Response(answer.status_code, headers=headers, content=answer.content)

    def operations(self) -> set[str]:
        """What was asked, by the names of the service's own document."""
        return {
            operation["operationId"]
            for path, methods in PATHS.items()
            for method, operation in methods.items()
            for asked_method, asked in self.asked
            if method.upper() == asked_method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), asked)
        }


@pytest.fixture
def taker() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def watching(tmp_path: Path, taker: Receiver) -> Iterator[Watching]:
    with service(tmp_path / "data", **taker.allowing) as application:
        yield Watching(application)


@pytest.fixture
def client(watching: Watching) -> Iterator[Client]:
    with Client("http://127.0.0.1", transport=watching, retries=0) as client:
        yield client


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"SCORE:0.97 LOOKS:1")
    return path


def done(client: Client, clip: Path) -> Job:
    return client.wait(client.submit(clip))


def test_what_is_ordered_arrives(client: Client, clip: Path) -> None:
    video = client.upload(clip)
    job = client.submit(clip, surface="ads", stability=True, idempotency_key="mine")
    assert (job.surface, job.stability) == ("ads", True)
    assert client.submit(clip, surface="ads", stability=True, idempotency_key="mine").id == job.id
    with pytest.raises(ProblemError, match="idempotency_key_reused"):
        client.submit(video, surface="feed", stability=True, idempotency_key="mine")
    for how in ("file", "stored"):
        answer = client.score(clip if how == "file" else video, surface="ads")
        assert answer.decision is not None
        assert answer.decision.surface == "ads"
    with pytest.raises(ProblemError, match="invalid_request"):
        client.score(clip, surface="no such name!")


def test_a_queue_is_worked_off(client: Client, clip: Path) -> None:
    job = done(client, clip)
    client.say(job, "wrong", label="real", note="I was there.")
    [waiting] = client.waiting()
    assert (waiting.job.id, waiting.action, waiting.reports[0].note) == (job.id, "review", "I was there.")
    decision = client.decide(job, "real", note="So it seems.").decision
    assert decision is not None
    assert (decision.label, decision.verdict, list(client.waiting())) == ("real", "wrong", [])
    client.undecide(job)
    client.unsay(job)
    assert [item.reports for item in client.waiting()] == [[]]


def test_a_look_alike_brings_what_was_decided(client: Client, clip: Path, tmp_path: Path) -> None:
    first = done(client, clip)
    client.decide(first, "generated")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(b"SCORE:0.5 LOOKS:1")
    [alike] = client.similar(done(client, copy), limit=5).jobs
    assert alike.decision is not None
    assert (alike.job, alike.same_bytes, alike.decision.label) == (first.id, False, "generated")


def test_counts_are_given_listed_and_withdrawn(client: Client, clip: Path) -> None:
    jobs = [done(client, clip), done(client, clip).id]
    upheld = client.count(jobs, upheld=1, note="of two")
    none = client.count(jobs, generated=0)
    assert [(each.id, each.kind, each.count, each.jobs) for each in client.counts()] == [
        (none.id, "generated", 0, 2),
        (upheld.id, "upheld", 1, 2),
    ]
    client.uncount(upheld)
    assert list(client.counts()) == [none]
    with pytest.raises(ProblemError, match="invalid_request"):
        client.count(jobs)


def test_an_appeal_is_a_job_and_the_same_one_the_second_time(client: Client, clip: Path) -> None:
    job = done(client, clip)
    with pytest.raises(ProblemError, match="media_gone"):
        client.appeal(job)
    second = client.wait(client.appeal(job, clip))
    assert (second.status, second.thorough, second.links.appeal_of) == ("done", True, f"/v1/jobs/{job.id}")
    assert client.appeal(job).id == second.id
    statement = client.statement(job)
    assert statement["redress"]["second_look"]["job"] == f"/v1/jobs/{second.id}"


def test_a_webhook_s_life(client: Client, clip: Path, taker: Receiver) -> None:
    made = client.create_webhook(taker.url(), events=["feedback.created"], description="the forum")
    assert made.secret not in repr(made)
    [listed] = client.webhooks()
    assert client.webhook(made) == listed
    job = done(client, clip)
    client.decide(job, "real")
    doubles.until(lambda: taker.messages)
    message = verify(taker.messages[0].body, taker.messages[0].headers, made.secret)
    assert isinstance(message.event, FeedbackEvent)
    assert (message.event.data.job, message.event.data.label) == (job.id, "real")
    rotated = client.rotate_webhook(made, overlap_s=0)
    client.ping_webhook(made)
    doubles.until(lambda: len(list(client.deliveries(made, "delivered"))) == 2)
    assert taker.messages[1].verified(rotated.secret)["type"] == "webhook.ping"
    taker.answer = 410
    assert client.redeliver(made, message.id) == 1
    doubles.until(lambda: not client.webhook(made).enabled)
    taker.answer = 204
    assert client.delivery(made, message.id).status == "dead"
    changed = client.change_webhook(made, enabled=True, events=["job.done"])
    assert (changed.enabled, changed.events, changed.description) == (True, ["job.done"], "the forum")
    assert client.redeliver(made) == 1
    doubles.until(lambda: not list(client.deliveries(made, "dead", "pending")))
    client.delete_webhook(made)
    assert client.webhooks() == []


def test_every_operation_has_a_call(client: Client, watching: Watching, clip: Path) -> None:
    """Of what isn't there where nothing is: here it only counts which operation is asked."""
    none = "f" * 32
    calls: dict[str, Callable[[], object]] = {
        "drift_calibrations": client.calibrations,
        "drift_drift": client.drift,
        "feedback_count": lambda: client.count([none], upheld=1),
        "feedback_counts": lambda: list(client.counts()),
        "feedback_decide": lambda: client.decide(none, "real"),
        "feedback_queue": lambda: list(client.waiting()),
        "feedback_say": lambda: client.say(none, "right"),
        "feedback_uncount": lambda: client.uncount(1),
        "feedback_undo": lambda: client.undecide(none),
        "feedback_unsay": lambda: client.unsay(none),
        "health_readyz": client.ready,
        "health_version": client.version,
        "jobs_appeal": lambda: client.appeal(none),
        "jobs_delete": lambda: client.delete_job(none),
        "jobs_get": lambda: client.job(none),
        "jobs_list_jobs": lambda: list(client.jobs()),
        "jobs_report": lambda: client.report(none),
        "jobs_similar": lambda: client.similar(none),
        "jobs_statement": lambda: client.statement(none),
        "jobs_submit": lambda: client.submit_url("https://example.org/clip.mp4"),
        "jobs_view": lambda: client.view(none, "1-gate"),
        "models_models": client.models,
        "policies_get": lambda: client.policy("default@1"),
        "policies_policies": client.policies,
        "score_score": lambda: client.score(clip),
        "uploads_in_pieces_append": lambda: client.upload(clip),
        "videos_delete": lambda: client.delete_video(none),
        "videos_facts": lambda: client.video(none),
        "videos_upload": lambda: client.upload(clip),
        "webhooks_change": lambda: client.change_webhook(none),
        "webhooks_create": lambda: client.create_webhook("https://elsewhere.invalid"),
        "webhooks_delete": lambda: client.delete_webhook(none),
        "webhooks_deliveries": lambda: list(client.deliveries(none)),
        "webhooks_delivery": lambda: client.delivery(none, none),
        "webhooks_get": lambda: client.webhook(none),
        "webhooks_list_webhooks": client.webhooks,
        "webhooks_ping": lambda: client.ping_webhook(none),
        "webhooks_redeliver": lambda: client.redeliver(none, none),
        "webhooks_redeliver_dead": lambda: client.redeliver(none),
        "webhooks_rotate": lambda: client.rotate_webhook(none),
    }
    for operation, call in calls.items():
        watching.asked.clear()
        with suppress(ProblemError):
            call()
        assert operation in watching.operations()
    everything = {each["operationId"] for methods in PATHS.values() for each in methods.values()}
    assert everything - calls.keys() == WITHOUT_A_CALL
