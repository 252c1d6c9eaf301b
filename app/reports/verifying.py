"""``specsem verify``: is this report as it was signed, and by whom? Needs no network and no service."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from app.reports.document import SCHEMA
from app.reports.sealing import format_of, open_sealed
from app.signing import SignatureRefused, read_public_keys
from specsem.errors import FileUnusable

__all__ = ["Verified", "verify"]

MAX_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Verified:
    """A report that is as it was signed."""

    format: str
    kid: str
    """Thumbprint of the key that signed it."""
    trusted: bool
    """Whether that is one of the keys that were given. If not, none was: anybody may have signed it."""
    job: str
    issued_at: str
    filename: str
    sha256: str
    """Of the video."""
    verdict: str
    score: float
    model: str


def verify(report: Path, *, keys: str | None = None, video: Path | None = None) -> Verified:
    """Check a report of any format, by the ``keys`` to trust: a file (JWKS), or a thumbprint.

    ``video`` is the file that the report is to be about.

    Raises:
        SignatureRefused: it was changed, or signed by another key, or is about another video.
        FileUnusable: a file can't be read, or ``keys`` are none.
    """
    trusted = None if keys is None else read_public_keys(keys)
    told, kid = open_sealed(_read(report))
    if trusted is not None and kid not in trusted:
        raise SignatureRefused(f"It is unaltered, but signed by a key that is none of yours: {kid}.")
    verified = _summary(told, format_of(_read(report)), kid, trusted is not None)
    if video is not None and _sha256(video) != verified.sha256:
        raise SignatureRefused("The report is about another video: the SHA-256 differs.")
    return verified


def _summary(told: Mapping[str, Any], rendering: str, kid: str, trusted: bool) -> Verified:
    try:
        if told["$schema"] != SCHEMA:
            raise ValueError("of another kind")
        result = told["result"]
        return Verified(
            format=rendering,
            kid=kid,
            trusted=trusted,
            job=str(told["job"]["id"]),
            issued_at=str(told["issued_at"]),
            filename=str(told["job"]["filename"]),
            sha256=str(told["job"]["sha256"]),
            verdict=str(result["verdict"]),
            score=float(result["score"]),
            model=f"{result['model']['name']} {result['model']['version']}",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureRefused("It is signed, but no report as this version knows them.") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileUnusable(f"{path} can't be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise SignatureRefused("It is larger than any report.")
    return content


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileUnusable(f"{path} can't be read: {error.strerror}.") from error
