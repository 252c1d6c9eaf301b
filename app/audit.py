"""The audit trail: what happened to jobs, reports and keys, each entry chained to the one before by its hash.

An entry is written in the transaction of what it tells of: either both are there or neither, whatever is
killed when. It names ids, tenants and public parts of keys, and holds nothing of a video: no name, no
address, no checksum, no picture.

The chain shows that an entry was changed, removed, inserted or moved. What it can't show by itself is that
the end is missing, or that everything from some point on was written anew by somebody who controls the
database: for that, a signed head (`head`) has to be kept elsewhere.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import rfc8785
from sqlalchemy import Engine, func, insert, select
from sqlalchemy.orm import Session, sessionmaker

from app.jobs.database import is_sqlite
from app.jobs.table import AuditRow
from specsem.errors import Refused

__all__ = ["Event", "Head", "Link", "Trail", "TrailBroken", "append", "check"]

FIRST = "0" * 64
"""What the first entry names as the hash of the one before."""
APPENDING = 0x5BEC5EA1
"""Any number that nobody else takes as an advisory lock in the same database."""
ROWS_AT_A_TIME = 1000

EventName = Literal[
    "service_started",
    "job_submitted",
    "job_scored",
    "job_failed",
    "job_deleted",
    "job_expired",
    "report_issued",
    "feedback_given",
    "feedback_withdrawn",
    "group_feedback_given",
    "calibration_made",
    "calibration_activated",
    "calibration_rolled_back",
    "statement_issued",
    "key_created",
    "key_revoked",
    "signing_key_added",
    "signing_key_withdrawn",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    name: EventName
    tenant: str = ""
    key: str = ""
    """Public part of the API key that asked for it; empty where none was needed, or nobody asked."""
    job: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as it is stored."""

    seq: int
    entry: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the trail: who keeps it can tell later whether the trail still leads there."""

    seq: int
    sha256: str


class TrailBroken(Refused):
    """The trail is not as it was written."""

    code = "trail_broken"


def append(session: Session, *events: Event) -> None:
    """Add to the trail, in the caller's transaction, which must be one that writes.

    Appending takes turns until the transaction ends, on PostgreSQL by a lock of its own: call it last, when
    all else is done, and nobody waits for longer than a commit.
    """
    if not is_sqlite(session.get_bind()):  # there, a transaction that writes has the lock
        session.execute(select(func.pg_advisory_xact_lock(APPENDING)))
    last = session.execute(
        select(AuditRow.seq, AuditRow.sha256).order_by(AuditRow.seq.desc()).limit(1)
    ).one_or_none()
    seq, previous = (last.seq, last.sha256) if last is not None else (0, FIRST)
    rows = []
    for event in events:
        seq += 1
        entry = rfc8785.dumps(
            {
                "seq": seq,
                "at": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
                "event": event.name,
                "tenant": event.tenant,
                "key": event.key,
                "job": event.job,
                "details": event.details,
                "previous": previous,
            }
        )
        previous = sha256(entry).hexdigest()
        rows.append({"seq": seq, "entry": entry.decode(), "sha256": previous})
    if rows:
        session.execute(insert(AuditRow), rows)


def check(links: Iterable[Link], head: Head | None = None) -> Head:
    """Follow the trail from its first entry. Its head; (0, zeros) where there is nothing.

    Raises:
        TrailBroken: names the first link that doesn't hold, or says that ``head`` is not on the trail.
    """
    seq, previous = 0, FIRST
    seen = head is None or head.seq == 0
    for link in links:
        seq += 1
        if link.seq != seq:
            raise TrailBroken(f"Entry {seq} is missing: entry {link.seq} follows entry {seq - 1}.")
        if sha256(link.entry.encode()).hexdigest() != link.sha256:
            raise TrailBroken(f"Entry {seq} is broken: it was changed after it was written.")
        try:
            told = json.loads(link.entry)
            fits = told["seq"] == seq and told["previous"] == previous
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise TrailBroken(f"Entry {seq} is broken: it was not written after the entry before it.")
        previous = link.sha256
        if head is not None and head.seq == seq:
            if head.sha256 != link.sha256:
                raise TrailBroken(f"Entry {seq} is another than the one that the kept head names.")
            seen = True
    if head is not None and not seen:
        raise TrailBroken(f"The end is missing: there are {seq} entries, and the kept head names {head.seq}.")
    return Head(seq, previous)


class Trail:
    """The trail of a database. Blocking."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = sessionmaker(engine.execution_options(writes=True))

    def note(self, *events: Event) -> None:
        """Write down what comes with no transaction of its own."""
        with self._writing.begin() as session:
            append(session, *events)

    def links(self) -> Iterator[Link]:
        """All of it from the first entry on, in constant memory."""
        with Session(self._engine) as session, session.begin():
            rows = session.execute(
                select(AuditRow.seq, AuditRow.entry, AuditRow.sha256).order_by(AuditRow.seq),
                execution_options={"yield_per": ROWS_AT_A_TIME},
            )
            yield from (Link(row.seq, row.entry, row.sha256) for row in rows)

    def head(self) -> Head:
        """Where it ends now; it isn't checked."""
        with Session(self._engine) as session, session.begin():
            last = session.execute(
                select(AuditRow.seq, AuditRow.sha256).order_by(AuditRow.seq.desc()).limit(1)
            ).one_or_none()
        return Head(0, FIRST) if last is None else Head(last.seq, last.sha256)
