"""Small files that ask for far more than they are: built box by box, as no honest program would.

Each says which outcomes are right: error codes, and ``ok`` where it is a video all the same.
"""

from __future__ import annotations

import functools
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.media.corpus import HEIGHT, ONE_THREAD, WIDTH, encode

__all__ = ["BOMBS", "Bomb", "encoded"]

MANY = 200_000
U32 = 0xFFFFFFFF
ENDLESS = (1 << 56) - 2
FTYP = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"isom")
HTML = b"<!doctype html><script>alert(1)</script>"


# -- MP4 ----------------------------------------------------------------------------------------------------


def box(kind: bytes, *parts: bytes) -> bytes:
    """An MP4 box."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """A box with version 0 and flags."""
    return box(kind, struct.pack(">I", flags), *parts)


def table(kind: bytes, *rows: tuple[int, ...], count: int | None = None) -> bytes:
    """A box of a sample table; ``count`` is what it claims to hold."""
    packed = b"".join(struct.pack(f">{len(row)}I", *row) for row in rows)
    return full(kind, struct.pack(">I", len(rows) if count is None else count), packed)


def encoded(codec: str = "libx264", container: str = "mp4", **options: Any) -> bytes:
    """What :func:`tests.media.corpus.encode` writes."""
    with tempfile.TemporaryDirectory() as folder:
        return encode(Path(folder) / "video", codec, container=container, **options).read_bytes()


@functools.cache
def good() -> bytes:
    """An honest MP4."""
    return encoded()


@functools.cache
def jpeg(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """One gray frame of Motion JPEG."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame(width, height, "yuvj420p")
    for plane in frame.planes:
        plane.update(b"\x50" * plane.buffer_size)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def entry(kind: bytes = b"jpeg", width: int = WIDTH, height: int = HEIGHT, *more: bytes) -> bytes:
    """A visual sample description."""
    head = bytes(6) + struct.pack(">HIIIIHHIIIH", 1, 0, 0, 0, 0, width, height, 72 << 16, 72 << 16, 0, 1)
    return box(kind, head + bytes(32) + struct.pack(">Hh", 24, -1), *more)


def trak(*tables: bytes, entries: bytes | None = None, edits: bytes = b"", dref: bytes = b"") -> bytes:
    """A video track with these sample tables."""
    descriptions = entry() if entries is None else entries
    tkhd = struct.pack(">IIIII8sHHHH36sII", 0, 0, 1, 0, 100, bytes(8), 0, 0, 0, 0, bytes(36), 0, 0)
    dinf = box(b"dinf", full(b"dref", struct.pack(">I", 1), dref or full(b"url ", flags=1)))
    stbl = box(b"stbl", full(b"stsd", struct.pack(">I", 1), descriptions), *tables)
    minf = box(b"minf", full(b"vmhd", bytes(8), flags=1), dinf, stbl)
    mdhd = full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 100, 100, 0, 0))
    mdia = box(b"mdia", mdhd, full(b"hdlr", b"\0\0\0\0vide", bytes(13)), minf)
    return box(b"trak", full(b"tkhd", tkhd, flags=3), edits, mdia)


def moov(*parts: bytes) -> bytes:
    mvhd = full(b"mvhd", struct.pack(">IIII", 0, 0, 25, 100), bytes(80))
    return box(b"moov", mvhd, *parts)


def mp4(*traks: bytes, sample: bytes) -> bytes:
    """A movie whose one sample's bytes begin at :data:`AT`."""
    return FTYP + box(b"mdat", sample) + moov(*traks)


AT = len(FTYP) + 8


def same_sample(count: int, size: int, delta: int = 1, *more: bytes) -> list[bytes]:
    """Tables of ``count`` samples that are all the same bytes."""
    return [
        table(b"stts", (count, delta)),
        table(b"stsc", (1, 1, 1)),
        full(b"stsz", struct.pack(">II", size, count)),
        full(b"stco", struct.pack(f">{count + 1}I", count, *[AT] * count)),
        *more,
    ]


def still_movie(count: int, delta: int = 1, *more: bytes, **kwargs: bytes) -> bytes:
    """One JPEG, shown so many times."""
    sample = jpeg()
    return mp4(trak(*same_sample(count, len(sample), delta, *more), **kwargs), sample=sample)


def samples_of_one_size(count: int) -> list[bytes]:
    """Tables of a few bytes for ``count`` samples of one byte each."""
    return [
        table(b"stts", (count, 1)),
        table(b"stsc", (1, count, 1)),
        full(b"stsz", struct.pack(">II", 1, count)),
        table(b"stco", (AT,)),
    ]


def claims(*tables: bytes) -> bytes:
    """Tables that claim what is not there."""
    return mp4(trak(*tables), sample=jpeg())


def compressed(content: bytes, length: int | None = None) -> bytes:
    """A ``moov`` as ``cmov``; ``length`` is what it claims to unpack to."""
    size = struct.pack(">I", len(content) if length is None else length)
    cmvd = box(b"cmvd", size, zlib.compress(content, 9))
    return box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), cmvd))


def nested(kind: bytes, levels: int) -> bytes:
    """A box in a box in a box."""
    content = b""
    for _ in range(levels):
        content = box(kind, content)
    return content


def compressed_index() -> bytes:
    """A good movie whose index is compressed, as QuickTime once did."""
    content = encoded("mpeg4", "mov")
    at = content.index(b"moov") - 4
    return content[:at] + compressed(content[at:])


def put_in_front(content: bytes, extra: bytes) -> bytes:
    """A box behind the first, with the index set right: one chunk, as our small files have."""
    at = content.index(b"stco") + 12
    (offset,) = struct.unpack_from(">I", content, at)
    content = content[:at] + struct.pack(">I", offset + len(extra)) + content[at + 4 :]
    first = struct.unpack_from(">I", content)[0]
    return content[:first] + extra + content[first:]


def fragments(samples: int) -> bytes:
    """A fragment that claims so many samples and needs no byte to say so."""
    trex = full(b"trex", struct.pack(">IIIII", 1, 1, 1, 1, 0))
    empty = [table(b"stts"), table(b"stsc"), full(b"stsz", bytes(8)), table(b"stco")]
    index = moov(trak(*empty), box(b"mvex", trex))
    run = full(b"trun", struct.pack(">I", samples))
    traf = box(b"traf", full(b"tfhd", struct.pack(">I", 1)), run)
    return FTYP + index + box(b"moof", full(b"mfhd", struct.pack(">I", 1)), traf) + box(b"mdat", bytes(64))


def edited(edits: int) -> bytes:
    rows = struct.pack(">IiI", 20, 0, 1 << 16) * edits
    return still_movie(24, edits=box(b"edts", full(b"elst", struct.pack(">I", edits), rows)))


def tagged(tags: int) -> bytes:
    """So many tags, each of another name: to find one is to look at all before it."""
    keys = b"".join(box(b"mdta", b"k%06d" % i) for i in range(tags))
    data = box(b"data", struct.pack(">II", 1, 0), b"v")
    values = b"".join(box(struct.pack(">I", i + 1), data) for i in range(tags))
    meta = full(
        b"meta",
        full(b"hdlr", b"\0\0\0\0mdta", bytes(13)),
        full(b"keys", struct.pack(">I", tags), keys),
        box(b"ilst", values),
    )
    return FTYP + moov(trak(*same_sample(24, 8)), meta)


# -- other containers ---------------------------------------------------------------------------------------


def ebml(identifier: str, *parts: bytes, size: int | None = None) -> bytes:
    """An element of Matroska, its size in eight bytes."""
    content = b"".join(parts)
    length = len(content) if size is None else size
    return bytes.fromhex(identifier) + struct.pack(">Q", length | 1 << 56) + content


def matroska(*clusters: bytes, track: bytes = b"", head: bytes = b"") -> bytes:
    video = ebml("e0", ebml("b0", struct.pack(">H", WIDTH)), ebml("ba", struct.pack(">H", HEIGHT)))
    about = [ebml("d7", b"\1"), ebml("73c5", b"\1"), ebml("83", b"\1"), ebml("86", b"V_MJPEG"), video, track]
    info = ebml("1549a966", ebml("2ad7b1", struct.pack(">I", 10**6)))
    segment = ebml("18538067", info, ebml("1654ae6b", ebml("ae", *about)), *clusters)
    return ebml("1a45dfa3", head, ebml("4282", b"matroska")) + segment


def block(content: bytes, at: int) -> bytes:
    return ebml("1f43b675", ebml("e7", struct.pack(">H", at * 40)), ebml("a3", b"\x81\0\0\x80", content))


def blocks(count: int) -> list[bytes]:
    return [block(jpeg(), i) for i in range(count)]


def deflated_blocks(size: int) -> bytes:
    """Blocks that are compressed, as the format allows, and unpack to ``size`` bytes each."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()
    track = ebml("6d80", ebml("6240", ebml("5034", ebml("4254", b"\0"))))
    return matroska(*[block(packed, i) for i in range(4)], track=track)


def gif(width: int, height: int, frames: int, *, frame: tuple[int, int] = (1, 1), tail: bytes = b"") -> bytes:
    """So many frames of one colour on a screen of this size."""
    w, h = frame
    pixels = b"\x02\x02\x44\x01\x00"  # LZW: clear, 0, end
    image = b"!\xf9\x04\0\x02\0\0\0," + struct.pack("<HHHHB", 0, 0, w, h, 0) + pixels
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + image * frames + b";" + tail


def png_frames(width: int, height: int) -> bytes:
    """An AVI whose header speaks of small frames; the PNG pictures in it are of another size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    rows = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return avi(b"MPNG", [png] * 8)


def big_jpeg(width: int, height: int) -> bytes:
    """A Motion JPEG whose frames say that they are of another size."""
    frame = bytearray(jpeg())
    at = frame.index(b"\xff\xc0") + 5
    frame[at : at + 4] = struct.pack(">HH", height, width)
    return avi(b"MJPG", [bytes(frame)] * 8)


def avi(codec: bytes, frames: Iterable[bytes], *, index: bytes = b"") -> bytes:
    """Frames of :data:`WIDTH` x :data:`HEIGHT`, as the header has it."""

    def riff(kind: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    avih = riff(b"avih", struct.pack("<14I", 40_000, 0, 0, 0, 8, 0, 1, 0, WIDTH, HEIGHT, 0, 0, 0, 0))
    strh = riff(b"strh", b"vids" + codec + struct.pack("<3I7I2I", 0, 0, 0, 1, 25, 0, 8, 0, 0, 0, 0, 0))
    strf = riff(b"strf", struct.pack("<IiiHH4sIiiII", 40, WIDTH, HEIGHT, 1, 24, codec, 0, 0, 0, 0, 0))
    hdrl = riff(b"LIST", b"hdrl", avih, riff(b"LIST", b"strl", strh, strf, index))
    movi = riff(b"LIST", b"movi", *[riff(b"00dc", frame) for frame in frames])
    return riff(b"RIFF", b"AVI ", hdrl, movi)


def avi_in_circles() -> bytes:
    """The index of indexes names a place within itself."""
    index = b"indx" + struct.pack("<IHBBI4s3IQII", 40, 4, 0, 0, 1, b"00dc", 0, 0, 0, 64, 64, 8)
    return avi(b"MJPG", [jpeg()] * 12, index=index)


def programs(count: int) -> bytes:
    """Packets of ever other programs' pictures."""
    start = b"\0\0\1\xe0\0\0\x80\0\0"
    return b"".join(
        struct.pack(">BHB", 0x47, 0x4000 | 32 + i % 8000, 0x10) + start + b"\xff" * (184 - len(start))
        for i in range(count)
    )


def sps(width: int, height: int) -> bytes:
    """H.264 in Annex B: parameter sets of this size, and a slice that begins."""

    def golomb(value: int) -> str:
        binary = f"{value + 1:b}"
        return "0" * (len(binary) - 1) + binary

    # Level, ids, frame numbers, order by type 2, one reference; size in macroblocks; the flags behind it.
    fields = [0, 0, 2, 1]
    bits = "".join(map(golomb, fields)) + "0" + golomb(width // 16 - 1) + golomb(height // 16 - 1) + "11001"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    slices = b"\0\0\0\1\x65\x88\x84\0\x33\xff" * 12
    return b"\0\0\0\1\x67\x42\0\x34" + payload + b"\0\0\0\1\x68\xce\x3c\x80" + slices


# -- the list -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bomb:
    """A file and what may come of it."""

    name: str
    content: Callable[[], bytes]
    outcomes: tuple[str, ...]


def bomb(name: str, content: Callable[[], bytes], *outcomes: str) -> Bomb:
    return Bomb(name, content, outcomes)


BROKEN = ("undecodable", "limits_exceeded", "too_short", "no_video_stream", "timeout")
ANY = ("ok", *BROKEN)

NESTED = (b"moov", b"trak", b"udta", b"meta", b"moof")
TABLES = (b"stts", b"stsc", b"stsz", b"stco", b"co64", b"stss", b"ctts", b"sdtp", b"sgpd", b"sbgp")

BOMBS: list[Bomb] = [
    # An index that unpacks.
    bomb("compressed index", compressed_index, "ok"),
    bomb("compressed index of 1 GB", lambda: FTYP + compressed(bytes(1 << 20), 1 << 30), *BROKEN),
    bomb("compressed index of 4 GB", lambda: FTYP + compressed(bytes(1 << 20), U32), *BROKEN),
    bomb("compressed index that unpacks to more", lambda: FTYP + compressed(bytes(64 << 20), 1000), *BROKEN),
    bomb("compressed index in itself", lambda: FTYP + compressed(compressed(compressed(moov()))), *BROKEN),
    # Boxes upon boxes.
    bomb("200,000 boxes", lambda: put_in_front(good(), box(b"free") * MANY), "ok", "timeout"),
    bomb("200,000 boxes behind", lambda: good() + box(b"free") * MANY, "ok", "timeout"),
    bomb("200,000 tracks", lambda: FTYP + moov(box(b"trak") * MANY), *BROKEN),
    bomb("20,000 tracks that are some", lambda: FTYP + moov(trak() * 20_000), *BROKEN),
    bomb("200,000 indexes", lambda: FTYP + moov() * MANY, *BROKEN),
    bomb("200,000 fragments", lambda: FTYP + moov(trak()) + box(b"moof") * MANY, *BROKEN),
    bomb("200,000 tags", lambda: tagged(MANY), *BROKEN),
    *(
        bomb(f"{kind.decode()} in itself", lambda kind=kind: FTYP + nested(kind, 20_000), *BROKEN)
        for kind in NESTED
    ),
    bomb("box of 2^64", lambda: FTYP + b"\0\0\0\1moov" + b"\xff" * 8 + bytes(100), *BROKEN),
    # Tables that claim.
    *(
        bomb(
            f"{kind.decode()} of 2^32",
            lambda kind=kind: claims(*same_sample(24, 100), table(kind, count=U32)),
            *ANY,
        )
        for kind in TABLES
    ),
    bomb("2^28 samples of a byte", lambda: claims(*samples_of_one_size(1 << 28)), *BROKEN),
    bomb("2^32 samples of a byte", lambda: claims(*samples_of_one_size(U32)), *BROKEN),
    bomb("a fragment of 2^28 samples", lambda: fragments(1 << 28), *BROKEN),
    bomb("100,000 edits", lambda: edited(100_000), *ANY),
    # Frames.
    bomb("a million tiny frames", lambda: still_movie(1_000_000), "ok", "timeout"),
    bomb("more than a million tiny frames", lambda: still_movie(1_000_100), "limits_exceeded", "timeout"),
    bomb("zero duration", lambda: still_movie(24, 0), "ok"),
    bomb("times that run over", lambda: still_movie(24, U32), *ANY),
    bomb("times below zero", lambda: still_movie(24, 1, table(b"ctts", (24, U32 - 80))), *ANY),
    bomb("times that begin again", lambda: matroska(*blocks(8), *blocks(8)), "ok"),
    bomb("16,000 x 12,000 in PNG", lambda: png_frames(16_000, 12_000), *BROKEN),
    bomb("16,000 x 12,000 in JPEG", lambda: big_jpeg(16_000, 12_000), *BROKEN),
    bomb("65,500 x 65,500 in JPEG", lambda: big_jpeg(65_500, 65_500), *BROKEN),
    bomb("16,000 x 12,000 in H.264", lambda: sps(16_000, 12_000), "limits_exceeded"),
    bomb(
        "16,000 x 12,000 in the header",
        lambda: still_movie(24, entries=entry(b"jpeg", 16_000, 12_000)),
        *ANY,
    ),
    bomb("8,192 x 4,352", lambda: avi(b"MJPG", [jpeg(8192, 4352)] * 10), "ok", "timeout"),
    bomb("GIF of 65,535 x 65,535", lambda: gif(65_535, 65_535, 10), *BROKEN),
    bomb("GIF of 8,000 x 4,000, 500 frames", lambda: gif(8000, 4000, 500), *ANY),
    bomb("GIF of 200,000 frames", lambda: gif(64, 64, MANY), *ANY),
    bomb("GIF whose frames leave the screen", lambda: gif(64, 64, 10, frame=(60_000, 60_000)), *ANY),
    bomb(
        "animated WebP", lambda: b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff" * 16, "unsupported"
    ),
    bomb("animated AVIF", lambda: encoded("libsvtav1", "avif", frames=10, options=ONE_THREAD), *ANY),
    # Other containers.
    bomb("Matroska blocks that unpack to 256 MB", lambda: deflated_blocks(256 << 20), *BROKEN),
    bomb("Matroska in itself", lambda: matroska() + ebml("18538067", size=ENDLESS) * 20_000, *BROKEN),
    bomb("Matroska without end", lambda: matroska(ebml("1f43b675", size=ENDLESS)), *BROKEN),
    bomb("AVI whose index is in itself", avi_in_circles, *ANY),
    bomb("8,000 programs", lambda: programs(16_000), "limits_exceeded"),
    # Names of other files.
    bomb("ffconcat of itself", lambda: b"ffconcat version 1.0\n" + b"file media\n" * 9, "not_a_video"),
    bomb("HLS of itself", lambda: b"#EXTM3U\n" + b"#EXTINF:1,\nmedia\n" * 9, "not_a_video"),
    bomb(
        "DASH of itself", lambda: b'<?xml version="1.0"?><MPD><BaseURL>media</BaseURL></MPD>', "not_a_video"
    ),
    *(
        bomb(
            f"samples at {address[:8].decode()}",
            lambda address=address: mp4(
                trak(*same_sample(24, 99), dref=full(b"url ", address + b"\0")), sample=bytes(99)
            ),
            *BROKEN,
        )
        for address in (b"http://127.0.0.1/a.mp4", b"file:///proc/self/environ", b"media")
    ),
    # Two things at once.
    bomb("ZIP behind MP4", lambda: good() + b"PK\3\4" + bytes(999), "ok"),
    bomb("HTML behind MP4", lambda: good() + HTML, "ok"),
    bomb("MP4 behind MP4", lambda: good() * 2, "ok"),
    bomb("HTML in MP4", lambda: put_in_front(good(), box(b"free", HTML)), "ok"),
    bomb("HTML before MP4", lambda: HTML + good(), "not_a_video"),
    bomb("PDF before MP4", lambda: b"%PDF-1.7\n" + good(), "not_a_video"),
    bomb("script that is a GIF", lambda: gif(0x2A2F, 64, 10, tail=b"*/=alert(1);"), "limits_exceeded"),
    bomb("script behind GIF", lambda: gif(64, 64, 10, frame=(64, 64), tail=b"*/=alert(1);"), "ok"),
    bomb("HTML in Matroska", lambda: matroska(*blocks(12), head=ebml("ec", HTML)), "ok"),
]
