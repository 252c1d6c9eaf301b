"""Who asks, and what a key opens: scopes by route, and the keys that this service knows.

There are keys of two kinds. Those of ``specsem keys`` are in the database, with tenant, scopes and quota of
their own. Those of ``SPECSEM_API_KEYS`` have all scopes but ``admin``, and the tenant without a name.
"""

import asyncio
import hmac
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from app.jobs.table import KeyRow
from app.keys import KEY, KeyScope, KeyStore, digest, is_usable, open_keys
from app.problems import Problem
from app.quotas import Quota
from app.settings import ExposureRefused, Settings, is_loopback_name, parse_rate

__all__ = [
    "ANYBODY",
    "PUBLIC",
    "SCOPES",
    "Caller",
    "Keyring",
    "check_exposure",
    "is_public",
    "scopes_for",
    "unauthorized",
]

logger = logging.getLogger("specsem.app")

ASK_S = 5.0
"""A database that doesn't answer for so long is away."""
AWAY = (SQLAlchemyError, TimeoutError)

P = ParamSpec("P")
T = TypeVar("T")

PUBLIC = frozenset(
    {"/", "/review", "/docs", "/openapi.json", "/healthz", "/readyz", "/.well-known/specsem-keys.json"}
)
"""With all below ``/static/``, what needs no key."""

_SCORE = frozenset({KeyScope.SCORE})
_JOBS = frozenset({KeyScope.JOBS})
_REVIEW = frozenset({KeyScope.REVIEW})
_ADMIN = frozenset({KeyScope.ADMIN})
_WEBHOOKS = frozenset({KeyScope.WEBHOOKS})
_ANSWERS = _SCORE | _JOBS | _REVIEW  # who may only score still reads what became of a video made a job
_ANY = frozenset(KeyScope)

SCOPES: dict[str, dict[str, frozenset[KeyScope]]] = {
    "/v1/score": {"POST": _SCORE},
    "/v1/videos": {"POST": _SCORE, "OPTIONS": _SCORE},
    "/v1/videos/{id}": dict.fromkeys(("GET", "HEAD", "PATCH", "POST", "DELETE", "OPTIONS"), _SCORE),
    "/v1/jobs": {"GET": _JOBS, "POST": _JOBS},
    "/v1/jobs/{id}": {"GET": _ANSWERS, "DELETE": _JOBS},
    "/v1/jobs/{id}/events": {"GET": _ANSWERS},
    "/v1/jobs/{id}/similar": {"GET": _ANSWERS},
    "/v1/jobs/{id}/views/{id}.png": {"GET": _ANSWERS},
    "/v1/webhooks": {"GET": _WEBHOOKS, "POST": _WEBHOOKS},
    "/v1/webhooks/{id}": dict.fromkeys(("GET", "PATCH", "DELETE"), _WEBHOOKS),
    "/v1/webhooks/{id}/rotate": {"POST": _WEBHOOKS},
    "/v1/webhooks/{id}/ping": {"POST": _WEBHOOKS},
    "/v1/webhooks/{id}/redeliver": {"POST": _WEBHOOKS},
    "/v1/webhooks/{id}/deliveries": {"GET": _WEBHOOKS},
    "/v1/webhooks/{id}/deliveries/{id}": {"GET": _WEBHOOKS},
    "/v1/webhooks/{id}/deliveries/{id}/redeliver": {"POST": _WEBHOOKS},
    "/v1/jobs/{id}/feedback": {"POST": _ANSWERS, "DELETE": _ANSWERS},
    "/v1/jobs/{id}/appeal": {"POST": _JOBS | _REVIEW},
    "/v1/jobs/{id}/statement": {"GET": _JOBS | _REVIEW},
    "/v1/feedback": {"GET": _REVIEW, "POST": _REVIEW},
    "/v1/feedback/{id}": {"DELETE": _REVIEW},
    "/v1/drift": {"GET": _ADMIN},
    "/v1/calibrations": {"GET": _ADMIN},
    "/v1/review": {"GET": _REVIEW},
    "/v1/review/{id}": {"PUT": _REVIEW, "DELETE": _REVIEW},
    "/v1/jobs/{id}/report": {"GET": _ANSWERS},
    "/v1/models": {"GET": _ANY},
    "/v1/policies": {"GET": _ANY},
    "/v1/policies/{id}": {"GET": _ANY},
    "/v1/policies.schema.json": {"GET": _ANY},
    "/metrics": {"GET": frozenset({KeyScope.METRICS})},
    "/version": {"GET": _ANY},
}
"""Any of these scopes opens a route. No key opens what is not here: a route that is new has to be put in."""

_PATTERNS = [
    (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), methods) for path, methods in SCOPES.items()
]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    tenant: str
    scopes: frozenset[KeyScope]
    key: str
    """What its key is called in logs and counters: never the key itself. Empty where none was needed."""
    quota: Quota | None
    """None: without bounds."""


ANYBODY = Caller(tenant="", scopes=_ANY, key="", quota=None)
"""Who asks a service that has no keys and is open on the loopback address."""


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path in PUBLIC or path.startswith("/static/")


def scopes_for(method: str, path: str) -> frozenset[KeyScope]:
    """The scopes of which one is needed.

    Raises:
        Problem: ``no_such_route`` (404) or ``method_not_allowed`` (405), no key opens it.
    """
    path = path.removesuffix("/")  # the router redirects it
    methods = next((methods for pattern, methods in _PATTERNS if pattern.fullmatch(path)), None)
    if methods is None:
        raise Problem("no_such_route", "Not Found")
    if method not in methods:
        raise Problem("method_not_allowed", "Method Not Allowed", headers={"Allow": ", ".join(methods)})
    return methods[method]


@dataclass(frozen=True, slots=True)
class _Known:
    """A row as it was looked up, and who comes with its key."""

    row: KeyRow
    caller: Caller
    at: float


class Keyring:
    """The keys that open this service. A stored key is looked up once in ``key_cache_s`` seconds."""

    def __init__(self, settings: Settings) -> None:
        """``opened`` brings those of the database.

        Raises:
            ExposureRefused: the file of keys can't be read or holds a weak key.
        """
        self._quota = Quota(parse_rate(settings.key_rate), settings.key_concurrency)
        self._cache_s = settings.key_cache_s
        configured = settings.keys()
        # Kept as digests: equal in length, so that comparing them tells nothing.
        digests = [sha256(key).digest() for key in configured]
        self._static = [(known, self._static_caller(known)) for known in digests]
        self._known: dict[str, _Known] = {}
        self._is_closed = bool(self._static)
        self._asked_at = -self._cache_s
        self._store: KeyStore | None = None
        self._reader: ThreadPoolExecutor
        self._writer: ThreadPoolExecutor

    @asynccontextmanager
    async def opened(self, store: KeyStore) -> AsyncIterator[None]:
        """With the keys of the database, while the block runs. Raises ``SQLAlchemyError``."""
        # Threads of its own: others wait for slow disks, a writer for writers, and a look-up for nobody.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="specsem-keys")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="specsem-key-use")
        self._store = store
        try:
            self._is_closed = bool(self._static) or not await asyncio.to_thread(store.is_empty)
            yield
        finally:
            self._store = None
            await asyncio.to_thread(self._reader.shutdown, wait=True)
            await asyncio.to_thread(self._writer.shutdown, wait=True)

    async def is_closed(self) -> bool:
        """Whether a key is needed: one is configured, or one was made. It may be revoked or expired by now:
        the last key to go doesn't open the service to everybody."""
        if self._store is not None and not self._static and self._is_stale(self._asked_at):
            self._asked_at = time.monotonic()
            try:
                self._is_closed = not await self._ask(self._store.is_empty)
            except AWAY as error:
                logger.error("the database of keys is away: %s", type(error).__name__)
        return self._is_closed

    async def caller(self, key: str, *, guessing: bool = False) -> Caller:
        """Who has this key. ``guessing``: whoever sends it was wrong too often. Then only a key that can't be
        guessed counts; those that a person chose are not even compared.

        Raises:
            Problem: ``unauthorized`` (401); ``not_ready`` (503), the database is away.
        """
        if not guessing:
            offered = sha256(key.encode("latin-1", "replace")).digest()
            # Every key is compared: the time taken doesn't tell which one came close.
            found = [caller for known, caller in self._static if hmac.compare_digest(offered, known)]
            if found:
                return found[0]
        if self._store is not None and (whole := KEY.fullmatch(key)):
            return await self._stored_caller(self._store, whole[1], key)
        raise unauthorized()

    async def _stored_caller(self, store: KeyStore, prefix: str, key: str) -> Caller:
        known = self._known.get(prefix)
        looked_up = known is None or self._is_stale(known.at)
        if looked_up:
            known = await self._look_up(store, prefix)
        if known is None or not hmac.compare_digest(known.row.sha256, digest(key)):
            raise unauthorized()
        if not is_usable(known.row):  # said to nobody but its holder
            raise unauthorized("This key was revoked." if known.row.revoked_at else "This key has expired.")
        if looked_up:
            self._writer.submit(self._note_use, store, known.row)
        return known.caller

    async def _look_up(self, store: KeyStore, prefix: str) -> _Known | None:
        try:
            row = await self._ask(store.find, prefix)
        except AWAY as error:
            logger.error("the database of keys is away: %s", type(error).__name__)
            raise Problem("not_ready", "The key can't be looked up right now; try again later.") from error
        if row is None:
            self._known.pop(prefix, None)
            return None
        known = self._known[prefix] = _Known(row, self._row_caller(row), time.monotonic())
        return known

    @staticmethod
    def _note_use(store: KeyStore, row: KeyRow) -> None:
        try:
            store.note_use(row)
        except SQLAlchemyError as error:  # no reason to refuse anybody
            logger.warning("the last use of key %s was not written: %s", row.prefix, type(error).__name__)

    def _static_caller(self, known: bytes) -> Caller:
        return Caller("", _ANY - {KeyScope.ADMIN}, f"configured-{known.hex()[:8]}", self._quota)

    def _row_caller(self, row: KeyRow) -> Caller:
        quota = Quota(
            parse_rate(row.rate) if row.rate else self._quota.rate, row.concurrency or self._quota.concurrency
        )
        return Caller(row.tenant, frozenset(map(KeyScope, row.scopes.split())), row.prefix, quota)

    def _is_stale(self, looked_up_at: float) -> bool:
        return time.monotonic() - looked_up_at >= self._cache_s

    async def _ask(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the store answers. Raises one of ``AWAY``."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(ASK_S):
            return await loop.run_in_executor(self._reader, lambda: call(*args, **kwargs))


def unauthorized(detail: str = "Send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.") -> Problem:
    """The refusal (401) of a key, or of a request without one."""
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="specsem"'})


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse to listen on ``host`` without a key, unless it is loopback.

    Raises:
        ExposureRefused: with a sentence that says what to do.
        StoreUnusable: the database of keys can't be used.
    """
    if is_loopback_name(host) or settings.keys() or _has_stored_keys(settings):
        return
    raise ExposureRefused(
        f"Listening on {host} would let every machine that can reach it use this service. "
        "Make a key first (specsem keys create), set SPECSEM_API_KEYS to some of your own, or listen on "
        "127.0.0.1."
    )


def _has_stored_keys(settings: Settings) -> bool:
    if settings.database_url is None and not settings.data_dir.exists():
        return False  # and none is made by asking
    with open_keys(settings) as store:
        return store.has_usable()
