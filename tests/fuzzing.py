"""Fuzzes the intake: valid clips are damaged, by their structure and by their bytes, and must harm nothing.

    make fuzz                                    # an hour
    make fuzz ARGS="--seconds 600 --seed 7"
    .venv/bin/python tests/fuzzing.py --replay fuzz-findings/died-7-1234

Every file is made of the seed and its number alone. It goes through the pool of decoders, one in
``HTTP_EVERY`` through the service as well. What takes a decoder's life, hangs, breaks a promise of
``specsem.media`` or is answered with anything but a verdict or a problem document is kept as a file.

The mutator is our own: a coverage-guided one (atheris) sees Python only, and the parsers are libav's.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import functools
import itertools
import json
import math
import random
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]

import httpx  # noqa: E402
from serving import LIGHT, Server, children, serving, until  # noqa: E402

from specsem.errors import MediaError, media_error  # noqa: E402
from specsem.media import Clip, DecoderPool, Limits, SamplePlan, Window  # noqa: E402
from specsem.media._decode import decode_windows  # noqa: E402
from tests.media.bombs import encoded  # noqa: E402

PLAN = SamplePlan(windows=2, crop_side=64, crops=1, frame_side=32)
LIMITS = Limits(wall_s=20.0, cpu_s=15.0, memory_bytes=1 << 30)
HTTP_EVERY = 8
THREADS = 2
INTERESTING = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

# -- structure ----------------------------------------------------------------------------------------------


@dataclass
class Node:
    """A box, element or chunk: its kind, and its content or what it contains."""

    kind: bytes
    content: bytes
    inner: list[Node] = field(default_factory=list)
    claims: int | None = None
    """The size that it claims, if it lies."""


@dataclass(frozen=True)
class Format:
    """How a container frames its nodes."""

    parse: Callable[[bytes], list[Node]]
    dump: Callable[[Node], bytes]


def _mp4_parse(data: bytes) -> list[Node]:
    containers = b"moov trak mdia minf stbl dinf edts moof traf mvex udta ilst".split()
    nodes, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + size if 8 <= size <= len(data) - at else len(data)
        content = data[at + 8 : end]
        nodes.append(Node(kind, b"", _mp4_parse(content)) if kind in containers else Node(kind, content))
        at = end
    return nodes


def _mp4_dump(node: Node) -> bytes:
    content = node.content + b"".join(map(_mp4_dump, node.inner))
    size = 8 + len(content) if node.claims is None else node.claims
    return struct.pack(">I", size & 0xFFFFFFFF) + node.kind + content


def _riff_parse(data: bytes) -> list[Node]:
    nodes, at = [], 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        content = data[at + 8 : at + 8 + size]
        is_list = kind in (b"RIFF", b"LIST")
        nodes.append(Node(kind, content[:4], _riff_parse(content[4:])) if is_list else Node(kind, content))
        at += 8 + size + size % 2
    return nodes


def _riff_dump(node: Node) -> bytes:
    content = node.content + b"".join(map(_riff_dump, node.inner))
    size = len(content) if node.claims is None else node.claims
    return node.kind + struct.pack("<I", size & 0xFFFFFFFF) + content + b"\0" * (len(content) % 2)


_MASTERS = frozenset(
    map(
        bytes.fromhex,
        (
            "1a45dfa3",
            "18538067",
            "1549a966",
            "1654ae6b",
            "ae",
            "e0",
            "1f43b675",
            "a0",
            "1c53bb6b",
            "bb",
            "b7",
        ),
    )
)


def _ebml_parse(data: bytes) -> list[Node]:
    nodes, at = [], 0
    while at < len(data) and data[at]:
        id_end = at + 9 - data[at].bit_length()
        if id_end >= len(data) or not data[id_end]:
            break
        width = 9 - data[id_end].bit_length()
        body = id_end + width
        size = int.from_bytes(data[id_end:body], "big") & ((1 << 7 * width) - 1)
        if size == (1 << 7 * width) - 1:  # unknown: to the end
            size = len(data)
        kind, content = data[at:id_end], data[body : body + size]
        nodes.append(Node(kind, b"", _ebml_parse(content)) if kind in _MASTERS else Node(kind, content))
        at = body + size
    return nodes


def _ebml_dump(node: Node) -> bytes:
    content = node.content + b"".join(map(_ebml_dump, node.inner))
    size = len(content) if node.claims is None else node.claims
    return node.kind + (1 << 56 | size & (1 << 56) - 1).to_bytes(8, "big") + content


MP4, RIFF, EBML = (
    Format(_mp4_parse, _mp4_dump),
    Format(_riff_parse, _riff_dump),
    Format(_ebml_parse, _ebml_dump),
)

SMALL = {"frames": 20, "size": (96, 80)}
FRAGMENTED = {"options": {"g": "5"}, "mux": {"movflags": "frag_keyframe+empty_moov"}}
SEEDS: dict[str, tuple[str, str, dict[str, Any], Format | None]] = {
    "mp4": ("libx264", "mp4", {}, MP4),
    "fragmented": ("libx264", "mp4", FRAGMENTED, MP4),
    "mov": ("mjpeg", "mov", {"pix_fmt": "yuvj420p"}, MP4),
    "webm": ("libvpx", "webm", {}, EBML),
    "matroska": ("libx264", "matroska", {}, EBML),
    "avi": ("mpeg4", "avi", {}, RIFF),
    "gif": ("gif", "gif", {"pix_fmt": "rgb8"}, None),
    "mpegts": ("libx264", "mpegts", {}, None),
    "flv": ("flv", "flv", {}, None),
    "ogg": ("libvpx", "ogg", {}, None),
    "mpeg": ("mpeg2video", "mpeg", {}, None),
    "asf": ("wmv2", "asf", {}, None),
    "h264": ("libx264", "h264", {}, None),
}
"""Codec, container, options, and the structure where it is known."""


@functools.cache
def clip(name: str) -> bytes:
    """The valid clip that is damaged."""
    codec, container, options, _ = SEEDS[name]
    return encoded(codec, container, **SMALL, **options)


# -- damage -------------------------------------------------------------------------------------------------


def damaged(seed: int, number: int) -> bytes:
    """The file of this number."""
    rng = random.Random(f"{seed}:{number}")
    name = rng.choice(list(SEEDS))
    content, form = clip(name), SEEDS[name][3]
    if form is not None and rng.random() < 0.7:
        tree = form.parse(content)
        for _ in range(rng.choice((1, 1, 2, 4))):
            _damage_tree(rng, tree)
        content = b"".join(map(form.dump, tree))
        if rng.random() < 0.7:
            return content
    for _ in range(rng.choice((1, 2, 4))):
        content = _damage_bytes(rng, bytearray(content))
    return content


def _lists(nodes: list[Node]) -> Iterator[list[Node]]:
    yield nodes
    for node in nodes:
        if node.inner:
            yield from _lists(node.inner)


def _damage_tree(rng: random.Random, tree: list[Node]) -> None:
    """One thing that no honest program does to the structure; sizes around it are set right."""
    lists = [nodes for nodes in _lists(tree) if nodes]
    if not lists:
        return
    nodes, others = rng.choice(lists), rng.choice(lists)
    at = rng.randrange(len(nodes))
    node, other = nodes[at], copy.deepcopy(rng.choice(others))  # a copy: circles can't be written
    match rng.randrange(8):
        case 0:
            del nodes[at]
        case 1:
            nodes[at:at] = [node] * rng.choice((1, 2, 300))
        case 2:
            nodes[at] = other
        case 3:
            node.kind = other.kind
        case 4:
            node.claims = rng.choice((*INTERESTING, len(node.content) + rng.randint(-9, 9)))
        case 5:  # a field of four bytes
            content = bytearray(node.content)
            place = rng.randrange(0, max(1, len(content) - 3), 4)
            content[place : place + 4] = struct.pack(">I", rng.choice(INTERESTING))
            node.content = bytes(content)
        case 6:
            node.content = node.content[: rng.randrange(len(node.content) + 1)]
        case _:  # in itself
            node.inner.insert(0, copy.deepcopy(node))


def _damage_bytes(rng: random.Random, content: bytearray) -> bytes:
    if len(content) < 16:
        return bytes(content)
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    match rng.randrange(7):
        case 0:  # bits, more often in the header
            for _ in range(rng.choice((1, 8, 64))):
                content[int(len(content) * rng.random() ** 3)] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.choice((1, 8))):
                place = int((len(content) - 4) * rng.random() ** 2)
                content[place : place + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(INTERESTING))
        case 2:
            del content[b:]
        case 3:
            del content[a : min(b, a + 400)]
        case 4:
            content[a:a] = content[a:b]
        case 5:
            content[a:b] = bytes(b - a) if rng.random() < 0.5 else rng.randbytes(b - a)
        case _:  # half of another file
            other = clip(rng.choice(list(SEEDS)))
            content[a:] = other[rng.randrange(len(other)) :]
    return bytes(content)


# -- what comes of it ---------------------------------------------------------------------------------------

CONTAINED = {
    "The decoder died of this file.": "died",
    "The decoder lost the thread.": "confused",
    "The video can't be decoded.": "raised",
}
"""Messages of ``specsem.media`` for what harms no other file, and should not happen all the same."""


def through_the_pool(pool: DecoderPool, path: Path, number: int) -> tuple[str, str]:
    """The outcome, and what is wrong with it, if anything."""
    try:
        match number % 4:
            case 0 | 1:
                clip = pool.decode(path, PLAN)
                wrong = _broken_promise(clip, clip.windows)
            case 2:
                with pool.scan(path, PLAN) as scan:
                    windows = list(scan)
                wrong = _broken_promise(scan.clip, windows)
            case _:
                wrong = "" if 0 <= pool.probe(path).duration_s < math.inf else "duration"
    except MediaError as error:
        if error.code == "timeout":
            return error.code, "hung"
        known = media_error(error.code, "").code == error.code
        return error.code, CONTAINED.get(error.message, "" if known else "code")
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return "exception", type(error).__name__
    return "ok", wrong


def _broken_promise(clip: Clip, windows: list[Window]) -> str:
    numbers = [clip.info.duration_s, clip.info.fps or 0.0, clip.coverage.analysed_s]
    if not windows or clip.info.frames_scored < 1:
        return "windows"
    if not all(0 <= n < math.inf for n in numbers) or not 0 <= clip.coverage.fraction <= 1:
        return "facts"
    if any(not 0 <= w.start_s <= w.end_s <= clip.info.duration_s + 1e-6 for w in windows):
        return "times"
    if any(w.frames_THWC.shape != PLAN.frames_shape for w in windows):
        return "shape"
    return ""


def through_the_service(client: httpx.Client, content: bytes) -> tuple[str, str]:
    """The same, of the whole intake."""
    try:
        answer = client.post("/v1/score", content=content)
        body = answer.json()
        outcome = "ok" if answer.status_code == 200 else body["code"]
    except Exception as error:  # noqa: BLE001 - no answer, or none of ours
        return "exception", type(error).__name__
    return outcome, "" if answer.status_code in {200, 422} else f"status-{answer.status_code}"


@dataclass
class Report:
    """What a run has seen."""

    seed: int
    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    """Names of the files that were kept: what is wrong, the seed, the file's number."""


def fuzz(
    seed: int,
    *,
    seconds: float = math.inf,
    files: int | None = None,
    keep: Path,
    server: Server | None = None,
) -> Report:
    """Go through the files of a seed, for so long or so many."""
    report, ends = Report(seed), time.monotonic() + seconds
    numbers = iter(itertools.count() if files is None else range(files))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(DecoderPool(workers=THREADS, limits=LIMITS))
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=100)) if server else None
        lock = threading.Lock()

        def work(thread: int) -> None:
            path = folder / str(thread)
            for number in iter(lambda: next(numbers, None), None):
                if time.monotonic() > ends:
                    return
                content = damaged(seed, number)
                path.write_bytes(content)
                found = [through_the_pool(pool, path, number)]
                if client is not None and number % HTTP_EVERY == 0:
                    found.append(through_the_service(client, content))
                with lock:
                    report.files += 1
                    for outcome, wrong in found:
                        report.outcomes[outcome] += 1
                        if wrong:
                            keep.mkdir(exist_ok=True)
                            report.findings.append(f"{wrong}-{seed}-{number}")
                            (keep / report.findings[-1]).write_bytes(content)

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work, range(THREADS)))
    return report


@contextlib.contextmanager
def service(folder: Path) -> Iterator[Server]:
    """A server to fuzz. Raises AssertionError if it has lost anything at the end."""
    limits = {"decode_wall_s": LIMITS.wall_s, "decode_cpu_s": LIMITS.cpu_s, "access_log": "false"}
    with serving(LIGHT, folder / "data", **limits) as server:
        server.wait_ready()
        before = sorted(server.data_dir.rglob("*"))
        decoders = len(children(server.process.pid))
        yield server
        until(lambda: sorted(server.data_dir.rglob("*")) == before)
        until(lambda: len(children(server.process.pid)) == decoders)
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def replay(path: Path) -> None:
    """Decode a file in this very process: what it raises or crashes is seen here."""
    faulthandler.enable()
    with path.open("rb") as file:
        made = decode_windows(
            file.fileno(), PLAN, LIMITS, lambda _: PLAN.window_arrays(bytearray(PLAN.window_bytes))
        )
    print(made.info, made.coverage, made.warnings)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="The clock, unless given.")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="Decode this file here, and nothing else.")
    asked = parser.parse_args()
    if asked.replay:
        replay(asked.replay)
        return 0
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as server:
        report = fuzz(asked.seed, seconds=asked.seconds, keep=asked.keep, server=server)
    print(json.dumps(vars(report), indent=2))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
