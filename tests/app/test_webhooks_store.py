"""The outbox and its statements, on SQLite and on PostgreSQL: what is written with what, and who sends it."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text
from test_jobs_store import OVER, claimed, job

from app.audit import Trail
from app.jobs.feedback import FeedbackStore, Said
from app.jobs.store import Finished, JobStore, KeyTaken
from app.jobs.table import DeliveryRow, WebhookRow
from app.webhooks import outbox
from app.webhooks.store import Claimed, Failure, NewEndpoint, TooMany, WebhookStore
from specsem.result import Action, Decision

DAY_S = 86400.0
SECRET = "whsec_AAAA"  # noqa: S105 - a stand-in for one
FAILURE = Failure("It answered 500.", status=500, pause_s=60.0)


@pytest.fixture
def jobs(database: Engine) -> JobStore:
    with database.execution_options(writes=True).begin() as connection:
        for table in ("jobs", "feedback", "webhooks", "webhook_deliveries"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
    return JobStore(database)


@pytest.fixture
def store(database: Engine, jobs: JobStore) -> WebhookStore:
    return WebhookStore(database)


def endpoint(store: WebhookStore, number: int = 1, *, tenant: str = "", events: str = "") -> WebhookRow:
    new = NewEndpoint(
        id=f"{number:032x}",
        tenant=tenant,
        url="https://hooks.example.org/",
        url_query=None,
        description="",
        events=events,
        secret=SECRET,
    )
    return store.add(new, limit=100)


def done(action: Action | None = None) -> Finished:
    decision = None
    if action is not None:
        decision = Decision(action=action, policy="own", version=2, rule="r", threshold=None, reasons=[])
    result = json.dumps({"verdict": "generated", "score": 0.97, "logit": 3.4})
    return Finished(result=result, made_by="model 1", verdict="generated", score=0.97, decision=decision)


def told(store: WebhookStore, webhook: WebhookRow) -> list[str]:
    """Types of the events on their way, the first one first."""
    return [row.type for row in store.page(webhook, statuses=(), before=None, limit=100)][::-1]


def claim(store: WebhookStore, *, lease_s: float = 60.0, **but: Any) -> Claimed:
    found = store.claim(lease_s=lease_s, **but)
    assert found is not None
    return found


def waiting(store: WebhookStore, webhook: WebhookRow) -> str:
    """An event of this endpoint that is at nobody's hands."""
    return store.page(webhook, statuses=("pending",), before=None, limit=1)[0].event_id


def now(store: WebhookStore, claimed: Claimed) -> DeliveryRow:
    row = store.delivery(claimed.webhook, claimed.delivery.event_id)
    assert row is not None
    return row


# -- what is written ----------------------------------------------------------------------------------------


def test_a_job_s_end_and_its_events_are_one(jobs: JobStore, store: WebhookStore) -> None:
    webhook = endpoint(store)
    jobs.add(job(1))
    assert jobs.finish(claimed(jobs), done(), ttl_s=60)
    sent = claim(store).delivery
    payload = json.loads(sent.payload)
    assert payload["type"] == sent.type == "job.done"
    assert payload["timestamp"].endswith("Z")
    assert payload["data"] == {
        "job": job(1).id,
        "status": "done",
        "verdict": "generated",
        "score": 0.97,
        "decision": None,
        "error": None,
        "links": {"job": f"/v1/jobs/{job(1).id}"},
    }
    assert told(store, webhook) == ["job.done"]


def test_where_the_event_can_t_be_written_the_job_has_not_ended(
    jobs: JobStore, store: WebhookStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = endpoint(store)
    jobs.add(job(1))
    held = claimed(jobs)
    write = outbox.address

    def broken(*args: Any) -> str:
        write(*args)
        raise OSError("broken")

    monkeypatch.setattr(outbox, "address", broken)
    with pytest.raises(OSError, match="broken"):
        jobs.finish(held, done(), ttl_s=60)
    row = jobs.find("", held.id)
    assert row is not None
    assert row.status == "running"
    assert told(store, webhook) == []


def test_what_is_said_of_an_answer_is_told_without_its_note(
    database: Engine, jobs: JobStore, store: WebhookStore
) -> None:
    webhook = endpoint(store, events="feedback.created")
    endpoint(store, 2, tenant="other")
    jobs.add(job(1), finished=done(), ttl_s=60)
    feedback = FeedbackStore(database)
    assert feedback.add("", job(1).id, Said("user", "key", "wrong", "real", "it is mine"))
    assert feedback.add("", job(1).id, Said("review", "key", label="generated"))
    assert not feedback.add("", job(2).id, Said("user", "key", "right"))  # there is no such answer
    assert feedback.end("", job(1).id, source="user", actor="key")
    assert told(store, webhook) == ["feedback.created"] * 2
    first, second = (json.loads(claim(store).delivery.payload)["data"] for _ in range(2))
    assert first == {
        "job": job(1).id,
        "source": "user",
        "opinion": "wrong",
        "label": "real",
        "verdict": "generated",
        "score": 0.97,
        "links": {"job": f"/v1/jobs/{job(1).id}"},
    }
    assert (second["source"], second["opinion"], second["label"]) == ("review", "right", "generated")
    assert store.claim(lease_s=60) is None


@pytest.mark.parametrize("broken", ["app.webhooks.outbox.address", "app.jobs.feedback.append"])
def test_feedback_its_event_and_its_entry_come_together_or_not_at_all(
    database: Engine, jobs: JobStore, store: WebhookStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    webhook = endpoint(store, events="feedback.created")
    jobs.add(job(1), finished=done(), ttl_s=60)

    def fail(*_: Any) -> None:
        raise OSError("broken")

    before, feedback = Trail(database).head(), FeedbackStore(database)
    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="broken"):
        feedback.add("", job(1).id, Said("user", "key", "wrong"))
    assert feedback.current("", job(1).id) == []
    assert told(store, webhook) == []
    assert Trail(database).head() == before


@pytest.mark.parametrize("ended", ["add", "finish", "give_up"])
def test_where_the_entry_can_t_be_written_nothing_is_told(
    jobs: JobStore, store: WebhookStore, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    webhook = endpoint(store)
    jobs.add(job(1))
    held = claimed(jobs, lease_s=OVER)

    def fail(*_: Any) -> None:
        raise OSError("broken")

    ends: dict[str, Callable[[], object]] = {
        "add": lambda: jobs.add(job(2), finished=done(), ttl_s=60),
        "finish": lambda: jobs.finish(held, done(), ttl_s=60),
        "give_up": lambda: jobs.give_up(max_attempts=1, ttl_s=60),
    }
    monkeypatch.setattr("app.jobs.store.append", fail)
    with pytest.raises(OSError, match="broken"):
        ends[ended]()
    row = jobs.find("", held.id)
    assert row is not None
    assert row.status == "running"
    assert told(store, webhook) == []


def test_who_has_lost_its_lease_tells_nothing(jobs: JobStore, store: WebhookStore) -> None:
    webhook = endpoint(store)
    jobs.add(job(1))
    late = claimed(jobs, lease_s=OVER)
    on_time = claimed(jobs)
    assert not jobs.finish(late, done(), ttl_s=60)
    assert told(store, webhook) == []
    assert jobs.finish(on_time, done(), ttl_s=60)
    assert told(store, webhook) == ["job.done"]


def test_every_way_a_job_ends_is_told(jobs: JobStore, store: WebhookStore) -> None:
    webhook = endpoint(store)
    jobs.add(job(1, key="a"), finished=done(), ttl_s=60)  # the store knew the answer
    with pytest.raises(KeyTaken):
        jobs.add(job(2, key="a"), finished=done(), ttl_s=60)
    jobs.add(job(3))
    jobs.finish(claimed(jobs), Finished(error_code="not_a_video", error_message="It is none."), ttl_s=60)
    jobs.add(job(4))
    claimed(jobs, lease_s=OVER)
    assert jobs.give_up(max_attempts=1, ttl_s=60) == [job(4).id]
    assert told(store, webhook) == ["job.done", "job.failed", "job.failed"]
    errors = [json.loads(claim(store).delivery.payload)["data"]["error"] for _ in range(3)]
    assert [error and error["code"] for error in errors] == [None, "not_a_video", "attempts_exceeded"]


@pytest.mark.parametrize(
    ("action", "types"),
    [
        ("review", ["job.done", "decision.review"]),
        ("block", ["job.done", "decision.block"]),
        ("allow", ["job.done"]),
        ("label", ["job.done"]),
        (None, ["job.done"]),
    ],
)
def test_decisions_are_told(
    jobs: JobStore, store: WebhookStore, action: Action | None, types: list[str]
) -> None:
    webhook = endpoint(store)
    jobs.add(job(1), finished=done(action), ttl_s=60)
    assert told(store, webhook) == types
    for _ in types:
        decision = json.loads(claim(store).delivery.payload)["data"]["decision"]
        expected = action and {"action": action, "policy": "own", "version": 2}
        assert (decision and {name: decision[name] for name in ("action", "policy", "version")}) == expected


def test_only_who_asked_is_told(jobs: JobStore, store: WebhookStore) -> None:
    everything = endpoint(store, 1)
    failures = endpoint(store, 2, events="job.failed feedback.created")
    foreign = endpoint(store, 3, tenant="theirs")
    disabled = endpoint(store, 4)
    store.change(None, disabled.id, enabled=False)
    jobs.add(job(1), finished=done(), ttl_s=60)
    assert [told(store, webhook) for webhook in (everything, failures, foreign, disabled)] == [
        ["job.done"],
        [],
        [],
        [],
    ]
    jobs.add(job(2, tenant="theirs"), finished=Finished(error_code="too_short", error_message=""), ttl_s=60)
    assert told(store, foreign) == ["job.failed"]
    assert told(store, failures) == []


def test_an_event_has_one_id_wherever_it_goes(jobs: JobStore, store: WebhookStore) -> None:
    endpoint(store, 1), endpoint(store, 2)
    jobs.add(job(1), finished=done(), ttl_s=60)
    first, second = claim(store).delivery, claim(store).delivery
    assert first.event_id == second.event_id
    assert first.payload == second.payload
    assert {first.webhook_id, second.webhook_id} == {f"{number:032x}" for number in (1, 2)}


def test_so_many_and_no_more(store: WebhookStore) -> None:
    endpoint(store)
    with pytest.raises(TooMany):
        store.add(NewEndpoint("2", "", "https://a.example/", None, "", "", SECRET), limit=1)
    endpoint(store, 3, tenant="another")


# -- who may send it ----------------------------------------------------------------------------------------


def test_many_claim_at_once_and_no_two_get_the_same(jobs: JobStore, store: WebhookStore) -> None:
    webhook = endpoint(store)
    sent = [store.ping(webhook).event_id for _ in range(40)]
    ready = threading.Barrier(4)

    def take(_dispatcher: int) -> list[str]:
        ready.wait()
        taken = []
        while (found := store.claim(lease_s=60)) is not None:
            taken.append(found.delivery.event_id)
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = [event_id for ids in threads.map(take, range(4)) for event_id in ids]
    assert sorted(taken) == sorted(sent)


def test_a_lease_that_ran_out_is_another_s_with_the_same_id(store: WebhookStore) -> None:
    store.ping(endpoint(store))
    dead, alive = claim(store, lease_s=OVER), claim(store)
    assert dead.delivery.event_id == alive.delivery.event_id
    assert alive.delivery.attempts == 2
    assert not store.delivered(dead.delivery, 200)
    assert store.failed(dead.delivery, FAILURE, retry_s=DAY_S) is None
    assert not store.hand_back(dead.delivery)
    assert store.delivered(alive.delivery, 200)
    row = now(store, alive)
    assert (row.status, row.last_status, row.last_error) == ("delivered", 200, None)
    assert store.claim(lease_s=60) is None


def test_who_is_busy_is_passed_over(store: WebhookStore) -> None:
    first, second = endpoint(store, 1), endpoint(store, 2)
    third = endpoint(store, 3, tenant="another")
    for webhook in (first, second, third):
        store.ping(webhook)
    assert claim(store, but_webhooks=[first.id]).webhook.id == second.id
    assert claim(store, but_tenants=[""]).webhook.id == third.id
    assert store.claim(lease_s=60, but_tenants=["", "another"]) is None


def test_a_failure_waits_and_in_the_end_is_dead(store: WebhookStore) -> None:
    webhook = endpoint(store)
    store.ping(webhook)
    first = claim(store)
    assert store.failed(first.delivery, FAILURE, retry_s=DAY_S) == "pending"
    row = now(store, first)
    assert 50 < row.not_before - row.since < 70
    assert (row.last_status, row.last_error) == (500, "It answered 500.")
    assert store.claim(lease_s=60) is None
    assert store.redeliver(webhook, row.event_id) == 1  # now, please
    assert store.failed(claim(store).delivery, FAILURE, retry_s=30) == "pending"
    row = now(store, first)
    assert row.not_before == pytest.approx(row.since + 30)  # the last one is at the end, not after it
    store.redeliver(webhook, row.event_id)
    assert store.failed(claim(store).delivery, FAILURE, retry_s=0) == "dead"
    assert store.redeliver(webhook) == 1
    again = claim(store)
    assert (again.delivery.event_id, again.delivery.attempts) == (row.event_id, 1)
    assert store.redeliver(webhook) == 0  # none is dead


def test_a_hand_back_doesn_t_count(store: WebhookStore) -> None:
    store.ping(endpoint(store))
    assert store.hand_back(claim(store).delivery)
    assert claim(store).delivery.attempts == 1


def test_gone_is_gone(jobs: JobStore, store: WebhookStore) -> None:
    webhook, other = endpoint(store, 1), endpoint(store, 2)
    for _ in range(3):
        store.ping(webhook)
    store.ping(other)
    first, under_way = claim(store), claim(store)
    assert store.failed(first.delivery, Failure("410", status=410, gone=True), retry_s=DAY_S) == "dead"
    found = store.find("", webhook.id)
    assert found is not None
    assert found.disabled_because == "gone"
    assert not store.delivered(under_way.delivery, 200)
    assert claim(store).webhook.id == other.id
    jobs.add(job(1), finished=done(), ttl_s=60)
    assert told(store, webhook) == ["webhook.ping"] * 3
    assert store.change("", webhook.id, enabled=True) is not None
    assert store.redeliver(webhook) == 3


def test_a_brake_holds_up_all_of_an_endpoint_and_nobody_else(store: WebhookStore) -> None:
    webhook, other = endpoint(store, 1), endpoint(store, 2)
    for _ in range(3):
        store.ping(webhook)
    braked = Failure("429", status=429, throttles=True, pause_s=60)
    assert store.failed(claim(store).delivery, braked, retry_s=DAY_S) == "pending"
    store.ping(webhook)  # what comes now waits too
    assert store.claim(lease_s=60) is None
    store.ping(other)
    assert claim(store).webhook.id == other.id
    assert store.redeliver(webhook, waiting(store, webhook)) == 1  # by request, at once
    assert claim(store).webhook.id == webhook.id


def test_removing_leaves_nothing(jobs: JobStore, store: WebhookStore) -> None:
    webhook = endpoint(store, tenant="ours")
    store.ping(webhook)
    sending = claim(store)
    assert not store.remove("theirs", webhook.id)
    assert store.remove("ours", webhook.id)
    assert store.find(None, webhook.id) is None
    assert not store.delivered(sending.delivery, 200)
    assert store.page(webhook, statuses=(), before=None, limit=10) == []


def test_secrets_overlap(store: WebhookStore) -> None:
    webhook = endpoint(store)
    assert store.rotate("", webhook.id, "whsec_BBBB", overlap_s=60)
    store.ping(webhook)
    assert claim(store).secrets == ["whsec_BBBB", SECRET]
    assert store.rotate("", webhook.id, "whsec_CCCC", overlap_s=0)
    store.ping(webhook)
    assert claim(store).secrets == ["whsec_CCCC"]
    assert store.rotate("theirs", webhook.id, "whsec_DDDD", overlap_s=60) is None


def test_what_is_over_goes(database: Engine, store: WebhookStore) -> None:
    webhook = endpoint(store)
    store.rotate("", webhook.id, "whsec_BBBB", overlap_s=60)
    for _ in range(3):
        store.ping(webhook)
    delivered, dead = claim(store).delivery, claim(store).delivery
    store.delivered(delivered, 204)
    store.failed(dead, FAILURE, retry_s=0)
    assert store.oldest_pending_s() < 60
    with database.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET since = since - 100"))
        connection.execute(text("UPDATE webhooks SET old_secret_until = old_secret_until - 100"))
    assert 100 <= store.oldest_pending_s() < 200
    assert store.purge(ttl_s=60) == 0
    assert store.purge(ttl_s=0) == 2
    (left,) = store.page(webhook, statuses=(), before=None, limit=10)
    assert left.status == "pending"
    row = store.find("", webhook.id)
    assert row is not None
    assert (row.old_secret, row.secret) == (None, "whsec_BBBB")
