import pytest

from specsem.errors import Encrypted, MediaError
from specsem.media._sniff import demuxer_of

KNOWN = [
    (b"\0\0\0\x18ftypisom", "mov"),
    (b"\0\0\0\x08wide\0\0\0\0mdat", "mov"),
    (b"\0\0\0\x6cmoov", "mov"),
    (b"\x1aE\xdf\xa3\x01", "matroska"),
    (b"RIFF\0\0\0\0AVI LIST", "avi"),
    (b"FLV\x01\x05", "flv"),
    (b"OggS\0", "ogg"),
    (b"GIF89a", "gif"),
    (b"DKIF\0\0", "ivf"),
    (b"YUV4MPEG2 W2 H2", "yuv4mpegpipe"),
    (b"\0\0\x01\xba\x44", "mpeg"),
    (b"\0\0\x01\xb3\x10\x10\x10", "mpegvideo"),
    (b"\0\0\x01\xb0\x01", "m4v"),
    (b"\0\0\0\x01\x67\x64\0\x1f", "h264"),
    (b"\0\0\x01\x09\xf0\0\0\x01\x67", "h264"),
    (b"\0\0\0\x01\x40\x01\x0c\x01", "hevc"),
    (b"\0\0\0\x01\x46\x01\x50", "hevc"),
    ((b"\x47\x40\x11\x10" + bytes(184)) * 4, "mpegts"),
    (b"junk" + (b"\x47\x40\x11\x10" + bytes(184)) * 4, "mpegts"),
    ((b"\0\0\0\0\x47\x40\x11\x10" + bytes(184)) * 4, "mpegts"),
    ((b"\x47\x40\x11\x10" + bytes(200)) * 4, "mpegts"),
]


@pytest.mark.parametrize(("head", "demuxer"), KNOWN)
def test_known_beginnings(head: bytes, demuxer: str) -> None:
    assert demuxer_of(head) == demuxer


@pytest.mark.parametrize(
    "head", [b"", b"\0", b"\0\0\0", b"\0\0\0\1", b"\0\0\1", b"G", b"GGGG", b"RIFF", b"RIFF\0\0\0\0"]
)
def test_stumps_are_refused(head: bytes) -> None:
    with pytest.raises(MediaError):
        demuxer_of(head)


@pytest.mark.parametrize("head", [head for head, _ in KNOWN])
def test_any_part_of_a_beginning_is_judged_without_a_slip(head: bytes) -> None:
    for end in range(len(head)):
        try:
            assert demuxer_of(head[:end]).isidentifier()
        except MediaError:
            continue


def test_scrambled_transport_stream() -> None:
    with pytest.raises(Encrypted):
        demuxer_of((b"\x47\x41\x00\xd0" + bytes(184)) * 20)
