"""``/v1/webhooks``: what it takes and refuses, what it shows to whom, and events of jobs that arrive."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from doubles import until
from fastapi.testclient import TestClient
from receiver import Receiver, receiver
from test_auth import bearer
from test_jobs_routes import ended, service
from test_main import check_problem

from app.keys import open_keys
from app.settings import Settings

MISSING = "0" * 32


@pytest.fixture
def taker() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, taker: Receiver) -> Iterator[TestClient]:
    with service(tmp_path, **taker.allowing, max_webhooks=3) as client:
        yield client


def register(client: TestClient, url: str, **given: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", json={"url": url, **given})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def deliveries(client: TestClient, webhook: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    return list(client.get(f"/v1/webhooks/{webhook['id']}/deliveries{query}").json()["deliveries"])


def test_a_job_is_told(client: TestClient, taker: Receiver) -> None:
    webhook = register(client, taker.url(), events=["job.done"])
    failing = client.post("/v1/jobs", content=b"BAD:too_short")
    job = client.post("/v1/jobs", content=b"SCORE:0.97")
    done = ended(client, job)
    until(lambda: taker.messages)
    again = client.post("/v1/jobs", content=b"SCORE:0.97")  # whose answer is known
    until(lambda: len(taker.messages) == 2)
    said = [message.verified(webhook["secret"]) for message in taker.messages]
    assert [event["type"] for event in said] == ["job.done"] * 2
    data = said[0]["data"]
    assert (data["job"], data["status"], data["verdict"], data["score"]) == (
        done["id"],
        "done",
        "generated",
        0.97,
    )
    assert client.get(data["links"]["job"]).json()["id"] == done["id"]
    assert said[1]["data"]["job"] == again.json()["id"]
    assert ended(client, failing)["status"] == "failed"  # which nobody asked to hear
    found = client.get(f"/v1/webhooks/{webhook['id']}/deliveries/{taker.ids[0]}").json()
    assert (found["status"], found["attempts"], found["last_status"]) == ("delivered", 1, 204)
    assert found["payload"] == said[0] == json.loads(taker.messages[0].body)


def test_a_failed_job_says_why(client: TestClient, taker: Receiver) -> None:
    webhook = register(client, taker.url())
    job = ended(client, client.post("/v1/jobs", content=b"BAD:too_short"))
    until(lambda: taker.messages)
    said = taker.messages[0].verified(webhook["secret"])
    assert (said["type"], said["data"]["error"]) == ("job.failed", job["error"])
    assert (said["data"]["verdict"], said["data"]["score"]) == (None, None)


def test_a_secret_is_shown_once(client: TestClient, taker: Receiver) -> None:
    made = register(client, taker.url("/hook?key=5ec2e7"), description="queue")
    assert made["secret"].startswith("whsec_")
    assert made["url"] == taker.url()
    path = f"/v1/webhooks/{made['id']}"
    shown = client.get(path).json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert client.get("/v1/webhooks").json() == {"webhooks": [shown]}
    rotated = client.post(f"{path}/rotate", json={}).json()
    assert rotated["secret"] not in (made["secret"], "")
    assert rotated["old_secret_until"] is not None
    at_once = client.post(f"{path}/rotate", json={"overlap_s": 0}).json()
    assert at_once["old_secret_until"] is None
    pinged = client.post(f"{path}/ping")
    assert pinged.status_code == 202
    until(lambda: taker.messages)
    answers = [client.get(path), client.get(f"{path}/deliveries"), pinged, client.patch(path, json={})]
    answers += [client.get(f"{path}/deliveries/{pinged.json()['id']}"), client.get("/openapi.json")]
    for answer in answers:
        assert "5ec2e7" not in answer.text
        assert made["secret"] not in answer.text
        assert at_once["secret"] not in answer.text


def test_it_can_be_changed(client: TestClient, taker: Receiver) -> None:
    made = register(client, taker.url("/a?x=1"), events=["job.failed"])
    path = f"/v1/webhooks/{made['id']}"
    changed = client.patch(path, json={"events": ["job.done", "job.done"], "description": "b"}).json()
    assert (changed["events"], changed["description"], changed["url"]) == (["job.done"], "b", taker.url("/a"))
    client.post(f"{path}/ping")
    until(lambda: taker.messages)
    assert client.patch(path, json={"url": taker.url("/b")}).json()["url"] == taker.url("/b")
    client.post(f"{path}/ping")
    until(lambda: len(taker.messages) == 2)
    assert [message.path for message in taker.messages] == ["/a?x=1", "/b"]
    off = client.patch(path, json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_because"]) == (False, "requested")
    check_problem(client.post(f"{path}/ping"), 409, "webhook_disabled")
    check_problem(client.post(f"{path}/redeliver"), 409, "webhook_disabled")
    on = client.patch(path, json={"enabled": True}).json()
    assert (on["enabled"], on["disabled_because"]) == (True, None)
    assert client.delete(path).status_code == 204
    check_problem(client.get(path), 404, "webhook_not_found")


def test_dead_letters_are_listed_and_sent_again(tmp_path: Path, taker: Receiver) -> None:
    taker.answer = 500
    with service(tmp_path, **taker.allowing, webhook_retry_s=1e-6) as client:
        webhook = register(client, taker.url())
        path = f"/v1/webhooks/{webhook['id']}"
        sent = [client.post(f"{path}/ping").json()["id"] for _ in range(3)]
        until(lambda: len(deliveries(client, webhook, "?status=dead")) == 3)
        first = client.get(f"{path}/deliveries?limit=2").json()
        rest = client.get(f"{path}/deliveries?limit=2&cursor={first['next']}").json()
        assert [row["id"] for row in first["deliveries"] + rest["deliveries"]] == sent[::-1]
        assert rest["next"] is None
        assert first["deliveries"][0]["last_error"] == "The receiver answered with status 500."
        taker.answer = 200
        assert client.post(f"{path}/deliveries/{sent[0]}/redeliver").json() == {"deliveries": 1}
        until(lambda: len(deliveries(client, webhook, "?status=delivered")) == 1)
        assert client.post(f"{path}/redeliver").json() == {"deliveries": 2}
        until(lambda: len(deliveries(client, webhook, "?status=delivered")) == 3)
        assert sorted(taker.ids) == sorted(sent * 2)
        check_problem(client.post(f"{path}/deliveries/{MISSING}/redeliver"), 404, "delivery_not_found")
        check_problem(client.get(f"{path}/deliveries/%00"), 404, "delivery_not_found")


def test_metrics_count(client: TestClient, taker: Receiver) -> None:
    webhook = register(client, taker.url())
    client.post(f"/v1/webhooks/{webhook['id']}/ping")
    until(lambda: 'deliveries_total{outcome="delivered"} 1.0' in client.get("/metrics").text)
    text = client.get("/metrics").text
    assert "specsem_webhook_oldest_pending_age_seconds 0.0" in text
    assert webhook["id"] not in text


def test_as_it_ships_only_public_addresses_are_taken(tmp_path: Path) -> None:
    refused = [
        ("https://10.0.0.1/", 403, "url_refused"),
        ("https://169.254.169.254/latest/meta-data/", 403, "url_refused"),
        ("https://[::1]/", 403, "url_refused"),
        ("https://localhost/", 403, "url_refused"),
        ("http://93.184.215.14/", 403, "url_refused"),
        ("https://93.184.215.14:22/", 403, "url_refused"),
        ("ftp://example.org/", 422, "url_invalid"),
        ("https://user:secret@example.org/", 422, "url_invalid"),
        ("", 422, "url_invalid"),
    ]
    with service(tmp_path, job_slots=0) as client:
        made = register(client, "https://93.184.215.14/")
        for url, status, code in refused:
            refusal = client.post("/v1/webhooks", json={"url": url})
            check_problem(refusal, status, code)
            assert "secret" not in refusal.text
            check_problem(client.patch(f"/v1/webhooks/{made['id']}", json={"url": url}), status, code)


def test_what_is_not_valid_is_refused(client: TestClient) -> None:
    bodies: list[Any] = [
        {},
        {"url": 1},
        {"url": "https://93.184.215.14/", "events": ["job.exploded"]},
        {"url": "https://93.184.215.14/", "description": "a\u0000b"},
        {"url": "https://93.184.215.14/", "description": "x" * 201},
        {"url": "https://93.184.215.14/", "secret": "whsec_mine"},
        [],
    ]
    for body in bodies:
        check_problem(client.post("/v1/webhooks", json=body), 422, "invalid_request")
    assert client.get("/v1/webhooks").json() == {"webhooks": []}


def test_so_many_and_no_more(client: TestClient, taker: Receiver) -> None:
    for _ in range(3):
        register(client, taker.url())
    check_problem(client.post("/v1/webhooks", json={"url": taker.url()}), 409, "too_many_webhooks")


def test_a_tenant_s_webhooks_are_its_own(tmp_path: Path, taker: Receiver) -> None:
    with open_keys(Settings(data_dir=tmp_path)) as store:
        ours, theirs = (
            bearer(store.create(tenant=tenant, scopes=["score", "jobs", "webhooks"])[0])
            for tenant in ("ours", "theirs")
        )
    with ExitStack() as stack:
        client = stack.enter_context(service(tmp_path, **taker.allowing))
        made = client.post("/v1/webhooks", json={"url": taker.url("/ours")}, headers=ours).json()
        client.post("/v1/webhooks", json={"url": taker.url("/theirs")}, headers=theirs)
        path = f"/v1/webhooks/{made['id']}"
        event = client.post(f"{path}/ping", headers=ours).json()["id"]
        until(lambda: taker.messages)
        for method, where in (
            ("GET", path),
            ("PATCH", path),
            ("DELETE", path),
            ("POST", f"{path}/rotate"),
            ("POST", f"{path}/ping"),
            ("POST", f"{path}/redeliver"),
            ("GET", f"{path}/deliveries"),
            ("GET", f"{path}/deliveries/{event}"),
            ("POST", f"{path}/deliveries/{event}/redeliver"),
        ):
            body = {"json": {}} if method == "PATCH" or where.endswith("rotate") else {}
            check_problem(client.request(method, where, headers=theirs, **body), 404, "webhook_not_found")
            check_problem(client.request(method, where, headers={}, **body), 401, "unauthorized")
        assert [row["id"] for row in client.get("/v1/webhooks", headers=ours).json()["webhooks"]] == [
            made["id"]
        ]
        client.post("/v1/jobs", content=b"SCORE:0.3", headers=theirs)
        until(lambda: len(taker.messages) == 2)
        assert [message.path for message in taker.messages] == ["/ours", "/theirs"]


def test_feedback_is_told(client: TestClient, taker: Receiver) -> None:
    webhook = register(client, taker.url(), events=["feedback.created"])
    job = ended(client, client.post("/v1/jobs", content=b"SCORE:0.97"))["id"]
    said = {"verdict": "wrong", "label": "real", "note": "Filmed by me."}
    assert client.post(f"/v1/jobs/{job}/feedback", json=said).status_code == 200
    until(lambda: taker.messages)
    event = taker.messages[0].verified(webhook["secret"])
    document = client.get("/openapi.json").json()["components"]["schemas"]["FeedbackEventData"]
    assert set(event["data"]) == set(document["properties"])
    assert event["type"] == "feedback.created"
    assert (event["data"]["job"], event["data"]["opinion"]) == (job, "wrong")
    assert (event["data"]["verdict"], event["data"]["label"]) == ("generated", "real")
    assert "Filmed" not in str(event)


def test_messages_are_in_the_reference(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["webhooks"]) == {"job.done", "job.failed", "feedback.created"}
    assert {"JobEvent", "FeedbackEvent"} <= set(document["components"]["schemas"])
