"""A receiver of webhooks on loopback, which keeps what it got and answers as a test says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from origin import origin, status
from standardwebhooks import Webhook

Answer = int | tuple[int, dict[str, str]] | Callable[[], int]


@dataclass
class Message:
    """One that arrived."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """What it says, if the library finds a signature by this secret. Raises its errors."""
        return dict(Webhook(secret).verify(self.body, self.headers))


@dataclass
class Receiver:
    """Its ``answer`` may be changed at any time."""

    port: int = 0
    answer: Answer = 204
    """A status, maybe with headers, or a function that gives one."""
    messages: list[Message] = field(default_factory=list)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def allowing(self) -> dict[str, Any]:
        """Settings of an operator who lets webhooks lead here."""
        return {"webhook_http": True, "webhook_ports": [self.port], "webhook_internal": ["127.0.0.1"]}

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


@contextmanager
def receiver(answer: Answer = 204, *, port: int = 0) -> Iterator[Receiver]:
    """Listens until the block ends."""
    running = Receiver(answer=answer)

    def take(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        running.messages.append(Message(request.path, headers, body))
        answer = running.answer() if callable(running.answer) else running.answer
        code, more = answer if isinstance(answer, tuple) else (answer, {})
        status(code, **more)(request)

    with origin({}, otherwise=take, port=port) as server:
        running.port = server.port
        yield running
