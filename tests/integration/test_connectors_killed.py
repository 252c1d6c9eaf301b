"""Connectors as real processes on streams, killed with -9 in the middle: nothing is lost, poison is kept."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka_cluster import kafka_cluster
from redis_server import MISSING, redis_server
from serving import DOUBLES, Server, environment, serving, until

CLIPS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(DOUBLES, tmp_path_factory.mktemp("connectors") / "data") as running:
        yield running


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """Files that take their time, each with a score of its own, and others for each test."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number in range(CLIPS):
        (folder / f"{number}.mp4").write_bytes(f"SLOW:0.2 SCORE:0.9{number} {tmp_path}".encode())
    (folder / "broken.mp4").write_bytes(b"BAD:undecodable")
    return folder


@contextmanager
def connecting(server: Server, log: Path, *args: str, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`specsem connect` at work; ended at the end, as an operator does."""
    command = [sys.executable, "-m", "specsem", "connect", *args, "--service", server.url, "--in-flight", "3"]
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            command, env=environment(server.data_dir) | more, stdout=stderr, stderr=stderr
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def kill_in_the_middle(process: "subprocess.Popen[bytes]", log: Path) -> None:
    until(lambda: re.search(rb"scored as job", log.read_bytes()), 40)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)


def scores(outcomes: list[dict[str, Any]]) -> set[float]:
    return {outcome["answer"]["score"] for outcome in outcomes if outcome["error"] is None}


def run_under_fire(
    server: Server, log: Path, outcomes: Callable[[], list[dict[str, Any]]], *args: str, **more: str
) -> None:
    """Kill a connector when it has begun, start it anew, and wait until all that there is was told."""
    with connecting(server, log, *args, **more) as process:
        kill_in_the_middle(process, log)
    assert len(scores(outcomes())) < CLIPS, "it was killed in the middle"
    with connecting(server, log, *args, **more):
        until(lambda: len({each["id"] for each in outcomes()}) == CLIPS + 2, 60)
    told = outcomes()
    made = {(each["id"], each["job"]) for each in told}
    assert len(made) == len({each["id"] for each in told}) == CLIPS + 2, (
        "one job for each, however often told"
    )
    assert len(scores(told)) == CLIPS
    codes = {each["error"]["code"] for each in told if each["error"]}
    assert codes == {"undecodable", "unfit"}


def test_kafka(server: Server, tmp_path: Path, incoming: Path) -> None:
    config = tmp_path / "kafka.properties"
    config.write_text("session.timeout.ms = 6000\n")  # of the member that is killed
    with kafka_cluster() as cluster, cluster.following("verdicts") as verdicts:
        cluster.put("clips", b"poison", {"path": "broken.mp4"})
        cluster.put("clips", *({"path": f"{number}.mp4"} for number in range(CLIPS)))
        args = ["kafka", "clips", "--brokers", cluster.brokers, "--config", str(config)]
        args += ["--root", str(incoming), "--to", "verdicts"]

        def outcomes() -> list[dict[str, Any]]:
            return [json.loads(message.value()) for message in verdicts()]

        run_under_fire(server, tmp_path / "connect.log", outcomes, *args)
        dead = {message.value() for message in cluster.read("clips.dead-letters", 2)}
        assert dead == {b"poison", b'{"path": "broken.mp4"}'}
        until(lambda: cluster.committed("clips", "specsem") == CLIPS + 2)


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_redis(server: Server, tmp_path: Path, incoming: Path) -> None:
    with redis_server() as (url, redis):
        for fields in (
            {"nonsense": "1"},
            {"path": "broken.mp4"},
            *({"path": f"{number}.mp4"} for number in range(CLIPS)),
        ):
            redis.xadd("clips", fields)
        args = ["redis", "clips", "--root", str(incoming), "--to", "verdicts", "--claim-after", "6"]

        def outcomes() -> list[dict[str, Any]]:
            return [json.loads(fields[b"record"]) for _, fields in redis.xrange("verdicts")]

        run_under_fire(server, tmp_path / "connect.log", outcomes, *args, SPECSEM_REDIS=url)
        until(lambda: redis.xpending("clips", "specsem")["pending"] == 0)
        assert {fields.get(b"path") for _, fields in redis.xrange("clips.dead-letters")} == {
            None,
            b"broken.mp4",
        }
