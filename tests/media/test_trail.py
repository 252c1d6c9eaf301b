"""The trail: what a file says of how it was written."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest

from specsem.media import DecoderPool, SamplePlan, Trail
from tests.media import bombs
from tests.media.bombs import box, encoded, good
from tests.media.corpus import encode

PLAN = SamplePlan(windows=2, crop_side=64, frame_side=0)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(workers=1) as pool:
        yield pool


@pytest.fixture
def trail_of(pool: DecoderPool, tmp_path: Path) -> Callable[[bytes], Trail]:
    def trail_of(content: bytes) -> Trail:
        (tmp_path / "video").write_bytes(content)
        trail = pool.decode(tmp_path / "video", PLAN).trail
        assert trail is not None
        return trail

    return trail_of


TrailOf = Callable[[bytes], Trail]


def test_mp4(trail_of: TrailOf) -> None:
    content = encoded(
        sound=1, options={"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=2:b-adapt=0"}, frames=24
    )
    found = trail_of(content)
    assert found.muxer is not None
    assert found.muxer.startswith("Lavf")
    assert found.encoder is not None
    assert found.encoder.startswith("x264 - core 1")
    assert replace(found, muxer=None, encoder=None) == Trail(
        brands=["isom", "iso2", "avc1", "mp41"],
        profile="High",
        pixel_format="yuv420p",
        gop="IBBPBBPBBP" * 2 + "IBBP",
        keyframe_interval=10.0,
        edit_lists=2,  # the delay of the B frames; the encoder's delay of the sound
        tracks=["video h264", "audio aac"],
        trailing_bytes=0,
    )


def test_long_file(pool: DecoderPool, tmp_path: Path) -> None:
    """Its index is asked for key frames, and its types are those of the first window."""
    params = {"x264-params": "keyint=30:min-keyint=30:scenecut=0:bframes=0"}
    trail = pool.decode(encode(tmp_path / "long.mp4", frames=200, options=params), PLAN).trail
    assert trail is not None
    assert (trail.keyframe_interval, trail.gop) == (30.0, "IPPPPPPP")


def test_a_scan_tells_the_same(pool: DecoderPool, tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4")
    with pool.scan(path, PLAN) as scan:
        list(scan)
    assert scan.clip.trail == pool.decode(path, PLAN).trail


def test_matroska(trail_of: TrailOf) -> None:
    found = trail_of(encoded("libx264", "matroska"))
    assert found.muxer is not None
    assert found.muxer.startswith("Lavf")
    assert (found.edit_lists, found.trailing_bytes, found.tracks) == (0, 0, ["video h264"])


def test_encoder_by_its_tag_or_its_bytes(trail_of: TrailOf, tmp_path: Path) -> None:
    by_bytes = trail_of(encoded("mpeg4", "avi")).encoder
    assert by_bytes is not None
    assert by_bytes.startswith("Lavc")
    path = encode(tmp_path / "untagged.webm", "libvpx-vp9")
    with av.open(str(path)) as source, av.open(str(tmp_path / "tagged.webm"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.metadata["encoder"] = "Lavc62 libvpx-vp9"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert trail_of(path.read_bytes()).encoder is None
    assert trail_of((tmp_path / "tagged.webm").read_bytes()).encoder == "Lavc62 libvpx-vp9"


def test_cover_and_second_video(trail_of: TrailOf) -> None:
    assert trail_of(encoded(cover=True)).tracks == ["video h264", "video mjpeg (still)"]
    assert trail_of(encoded(videos=2)).tracks == ["video h264", "video h264"]


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libx264", "mp4"), ("libx264", "mov"), ("mpeg4", "avi"), ("libx264", "matroska")],
)
@pytest.mark.parametrize(
    "more",
    [b"PK\x03\x04" * 25, bytes(100), b"\xff" * 100, b"<html>" + b" " * 94],
    ids=["zip", "zeros", "ones", "html"],
)
def test_bytes_behind_the_end(trail_of: TrailOf, codec: str, container: str, more: bytes) -> None:
    assert trail_of(encoded(codec, container) + more).trailing_bytes == 100


@pytest.mark.parametrize(
    "content",
    [
        lambda: good() + box(b"free", bytes(100)),
        lambda: good() + struct.pack(">I4s", 1000, b"free") + bytes(100),  # cut off
        lambda: good() + struct.pack(">I4sQ", 1, b"free", 116) + bytes(100),
        lambda: good() + struct.pack(">I4s", 0, b"free") + bytes(100),  # to the end
    ],
)
def test_boxes_are_no_trailing_bytes(trail_of: TrailOf, content: Callable[[], bytes]) -> None:
    assert trail_of(content()).trailing_bytes == 0


def test_no_end_of_its_own(trail_of: TrailOf) -> None:
    assert trail_of(encoded("mpeg2video", "mpegts")).trailing_bytes is None


def test_more_boxes_than_are_looked_at(trail_of: TrailOf) -> None:
    assert trail_of(good() + box(b"free") * 25_000).trailing_bytes is None


def test_edit_lists_are_counted(trail_of: TrailOf) -> None:
    none = bombs.still_movie(24)
    assert trail_of(none).edit_lists == 0
    edits = box(b"edts", bombs.table(b"elst", (24, 0, 1 << 16)))
    assert trail_of(bombs.still_movie(24, edits=edits)).edit_lists == 1


def test_tags_are_made_plain(trail_of: TrailOf) -> None:
    content = bytearray(good())
    at = content.index(b"Lavf")
    content[at : at + 7] = b"\x1b[31m\n\xff"
    muxer = trail_of(bytes(content)).muxer
    assert muxer is not None
    assert muxer.startswith("[31m")
    assert muxer.isprintable()


def test_a_time_of_making(pool: DecoderPool, tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4")
    content = path.read_bytes()
    at = content.index(b"mvhd") + 8
    made = 2_082_844_800 + 1_780_000_000  # seconds since 1904
    path.write_bytes(content[:at] + struct.pack(">I", made) + content[at + 4 :])
    trail = pool.decode(path, PLAN).trail
    assert trail is not None
    assert trail.created_at == "2026-05-28T20:26:40+00:00"
