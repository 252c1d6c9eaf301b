"""From a decoded frame to RGB pixels: the one place where colours are converted, for training and serving.

- Native pixels: the sample aspect ratio is not applied, for resampling would wash out what the spectral
  branch looks at. Quarter turns and mirroring of the display matrix are applied; they move pixels only.
- The stream's matrix (BT.601, BT.709, BT.2020, ...) and range are honoured. Where it names no matrix: BT.709
  from 1280 columns or 577 rows up, else BT.601, as players do.
- HDR (PQ, HLG) is converted as plain RGB, without tone mapping (warning ``hdr``). More than 8 bits are
  rounded to 8, alpha is dropped, chroma is interpolated bilinearly, all with swscale's bit-exact paths.
"""

import re
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from specsem.media.geometry import Orientation, crop_boxes, mirror_index
from specsem.media.types import Float32, SamplePlan, UInt8

__all__ = ["EXACT", "Converter", "full_rgb", "orientation_of", "settle_colour"]

EXACT = (
    Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""swscale's bit-exact paths."""
_NATIVE = Interpolation.BILINEAR | EXACT
_RESIZE = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""Chroma at half the width, as everywhere in 4:2:0: it costs a third less."""

_SPC_RGB, _SPC_BT709, _SPC_UNSPECIFIED, _SPC_SMPTE170M = 0, 1, 2, 6
_SPC_CONVERTIBLE = frozenset({1, 4, 5, 6, 7, 9})
"""AVColorSpace values that swscale has coefficients for."""
_TRC_PQ, _TRC_HLG = 16, 18

_SLICEABLE = re.compile(r"(yuvj?|yuva)4(20|22|44|40|11|10)p(\d+le)?|gray(\d+le)?")
"""Planar formats of which a region can be cut out before conversion."""
_MARGIN = 8
"""Pixels cut around a crop, a multiple of every chroma block and of swscale's dither matrix, so that chroma
interpolation sees the same neighbours and the crop has the same pixels as if cut from the converted frame."""


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How the frame wants to be displayed (identity if it doesn't say)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return Orientation() if data is None else Orientation.from_matrix(bytes(cast(SideData, data)))


def settle_colour(frame: av.VideoFrame) -> list[str]:
    """Put a matrix that swscale knows on a frame that names none; tells what is out of the ordinary."""
    warnings = ["hdr"] if frame.color_trc in (_TRC_PQ, _TRC_HLG) else []
    if frame.format.is_rgb or frame.colorspace in _SPC_CONVERTIBLE:
        return warnings
    if frame.colorspace != _SPC_UNSPECIFIED and not frame.format.name.startswith("gray"):
        warnings.append("unusual_colour")
    large = frame.width >= 1280 or frame.height > 576
    frame.colorspace = _SPC_BT709 if large else _SPC_SMPTE170M
    return warnings


def _rgb(
    scaler: VideoReformatter,
    frame: av.VideoFrame,
    flags: int,
    width: int | None = None,
    height: int | None = None,
) -> UInt8:
    """HWC uint8 of the frame as stored, resized if asked. A view: copy what you keep."""
    out = scaler.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        interpolation=flags,
        dst_color_range=ColorRange.JPEG,
        threads=1,  # slices of other threads would round at other rows
    )
    plane = out.planes[0]
    stride = plane.line_size
    if stride < 0:  # an untouched bottom-up rgb24 frame
        return np.ascontiguousarray(out.to_ndarray())
    return np.ndarray((out.height, out.width, 3), np.uint8, memoryview(plane), strides=(stride, 3, 1))


def full_rgb(scaler: VideoReformatter, frame: av.VideoFrame, orientation: Orientation) -> UInt8:
    """The whole frame at native resolution as displayed, contiguous HWC uint8 RGB."""
    settle_colour(frame)
    return np.ascontiguousarray(orientation.apply(_rgb(scaler, frame, _NATIVE)))


@dataclass(slots=True)
class _Cut:
    """One crop: the region of the stored frame to convert, and where in it the crop lies."""

    region: tuple[int, int, int, int]
    rows: Any
    """Index of the crop's rows in the converted region: a slice, or mirrored indices."""
    columns: Any


class Converter:
    """Writes a frame's crops and its resized whole into given arrays. One per file: it caches by geometry."""

    def __init__(self, plan: SamplePlan) -> None:
        self.plan = plan
        self.warnings: set[str] = set()
        self._native = VideoReformatter()
        self._resize = VideoReformatter()
        self._layouts: dict[tuple[int, int, Orientation], tuple[Float32, list[_Cut]]] = {}
        self._regions: dict[tuple[object, ...], av.VideoFrame] = {}

    def boxes(self, width: int, height: int, orientation: Orientation) -> Float32:
        """``boxes_N4`` of a stored frame size: fractions of the displayed frame."""
        return self._layout(width, height, orientation)[0]

    def write(
        self, frame: av.VideoFrame, orientation: Orientation, crops_NHWC: UInt8, frame_HWC: UInt8
    ) -> None:
        """Fill one frame's row of a window."""
        self.warnings.update(settle_colour(frame))
        if crops_NHWC.size:
            self._write_crops(frame, orientation, crops_NHWC)
        if frame_HWC.size:
            self._write_frame(frame, orientation, frame_HWC)

    def _layout(self, width: int, height: int, orientation: Orientation) -> tuple[Float32, list[_Cut]]:
        key = (width, height, orientation)
        if key not in self._layouts:
            shown_w, shown_h = orientation.size(width, height)
            side = self.plan.crop_side
            boxes_N4 = crop_boxes(shown_w, shown_h, side, self.plan.crops if side else 0)
            if side > min(shown_w, shown_h):
                self.warnings.add("mirrored_border")
            cuts = [
                _cut(orientation.stored_box(tuple(b), shown_w, shown_h), width, height)
                for b in boxes_N4.tolist()
            ]
            scale = np.array([shown_w, shown_h, shown_w, shown_h], np.float32)
            self._layouts[key] = (boxes_N4.astype(np.float32) / scale, cuts)
        return self._layouts[key]

    def _write_crops(self, frame: av.VideoFrame, orientation: Orientation, crops_NHWC: UInt8) -> None:
        cuts = self._layout(frame.width, frame.height, orientation)[1]
        area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (c.region for c in cuts))
        worth_it = area < frame.width * frame.height and _sliceable(frame)
        whole = None if worth_it else _rgb(self._native, frame, _NATIVE)
        for cut, crop_HWC in zip(cuts, crops_NHWC, strict=True):
            if whole is None:
                region_HWC = _rgb(self._native, self._cut_out(frame, cut.region), _NATIVE)
            else:
                x0, y0, x1, y1 = cut.region
                region_HWC = whole[y0:y1, x0:x1]
            crop_HWC[...] = orientation.apply(region_HWC[cut.rows][:, cut.columns])

    def _cut_out(self, frame: av.VideoFrame, region: tuple[int, int, int, int]) -> av.VideoFrame:
        """The region as a frame of its own, with all properties of the original."""
        x0, y0, x1, y1 = region
        width, height = x1 - x0, y1 - y0
        name = frame.format.name
        key = (width, height, frame.width, frame.height, name, frame.colorspace, frame.color_range)
        small = self._regions.get(key)
        if small is None:
            # Only reformat() hands on the properties that PyAV has no setter for (chroma location).
            small = VideoReformatter().reformat(
                frame, width=width, height=height, interpolation=Interpolation.POINT, threads=1
            )
            self._regions[key] = small
        depth = 2 if name.endswith("le") else 1
        for source, target in zip(frame.planes, small.planes, strict=True):
            # Chroma planes are smaller by a power of two; regions begin at multiples of 16.
            sx, sy = frame.width // source.width, frame.height // source.height
            rows, columns = target.height, target.width * depth
            left, top = x0 // sx * depth, y0 // sy
            from_HW = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)
            to_HW = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
            to_HW[:, :columns] = from_HW[top : top + rows, left : left + columns]
        return small

    def _write_frame(self, frame: av.VideoFrame, orientation: Orientation, frame_HWC: UInt8) -> None:
        side = self.plan.frame_side
        width = height = side
        if self.plan.frame_fit == "crop":
            scale = side / min(frame.width, frame.height)
            width, height = max(side, round(frame.width * scale)), max(side, round(frame.height * scale))
        small_HWC = _rgb(self._resize, frame, _RESIZE, width, height)
        top, left = (height - side) // 2, (width - side) // 2
        frame_HWC[...] = orientation.apply(small_HWC[top : top + side, left : left + side])


def _sliceable(frame: av.VideoFrame) -> bool:
    """Whether a region can be cut out whose conversion gives the pixels of the whole frame's conversion.

    In odd sizes swscale stretches the chroma plane by a hair over the whole width: there it can't.
    """
    return _SLICEABLE.fullmatch(frame.format.name) is not None and all(
        p.line_size > 0 and frame.width % p.width == 0 and frame.height % p.height == 0 for p in frame.planes
    )


def _cut(box: tuple[int, int, int, int], width: int, height: int) -> _Cut:
    """Plan of one crop of a stored frame of ``width`` x ``height``; the box may reach outside."""
    columns, (x0, x1) = _axis(box[0], box[2], width)
    rows, (y0, y1) = _axis(box[1], box[3], height)
    return _Cut((x0, y0, x1, y1), rows, columns)


def _axis(start: int, stop: int, length: int) -> tuple[Any, tuple[int, int]]:
    if start < 0 or stop > length:
        return mirror_index(start, stop, length), (0, length)
    first = max(0, start // _MARGIN * _MARGIN - _MARGIN)
    last = min(length, -(-stop // _MARGIN) * _MARGIN + _MARGIN)
    return slice(start - first, stop - first), (first, last)
