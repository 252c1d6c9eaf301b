"""What decoding costs, measured on videos made on the spot (``specsem bench`` shows it)."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from specsem.media.pool import DecoderPool
from specsem.media.types import Clip, Limits, SamplePlan, UInt8

__all__ = ["decode_cost", "isolation_cost", "loop_video", "make_video"]

_RATE = 30


def decode_cost(
    *, rounds: int = 5, short_s: int = 10, long_s: int = 600, size: tuple[int, int] = (1280, 720)
) -> dict[str, float]:
    """Window mode on a short and a long file of one encode, against OpenCV decoding the short one whole.

    The encode is x264 with its default settings; the long file repeats the short one's packets. Rounds take
    turns, so that a busy machine slows all alike. Milliseconds are medians over ``rounds``.

    Returns: ``short_ms``, ``long_ms``, ``opencv_ms`` (NaN without OpenCV), ``long_over_short`` (to stay
    within 1.5), ``short_over_opencv`` (within 0.25), ``isolation_ms`` (:func:`isolation_cost`),
    ``handover_ms`` (what a call takes beyond the decoding in its process), ``rounds``.
    """
    plan = SamplePlan()
    with tempfile.TemporaryDirectory(prefix="specsem-bench-") as folder, DecoderPool(workers=1) as pool:
        short = make_video(Path(folder) / "short.mp4", seconds=short_s, size=size)
        long = loop_video(short, Path(folder) / "long.mp4", times=max(1, long_s // short_s))
        ways: dict[str, Callable[[], object]] = {
            "short_ms": lambda: pool.decode(short, plan),
            "long_ms": lambda: pool.decode(long, plan),
        }
        if (opencv := _opencv_reader()) is not None:
            ways["opencv_ms"] = lambda: opencv(short)
        took = _take_turns(ways, rounds)
        isolation_ms = isolation_cost(short, pool, rounds=4 * rounds)
        handover_ms = statistics.median(_handover(pool, short, plan) for _ in range(4 * rounds))
    result = {name: statistics.median(times) for name, times in took.items()}
    result.setdefault("opencv_ms", float("nan"))
    return {
        **result,
        "long_over_short": result["long_ms"] / result["short_ms"],
        "short_over_opencv": result["short_ms"] / result["opencv_ms"],
        "isolation_ms": isolation_ms,
        "handover_ms": handover_ms,
        "rounds": float(rounds),
    }


def isolation_cost(
    path: Path, pool: DecoderPool, *, rounds: int = 20, plan: SamplePlan | None = None
) -> float:
    """Milliseconds that a decoder process costs a clip, over decoding it in this process.

    The difference of the best of ``rounds`` calls each way, taken in turns: on a busy machine the median
    measures how long a woken process waits for a free core. Both sides touch every pixel that comes out.
    """
    from specsem.media._decode import decode_windows  # noqa: PLC0415  a service's own process never maps libav

    plan = plan or SamplePlan()
    fd = os.open(path, os.O_RDONLY)

    def inside() -> None:
        memory = np.empty(plan.windows * plan.window_bytes, np.uint8)
        _touch(
            decode_windows(fd, plan, Limits(), lambda i: plan.window_arrays(memory, i * plan.window_bytes))
        )

    try:
        took = _take_turns({"inside": inside, "outside": lambda: _touch(pool.decode(path, plan))}, rounds)
    finally:
        os.close(fd)
    return min(took["outside"]) - min(took["inside"])


def _handover(pool: DecoderPool, path: Path, plan: SamplePlan) -> float:
    began = time.perf_counter()
    clip = pool.decode(path, plan)
    return (time.perf_counter() - began) * 1e3 - clip.decode_ms


def _touch(clip: Clip) -> int:
    return sum(int(w.crops_TNHWC.max()) + int(w.frames_THWC.max()) for w in clip.windows)


def _take_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call, after one of each to warm up."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, call in ways.items():
            began = time.perf_counter()
            call()
            if turn:
                took[name].append((time.perf_counter() - began) * 1e3)
    return took


def _opencv_reader() -> Callable[[Path], int] | None:
    try:
        import cv2  # noqa: PLC0415  a development requirement
    except ImportError:
        return None

    def read_whole(path: Path) -> int:
        video, frames = cv2.VideoCapture(str(path)), 0
        while video.read()[0]:
            frames += 1
        video.release()
        return frames

    return read_whole


def make_video(path: Path, *, seconds: int, size: tuple[int, int]) -> Path:
    """Textures of all scales that pan, with sensor noise, encoded by x264 with default settings."""
    import av  # noqa: PLC0415

    width, height = size
    scene, noise = _scene(width, height)
    with av.open(str(path), "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * _RATE):
            x, y = round(60 + 59 * np.sin(i / 40)), round(30 + 29 * np.cos(i / 55))
            picture = scene[y : y + height, x : x + width].astype(np.int16) + np.roll(noise, 97 * i, (0, 1))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, _RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _scene(width: int, height: int) -> tuple[UInt8, np.ndarray[Any, np.dtype[np.int16]]]:
    rng = np.random.default_rng(0)
    tall, wide = height + 64, width + 128
    scene = np.zeros((tall, wide, 3))
    for scale, strength in ((128, 90), (32, 45), (8, 20), (2, 8)):
        grid = rng.random((-(-tall // scale), -(-wide // scale), 3)) - 0.5
        scene += strength * grid.repeat(scale, 0).repeat(scale, 1)[:tall, :wide]
    return (scene + 128).clip(0, 255).astype(np.uint8), rng.normal(0, 3, (height, width, 1)).astype(np.int16)


def loop_video(source: Path, path: Path, *, times: int) -> Path:
    """The packets of ``source`` so many times in a row, as one video."""
    import av  # noqa: PLC0415

    with av.open(str(source)) as src:
        stream: Any = src.streams.video[0]
        packets: list[Any] = [
            (bytes(p), p.pts, p.dts, p.is_keyframe, p.duration) for p in src.demux(stream) if p.size
        ]
        length = (
            max(pts for _, pts, _, _, _ in packets) + packets[0][4] - min(pts for _, pts, _, _, _ in packets)
        )
        with av.open(str(path), "w", format="mp4") as out:
            target = out.add_stream_from_template(stream)
            for turn in range(times):
                for data, pts, dts, key, duration in packets:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = target, stream.time_base
                    packet.pts, packet.dts = pts + turn * length, dts + turn * length
                    packet.duration, packet.is_keyframe = duration, key
                    out.mux(packet)
    return path
