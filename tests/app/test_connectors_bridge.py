"""The bridge between a source and a service that is scripted: at least once, bounded, poison set aside."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.connectors import bridge as module
from app.connectors.bridge import Bridge
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Unfit
from specsem.client import Client
from tests.client.test_clients import DONE, FAILED, refusal


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)


class Source:
    """Gives what it has, and keeps what became of it."""

    def __init__(self, *names: str, fetch: Callable[[Path], Path | str] | None = None) -> None:
        self.waiting = [Delivery(f"id {name}", name, fetch or written(name)) for name in names]
        self.asked: list[int] = []
        self.log: list[str] = []
        self.failures: list[Exception] = []

    def receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:  # noqa: ARG002
        self.asked.append(most)
        if self.failures:
            raise self.failures.pop()
        given, self.waiting = self.waiting[:most], self.waiting[most:]
        return given

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        self.log += [f"hold {delivery.name}" for delivery in deliveries]

    def done(self, outcome: Outcome) -> None:
        self.log.append(f"done {outcome.delivery.name}")

    def set_aside(self, outcome: Outcome) -> None:
        assert outcome.error is not None
        self.log.append(f"aside {outcome.delivery.name} {outcome.error.code}")

    def send(self, outcome: Outcome) -> None:
        """It is its own sink."""
        if self.failures:
            raise self.failures.pop()
        self.log.append(f"sent {outcome.delivery.name}")

    def close(self) -> None:
        pass


def written(name: str) -> Callable[[Path], Path]:
    def fetch(folder: Path) -> Path:
        (folder / name).write_bytes(name.encode())
        return folder / name

    return fetch


def client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client(transport=httpx.MockTransport(answer), retries=0)


def done(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=DONE)


def test_a_verdict_is_sent_before_its_delivery_is_settled() -> None:
    source, keys = Source("a", "b"), []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append((request.headers["idempotency-key"], request.content))
        return done(request)

    bridge = Bridge(source, source, client(answer), in_flight=1)
    bridge.run(until_idle=True)
    assert source.log == ["sent a", "done a", "sent b", "done b"]
    assert keys == [("id a", b"a"), ("id b", b"b")]
    assert bridge.settled == 2


def test_no_more_are_taken_than_are_under_way() -> None:
    source, gate, most, lock = Source(*"abcdef"), threading.Event(), [0, 0], threading.Lock()

    def answer(request: httpx.Request) -> httpx.Response:
        with lock:
            most[0] += 1
            most[1] = max(most)
            if most[0] == 2:
                gate.set()
        gate.wait(10)
        with lock:
            most[0] -= 1
        return done(request)

    Bridge(source, None, client(answer), in_flight=2).run(until_idle=True)
    assert most[1] == 2
    assert max(source.asked) == 2
    assert len(source.log) == 6


@pytest.mark.parametrize(
    ("answer", "code"),
    [(refusal(422, "not_a_video"), "not_a_video"), (httpx.Response(202, json=FAILED), "undecodable")],
)
def test_what_can_t_be_scored_is_set_aside_with_its_reason(answer: httpx.Response, code: str) -> None:
    source = Source("poison")
    Bridge(source, source, client(lambda _: answer)).run(until_idle=True)
    assert source.log == ["sent poison", f"aside poison {code}"]


def test_a_message_that_can_t_be_read_is_set_aside() -> None:
    def fetch(_folder: Path) -> Path:
        raise Unfit("The message is none.")

    source = Source("poison", fetch=fetch)
    Bridge(source, None, client(done)).run(until_idle=True)
    assert source.log == ["aside poison unfit"]


def test_an_address_is_left_to_the_service() -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        return done(request)

    source = Source("a", fetch=lambda _folder: "https://media.example.org/a.mp4")
    Bridge(source, None, client(answer)).run(until_idle=True)
    assert b"https://media.example.org/a.mp4" in asked[0]
    assert source.log == ["done a"]


def test_a_service_a_source_and_a_sink_that_are_away_are_waited_for() -> None:
    answers: list[Any] = [httpx.ConnectError("away"), refusal(503, "busy"), httpx.Response(200, json=DONE)]

    def answer(_request: httpx.Request) -> httpx.Response:
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        assert isinstance(given, httpx.Response)
        return given

    source = Source("a")
    source.failures = [OSError(5, "away")]
    bridge = Bridge(source, source, client(answer), pauses_s=(0.01,))
    bridge.run(until_idle=True)
    assert source.log == ["sent a", "done a"]
    assert answers == []


def test_a_connector_that_is_refused_ends_and_settles_nothing() -> None:
    source = Source("a", "b")
    with pytest.raises(ConnectorUnusable, match="It is so"):
        Bridge(source, None, client(lambda _: refusal(401, "unauthorized"))).run(until_idle=True)
    assert source.log == []


def test_a_stop_leaves_what_is_under_way() -> None:
    source = Source("a")
    bridge: Bridge

    def answer(_request: httpx.Request) -> httpx.Response:
        bridge.stop()
        return httpx.Response(200, json=DONE | {"status": "running", "result": None})

    bridge = Bridge(source, None, client(answer))
    bridge.run()
    assert source.log == []


def test_what_is_under_way_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    source, looks = Source("a"), []

    def answer(request: httpx.Request) -> httpx.Response:
        looks.append(request.method)
        running = DONE | {"status": "running", "result": None}
        return httpx.Response(200, json=running if len(looks) < 20 else DONE)

    Bridge(source, None, client(answer)).run(until_idle=True)
    assert "hold a" in source.log
    assert source.log[-1] == "done a"
