"""Our server, LitServe and Ray Serve around the same model, with the same clips and the same clients.

``make bench-servers`` (ARGS="--model real --batch 4 --clients 8"): three rounds with a model that sleeps 5 ms
and 0.5 ms an item, at 1, 8 and 64 clients. Each server has processes of its own on loopback (`served/`). The
rounds of all three are interleaved, so that a noisy neighbour meets them alike. A client sends its next
request when it has its answer. Prints JSON: requests a second, latencies, CPU of server and client; then the
CPU of each server while nobody asks.

With ``--model real`` the bare ``Scorer`` is measured in the same rounds, at full batches in a loop: on clips
that are decoded already, and with the decoding. `servers.md` holds what came of it and how each was set up.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specsem.synthetic import write_clip

HERE = Path(__file__).parent
BOUNDARY = b"a-boundary-of-some-length"
WARM_UP_S = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """One that runs."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int

    def cpu_s(self) -> float:
        """CPU seconds so far of its process and all below it."""
        return sum(seconds for _, seconds in self._tree())

    def end(self) -> None:
        """Stop it with all that it started."""
        below = [pid for pid, _ in self._tree()]
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _tree(self) -> list[tuple[int, float]]:
        """(pid, CPU seconds) of its process and all below it; Ray's have process groups of their own."""
        stats: dict[int, tuple[int, float]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    stats[int(folder.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            if pid in stats:
                found.append((pid, stats[pid][1]))
            todo += [child for child, (parent, _) in stats.items() if parent == pid]
        return found


@dataclass
class Seen:
    """What one round showed of one server."""

    seconds: float
    server_cpu_s: float
    client_cpu_s: float
    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0

    def figures(self) -> dict[str, float]:
        ordered = sorted(self.latencies_s)
        return {
            "requests_per_s": len(ordered) / self.seconds,
            "p50_ms": 1e3 * ordered[len(ordered) // 2],
            "p99_ms": 1e3 * ordered[int(len(ordered) * 0.99)],
            "server_cpu_ms_a_request": 1e3 * self.server_cpu_s / len(ordered),
            "server_cores": self.server_cpu_s / self.seconds,
            "client_cores": self.client_cpu_s / self.seconds,
            "refused": self.refused,
        }


@contextlib.contextmanager
def running(name: str, python: str, asked: argparse.Namespace) -> Iterator[Server]:
    """The server, once it answers."""
    with tempfile.TemporaryDirectory(prefix="specsem-bench-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        command = [python, str(HERE / "served" / f"with_{name}.py"), "--model", asked.model]
        command += ["--port", str(port), "--batch", str(asked.batch), "--folder", folder]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(HERE.parent), "RAY_AUTH_MODE": "disabled"},
            )
        server = Server(name, process, port)
        try:
            wait_until_it_answers(server, log)
            yield server
        finally:
            server.end()


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_it_answers(server: Server, log: Path, timeout_s: float = 180.0) -> None:
    """Anything but a refused connection or a 5xx will do: the path exists then."""
    ends = time.monotonic() + timeout_s
    while True:
        if server.process.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"{server.name} doesn't come up:\n{log.read_text(errors='replace')[-3000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/score", timeout=10)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.2)


def forms(model: str) -> list[bytes]:
    """The bodies that are sent in turn: some 4 kB for the model that sleeps, short clips for the real one."""
    if model == "sleep":
        contents = [b"SCORE:0.%02d " % number + os.urandom(4000) for number in range(8)]
    else:
        contents = []
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(4):
                path = Path(folder) / f"{seed}.mp4"
                write_clip(path, width=320, height=240, seconds=2.0, seed=seed)
                contents.append(path.read_bytes())
    head = (
        b'Content-Disposition: form-data; name="file"; filename="clip.mp4"\r\nContent-Type: video/mp4\r\n\r\n'
    )
    return [b"--%b\r\n%b%b\r\n--%b--\r\n" % (BOUNDARY, head, content, BOUNDARY) for content in contents]


async def client(port: int, bodies: list[bytes], first: int, ends: float, seen: Seen) -> None:
    """Asks, waits for the answer, asks again. Bare sockets: an HTTP library would cost more than a server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    requests = [
        b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=%b\r\n\r\n%b" % (port, len(body), BOUNDARY, body)
        for body in bodies
    ]
    number = first
    while (begun := time.perf_counter()) < ends:
        number += 1
        writer.write(requests[number % len(requests)])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if (length := head.partition(b"content-length:")[2]) == b"":  # chunked
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(int(length.split(b"\r\n", 1)[0]))
        if head.startswith(b"http/1.1 200"):
            seen.latencies_s.append(time.perf_counter() - begun)
        else:
            seen.refused += 1
    writer.close()


async def load(server: Server, bodies: list[bytes], clients: int, seconds: float) -> Seen:
    """So many clients at the server for so long."""
    seen = Seen(0.0, -server.cpu_s(), -time.process_time())
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(server.port, bodies, number, begun + seconds, seen))
    seen.seconds = time.perf_counter() - begun
    seen.server_cpu_s += server.cpu_s()
    seen.client_cpu_s += time.process_time()
    return seen


class Bare:
    """The scorer without any server, in a loop, at full batches."""

    def __init__(self, bodies: list[bytes], batch: int) -> None:
        sys.path.insert(0, str(HERE / "served"))
        from model import Real  # noqa: PLC0415 - torch only where it is asked for

        self.model = Real()
        contents = [body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0] for body in bodies]
        self.contents = [contents[number % len(contents)] for number in range(batch)]
        self.clips = [self.model.decode(content) for content in self.contents]

    def clips_per_s(self, seconds: float, *, decode: bool) -> float:
        """Clips a second, with or without the decoding of each."""
        begun, done = time.perf_counter(), 0
        while (now := time.perf_counter()) - begun < seconds:
            clips = [self.model.decode(content) for content in self.contents] if decode else self.clips
            self.model.score(clips)
            done += len(clips)
        return done / (time.perf_counter() - begun if done else now - begun)


def median_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure the median over the rounds."""
    return {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("sleep", "real"), default="sleep")
    parser.add_argument("--batch", type=int, default=64, help="Most items of a batch, for all.")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--servers", nargs="+", default=["specsem", "litserve", "ray"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="Of one server in one round.")
    parser.add_argument("--idle-s", type=float, default=60.0, help="How long nobody asks, at the end.")
    parser.add_argument("--others-python", default=str(HERE.parent / ".venv-servers" / "bin" / "python"))
    asked = parser.parse_args()
    bodies = forms(asked.model)
    bare = Bare(bodies, asked.batch) if asked.model == "real" else None
    report: dict[str, Any] = {
        "asked": vars(asked),
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "load_before": os.getloadavg()[0],
        },
    }
    rounds: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    bare_rounds: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                running(name, sys.executable if name == "specsem" else asked.others_python, asked)
            )
            for name in asked.servers
        ]
        for server in servers:
            asyncio.run(load(server, bodies, max(asked.clients), WARM_UP_S))
        for number in range(asked.rounds):
            for clients in asked.clients:
                for server in servers:
                    seen = asyncio.run(load(server, bodies, clients, asked.seconds))
                    rounds[f"{server.name}, {clients} clients"].append(seen.figures())
            if bare is not None:
                names = {"scored": False, "decoded_and_scored": True}
                bare_rounds.append(
                    {name: bare.clips_per_s(asked.seconds, decode=decode) for name, decode in names.items()}
                )
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
        report["servers"] = {name: median_of(found) for name, found in rounds.items()}
        if bare_rounds:
            report["bare_scorer_clips_per_s"] = median_of(bare_rounds)
        if asked.idle_s:
            before = [server.cpu_s() for server in servers]
            time.sleep(asked.idle_s)
            report["idle_cores"] = {
                server.name: round((server.cpu_s() - cpu_s) / asked.idle_s, 4)
                for server, cpu_s in zip(servers, before, strict=True)
            }
    report["machine"]["load_after"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
