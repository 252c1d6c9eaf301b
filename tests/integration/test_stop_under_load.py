"""SIGTERM while clients go on sending: each is answered or told, and no job is lost or done twice."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from killing import AUDIT
from serving import DOUBLES, Server, serving, until, working
from sqlalchemy import text

from app.jobs.database import open_database

# Each request has a connection of its own: an idle one may be closed at any time, at a stop or not.
CLIENT = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


class Clients:
    """Send scores and jobs until the server is gone, and write down what came back."""

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.answers: Counter[tuple[str, int, str]] = Counter()
        self.cut_off = 0
        self.jobs: set[str] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(number)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for thread in self._threads:
            thread.join()

    def told(self) -> set[tuple[str, int, str]]:
        """What was asked for, the status and the code of each kind of answer so far."""
        with self._lock:
            return set(self.answers)

    def _send(self, client: int) -> None:
        kind = ("score", "jobs")[client % 2]
        number = 0
        while True:
            number += 1
            content = f"SLOW:0.2 SCORE:0.5 number {number} of client {client}".encode()
            try:
                answer = CLIENT.post(f"{self.server.url}/v1/{kind}", content=content)
            except httpx.ConnectError:
                return
            except httpx.HTTPError:
                with self._lock:
                    self.cut_off += 1
                return
            with self._lock:
                self.answers[kind, answer.status_code, answer.json().get("code", "")] += 1
                if answer.status_code == 202:
                    self.jobs.add(answer.json()["id"])
            if answer.status_code == 503:
                time.sleep(0.2)  # less than Retry-After says


def test_nothing_is_lost_when_a_loaded_service_is_told_to_stop(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    database = open_database(None, data_dir)
    with database.begin() as connection:
        for statement in AUDIT["sqlite"]:
            connection.execute(text(statement))
    with serving(DOUBLES, data_dir, decode_workers=4, job_slots=2, shutdown_grace_s=20) as server:
        server.wait_ready()
        told = threading.Event()

        def body() -> Iterator[bytes]:
            yield b"SCORE:0.7 and the rest"
            told.wait(30)
            yield b" comes when everybody knows that the service stops"

        with ThreadPoolExecutor(1) as threads:
            arriving = threads.submit(CLIENT.post, f"{server.url}/v1/score", content=body())
            until(server.uploads)
            with Clients(server, 6) as clients:
                until(lambda: clients.answers["score", 200, ""] > 3 and len(clients.jobs) > 3, 60)
                server.process.terminate()
                until(lambda: CLIENT.get(f"{server.url}/readyz").status_code == 503)
                assert CLIENT.get(f"{server.url}/healthz").status_code == 200
                until(lambda: clients.told() >= {("score", 503, "not_ready"), ("jobs", 503, "not_ready")})
                told.set()
                assert arriving.result().status_code == 200  # it was in flight, and had its time
                assert server.process.wait(30) == -signal.SIGTERM
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
    assert clients.cut_off == 0
    assert clients.told() == {
        ("score", 200, ""),
        ("jobs", 202, ""),
        ("score", 503, "not_ready"),
        ("jobs", 503, "not_ready"),
    }
    with database.connect() as connection:
        held = connection.execute(text("SELECT count(*) FROM jobs WHERE lease IS NOT NULL")).scalar_one()
        assert held == 0  # the next one needn't wait for a lease to run out
    with serving(DOUBLES, data_dir, decode_workers=4, job_slots=4) as server:
        until(lambda: len(ended(server)) >= len(clients.jobs), 60)
        assert set(ended(server)) == clients.jobs
    with database.connect() as connection:
        audit = Counter(connection.execute(text("SELECT id FROM audit")).scalars())
    assert audit == Counter(clients.jobs)
    database.dispose()


def ended(server: Server) -> list[str]:
    """Ids of all jobs that are done."""
    found: list[str] = []
    cursor = ""
    while True:
        query = {"status": "done", "limit": 100} | ({"cursor": cursor} if cursor else {})
        page = CLIENT.get(f"{server.url}/v1/jobs", params=query).json()
        found += [job["id"] for job in page["jobs"]]
        if (cursor := page["next"]) is None:
            return found


def test_asked_twice_it_leaves_at_once_and_hands_its_jobs_back(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(DOUBLES, data_dir, shutdown_grace_s=600) as server:
        server.wait_ready()
        location = CLIENT.post(f"{server.url}/v1/jobs", content=b"SLOW:500").headers["Location"]
        told: list[httpx.Response] = []
        scoring = threading.Thread(
            target=lambda: told.append(CLIENT.post(f"{server.url}/v1/score", content=b"SLOW:500"))
        )
        scoring.start()
        until(lambda: CLIENT.get(f"{server.url}{location}").json()["status"] == "running")
        until(lambda: len(server.uploads()) == 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: CLIENT.get(f"{server.url}/readyz").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        scoring.join()
        assert (told[0].status_code, told[0].json()["code"]) == (503, "not_ready")
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
    with serving(DOUBLES, data_dir, job_slots=0) as server:
        assert CLIENT.get(f"{server.url}{location}").json()["status"] == "queued"
        with working(data_dir, shutdown_grace_s=600) as worker:
            until(lambda: CLIENT.get(f"{server.url}{location}").json()["status"] == "running")
            worker.send_signal(signal.SIGINT)
            time.sleep(0.5)  # two signals at the same moment are one
            worker.send_signal(signal.SIGINT)
            assert worker.wait(30) == 0
        assert CLIENT.get(f"{server.url}{location}").json()["status"] == "queued"
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
