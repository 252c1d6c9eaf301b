"""Redis streams: entries of one say where a video is, verdicts go to another. Needs the extra ``redis``.

A member of a consumer group takes entries and acknowledges each once its verdict is out. What a member took
that has died is claimed by another after a while. What can't be scored goes, as it came, to a stream of dead
letters. For Redis 6.2 or newer, and Valkey.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from app.connectors.forms import Form
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome
from app.connectors.records import Places, delivery_of

__all__ = ["RedisSink", "RedisSource", "connected"]

T = TypeVar("T")

ANSWER_S = 10.0
CLAIM_AFTER_S = 60.0
RECORD = "record"
"""Field of an entry that holds all of a record as JSON; else the entry's fields are the record's."""
ABOUT = "about"
MOST_KEPT = 100_000
"""Outcomes in a stream, about; older ones are trimmed away."""


def connected(url: str) -> "redis.Redis":
    """A connection to a server that answers. Raises ``ConnectorUnusable``."""
    try:
        server: redis.Redis = redis.Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, health_check_interval=30
        )
        server.ping()
    except ValueError as error:  # its text may hold the password
        raise ConnectorUnusable("The address of Redis can't be read.") from error
    except RedisError as error:
        raise ConnectorUnusable(f"Redis can't be used: {_sentence(error)}") from error
    return server


class RedisSource:
    """The entries of a stream, as a member of a consumer group."""

    def __init__(
        self,
        server: "redis.Redis",
        stream: str,
        *,
        group: str,
        dead_letters: str,
        places: Places,
        claim_after_s: float = CLAIM_AFTER_S,
    ) -> None:
        """What can't be scored goes to the stream ``dead_letters``. What another member hasn't settled or
        held for ``claim_after_s`` seconds is taken over.

        Raises:
            ConnectorUnusable: something else than a stream has this name.
        """
        self._server, self._stream, self._group, self._places = server, stream, group, places
        self._dead_letters = dead_letters
        self._claim_after_ms = int(claim_after_s * 1000)
        self._member = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._under_way: set[bytes] = set()
        self._claims_at = 0.0
        self._claim_cursor: bytes | str = "0-0"
        try:
            self._make_group()
        except RedisError as error:
            raise ConnectorUnusable(f"The stream {stream} can't be used: {_sentence(error)}") from error

    def receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:
        """As ``Source``: first what others left, then what is new."""
        entries = self._left_by_others(most)
        if len(entries) < most:
            # A block of 0 would be one without an end.
            block_ms = max(1, int(wait_s * 1000)) if wait_s and not entries else None
            entries += self._asked(
                lambda: self._server.xreadgroup(
                    self._group, self._member, {self._stream: ">"}, most - len(entries), block_ms
                )
            )
        return [self._delivery(entry, fields) for entry, fields in entries if entry not in self._under_way]

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """As ``Source``. That it fails costs nothing but a second delivery."""
        entries = [delivery.handle[0] for delivery in deliveries]
        with suppress(RedisError):
            self._server.xclaim(self._stream, self._group, self._member, 0, entries, justid=True)

    def done(self, outcome: Outcome) -> None:
        """As ``Source``."""
        entry: bytes = outcome.delivery.handle[0]
        self._tried(lambda: self._server.xack(self._stream, self._group, entry))
        self._under_way.discard(entry)

    def set_aside(self, outcome: Outcome) -> None:
        """As ``Source``: the entry's fields as they came, and beside them why and where it was."""
        entry, fields = outcome.delivery.handle
        kept: dict[Any, Any] = fields | outcome.why_aside(f"{self._stream}/{entry.decode()}")
        # Both or neither: an entry is not lost in between, and not kept twice.
        both = self._server.pipeline(transaction=True)
        both.xadd(self._dead_letters, kept, maxlen=MOST_KEPT, approximate=True)
        both.xack(self._stream, self._group, entry)
        self._tried(both.execute)
        self._under_way.discard(entry)

    def close(self) -> None:
        """As ``Source``. Where nothing is left under way, the group forgets this member."""
        with suppress(RedisError):
            if not self._under_way:
                self._server.xgroup_delconsumer(self._stream, self._group, self._member)
        self._server.close()
        self._places.close()

    def _left_by_others(self, most: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """A part of the group's list each time, and then nothing for a while."""
        if time.monotonic() < self._claims_at:
            return []
        answer = self._tried(
            lambda: self._server.xautoclaim(
                self._stream, self._group, self._member, self._claim_after_ms, self._claim_cursor, most
            )
        )
        self._claim_cursor, entries = answer[0], answer[1]
        if self._claim_cursor == b"0-0":
            self._claims_at = time.monotonic() + self._claim_after_ms / 4000
        return [(entry, fields) for entry, fields in entries if fields is not None]

    def _delivery(self, entry: bytes, fields: dict[bytes, bytes]) -> Delivery:
        self._under_way.add(entry)
        identity = ("redis", self._stream, entry.decode())
        return delivery_of(identity, _record(fields), self._places, (entry, fields))

    def _make_group(self) -> None:
        try:
            self._server.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _asked(self, call: Callable[[], Any]) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of the one stream that was asked for."""
        answer = self._tried(call)
        return list(answer[0][1]) if answer else []

    def _tried(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except ResponseError as error:
            if str(error).startswith("NOGROUP"):  # the stream was removed, and maybe comes again
                with suppress(RedisError):
                    self._make_group()
            raise _error(error) from error
        except RedisError as error:
            raise _error(error) from error


class RedisSink:
    """Outcomes as entries of a stream, of which the latest are kept."""

    def __init__(self, server: "redis.Redis", stream: str, form: Form) -> None:
        self._server, self._stream, self._form = server, stream, form

    def send(self, outcome: Outcome) -> None:
        """As ``Sink``."""
        fields: dict[Any, Any] = {"id": outcome.delivery.id, RECORD: self._form(outcome)}
        try:
            self._server.xadd(self._stream, fields, maxlen=MOST_KEPT, approximate=True)
        except RedisError as error:
            raise _error(error) from error

    def close(self) -> None:
        """Let go of connections."""
        self._server.close()


def _record(fields: Mapping[bytes, bytes]) -> bytes:
    """An entry's record as JSON, whichever way it is written."""
    if (whole := fields.get(RECORD.encode())) is not None:
        return whole
    text: dict[str, Any] = {
        name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()
    }
    if ABOUT in text:
        with suppress(ValueError):  # what it is then is said where records are read
            text[ABOUT] = json.loads(text[ABOUT])
    return json.dumps(text).encode()


def _error(error: RedisError) -> Exception:
    """What the bridge waits for, and what it ends with."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return ConnectorUnusable(f"Redis refuses this connector: {_sentence(error)}")
    return OSError(0, f"Redis: {_sentence(error)}")


def _sentence(error: RedisError) -> str:
    return f"{str(error).rstrip('.') or type(error).__name__}."
