"""Webhooks on real processes that are killed with -9: what was committed is told, signed, under one id."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from receiver import Receiver, receiver
from serving import DOUBLES, ROOT, Server, environment, serving, until, working

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


def test_a_kill_between_commit_and_send_and_one_while_sending(tmp_path: Path) -> None:
    answers = threading.Event()

    def stuck() -> int:
        return 200 if answers.wait(30) else 500

    with receiver(stuck) as taker:
        with serving(DOUBLES, tmp_path / "data", webhook_slots=0, **allowing(taker)) as server:
            server.wait_ready()
            secret = register(server, taker)
            job = submit(server, b"SCORE:0.97")
            where = f"{server.url}/v1/jobs/{job}"
            until(lambda: httpx.get(where).json()["status"] == "done", 30)
            server.stop(signal.SIGKILL)  # committed, and nobody has sent it
        assert taker.messages == []
        with serving(DOUBLES, tmp_path / "data", **allowing(taker)) as server:
            until(lambda: taker.messages, 30)
            server.stop(signal.SIGKILL)  # it has arrived, and the sender never heard so
        answers.set()
        with serving(DOUBLES, tmp_path / "data", **allowing(taker)) as server:
            until(lambda: len(taker.messages) >= 2, 30)
            log = server.log.read_text()
        assert len(set(taker.ids)) == 1
        assert all(message.verified(secret)["data"]["job"] == job for message in taker.messages)
        assert secret not in log
        assert "Traceback" not in log


def test_every_job_is_told_though_its_processes_are_killed(tmp_path: Path) -> None:
    """The receiver itself is no better: every third message it answers with an error."""
    count = iter(range(10**6))
    with receiver(lambda: 500 if next(count) % 3 == 0 else 200) as taker:
        settings = {**allowing(taker), "job_slots": 0}
        with serving(DOUBLES, tmp_path / "data", **settings) as server:
            secret = register(server, taker)
            jobs = [submit(server, f"SLOW:0.2 SCORE:0.{number:02}".encode()) for number in range(6)]
            for after in (2, 4):
                with working(tmp_path / "data", **settings) as worker:
                    until(lambda after=after: len(set(taker.ids)) >= after, 60)  # type: ignore[misc]
                    worker.send_signal(signal.SIGKILL)
                    worker.wait()
            with working(tmp_path / "data", **settings):
                until(lambda: len(set(taker.ids)) == len(jobs), 60)
        told: dict[str, str] = {}
        for message in taker.messages:
            told[message.id] = message.verified(secret)["data"]["job"]
        assert Counter(told.values()) == Counter(jobs)  # one event each, under one id


# -- what the document says ---------------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")


def test_the_document_s_receiver_takes_what_the_command_line_made(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.M | re.S)
    data_dir = tmp_path / "data"
    with receiver() as free:  # its port is free again in a moment
        port = free.port
    settings = allowing(Receiver(port))
    made = subprocess.run(
        [sys.executable, "-m", "specsem", "webhooks", "create", Receiver(port).url()],
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        check=True,
    )
    webhook, secret = made.stdout.split()
    taking = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert taking.stdout is not None
    try:
        with serving(DOUBLES, data_dir, **settings) as server:
            server.wait_ready()
            job = submit(server, b"SCORE:0.97")
            assert taking.stdout.readline() == f"job.done {job} generated\n"
            forged = httpx.post(Receiver(port).url(), content=b"{}", headers={"webhook-id": "1"})
            assert forged.status_code == 401
            httpx.post(f"{server.url}/v1/webhooks/{webhook}/ping")
            assert taking.stdout.readline() == "webhook.ping None None\n"
    finally:
        taking.terminate()
        taking.communicate()
