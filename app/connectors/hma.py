"""Hashes of videos on which an operator decided, to Hasher-Matcher-Actioner, and what it knows of others.

HMA (github.com/facebook/ThreatExchange) keeps hashes in banks and shares them in exchanges. A video's is a
vPDQ signal: a JSON list of ``HASH,QUALITY,SECONDS``, one a frame. What goes there is hashes and nothing else,
and only of videos that a person called what the bank is for. What is found there is shown; nothing follows
from it here. Needs the extra ``client``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.connectors.interface import ConnectorUnusable
from app.connectors.running import client_of
from specsem.client import Client
from specsem.fingerprint import LEAST_QUALITY
from specsem.records import Label

__all__ = ["Banked", "Hma", "Match", "bank_decided", "look_up", "push", "vpdq_signal"]

SIGNAL_TYPE = "vpdq"
TIMEOUT_S = 30.0


class Match(BaseModel):
    """Content of a bank that looks alike."""

    bank_content_id: int
    distance: str
    """As HMA has it: the share of our frames that match, and in brackets that of its own."""


class Banked(BaseModel):
    """A line of the ledger: what was put into a bank."""

    job: str
    bank: str
    content: int
    """Its number in HMA, by which it can be removed there."""


class _Added(BaseModel):
    id: int


_MATCHES = TypeAdapter(dict[str, list[Match]])


def vpdq_signal(hashes: Sequence[str]) -> str:
    """PDQ hashes of a video's frames, in hexadecimal, as the signal that HMA takes.

    The service keeps no more than the hashes. Their quality is at least ``LEAST_QUALITY``, which is what is
    said of each, and enough for vPDQ to use it; the seconds, which matching leaves alone, are places in the
    list.
    """
    return json.dumps([f"{each},{LEAST_QUALITY},{float(at)}" for at, each in enumerate(hashes)])


class Hma:
    """A service of HMA."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        """``url`` is its root; ``transport`` is for tests."""
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def add(self, bank: str, hashes: Sequence[str]) -> int:
        """Put a video's hashes into a bank. Its number there.

        Raises:
            ConnectorUnusable: HMA is away, or refuses: there is no such bank, vPDQ isn't enabled.
        """
        path = f"/c/bank/{quote(bank, safe='')}/signal"
        answer = self._asked("POST", path, json={SIGNAL_TYPE: vpdq_signal(hashes)})
        try:
            return _Added.model_validate(answer).id
        except ValidationError as error:
            raise ConnectorUnusable("HMA's answer can't be read.") from error

    def look_up(self, hashes: Sequence[str]) -> Mapping[str, list[Match]]:
        """What looks like it, by bank. Raises as ``add``."""
        params = {"signal_type": SIGNAL_TYPE, "signal": vpdq_signal(hashes)}
        try:
            return _MATCHES.validate_python(self._asked("GET", "/m/lookup", params=params))
        except ValidationError as error:
            raise ConnectorUnusable("HMA's answer can't be read.") from error

    def _asked(self, method: str, path: str, **how: Any) -> Any:
        try:
            answer = self._http.request(method, path, **how)
            if answer.is_success:
                return answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ConnectorUnusable(f"HMA can't be reached: {type(error).__name__}.") from error
        raise ConnectorUnusable(f"HMA refuses it: {_reason(answer)}")


def bank_decided(hma: Hma, client: Client, banks: Mapping[Label, str], ledger: Path) -> Iterator[Banked]:
    """Put the hashes of what operators decided into the bank of its label; each is told when it is there.

    The ``ledger`` has a line for each, so that none goes twice; a crash between the two sends one again. A
    later change of mind is not taken back: the ledger says where it is.

    Raises:
        ConnectorUnusable: HMA, or the ledger, can't be used.
        ServiceError: the service refuses, or is away.
    """
    known = {each.job for each in _read(ledger)}
    for job in client.jobs("done"):
        if job.id in known or (bank := _bank_of(client, job.id, banks)) is None:
            continue
        if hashes := client.similar(job, limit=1).hashes:
            banked = Banked(job=job.id, bank=bank, content=hma.add(bank, hashes))
            _write(ledger, banked)
            yield banked


def push(
    hma_url: str, banks: Mapping[Label, str], ledger: Path, *, service: str, key_file: Path | None = None
) -> Iterator[Banked]:
    """As ``bank_decided``, of the service at this address."""
    with client_of(service, key_file) as client, Hma(hma_url) as hma:
        yield from bank_decided(hma, client, banks, ledger)


def look_up(
    hma_url: str, job: str, *, service: str, key_file: Path | None = None
) -> Mapping[str, list[Match]]:
    """What HMA knows of a job's video; nothing where its hashes aren't known. Raises as ``bank_decided``."""
    with client_of(service, key_file) as client, Hma(hma_url) as hma:
        hashes = client.similar(job, limit=1).hashes
        return hma.look_up(hashes) if hashes else {}


def _bank_of(client: Client, job: str, banks: Mapping[Label, str]) -> str | None:
    feedback = client.job(job).feedback
    decision = feedback.decision if feedback is not None else None
    label = decision.label if decision is not None else None
    return banks.get(label) if label is not None else None


def _read(ledger: Path) -> list[Banked]:
    try:
        text = ledger.read_text(encoding="utf-8")
        return [Banked.model_validate_json(line) for line in text.splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConnectorUnusable(f"The ledger {ledger} can't be read.") from error


def _write(ledger: Path, banked: Banked) -> None:
    try:
        with ledger.open("a", encoding="utf-8") as file:
            file.write(banked.model_dump_json() + "\n")
    except OSError as error:
        raise ConnectorUnusable(f"The ledger {ledger} can't be written: {error.strerror}.") from error


def _reason(answer: httpx.Response) -> str:
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = f"status {answer.status_code}"
    return f"{str(message)[:200].rstrip('.')}."
