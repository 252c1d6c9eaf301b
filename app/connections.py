"""What uvicorn lacks towards hostile clients: a deadline for request heads, and bounds on connections.

Its keep-alive timer ends with the first byte of a request, and its limit counts requests: a client that sends
a head byte by byte, or none at all, would hold a connection for ever, and as many of them as it likes. What
comes after the head (slow and lying bodies) is ``app.uploads``' to bound.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from app.problems import Problem, ProblemResponse

__all__ = ["Bounds", "Connection"]

LINGER_S = 2.0
"""A refused client may go on sending for so long, unheard: closing at once resets, and it never sees why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What connections may cost."""

    connections: int
    """Open at a time."""
    per_address: int
    """Open at a time from one address."""
    proxies: Sequence[IPv4Network | IPv6Network]
    """Not bounded so: all clients of a proxy have its address."""
    head_timeout_s: float
    """From the connection, or from the first byte of a further request, until its head is complete."""


class Connection(H11Protocol):
    """One connection. Refuses in problem documents, as everything else here does."""

    def __init__(self, *args: Any, bounds: Bounds, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._refused = False
        self._head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Starts the clock of the first head, or shows the client the door."""
        super().connection_made(transport)
        if self._too_many():
            self._refuse(Problem("busy", "Too many connections are open; try again in a moment."))
            self.transport.close()  # no lingering: it would let the refused pile up
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """More of a request; nothing is heard any more of a client that was refused."""
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        """Whatever is complete is handled; a head that has only begun is on the clock."""
        super().handle_events()
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if not begun:
            self._stop_clock()
        elif self._head_due is None:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own sentence
        """Called by uvicorn for what is no HTTP, or contradicts itself."""
        self._refuse(Problem("malformed_request", "The request does not keep to HTTP/1.1."))

    def _too_many(self) -> bool:
        if max(len(self.connections), len(self.tasks)) > self._bounds.connections:
            return True
        if self.client is None:  # a Unix socket
            return False
        address = ip_address(self.client[0].partition("%")[0])
        if any(address in network for network in self._bounds.proxies):
            return False
        return sum(_address(other) == self.client[0] for other in self.connections) > self._bounds.per_address

    def _expect_head(self) -> None:
        self._head_due = self.loop.call_later(self._bounds.head_timeout_s, self._head_is_late)

    def _stop_clock(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(Problem("request_timeout", "The head of the request took too long to arrive."))
        else:  # never said a word
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer, hear nothing more, and close: the rest can't be made sense of."""
        self._refused = True
        self._stop_clock()
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:  # refused in the middle of a body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # another answer is on its way
            self.transport.close()
            return
        answer = ProblemResponse(problem)
        head = h11.Response(
            status_code=answer.status_code,
            headers=[*answer.raw_headers, (b"connection", b"close")],
            reason=STATUS_PHRASES[answer.status_code],
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()


def _address(connection: Any) -> str | None:
    return connection.client[0] if connection.client else None
