"""A receiver of webhooks on loopback, which keeps what it got and answers as a test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            running.messages.append(Message(self.path, headers, body))
            answer = running.answer() if callable(running.answer) else running.answer
            status, more = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:  # the sender left: it was killed, say
            pass

    server = Server(("127.0.0.1", port), Handler)
    running.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
