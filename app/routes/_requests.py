"""What routes read of a request beside its file: JSON, flags of a form, preferences."""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.jobs.service import Order
from app.problems import Problem
from app.schemas import OPTIONS, Surface
from app.services import Sender
from specsem.pipeline import Options

__all__ = [
    "Cursor",
    "Ordered",
    "Preferences",
    "Prefers",
    "asked_in_form",
    "cursor_of",
    "place_of",
    "read_json",
    "surface_in_form",
]

MAX_JSON_BYTES = 64 * 1024
_FLAGS = {"true": True, "on": True, "false": False, "off": False, "": False}

_SURFACE: TypeAdapter[str] = TypeAdapter(Surface)

Model = TypeVar("Model", bound=BaseModel)

Cursor = Annotated[
    str | None, Query(description="`next` of the page before.", pattern=r"^[A-Za-z0-9_-]{1,200}$")
]


async def _asked(
    thorough: Annotated[bool, Query(description=OPTIONS["thorough"])] = False,
    evidence: Annotated[bool, Query(description=OPTIONS["evidence"])] = False,
    stability: Annotated[bool, Query(description=OPTIONS["stability"])] = False,
) -> Options:
    return Options(thorough=thorough, evidence=evidence, stability=stability)


async def _ordered(
    request: Request,
    *,
    sender: Sender,
    options: Annotated[Options, Depends(_asked)],
    surface: Annotated[Surface, Query()] = "",
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Yours for this request: sent again, it answers with the same job.",
            min_length=1,
            max_length=255,
        ),
    ] = None,
) -> Order:
    # Whether the client refuses an answer that was made before.
    fresh = "no-cache" in request.headers.get("cache-control", "").lower()
    return Order(sender.tenant, options, idempotency_key, surface=surface, fresh=fresh, key=sender.key)


Ordered = Annotated[Order, Depends(_ordered)]
"""What the sender asks for by query and headers. What the body says is added, and of the surface counts for
more."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """Of RFC 7240, those that are known here."""

    respond_async: bool = False
    """A job, whatever the file."""
    wait: bool = False
    """No job, whatever the file."""


async def _preferences(
    prefer: Annotated[
        list[str] | None,
        Header(description="`respond-async`: a job, whatever the file. `wait`: none, however long."),
    ] = None,
) -> Preferences:
    names = {
        re.split(r"[=;\s]", preference.strip(), maxsplit=1)[0].lower()
        for header in prefer or ()
        for preference in header.split(",")
    }
    return Preferences(respond_async="respond-async" in names, wait="wait" in names)


Prefers = Annotated[Preferences, Depends(_preferences)]


async def read_json(request: Request, model: type[Model], *, timeout_s: float) -> Model:
    """The body as ``model``.

    Raises:
        Problem: 413, or 408 where it takes too long to arrive.
        RequestValidationError: it isn't one (422).
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_JSON_BYTES:
                    raise Problem("limits_exceeded", "The JSON body is too large.", status=413)
    except TimeoutError:
        raise Problem("upload_timeout", "The JSON body took too long to arrive.") from None
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        raise RequestValidationError(
            [{**found, "loc": ("body", *found["loc"])} for found in error.errors(include_url=False)]
        ) from error


def cursor_of(place: str) -> str:
    """Where a page ends, for the client to send back."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(cursor: str, pattern: str) -> re.Match[str]:
    """What `cursor_of` was given, as the groups of ``pattern``.

    Raises:
        RequestValidationError: it is none of ours (422).
    """
    try:
        found = re.fullmatch(
            pattern, base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        )
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise RequestValidationError(
            [{"loc": ("query", "cursor"), "msg": "It is no `next` of a page.", "type": "value_error"}]
        )
    return found


def asked_in_form(fields: dict[str, str]) -> Options:
    """What the fields of a form ask for.

    Raises:
        RequestValidationError: one says neither yes nor no (422).
    """
    return Options(**{name: _flag(fields, name) for name in OPTIONS})


def surface_in_form(fields: dict[str, str]) -> str:
    """The surface that the fields of a form name; empty where they name none.

    Raises:
        RequestValidationError: it is no name (422).
    """
    try:
        return _SURFACE.validate_python(fields.get("surface", ""))
    except ValidationError as error:
        raise RequestValidationError(
            [{**found, "loc": ("body", "surface")} for found in error.errors(include_url=False)]
        ) from error


def _flag(fields: dict[str, str], name: str) -> bool:
    """A field of a form that says yes or no (as a browser's box does); no where there is none.

    Raises:
        RequestValidationError: it says neither (422).
    """
    said = _FLAGS.get(fields.get(name, "").lower())
    if said is None:
        raise RequestValidationError(
            [{"loc": ("body", name), "msg": "It is neither `true` nor `false`.", "type": "bool_parsing"}]
        )
    return said
