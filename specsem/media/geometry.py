"""Where the crops of a frame lie, and how a stored frame is turned into the displayed one. NumPy only.

Training and serving call the same :func:`crop_boxes`, so that they look at the same places.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Orientation", "crop_boxes", "mirror_index"]

Int32 = npt.NDArray[np.int32]


def crop_boxes(width: int, height: int, side: int, n: int) -> Int32:
    """Places of ``n`` square crops in a frame of ``width`` x ``height`` pixels.

    The frame is divided into a grid of ``floor(sqrt(n))`` cells along its shorter axis and as many as needed
    along the longer one; a crop is centred on each of the first ``n`` cells (row by row), moved inside the
    frame where it would stick out, and its corner rounded down to an even pixel, so that subsampled chroma
    has the same phase in every crop. Hence n=1: the centre; n=2: at 1/4 and 3/4 of the longer axis; n=4: the
    quadrants. n=5 is the quadrants and the centre.

    A frame smaller than ``side`` has its crop centred on it; the part outside is for the caller to mirror
    (:func:`mirror_index`).

    Returns: int32 ``(n, 4)``, rows ``x0, y0, x1, y1`` in pixels, ends exclusive.
    """
    if n == 5:
        return np.concatenate([crop_boxes(width, height, side, 4), crop_boxes(width, height, side, 1)])
    if n < 1:
        return np.zeros((0, 4), np.int32)
    short = math.isqrt(n)
    long = -(-n // short)
    columns, rows = (long, short) if width >= height else (short, long)
    cells = [
        ((2 * c + 1) / (2 * columns), (2 * r + 1) / (2 * rows)) for r in range(rows) for c in range(columns)
    ]
    corners = [(_start(width, side, u), _start(height, side, v)) for u, v in cells[:n]]
    return np.array([(x, y, x + side, y + side) for x, y in corners], np.int32)


def _start(length: int, side: int, centre: float) -> int:
    """First pixel of ``side`` pixels centred at the fraction ``centre`` of ``length``, kept inside, even."""
    if length <= side:
        return -((side - length) // 2)
    return max(0, min(round(centre * length - side / 2), length - side)) & ~1


def mirror_index(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Indices ``start..stop`` of an axis of ``length`` pixels, reflected at its ends, the edge not repeated.

    The same as ``np.pad(..., mode="reflect")`` however far the range reaches outside.
    """
    inside = np.arange(length)
    return np.pad(inside, (max(0, -start), max(0, stop - length)), mode="reflect")[
        max(0, start) : max(0, start) + stop - start
    ]


@dataclass(frozen=True, slots=True)
class Orientation:
    """A display matrix reduced to what pixels can do: transpose first, then flip the displayed axes."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def from_matrix(cls, matrix: bytes) -> "Orientation":
        """Of its 9 native-endian int32; an angle between is rounded to a quarter turn."""
        if len(matrix) < 36:
            return cls()
        a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).astype(np.int64).tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def degrees(self) -> int:
        """Clockwise turn from stored to displayed; of a mirrored one, the turn before mirroring."""
        x, y = self.flip_x, self.flip_y
        if self.mirrored:
            x = not x
        return {(False, False, False): 0, (True, True, False): 90, (False, True, True): 180}.get(
            (self.transpose, x, y), 270
        )

    @property
    def mirrored(self) -> bool:
        """Whether the displayed frame is a mirror image of the stored one."""
        return self.transpose ^ self.flip_x ^ self.flip_y

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Displayed width and height of a stored frame (the same function leads back)."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, frame_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """View of a stored frame as displayed."""
        if self.transpose:
            frame_HWC = frame_HWC.swapaxes(0, 1)
        return frame_HWC[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def stored_box(
        self, box: tuple[int, int, int, int], width: int, height: int
    ) -> tuple[int, int, int, int]:
        """Where a box of the displayed frame (``width`` x ``height``) lies in the stored one."""
        x0, y0, x1, y1 = box
        if self.flip_x:
            x0, x1 = width - x1, width - x0
        if self.flip_y:
            y0, y1 = height - y1, height - y0
        return (y0, x0, y1, x1) if self.transpose else (x0, y0, x1, y1)
