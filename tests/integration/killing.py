"""Jobs on real processes while those are killed with -9 at random; what came of it is read from the database.

An audit that the service knows nothing of, a trigger, writes down each time that a job ends. What the
service's own trail says must be the same.
"""

import hashlib
import json
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from postgres import Cluster
from serving import DOUBLES, Server, serving, working
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app.audit import Trail, check
from app.jobs.database import is_sqlite, open_database

__all__ = ["Outcome", "run_under_fire"]

AUDIT = {
    "sqlite": (
        "CREATE TABLE audit (id TEXT, status TEXT)",
        "CREATE TRIGGER ended AFTER UPDATE OF status ON jobs "
        "WHEN NEW.status IN ('done', 'failed', 'expired') "
        "BEGIN INSERT INTO audit VALUES (NEW.id, NEW.status); END",
    ),
    "postgresql": (
        "CREATE TABLE audit (id TEXT, status TEXT)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO audit VALUES (NEW.id, NEW.status); RETURN NULL; END $$",
        "CREATE TRIGGER ended AFTER UPDATE OF status ON jobs FOR EACH ROW "
        "WHEN (NEW.status IN ('done', 'failed', 'expired')) EXECUTE FUNCTION note()",
    ),
}


@dataclass
class Outcome:
    """What came of it."""

    jobs: int
    rows: int = 0
    done: int = 0
    wrong: list[str] = field(default_factory=list)
    ended_more_than_once: list[str] = field(default_factory=list)
    told_otherwise: list[str] = field(default_factory=list)
    """Jobs of which the trail doesn't tell one submission and one end."""
    attempts: dict[int, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    submissions_sent_again: int = 0
    """Because the server went without an answer."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Status and code of submissions that were refused."""
    media_left: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Every job is done, with its own answer, exactly once, and there is no other."""
        exactly_once = self.rows == self.done == self.jobs and not self.ended_more_than_once
        told = not self.told_otherwise
        return exactly_once and told and not self.wrong and self.refusals.keys() <= {"503 not_ready"}


class _Target:
    """A process that comes back whenever it is killed."""

    def __init__(self, name: str, start: Callable[[], AbstractContextManager[Any]]) -> None:
        self.name = name
        self.start = start
        self.coming = ThreadPoolExecutor(1)
        self.ready = threading.Event()
        self.running: Any = None
        self.come()

    def come(self) -> None:
        """Start it, meanwhile."""

        def start() -> None:
            while True:
                self.context = self.start()
                try:
                    self.running = self.context.__enter__()
                except AssertionError:  # it ended again: the database is away, say
                    time.sleep(0.2)
                else:
                    break
            self.ready.set()

        self.coming.submit(start)

    def kill(self) -> None:
        """Kill it and have it come back."""
        self.ready.clear()
        process = self.running.process if isinstance(self.running, Server) else self.running
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.context.__exit__(None, None, None)
        self.come()

    def close(self) -> None:
        self.coming.shutdown(wait=True)
        self.context.__exit__(None, None, None)


class _Database:
    """PostgreSQL itself, which crashes and comes back a little later."""

    name = "database"
    DOWN_S = 3.0

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.coming = ThreadPoolExecutor(1)
        self.ready = threading.Event()
        self.ready.set()

    def kill(self) -> None:
        """Crash it and have it come back."""

        def start() -> None:
            time.sleep(self.DOWN_S)
            while True:
                try:
                    self.cluster.start()
                except subprocess.CalledProcessError:  # a child of the last one lingers
                    time.sleep(0.2)
                else:
                    break
            self.ready.set()

        self.ready.clear()
        self.cluster.crash()
        self.coming.submit(start)

    def close(self) -> None:
        self.coming.shutdown(wait=True)


def run_under_fire(  # noqa: PLR0915 - one story from start to end
    data_dir: Path,
    *,
    jobs: int,
    workers: int,
    seed: int,
    pause_s: tuple[float, float],
    job_s: float = 0.2,
    most_kills: int | None = None,
    backlog: int = 15,
    database_url: str | None = None,
    cluster: Cluster | None = None,
    timeout_s: float = 240.0,
) -> Outcome:
    """Submit jobs while server and workers are killed at random, until all have ended.

    With ``cluster``, its PostgreSQL is one more that is killed.
    """
    settings: dict[str, object] = {"job_lease_s": 2, "job_max_attempts": 100, "access_log": False}
    if cluster is not None:
        database_url = cluster.url
    if database_url is not None:
        settings["database_url"] = database_url
    begun = time.monotonic()
    outcome = Outcome(jobs=jobs)
    data_dir.mkdir(parents=True)
    database = open_database(database_url, data_dir)
    with database.begin() as connection:
        for statement in AUDIT[database.dialect.name]:
            connection.execute(text(statement))
    server = _Target("server", lambda: serving(DOUBLES, data_dir, **settings))
    targets: list[_Target | _Database] = [server]
    targets += [_Target("worker", lambda: working(data_dir, **settings)) for _ in range(workers)]
    if cluster is not None:
        targets.append(_Database(cluster))
    over = threading.Event()
    kills: Counter[str] = Counter()

    def fire() -> None:
        dice = random.Random(seed)
        while kills.total() != most_kills and not over.wait(dice.uniform(*pause_s)):
            if ready := [target for target in targets if target.ready.is_set()]:
                target = dice.choice(ready)
                target.kill()
                kills[target.name] += 1

    client = httpx.Client(timeout=10)  # one for all: each would load the certificates of the world anew

    def submit(number: int) -> str:
        # The key makes it safe to ask again when the answer is lost together with the server.
        headers = {"Idempotency-Key": f"job {number}", "Content-Type": "video/mp4"}
        while _count(database, "jobs WHERE status IN ('queued', 'running')") > backlog:
            time.sleep(0.1)  # submitted throughout, so that the server dies in the middle of it too
        while True:
            server.ready.wait(timeout_s)
            try:
                url = f"{server.running.url}/v1/jobs?filename={number}.mp4"
                answer = client.post(url, content=_content(number, job_s), headers=headers, timeout=10)
                if answer.status_code == 202:
                    return str(answer.json()["id"])
                outcome.refusals[f"{answer.status_code} {answer.json()['code']}"] += 1
                time.sleep(0.2)
            except httpx.HTTPError:
                outcome.submissions_sent_again += 1
                assert time.monotonic() - begun < timeout_s, "no server took it"
                time.sleep(0.05)

    firing = threading.Thread(target=fire)
    firing.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            ids = dict(enumerate(threads.map(submit, range(jobs))))
        while _count(database, "jobs WHERE status NOT IN ('queued', 'running')") < jobs:
            assert time.monotonic() - begun < timeout_s, "they never end"
            time.sleep(0.1)
    finally:
        over.set()
        firing.join()
        for target in targets:
            target.close()
        client.close()
    outcome.seconds = round(time.monotonic() - begun, 1)
    outcome.kills = dict(kills)
    _judge(outcome, database, ids, job_s)
    outcome.media_left = len(list((data_dir / "jobs").iterdir()))
    database.dispose()
    return outcome


def _content(number: int, job_s: float) -> bytes:
    return f"SLOW:{job_s} SCORE:0.{number:04} of job {number}".encode()


def _count(database: Engine, of: str) -> int:
    while True:
        try:
            with database.connect() as connection:
                return int(connection.execute(text(f"SELECT count(*) FROM {of}")).scalar_one())  # noqa: S608
        except OperationalError:  # down, for the moment
            time.sleep(0.2)


def _judge(outcome: Outcome, database: Engine, ids: dict[int, str], job_s: float) -> None:
    assert is_sqlite(database) or database.dialect.name == "postgresql"
    with database.connect() as connection:
        found = connection.execute(text("SELECT id, status, sha256, filename, result, attempts FROM jobs"))
        rows = {row.id: row for row in found}
        endings = Counter(connection.execute(text("SELECT id FROM audit")).scalars())
    outcome.rows = len(rows)
    outcome.done = sum(row.status == "done" for row in rows.values())
    outcome.attempts = dict(sorted(Counter(row.attempts for row in rows.values()).items()))
    outcome.ended_more_than_once = [job_id for job_id in rows if endings[job_id] != 1]
    links = list(Trail(database).links())
    check(links)
    told = Counter((entry["job"], entry["event"]) for entry in (json.loads(link.entry) for link in links))
    once = ("job_submitted", "job_scored")
    outcome.told_otherwise = [job_id for job_id in rows if any(told[job_id, event] != 1 for event in once)]
    for number, job_id in ids.items():
        row = rows.get(job_id)
        sha256 = hashlib.sha256(_content(number, job_s)).hexdigest()
        score = f'"score":{float(f"0.{number:04}")}'
        if row is None or (row.sha256, row.filename) != (sha256, f"{number}.mp4") or score not in row.result:
            outcome.wrong.append(job_id)
