"""What a video looks like, in 256 bits a frame: to find it again after re-encoding, scaling and light edits.

PDQ (Facebook, 2019, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm"), one hash for
each of some frames, as vPDQ compares videos: 256 bits of a frame's lowest frequencies. It is written for
matching, not for judging: it says nothing of where a video comes from, and flips, crops and overlays change
it. Frames are those that the model gets, whole and resized; of a frame at full size the hash differs in a few
bits. In NumPy: the reference has no wheels for Linux.

Shape letters: H height, W width, C = 3 colours, N frames, B = 32 bytes of a hash.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from specsem.media.types import UInt8, Window

__all__ = [
    "HASH_BYTES",
    "LEAST_QUALITY",
    "MATCH_BITS",
    "MOST_FRAMES",
    "Fingerprinter",
    "distances",
    "pdq",
    "share_alike",
]

Float32 = npt.NDArray[np.float32]

HASH_BYTES = 32
MATCH_BITS = 31
"""Two hashes that differ in at most so many of 256 bits are of the same picture (the authors' threshold)."""
LEAST_QUALITY = 50
"""Of 100. Frames below have too little in them to be told from others (the authors' threshold)."""
MOST_FRAMES = 32
"""Hashes of one video."""
APART_S = 1.0
"""Between two frames of a scan, as vPDQ takes them."""
SIDE = 64
FREQUENCIES = 16
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_ONES = np.array([int(byte).bit_count() for byte in range(256)], np.uint8)


def pdq(frame_HWC: UInt8) -> tuple[bytes, int]:
    """The hash of a picture, and how much there is in it, 0 to 100.

    The bytes are those of the hexadecimal form that others exchange: the highest frequencies first.
    """
    luma_HW = frame_HWC.astype(np.float32) @ LUMA
    for _ in range(2):
        luma_HW = _box(_box(luma_HW).T).T
    rows, columns = (((np.arange(SIDE) + 0.5) * n / SIDE).astype(int) for n in luma_HW.shape)
    small = luma_HW[rows][:, columns]
    basis = _basis()
    coefficients = (basis @ small @ basis.T).reshape(-1)
    median = np.sort(coefficients)[coefficients.size // 2 - 1]
    return np.packbits(coefficients[::-1] > median).tobytes(), _quality(small)


def _box(values_HW: Float32) -> Float32:
    """Mean over a window of each row, so wide that 64 of them cover it twice; narrower at the ends."""
    length = values_HW.shape[1]
    width = (length + 2 * SIDE - 1) // (2 * SIDE)
    ahead = (width + 2) // 2
    at = np.arange(length)
    first, last = np.maximum(0, at - (width - ahead)), np.minimum(length, at + ahead)
    sums = np.concatenate(
        [np.zeros((len(values_HW), 1)), np.cumsum(values_HW, axis=1, dtype=np.float64)], axis=1
    )
    means: Float32 = ((sums[:, last] - sums[:, first]) / (last - first)).astype(np.float32)
    return means


@cache
def _basis() -> Float32:
    """The cosines of frequencies 1 to 16: the mean brightness plays no part."""
    frequency, place = np.arange(1, FREQUENCIES + 1)[:, None], 2 * np.arange(SIDE)[None, :] + 1
    cosines: Float32 = (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * frequency * place)).astype(np.float32)
    return cosines


def _quality(small: Float32) -> int:
    steps = sum(
        int(np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)).sum(dtype=np.float64)) for axis in (0, 1)
    )
    return min(100, steps // 90)


class Fingerprinter:
    """Collects the hashes of a video while its windows go by; constant memory, whatever its length."""

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._apart_s = 0.0
        self._next_s = 0.0

    def see(self, windows: Iterable[Window], *, scanning: bool = False) -> None:
        """Take the first frame of each window; of a scan, one a second at most, and fewer of a long one."""
        if scanning and not self._apart_s:
            self._apart_s = APART_S
        for window in windows:
            if window.start_s < self._next_s or not window.frames_THWC.size:
                continue
            self._next_s = window.start_s + self._apart_s
            hashed, quality = pdq(window.frames_THWC[0])
            if quality >= LEAST_QUALITY:
                self._hashes.append(hashed)
            if len(self._hashes) > 2 * MOST_FRAMES:  # every other one from here on
                self._hashes = self._hashes[::2]
                self._apart_s = 2 * max(self._apart_s, APART_S)

    @property
    def fingerprint(self) -> bytes:
        """All hashes one behind the other, spread over what was seen; none where no frame will do."""
        count = len(self._hashes)
        if count <= MOST_FRAMES:
            return b"".join(self._hashes)
        return b"".join(self._hashes[i * count // MOST_FRAMES] for i in range(MOST_FRAMES))


def distances(a: bytes, b: bytes) -> npt.NDArray[np.int64]:
    """Bits in which each frame of one fingerprint differs from each of another: (frames, frames)."""
    a_NB, b_NB = (np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES) for hashes in (a, b))
    differing: npt.NDArray[np.int64] = _ONES[a_NB[:, None] ^ b_NB[None]].sum(axis=2, dtype=np.int64)
    return differing


def share_alike(wanted: bytes, others: Sequence[bytes]) -> list[tuple[float, int]]:
    """Of each other fingerprint: the share of frames that match, and the bits in which the nearest differ.

    The share is of the frames of whichever of the two has more of its own in the other: a part of a video is
    like the whole. (0, 256) where there is nothing to compare.
    """
    lengths = [len(other) // HASH_BYTES for other in others]
    if not wanted or not sum(lengths):
        return [(0.0, 256)] * len(others)
    between = distances(wanted, b"".join(others))
    found, start = [], 0
    for length in lengths:
        block = between[:, start : start + length]
        start += length
        if not length:
            found.append((0.0, 256))
            continue
        alike = block <= MATCH_BITS
        share = max(float(alike.any(axis=1).mean()), float(alike.any(axis=0).mean()))
        found.append((share, int(block.min())))
    return found
