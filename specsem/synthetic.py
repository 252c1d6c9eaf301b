"""Clips drawn by arithmetic: for the bench, the tests and the first try, where no other video may be at hand.

A textured backdrop pans slowly behind discs that move on their own ways; each frame gets new noise, as a
sensor gives it. The textures have the 1/f amplitude spectrum of natural scenes, so that an encoder meets
about the work that it meets in camera video. Equal arguments give equal frames.

Such a clip is neither camera video nor the work of a generator: a verdict on it says nothing about a model.

``python -m specsem.synthetic clip.mp4`` writes one.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

__all__ = ["frames", "priority_kept", "write_clip"]

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

PAN = 64
"""Pixels by which the backdrop moves to either side."""


def frames(*, width: int, height: int, count: int, fps: float = 25.0, seed: int = 0) -> Iterator[UInt8]:
    """``count`` RGB frames of a moving scene, each (height, width, 3)."""
    rng = np.random.default_rng(seed)
    backdrop = _texture(rng, height + 2 * PAN, width + 2 * PAN)
    surface = _texture(rng, height, width)
    grain = [rng.normal(0.0, 2.5, (height, width, 1)).astype(np.float32) for _ in range(8)]
    y_H1, x_1W = np.ogrid[:height, :width]
    discs = [
        (rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.25, 2), rng.uniform(0.3, 1.1), rng.uniform(0.08, 0.2))
        for _ in range(3)
    ]
    for number in range(count):
        at_s = number / fps
        dy, dx = (int(PAN * (1 + np.sin(at_s * speed))) for speed in (0.31, 0.53))
        frame = backdrop[dy : dy + height, dx : dx + width].copy()
        for (cy, cx), (ry, rx), speed, size in discs:
            y = (cy + ry * np.sin(at_s * speed * 2)) * height
            x = (cx + rx * np.cos(at_s * speed * 2)) * width
            inside = (y_H1 - y) ** 2 + (x_1W - x) ** 2 < (size * min(height, width)) ** 2
            frame[inside] = surface[inside]
        shift = rng.integers(0, height)  # new grain at the price of a copy
        noise = np.roll(grain[number % len(grain)], shift, axis=0)
        yield np.clip(frame + noise, 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> Float32:
    """Noise with a 1/f amplitude spectrum, (height, width, 3) around mid-gray."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        plane = np.fft.irfft2(spectrum, (height, width))
        channels.append(plane / plane.std())
    luma = channels[0][..., None]
    colour = np.stack(channels, axis=-1)
    texture: Float32 = np.clip(128 + 40 * luma + 14 * colour, 0, 255).astype(np.float32)
    return texture


@contextlib.contextmanager
def priority_kept() -> Iterator[None]:
    """Around an encoder: SVT-AV1, where root runs it, gives its caller's thread real-time priority, and all
    that this thread starts later would starve the machine."""
    if not hasattr(os, "sched_getscheduler"):  # Linux only, as is the harm
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def write_clip(
    path: str | os.PathLike[str],
    *,
    width: int = 640,
    height: int = 360,
    seconds: float = 4.0,
    fps: int = 25,
    seed: int = 0,
    codec: str = "libx264",
    crf: int = 23,
) -> None:
    """Encode a scene into a file; the container follows from the name's ending."""
    with priority_kept(), av.open(os.fspath(path), "w") as container:
        options = {"crf": str(crf), "preset": "veryfast"}
        stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        scene = frames(width=width, height=height, count=round(seconds * fps), fps=fps, seed=seed)
        for pixels in scene:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m specsem.synthetic FILE.mp4")
    write_clip(sys.argv[1])
