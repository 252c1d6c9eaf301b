"""Redis streams, against a real server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import MISSING, redis_server

from app.connectors.forms import FORMS
from app.connectors.interface import ConnectorUnusable, Outcome, Unfit
from app.connectors.records import Places
from app.connectors.redis import RedisSink, RedisSource, connected
from specsem.records import Job
from tests.client.test_clients import DONE

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

SCORED = Job.model_validate(DONE)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Any]]:
    with redis_server() as running:
        yield running


@pytest.fixture
def server(running: tuple[str, Any]) -> Any:
    running[1].flushall()
    return running[1]


@pytest.fixture
def source(running: tuple[str, Any], server: Any) -> Iterator[RedisSource]:
    source = member(running[0])
    yield source
    source.close()


def member(url: str, claim_after_s: float = 60.0) -> RedisSource:
    return RedisSource(
        connected(url),
        "clips",
        group="specsem",
        dead_letters="clips.dead",
        places=Places(),
        claim_after_s=claim_after_s,
    )


def pending(server: Any) -> int:
    return int(server.xpending("clips", "specsem")["pending"])


def test_entries_are_taken_once_and_acknowledged_when_they_are_settled(
    source: RedisSource, server: Any, tmp_path: Path
) -> None:
    server.xadd("clips", {"url": "https://media.example.org/a.mp4", "about": '{"post": 7}', "name": "A"})
    server.xadd("clips", {"record": json.dumps({"url": "https://media.example.org/b.mp4"})})
    first, second = source.receive(10, wait_s=0.1)
    assert (first.name, first.about) == ("A", {"post": 7})
    assert second.fetch(tmp_path) == "https://media.example.org/b.mp4"
    assert source.receive(10, wait_s=0) == []
    assert pending(server) == 2
    for delivery in (first, second):
        source.done(Outcome(delivery, SCORED))
    assert pending(server) == 0


def test_no_more_are_taken_than_are_wanted(source: RedisSource, server: Any) -> None:
    for _ in range(5):
        server.xadd("clips", {"url": "https://media.example.org/a.mp4"})
    assert len(source.receive(2, wait_s=0)) == 2
    assert pending(server) == 2


def test_what_a_dead_member_held_is_taken_over_and_what_a_living_one_holds_is_not(
    running: tuple[str, Any], source: RedisSource, server: Any
) -> None:
    for name in "ab":
        server.xadd("clips", {"url": f"https://media.example.org/{name}.mp4"})
    left, held = source.receive(2, wait_s=0)
    # Both were taken long ago, says the server; only one is held.
    server.xclaim("clips", "specsem", "gone", 0, [left.handle[0], held.handle[0]], idle=120_000)
    source.hold([held])
    other = member(running[0])
    [taken] = other.receive(10, wait_s=0)
    assert taken.id == left.id
    other.done(Outcome(taken, SCORED))
    assert pending(server) == 1
    other.close()
    names = [each["name"] for each in server.xinfo_consumers("clips", "specsem")]
    assert len(names) == 2, "a member that leaves nothing behind is forgotten"


@pytest.mark.parametrize(
    "fields", [{"nonsense": "1"}, {"record": b"\xff"}, {"record": "{"}, {b"\xff": b"\xff"}, {"about": "{"}]
)
def test_poison_is_set_aside_as_it_came(
    source: RedisSource, server: Any, tmp_path: Path, fields: dict[Any, Any]
) -> None:
    entry = server.xadd("clips", fields)
    [delivery] = source.receive(10, wait_s=0)
    with pytest.raises(Unfit) as refused:
        delivery.fetch(tmp_path)
    source.set_aside(Outcome(delivery, None, refused.value))
    [(_, kept)] = server.xrange("clips.dead")
    assert kept[b"specsem-error-code"] == b"unfit"
    assert kept[b"specsem-origin"] == b"clips/" + entry
    given = {name if isinstance(name, bytes) else name.encode() for name in fields}
    assert given <= kept.keys()
    assert pending(server) == 0


def test_a_stream_that_was_removed_comes_again(source: RedisSource, server: Any) -> None:
    server.delete("clips")
    with pytest.raises(OSError, match="NOGROUP"):
        source.receive(10, wait_s=0)
    server.xadd("clips", {"url": "https://media.example.org/a.mp4"})
    assert len(source.receive(10, wait_s=0)) == 1


def test_outcomes_are_entries(running: tuple[str, Any], source: RedisSource, server: Any) -> None:
    server.xadd("clips", {"url": "https://media.example.org/a.mp4"})
    [delivery] = source.receive(1, wait_s=0)
    sink = RedisSink(connected(running[0]), "verdicts", FORMS["outcome"])
    sink.send(Outcome(delivery, SCORED))
    sink.close()
    [(_, fields)] = server.xrange("verdicts")
    assert fields[b"id"] == delivery.id.encode()
    assert json.loads(fields[b"record"])["answer"]["verdict"] == "generated"


def test_what_is_no_stream_or_no_server_is_refused(running: tuple[str, Any], server: Any) -> None:
    server.set("clips", "text")
    with pytest.raises(ConnectorUnusable, match="WRONGTYPE"):
        member(running[0])
    for url in ("unix:///nowhere/socket", "redis://127.0.0.1:1", "nonsense://"):
        with pytest.raises(ConnectorUnusable):
            connected(url)
