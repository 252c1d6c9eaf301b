"""The audit trail for its operator: checked, exported, and its head signed (``specsem audit``)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785

from app.audit import Head, Link, Trail, TrailBroken, check
from app.jobs.database import database_of
from app.settings import Settings
from app.signing import SignatureRefused, check_signature, load_signer, read_public_keys
from specsem.errors import FileUnusable

__all__ = ["Auditing", "Export", "open_auditing"]

HEAD = "urn:specsem:trail-head:1"
MAX_HEAD_BYTES = 64 * 1024


class Export:
    """A trail that was exported, which anybody can check who has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def links(self) -> Iterator[Link]:
        """Its entries in order."""
        try:
            with self._path.open(encoding="utf-8") as lines:
                yield from map(_link, lines)
        except (OSError, UnicodeDecodeError) as error:
            raise FileUnusable(f"{self._path} can't be read.") from error

    def verify(self, *, head: Path | None = None, keys: str | None = None) -> Head:
        """Follow it from its beginning to its end, which is given back.

        ``head`` is a file with what ``Auditing.signed_head`` gave; ``keys`` as for ``read_public_keys``.

        Raises:
            TrailBroken: the first thing that doesn't hold.
            SignatureRefused: the head was changed, or signed by another key.
            FileUnusable: a file can't be read.
        """
        return check(self.links(), None if head is None else _read_head(head, keys))


class Auditing(Export):
    """The trail of a service, in its database."""

    def __init__(self, trail: Trail, settings: Settings) -> None:
        self._trail = trail
        self._settings = settings

    def links(self) -> Iterator[Link]:
        """Its entries in order."""
        return self._trail.links()

    def lines(self) -> Iterator[str]:
        """The export, line by line."""
        return map(_line, self.links())

    def signed_head(self) -> str:
        """The head as JSON, signed by the service's key. The trail is checked before.

        Raises:
            TrailBroken: it doesn't hold.
            SigningKeyUnusable: there is no key to sign with.
        """
        head = check(self.links())
        content: dict[str, Any] = {
            "$schema": HEAD,
            "seq": head.seq,
            "sha256": head.sha256,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        signature = load_signer(self._settings).sign(rfc8785.dumps(content))
        return rfc8785.dumps(content | {"signature": signature}).decode()


@contextmanager
def open_auditing(settings: Settings, export: Path | None = None) -> Iterator[Export]:
    """The trail of a service, whether it runs or not, or an ``export`` of one.

    Raises:
        DataDirUnusable, StoreUnusable: its data folder or its database can't be used.
    """
    if export is not None:
        yield Export(export)
        return
    with database_of(settings) as engine:
        yield Auditing(Trail(engine), settings)


def _line(link: Link) -> str:
    """An entry that was tampered with is shown as the text that it is."""
    entry: Any = link.entry
    try:
        told = json.loads(link.entry)
        if rfc8785.dumps(told) == link.entry.encode():
            entry = told
    except (ValueError, RecursionError):
        pass
    return json.dumps({"seq": link.seq, "entry": entry, "sha256": link.sha256}, ensure_ascii=False)


def _link(line: str) -> Link:
    try:
        told = json.loads(line)
        entry = told["entry"] if isinstance(told["entry"], str) else rfc8785.dumps(told["entry"]).decode()
        return Link(int(told["seq"]), entry, str(told["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrailBroken("A line of the export is no entry of a trail.") from error


def _read_head(path: Path, keys: str | None) -> Head:
    trusted = None if keys is None else read_public_keys(keys)
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(MAX_HEAD_BYTES))
        signature = told.pop("signature")
        if told["$schema"] != HEAD:
            raise ValueError("of another kind")
        head = Head(int(told["seq"]), str(told["sha256"]))
        kid = check_signature(signature, rfc8785.dumps(told))
    except OSError as error:
        raise FileUnusable(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SignatureRefused("This is no head of a trail, or it was damaged.") from error
    if trusted is not None and kid not in trusted:
        raise SignatureRefused(f"The head is signed by a key that is none of yours: {kid}.")
    return head
