# ruff: noqa: ARG002 - every distortion is called alike; only some are random
"""What a video goes through on its way to us: re-encodes, resizes, blur, noise. Same odds for both classes.

Every distortion maps RGB frames to RGB frames, uint8 (T, H, W, C); T, H and W may change. They serve training
(drawn at random) and evaluation (``specsem.evaluation.conditions``). Source: method, section 2, finding 4.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, cast

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image
from torch.nn import functional as F

from specsem.media._pixels import full_rgb
from specsem.media.geometry import Orientation

__all__ = [
    "Blur",
    "CentreCrop",
    "Distortion",
    "Flip",
    "Jpeg",
    "Noise",
    "Reencode",
    "Resample",
    "Resize",
    "apply",
    "encode",
    "keeps_place",
    "random_distortions",
    "scaling",
]

UInt8 = npt.NDArray[np.uint8]
_SMPTE170M = 6


class Distortion(Protocol):
    """One step."""

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator, /) -> UInt8:
        """The distorted frames."""
        ...


def apply(steps: Sequence[Distortion], frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
    """One step after the other."""
    for step in steps:
        frames_THWC = step(frames_THWC, rng)
    return frames_THWC


def scaling(steps: Sequence[Distortion]) -> tuple[float, float]:
    """By how much the steps scale a height and a width, so that one can start with a region large enough."""
    resizes = [step for step in steps if isinstance(step, Resize) and step.size is None]
    return math.prod(r.factor for r in resizes), math.prod(r.factor * r.aspect for r in resizes)


def keeps_place(steps: Sequence[Distortion]) -> bool:
    """Whether a fraction of the sides means the same place in the picture before and after."""
    return not any(isinstance(step, CentreCrop | Flip | Letterbox) for step in steps)


_QUALITY: dict[str, Callable[[int], dict[str, str]]] = {
    "libx264": lambda q: {"crf": str(q), "preset": "veryfast"},
    "libx265": lambda q: {"crf": str(q), "preset": "ultrafast", "x265-params": "log-level=none:pools=1"},
    "libvpx-vp9": lambda q: {"crf": str(q), "b": "0", "deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": lambda q: {"crf": str(q), "preset": "12", "svtav1-params": "lp=1"},
    "mpeg4": lambda q: {"qmin": str(q), "qmax": str(q)},
    "mpeg2video": lambda q: {"qmin": str(q), "qmax": str(q)},
    "mjpeg": lambda q: {"qmin": str(q), "qmax": str(q)},
}


def encode(
    frames_THWC: UInt8,
    target: io.BufferedIOBase,
    *,
    codec: str = "libx264",
    quality: int = 23,
    fps: Fraction | int = 24,
    gop: int = 250,
    container: str = "mp4",
    options: dict[str, str] | None = None,
) -> None:
    """Write the frames as a video file. Odd sides lose their last row or column (4:2:0 needs even ones)."""
    height, width = (side - side % 2 for side in frames_THWC.shape[1:3])
    with av.open(target, "w", format=container) as output:
        stream = cast("av.VideoStream", output.add_stream(codec, rate=fps))
        stream.width, stream.height, stream.gop_size = width, height, gop
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace = _SMPTE170M  # said, so that large frames aren't read as BT.709
        stream.options = dict(_QUALITY[codec](quality) | (options or {}))
        for number, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC[:height, :width]), "rgb24")
            frame.pts, frame.time_base = number, 1 / Fraction(fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@dataclass(frozen=True, slots=True)
class Reencode:
    """Through a real encoder and back. ``quality``: CRF, or the quantiser of the MPEG codecs."""

    codec: str = "libx264"
    quality: int = 23
    fps: int = 24
    gop: int = 250

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        buffer = io.BytesIO()
        encode(
            frames_THWC,
            buffer,
            codec=self.codec,
            quality=self.quality,
            fps=self.fps,
            gop=self.gop,
            container="matroska",
        )
        buffer.seek(0)
        with av.open(buffer, "r", format="matroska") as source:
            source.streams.video[0].thread_count = 1
            scaler = VideoReformatter()
            return np.stack([full_rgb(scaler, frame, Orientation()) for frame in source.decode(video=0)])


_PILLOW = {"lanczos": Image.Resampling.LANCZOS, "hamming": Image.Resampling.HAMMING}


@dataclass(frozen=True, slots=True)
class Resize:
    """By a factor, or to exactly ``size`` (height, width). ``linear`` is bilinear without a low-pass, as many
    tools do it: shrinking aliases. ``aspect``: how much more the width is scaled than the height.
    """

    factor: float = 0.5
    kernel: str = "bicubic"
    size: tuple[int, int] | None = None
    aspect: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        height, width = frames_THWC.shape[1:3]
        across = self.factor * self.aspect
        size = self.size or (max(16, round(height * self.factor)), max(16, round(width * across)))
        if self.kernel in _PILLOW:
            kernel = _PILLOW[self.kernel]
            images = (Image.fromarray(frame_HWC) for frame_HWC in np.ascontiguousarray(frames_THWC))
            return np.stack([np.asarray(image.resize(size[::-1], kernel)) for image in images])
        x_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).movedim(-1, 1).float()
        if self.kernel == "nearest":
            y_TCHW = F.interpolate(x_TCHW, size, mode="nearest-exact")
        elif self.kernel == "area":
            y_TCHW = F.interpolate(x_TCHW, size, mode="area")
        elif self.kernel == "linear":
            y_TCHW = F.interpolate(x_TCHW, size, mode="bilinear", align_corners=False)
        else:
            y_TCHW = F.interpolate(x_TCHW, size, mode=self.kernel, antialias=True, align_corners=False)
        return _to_uint8(y_TCHW)


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian, ``sigma`` in pixels."""

    sigma: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        reach = max(1, int(np.ceil(3 * self.sigma)))
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / self.sigma).square())
        taps = (taps / taps.sum()).repeat(3, 1)
        x_TCHW = torch.from_numpy(frames_THWC).movedim(-1, 1).float()
        x_TCHW = F.pad(x_TCHW, (reach, reach, reach, reach), mode="replicate")
        x_TCHW = F.conv2d(x_TCHW, taps[:, None, None, :], groups=3)
        return _to_uint8(F.conv2d(x_TCHW, taps[:, None, :, None], groups=3))


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian, new in each frame, ``sigma`` in 0..255."""

    sigma: float = 4.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        noise = rng.standard_normal(frames_THWC.shape, np.float32) * self.sigma
        return np.clip(frames_THWC + noise + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Sharpen:
    """Unsharp mask: adds ``amount`` of what a blur of ``sigma`` removes."""

    amount: float = 0.5
    sigma: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        detail = frames_THWC.astype(np.float32) - Blur(self.sigma)(frames_THWC, rng)
        return np.clip(frames_THWC + self.amount * detail + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Brightness curve."""

    gamma: float = 1.2

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        table = (np.linspace(0, 1, 256) ** self.gamma * 255 + 0.5).astype(np.uint8)
        curved: UInt8 = table[frames_THWC]
        return curved


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Each frame for itself through Motion JPEG; ``quality`` is the quantiser, 2 (best) to 31."""

    quality: int = 5

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        return Reencode("mjpeg", self.quality)(frames_THWC, rng)


@dataclass(frozen=True, slots=True)
class CentreCrop:
    """The centre ``side`` x ``side``, or as much of it as the frame has; the first ``frames`` frames."""

    side: int = 256
    frames: int | None = None

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        height, width = frames_THWC.shape[1:3]
        y, x = max(0, (height - self.side) // 2), max(0, (width - self.side) // 2)
        return frames_THWC[: self.frames, y : y + self.side, x : x + self.side]


@dataclass(frozen=True, slots=True)
class Flip:
    """Left to right."""

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        return frames_THWC[:, :, ::-1]


@dataclass(frozen=True, slots=True)
class Resample:
    """Another frame rate by dropping or repeating frames: ``ratio`` = new rate / old rate."""

    ratio: float = 0.5

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        count = max(1, round(len(frames_THWC) * self.ratio))
        index = np.minimum((np.arange(count) / self.ratio).astype(int), len(frames_THWC) - 1)
        resampled: UInt8 = frames_THWC[index]
        return resampled


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Black bars above and below, each a ``share`` of the height."""

    share: float = 0.12

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        bar = round(frames_THWC.shape[1] * self.share)
        boxed: UInt8 = np.pad(frames_THWC, ((0, 0), (bar, bar), (0, 0), (0, 0)))
        return boxed


def random_distortions(rng: np.random.Generator) -> list[Distortion]:
    """A random life of a clip: some pixels are as delivered, most were edited a little and encoded again."""
    steps: list[Distortion] = []
    if rng.random() < 0.25:
        kernel = str(rng.choice(["bilinear", "bicubic", "area", "nearest"], p=[0.35, 0.4, 0.2, 0.05]))
        steps.append(Resize(float(np.exp(rng.uniform(np.log(0.5), np.log(1.6)))), kernel))
    edits: list[tuple[float, Callable[[], Distortion]]] = [
        (0.10, lambda: Blur(rng.uniform(0.3, 1.2))),
        (0.08, lambda: Noise(rng.uniform(1, 8))),
        (0.08, lambda: Sharpen(rng.uniform(0.2, 1.0))),
        (0.10, lambda: Gamma(rng.uniform(0.7, 1.4))),
    ]
    steps += [make() for odds, make in edits if rng.random() < odds]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.25, 0.6, 0.15]))):
        steps.append(_random_reencode(rng))
    return steps


def _random_reencode(rng: np.random.Generator) -> Distortion:
    fps, gop = int(rng.choice([8, 15, 24, 30])), int(rng.choice([12, 30, 250]))
    codec = str(
        rng.choice(
            ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4", "mjpeg"],
            p=[0.62, 0.10, 0.08, 0.04, 0.06, 0.10],
        )
    )
    low, high = {"libvpx-vp9": (20, 45), "libsvtav1": (20, 48), "mpeg4": (2, 9), "mjpeg": (2, 12)}.get(
        codec, (17, 33)
    )
    return Reencode(codec, int(rng.integers(low, high)), fps, gop)


def _to_uint8(x_TCHW: torch.Tensor) -> UInt8:
    array: UInt8 = x_TCHW.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return array
