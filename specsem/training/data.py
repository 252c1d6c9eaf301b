"""Manifests, splits by source, and the cache of native-resolution crops that an epoch reads.

Shape letters: M cached samples, T frames, S side of a cached crop, s side of the resized frame, C colours.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch.utils.data import Dataset

from specsem.media import read_frames
from specsem.training.distort import Resize, apply, keeps_place, random_distortions, scaling

__all__ = ["CacheSpec", "CropCache", "Item", "balanced_weights", "build_cache", "read_manifest"]

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a manifest."""

    path: Path
    generated: bool
    source: str
    group: str
    """What must stay on one side of a split: the generator's family, or the camera source."""
    split: str
    facts: dict[str, Any] = field(default_factory=dict, compare=False)


def read_manifest(*paths: Path, split: str | None = None) -> list[Item]:
    """The single-label lines of manifests (design, section 3), optionally of one split."""
    items = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "group" in row or split not in (None, row.get("split")):
                continue
            items.append(
                Item(
                    path=path.parent / row["path"],
                    generated=row["label"] == "generated",
                    source=row["source"],
                    group=row.get("generator_family") or row["source"],
                    split=row.get("split", "train"),
                    facts=row,
                )
            )
    return items


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What is cached of each clip. Part of the cache's name, so that a change makes a new one."""

    variants: int = 12
    """Random lives (``distort.random_distortions``) of each clip."""
    draws: int = 2
    """Windows, each with a crop of its own, taken of each life."""
    frames: int = 8
    crop_side: int = 160
    """Side of the cached native crops; 0: none (``spectral="tower"`` sees whole frames only)."""
    whole_frames: int = 1
    """Resized whole frames kept of a window: the middle one, or all ``frames``."""
    frame_side: int = 112
    seed: int = 0


class CropCache(Dataset[dict[str, torch.Tensor]]):
    """The cached samples of some items as memory-mapped arrays, one row a sample.

    ``crops_MTSSC`` uint8, ``frames_MTssC`` uint8 (whole frames), ``boxes_M4`` float32 (the crop in the frame,
    as fractions), ``item_M`` int64 (index into ``items``).
    """

    def __init__(self, items: Sequence[Item], spec: CacheSpec, folder: Path) -> None:
        self.items = items
        self.spec = spec
        per_item = spec.variants * spec.draws
        rows = len(items) * per_item
        side, small = spec.crop_side, spec.frame_side
        self.crops_MTSSC = _mapped(folder / "crops.u8", np.uint8, (rows, spec.frames, side, side, 3))
        whole = (rows, spec.whole_frames, small, small, 3)
        self.frames_MTssC = _mapped(folder / "frames.u8", np.uint8, whole)
        self.boxes_M4 = _mapped(folder / "boxes.f32", np.float32, (rows, 4))
        self.item_M = np.repeat(np.arange(len(items)), per_item)

    def __len__(self) -> int:
        return len(self.item_M)

    def rows_of(self, item: int) -> range:
        """The samples of one item."""
        per_item = self.spec.variants * self.spec.draws
        return range(item * per_item, (item + 1) * per_item)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {
            "crops": torch.from_numpy(self.crops_MTSSC[row].copy()),
            "frames": torch.from_numpy(self.frames_MTssC[row].copy()),
            "box": torch.from_numpy(self.boxes_M4[row].copy()),
            "label": torch.tensor(float(self.items[self.item_M[row]].generated)),
        }


def build_cache(items: Sequence[Item], spec: CacheSpec, root: Path, *, processes: int = 1) -> CropCache:
    """The cache of these items under ``root``; made if it isn't there, and whole if it is."""
    identity = json.dumps([spec.__repr__(), [i.facts.get("sha256", str(i.path)) for i in items]])
    folder = root / hashlib.sha256(identity.encode()).hexdigest()[:16]
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        cache = CropCache(items, spec, folder)
        jobs = [(item, spec, index) for index, item in enumerate(items)]
        for index, samples in enumerate(_map(_samples_of, jobs, processes)):
            for row, (crops_TSSC, frames_TssC, box_4) in zip(cache.rows_of(index), samples, strict=True):
                cache.crops_MTSSC[row] = crops_TSSC
                cache.frames_MTssC[row] = frames_TssC
                cache.boxes_M4[row] = box_4
        done.touch()
    return CropCache(items, spec, folder)


def balanced_weights(items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """Odds of drawing each item: both classes alike; within a class a source by the root of its size."""
    sizes = Counter((item.generated, item.source) for item in items)
    weights = np.array([sizes[item.generated, item.source] ** -0.5 for item in items])
    generated = np.array([item.generated for item in items])
    for side in (generated, ~generated):
        weights[side] /= weights[side].sum()
    odds: npt.NDArray[np.float64] = weights / weights.sum()
    return odds


def _samples_of(job: tuple[Item, CacheSpec, int]) -> list[tuple[UInt8, UInt8, npt.NDArray[np.float32]]]:
    """All samples of one clip: its random lives, then windows and crops of each."""
    item, spec, index = job
    rng = np.random.default_rng((spec.seed, index))
    frames_THWC = read_frames(item.path, max_frames=64)[0]
    samples = []
    for _ in range(spec.variants):
        lived_THWC, whole_HWC, region = _one_life(frames_THWC, spec, rng)
        samples += [_draw(lived_THWC, whole_HWC, region, spec, rng) for _ in range(spec.draws)]
    return samples


def _one_life(
    frames_THWC: UInt8, spec: CacheSpec, rng: np.random.Generator
) -> tuple[UInt8, UInt8 | None, tuple[float, float, float, float]]:
    """A region of a run of frames after random distortions; the whole frame and the region's place in it.

    Half the time the region is taken for the whole file, as if somebody had cropped it; then no whole frame.
    """
    total, height, width = frames_THWC.shape[:3]
    stride = int(rng.choice([1, 2, 3], p=[0.8, 0.13, 0.07]))
    stride = min(stride, max(1, total // spec.frames))
    length = min(2 * spec.frames, total // stride)
    start = int(rng.integers(0, total - (length - 1) * stride))
    frames_THWC = frames_THWC[start : start + (length - 1) * stride + 1 : stride]

    steps = random_distortions(rng)
    region_h, region_w = height, width
    if spec.crop_side:  # what is to be shrunk starts larger, as far as the clip goes
        side, (down_y, down_x) = 16 * int(rng.integers(16, 26)), scaling(steps)  # whole macroblocks
        region_h, region_w = min(round(side / down_y), height), min(round(side / down_x), width)
    y, x = int(rng.integers(0, height - region_h + 1)), int(rng.integers(0, width - region_w + 1))
    lived_THWC = apply(steps, frames_THWC[:, y : y + region_h, x : x + region_w], rng)
    if rng.random() < 0.5 or not keeps_place(steps):
        return lived_THWC, None, (0.0, 0.0, 1.0, 1.0)
    place = (x / width, y / height, (x + region_w) / width, (y + region_h) / height)
    return lived_THWC, frames_THWC[len(frames_THWC) // 2], place


def _draw(
    lived_THWC: UInt8,
    whole_HWC: UInt8 | None,
    region: tuple[float, float, float, float],
    spec: CacheSpec,
    rng: np.random.Generator,
) -> tuple[UInt8, UInt8, npt.NDArray[np.float32]]:
    side = spec.crop_side
    total, height, width = lived_THWC.shape[:3]
    start = int(rng.integers(0, max(1, total - spec.frames + 1)))
    window_THWC = lived_THWC[start : start + spec.frames]
    if len(window_THWC) < spec.frames:  # a lossy encoder may drop a frame: repeat the last
        window_THWC = window_THWC[np.minimum(np.arange(spec.frames), len(window_THWC) - 1)]
    y, x = int(rng.integers(0, max(0, height - side) + 1)), int(rng.integers(0, max(0, width - side) + 1))
    crops_TSSC = window_THWC[:, y : y + side, x : x + side]
    missing = [max(0, side - length) for length in crops_TSSC.shape[1:3]]
    if any(missing):
        pads = [(m // 2, m - m // 2) for m in missing]
        crops_TSSC = np.pad(crops_TSSC, ((0, 0), *pads, (0, 0)), mode="reflect")
        y, x = y - pads[0][0], x - pads[1][0]
    whole = window_THWC[spec.frames // 2] if whole_HWC is None else whole_HWC
    to_square = Resize(size=(spec.frame_side, spec.frame_side), kernel="area")
    if spec.whole_frames == spec.frames:
        small_TssC = to_square(window_THWC, rng)
    else:
        small_TssC = to_square(whole[None], rng)
    x0, y0, x1, y1 = region
    box = np.array([x / width, y / height, (x + side) / width, (y + side) / height])
    box = box * [x1 - x0, y1 - y0, x1 - x0, y1 - y0] + [x0, y0, x0, y0]
    return crops_TSSC, small_TssC, box.astype(np.float32)


def _map(function: Any, jobs: Sequence[Any], processes: int) -> Iterator[Any]:
    if processes > 1:
        with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from track(pool.map(function, jobs), "cache", len(jobs))
    else:
        yield from track(map(function, jobs), "cache", len(jobs))


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=shape)
