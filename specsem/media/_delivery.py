"""What frames go through on their way from hand to hand: cheap changes that leave what is shown as it is.

They are done on whole native frames as stored, before a window's pixels are taken of them: so a model is
shown what it would be shown of a file that came that way. Runs in the decoder's process.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
from av.codec.context import CodecContext
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation, VideoReformatter

from specsem.media._pixels import EXACT, settle_colour
from specsem.media.geometry import Orientation
from specsem.media.types import Delivery

__all__ = ["CRF", "KEPT", "Delivered", "delivered"]

CRF = 28
"""Of the re-encode by H.264: what messengers and small sites deliver."""
KEPT = 0.8
"""Share of each side that a crop leaves, about its middle."""
_ENCODABLE = frozenset({"yuv420p", "yuvj420p"})

Shape = tuple[int, int, Orientation]
"""Width and height as stored, and the turn to display them."""


class Delivered:
    """Frames as they came: what others change something about."""

    def shape(self, width: int, height: int, turn: Orientation) -> Shape:
        """What becomes of frames of this shape."""
        return width, height, turn

    def frame(self, frame: av.VideoFrame, *, first: bool) -> av.VideoFrame:  # noqa: ARG002
        """What becomes of a frame. ``first``: of a window, with nothing before it."""
        return frame


class _Flipped(Delivered):
    def shape(self, width: int, height: int, turn: Orientation) -> Shape:
        return width, height, replace(turn, flip_x=not turn.flip_x)


class _HalfSize(Delivered):
    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def shape(self, width: int, height: int, turn: Orientation) -> Shape:
        return _even(width / 2), _even(height / 2), turn

    def frame(self, frame: av.VideoFrame, *, first: bool) -> av.VideoFrame:  # noqa: ARG002
        settle_colour(frame)  # as what it was, whatever its size is then
        width, height = _even(frame.width / 2), _even(frame.height / 2)
        return self._scaler.reformat(
            frame, width, height, interpolation=Interpolation.BICUBIC | EXACT, threads=1
        )


class _Cropped(Delivered):
    _graph: Graph | None = None
    _of: tuple[int, int, str] | None = None

    def shape(self, width: int, height: int, turn: Orientation) -> Shape:
        return _even(KEPT * width), _even(KEPT * height), turn

    def frame(self, frame: av.VideoFrame, *, first: bool) -> av.VideoFrame:  # noqa: ARG002
        settle_colour(frame)
        of = (frame.width, frame.height, frame.format.name)
        if self._graph is None or self._of != of:
            self._of, self._graph = of, self._begin(frame)
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _begin(self, frame: av.VideoFrame) -> Graph:
        graph = Graph()
        width, height = frame.width, frame.height
        source = graph.add_buffer(width=width, height=height, format=frame.format, time_base=Fraction(1, 25))
        new_width, new_height, _ = self.shape(width, height, Orientation())
        graph.link_nodes(source, graph.add("crop", f"{new_width}:{new_height}"), graph.add("buffersink"))
        graph.configure()
        return graph


class _Reencoded(Delivered):
    """Through H.264 and back, each window a video of its own. Without lookahead: a frame in, a frame out."""

    _encoder: VideoCodecContext
    _decoder: VideoCodecContext

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def shape(self, width: int, height: int, turn: Orientation) -> Shape:
        return _even(width), _even(height), turn

    def frame(self, frame: av.VideoFrame, *, first: bool) -> av.VideoFrame:
        settle_colour(frame)
        width, height = _even(frame.width), _even(frame.height)
        encodable = frame
        if frame.format.name not in _ENCODABLE or (width, height) != (frame.width, frame.height):
            flags = Interpolation.BICUBIC | EXACT
            encodable = self._scaler.reformat(frame, width, height, "yuv420p", interpolation=flags, threads=1)
        if first:
            self._begin(width, height, encodable.format.name)
        encodable.pict_type = 0  # the encoder's choice, not the file's
        (packet,) = self._encoder.encode(encodable)
        (decoded,) = self._decoder.decode(packet)
        decoded.colorspace, decoded.color_range = encodable.colorspace, encodable.color_range
        return decoded

    def _begin(self, width: int, height: int, pixel_format: str) -> None:
        encoder = CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, pixel_format
        encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
        encoder.options = {"crf": str(CRF), "preset": "veryfast", "tune": "zerolatency"}
        self._encoder = encoder
        self._decoder = CodecContext.create("h264", "r")
        self._decoder.thread_count = 1


def delivered(how: Delivery | None) -> Delivered:
    """What changes frames so. Fewer of them is no change to any."""
    match how:
        case "half_size":
            return _HalfSize()
        case "reencode":
            return _Reencoded()
        case "crop":
            return _Cropped()
        case "flip":
            return _Flipped()
        case _:
            return Delivered()


def _even(length: float) -> int:
    return max(2, int(length) & ~1)
