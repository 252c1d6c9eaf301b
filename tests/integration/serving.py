"""Real servers as subprocesses on free loopback ports, and small clips made here."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import httpx

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
DOUBLES = [sys.executable, str(ROOT / "tests" / "app" / "doubles.py")]
"""A server whose decoder and model are stand-ins (see that file for what a file's content does)."""
SERVICE = [sys.executable, "-m", "specsem", "serve"]
"""The service as it ships."""
LIGHT = [sys.executable, str(ROOT / "tests" / "light_specsem.py"), "serve"]
"""The service with its real decoders and a stand-in for the model."""
WORKER = [sys.executable, "-m", "specsem", "worker"]
"""The worker as it ships."""


@dataclass
class Server:
    """A running server."""

    process: "subprocess.Popen[str]"
    url: str
    data_dir: Path
    log: Path
    host: str = "127.0.0.1"
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.port = int(self.url.rpartition(":")[2])

    def uploads(self) -> list[Path]:
        """Folders of uploads that are arriving or being scored."""
        return [path for path in (self.data_dir / "uploads").glob("*/*") if path.is_dir()]

    def wait_ready(self, timeout_s: float = 90) -> None:
        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz").status_code == 200
            except httpx.TimeoutException:  # it loads its model, on a machine with much else to do
                return False

        until(ready, timeout_s)

    def stop(self, how: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout_s)


def environment(data_dir: Path, **settings: object) -> dict[str, str]:
    """A clean environment: no setting of the user's, and no proxy between a test and its server."""
    kept = {
        name: value for name, value in os.environ.items() if not re.match(r"SPECSEM_|.*_proxy$", name, re.I)
    }
    given = {f"SPECSEM_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | {"SPECSEM_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), "SPECSEM_PORT": "0"} | given


@contextmanager
def serving(command: list[str], data_dir: Path, **settings: object) -> Iterator[Server]:
    """Start a server, wait until it listens, and stop it at the end."""
    with _started(command, data_dir, settings) as (process, log):
        yield Server(process, _address(process, log), data_dir, log)


@contextmanager
def working(
    data_dir: Path, command: Sequence[str] = (*DOUBLES, "worker"), **settings: object
) -> "Iterator[subprocess.Popen[str]]":
    """A worker at work, beside a server on the same data folder."""
    with _started(command, data_dir, settings) as (process, log):
        assert "works on jobs" in _first_line(process), log.read_text()
        yield process


@contextmanager
def _started(
    command: Sequence[str], data_dir: Path, settings: dict[str, object]
) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """The process, ended at the end, and what it writes to standard error."""
    log = data_dir.with_suffix(".log")
    with log.open("a") as stderr:
        process = subprocess.Popen(
            command,
            env=environment(data_dir, **settings),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield process, log
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 120)
    return process.stdout.readline() if ready else ""


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    line = _first_line(process)
    found = re.search(r"http://\S+:\d+", line)
    assert found, f"no address in {line!r}\n{log.read_text()}"
    return found[0]


def free_port() -> int:
    """One on loopback that nobody listens on, a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@contextmanager
def documented_receiver(port: int, secret: str) -> Iterator[IO[str]]:
    """The receiver of docs/webhooks.md as a process, and what it prints: a line for each event, once it has
    verified the message: type, job, verdict."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "webhooks.md").read_text("utf-8"), re.M | re.S
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        _stop(process)


def children(pid: int) -> list[int]:
    """Processes that a process started and that are there yet, zombies too."""
    return [
        int(child)
        for tasks in Path(f"/proc/{pid}/task").glob("*/children")
        for child in tasks.read_text().split()
    ]


def below(pid: int) -> dict[int, bytes]:
    """Pid -> command line of all that a process started, and what those started."""
    found: dict[int, bytes] = {}
    todo = [pid]
    while todo:
        parent = todo.pop()
        with suppress(OSError):  # it, or a thread of it, has just ended
            todo += children(parent)
        with suppress(OSError):
            found[parent] = Path(f"/proc/{parent}/cmdline").read_bytes()
    found.pop(pid, None)
    return found


def until(condition: Callable[[], T], timeout_s: float = 10) -> T:
    """Wait for a condition to hold; what it then is."""
    ends = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.02)
    return found


def connect(server: Server, path: str, *headers: str) -> socket.socket:
    """A connection that has sent the head of a POST."""
    connection = socket.create_connection((server.host, server.port), timeout=10)
    head = "\r\n".join([f"POST {path} HTTP/1.1", f"Host: {server.host}:{server.port}", *headers])
    connection.sendall(head.encode() + b"\r\n\r\n")
    return connection


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer_of(connection: socket.socket) -> str:
    """What arrives until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts).decode()
