"""An open file as a stream of packets and frames, with everything that a hostile or odd file can do to it.

The only module that calls ``av.open``. It gets a descriptor, never a name: ffmpeg sees ``fd:`` with the
demuxer that :mod:`specsem.media._sniff` chose, and may open nothing else (``protocol_whitelist``).
"""

from __future__ import annotations  # av's classes can't be subscripted at run time

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import PictureType

from specsem.errors import Encrypted, LimitsExceeded, NoVideoStream, TooSmall, Undecodable, UnsupportedMedia
from specsem.media._pixels import orientation_of
from specsem.media._sniff import HEAD_BYTES, demuxer_of
from specsem.media.geometry import Orientation
from specsem.media.types import Limits

__all__ = ["STILL", "Picture", "Shot", "Source", "open_source"]

CODECS = frozenset((
    "av1", "cfhd", "cinepak", "dnxhd", "dvvideo", "ffv1", "ffvhuff", "flv1", "gif", "h261", "h263", "h263i",
    "h263p", "h264", "hevc", "huffyuv", "indeo3", "indeo4", "indeo5", "jpeg2000", "magicyuv", "mjpeg",
    "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "msrle", "msvideo1", "png",
    "prores", "qtrle", "rawvideo", "rpza", "svq1", "svq3", "theora", "utvideo", "v210", "vc1", "vp3", "vp6",
    "vp6a", "vp6f", "vp8", "vp9", "wmv1", "wmv2", "wmv3", "wrapped_avframe",
))  # fmt: skip
"""Codecs by ffmpeg's name. Others are refused (``unsupported``) before a byte of theirs is decoded."""

_CONTAINERS = {"mov": "mp4", "yuv4mpegpipe": "y4m", "mpegvideo": "mpeg", "m4v": "mpeg4"}
"""Names for people, where the demuxer's is unusual."""

_CLOCK_RESET_S = 0.5
"""A jump back in time by more is a clock that was set back; less, a disorder."""
_FRAME_TYPES = 24
"""So many of the first frames' types are remembered."""
_INDEXED = frozenset({"mov", "avi"})
_ELEMENTARY = frozenset({"h264", "hevc", "m4v", "mpegvideo"})
_MOV_OPTIONS = {
    # Never follow a data reference into another file (off by default; said for certain).
    "enable_drefs": "0",
    "use_absolute_path": "0",
    # MP4's tables have all that sets up a decoder, even the delay of B frames. With `skip_frame`, libav does
    # not decode to find it out, which costs as much as 6 frames.
    "probesize": "65536",
}
STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Streams that hold pictures and do not move."""
_ENCRYPTED_TAGS = frozenset({"encv", "drmi", "p608"})


class Shot(NamedTuple):
    """What is remembered of a frame when its pixels are gone."""

    ts: int
    """In ticks of the stream's time base."""
    duration: int
    """Display time in ticks, 0 if unknown."""
    shape: tuple[int, int, Orientation]
    """Stored width and height, and the turn: what all frames of one window have in common."""


class Picture(NamedTuple):
    """A decoded frame."""

    frame: av.VideoFrame
    shot: Shot
    clean: bool
    """Decoded without error, from a packet that is not marked corrupt."""


def open_source(fd: int, limits: Limits, *, threads: int = 1) -> Source:
    """Open the file behind ``fd``, which stays the caller's. Raises a MediaError if it is not for us."""
    size = os.fstat(fd).st_size
    if size > limits.max_bytes:
        raise LimitsExceeded(f"The file has more than {limits.max_bytes} bytes.")
    return Source(fd, demuxer_of(os.pread(fd, HEAD_BYTES, 0)), limits, threads)


class Source:
    """One video stream of one file.

    Timestamps are those of the container in ticks of :attr:`tick_s` seconds. A stream without any (a raw
    elementary stream) gets them by counting frames at the nominal rate (warning ``no_timestamps``).
    """

    def __init__(self, fd: int, demuxer: str, limits: Limits, threads: int) -> None:
        self._fd = fd
        self._demuxer = demuxer
        self.limits = limits
        self.threads = threads
        """Of the decoder, from the next opening on."""
        self.warnings: set[str] = set()
        self.frames_out = 0
        """Frames that came out of the decoder so far, clean or not."""
        self.damage = 0
        """Packets that the decoder refused and frames that it marked as broken."""
        self._open()

    # -- opening --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        os.lseek(self._fd, 0, os.SEEK_SET)
        mov = self._demuxer == "mov"
        try:
            self._container = av.open(
                "fd:",
                mode="r",
                format=self._demuxer,
                container_options={
                    "fd": str(self._fd),
                    "protocol_whitelist": "fd",
                    "format_whitelist": av.format.ContainerFormat(self._demuxer, "r").name,
                    **(_MOV_OPTIONS if mov else {}),
                },
                options={
                    "max_pixels": str(self.limits.max_pixels),
                    "threads": "1",
                    **({"skip_frame": "all"} if mov else {}),
                },
                metadata_errors="replace",
            )
        except MemoryError:
            raise LimitsExceeded("Opening the file needs too much memory.") from None
        except (FFmpegError, ValueError) as error:
            raise Undecodable(f"The container can't be read ({_reason(error)}).") from None
        self._stream = self._pick()
        self._codec = self._stream.codec_context
        self._codec.thread_type = "AUTO" if self.threads > 1 else "NONE"
        self._codec.thread_count = self.threads
        self._codec.options = {**self._codec.options, "max_pixels": str(self.limits.max_pixels)}
        self._packets: Iterator[Packet[Any]] = iter(self._container.demux(self._stream))
        self._last_ts: int | None = None
        self._shift = 0
        self._unproven = 8
        """So many packets still have to show that they are not encrypted; a file is so from its start."""
        self._corrupt: set[int | None] = set()
        self._shape: tuple[int, int] | None = None
        self._orientation = Orientation()
        self.frame_types = ""
        """Letters (I, P, B, ...) of the first frames in a row that came out, from a key frame on."""
        self._in_a_row = True

    def _pick(self) -> Any:
        """The stream to look at: not a cover picture, default first, then the largest."""
        streams = self._container.streams
        if len(streams) > self.limits.max_streams:
            raise LimitsExceeded(f"The file has more than {self.limits.max_streams} streams.")
        moving = [s for s in streams.video if not s.disposition & STILL]
        if not moving:
            raise NoVideoStream("The file has no stream of moving pictures.")
        if len(moving) > 1:
            self.warnings.add("several_video_streams")
        best = max(moving, key=lambda s: (bool(s.disposition & Disposition.default), _area(s), -s.index))
        for stream in streams:
            if stream is not best:
                stream.discard = Discard.all
        context = best.codec_context
        if "enc_key_id" in best.metadata or (context is not None and context.codec_tag in _ENCRYPTED_TAGS):
            raise Encrypted("The video is encrypted.")
        if context is None or context.codec.canonical_name not in CODECS:
            raise UnsupportedMedia("The video is of a codec that is not supported.")
        if best.time_base is None or best.time_base <= 0:
            raise Undecodable("The stream has no time base.")
        self._refuse_size(context.width, context.height)
        return best

    def _refuse_size(self, width: int, height: int) -> None:
        """Sizes beyond the limits, of a header (0: it does not say) or of a decoded frame."""
        limits = self.limits
        if max(width, height) > limits.max_side or width * height > limits.max_pixels:
            raise LimitsExceeded(f"Frames of {width}x{height} pixels are beyond the limit.")
        if 0 < min(width, height) < limits.min_side:
            raise TooSmall(f"Frames of {width}x{height} pixels are too small to judge.")

    def refuse_frames(self, n: int) -> None:
        """``n``: frames counted so far, or as many as the timestamps make out."""
        if n > self.limits.max_frames:
            raise LimitsExceeded(f"The video has more than {self.limits.max_frames} frames.")

    def clear_frames(self) -> None:
        """Count frames and damage from zero: a new pass begins."""
        self.frames_out = self.damage = 0

    def close(self) -> None:
        self._container.close()

    # -- facts ----------------------------------------------------------------------------------------------

    @property
    def container(self) -> Any:
        """PyAV's: for tags and tracks, not for reading."""
        return self._container

    @property
    def stream(self) -> Any:
        """PyAV's, likewise."""
        return self._stream

    @property
    def indexes_every_frame(self) -> bool:
        """Whether the stream's index has an entry for each frame."""
        return self._demuxer in _INDEXED

    @property
    def container_name(self) -> str:
        """``mp4``, ``matroska``, ``avi``, ...: the content's, whatever the file is called."""
        return _CONTAINERS.get(self._demuxer, self._demuxer)

    @property
    def codec_name(self) -> str:
        return str(self._codec.codec.canonical_name)

    @property
    def frame_pixels(self) -> int:
        """Pixels of a frame by the header, at least 1."""
        return max(1, _area(self._stream))

    @property
    def tick_s(self) -> float:
        return float(self._stream.time_base)

    @property
    def nominal_rate(self) -> float | None:
        """Frames a second as the header has it; a hint."""
        rate = self._stream.average_rate or self._stream.guessed_rate or self._stream.base_rate
        return float(rate) if rate else None

    @property
    def header_duration_s(self) -> float | None:
        """What the container claims; None too where libav only guesses it from the bitrate."""
        if self._demuxer in _ELEMENTARY:
            return None
        if self._stream.duration is not None:
            return float(self._stream.duration) * self.tick_s
        return self._container.duration / av.time_base if self._container.duration is not None else None

    @property
    def seekable_keyframes(self) -> bool:
        """Whether decoding may begin at any packet marked as a key frame (GIF's build on all before)."""
        return self._demuxer != "gif"

    # -- packets --------------------------------------------------------------------------------------------

    def packets(self) -> Iterator[Packet[Any]]:
        """The next packets of the stream, to the end of the file; the flushing packet is left out.

        Raises: Encrypted, LimitsExceeded. An error of the container ends it (warning ``partly_corrupt``).
        """
        while True:
            try:
                packet = next(self._packets, None)
            except MemoryError:
                raise LimitsExceeded("A packet of the file needs too much memory.") from None
            except IndexError:  # PyAV at the end of a file in which a stream appeared that the header had not
                return
            except (FFmpegError, ValueError):
                self.warnings.add("partly_corrupt")
                return
            if packet is None:
                return
            if packet.size == 0:
                continue  # PyAV's flushing packet, and empty ones that would flush the decoder in mid-stream
            if self._unproven:
                self._unproven -= 1
                if packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"):
                    raise Encrypted("The video is encrypted.")
            if packet.is_corrupt:
                self._corrupt.add(_own_ts(packet))
            yield packet

    def rewind(self) -> None:
        """Back to the first packet, by opening anew: it works for every demuxer."""
        self._container.close()
        self._open()

    def seek(self, ts: int) -> bool:
        """To the last key frame at or before ``ts``, as far as the demuxer can; says whether it claims so."""
        self._break_row()
        try:
            self._container.seek(ts, stream=self._stream, backward=True)
        except (FFmpegError, OverflowError):
            return False
        finally:
            self._packets = iter(self._container.demux(self._stream))
            self._forget_clock()
        return True

    def flush(self, clock: int | None = None) -> None:
        """Forget all decoded state, before decoding goes on at another place.

        ``clock``: what a next frame without a timestamp gets.
        """
        self._break_row()
        self._codec.flush_buffers()
        self._forget_clock()
        if clock is not None:
            self._last_ts = clock - self.nominal_ticks

    def _break_row(self) -> None:
        self._in_a_row = not self.frame_types

    def _forget_clock(self) -> None:
        self._last_ts = None
        self._shift = 0

    # -- frames ---------------------------------------------------------------------------------------------

    def skip_unreferenced(self, on: bool) -> None:
        """Let the decoder drop frames that no other needs, for a stretch whose frames are thrown away."""
        self._break_row()
        self._codec.skip_frame = "NONREF" if on else "DEFAULT"

    def decode(self, packet: Packet[Any] | None) -> list[Picture]:
        """Frames that come out for ``packet`` (None: the last ones). Errors count as damage."""
        try:
            frames = self._codec.decode(packet)
        except MemoryError:
            raise LimitsExceeded("Decoding needs too much memory.") from None
        except EOFError:
            return []
        except (FFmpegError, ValueError):
            self.damage += 1
            return []
        return [self._picture(frame) for frame in frames]

    def _picture(self, frame: Any) -> Picture:
        self.frames_out += 1
        if self._shape != (frame.width, frame.height):
            self._refuse_size(frame.width, frame.height)
            if self._shape is not None:
                self.warnings.add("size_changed")
            self._shape = (frame.width, frame.height)
            self._orientation = orientation_of(frame)
            if self._orientation.mirrored:
                self.warnings.add("mirrored")
        if self._in_a_row and len(self.frame_types) < _FRAME_TYPES:
            self._note_type(frame)
        if frame.interlaced_frame:
            self.warnings.add("interlaced")
        duration = max(0, frame.duration or 0)
        ts = self._last_ts = self._time(frame, duration or self.nominal_ticks)
        # The decoder does not hand on the demuxer's mark of a damaged packet.
        clean = not frame.is_corrupt and (not self._corrupt or _own_ts(frame) not in self._corrupt)
        self.damage += not clean
        return Picture(frame, Shot(ts, duration, (frame.width, frame.height, self._orientation)), clean)

    def _note_type(self, frame: Any) -> None:
        kind = PictureType(frame.pict_type)
        if kind is PictureType.NONE:
            self._in_a_row = False
        elif self.frame_types or frame.key_frame:
            self.frame_types += kind.name[:1]

    def _time(self, frame: Any, step: int) -> int:
        """When the frame is shown, never before the last one; ``step`` after it if the file does not say."""
        ts = _own_ts(frame)
        last = self._last_ts
        if ts is None:
            self.warnings.add("no_timestamps")
            return 0 if last is None else last + step
        shown = int(ts) + self._shift
        if last is None or shown > last:
            return shown
        self.warnings.add("irregular_timestamps")
        if (last - shown) * self.tick_s > _CLOCK_RESET_S:  # files joined end to end: our clock goes on
            self._shift += last + step - shown
            return last + step
        return last

    @property
    def nominal_ticks(self) -> int:
        """Display time of a frame at the nominal rate (25 a second if there is none), at least one tick."""
        return max(1, round(1 / ((self.nominal_rate or 25.0) * self.tick_s)))


def _own_ts(thing: Any) -> int | None:
    """When a packet or a frame is shown, as the file has it; the decoding time for want of better."""
    return thing.pts if thing.pts is not None else thing.dts  # type: ignore[no-any-return]


def _area(stream: Any) -> int:
    context = stream.codec_context
    return context.width * context.height if context is not None else 0


def _reason(error: BaseException) -> str:
    """libav's own words, which hold no path of ours (we open by descriptor)."""
    return (getattr(error, "strerror", None) or type(error).__name__).lower()
