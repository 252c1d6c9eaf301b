"""Webhooks on real processes that are killed with -9: what was committed is told, signed, under one id."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from receiver import Receiver, receiver
from serving import (
    DOUBLES,
    Server,
    documented_receiver,
    environment,
    free_port,
    serving,
    until,
    working,
)

SHORT: dict[str, Any] = {"webhook_timeout_s": 1, "job_lease_s": 2, "job_max_attempts": 100}


def allowing(taker: Receiver) -> dict[str, Any]:
    return {"webhook_http": True, "webhook_ports": taker.port, "webhook_internal": "127.0.0.1", **SHORT}


def register(server: Server, taker: Receiver) -> str:
    """Its secret."""
    answer = httpx.post(f"{server.url}/v1/webhooks", json={"url": taker.url(), "events": ["job.done"]})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def submit(server: Server, content: bytes) -> str:
    answer = httpx.post(f"{server.url}/v1/jobs", content=content, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def done(server: Server, job: str) -> bool:
    return bool(httpx.get(f"{server.url}/v1/jobs/{job}").json()["status"] == "done")


def test_what_was_committed_is_told_whoever_is_killed(tmp_path: Path) -> None:
    data_dir, may_answer = tmp_path / "data", threading.Event()

    def answer() -> int:  # nothing at first; then every third message gets an error
        return 500 if not may_answer.wait(60) or len(taker.messages) % 3 == 0 else 200

    with receiver(answer) as taker:
        settings = allowing(taker)
        with serving(DOUBLES, data_dir, webhook_slots=0, **settings) as server:
            server.wait_ready()
            secret = register(server, taker)
            jobs = [submit(server, f"SCORE:0.{number:02}".encode()) for number in range(3)]
            until(lambda: all(done(server, job) for job in jobs), 60)
            server.stop(signal.SIGKILL)  # committed, and nobody has sent it
        assert taker.messages == []
        with serving(DOUBLES, data_dir, job_slots=0, **settings) as server:
            until(lambda: taker.messages, 60)
            jobs += [submit(server, f"SLOW:0.2 SCORE:0.{number:02}".encode()) for number in range(3, 7)]
            server.stop(signal.SIGKILL)  # messages have arrived, and their sender never heard so
        before = set(taker.ids)
        may_answer.set()
        with working(data_dir, **settings) as worker:
            until(lambda: len(set(taker.ids)) >= 4, 60)
            worker.send_signal(signal.SIGKILL)  # in the middle of it
            worker.wait()
        with working(data_dir, **settings):
            until(lambda: len(set(taker.ids)) == len(jobs), 60)
        assert all(taker.ids.count(event_id) > 1 for event_id in before)
        told = {message.id: message.verified(secret)["data"]["job"] for message in taker.messages}
        assert Counter(told.values()) == Counter(jobs)  # one event each, under one id
        log = data_dir.with_suffix(".log").read_text()
        assert secret not in log
        assert "Traceback" not in log


# -- what the document says ---------------------------------------------------------------------------------


def test_the_document_s_receiver_takes_what_the_command_line_made(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "data", free_port()
    settings = allowing(Receiver(port))
    made = subprocess.run(
        [sys.executable, "-m", "specsem", "webhooks", "create", Receiver(port).url()],
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        check=True,
    )
    webhook, secret = made.stdout.split()
    with (
        documented_receiver(port, secret) as received,
        serving(DOUBLES, data_dir, **settings) as server,
    ):
        server.wait_ready()
        job = submit(server, b"SCORE:0.97")
        assert received.readline() == f"job.done {job} generated\n"
        assert received.readline() == f"decision.review {job} generated\n"
        forged = httpx.post(Receiver(port).url(), content=b"{}", headers={"webhook-id": "1"})
        assert forged.status_code == 401
        httpx.post(f"{server.url}/v1/webhooks/{webhook}/ping")
        assert received.readline() == "webhook.ping None None\n"
