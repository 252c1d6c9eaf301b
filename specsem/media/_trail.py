"""How a file was written, by its own word: tags, brands, tracks, pattern of frames. Facts, no verdict.

Runs in the decoder's process. Tags and tracks are what libav read; what it does not tell (edit lists, bytes
behind the container's end) is read here, header by header and at most :data:`_MOST_BOXES` of them, so that no
file can make it long.
"""

from __future__ import annotations

import os
import re
import statistics
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

from av.packet import Packet

from specsem.media._source import STILL, Source
from specsem.media._wire import iso_time, plain
from specsem.media.types import Trail

__all__ = ["read_trail"]

_MOST_BOXES = 20_000
_MOST_ENTRIES = 5_000
"""Of an index: frames that are looked at for key frames."""
_MOST_BRANDS = 20
_SIGNED_BYTES = 4096
"""Encoders that leave their name in the stream do so at its very beginning."""
_SIGNATURE = re.compile(
    rb"x264 - core \d+(?: r\d+)?|x265 \(build \d+\)(?: - [\w.+-]+)?|Lavc\d[\d.]*|XviD\d+|DivX\d+"
    rb"|Xiph\.Org libtheora [\w. ()-]+"
)
_MUXER_TAGS = ("encoder", "com.apple.quicktime.software", "software", "writing_application")
_TOP_LEVEL = frozenset(
    b"ftyp moov mdat free skip wide pnot moof mfra meta styp sidx ssix prft pdin emsg uuid udta".split()
)


def read_trail(source: Source, fd: int, packets: Sequence[Packet[Any]], pixel_format: str) -> Trail:
    """``packets``: the first ones of the stream. Raises what a broken file makes of us."""
    container, stream = source.container, source.stream
    tags, own_tags = _tags(container), _tags(stream)
    edit_lists, trailing_bytes = _structure(source.container_name, fd)
    return Trail(
        muxer=_first(tags.get(tag) for tag in _MUXER_TAGS),
        encoder=_signature(stream, packets) or _first([own_tags.get("encoder")]),
        created_at=iso_time(tags.get("creation_time")),
        brands=_brands(tags),
        profile=_first([stream.codec_context.profile]),
        pixel_format=pixel_format or None,
        gop=source.frame_types or None,
        keyframe_interval=_keyframe_interval(source, packets),
        edit_lists=edit_lists,
        tracks=[_track(track) for track in container.streams],
        trailing_bytes=trailing_bytes,
    )


def _tags(thing: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in thing.metadata.items()}


def _first(texts: Iterable[str | None]) -> str | None:
    return next((found for text in texts if text and (found := plain(text))), None)


def _brands(tags: dict[str, str]) -> list[str]:
    compatible = tags.get("compatible_brands", "")[: 4 * _MOST_BRANDS]
    brands = [tags.get("major_brand", ""), *(compatible[i : i + 4] for i in range(0, len(compatible), 4))]
    return list(dict.fromkeys(found for brand in brands if (found := plain(brand))))


def _track(stream: Any) -> str:
    context = stream.codec_context
    cover = " (still)" if stream.type == "video" and stream.disposition & STILL else ""
    return f"{stream.type} {context.name if context is not None else 'unknown'}{cover}"


def _signature(stream: Any, packets: Sequence[Packet[Any]]) -> str | None:
    """The name that the encoder left in the stream itself."""
    extradata = stream.codec_context.extradata or b""
    for data in (extradata, *packets[:2]):
        if found := _SIGNATURE.search(bytes(memoryview(data)[:_SIGNED_BYTES])):
            return plain(found.group().decode("ascii"))
    return None


def _keyframe_interval(source: Source, packets: Sequence[Packet[Any]]) -> float | None:
    """Median number of frames from key frame to key frame, where two are seen."""
    rows = [[packet.is_keyframe for packet in packets]]
    if source.indexes_every_frame:
        rows.insert(0, [entry.is_keyframe for entry in islice(source.stream.index_entries, _MOST_ENTRIES)])
    for row in rows:
        keys = [i for i, is_key in enumerate(row) if is_key]
        if len(keys) > 1:
            return float(statistics.median(b - a for a, b in pairwise(keys)))
    return None


# -- structure ----------------------------------------------------------------------------------------------


def _structure(container: str, fd: int) -> tuple[int, int | None]:
    """Edit lists, and bytes behind the end of the container; None where it has no end of its own."""
    size = os.fstat(fd).st_size
    if container == "mp4":
        return _Boxes(fd).survey(size)
    if container == "avi":
        return 0, size - _riff_end(fd, size)
    if container == "matroska":
        return 0, size - _segments_end(fd, size)
    return 0, None


class _Box(NamedTuple):
    kind: bytes
    start: int
    """Of what is in it."""
    end: int
    """As it claims."""


class _Boxes:
    """The boxes of an MP4."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left = _MOST_BOXES

    def survey(self, size: int) -> tuple[int, int | None]:
        """Edit lists of all tracks, and bytes behind the last box (None: too many boxes to tell)."""
        end = edit_lists = 0
        for box in self._within(0, size):
            if box.end > size and box.kind not in _TOP_LEVEL:
                break  # not a box that was cut off: other bytes, that look a bit like one
            end = min(size, box.end)
            if box.kind == b"moov":
                edit_lists += self._edit_lists(box)
        return edit_lists, size - end if self._left else None

    def _edit_lists(self, moov: _Box) -> int:
        return sum(
            box.kind == b"elst"
            for track in self._within(moov.start, moov.end)
            if track.kind == b"trak"
            for edits in self._within(track.start, track.end)
            if edits.kind == b"edts"
            for box in self._within(edits.start, edits.end)
        )

    def _within(self, start: int, end: int) -> Iterator[_Box]:
        while start + 8 <= end and self._left:
            self._left -= 1
            head = os.pread(self._fd, 16, start)
            if len(head) < 8:
                return
            size, kind = struct.unpack_from(">I4s", head)
            length = 8
            if size == 1 and len(head) == 16:
                size, length = int.from_bytes(head[8:], "big"), 16
            elif size == 0:
                size = end - start  # to the end
            if size < length or not all(0x20 <= c < 0x7F or c == 0xA9 for c in kind):
                return
            yield _Box(kind, start + length, start + size)
            start += size


def _riff_end(fd: int, size: int) -> int:
    """End of the last RIFF chunk: a large AVI has several."""
    end = 0
    for _ in range(_MOST_BOXES):
        head = os.pread(fd, 8, end)
        if head[:4] != b"RIFF" or len(head) < 8:
            break
        (length,) = struct.unpack_from("<I", head, 4)
        if not length:  # never filled in
            return size
        end = min(size, end + 8 + length + length % 2)
    return end


_EBML_TOP_LEVEL = frozenset((0x1A45DFA3, 0x18538067, 0xEC))
"""Header, segment, padding."""


def _segments_end(fd: int, size: int) -> int:
    """End of the last top-level element of a Matroska file."""
    end = 0
    for _ in range(_MOST_BOXES):
        head = os.pread(fd, 12, end)
        kind, used = _vint(head, keep_marker=True)
        length, more = _vint(head[used:], keep_marker=False)
        if kind not in _EBML_TOP_LEVEL or not more:
            break
        if length == (1 << 7 * more) - 1:  # of unknown length: all that follows
            return size
        end = min(size, end + used + more + length)
    return end


def _vint(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """A number of EBML and how many bytes it takes (0: there is none)."""
    width = 9 - data[0].bit_length() if data and data[0] else 9
    if width > min(8, len(data)):
        return 0, 0
    value = int.from_bytes(data[:width], "big")
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), width
