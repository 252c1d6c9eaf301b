"""API keys: how they are made, and their rows in the database of jobs.

A key is ``specsem_<prefix>_<secret>``: a form that secret scanners know again, a public part by which its row
is found, and 256 random bits. It is shown once; the row holds its SHA-256. A slow hash would only help a
secret that can be guessed, and nobody guesses 256 bits; a fast one can be paid at each request.
"""

import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import sessionmaker

from app.audit import Event, append
from app.jobs.database import database_of
from app.jobs.table import KeyRow
from app.settings import Settings, parse_rate
from specsem.errors import SpecSemError

__all__ = [
    "KEY",
    "TENANT",
    "KeyRefused",
    "KeyScope",
    "KeyStore",
    "digest",
    "is_usable",
    "open_keys",
    "time_of",
]

PREFIX_BYTES = 6
SECRET_BYTES = 32
KEY = re.compile(rf"specsem_([0-9a-f]{{{2 * PREFIX_BYTES}}})_[0-9a-f]{{{2 * SECRET_BYTES}}}")
"""A whole key; its group is the prefix."""
NAMES_KEY = re.compile(rf"(?:specsem_)?([0-9a-f]{{{2 * PREFIX_BYTES}}})(?:_.*)?")
TENANT = re.compile(r"(?:[a-z0-9][a-z0-9._-]{0,63})?")
DURATION = re.compile(r"(\d{1,9})([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
MAX_LIFE_S = 100 * 366 * 86400.0
USE_S = 60.0
"""A use is written down once in so long: to know the last one better is not worth a write a request."""


class KeyRefused(SpecSemError):
    """A key as it can't be made, or that is not there."""

    code = "key_refused"


class KeyScope(StrEnum):
    """What a key may do; ``app.auth`` says which routes that opens."""

    SCORE = "score"
    """Upload and score videos, and read the answers."""
    JOBS = "jobs"
    """Submit, list, read and delete jobs."""
    REVIEW = "review"
    """Read and decide what waits for an operator."""
    ADMIN = "admin"
    """What concerns the service and not one tenant."""
    WEBHOOKS = "webhooks"
    """Register webhooks, and see what became of their deliveries."""
    METRICS = "metrics"
    """Read the metrics."""


def digest(key: str) -> str:
    """What is stored of a key."""
    return sha256(key.encode()).hexdigest()


def is_usable(row: KeyRow) -> bool:
    """Neither revoked nor expired."""
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > time.time())


class KeyStore:
    """The rows. Blocking. What it gives out is a snapshot: changing it changes nothing."""

    def __init__(self, engine: Engine) -> None:
        self._reading = sessionmaker(engine, expire_on_commit=False)
        self._writing = sessionmaker(engine.execution_options(writes=True), expire_on_commit=False)

    # -- for the command line -------------------------------------------------------------------------------

    def create(
        self,
        *,
        name: str = "",
        tenant: str = "",
        scopes: Sequence[str] = (KeyScope.SCORE, KeyScope.JOBS),
        expires: str | None = None,
        rate: str | None = None,
        concurrency: int | None = None,
    ) -> tuple[str, KeyRow]:
        """A new key, which is nowhere else, and its row. ``expires`` is a duration (``90d``) or a time.

        Raises:
            KeyRefused: with a sentence that says what is wrong.
        """
        now = time.time()
        prefix = secrets.token_hex(PREFIX_BYTES)
        key = f"specsem_{prefix}_{secrets.token_hex(SECRET_BYTES)}"
        row = KeyRow(
            prefix=prefix,
            sha256=digest(key),
            name=_name(name),
            tenant=_tenant(tenant),
            scopes=_scopes(scopes),
            rate=_rate(rate),
            concurrency=concurrency,
            created_at=now,
            expires_at=None if expires is None else _expiry(expires, now),
        )
        with self._writing.begin() as session:
            session.add(row)
            session.flush()
            append(session, Event("key_created", row.tenant, key=prefix, details={"scopes": row.scopes}))
        return key, row

    def listed(self) -> list[dict[str, Any]]:
        """Every key but for its hash, the latest first."""
        return [_described(row) for row in self._all()]

    def revoke(self, key: str, *, forget: bool = False) -> KeyRow:
        """End a key, named by its prefix or as a whole; with ``forget``, remove its row as well.

        Raises:
            KeyRefused: there is no such key.
        """
        found = NAMES_KEY.fullmatch(key.strip())
        prefix = found[1] if found else ""
        with self._writing.begin() as session:
            row = session.get(KeyRow, prefix)
            if row is None:
                raise KeyRefused("There is no such key; `specsem keys list` shows those that there are.")
            row.revoked_at = row.revoked_at or time.time()
            session.flush()
            if forget:
                session.expunge(row)
                session.execute(delete(KeyRow).where(KeyRow.prefix == prefix))
            append(session, Event("key_revoked", row.tenant, key=prefix, details={"forgotten": forget}))
            return row

    # -- for the service ------------------------------------------------------------------------------------

    def find(self, prefix: str) -> KeyRow | None:
        """The key with this prefix."""
        with self._reading.begin() as session:
            return session.get(KeyRow, prefix)

    def note_use(self, row: KeyRow) -> None:
        """Write down that a key is used now, unless that was done a moment ago."""
        now = time.time()
        if row.last_used_at is not None and row.last_used_at > now - USE_S:
            return
        with self._writing.begin() as session:
            session.execute(update(KeyRow).where(KeyRow.prefix == row.prefix).values(last_used_at=now))

    def is_empty(self) -> bool:
        """Whether no key was ever made, or all were forgotten."""
        with self._reading.begin() as session:
            return session.scalar(select(KeyRow.prefix).limit(1)) is None

    def has_usable(self) -> bool:
        """Whether some key opens anything."""
        return any(is_usable(row) for row in self._all())

    def _all(self) -> list[KeyRow]:
        with self._reading.begin() as session:
            return list(session.scalars(select(KeyRow).order_by(KeyRow.created_at.desc(), KeyRow.prefix)))


@contextmanager
def open_keys(settings: Settings) -> Iterator[KeyStore]:
    """The keys of a service, whether it runs or not.

    Raises:
        DataDirUnusable, StoreUnusable: its data folder or its database can't be used.
    """
    with database_of(settings) as engine:
        yield KeyStore(engine)


def _described(row: KeyRow) -> dict[str, Any]:
    state = "revoked" if row.revoked_at is not None else "active" if is_usable(row) else "expired"
    return {
        "prefix": row.prefix,
        "state": state,
        "name": row.name,
        "tenant": row.tenant,
        "scopes": row.scopes.split(),
        "rate": row.rate,
        "concurrency": row.concurrency,
        "created_at": time_of(row.created_at),
        "expires_at": time_of(row.expires_at),
        "revoked_at": time_of(row.revoked_at),
        "last_used_at": time_of(row.last_used_at),
    }


def time_of(epoch_s: float | None) -> str | None:
    """A time for people and programs, in UTC."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds")


def _name(name: str) -> str:
    if len(name) > 100 or not name.isprintable():
        raise KeyRefused("A name has at most 100 characters, all of them printable.")
    return name


def _tenant(tenant: str) -> str:
    if TENANT.fullmatch(tenant) is None:
        raise KeyRefused(
            "A tenant is a word of small letters, digits, dots, dashes and underscores, at most 64."
        )
    return tenant


def _scopes(scopes: Sequence[str]) -> str:
    unknown = [scope for scope in scopes if scope not in set(KeyScope)]
    if unknown or not scopes:
        raise KeyRefused(f"A key has some of these scopes: {', '.join(KeyScope)}.")
    return " ".join(scope for scope in KeyScope if scope in scopes)


def _rate(rate: str | None) -> str | None:
    try:
        if rate is not None:
            parse_rate(rate)
    except ValueError as error:
        raise KeyRefused(f"{error}.") from None
    return rate


def _expiry(text: str, now: float) -> float:
    """Seconds since the epoch. A time without a zone is UTC."""
    if found := DURATION.fullmatch(text):
        expires_at = now + int(found[1]) * SECONDS[found[2]]
    else:
        try:
            given = datetime.fromisoformat(text)
        except ValueError:
            raise KeyRefused("A key expires after a duration (12h, 90d) or at a time (2027-01-31).") from None
        expires_at = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    if not now < expires_at < now + MAX_LIFE_S:
        raise KeyRefused("A key expires in the future, within 100 years.")
    return expires_at
