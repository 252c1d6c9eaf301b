"""Another machine's web server, on loopback: each path does what a test says, and may do it badly."""

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NO_OPENSSL = "" if shutil.which("openssl") else "there is no openssl to make a certificate with"

Act = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Origin:
    """A running server, and what it was asked."""

    port: int
    acts: dict[str, Act]
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, and headers in lower case."""
    dropped: threading.Event = field(default_factory=threading.Event)
    """Set when a client left before the end."""

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@contextmanager
def origin(
    acts: Mapping[str, Act],
    *,
    otherwise: Act | None = None,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Origin]:
    """Serve until the block ends. A path that is in nobody's mind is 404, unless ``otherwise`` says so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            running.asked.append((self.command, self.path, headers))
            try:
                running.acts.get(self.path.partition("?")[0], otherwise or status(404))(self)
            except OSError:
                running.dropped.set()
            self.close_connection = True

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            running.dropped.set()

    server = Server(("127.0.0.1", port), Handler)
    running = Origin(server.server_port, dict(acts))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def gives(data: bytes, **headers: str) -> Act:
    """200 with its length; underscores in a header's name are hyphens."""

    def act(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in ({"Content_Length": str(len(data))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return act


def status(code: int, **headers: str) -> Act:
    def act(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return act


def in_turn(*acts: Act) -> Act:
    """Each once; the last for ever."""
    left = list(acts)

    def act(request: BaseHTTPRequestHandler) -> None:
        following = left.pop(0) if len(left) > 1 else left[0]
        following(request)

    return act


def raw(data: bytes) -> Act:
    """These bytes and nothing else."""
    return lambda request: request.wfile.write(data) and None


def dripping(data: bytes, *, pause_s: float, length: int | None = None) -> Act:
    """Byte after byte, slowly; ``length`` is announced."""

    def act(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length is not None:
            request.send_header("Content-Length", str(length))
        request.end_headers()
        for byte in data:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            time.sleep(pause_s)

    return act


def endless(request: BaseHTTPRequestHandler) -> None:
    """No length, and no end."""
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"x" * 4096)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A self-signed one for this host name: for the server, and for a client that trusts it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
    names = ["-addext", f"subjectAltName=DNS:{name}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *names, *files], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
