"""Mixed uploads, good and hostile, against a service of its own: do memory, descriptors and disk stay flat?

    python benchmarks/soak.py --uploads 2000 --clients 50                  # a stand-in for the model
    python benchmarks/soak.py --uploads 2000 --clients 50 --model real     # as it ships

Decoders, sockets, disk and database are real either way. Writes soak-MODEL.json (each sample, and how much
each figure rises over the second half), and soak-MODEL.svg. Exit code 1 if anything was answered by
a 5xx or is left over.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import numpy as np

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS / "integration")]

from serving import LIGHT, SERVICE, Server, children, serving  # noqa: E402

from specsem.synthetic import write_clip  # noqa: E402
from tests.media.bombs import BOMBS  # noqa: E402

SAMPLE_S = 0.25
MIB = 2**20
COSTLY = ("200,000 tags", "8,192 x 4,352", "GIF of 8,000 x 4,000, 500 frames", "GIF of 200,000 frames")
"""Bombs that cost a decoder seconds: a soak of these would show their cost alone."""


@dataclass(frozen=True)
class Sample:
    """What the service holds at a moment. Sizes in MiB."""

    seconds: float
    uploads: int
    """Uploads that have ended so far."""
    memory: float
    """Resident, of the service's process."""
    decoders_memory: float
    descriptors: int
    threads: int
    processes: int
    disk: float


SHOWN = ("memory", "decoders_memory", "descriptors", "threads", "processes", "disk")


def sample(server: Server, seconds: float, uploads: int) -> Sample:
    """Look at the service's process, its decoders and its data folder."""
    pid, decoders = server.process.pid, children(server.process.pid)
    return Sample(
        seconds=round(seconds, 2),
        uploads=uploads,
        memory=round(_status(pid, "VmRSS") / 1024, 2),
        decoders_memory=round(sum(_status(child, "VmRSS") for child in decoders) / 1024, 2),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=_status(pid, "Threads"),
        processes=len(decoders),
        disk=round(_disk(server.data_dir) / MIB, 3),
    )


def _status(pid: int, name: str) -> int:
    """A figure of ``/proc/PID/status``; 0 of a process that has gone meanwhile."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def _disk(folder: Path) -> int:
    """Bytes that files take on disk, but for those that go meanwhile."""
    total = 0
    for inside, _, names in os.walk(folder):  # and not rglob, which stumbles over a folder that goes
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(inside, name).stat().st_blocks * 512
    return total


@dataclass
class Traffic:
    """What clients do. Every upload is of bytes that never came before."""

    client: httpx.AsyncClient
    server: Server
    clips: list[bytes]
    bombs: list[bytes]
    rng: random.Random
    answers: Counter[str] = field(default_factory=Counter)

    async def upload(self) -> None:
        """One of ``WAYS``."""
        (way,) = self.rng.choices(list(WAYS), weights=list(WAYS.values()))
        await way(self)

    def _clip(self) -> bytes:
        return self.rng.choice(self.clips) + self.rng.randbytes(16)  # behind its end: the same video

    async def _answered(self, way: str, answer: Awaitable[httpx.Response]) -> httpx.Response:
        response = await answer
        self.answers[f"{way} {response.status_code}"] += 1
        return response

    async def score(self) -> None:
        """A raw body."""
        await self._answered("score", self.client.post("/v1/score", content=self._clip()))

    async def form(self) -> None:
        """A form."""
        await self._answered("form", self.client.post("/v1/score", files={"file": ("a.mp4", self._clip())}))

    async def stored(self) -> None:
        """Stored, scored by its id, deleted."""
        kept = await self._answered("store", self.client.post("/v1/videos", content=self._clip()))
        video = kept.json().get("id")
        await self._answered("score stored", self.client.post("/v1/score", json={"video": video}))
        await self._answered("delete stored", self.client.delete(f"/v1/videos/{video}"))

    async def job(self) -> None:
        """A job, awaited and deleted; one in three is deleted before it is done."""
        job = (await self._answered("job", self.client.post("/v1/jobs", content=self._clip()))).json()
        while self.rng.random() < 0.97 and job.get("status") in {"queued", "running"}:
            await asyncio.sleep(0.5)
            job = (await self.client.get(f"/v1/jobs/{job['id']}")).json()
        self.answers[f"job {job.get('status')}"] += 1
        await self._answered("delete job", self.client.delete(f"/v1/jobs/{job.get('id')}"))

    async def bad(self) -> None:
        """A bomb, or half a clip."""
        half = self._clip()[:4000]
        content = half if self.rng.random() < 0.3 else self.rng.choice(self.bombs)
        await self._answered("bad", self.client.post("/v1/score", content=content))

    async def cut(self) -> None:
        """Half of the body, and the client is gone."""
        content = self._clip()
        await self._leave(content, content[: len(content) // 2], 0.0)

    async def left(self) -> None:
        """All of it, and the client is gone before its answer."""
        content = self._clip()
        await self._leave(content, content, self.rng.random() / 5)

    async def _leave(self, announced: bytes, sent: bytes, wait_s: float) -> None:
        _, writer = await asyncio.open_connection(self.server.host, self.server.port)
        head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(announced)}\r\n\r\n"
        writer.write(head.encode() + sent)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await asyncio.sleep(wait_s)
            writer.close()
            await writer.wait_closed()
        self.answers["left"] += 1


WAYS: dict[Callable[[Traffic], Awaitable[None]], int] = {
    Traffic.score: 30,
    Traffic.form: 10,
    Traffic.stored: 15,
    Traffic.job: 10,
    Traffic.bad: 20,
    Traffic.cut: 10,
    Traffic.left: 5,
}
"""What clients do, and of a hundred uploads how many."""


async def soak(server: Server, traffic: Traffic, uploads: int, clients: int) -> list[Sample]:
    """So many uploads by so many clients at a time, with samples all along and at rest at both ends."""
    begun, ended, left = time.monotonic(), 0, uploads
    samples: list[Sample] = []

    async def look() -> None:
        samples.append(await asyncio.to_thread(sample, server, time.monotonic() - begun, ended))

    async def watch() -> None:
        while True:
            await look()
            await asyncio.sleep(SAMPLE_S)

    async def work() -> None:
        nonlocal ended, left
        while left > 0:
            left -= 1
            await traffic.upload()
            ended += 1

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work() for _ in range(clients)))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    for _ in range(100):  # who left is noticed in a moment
        if not server.uploads():
            break
        await asyncio.sleep(0.1)
    await look()
    return samples


def rises(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """By figure: its mean and slope over the second half of the uploads; units a thousand uploads."""
    half = [s for s in samples if s.uploads >= samples[-1].uploads / 2] or samples
    x = np.array([s.uploads for s in half], float)
    found = {}
    for name in SHOWN:
        y = np.array([getattr(s, name) for s in half], float)
        slope = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) else 0.0
        found[name] = {"mean": round(float(y.mean()), 2), "rise_per_1000": round(1000 * slope, 3)}
    return found


def plot(samples: list[Sample], path: Path, title: str) -> None:
    """One panel a figure, over the uploads that have ended."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of where it draws

    labels = ("service, MiB", "decoders, MiB", "descriptors", "threads", "decoder processes", "disk, MiB")
    figure, axes = plt.subplots(3, 2, figsize=(9, 7), sharex=True, layout="constrained")
    for axis, name, label in zip(axes.flat, SHOWN, labels, strict=True):
        axis.plot([s.uploads for s in samples], [getattr(s, name) for s in samples], linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("uploads that have ended")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def clips(folder: Path) -> list[bytes]:
    """Short clips of several sizes and lengths."""
    made = []
    for number, (side, seconds) in enumerate([(96, 0.4), (160, 0.5), (240, 1.0), (320, 0.6)]):
        path = folder / f"{number}.mp4"
        write_clip(path, width=side, height=side * 3 // 4, seconds=seconds, seed=number)
        made.append(path.read_bytes())
    return made


def run(folder: Path, asked: argparse.Namespace) -> tuple[list[Sample], Counter[str], list[str]]:
    """Samples, answers by what was asked, and what is left over in the data folder at the end."""
    clips_made, bombs = clips(folder), [b.content() for b in BOMBS if b.name not in COSTLY]

    async def clients(server: Server) -> tuple[list[Sample], Counter[str]]:
        limits = httpx.Limits(max_connections=asked.clients)
        async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as client:
            traffic = Traffic(client, server, clips_made, bombs, random.Random(asked.seed))
            return await soak(server, traffic, asked.uploads, asked.clients), traffic.answers

    command = LIGHT if asked.model == "light" else SERVICE
    settings = {"max_queue_clips": 2 * asked.clients, "access_log": "false"}
    with serving(command, folder / "data", **settings) as server:
        server.wait_ready()
        samples, answers = asyncio.run(clients(server))
        kept = [
            *server.uploads(),
            *(server.data_dir / "videos").iterdir(),
            *(server.data_dir / "jobs").iterdir(),
        ]
        return samples, answers, [path.relative_to(server.data_dir).as_posix() for path in kept]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--model", choices=("light", "real"), default="light")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="specsem-soak-") as folder:
        samples, answers, left_over = run(Path(folder), asked)
    failed = sum(count for answer, count in answers.items() if answer.split()[-1].startswith("5"))
    report: dict[str, Any] = {
        "setting": {name: value for name, value in vars(asked).items() if name != "out"},
        "seconds": samples[-1].seconds,
        "answers": dict(sorted(answers.items())),
        "failed": failed,
        "left_over": left_over,
        "second_half": rises(samples),
    }
    print(json.dumps(report, indent=2))
    asked.out.mkdir(parents=True, exist_ok=True)
    stem = asked.out / f"soak-{asked.model}"
    table = {"columns": [f.name for f in fields(Sample)], "samples": [astuple(s) for s in samples]}
    stem.with_suffix(".json").write_text(json.dumps(report | table) + "\n")
    title = f"{asked.uploads} mixed uploads, {asked.clients} clients, model: {asked.model}"
    plot(samples, stem.with_suffix(".svg"), title)
    return 1 if failed or left_over else 0


if __name__ == "__main__":
    sys.exit(main())
