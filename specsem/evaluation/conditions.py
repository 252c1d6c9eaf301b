"""The named conditions that a model is judged under: what was done to every clip before the model saw it.

A condition is a list of steps (``specsem.training.distort``) and the encoder that writes the outcome:
every one of them passes through a container and the product's own decoder. Those that ask about pixels rather
than codecs are written with x264 CRF 18, near transparent. Names are stable: reports are compared by them.

Source: method, section 2 (canonical re-encode of both classes; the same distortions on both).
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from specsem.media import read_frames
from specsem.training.distort import (
    Blur,
    CentreCrop,
    Distortion,
    Flip,
    Jpeg,
    Letterbox,
    Noise,
    Resample,
    Resize,
    apply,
    encode,
)

__all__ = ["CONDITIONS", "QUICK", "Condition", "condition", "materialise", "workshop_of"]

UInt8 = npt.NDArray[np.uint8]

MAX_FRAMES = 128
"""A longer clip is cut, as it must lie in memory: five seconds at 25 frames a second."""
_CHUNK = 8
"""Frames distorted at a time: their steps need several times the memory of the pixels."""
_PRESETS = {
    "libx264": {"preset": "medium"},
    "libx265": {"preset": "fast"},
    # One thread: run by root, its threads have real-time priority.
    "libsvtav1": {"preset": "8", "svtav1-params": "lp=1"},
}
"""Slower than training's, as those who publish encode."""


@dataclass(frozen=True, slots=True)
class CentreShare:
    """The centre, ``share`` of each side: what a crop leaves, off the grid of the first encoder."""

    share: float = 0.75

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:  # noqa: ARG002
        """See the class."""
        height, width = frames_THWC.shape[1:3]
        h, w = round(height * self.share), round(width * self.share)
        y, x = (height - h) // 2, (width - w) // 2
        return frames_THWC[:, y : y + h, x : x + w]


@dataclass(frozen=True, slots=True)
class Condition:
    """One row of the robustness grid."""

    name: str
    kind: Literal["headline", "codec", "size", "pixels", "time", "frame"]
    says: str
    """What was done to the clip, for people."""
    look: tuple[Distortion, ...] = ()
    """Steps that treat every frame for itself."""
    pace: Callable[[float], Sequence[Distortion]] = lambda _fps: ()
    """Steps before those, that choose frames of a clip of this many frames a second."""
    codec: str | None = "libx264"
    """None: the file as delivered, nothing is written."""
    quality: int = 18
    fps: int | None = None
    """Frames a second of the written file; None: the clip's own, rounded."""
    gop: int = 250

    def write(self, frames_THWC: UInt8, fps: float, path: Path, *, seed: int = 0) -> None:
        """The frames of a clip of this rate, treated and encoded into a file."""
        if self.codec is None:
            raise ValueError(f"condition {self.name!r} writes no file")
        rng = np.random.default_rng(seed)
        frames_THWC = apply(self.pace(fps), frames_THWC, rng)
        chunks = (frames_THWC[i : i + _CHUNK] for i in range(0, len(frames_THWC), _CHUNK))
        treated_THWC = np.concatenate([apply(self.look, chunk_THWC, rng) for chunk_THWC in chunks])
        rate = self.fps or max(1, round(fps))
        with path.open("wb") as file:
            encode(
                treated_THWC,
                file,
                codec=self.codec,
                quality=self.quality,
                fps=Fraction(rate),
                gop=self.gop,
                options=_PRESETS[self.codec],
            )


def _h264(crf: int) -> Condition:
    return Condition(f"h264-crf{crf}", "codec", f"x264, CRF {crf}", quality=crf)


def _h265(crf: int) -> Condition:
    return Condition(f"h265-crf{crf}", "codec", f"x265, CRF {crf}", codec="libx265", quality=crf)


_ALL = (
    Condition("as-is", "headline", "the file as delivered", codec=None),
    Condition(
        "level",
        "headline",
        "the same container facts for every clip: centre 256x256 at native scale, 16 frames, 24 fps, "
        "x264 CRF 23",
        pace=lambda _fps: [CentreCrop(256, frames=16)],
        quality=23,
        fps=24,
    ),
    Condition(
        "canonical",
        "headline",
        "canonical re-encode: 8 fps, 512x512, x264 CRF 23, GOP 12",
        (Resize(size=(512, 512)),),
        lambda fps: [Resample(8 / fps)],
        quality=23,
        fps=8,
        gop=12,
    ),
    *map(_h264, (18, 23, 28, 36)),
    *map(_h265, (18, 23, 28)),
    Condition("av1", "codec", "SVT-AV1, CRF 35", codec="libsvtav1", quality=35),
    Condition("jpeg", "codec", "every frame through Motion JPEG, quantiser 5", (Jpeg(5),)),
    Condition("half-size", "size", "half the width and height, bicubic", (Resize(0.5),)),
    Condition("double-size", "size", "twice the width and height, bicubic", (Resize(2.0),)),
    Condition("blur-0.5", "pixels", "Gaussian blur, sigma 0.5 px", (Blur(0.5),)),
    Condition("blur-1", "pixels", "Gaussian blur, sigma 1 px", (Blur(1.0),)),
    Condition("noise", "pixels", "Gaussian noise, sigma 4 of 255, new in each frame", (Noise(),)),
    Condition(
        "fps-24",
        "time",
        "to 8 frames a second, then each shown three times at 24",
        pace=lambda fps: [Resample(8 / fps), Resample(3.0)],
        fps=24,
    ),
    Condition("crop", "frame", "the centre, 3/4 of each side", (CentreShare(0.75),)),
    Condition("flip", "frame", "left to right", (Flip(),)),
    Condition("letterbox", "frame", "black bars, each 12% of the height", (Letterbox(),)),
)
CONDITIONS: dict[str, Condition] = {c.name: c for c in _ALL}
QUICK = ("as-is", "level", "canonical")
"""What every headline figure needs."""


def condition(name: str) -> Condition:
    """The condition of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in CONDITIONS:
        raise ValueError(f"No condition is named {name!r}; there are: {', '.join(CONDITIONS)}.")
    return CONDITIONS[name]


def materialise(source: Path, name: str, folder: Path) -> Path:
    """The file of this clip under a condition, in the folder; the clip's own where nothing is done to it."""
    wanted = condition(name)
    if wanted.codec is None:
        return source
    frames_THWC, times_T = read_frames(source, max_frames=MAX_FRAMES)
    fps = (len(times_T) - 1) / (times_T[-1] - times_T[0]) if len(times_T) > 1 else 25.0
    path = folder / f"{name}-{source.stem}.mp4"
    wanted.write(frames_THWC, fps, path)
    return path


def workshop_of(processes: int) -> ProcessPoolExecutor:
    """Processes in which ``materialise`` may run, one thread each.

    They never hear Ctrl-C, not even while they import: their parent ends them.
    """
    executor = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy the threads' locks
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(processes):
            executor.submit(int)  # starts one, which inherits what is blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return executor
