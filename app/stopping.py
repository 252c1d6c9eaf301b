"""How the service stops: new work is refused from the signal on, what is in flight may finish, and nothing,
a forward that hangs included, keeps the process beyond its time.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Iterator

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import ProblemResponse, stopping

__all__ = ["SETTLE_S", "Drain", "Draining", "leave_within"]

logger = logging.getLogger("specsem.app")

SETTLE_S = 15.0
"""After the grace of requests and jobs: leases are handed back, processes and threads end."""
NEW_WORK = frozenset({"POST", "PUT", "PATCH"})


class Drain:
    """Which requests are in flight, and whether the service still takes work. For the event loop only."""

    def __init__(self) -> None:
        self.stopping = False
        self._in_flight: set[object] = set()
        self._awaited: set[object] = set()
        """Of these, the ones that came before the stop."""
        self._over = asyncio.Event()

    def stop(self) -> None:
        """From now on new work is refused."""
        self.stopping = True
        self._awaited = set(self._in_flight)
        self._look()

    async def wait(self, timeout_s: float) -> None:
        """Until all that was in flight at the stop is answered; or this time is over, or ``hurry`` called."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._over.wait()

    def hurry(self) -> None:
        """Wait no longer."""
        self._over.set()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """A request is in flight while the block runs."""
        request = object()
        self._in_flight.add(request)
        try:
            yield
        finally:
            self._in_flight.remove(request)
            self._awaited.discard(request)
            self._look()

    def _look(self) -> None:
        if self.stopping and not self._awaited:
            self._over.set()


class Draining:
    """Refuses new work once the service stops; what only looks or deletes is served to the end."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def closing_send(message: Message) -> None:
            if self.drain.stopping and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"  # ask again elsewhere
            await send(message)

        if self.drain.stopping and scope["method"] in NEW_WORK:
            await ProblemResponse(stopping())(scope, receive, closing_send)
            return
        with self.drain.request():
            await self.app(scope, receive, closing_send)


def leave_within(seconds: float, status: int) -> None:
    """End the process with this exit status if it is still there after so long.

    A thread that computes can't be interrupted, and the interpreter waits for it. Nothing is lost: leases
    that were not handed back run out, and the next start clears up what arrived here.
    """
    timer = threading.Timer(seconds, _leave, (seconds, status))
    timer.daemon = True
    timer.start()


def _leave(seconds: float, status: int) -> None:
    logger.error("not at an end after %g s: leaving as it is", seconds)
    logging.shutdown()
    os._exit(status)
