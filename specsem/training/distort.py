# ruff: noqa: ARG002 - every distortion is called alike; only some are random
"""What a video goes through on its way to us: re-encodes, resizes, blur, noise. Same odds for both classes.

Every distortion maps RGB frames to RGB frames, uint8 (T, H, W, C); T, H and W may change. They serve training
(drawn at random) and evaluation (``specsem.evaluation.conditions``). Source: method, section 2, finding 4.
"""

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image
from torch.nn import functional as F

from specsem.media._pixels import full_rgb
from specsem.media.geometry import Orientation
from specsem.synthetic import priority_kept
from specsem.training.overlay import Overlay

__all__ = [
    "Blur",
    "CentreCrop",
    "Colour",
    "Crop",
    "Distortion",
    "Flip",
    "Gamma",
    "Jpeg",
    "Letterbox",
    "Moire",
    "Noise",
    "Overlay",
    "Reencode",
    "Resample",
    "Resize",
    "SensorNoise",
    "Sharpen",
    "Stills",
    "apply",
    "encode",
    "keeps_place",
    "random_distortions",
    "scaling",
]

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float = npt.NDArray[np.floating[Any]]
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
    """What the steps leave of a height and a width, so that one can start with a region large enough."""
    down = across = 1.0
    for step in steps:
        if isinstance(step, Resize):
            down, across = down * step.factor, across * step.factor * step.aspect
        elif isinstance(step, Crop):
            down, across = down * step.height, across * step.width
    return down, across


def keeps_place(steps: Sequence[Distortion]) -> bool:
    """Whether a fraction of the sides means the same place in the picture before and after."""
    return not any(isinstance(step, CentreCrop | Crop | Flip | Letterbox) for step in steps)


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
    with priority_kept(), av.open(target, "w", format=container) as output:
        stream = cast("av.VideoStream", output.add_stream(codec, rate=fps))
        stream.width, stream.height, stream.gop_size = width, height, gop
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace = _SMPTE170M  # said, so that large frames aren't read as BT.709
        os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 tells of every file else
        stream.options = dict(_QUALITY[codec](quality) | (options or {}))
        if codec == "libx264" and (height % 16 or width % 16):
            # There its macroblock tree reads memory that nobody wrote: equal frames gave unequal files.
            stream.options = stream.options | {"x264-params": "mbtree=0"}
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
    preset: str | None = None

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
            options={"preset": self.preset} if self.preset else None,
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
        mode, options = {
            "nearest": ("nearest-exact", {}),
            "area": ("area", {}),
            "linear": ("bilinear", {"align_corners": False}),
        }.get(self.kernel, (self.kernel, {"align_corners": False, "antialias": True}))
        resized_THWC = np.empty((len(frames_THWC), *size, frames_THWC.shape[-1]), np.uint8)
        for number, frame_HWC in enumerate(np.ascontiguousarray(frames_THWC)):  # one at a time: see _each
            x_1CHW = torch.from_numpy(frame_HWC).movedim(-1, 0)[None].float()
            y_1CHW = F.interpolate(x_1CHW, size, mode=mode, **options)
            resized_THWC[number] = y_1CHW[0].round_().clamp_(0, 255).to(torch.uint8).movedim(0, -1).numpy()
        return resized_THWC


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian, ``sigma`` in pixels."""

    sigma: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        return _each(frames_THWC, lambda frame_HWC: _blurred(frame_HWC, _gaussian(self.sigma)))


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian, new in each frame, ``sigma`` in 0..255."""

    sigma: float = 4.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        noise_THWC = _normal(frames_THWC.shape, rng)
        noises = iter(noise_THWC)
        return _each(frames_THWC, lambda frame_HWC: next(noises) * self.sigma + frame_HWC)


@dataclass(frozen=True, slots=True)
class SensorNoise:
    """As a camera's: its variance is ``read`` squared plus ``shot`` times the value (of 255).

    ``grain``: the sigma in pixels of a blur that leaves the strength as it is, as demosaicking does.
    ``hold``: the correlation with the frame before, as denoisers leave it. ``gray``: alike in all colours.
    """

    read: float = 1.0
    shot: float = 0.05
    grain: float = 0.0
    hold: float = 0.0
    gray: bool = False

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        noise_THWC = _normal((*frames_THWC.shape[:3], 1 if self.gray else 3), rng)
        if self.grain:
            taps = _gaussian(self.grain)
            noise_THWC = np.stack([_blurred(noise_HWC, taps) for noise_HWC in noise_THWC])
            noise_THWC /= np.square(taps).sum()
        for number in range(1, len(noise_THWC) if self.hold else 0):
            noise_THWC[number] *= math.sqrt(1 - self.hold**2)
            noise_THWC[number] += self.hold * noise_THWC[number - 1]
        noises = iter(noise_THWC)
        strength = np.sqrt(self.read**2 + self.shot * np.arange(256, dtype=np.float32))
        return _each(frames_THWC, lambda frame_HWC: next(noises) * strength[frame_HWC] + frame_HWC)


@dataclass(frozen=True, slots=True)
class Sharpen:
    """Unsharp mask: adds ``amount`` of what a blur of ``sigma`` removes."""

    amount: float = 0.5
    sigma: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""

        def sharper(frame_HWC: UInt8) -> Float:
            detail_HWC = frame_HWC - _blurred(frame_HWC, taps)
            return frame_HWC + np.float32(self.amount) * detail_HWC

        taps = _gaussian(self.sigma)
        return _each(frames_THWC, sharper)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Brightness curve; ``contrast`` stretches the values around the middle."""

    gamma: float = 1.2
    contrast: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        curve = (np.linspace(0, 1, 256) ** self.gamma - 0.5) * self.contrast + 0.5
        curved: UInt8 = np.clip(curve * 255 + 0.5, 0, 255).astype(np.uint8)[frames_THWC]
        return curved


@dataclass(frozen=True, slots=True)
class Colour:
    """``saturation``, and colour that lies ``shift`` (rows, columns) beside the brightness it belongs to."""

    saturation: float = 1.2
    shift: tuple[int, int] = (0, 0)

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        height, width = frames_THWC.shape[1:3]
        rows = np.clip(np.arange(height) - self.shift[0], 0, height - 1)
        columns = np.clip(np.arange(width) - self.shift[1], 0, width - 1)

        def coloured(frame_HWC: UInt8) -> Float:
            gray_HW1 = (frame_HWC @ _LUMA)[..., None]
            chroma_HWC = frame_HWC - gray_HW1
            if any(self.shift):
                chroma_HWC = chroma_HWC[rows[:, None], columns]
            return gray_HW1 + np.float32(self.saturation) * chroma_HWC

        return _each(frames_THWC, coloured)


@dataclass(frozen=True, slots=True)
class Moire:
    """The beat of a camera's pixels with a screen's: waves, a third of a period apart in the colours."""

    strength: float = 0.03
    waves: tuple[float, float] = (0.11, 0.23)
    """Periods a pixel, down and across."""

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        y_H11, x_1W1, colour_11C = np.ogrid[: frames_THWC.shape[1], : frames_THWC.shape[2], :3]
        phase_HWC = self.waves[0] * y_H11 + self.waves[1] * x_1W1 + colour_11C / 3 + rng.random()
        gain_HWC = (1 + self.strength * np.cos(2 * np.pi * phase_HWC)).astype(np.float32)
        return _each(frames_THWC, lambda frame_HWC: frame_HWC * gain_HWC)


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Each frame for itself through Motion JPEG; ``quality`` is the quantiser, 2 (best) to 31."""

    quality: int = 5

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        return Reencode("mjpeg", self.quality)(frames_THWC, rng)


@dataclass(frozen=True, slots=True)
class Stills:
    """Each frame through a ``jpeg`` or ``webp`` file; ``subsampling`` 0, 1, 2: 4:4:4, 4:2:2, 4:2:0."""

    format: str = "jpeg"
    quality: int = 75
    subsampling: int = 2
    """JPEG's; lossy WebP is always 4:2:0."""

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        options = {"subsampling": self.subsampling} if self.format == "jpeg" else {"method": 1}
        decoded = []
        for frame_HWC in np.ascontiguousarray(frames_THWC):
            buffer = io.BytesIO()
            Image.fromarray(frame_HWC).save(buffer, self.format, quality=self.quality, **options)
            with Image.open(buffer) as image:
                decoded.append(np.asarray(image.convert("RGB")))
        return np.stack(decoded)


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
class Crop:
    """A rectangle at random, ``height`` and ``width`` as shares of the frame's."""

    height: float = 0.8
    width: float = 0.8

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        sides = frames_THWC.shape[1:3]
        h, w = max(1, round(sides[0] * self.height)), max(1, round(sides[1] * self.width))
        y, x = int(rng.integers(0, sides[0] - h + 1)), int(rng.integers(0, sides[1] - w + 1))
        return frames_THWC[:, y : y + h, x : x + w]


@dataclass(frozen=True, slots=True)
class Flip:
    """Left to right."""

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        return frames_THWC[:, :, ::-1]


@dataclass(frozen=True, slots=True)
class Resample:
    """Another frame rate by dropping or repeating frames: ``ratio`` = new rate / old rate.

    ``blend`` mixes the two nearest frames instead, as editors do.
    """

    ratio: float = 0.5
    blend: bool = False

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        count = max(1, round(len(frames_THWC) * self.ratio))
        at_T = np.minimum(np.arange(count) / self.ratio, len(frames_THWC) - 1)
        first_T = at_T.astype(int)
        resampled: UInt8 = frames_THWC[first_T]
        if self.blend:
            second_T = np.minimum(first_T + 1, len(frames_THWC) - 1)
            parts = zip(second_T, (at_T - first_T).astype(np.float32), strict=True)

            def mixed(frame_HWC: UInt8) -> Float:
                second, share = next(parts)
                mixed_HWC: Float = frame_HWC * (1 - share) + frames_THWC[second] * share
                return mixed_HWC

            resampled = _each(resampled, mixed)
        return resampled


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Black bars above and below, each a ``share`` of the height; ``pillars``: left and right."""

    share: float = 0.12
    pillars: bool = False

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        bar = round(frames_THWC.shape[2 if self.pillars else 1] * self.share)
        bars = [(0, 0), (bar, bar)] if self.pillars else [(bar, bar), (0, 0)]
        boxed: UInt8 = np.pad(frames_THWC, ((0, 0), *bars, (0, 0)))
        return boxed


def random_distortions(rng: np.random.Generator) -> list[Distortion]:
    """A random life of a clip: some pixels are as delivered, most were edited, resized and encoded again.

    It is never told the label, nor the size or the rate of the clip, which would give the label away.
    """
    fate = rng.random()
    if fate < 0.17:
        return []
    if fate < 0.22:
        return _screen_recording(rng)
    steps: list[Distortion] = [_random_reencode(rng)] if rng.random() < 0.12 else []  # published before
    steps += _drawn(_EDITS, rng)
    resize = _random_resize(rng) if rng.random() < 0.58 else None
    steps += [resize] if resize else []
    steps += _drawn(_FINISH, rng)
    if rng.random() < 0.87:
        steps.append(_random_reencode(rng))
    if rng.random() < 0.09:  # downloaded and shared again
        if resize and rng.random() < 0.6:
            steps.append(
                Resize(1 / resize.factor, _random_kernel(rng, 1 / resize.factor), aspect=1 / resize.aspect)
            )
        steps.append(_random_reencode(rng))
    return steps


_Odds = tuple[tuple[float, Callable[[np.random.Generator], Distortion]], ...]

_RATIOS = (0.5, 24 / 30, 24 / 25, 25 / 24, 30 / 25, 30 / 24, 2.0)
"""What television, cinema and telephones convert between; a ratio above 1 repeats frames."""
_EDITS: _Odds = (
    (0.08, lambda r: Resample(float(r.choice(_RATIOS)), blend=bool(r.random() < 0.3))),
    (0.10, lambda r: Blur(r.uniform(0.3, 1.2))),
    (0.05, lambda r: Noise(r.uniform(1, 6))),
    (
        0.09,
        lambda r: SensorNoise(
            read=r.uniform(0.5, 3.0),
            shot=r.uniform(0.0, 0.15),
            grain=float(r.choice([0.0, r.uniform(0.4, 1.2)])),
            hold=float(r.choice([0.0, r.uniform(0.2, 0.8)])),
            gray=bool(r.random() < 0.5),
        ),
    ),
    (0.12, lambda r: Gamma(r.uniform(0.7, 1.4), r.uniform(0.85, 1.2))),
    (0.08, lambda r: Colour(r.uniform(0.6, 1.4), (int(r.integers(-1, 2)), int(r.integers(-2, 3))))),
    (0.09, lambda r: Crop(r.uniform(0.75, 1.0), r.uniform(0.75, 1.0))),
    (0.05, lambda _: Flip()),
    (0.08, lambda r: Overlay(str(r.choice(["box", "caption", "logo"])), r.uniform(0.3, 1.0))),
    (0.04, lambda r: Letterbox(r.uniform(0.04, 0.15), pillars=bool(r.random() < 0.5))),
)
_FINISH: _Odds = (
    (0.09, lambda r: Sharpen(r.uniform(0.2, 1.0), r.uniform(0.6, 1.6))),
    (0.06, lambda r: Stills("jpeg", int(r.integers(40, 97)), int(r.integers(0, 3)))),
    (0.03, lambda r: Stills("webp", int(r.integers(40, 95)))),
)


def _drawn(odds: _Odds, rng: np.random.Generator) -> list[Distortion]:
    return [make(rng) for chance, make in odds if rng.random() < chance]


def _random_resize(rng: np.random.Generator) -> Resize:
    """Alike on both sides, or squashed to (or out of) a square, or off by a little."""
    factor = float(np.exp(rng.uniform(np.log(0.4), np.log(2.0))))
    kind = rng.random()
    aspect = 1.0
    if kind < 0.3:
        aspect = float(rng.choice([9 / 16, 2 / 3, 3 / 4, 4 / 3, 3 / 2, 16 / 9]))
    elif kind < 0.4:
        aspect = float(np.exp(rng.normal(0, 0.08)))
    return Resize(factor * aspect**-0.5, _random_kernel(rng, factor), aspect=aspect)


def _random_kernel(rng: np.random.Generator, factor: float) -> str:
    kernels = ["bicubic", "bilinear", "linear", "lanczos", "area", "hamming", "nearest"]
    kernel = str(rng.choice(kernels, p=[0.3, 0.17, 0.13, 0.18, 0.14, 0.04, 0.04]))
    return "linear" if kernel == "area" and factor > 1 else kernel  # as the tools do that offer both


def _screen_recording(rng: np.random.Generator) -> list[Distortion]:
    """Played at whatever size the window had, caught at another rate, and encoded in haste."""
    steps: list[Distortion] = []
    if rng.random() < 0.5:
        steps.append(Resample(float(rng.choice([24 / 30, 30 / 25, 30 / 24]))))
    steps.append(Resize(rng.uniform(0.55, 1.6), str(rng.choice(["bilinear", "linear", "bicubic"]))))
    if rng.random() < 0.3:  # filmed off the screen
        waves = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)
        steps += [Blur(rng.uniform(0.4, 0.9)), Moire(rng.uniform(0.01, 0.06), waves)]
    steps.append(Gamma(rng.uniform(0.85, 1.2), rng.uniform(0.88, 1.1)))
    return [*steps, Reencode("libx264", int(rng.integers(26, 36)), 30, 250, "superfast")]


def _random_reencode(rng: np.random.Generator) -> Distortion:
    fps, gop = int(rng.choice([8, 15, 24, 30])), int(rng.choice([12, 30, 250]))
    codec = str(
        rng.choice(
            ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4", "mjpeg"],
            p=[0.66, 0.07, 0.05, 0.05, 0.09, 0.08],
        )
    )
    low, high = {"libvpx-vp9": (20, 45), "libsvtav1": (20, 48), "mpeg4": (2, 9), "mjpeg": (2, 12)}.get(
        codec, (17, 33)
    )
    preset = str(rng.choice(["veryfast", "superfast"])) if codec == "libx264" else None
    return Reencode(codec, int(rng.integers(low, high)), fps, gop, preset)


_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _each(frames_THWC: UInt8, treat: Callable[[UInt8], Float]) -> UInt8:
    """Frame by frame, rounded and clipped: one frame of floats stays in the cache, a clip of them doesn't."""
    treated_THWC = np.empty_like(frames_THWC)
    for number, frame_HWC in enumerate(frames_THWC):
        treated_HWC = treat(frame_HWC)
        np.rint(treated_HWC, out=treated_HWC)
        treated_THWC[number] = np.clip(treated_HWC, 0, 255, out=treated_HWC)
    return treated_THWC


def _gaussian(sigma: float) -> Float32:
    reach = max(1, math.ceil(3 * sigma))
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    normed: Float32 = (taps / taps.sum()).astype(np.float32)
    return normed


def _blurred(frame_HWC: UInt8 | Float32, taps: Float32) -> Float32:
    """By sums of shifted copies, several times as fast as a convolution of three channels."""
    height, width = frame_HWC.shape[:2]
    reach = len(taps) // 2
    padded = np.pad(frame_HWC, ((reach, reach), (reach, reach), (0, 0)), mode="edge").astype(np.float32)
    down = padded[:height] * taps[0]
    for k, tap in enumerate(taps[1:], 1):
        down += padded[k : k + height] * tap
    blurred: Float32 = down[:, :width] * taps[0]
    for k, tap in enumerate(taps[1:], 1):
        blurred += down[:, k : k + width] * tap
    return blurred


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """Standard normal numbers by PyTorch's generator, thrice as fast as NumPy's."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise: Float32 = torch.randn(shape, generator=generator).numpy()
    return noise
