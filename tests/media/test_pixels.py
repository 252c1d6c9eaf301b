"""Colours, crops and resizing, against values computed here."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from specsem.media import DecoderPool, SamplePlan, crop_boxes, read_frames
from specsem.media._pixels import Converter, full_rgb
from specsem.media.geometry import Orientation
from tests.media.corpus import encode, picture, turned

IDENTITY = Orientation()
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def flat(
    y: int, u: int, v: int, *, space: int, span: int, fmt: str, size: tuple[int, int] = (64, 64)
) -> av.VideoFrame:
    frame = av.VideoFrame(*size, fmt)
    deep = fmt.endswith("le")
    for plane, value in zip(frame.planes, (y, u, v), strict=False):
        data = np.full(plane.buffer_size // (2 if deep else 1), value, np.uint16 if deep else np.uint8)
        plane.update(data.tobytes())
    frame.colorspace, frame.color_range = space, span
    return frame


def rgb_of(y: float, u: float, v: float, space: int) -> np.ndarray:
    """Y in 0..1, U and V in -.5..5, by the definition of the matrix."""
    kr, kb = MATRICES[space]
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.array([r, g, b]) * 255, 0, 255)


@pytest.mark.parametrize("space", sorted(MATRICES))
@pytest.mark.parametrize(
    ("span", "fmt", "scale"), [(1, "yuv420p", 1), (2, "yuv420p", 1), (1, "yuv420p10le", 4), (1, "yuv444p", 1)]
)
def test_matrix_and_range(space: int, span: int, fmt: str, scale: int) -> None:
    for y, u, v in ((16, 128, 128), (235, 128, 128), (120, 100, 160), (90, 150, 110)):
        frame = flat(y * scale, u * scale, v * scale, space=space, span=span, fmt=fmt)
        if span == 1:
            expected = rgb_of((y - 16) / 219, (u - 128) / 224, (v - 128) / 224, space)
        else:
            expected = rgb_of(y / 255, (u - 128) / 255, (v - 128) / 255, space)
        got = full_rgb(VideoReformatter(), frame, IDENTITY)
        assert got.std(axis=(0, 1)).max() == 0
        assert np.abs(got[0, 0] - expected).max() <= 1.5, (y, u, v)


def test_unnamed_matrix_goes_by_size() -> None:
    small = full_rgb(VideoReformatter(), flat(120, 100, 160, space=2, span=1, fmt="yuv420p"), IDENTITY)
    large = full_rgb(
        VideoReformatter(), flat(120, 100, 160, space=2, span=1, fmt="yuv420p", size=(1280, 64)), IDENTITY
    )
    assert np.abs(small[0, 0] - rgb_of(104 / 219, -28 / 224, 32 / 224, 6)).max() <= 1.5
    assert np.abs(large[0, 0] - rgb_of(104 / 219, -28 / 224, 32 / 224, 1)).max() <= 1.5


FORMATS = [
    "yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "yuv440p", "yuva420p", "yuv420p10le",
    "yuv422p10le", "yuv444p12le", "gray", "gray10le", "nv12", "rgb24", "bgra", "yuyv422", "gbrp", "p010le",
]  # fmt: skip


@pytest.mark.parametrize("size", [(400, 300), (321, 243)])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_crop_is_cut_from_the_converted_frame(fmt: str, size: tuple[int, int]) -> None:
    """Cutting before conversion, which is cheaper, changes no pixel."""
    width, height = size
    frame = av.VideoFrame.from_ndarray(picture(3, width, height)).reformat(format=fmt)
    plan = SamplePlan(crop_side=64, crops=5, frame_side=0)
    crops = np.zeros((5, 64, 64, 3), np.uint8)
    Converter(plan).write(frame, IDENTITY, crops, np.zeros((0, 0, 3), np.uint8))
    whole = full_rgb(VideoReformatter(), frame, IDENTITY)
    assert whole.shape == (height, width, 3)
    for crop, (x0, y0, x1, y1) in zip(crops, crop_boxes(width, height, 64, 5), strict=True):
        assert np.array_equal(crop, whole[y0:y1, x0:x1])


def test_decoded_frames_keep_their_chroma_place(tmp_path: Path) -> None:
    """h264 puts chroma left of the luma pair; a crop must not lose this."""
    path = encode(tmp_path / "v.mp4", size=(320, 240), frames=8)
    frames, _ = read_frames(path, 8)
    with DecoderPool(workers=1) as pool:
        (window,) = pool.decode(path, SamplePlan(crop_side=96, crops=2, frame_side=0)).windows
    for n, (x0, y0, x1, y1) in enumerate(crop_boxes(320, 240, 96, 2)):
        assert np.array_equal(window.crops_TNHWC[:, n], frames[:, y0:y1, x0:x1])


@pytest.mark.parametrize("size", [(100, 80), (80, 300), (64, 64), (300, 70)])
def test_small_frames_are_mirrored(size: tuple[int, int]) -> None:
    width, height = size
    frame = av.VideoFrame.from_ndarray(picture(1, width, height)).reformat(format="yuv420p")
    converter = Converter(SamplePlan(crop_side=224, crops=1, frame_side=0))
    crops = np.zeros((1, 224, 224, 3), np.uint8)
    converter.write(frame, IDENTITY, crops, np.zeros((0, 0, 3), np.uint8))
    whole = full_rgb(VideoReformatter(), frame, IDENTITY)
    ((x0, y0, x1, y1),) = crop_boxes(width, height, 224, 1)
    padding = [(max(0, -y0), max(0, y1 - height)), (max(0, -x0), max(0, x1 - width)), (0, 0)]
    padded = np.pad(whole, padding, mode="reflect")
    y0, x0 = max(0, y0), max(0, x0)
    assert np.array_equal(crops[0], padded[y0 : y0 + 224, x0 : x0 + 224])
    assert converter.warnings == {"mirrored_border"}


def test_resizing_averages_areas() -> None:
    rgb = picture(2, 256, 128)
    frame = av.VideoFrame.from_ndarray(rgb)
    for fit, expected in (
        ("squash", rgb.reshape(32, 4, 32, 8, 3).mean((1, 3))),
        ("crop", rgb[:, 64:192].reshape(32, 4, 32, 4, 3).mean((1, 3))),
    ):
        small = np.zeros((32, 32, 3), np.uint8)
        plan = SamplePlan(crop_side=0, frame_side=32, frame_fit=fit)
        Converter(plan).write(frame, IDENTITY, np.zeros((0, 0, 0, 3), np.uint8), small)
        assert np.abs(small - expected).mean() < 1.0, fit


@pytest.mark.parametrize(
    "matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1)]
)
def test_turned_frames(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    plan = SamplePlan(windows=1, crop_side=48, crops=2, frame_side=32)
    straight, _ = read_frames(turned(tmp_path / "0.mp4", (1, 0, 0, 1)), 24)
    path = turned(tmp_path / "1.mp4", matrix)
    frames, times = read_frames(path, 24)
    turn = Orientation.from_matrix(
        np.array([matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, 1], np.int32).tobytes()
    )
    assert all(np.array_equal(turn.apply(a), b) for a, b in zip(straight, frames, strict=True))
    with DecoderPool(workers=1) as pool:
        clip = pool.decode(path, plan)
    (window,) = clip.windows
    height, width = frames.shape[1:3]
    assert (clip.info.width, clip.info.height) == (width, height)
    first = int(np.argmin(np.abs(times - window.start_s)))
    for n, (x0, y0, x1, y1) in enumerate(crop_boxes(width, height, 48, 2)):
        assert np.array_equal(window.crops_TNHWC[:, n], frames[first : first + 8, y0:y1, x0:x1])
        assert window.boxes_N4[n] == pytest.approx([x0 / width, y0 / height, x1 / width, y1 / height])
    # The resized frame is turned too.
    upright = frames[first].astype(float)
    tall = upright[: height // 32 * 32, : width // 32 * 32]
    rough = tall.reshape(32, height // 32, 32, width // 32, 3).mean((1, 3))
    assert np.abs(window.frames_THWC[0] - rough).mean() < 6


def test_colours_survive_the_way(tmp_path: Path) -> None:
    """Lossless RGB, full circle: what was encoded comes out."""
    path = encode(tmp_path / "v.mov", "png", container="mov", pix_fmt="rgb24")
    frames, times = read_frames(path, 5, start=2)
    assert np.array_equal(frames, np.stack([picture(i) for i in range(2, 7)]))
    assert times == pytest.approx([0.08, 0.12, 0.16, 0.2, 0.24], abs=1e-3)


def test_reading_past_the_end(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", frames=10)
    frames, times = read_frames(path, 100, start=4)
    assert frames.shape == (6, 96, 128, 3)
    assert frames.flags.c_contiguous
    assert len(times) == 6
    assert read_frames(path, 100, start=10)[0].shape[0] == 0
