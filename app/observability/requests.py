"""The outermost layer around every request, in plain ASGI: its id, its log line, its metrics, its span."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability.logs import on_every_line
from app.observability.telemetry import Telemetry, no_span
from app.problems import code_of_answer

__all__ = ["PROBES", "Observed", "request_id"]

logger = logging.getLogger("specsem.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LONGEST_METHOD = 16
LINE = "%(client)s %(method)s %(route)s %(status)d, %(bytes_in)d bytes in, %(duration_ms).1f ms"
REQUEST_ID_KEY = "specsem.request_id"
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: answered well, they leave a line at DEBUG only, and no span."""


def request_id(scope: Scope) -> str:
    """The id of this request."""
    return str(scope[REQUEST_ID_KEY])


class Observed:
    """Tells of every request how it was answered. Never its query, a file's name or a key.

    The id is the client's ``X-Request-Id`` where that is short and harmless, so that its log and ours speak
    of the same request; else a random one. It is on the answer too.
    """

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, access_log: bool) -> None:
        self.app = app
        self._telemetry = telemetry
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.monotonic()
        headers = Headers(scope=scope)
        method, probe = scope["method"], scope["path"] in PROBES
        scope[REQUEST_ID_KEY] = identity = _identity(headers)
        status = bytes_in = 0

        async def counted_receive() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            await send(message)

        with (
            on_every_line(request_id=identity),
            no_span() if probe else self._telemetry.request(method, headers) as answered,
        ):
            try:
                await self.app(scope, counted_receive, watched_send)
            finally:
                seconds = time.monotonic() - begun
                route, code = _route(scope), code_of_answer(scope)
                self._telemetry.metrics.request(route, method, status, seconds, code)
                answered(route, status, code)
                if self._access_log:
                    facts: dict[str, object] = {
                        "client": (scope.get("client") or ("-",))[0],
                        "method": method[:LONGEST_METHOD],
                        "route": route,
                        "status": status,
                        "bytes_in": bytes_in,
                        "duration_ms": round(seconds * 1e3, 1),
                    }
                    if code is not None:
                        facts["code"] = code
                    logger.log(
                        logging.DEBUG if probe and status < 400 else logging.INFO,
                        LINE + (", %(code)s" if code else ""),
                        facts,
                        extra=facts,
                    )


def _identity(headers: Headers) -> str:
    sent = headers.getlist("x-request-id")
    return sent[0] if len(sent) == 1 and REQUEST_ID.fullmatch(sent[0]) else secrets.token_hex(8)


def _route(scope: Scope) -> str:
    """The template of the route, so that no client makes up names: all that has none is one."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    return "/static" if "endpoint" in scope else "unmatched"
