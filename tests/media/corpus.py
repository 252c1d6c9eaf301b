"""Makes small videos of every odd kind, at test time, with PyAV alone. Nothing here is a real recording."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from specsem.synthetic import priority_kept

UInt8 = npt.NDArray[np.uint8]

WIDTH, HEIGHT, FRAMES = 128, 96, 24


def picture(i: int, width: int = WIDTH, height: int = HEIGHT) -> UInt8:
    """Frame ``i``: gradients that move, a bright top left corner (it shows turns), fixed texture."""
    y, x = np.mgrid[0:height, 0:width]
    texture = np.random.default_rng(7).integers(0, 24, (height, width, 3))
    base = np.stack([(x * 2 + 3 * i) % 160, (y * 2 + i) % 160, (x + y + 2 * i) % 160], -1)
    base[: height // 4, : width // 4] = 220
    return (base + texture).clip(0, 255).astype(np.uint8)


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rate: Fraction | int = 25,
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    pts: Callable[[int], int] | None = None,
    time_base: Fraction | None = None,
    setup: Callable[[Any], None] | None = None,
    tweak: Callable[[Any], None] | None = None,
    sound: int = 0,
    cover: bool = False,
    videos: int = 1,
    retime: Callable[[int], int] | None = None,
) -> Path:
    """Encode :func:`picture` frames. ``pts(i)`` in ``time_base``; ``setup`` gets the stream's codec context,
    ``tweak`` each frame; ``sound``: audio tracks; ``retime`` maps every packet's times after encoding.
    """
    width, height = size
    with priority_kept(), av.open(str(path), "w", format=container, options=mux or {}) as out:
        streams = []
        for _ in range(videos):
            stream = out.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            if time_base is not None:
                stream.codec_context.time_base = time_base
            if setup is not None:
                setup(stream.codec_context)
            streams.append(stream)
        tracks = [out.add_stream("aac", rate=8000, layout="mono") for _ in range(sound)]
        covers = []
        if cover:
            art = out.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
            covers = [art]
        for track in tracks:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 8000, 0
            out.mux(track.encode(silence))
            out.mux(track.encode(None))
        for art in covers:
            frame = av.VideoFrame.from_ndarray(picture(0, 64, 64)).reformat(format="yuvj420p")
            out.mux(art.encode(frame))
            out.mux(art.encode(None))
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, width, height)).reformat(format=pix_fmt)
            frame.pts = i if pts is None else pts(i)
            frame.time_base = time_base or Fraction(1, 1) / Fraction(rate)
            if tweak is not None:
                tweak(frame)
            for stream in streams:
                _mux(out, stream.encode(frame), retime)
        for stream in streams:
            _mux(out, stream.encode(None), retime)
    return path


def _mux(out: Any, packets: Iterable[Any], retime: Callable[[int], int] | None) -> None:
    for packet in packets:
        if retime is not None:
            packet.pts, packet.dts = retime(packet.pts), retime(packet.dts)
        out.mux(packet)


def patch(path: Path, tag: bytes, offset: int, data: bytes) -> Path:
    """Overwrite ``data`` at ``offset`` behind the first ``tag``."""
    content = bytearray(path.read_bytes())
    at = content.index(tag) + len(tag) + offset
    content[at : at + len(data)] = data
    path.write_bytes(content)
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """An mp4 whose track header has the display matrix ``a b c d`` (units of 1)."""
    a, b, c, d = (v * 65536 for v in matrix)
    encode(path)
    return patch(path, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


def flipped(path: Path, seed: int, count: int, start: float = 0.3, stop: float = 1.0) -> Path:
    """Replace ``count`` bytes at random places of the part ``start..stop`` of the file."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(int(len(content) * start), int(len(content) * stop), count):
        content[at] = rng.integers(256)
    path.write_bytes(content)
    return path


def truncated(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def joined(path: Path, *parts: Path) -> Path:
    """One file behind the other."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        if part != path:
            part.unlink()
    return path


@dataclass(frozen=True)
class Case:
    """One file and what must come of it: a stable error ``code``, or facts of the clip."""

    name: str
    make: Callable[[Path], object]
    code: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Of ``MediaInfo``; floats are compared to 2%."""
    warns: tuple[str, ...] = ()
    """These warnings, among others."""
    quiet: bool = False
    """No warning at all."""
    limits: dict[str, Any] = field(default_factory=dict)


ONE_THREAD = {"preset": "12", "svtav1-params": "lp=1"}
"""SVT-AV1's threads would ask for real-time priority, and as root get it."""


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _enc(*args: Any, **kwargs: Any) -> Callable[[Path], object]:
    return lambda path: encode(path, *args, **kwargs)


def good(name: str, make: Callable[[Path], object], **facts: Any) -> Case:
    warns = facts.pop("warns", ())
    return Case(name, make, facts=facts, warns=warns, quiet=facts.pop("quiet", False))


def _ts_scrambled(path: Path) -> None:
    content = bytearray(encode(path, container="mpegts").read_bytes())
    for at in range(0, len(content), 188):
        pid = (content[at + 1] & 0x1F) << 8 | content[at + 2]
        if pid == 0x100:
            content[at + 3] |= 0x80
    path.write_bytes(content)


def _asf_drm(path: Path) -> None:
    """Put a content encryption object where the header's padding or metadata object was."""
    content = bytearray(encode(path, "wmv2", container="asf").read_bytes())
    ext = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")  # header extension object
    at = content.index(ext)
    content[at : at + 16] = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    path.write_bytes(content)


def _edit_list_cut(path: Path) -> None:
    """Stream copy from the middle of a GOP: frames before the cut are there, but the edit list hides them."""
    whole = encode(path.with_suffix(".whole"), frames=48, container="mp4", options={"g": "24", "bf": "2"})
    with av.open(str(whole)) as src, av.open(str(path), "w", format="mp4") as out:
        target = out.add_stream_from_template(src.streams.video[0])
        tick = Fraction(1, 25) / src.streams.video[0].time_base
        for packet in src.demux(video=0):
            if packet.dts is None:
                continue
            packet.pts -= int(10 * tick)
            packet.dts -= int(10 * tick)
            packet.stream = target
            out.mux(packet)
    whole.unlink()


def _two_sizes(path: Path, container: str, codec: str) -> None:
    first = encode(path.with_suffix(".1"), codec, container=container, frames=20)
    second = encode(path.with_suffix(".2"), codec, container=container, frames=20, size=(160, 128))
    joined(path, first, second)


def _late_stream(path: Path) -> None:
    """A transport stream that gets packets of another program's video on the way."""
    late = b"\x47\x40\x20\x10\0\0\1\xe0\0\0\x80\0\0".ljust(188, b"\xff")
    path.write_bytes(encode(path, container="mpegts").read_bytes() + late * 2)


def _lying_rate(path: Path) -> None:
    """A header that claims 15,259 frames a second, of which only the last frame's length could be known."""
    encode(path, "libvpx", container="webm", frames=8)
    patch(path, b"\x23\xe3\x83", 1, struct.pack(">I", 65536))


def _lying_length(path: Path) -> None:
    """30 frames, fragmented; the movie header claims 40 hours."""
    encode(path, frames=30, container="mp4", mux={"movflags": "frag_keyframe+empty_moov"})
    content = bytearray(path.read_bytes())
    at = content.index(b"mvhd") + 4
    scale = struct.unpack(">I", content[at + 12 : at + 16])[0]
    content[at + 16 : at + 20] = struct.pack(">I", 40 * 3600 * scale)
    at = content.index(b"mdhd") + 4
    scale = struct.unpack(">I", content[at + 12 : at + 16])[0]
    content[at + 16 : at + 20] = struct.pack(">I", 40 * 3600 * scale)
    path.write_bytes(content)


def _foreign_data(path: Path) -> None:
    """A mov whose samples lie, by its data reference, in the file next to it."""
    neighbour = encode(path.with_name("neighbour.mov"), "mpeg4", container="mov")
    content = neighbour.read_bytes()
    at = content.index(b"moov") - 4
    moov = content[at : at + struct.unpack(">I", content[at : at + 4])[0]]
    name = str(neighbour.resolve()).encode()
    alias = bytearray(150)
    struct.pack_into(">H", alias, 6, 2)  # version
    alias[50] = len(name[:63])
    alias[51 : 51 + len(name[:63])] = name[:63]
    struct.pack_into(">hh", alias, 128, 0, 0)
    tail = (
        struct.pack(">hH", 2, len(name))
        + name
        + b"\0" * (len(name) % 2)
        + struct.pack(">hH", 18, len(name))
        + name
    )
    alias += tail + b"\0" * (len(name) % 2) + struct.pack(">hH", -1, 0)
    entry = b"alis" + struct.pack(">I", 0) + bytes(alias)
    entry = struct.pack(">I", len(entry) + 4) + entry
    dref = b"dref" + struct.pack(">II", 0, 1) + entry
    dref = struct.pack(">I", len(dref) + 4) + dref
    at = moov.index(b"dref") - 4
    old = moov[at : at + struct.unpack(">I", moov[at : at + 4])[0]]
    grown = len(dref) - len(old)
    moov = bytearray(moov.replace(old, dref))
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = 0 if box == b"moov" else moov.index(box) - 4
        struct.pack_into(">I", moov, at, struct.unpack(">I", moov[at : at + 4])[0] + grown)
    path.write_bytes(
        content[: content.index(b"ftyp") - 4 + 20] + bytes(moov) + struct.pack(">I", 8) + b"mdat"
    )


def _only_cover(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as out:
        track = out.add_stream("aac", rate=8000, layout="mono")
        art = out.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 8000, 0
        out.mux(track.encode(silence))
        out.mux(track.encode(None))
        out.mux(art.encode(av.VideoFrame.from_ndarray(picture(0, 64, 64)).reformat(format="yuvj420p")))
        out.mux(art.encode(None))


def _sound_only(path: Path, container: str, codec: str) -> None:
    with av.open(str(path), "w", format=container) as out:
        track = out.add_stream(codec, rate=8000, layout="mono")
        kind = track.codec_context.format.name
        shape, dtype = ((1, 1024), np.float32) if kind == "fltp" else ((1, 1024), np.int16)
        silence = av.AudioFrame.from_ndarray(np.zeros(shape, dtype), kind, "mono")
        silence.sample_rate, silence.pts = 8000, 0
        out.mux(track.encode(silence))
        out.mux(track.encode(None))


def _still(path: Path, codec: str, pix_fmt: str) -> None:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = 96, 96, pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(0, 96, 96)).reformat(format=pix_fmt)
    path.write_bytes(b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)]))


def _zeroed(path: Path, start: float, stop: float, **kwargs: Any) -> None:
    content = bytearray(encode(path, **kwargs).read_bytes())
    a, b = int(len(content) * start), int(len(content) * stop)
    content[a:b] = bytes(b - a)
    path.write_bytes(content)


def _interlace(context: Any) -> None:
    context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me


def _hdr(trc: int) -> Callable[[Any], None]:
    def setup(context: Any) -> None:
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = trc, 9, 9, 1

    return setup


_Y4M_HUGE = b"YUV4MPEG2 W20000 H20000 F25:1 Ip A0:0 C420jpeg\nFRAME\n" + bytes(1000)
_CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}
_FLIGHT = {"g": "6", "bf": "0"}

CONTAINERS: list[Case] = [
    good("mp4", _enc(container="mp4"), container="mp4", codec="h264", fps=25.0, duration_s=0.96, quiet=True),
    good("mov named .txt", _enc(container="mov"), container="mp4"),
    good("mp4 with index first", _enc(container="mp4", mux={"movflags": "faststart"}), container="mp4"),
    good(
        "fragmented mp4", _enc(container="mp4", mux={"movflags": "frag_keyframe+empty_moov"}), duration_s=0.96
    ),
    good(
        "fragmented mp4, every frame", _enc(container="mp4", mux={"movflags": "frag_every_frame+empty_moov"})
    ),
    good(
        "fragmented mp4 that claims 40 hours", _lying_length, duration_s=1.2, warns=("header_duration_wrong",)
    ),
    good("3gp h263", _enc("h263", container="3gp", size=(176, 144)), codec="h263", width=176, height=144),
    good("matroska h264", _enc(container="matroska"), container="matroska", codec="h264"),
    good("matroska live", _enc(container="matroska", mux={"live": "1"}), fps=25.0),
    good("webm vp8", _enc("libvpx", container="webm"), codec="vp8"),
    good("webm vp9", _enc("libvpx-vp9", container="webm", options={"cpu-used": "8"}), codec="vp9"),
    good("mp4 av1", _enc("libsvtav1", container="mp4", options=ONE_THREAD), codec="av1"),
    good(
        "mp4 hevc", _enc("libx265", container="mp4", options={"x265-params": "log-level=none"}), codec="hevc"
    ),
    good("avi mpeg4", _enc("mpeg4", container="avi"), container="avi", codec="mpeg4", quiet=True),
    good("avi mpeg4 with B frames", _enc("mpeg4", container="avi", options={"bf": "2"}), codec="mpeg4"),
    good("avi h264 with B frames", _enc(container="avi", options={"bf": "2"}), codec="h264"),
    good("avi mjpeg", _enc("mjpeg", container="avi", pix_fmt="yuvj420p"), codec="mjpeg"),
    good("avi msmpeg4v2", _enc("msmpeg4v2", container="avi"), codec="msmpeg4v2"),
    good("avi huffyuv", _enc("huffyuv", container="avi", pix_fmt="yuv422p"), codec="huffyuv"),
    good("mov prores", _enc("prores_ks", container="mov", pix_fmt="yuv422p10le"), codec="prores"),
    good("mpegts", _enc(container="mpegts"), container="mpegts", fps=25.0, duration_s=0.96),
    good("m2ts", _enc(container="mpegts", mux={"mpegts_m2ts_mode": "1"}), container="mpegts"),
    good(
        "mpegts that begins inside a packet",
        lambda p: p.write_bytes(encode(p, container="mpegts").read_bytes()[100:]),
    ),
    good("mpeg ps mpeg2", _enc("mpeg2video", container="mpeg"), container="mpeg", codec="mpeg2video"),
    good("vob", _enc("mpeg2video", container="vob"), codec="mpeg2video"),
    good("mpeg1 elementary", _enc("mpeg1video", container="mpeg1video"), codec="mpeg1video"),
    good("mpeg2 elementary", _enc("mpeg2video", container="mpeg2video"), codec="mpeg2video"),
    good("mpeg4 elementary", _enc("mpeg4", container="m4v"), codec="mpeg4"),
    good("h264 annex b", _enc(container="h264"), container="h264", fps=25.0, warns=("no_timestamps",)),
    good(
        "hevc annex b",
        _enc("libx265", container="hevc", options={"x265-params": "log-level=none"}),
        codec="hevc",
    ),
    good("flv", _enc("flv", container="flv"), container="flv", codec="flv1"),
    good("flv h264", _enc(container="flv"), container="flv", codec="h264"),
    good("ogg vp8", _enc("libvpx", container="ogg"), container="ogg", codec="vp8"),
    good("asf wmv2", _enc("wmv2", container="asf"), container="asf", codec="wmv2"),
    good("asf msmpeg4v3", _enc("msmpeg4", container="asf"), codec="msmpeg4v3"),
    good("gif", _enc("gif", container="gif", pix_fmt="rgb8", rate=10), container="gif", fps=10.0),
    good("y4m", _enc("wrapped_avframe", container="yuv4mpegpipe"), container="y4m"),
    good("ivf", _enc("libvpx", container="ivf"), container="ivf", codec="vp8"),
    good("mxf", _enc("mpeg2video", container="mxf"), container="mxf", codec="mpeg2video"),
]

FORMATS: list[Case] = [
    good("4:2:2", _enc(container="mp4", pix_fmt="yuv422p"), pixel_format="yuv422p"),
    good("4:4:4", _enc(container="mp4", pix_fmt="yuv444p"), pixel_format="yuv444p"),
    good("10 bit", _enc(container="mp4", pix_fmt="yuv420p10le"), pixel_format="yuv420p10le"),
    good(
        "12 bit 4:4:4", _enc("ffv1", container="matroska", pix_fmt="yuv444p12le"), pixel_format="yuv444p12le"
    ),
    good("gray", _enc("ffv1", container="matroska", pix_fmt="gray"), pixel_format="gray"),
    good("gray 16 bit", _enc("ffv1", container="matroska", pix_fmt="gray16le"), pixel_format="gray16le"),
    good("alpha", _enc("prores_ks", container="mov", pix_fmt="yuva444p10le")),
    good("alpha rgb", _enc("qtrle", container="mov", pix_fmt="argb"), pixel_format="argb"),
    good("rgb", _enc("libx264rgb", container="mp4", pix_fmt="rgb24"), codec="h264"),
    good("raw, bottom-up", _enc("rawvideo", container="avi", pix_fmt="bgr24"), codec="rawvideo"),
    good("full range", _enc("mjpeg", container="mov", pix_fmt="yuvj444p"), pixel_format="yuvj444p"),
    good("HDR PQ", _enc(container="mp4", pix_fmt="yuv420p10le", setup=_hdr(16)), warns=("hdr",)),
    good("HDR HLG", _enc(container="matroska", pix_fmt="yuv420p10le", setup=_hdr(18)), warns=("hdr",)),
    good("odd sizes", _enc("ffv1", container="matroska", size=(131, 97)), width=131, height=97),
    good("odd sizes vp8", _enc("libvpx", container="webm", size=(131, 97)), width=131, height=97),
    good("wide and flat", _enc(container="mp4", size=(640, 64)), width=640, height=64),
    good(
        "sample aspect ratio",
        _enc(container="mp4", setup=lambda c: setattr(c, "sample_aspect_ratio", Fraction(2, 1))),
        width=WIDTH,
        height=HEIGHT,
    ),
    good(
        "interlaced",
        _enc("mpeg2video", container="mpegts", setup=_interlace),
        warns=("interlaced",),
    ),
    good("turned by 90", lambda p: turned(p, (0, 1, -1, 0)), width=HEIGHT, height=WIDTH, rotation=90),
    good("turned by 180", lambda p: turned(p, (-1, 0, 0, -1)), width=WIDTH, rotation=180),
    good("turned by 270", lambda p: turned(p, (0, -1, 1, 0)), width=HEIGHT, rotation=270),
    good("mirrored", lambda p: turned(p, (-1, 0, 0, 1)), rotation=0, warns=("mirrored",)),
]

TIMES: list[Case] = [
    good(
        "variable rate",
        _enc(container="matroska", pts=lambda i: i * 40 + (i % 3) * 11, time_base=Fraction(1, 1000)),
        duration_s=0.97,
    ),
    good("1 frame a second", _enc(container="mp4", rate=1), fps=1.0, duration_s=24.0),
    good("1000 frames a second", _enc(container="mp4", rate=1000), fps=1000.0, duration_s=0.024),
    good(
        "negative times",
        _enc(container="matroska", retime=lambda t: t - 10, options=_FLIGHT),
        duration_s=0.96,
    ),
    good("late start", _enc(container="mpegts", pts=lambda i: i + 250_000), duration_s=0.96, fps=25.0),
    good(
        "all times zero",
        _enc("mjpeg", container="matroska", pix_fmt="yuvj420p", retime=lambda _: 0),
        fps=None,
    ),
    good(
        "doubled times",
        _enc("mjpeg", container="matroska", pix_fmt="yuvj420p", retime=lambda t: t // 2),
        duration_s=0.48,
    ),
    good("edit list that hides a part", _edit_list_cut, duration_s=1.52),
    good("rate in the header that no frame keeps to", _lying_rate, duration_s=0.32),
    good("NTSC", _enc(container="mp4", rate=Fraction(30000, 1001)), fps=29.97),
]

STRUCTURE: list[Case] = [
    good("with sound and cover", _enc(container="mp4", sound=1, cover=True), codec="h264"),
    good("two videos", _enc(container="matroska", videos=2), warns=("several_video_streams",)),
    good(
        "size change mpegts",
        lambda p: _two_sizes(p, "mpegts", "libx264"),
        warns=("size_changed",),
        width=WIDTH,
    ),
    good("size change h264", lambda p: _two_sizes(p, "h264", "libx264"), warns=("size_changed",)),
    good("size change mpeg2", lambda p: _two_sizes(p, "mpeg2video", "mpeg2video"), warns=("size_changed",)),
    good(
        "open GOP",
        _enc(frames=120, container="mp4", options={"x264-params": "open-gop=1:keyint=20:bframes=3"}),
    ),
    good(
        "key frames only, long",
        _enc("mjpeg", frames=150, container="mov", pix_fmt="yuvj420p"),
        frames_scored=32,
    ),
    good("one key frame, long", _enc(frames=200, container="mp4", options={"g": "999"}), frames_scored=32),
    good(
        "one key frame, long, gif", _enc("gif", frames=100, container="gif", pix_fmt="rgb8"), frames_scored=32
    ),
    good("long h264 annex b", _enc(frames=150, container="h264", options=_FLIGHT), warns=("not_seekable",)),
    good(
        "zip behind",
        lambda p: p.write_bytes(encode(p, container="mp4").read_bytes() + b"PK\3\4" + bytes(500)),
    ),
    good("mpegts with a late stream", _late_stream, duration_s=0.96, quiet=True),
    good("8 frames", _enc(frames=8, container="mp4"), frames_scored=8),
    good("17 frames", _enc(frames=17, container="mp4"), frames_scored=16),
]

DAMAGED: list[Case] = [
    good(
        "mp4 with a hole",
        lambda p: _zeroed(p, 0.55, 0.6, frames=60, container="mp4", options=_FLIGHT),
        warns=("partly_corrupt",),
    ),
    good("mkv cut in the middle", lambda p: truncated(encode(p, frames=48, container="matroska"), 0.6)),
    good("mpegts cut in the middle", lambda p: truncated(encode(p, frames=48, container="mpegts"), 0.6)),
    good("avi without index", lambda p: truncated(encode(p, "mpeg4", frames=48, container="avi"), 0.7)),
    good(
        "fragmented mp4 cut",
        lambda p: truncated(
            encode(
                p, frames=48, options=_FLIGHT, container="mp4", mux={"movflags": "frag_keyframe+empty_moov"}
            ),
            0.7,
        ),
    ),
    good(
        "mpegts with flipped bytes",
        lambda p: flipped(encode(p, frames=60, options=_FLIGHT, container="mpegts"), 1, 6),
        warns=("partly_corrupt",),
    ),
    good("flv cut", lambda p: truncated(encode(p, frames=48, container="flv"), 0.6)),
    good("y4m cut", lambda p: truncated(encode(p, "wrapped_avframe", container="yuv4mpegpipe"), 0.6)),
]

REFUSED: list[Case] = [
    Case("empty", _write(b""), "not_a_video"),
    Case("one byte", _write(b"\0"), "not_a_video"),
    Case("zeros", _write(bytes(5000)), "not_a_video"),
    Case("text", _write(b"Hello, I am a video. " * 50), "not_a_video"),
    Case("html", _write(b"<!doctype html><html></html>"), "not_a_video"),
    Case("pdf", _write(b"%PDF-1.7\n" + bytes(100)), "not_a_video"),
    Case("zip", _write(b"PK\3\4" + bytes(100)), "not_a_video"),
    Case("ffconcat", _write(b"ffconcat version 1.0\nfile neighbour.mp4\n"), "not_a_video"),
    Case("HLS", _write(b"#EXTM3U\n#EXTINF:1,\nneighbour.mp4\n#EXT-X-ENDLIST\n"), "not_a_video"),
    Case("DASH", _write(b'<?xml version="1.0"?><MPD><Period></Period></MPD>'), "not_a_video"),
    Case("SDP", _write(b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"), "not_a_video"),
    Case("image sequence pattern", _write(b"frame%04d.png"), "not_a_video"),
    Case("ffmetadata", _write(b";FFMETADATA1\ntitle=x\n"), "not_a_video"),
    Case("subtitles", _write(b"1\n00:00:00,000 --> 00:00:01,000\nHi\n"), "not_a_video"),
    Case("random bytes", lambda p: p.write_bytes(np.random.default_rng(3).bytes(20000)), "not_a_video"),
    Case(
        "mp4 behind garbage",
        lambda p: p.write_bytes(b"garbage!" + encode(p, container="mp4").read_bytes()),
        "not_a_video",
    ),
    Case("png", lambda p: _still(p, "png", "rgb24"), "no_video_stream"),
    Case("jpeg", lambda p: _still(p, "mjpeg", "yuvj420p"), "no_video_stream"),
    Case("webp", lambda p: _still(p, "libwebp", "yuv420p"), "no_video_stream"),
    Case("bmp", lambda p: _still(p, "bmp", "bgr24"), "no_video_stream"),
    Case("tiff", lambda p: _still(p, "tiff", "rgb24"), "no_video_stream"),
    Case("animated webp", _write(b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(20)), "unsupported"),
    Case("animated png", lambda p: encode(p, "apng", container="apng", pix_fmt="rgb24"), "unsupported"),
    Case("heic", _write(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)), "no_video_stream"),
    Case("wav", lambda p: _sound_only(p, "wav", "pcm_s16le"), "no_video_stream"),
    Case("m4a", lambda p: _sound_only(p, "ipod", "aac"), "no_video_stream"),
    Case("matroska sound", lambda p: _sound_only(p, "matroska", "aac"), "no_video_stream"),
    Case("flac", lambda p: _sound_only(p, "flac", "flac"), "no_video_stream"),
    Case("cover only", _only_cover, "no_video_stream"),
    Case("still gif", _enc("gif", frames=1, container="gif", pix_fmt="rgb8"), "no_video_stream"),
    Case("mov with data elsewhere", _foreign_data, "undecodable"),
    Case("mp4 without index", lambda p: truncated(encode(p, container="mp4"), 0.5), "undecodable"),
    Case("mp4 beginning only", _write(b"\0\0\0\x18ftypisom\0\0\0\0isomavc1"), "undecodable"),
    Case("matroska beginning only", _write(b"\x1aE\xdf\xa3" + bytes(50)), "undecodable"),
    Case("avi beginning only", _write(b"RIFF\xff\0\0\0AVI LIST" + bytes(50)), "undecodable"),
    Case(
        "mp4 of garbage boxes",
        lambda p: p.write_bytes(b"\0\0\0\x14ftypisom\0\0\0\0isom" + np.random.default_rng(5).bytes(5000)),
        "undecodable",
    ),
    Case("mp4 whose pictures are zeros", lambda p: _zeroed(p, 0.02, 0.8, container="mp4"), "undecodable"),
    Case("encrypted mp4", _enc(container="mp4", mux=_CENC), "encrypted"),
    Case("scrambled mpegts", _ts_scrambled, "encrypted"),
    Case("asf with DRM", _asf_drm, "encrypted"),
    Case("other codec", _enc("snow", container="avi", options={"strict": "-2"}), "unsupported"),
    Case("other codec, again", _enc("asv1", container="avi"), "unsupported"),
    Case("other container", _enc(container="nut"), "not_a_video"),
    Case("too small", _enc(container="mp4", size=(48, 48)), "too_small"),
    Case("too short", _enc(container="mp4", frames=3), "too_short"),
    Case("brief", _enc(container="mp4", frames=5), facts={"frames_scored": 5}, warns=("brief",)),
    Case("one frame", _enc(container="mp4", frames=1), "too_short"),
    Case("claims huge frames", _write(_Y4M_HUGE), "undecodable"),
    Case("huge frames", _enc("rawvideo", container="avi", size=(8400, 64), frames=8), "limits_exceeded"),
    Case(
        "too many pixels",
        _enc(container="mp4", size=(640, 480)),
        "limits_exceeded",
        limits={"max_pixels": 300_000},
    ),
    Case(
        "too long a side", _enc(container="mp4", size=(640, 64)), "limits_exceeded", limits={"max_side": 512}
    ),
    Case("too many bytes", _enc(container="mp4"), "limits_exceeded", limits={"max_bytes": 1000}),
    Case(
        "too many streams", _enc(container="matroska", sound=5), "limits_exceeded", limits={"max_streams": 4}
    ),
    Case("too many frames", _enc(container="mp4", frames=100), "limits_exceeded", limits={"max_frames": 90}),
    Case("too long", _enc(container="mp4", rate=Fraction(1, 3600)), "limits_exceeded"),
    Case(
        "too fast",
        _enc(container="matroska", rate=1000, pts=lambda i: i * 2, time_base=Fraction(1, 1000)),
        "limits_exceeded",
        limits={"max_fps": 400.0},
    ),
]

CASES: list[Case] = list(itertools.chain(CONTAINERS, FORMATS, TIMES, STRUCTURE, DAMAGED, REFUSED))
