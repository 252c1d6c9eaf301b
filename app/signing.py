"""Ed25519 signatures (JWS, RFC 7515) over canonical JSON (RFC 8785), and the key that makes them.

The signature is detached: ``HEADER..SIGNATURE``, with the public key in its header. That key alone proves
nothing, since anybody can make one: whoever checks a signature compares its thumbprint (RFC 7638) with keys
that come from the service itself.
"""

import base64
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from sqlalchemy import Engine, select
from sqlalchemy.orm import sessionmaker

from app.audit import Event, append
from app.folders import sync
from app.jobs.database import database_of
from app.jobs.table import SigningKeyRow
from app.keys import time_of
from app.settings import Settings
from specsem.errors import FileUnusable, Refused, SpecSemError

__all__ = [
    "PublicKeys",
    "SignatureRefused",
    "Signer",
    "SigningKeyUnusable",
    "check_signature",
    "load_signer",
    "open_public_keys",
    "read_public_keys",
]

logger = logging.getLogger("specsem.app")

ALGORITHM: Final = "Ed25519"  # RFC 9864; the older name EdDSA names no curve
KEY_FILE = "signing-key.pem"
THUMBPRINT_CHARACTERS = 43
MAX_KEY_BYTES = 64 * 1024


class SigningKeyUnusable(SpecSemError):
    """There is no private key that reports can be signed with."""

    code = "signing_key_unusable"


class SignatureRefused(Refused):
    """What was signed has changed since, or was never signed so."""

    code = "signature_refused"


class Signer:
    """A private key at work."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self._public = key.as_dict(private=False)
        self.kid = key.thumbprint()
        """What the key is known by: its thumbprint."""

    def sign(self, payload: bytes) -> str:
        """A detached JWS. The same payload gives the same signature."""
        header = {"alg": ALGORITHM, "kid": self.kid, "jwk": self._public}
        head, _, signature = jws.serialize_compact(header, payload, self._key, [ALGORITHM]).split(".")
        return f"{head}..{signature}"

    @property
    def public(self) -> dict[str, Any]:
        """The public half as a JWK."""
        return {str(name): value for name, value in self._public.items()}


def check_signature(signature: str, payload: bytes) -> str:
    """The thumbprint of the key that made a detached JWS.

    Raises:
        SignatureRefused: that key, which the signature names, did not sign this.
    """
    try:
        head, middle, tail = signature.split(".")
        if middle or _bytes_of(tail) is None:
            raise ValueError("not detached, or more than one way to write it")
        header = json.loads(_bytes_of(head) or b"")
        key = OKPKey.import_key(header["jwk"])
        jws.deserialize_compact(signature, key, [ALGORITHM], payload=payload)
        kid = key.thumbprint()
        if header["kid"] != kid or key.curve_name != ALGORITHM:
            raise ValueError("the header contradicts itself")
    except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureRefused("The signature does not fit: it was changed after it was signed.") from error
    return kid


def _bytes_of(text: str) -> bytes | None:
    """What base64url stands for; None where it is not written in the one shortest way."""
    decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return decoded if base64.urlsafe_b64encode(decoded).rstrip(b"=") == text.encode() else None


def read_public_keys(given: str) -> frozenset[str]:
    """Thumbprints of the keys to trust: of a file (JWKS, as the service gives it), or this one thumbprint.

    Raises:
        FileUnusable: it is neither.
    """
    path = Path(given)
    if not path.is_file():
        if len(given) == THUMBPRINT_CHARACTERS and given.replace("-", "").replace("_", "").isalnum():
            return frozenset({given})
        raise FileUnusable(f"{given} is no file of keys and no thumbprint of a key.")
    try:
        keys = json.loads(path.read_bytes())["keys"]
        return frozenset(OKPKey.import_key(key).thumbprint() for key in keys if key.get("kty") == "OKP")
    except (OSError, JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileUnusable(f"{given} is no file of keys (JWKS).") from error


# -- the private key ----------------------------------------------------------------------------------------


def load_signer(settings: Settings) -> Signer:
    """The operator's key, or the one of the data folder, which is made where there is none.

    Raises:
        SigningKeyUnusable: it can't be read, or is of another kind.
    """
    path = settings.signing_key_file
    if path is None:
        path = settings.data_dir / KEY_FILE
        _make(path)
    try:
        with path.open("rb") as file:
            key = OKPKey.import_key(file.read(MAX_KEY_BYTES))
        if not key.is_private or key.curve_name != ALGORITHM:
            raise ValueError("of another kind")
        return Signer(key)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SigningKeyUnusable(f"The signing key {path} can't be read: {reason}.") from error
    except (JoseError, ValueError, TypeError) as error:
        raise SigningKeyUnusable(
            f"The signing key {path} is no Ed25519 private key in PEM without a password; "
            "`openssl genpkey -algorithm ed25519` makes one."
        ) from error


def _make(path: Path) -> None:
    """Make a key there, unless there is one. Of processes at it together, one succeeds."""
    if path.exists():
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(OKPKey.generate_key(ALGORITHM).as_pem(private=True))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(part)  # unlike a rename, it never replaces: the first one stays
        except FileExistsError:
            return
        sync(path.parent)
        logger.info("a signing key was made: %s", path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SigningKeyUnusable(f"The signing key {path} can't be made: {reason}.") from error
    finally:
        part.unlink(missing_ok=True)


# -- the public keys ----------------------------------------------------------------------------------------


class PublicKeys:
    """The public halves of all keys that ever signed here, in the database: what a key signed can be checked
    long after another took its place. Blocking."""

    def __init__(self, engine: Engine) -> None:
        self._reading = sessionmaker(engine, expire_on_commit=False)
        self._writing = sessionmaker(engine.execution_options(writes=True), expire_on_commit=False)

    def add(self, signer: Signer) -> None:
        """See that the key is among them.

        Raises:
            SigningKeyUnusable: it was withdrawn.
        """
        with self._reading.begin() as session:
            row = session.get(SigningKeyRow, signer.kid)
        if row is None:
            row = self._insert(signer)
        if row.withdrawn_at is not None:
            raise SigningKeyUnusable(
                f"The signing key {signer.kid} was withdrawn. Remove it, or name another in "
                "SPECSEM_SIGNING_KEY_FILE."
            )

    def _insert(self, signer: Signer) -> SigningKeyRow:
        with self._writing.begin() as session:
            append(session)  # nothing: but who else adds a key waits here until this one is there
            row = session.get(SigningKeyRow, signer.kid)
            if row is None:
                row = SigningKeyRow(kid=signer.kid, x=signer.public["x"], created_at=time.time())
                session.add(row)
                session.flush()
                append(session, Event("signing_key_added", details={"kid": signer.kid}))
            return row

    def withdraw(self, kid: str) -> None:
        """Vouch no longer for what a key signed: somebody else may have it.

        Raises:
            SigningKeyUnusable: there is no such key.
        """
        with self._writing.begin() as session:
            row = session.get(SigningKeyRow, kid)
            if row is None:
                raise SigningKeyUnusable("There is no such key; `specsem signing list` shows them.")
            if row.withdrawn_at is None:
                row.withdrawn_at = time.time()
                session.flush()
                append(session, Event("signing_key_withdrawn", details={"kid": kid}))

    def described(self) -> list[dict[str, Any]]:
        """All of them for people, the oldest first."""
        return [
            {
                "kid": row.kid,
                "created_at": time_of(row.created_at),
                "withdrawn_at": time_of(row.withdrawn_at),
            }
            for row in self.listed()
        ]

    def listed(self) -> list[SigningKeyRow]:
        """All of them, the oldest first."""
        with self._reading.begin() as session:
            return list(
                session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at, SigningKeyRow.kid))
            )

    def key_set(self) -> Mapping[str, Any]:
        """Those that weren't withdrawn, as a JWKS (RFC 7517)."""
        keys = [
            {"kty": "OKP", "crv": ALGORITHM, "x": row.x, "kid": row.kid, "alg": ALGORITHM, "use": "sig"}
            for row in self.listed()
            if row.withdrawn_at is None
        ]
        return {"keys": keys}


@contextmanager
def open_public_keys(settings: Settings) -> Iterator[PublicKeys]:
    """The public keys of a service, whether it runs or not.

    Raises:
        DataDirUnusable, StoreUnusable: its data folder or its database can't be used.
    """
    with database_of(settings) as engine:
        yield PublicKeys(engine)
