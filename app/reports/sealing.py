"""How a report is bound to its signature, in all three formats.

The signed data is one canonical JSON object (RFC 8785): the report, its ``rendering``, and as ``signature``
the detached JWS over the object without it. As a ``.json`` file it stands by itself. HTML and PDF carry it,
as a link that holds the data and as an attachment, and what people see there is bound to it by
``rendering.sha256``: the hash of the whole file as it was before it was signed, with zeros where hash and
signature were yet to come. So each byte of each format is either hashed, or signed, or the signature itself.
"""

import base64
import json
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import rfc8785

from app.reports.document import SCHEMA, Format
from app.signing import SignatureRefused, Signer, check_signature

__all__ = ["Sealed", "format_of", "open_sealed", "seal"]

Sealed = dict[str, Any]
"""The signed data, as JSON has it."""

_UNHASHED = "0" * 64
_IN_HTML = re.compile(rb'"data:application/json;base64,([A-Za-z0-9+/=]*)"')
_IN_PDF = re.compile(rb'\nstream\n(\{"\$schema":"' + re.escape(SCHEMA).encode() + rb'"[^\n]*\})\nendstream')


def seal(
    content: dict[str, Any], signer: Signer, rendering: Format, render: Callable[[bytes], bytes]
) -> bytes:
    """The signed report as a file. ``render`` gets the data that HTML or PDF is to carry; JSON needs none.

    Raises:
        ValueError: the rendering doesn't carry the data once.
    """
    sealed: Sealed = content | {"rendering": {"format": rendering, "sha256": None}}
    if rendering == "json":
        return _signed(sealed, signer)
    sealed["rendering"]["sha256"] = _UNHASHED
    unsigned = _blank(_signed(sealed, signer), sealed)
    file = render(unsigned)
    sealed["rendering"]["sha256"] = sha256(file).hexdigest()
    before, carried, after = _take_apart(file, rendering)
    if carried != unsigned:
        raise ValueError(f"the {rendering} carries other data")
    return before + _encoded(_signed(sealed, signer), rendering) + after


def _signed(sealed: Sealed, signer: Signer) -> bytes:
    return rfc8785.dumps(sealed | {"signature": signer.sign(rfc8785.dumps(sealed))})


def _blank(data: bytes, sealed: Sealed) -> bytes:
    """The signed data as they were before hash and signature were known; of the same length."""
    rendering = sealed["rendering"] | {"sha256": _UNHASHED}
    blanked = sealed | {"rendering": rendering, "signature": "0" * len(json.loads(data)["signature"])}
    return rfc8785.dumps(blanked)


def format_of(file: bytes) -> Format:
    """What kind of report this is, by its first bytes.

    Raises:
        SignatureRefused: it is none.
    """
    for start, found in ((b"{", "json"), (b"%PDF-", "pdf"), (b"<!doctype html>", "html")):
        if file.startswith(start):
            return found  # type: ignore[return-value]
    raise SignatureRefused("This is no report of SpecSem: neither JSON nor HTML nor PDF.")


def _take_apart(file: bytes, rendering: Format) -> tuple[bytes, bytes, bytes]:
    """What comes before the signed data, the data, and what comes after.

    Raises:
        ValueError: they are not there once, or not written in the one shortest way.
    """
    if rendering == "json":
        return b"", file, b""
    found = list((_IN_HTML if rendering == "html" else _IN_PDF).finditer(file))
    if len(found) != 1:
        raise ValueError(f"signed data {len(found)} times")
    start, end = found[0].span(1)
    data = carried = file[start:end]
    if rendering == "html":
        data = base64.b64decode(carried, validate=True)
    if _encoded(data, rendering) != carried:
        raise ValueError("another way to write the same data")
    return file[:start], data, file[end:]


def _encoded(data: bytes, rendering: Format) -> bytes:
    return base64.b64encode(data) if rendering == "html" else data


def open_sealed(file: bytes) -> tuple[Sealed, str]:
    """The signed data of a report, and the thumbprint of the key that signed it.

    Raises:
        SignatureRefused: it is no report, or a single byte was changed since it was signed.
    """
    rendering = format_of(file)
    try:
        before, data, after = _take_apart(file, rendering)
        told = json.loads(data)
        if rfc8785.dumps(told) != data:
            raise ValueError("not canonical")
        signature, bound = told.pop("signature"), told["rendering"]
        kid = check_signature(signature, rfc8785.dumps(told))
        if rendering != "json":
            file = before + _encoded(_blank(data, told), rendering) + after
            if bound != {"format": rendering, "sha256": sha256(file).hexdigest()}:
                raise SignatureRefused(
                    f"What this {rendering.upper()} shows was changed after it was signed, or belongs to "
                    "other data."
                )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # CanonicalizationError is a ValueError
        raise SignatureRefused("The signed data in this report are damaged, or there are none.") from error
    return told, kid
