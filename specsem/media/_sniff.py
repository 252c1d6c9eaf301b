"""Which demuxer may open a file, judged by its first bytes alone: names and extensions play no part.

Only demuxers that read one file and no other are in the list: no playlist (HLS, DASH, concat, SDP, image
sequences) can be opened, whatever a file is called.
"""

import re
from collections.abc import Iterator

from specsem.errors import Encrypted, MediaError, NotAVideo, NoVideoStream, UnsupportedMedia

__all__ = ["HEAD_BYTES", "demuxer_of"]

HEAD_BYTES = 64 * 1024
"""How much of the file's beginning :func:`demuxer_of` wants to see."""

_MOV = "mov"
_MOV_ATOMS = frozenset(b"ftyp moov mdat free skip wide pnot moof styp sidx uuid".split())
_STILL_BRANDS = frozenset((b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"crx ", b"jxl "))

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (b"DKIF", "ivf"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01", "mxf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"\x00\x00\x01\xb0", "m4v"),
)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_ENCRYPTION = (
    bytes.fromhex("fbb31122 23bd d211 b4b700a0c955fc6e"),  # Content Encryption Object
    bytes.fromhex("14e68a29 2226 174c b935dae07ee9289c"),  # Extended Content Encryption Object
)
_WITHOUT_VIDEO: tuple[bytes, ...] = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"8BPS", b"\0\0\1\0", b"\xff\x0a",
    b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"qoif", b"ID3", b"fLaC", b"#!AMR", b"MThd", b"FORM", b".snd",
    b"wvpk", b"MAC ", b"\x0b\x77",
)  # fmt: skip
_MPEG_AUDIO = re.compile(rb"\xff[\xe2-\xfb]")


def demuxer_of(head: bytes) -> str:
    """Name of the demuxer for a file that begins with ``head`` (at most :data:`HEAD_BYTES`).

    Raises: NotAVideo, NoVideoStream (a still, or sound only), Encrypted, UnsupportedMedia.
    """
    if head[4:8] in _MOV_ATOMS:
        if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
            raise NoVideoStream("The file is a still picture.")
        return _MOV
    for magic, demuxer in _MAGIC:
        if head.startswith(magic):
            return demuxer
    if head.startswith(_ASF):
        if any(guid in head for guid in _ASF_ENCRYPTION):
            raise Encrypted("The file is protected by DRM.")
        return "asf"
    if head[:4] == b"RIFF":
        return _riff(head)
    # Before the stills: a transport stream may begin anywhere in a packet, an elementary one with zeros.
    return _transport_stream(head) or _annexb(head) or _refuse(head)


def _riff(head: bytes) -> str:
    kind = head[8:12]
    if kind in (b"AVI ", b"AVIX"):
        return "avi"
    if kind == b"CDXA":
        return "mpeg"
    if kind == b"WEBP" and head[12:16] == b"VP8X" and head[20:21] and head[20] & 2:
        raise UnsupportedMedia("Animated WebP is not supported.")
    if kind in (b"WAVE", b"WEBP", b"RMID"):
        raise NoVideoStream("The file holds a still picture or sound only.")
    raise NotAVideo("The content is of no video container.")


def _transport_stream(head: bytes) -> str | None:
    """``mpegts`` if sync bytes stand 188, 192 or 204 bytes apart."""
    for size in (188, 192, 204):
        for offset in range(min(size, len(head))):
            if head[offset] != 0x47:
                continue
            starts = range(offset, len(head) - 3, size)
            if len(starts) < 3 or any(head[i] != 0x47 for i in starts[:8]):
                continue
            _refuse_scrambled(head[i : i + 4] for i in starts)
            return "mpegts"
    return None


def _refuse_scrambled(headers: Iterator[bytes]) -> None:
    """A transport stream tells in each packet's header that its payload is scrambled."""
    payload = [h for h in headers if h[0] == 0x47 and h[3] & 0x10 and (h[1] & 0x1F, h[2]) != (0x1F, 0xFF)]
    if sum(h[3] >> 6 >= 2 for h in payload) * 2 > len(payload):
        raise Encrypted("The transport stream is scrambled.")


def _annexb(head: bytes) -> str | None:
    """``h264`` or ``hevc`` by the first NAL unit after a start code. The two headers can't be mistaken."""
    body = head[1:] if head.startswith(b"\0\0\0\1") else head
    if not body.startswith(b"\0\0\1") or len(body) < 6:
        return None
    first, second = body[3], body[4]
    if first in (0x06, 0x09) or (first & 0x9F == 0x07 and first != 0x07):  # SEI, AUD, SPS
        return "h264"
    if first in (0x40, 0x42, 0x44, 0x46, 0x4E) and second == 1:  # VPS, SPS, PPS, AUD, SEI
        return "hevc"
    return None


def _refuse(head: bytes) -> str:
    error: MediaError = NotAVideo("The content is of no video container.")
    if head.startswith(b"\x89PNG") and b"acTL" in head[:4096]:
        error = UnsupportedMedia("Animated PNG is not supported.")
    elif head.startswith(_WITHOUT_VIDEO) or _MPEG_AUDIO.match(head):
        error = NoVideoStream("The file holds a still picture or sound only.")
    raise error
