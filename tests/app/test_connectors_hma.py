"""Hashes to HMA in the form that it publishes, and only of what a person decided."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from app.connectors.hma import Hma, Match, bank_decided, vpdq_signal
from app.connectors.interface import ConnectorUnusable
from specsem.client import Client
from tests.client.test_clients import DONE, JOB

HASHES = ["a" * 64, "0f" * 32]


def read_as_threatexchange(signal: str) -> list[tuple[str, int, float]]:
    """As ``threatexchange.extensions.vpdq.vpdq_util.json_to_vpdq`` (1.2.17) checks and reads a signal."""
    features = []
    for serialized in json.loads(signal):
        pdq_hex, quality, seconds = serialized.split(",")
        assert re.fullmatch(r"[0-9a-f]{64}", pdq_hex)
        features.append((pdq_hex, int(quality), float(seconds)))
        assert 0 <= features[-1][1] <= 100
        assert features[-1][2] >= 0
    return features


class Bank:
    """HMA's two routes, with what was put there."""

    def __init__(self) -> None:
        self.content: list[tuple[str, list[tuple[str, int, float]]]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and (found := re.fullmatch(r"/c/bank/(\w+)/signal", request.url.path)):
            if found[1] != "GENERATED":
                return httpx.Response(404, json={"message": f"bank '{found[1]}' not found"})
            given = json.loads(request.content)
            self.content.append((found[1], read_as_threatexchange(given["vpdq"])))
            return httpx.Response(200, json={"id": len(self.content), "signals": given})
        assert (request.method, request.url.path) == ("GET", "/m/lookup")
        asked = parse_qs(request.url.query.decode())
        assert asked["signal_type"] == ["vpdq"]
        wanted = {each[0] for each in read_as_threatexchange(asked["signal"][0])}
        found_in: dict[str, list[dict[str, Any]]] = {}
        for number, (bank, features) in enumerate(self.content, 1):
            if wanted & {each[0] for each in features}:
                found_in.setdefault(bank, []).append({"bank_content_id": number, "distance": "100%[100%]"})
        return httpx.Response(200, json=found_in)


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def hma(bank: Bank) -> Hma:
    return Hma("http://hma", transport=httpx.MockTransport(bank.answer))


def decision(label: str | None) -> dict[str, Any]:
    said = {
        "verdict": None,
        "label": label,
        "note": "",
        "source": "review",
        "created_at": "2026-11-24T15:32:16Z",
    }
    return {"right": 0, "wrong": 0, "unsure": 0, "mine": None, "decision": said if label else None}


def service(labels: dict[str, str | None]) -> Client:
    """Jobs by their ids, each with what an operator called it."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/jobs":
            return httpx.Response(200, json={"jobs": [JOB | {"id": each} for each in labels], "next": None})
        job = path.split("/")[3]
        if path.endswith("/similar"):
            alike = {"hashes": HASHES, "jobs": [], "compared": 0, "complete": True}
            return httpx.Response(200, json=alike)
        return httpx.Response(200, json=DONE | {"id": job, "feedback": decision(labels[job])})

    return Client(transport=httpx.MockTransport(answer), retries=0)


def test_a_signal_is_one_that_threatexchange_reads() -> None:
    assert read_as_threatexchange(vpdq_signal(HASHES)) == [(HASHES[0], 50, 0.0), (HASHES[1], 50, 1.0)]


def test_what_a_person_called_generated_is_banked_once(bank: Bank, hma: Hma, tmp_path: Path) -> None:
    client, ledger = service({"one": "generated", "two": "real", "three": None}), tmp_path / "ledger.jsonl"
    banked = list(bank_decided(hma, client, {"generated": "GENERATED"}, ledger))
    assert [(each.job, each.bank, each.content) for each in banked] == [("one", "GENERATED", 1)]
    assert [each[0] for each in bank.content[0][1]] == HASHES
    assert list(bank_decided(hma, client, {"generated": "GENERATED"}, ledger)) == []
    assert len(bank.content) == 1


def test_what_looks_alike_is_found_there(hma: Hma) -> None:
    assert hma.look_up(HASHES) == {}
    hma.add("GENERATED", HASHES)
    assert hma.look_up(HASHES[:1]) == {"GENERATED": [Match(bank_content_id=1, distance="100%[100%]")]}


def test_a_bank_that_is_not_there_is_said_to_be_so(hma: Hma, tmp_path: Path) -> None:
    with pytest.raises(ConnectorUnusable, match="bank 'OTHER' not found"):
        list(bank_decided(hma, service({"one": "real"}), {"real": "OTHER"}, tmp_path / "ledger.jsonl"))
    assert not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(200, json=["GENERATED"]),
        lambda _: httpx.Response(200, text="<html>"),
        lambda _: httpx.Response(500, text="<html>"),
    ],
)
def test_an_answer_that_is_none_is_an_error(answer: Callable[[httpx.Request], httpx.Response]) -> None:
    with pytest.raises(ConnectorUnusable):
        Hma("http://hma", transport=httpx.MockTransport(answer)).look_up(HASHES)


def test_a_ledger_that_can_t_be_read_stops_it_before_anything_is_sent(
    bank: Bank, hma: Hma, tmp_path: Path
) -> None:
    (tmp_path / "ledger.jsonl").write_text("nonsense\n")
    with pytest.raises(ConnectorUnusable, match="ledger"):
        list(
            bank_decided(
                hma, service({"one": "generated"}), {"generated": "GENERATED"}, tmp_path / "ledger.jsonl"
            )
        )
    assert bank.content == []
