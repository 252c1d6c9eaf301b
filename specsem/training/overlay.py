"""What people lay over a video before they pass it on: boxes, captions, logos. Drawn here, with no font.

Shape letters: T frames, H, W sides of the frame, h, w sides of the mark, C colours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

__all__ = ["Overlay"]

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Overlay:
    """A ``box``, ``caption`` or ``logo`` that stays where it is; ``rng`` draws place, size and colours."""

    kind: str = "caption"
    opacity: float = 1.0

    def __call__(self, frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
        """See the class."""
        match self.kind:
            case "box":
                marks = [_box(frames_THWC.shape[1:3], rng)]
            case "caption":
                marks = _caption(frames_THWC.shape[1:3], rng)
            case "logo":
                marks = [_logo(frames_THWC.shape[1:3], rng)]
            case _:
                raise ValueError(f"unknown overlay {self.kind!r}")
        covered_THWC = frames_THWC.copy()
        for mark in marks:
            _lay(covered_THWC, mark, self.opacity)
        return covered_THWC


@dataclass(frozen=True, slots=True)
class _Mark:
    """Colour through a mask of 0..1, its upper left corner at ``place`` (row, column)."""

    mask_hw: Float32
    colour_C: Float32
    place: tuple[int, int]


def _lay(frames_THWC: UInt8, mark: _Mark, opacity: float) -> None:
    y, x = mark.place
    height, width = mark.mask_hw.shape
    part_ThwC = frames_THWC[:, y : y + height, x : x + width]
    mask_hw1 = opacity * mark.mask_hw[: part_ThwC.shape[1], : part_ThwC.shape[2], None]
    part_ThwC[:] = (part_ThwC * (1 - mask_hw1) + mask_hw1 * mark.colour_C + 0.5).astype(np.uint8)


def _box(size: tuple[int, ...], rng: np.random.Generator) -> _Mark:
    height, width = (max(2, round(side * rng.uniform(0.08, 0.4))) for side in size)
    place = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
    return _Mark(np.ones((height, width), np.float32), _colour(rng), place)


def _caption(size: tuple[int, ...], rng: np.random.Generator) -> list[_Mark]:
    """One or two centred lines near an edge: light on a dark bar, or light with a dark rim."""
    height = max(7, round(size[0] * rng.uniform(0.04, 0.1)))
    top = round(size[0] * rng.choice([rng.uniform(0.03, 0.12), rng.uniform(0.7, 0.85)]))
    on_bar = rng.random() < 0.5
    ink = rng.choice([[255, 255, 255], [255, 230, 60]]).astype(np.float32)
    black = np.zeros(3, np.float32)
    marks = []
    for line in range(int(rng.integers(1, 3))):
        letters_hw = _text(int(rng.integers(4, 22)), height, rng)[:, : size[1]]
        y = min(top + line * round(1.4 * height), size[0] - height)
        x = (size[1] - letters_hw.shape[1]) // 2
        rim_hw = np.ones_like(letters_hw) if on_bar else _rim(letters_hw)
        marks += [_Mark(rim_hw, black, (y, x)), _Mark(letters_hw, ink, (y, x))]
    return marks


def _logo(size: tuple[int, ...], rng: np.random.Generator) -> _Mark:
    """A disc, a ring or a few letters in a corner."""
    side = max(8, round(min(size) * rng.uniform(0.08, 0.2)))
    margin = max(1, round(min(size) * 0.03))
    if rng.random() < 0.5:
        mask_hw = _text(int(rng.integers(2, 6)), side // 2, rng)[:, : size[1] - 2 * margin]
    else:
        radius_hw = np.hypot(*np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
        inner = rng.choice([-1.0, 0.6])
        mask_hw = np.clip((1 - radius_hw) * side / 2, 0, 1) * np.clip((radius_hw - inner) * side / 2, 0, 1)
    y = margin if rng.random() < 0.5 else size[0] - margin - mask_hw.shape[0]
    x = margin if rng.random() < 0.5 else size[1] - margin - mask_hw.shape[1]
    return _Mark(mask_hw.astype(np.float32), _colour(rng), (max(0, y), max(0, x)))


def _text(letters: int, height: int, rng: np.random.Generator) -> Float32:
    """Marks of 5 by 3 cells, as even and upright as letters, with smooth edges."""
    cells_hw = np.zeros((7, 4 * letters + 1), np.float32)
    for letter in range(letters):
        if rng.random() > 0.15:  # else a space
            cells_hw[1:6, 4 * letter + 1 : 4 * letter + 4] = rng.random((5, 3)) < 0.6
    size = height, round(height * cells_hw.shape[1] / 8)
    smooth = F.interpolate(torch.from_numpy(cells_hw)[None, None], size, mode="bilinear")[0, 0]
    mask_hw: Float32 = ((smooth - 0.25) * 2).clamp(0, 1).numpy()
    return mask_hw


def _rim(mask_hw: Float32) -> Float32:
    rim_hw: Float32 = F.max_pool2d(torch.from_numpy(mask_hw)[None, None], 3, 1, 1)[0, 0].numpy()
    return rim_hw


def _colour(rng: np.random.Generator) -> Float32:
    """White or black half of the time, as most marks are."""
    if rng.random() < 0.5:
        return np.full(3, 255 * int(rng.integers(0, 2)), np.float32)
    return rng.integers(0, 256, 3).astype(np.float32)
