"""What surrounds a request, in plain ASGI: one ``@app.middleware("http")`` would hide ``http.disconnect``.

From the outside in: ``app.observability.requests`` (ids and logs), ``Shield`` (headers, and no stack trace
ever leaves), ``Lingering`` (a refusal reaches the client though its upload is still on the way),
``AccessGuard`` (who may ask, and how much).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import ANYBODY, Caller, Keyring, is_public, scopes_for, unauthorized
from app.observability.logs import add_to_lines
from app.observability.requests import request_id
from app.problems import Problem, ProblemResponse, stopping
from app.quotas import Failures, Quotas, network_of
from app.settings import is_loopback_address, is_loopback_name

__all__ = ["CALLER", "CONTENT_SECURITY_POLICY", "AccessGuard", "Lingering", "Shield"]

logger = logging.getLogger("specsem.app")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LINGER_S = 2.0
LINGER_BYTES = 16 * 1024**2
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CALLER = "specsem.caller"
"""Where ``AccessGuard`` leaves the ``Caller`` in the scope."""


class Shield:
    """Security headers on every answer; an unforeseen error is a bare 500 with the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if _route_path(scope).startswith("/v1/"):
                    headers["Cache-Control"] = "no-store"
                else:  # asked again with its ETag, so that an upgrade shows at once
                    headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        try:
            await self.app(scope, receive, guarded_send)
        except asyncio.CancelledError:
            # The server stops and its grace is over: whoever still waits is told so. Ends here, as asked.
            if not started:
                await ProblemResponse(stopping())(scope, receive, guarded_send)
        except Exception:
            # The path is the client's text: repr keeps control characters out of the log.
            logger.exception(
                "request %s failed: %s %r", request_id(scope), scope["method"], scope["path"][:200]
            )
            if started:
                raise  # too late for another answer: the server cuts the connection
            problem = Problem(
                "internal_error",
                "The request failed on our side. The log has more under this id.",
                instance=f"urn:request:{request_id(scope)}",
                id=request_id(scope),
            )
            await ProblemResponse(problem)(scope, receive, guarded_send)


class Lingering:
    """Answer first, then throw away the rest of an unread body for at most two seconds or 16 MiB, then close.

    Closing a socket with unread data resets it, and the client would never see why it was refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _announces_body(headers := Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        app = self.app
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy that goes by the other one sees another request in the same bytes (smuggling).
            app = ProblemResponse(
                Problem(
                    "malformed_request",
                    "Send a Content-Length or a Transfer-Encoding, not both.",
                    headers={"Connection": "close"},
                )
            )
        complete = False

        async def watched_receive() -> Message:
            nonlocal complete
            message = await receive()
            complete = complete or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def lingering_send(message: Message) -> None:
            if complete:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _drain(watched_receive, lambda: complete)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await app(scope, watched_receive, lingering_send)


def _announces_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _drain(receive: Receive, complete: Callable[[], bool]) -> None:
    seen = 0
    with anyio.move_on_after(LINGER_S):
        while not complete() and seen <= LINGER_BYTES:
            seen += len((await receive()).get("body", b""))


class AccessGuard:
    """Who may ask, and how much: the address it came in by, the host name, the site it came from, the key
    with its scopes and its quota. All of it before the body."""

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring, failures: Failures, allowed_hosts: Sequence[str]
    ) -> None:
        self.app = app
        self.keyring = keyring
        self.failures = failures
        self.quotas = Quotas()
        self.allowed_hosts = frozenset(host.lower().rstrip(".") for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            try:
                await self._pass_on(scope, receive, send)
            except Problem as problem:
                await ProblemResponse(problem)(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ``Problem`` for what is refused here; the application answers its own."""
        headers, path = Headers(scope=scope), _route_path(scope)
        closed = await self.keyring.is_closed()
        self._check_exposed(scope, closed=closed)
        self._check_host(headers, closed=closed)
        _check_site(scope["method"], headers)
        if not closed:
            scope[CALLER] = ANYBODY
        if not closed or is_public(path):
            await self.app(scope, receive, send)
            return
        caller = await self._caller(headers, (scope.get("client") or ("",))[0])
        add_to_lines(key=caller.key)
        assert caller.quota is not None  # noqa: S101 - every key has one
        async with self.quotas.held(caller.key, caller.quota) as limits:
            if caller.scopes.isdisjoint(scopes_for(scope["method"], path)):
                raise Problem("forbidden", "This key lacks the scope for this.", headers=limits)
            scope[CALLER] = caller
            await self.app(scope, receive, _with_headers(send, limits))

    async def _caller(self, headers: Headers, address: str) -> Caller:
        """Who has the key that was sent. Wrong ones are counted."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        offered = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not offered:
            raise unauthorized()
        network = network_of(address)
        wait_s = await self.failures.wait_s(network)
        try:
            return await self.keyring.caller(offered, guessing=wait_s > 0)
        except Problem as problem:
            if problem.code != "unauthorized":
                raise
            if wait_s:
                raise Problem(
                    "rate_limited",
                    "Too many wrong keys came from this address; try again later.",
                    headers={"Retry-After": str(wait_s)},
                ) from problem
            await self.failures.count(network)
            if await self.failures.wait_s(network):
                logger.warning("too many wrong keys from %s", network)
            raise

    def _check_exposed(self, scope: Scope, *, closed: bool) -> None:
        """Without keys only loopback is served, however the server was started (uvicorn by hand, say)."""
        server = scope.get("server")
        if closed or server is None or server[1] is None:  # None: a Unix socket, which has its own modes
            return
        if is_loopback_address(server[0]) or server[0] == "localhost":
            return
        raise Problem(
            "exposure_refused",
            "This service has no keys and answers on the loopback address only. Its operator must make one "
            "(specsem keys create) or set SPECSEM_API_KEYS before other machines may use it.",
        )

    def _check_host(self, headers: Headers, *, closed: bool) -> None:
        """Against DNS rebinding: a page of evil.example at 127.0.0.1 still says its own name."""
        if closed and not self.allowed_hosts:
            return  # such a page has no key
        host = _host_name(headers.get("host", ""))
        if host and (is_loopback_name(host) or host in self.allowed_hosts):
            return
        raise Problem(
            "host_refused", "This host name is not served here; SPECSEM_ALLOWED_HOSTS names those that are."
        )


def _check_site(method: str, headers: Headers) -> None:
    """No other web site may make a visitor's browser write here."""
    if method in SAFE_METHODS:
        return
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None:
        allowed = site in {"same-origin", "none"}
    elif origin is not None:
        allowed = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    else:
        allowed = True  # no browser
    if not allowed:
        raise Problem("cross_site", "Requests from pages of other sites are refused.")


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return sending


def _route_path(scope: Scope) -> str:
    """The path as the router sees it: under ``uvicorn --root-path`` or a mount, the scope's is longer."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _host_name(host: str) -> str:
    """``[::1]:8000`` -> ``::1``, ``localhost:8000`` -> ``localhost``; empty where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
