"""Pictures of what the model looked at in one window, each with a caption that says in words what it shows.

Equal windows give equal bytes. Pictures are drawn of the window's middle frame; spectra are means over all of
its frames, so that what repeats stands out.

Shape letters: T frames, N crops, H height, W width, C colours, h and w the sides of the gate's map.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open

from specsem.media import MediaInfo, SamplePlan, Window
from specsem.model import SpecSemConfig
from specsem.registry import ModelRecord
from specsem.result import View
from specsem.spectral import high_pass, luma

__all__ = ["SPECTRUM_FILE", "CameraSpectrum", "Look", "Picture", "draw", "log_spectrum", "seen", "view_plan"]

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

SPECTRUM_FILE = "spectrum.safetensors"
FRAME_SIDE = 512
"""Of the longer side of a frame's picture, in pixels."""
RESIDUAL_GAIN = 5.0
"""Fixed, so that pictures can be compared: a fifth of half the range of brightness is black or white."""
AMBER = np.array([255.0, 140.0, 0.0], np.float32)
FLAT = 0.05
"""A gate whose map spans less than this says nothing of any place."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A view and its PNG."""

    view: View
    png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class CameraSpectrum:
    """The mean of ``log_spectrum`` over camera clips."""

    mean_HW: Float32
    clips: int
    sources: int

    @classmethod
    def load(cls, record: ModelRecord) -> Self | None:
        """That of a model; None where it has none.

        Raises:
            WeightsCorrupt: its checksum is wrong.
        """
        path = record.verified_file(SPECTRUM_FILE)
        if path is None:
            return None
        with safe_open(path, "numpy") as file:
            facts = file.metadata()
            mean_HW = file.get_tensor("mean_HW").astype(np.float32)
        return cls(mean_HW, int(facts["clips"]), int(facts["sources"]))


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A window to be drawn, and what is known of it."""

    window: Window
    """Decoded by ``view_plan``."""
    segment: int
    score: float
    gate_Nhw: Float32


def view_plan(plan: SamplePlan, starts_s: Sequence[float]) -> SamplePlan:
    """How the windows that begin at these times are decoded for their pictures.

    A model that looks at crops has its crops, and the whole frame larger than the model sees it.
    """
    there = replace(plan, windows=len(starts_s), starts_s=tuple(starts_s), thorough=False)
    return replace(there, frame_side=FRAME_SIDE, frame_fit="squash") if plan.crop_side else there


def seen(window: Window) -> UInt8:
    """The pixels that the spectral branch looks at: a window's crops, or its frames as the only one.
    (T, N, H, W, C)."""
    return window.crops_TNHWC if window.crops_TNHWC.size else window.frames_THWC[:, None]


def log_spectrum(pixels_TNHWC: UInt8, radius: float) -> Float32:
    """log10 of the magnitude of each spatial frequency of the residual, (H, W), zero frequency in the middle.

    The mean over frames and crops. A Hann window keeps the crop's edges from drawing a cross. Brightness is
    0..1; frequencies that the residual lacks are at the floor of 1e-3.
    """
    side_H, side_W = pixels_TNHWC.shape[2:4]
    r_TNHW = high_pass(luma(torch.tensor(pixels_TNHWC)) / 255.0, radius)
    hann_HW = torch.outer(torch.hann_window(side_H), torch.hann_window(side_W))
    magnitude_TNHW = torch.fft.fft2(r_TNHW * hann_HW).abs()
    mean_HW = magnitude_TNHW.clamp(min=1e-3).log10().mean(dim=(0, 1))
    spectrum_HW: Float32 = torch.fft.fftshift(mean_HW).numpy()
    return spectrum_HW


def draw(looks: Sequence[Look], info: MediaInfo, record: ModelRecord) -> list[Picture]:
    """The pictures of some windows; the first one's come with the spectrum of camera clips beside its own."""
    radius = SpecSemConfig.from_dict(record.config).radius
    reference = CameraSpectrum.load(record)
    pictures: list[Picture] = []
    for look in looks:
        pictures += _draw(look, info, radius, reference, with_reference=not pictures)
    return pictures


def _draw(
    look: Look, info: MediaInfo, radius: float, reference: CameraSpectrum | None, *, with_reference: bool
) -> Iterator[Picture]:
    window = look.window
    middle = len(window.frames_THWC) // 2
    at_s = window.start_s + middle / len(window.frames_THWC) * (window.end_s - window.start_s)
    pixels_TNHWC = seen(window)
    squares = _squares(pixels_TNHWC.shape)

    def picture(kind: Any, image: Image.Image, caption: str) -> Picture:
        view = View(
            name=f"{look.segment}-{kind.replace('_', '-')}",
            kind=kind,
            segment=look.segment,
            pts_s=round(at_s, 3),
            width=image.width,
            height=image.height,
            caption=caption,
        )
        return Picture(view, _png(image))

    frame = _frame(window.frames_THWC[middle], info)
    yield picture(
        "frame", frame, f"The frame at {at_s:.2f} s, in the middle of a window that scores {look.score:.2f}."
    )

    residual_NHWC, deviation = _residual(pixels_TNHWC[middle], radius)
    yield picture(
        "residual",
        Image.fromarray(np.concatenate(list(residual_NHWC), axis=1)),
        f"What is left of {squares} when all coarse structure is taken away: the spectral branch sees only "
        f"this. Mid-gray is nothing; contrast is {RESIDUAL_GAIN:g} times that of the frame. Its standard "
        f"deviation is {deviation:.1f} of 255.",
    )

    spectrum_HW = log_spectrum(pixels_TNHWC, radius)
    comparable = reference is not None and reference.mean_HW.shape == spectrum_HW.shape
    scale = _scale(reference.mean_HW if reference is not None and comparable else spectrum_HW)
    caption = (
        f"How strong each spatial frequency is in {squares}, the mean of {len(pixels_TNHWC)} frames: the "
        "coarsest, taken away, in the middle, the finest at the edges; brighter is stronger. Lone bright "
        "dots are patterns that repeat: upscaling leaves such, and so do codecs and screens."
    )
    if reference is not None and comparable:
        caption += " " + _comparison(spectrum_HW, reference)
    yield picture("spectrum", _gray(spectrum_HW, scale), caption)
    if reference is not None and comparable and with_reference:
        yield picture(
            "reference_spectrum",
            _gray(reference.mean_HW, scale),
            f"The same of {reference.clips} camera clips from {reference.sources} sources, their mean, on "
            "the same scale of brightness.",
        )

    if look.gate_Nhw.size:
        low, high, mean = (float(f(look.gate_Nhw)) for f in (np.min, np.max, np.mean))
        says = (
            "It hardly differs from place to place, so it says nothing of this frame."
            if high - low < FLAT
            else "Semantics let spectral evidence count for more where it is amber."
        )
        yield picture(
            "gate",
            _gate(frame, look.gate_Nhw, window.boxes_N4),
            f"How far semantics opened spectral evidence in each place of {squares}, from 0 (gray) to 1 (all "
            f"amber). Here it lies between {low:.3f} and {high:.3f}, {mean:.3f} on average. {says}",
        )


def _squares(shape: Sequence[int]) -> str:
    _, count, height, width, _ = shape
    if count == 1:
        return f"a square of {width} x {height} pixels of the frame"
    return f"{count} squares of {width} x {height} pixels of the frame at full resolution"


def _frame(frame_HWC: UInt8, info: MediaInfo) -> Image.Image:
    """With the aspect ratio of the file."""
    scale = FRAME_SIDE / max(info.width, info.height)
    size = (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
    return Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC)


def _residual(pixels_NHWC: UInt8, radius: float) -> tuple[UInt8, float]:
    """As a picture, and its standard deviation, 0..255."""
    x_NCHW = torch.tensor(pixels_NHWC).movedim(-1, -3) / 255.0
    r_NCHW = high_pass(x_NCHW, radius)
    shown_NCHW = (127.5 + 255.0 * RESIDUAL_GAIN * r_NCHW).round().clamp(0, 255).to(torch.uint8)
    return shown_NCHW.movedim(-3, -1).numpy(), 255.0 * float(r_NCHW.std())


def _comparison(spectrum_HW: Float32, reference: CameraSpectrum) -> str:
    """In decibels, over the fine half of all frequencies: there cameras leave noise."""
    height, width = spectrum_HW.shape
    v_H1 = np.fft.fftshift(np.fft.fftfreq(height))[:, None]
    u_1W = np.fft.fftshift(np.fft.fftfreq(width))[None, :]
    fine_HW = v_H1**2 + u_1W**2 > 0.25**2
    decibels = 20.0 * float((spectrum_HW - reference.mean_HW)[fine_HW].mean())
    return (
        f"In the finer half it is {abs(decibels):.1f} dB {'stronger' if decibels >= 0 else 'weaker'} than in "
        f"{reference.clips} camera clips on average."
    )


def _scale(spectrum_HW: Float32) -> tuple[float, float]:
    """What is black and what is white."""
    present = spectrum_HW[spectrum_HW > spectrum_HW.min() + 1e-3]
    if not present.size:
        return float(spectrum_HW.min()), float(spectrum_HW.min()) + 1.0
    low, high = np.percentile(present, (1, 99.5))
    return float(low), max(float(high), float(low) + 0.1)


def _gray(values_HW: Float32, scale: tuple[float, float]) -> Image.Image:
    low, high = scale
    return Image.fromarray(np.clip((values_HW - low) / (high - low) * 255, 0, 255).round().astype(np.uint8))


def _gate(frame: Image.Image, gate_Nhw: Float32, boxes_N4: Float32) -> Image.Image:
    """The frame in gray, the crops outlined, the gate in amber over them."""
    shown_HWC = np.asarray(frame.convert("L").convert("RGB"), np.float32).copy()
    height, width = shown_HWC.shape[:2]
    boxes = boxes_N4 if len(boxes_N4) == len(gate_Nhw) else np.array([[0, 0, 1, 1]], np.float32)
    corners = [
        (x0, y0, max(x0 + 1, round(right * width)), max(y0 + 1, round(bottom * height)))
        for left, top, right, bottom in np.clip(boxes, 0, 1).tolist()
        for x0, y0 in [(min(width - 1, round(left * width)), min(height - 1, round(top * height)))]
    ]
    for gate_hw, (x0, y0, x1, y1) in zip(gate_Nhw, corners, strict=True):
        size = (x1 - x0, y1 - y0)
        opened_HW1 = np.asarray(Image.fromarray(gate_hw).resize(size, Image.Resampling.BILINEAR))[..., None]
        below_HWC = shown_HWC[y0 : y0 + size[1], x0 : x0 + size[0]]
        below_HWC[...] = below_HWC * (1 - opened_HW1) + AMBER * opened_HW1
    image = Image.fromarray(shown_HWC.round().astype(np.uint8))
    for x0, y0, x1, y1 in corners:
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), outline=tuple(AMBER.astype(int).tolist()))
    return image


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=6)
    return file.getvalue()
