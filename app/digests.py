"""Checksums that a client sends along, checked while the body arrives.

``Content-Digest`` and ``Repr-Digest`` (RFC 9530) speak of a request's body as it is sent: of a form, all of
the form and not the file in it. ``Upload-Checksum`` (tus 1.0.0) speaks of the piece that is the body.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import Headers

from app.problems import Problem

__all__ = ["TUS_ALGORITHMS", "Digests"]

RFC_9530_ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}
"""Those that the RFC has as secure; its recipients pass over all others."""
TUS_ALGORITHMS = ("sha1", "sha256", "sha512", "md5")
TUS_MISMATCH = 460
MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):\s*")


@dataclass(frozen=True, slots=True)
class _Expected:
    header: str
    digest: bytes
    status: int
    hash: "hashlib._Hash"


class Digests:
    """What a body must turn out to be."""

    def __init__(self) -> None:
        self._expected: list[_Expected] = []

    def __bool__(self) -> bool:
        return bool(self._expected)

    @classmethod
    def announced(cls, headers: Headers) -> "Digests":
        """Those of a request's headers.

        Raises:
            Problem: ``malformed_header`` (400): one can't be read, or its algorithm is unknown.
        """
        digests = cls()
        for header in ("Content-Digest", "Repr-Digest"):
            for member in ",".join(headers.getlist(header)).split(","):
                name = member.partition("=")[0].strip()
                if name in RFC_9530_ALGORITHMS:
                    found = MEMBER.fullmatch(member.partition(";")[0])
                    digests._expect(header, RFC_9530_ALGORITHMS[name], found and found[2])
        if (checksum := headers.get("Upload-Checksum")) is not None:
            algorithm, _, value = checksum.partition(" ")
            if algorithm not in TUS_ALGORITHMS:
                raise Problem(
                    "malformed_header",
                    f"The algorithm of Upload-Checksum must be one of {', '.join(TUS_ALGORITHMS)}.",
                )
            digests._expect("Upload-Checksum", algorithm, value, status=TUS_MISMATCH)
        return digests

    def _expect(self, header: str, algorithm: str, value: str | None, status: int = 400) -> None:
        hashing = hashlib.new(algorithm, usedforsecurity=False)
        try:
            digest = base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != hashing.digest_size:
            raise Problem("malformed_header", f"The {header} is no {algorithm} in Base64.")
        self._expected.append(_Expected(header, digest, status, hashing))

    async def checked(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks as they come, hashed here and now: a chunk is small, a thread would take as long.

        Raises:
            Problem: ``checksum_mismatch`` after the last one (400; 460 for ``Upload-Checksum``).
        """
        async for chunk in chunks:
            for expected in self._expected:
                expected.hash.update(chunk)
            yield chunk
        for expected in self._expected:
            if expected.hash.digest() != expected.digest:
                raise Problem(
                    "checksum_mismatch",
                    f"What arrived is not what its {expected.header} says; send it again.",
                    status=expected.status,
                )
