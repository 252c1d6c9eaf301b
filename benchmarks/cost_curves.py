"""How cost grows with the work: clips, length, resolution, clients. One run of each, with memory.

    python benchmarks/cost_curves.py                 # all of it: about an hour
    python benchmarks/cost_curves.py --curve length --most 600

Decoders, files, server and disk are real; a stand-in takes the model's place (tests/light_specsem.py), whose
cost does not hang on what is varied here: it is so much a window. Reported are seconds on the clock, CPU
seconds of all processes together (which other work on the machine moves little), and the largest sum of their
resident memory. The clips are drawn: a repeated scene of H.264, small where there are many. Writes
cost_curves.csv, of which a run replaces its own curves only, and cost_curves.svg.
"""

import argparse
import asyncio
import contextlib
import csv
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import av
import httpx
import matplotlib as mpl

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]

from serving import LIGHT, serving  # noqa: E402

from specsem.synthetic import write_clip  # noqa: E402

SCORE = [sys.executable, str(ROOT / "tests" / "light_specsem.py"), "score", "--json"]
SAMPLE_S = 0.05
MIB = 1 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CLIPS = (1, 10, 100, 1_000, 10_000)
LENGTHS_S = (10, 60, 600, 3_600, 7_200)
SIZES = ((426, 240), (640, 360), (1280, 720), (1920, 1080), (3840, 2160))
CLIENTS = (1, 4, 16, 64, 256)
UPLOADS = 512


@dataclass(frozen=True)
class Cost:
    """One point. ``x`` is in ``unit``."""

    curve: str
    x: int
    unit: str
    seconds: float
    cpu_s: float
    peak_mib: float


class Watch:
    """CPU time and memory of a process and all below it, sampled while it runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu: dict[int, float] = {}
        self._peak = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._go, daemon=True)

    def __enter__(self) -> "Watch":
        self._sample()
        self._before = dict(self._cpu)
        self._begin = time.perf_counter()
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin
        self._over.set()
        self._sampler.join()
        self._sample()
        self.cpu_s = sum(used - self._before.get(pid, 0.0) for pid, used in self._cpu.items())
        self.peak_mib = self._peak / MIB

    def _go(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        resident = 0
        for pid in _tree(self._pid):
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                self._cpu[pid] = max(self._cpu.get(pid, 0.0), (int(stat[11]) + int(stat[12])) * TICK_S)
                resident += int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
        self._peak = max(self._peak, resident)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text(encoding="utf-8").split():
                yield from _tree(int(child))


def scored(curve: str, x: int, unit: str, *arguments: str) -> Cost:
    """The cost of one command, from its start to its end."""
    process = subprocess.Popen([*SCORE, *arguments], stdout=subprocess.PIPE, cwd=ROOT)
    with Watch(process.pid) as watch:
        said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"score {arguments} ended with {process.returncode}: {said[-500:]!r}")
    return Cost(curve, x, unit, round(watch.seconds, 3), round(watch.cpu_s, 3), round(watch.peak_mib, 1))


def clips(folder: Path, most: int) -> Iterator[Cost]:
    """A folder of so many clips, of eight contents, a second of 320x240 each."""
    drawn = [folder / f"drawn-{seed}.mp4" for seed in range(8)]
    for seed, path in enumerate(drawn):
        write_clip(path, width=320, height=240, seconds=1.0, seed=seed)
    for count in (count for count in CLIPS if count <= most):
        many = folder / str(count)
        many.mkdir()
        for number, path in zip(range(count), itertools.cycle(drawn)):
            (many / f"{number:05}.mp4").hardlink_to(path)
        yield scored("clips", count, "clips", str(many))


def looped(source: Path, target: Path, seconds: int) -> None:
    """The packets of ``source`` over and over, until they last so long."""
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = given.streams.video[0]
        out = container.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.dts is not None]
        assert stream.time_base is not None
        assert stream.duration is not None
        for turn in range(int(seconds / float(stream.duration * stream.time_base) + 0.999)):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts = (packet.pts or 0) + turn * stream.duration
                again.dts = (packet.dts or 0) + turn * stream.duration
                again.time_base, again.is_keyframe, again.stream = stream.time_base, packet.is_keyframe, out
                again.duration = packet.duration
                container.mux(again)


def lengths(folder: Path, most: int) -> Iterator[Cost]:
    """320x240 of so many seconds, a key frame every ten: windows spread over it, and all of it."""
    source = folder / "ten.mp4"
    write_clip(source, width=320, height=240, seconds=10.0)
    for seconds in (length for length in LENGTHS_S if length <= most):
        path = folder / f"{seconds}.mp4"
        looped(source, path, seconds)
        yield scored("length", seconds, "s of video, windows", str(path))
        yield scored("thorough", seconds, "s of video, all of it", "--thorough", str(path))
        path.unlink()


def resolutions(folder: Path, most: int) -> Iterator[Cost]:
    """Three seconds of each size, as an only file."""
    for width, height in (size for size in SIZES if size[1] <= most):
        path = folder / f"{height}.mp4"
        write_clip(path, width=width, height=height, seconds=3.0)
        yield scored("resolution", width * height, "pixels", str(path))


def clients(folder: Path, most: int) -> Iterator[Cost]:
    """So many clients together send 512 uploads of one clip, one after the other each, to one service."""
    path = folder / "clip.mp4"
    write_clip(path, width=320, height=240, seconds=1.0)
    content = path.read_bytes()

    async def upload_all(url: str, count: int) -> None:
        numbers = iter(range(UPLOADS))

        async def one_client(client: httpx.AsyncClient) -> None:
            for _ in numbers:
                answer = await client.post("/v1/score", files={"file": ("clip.mp4", content)})
                answer.raise_for_status()

        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
            await asyncio.gather(*(one_client(client) for _ in range(count)))

    for count in (count for count in CLIENTS if count <= most):
        data, settings = folder / f"data-{count}", {"max_queue_clips": 2 * count, "access_log": "false"}
        with serving(LIGHT, data, **settings) as server:
            server.wait_ready()
            with Watch(server.process.pid) as watch:
                asyncio.run(upload_all(server.url, count))
        cost = (round(watch.seconds, 3), round(watch.cpu_s, 3), round(watch.peak_mib, 1))
        yield Cost("clients", count, f"clients, {UPLOADS} uploads", *cost)


CURVES: dict[str, Callable[[Path, int], Iterator[Cost]]] = {
    "clips": clips,
    "length": lengths,
    "resolution": resolutions,
    "clients": clients,
}


def draw(costs: list[Cost], path: Path) -> None:
    """CPU seconds (left) and memory (right) over x, a panel a curve."""
    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = list(dict.fromkeys(cost.curve for cost in costs))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.4), squeeze=False)
    for name, axis in zip(names, axes[0], strict=True):
        points = [cost for cost in costs if cost.curve == name]
        xs = [point.x for point in points]
        axis.loglog(xs, [point.cpu_s for point in points], "o-", color="tab:blue")
        axis.set(title=name, xlabel=points[0].unit)
        axis.set_ylabel("CPU seconds", color="tab:blue")
        memory = axis.twinx()
        memory.plot(xs, [point.peak_mib for point in points], "s--", color="tab:gray")
        memory.set_ylim(bottom=0)
        memory.set_ylabel("MiB", color="tab:gray")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curve", choices=sorted(CURVES), action="append")
    parser.add_argument("--most", type=int, default=10_000, help="largest x: clips, seconds, rows, clients")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    table = asked.out / "cost_curves.csv"
    chosen = asked.curve or list(CURVES)
    found: list[Cost] = []
    print(f"{platform.platform(terse=True)}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="specsem-curves-") as folder:
        for name in chosen:
            place = Path(folder, name)
            place.mkdir()
            for cost in CURVES[name](place, asked.most):
                print(cost, flush=True)
                found.append(cost)
    kept = [cost for cost in _read(table) if cost.curve not in {cost.curve for cost in found}]
    costs = kept + found
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Cost)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, costs))
    draw(costs, asked.out / "cost_curves.svg")
    return 0


def _read(table: Path) -> list[Cost]:
    if not table.exists():
        return []
    with table.open(encoding="utf-8") as file:
        return [
            Cost(
                row["curve"],
                int(row["x"]),
                row["unit"],
                float(row["seconds"]),
                float(row["cpu_s"]),
                float(row["peak_mib"]),
            )
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    sys.exit(main())
