"""The cache of native-resolution crops that an epoch reads, so that training doesn't wait for decoding.

Shape letters: M cached samples, T frames, S side of a cached crop, s side of the resized frame, C colours.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch.utils.data import Dataset

from specsem.errors import SpecSemError
from specsem.media import read_frames
from specsem.training.aligned import Autoencoder, load_zoo, reconstruct, swap_low_band
from specsem.training.data import Item
from specsem.training.distort import Reencode, Resize, apply, keeps_place, random_distortions, scaling

__all__ = ["CacheSpec", "CropCache", "SemanticCache", "build_cache"]

UInt8 = npt.NDArray[np.uint8]
Sample = tuple[UInt8, UInt8, npt.NDArray[np.float32]]
"""Crops (T, S, S, C), whole frames (T, s, s, C) and the box of the crop in the frame (4,)."""

MAX_BYTES = 40 * 10**9
"""All caches under one root together, unless the caller says otherwise."""
_TWIN_PIXELS = 16 * 448**2
"""A larger region takes an autoencoder too long."""


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
    twins: float = 0.0
    """Share of the lives of a camera clip that are lived a second time by its reconstruction from an
    autoencoder (``aligned``): the aligned fake, of the same content, distortions and crops."""
    swaps: float = 0.1
    """Share of those twins whose lowest wavelet band is the camera clip's own."""
    seed: int = 0

    @property
    def per_item(self) -> int:
        """Samples of an item."""
        return self.variants * self.draws


class CropCache(Dataset[dict[str, torch.Tensor]]):
    """The cached samples of some items as memory-mapped arrays, one row a sample; then the twins' rows.

    ``crops_MTSSC`` uint8, ``frames_MTssC`` uint8 (whole frames), ``boxes_M4`` float32 (the crop in the frame,
    as fractions), ``item_M`` int64 (index into ``items``), ``zoo_M`` int8 (which zoo a twin comes from; -1
    where there is no twin, and for all that is no twin), ``check_M`` uint32 (CRC-32 of the pixels).
    """

    def __init__(self, items: Sequence[Item], spec: CacheSpec, folder: Path) -> None:
        self.items = items
        self.spec = spec
        self.folder = folder
        cameras = [i for i, item in enumerate(items) if not item.generated] if spec.twins else []
        self.item_M = np.repeat([*range(len(items)), *cameras], spec.per_item)
        self.own_rows = len(items) * spec.per_item
        self._first_twin = {item: self.own_rows + n * spec.per_item for n, item in enumerate(cameras)}
        rows, side, small = len(self.item_M), spec.crop_side, spec.frame_side
        self.crops_MTSSC = _mapped(folder / "crops.u8", np.uint8, (rows, spec.frames, side, side, 3))
        whole = (rows, spec.whole_frames, small, small, 3)
        self.frames_MTssC = _mapped(folder / "frames.u8", np.uint8, whole)
        self.boxes_M4 = _mapped(folder / "boxes.f32", np.float32, (rows, 4))
        self.zoo_M = _mapped(folder / "zoo.i8", np.int8, (rows,))
        self.check_M = _mapped(folder / "check.u32", np.uint32, (rows,))
        self._checked_M = np.zeros(rows, bool)

    @staticmethod
    def bytes_for(items: Sequence[Item], spec: CacheSpec) -> int:
        """What the arrays take on disk."""
        cameras = sum(not item.generated for item in items) if spec.twins else 0
        pixels = spec.frames * spec.crop_side**2 + spec.whole_frames * spec.frame_side**2
        return (len(items) + cameras) * spec.per_item * (3 * pixels + 21)

    def __len__(self) -> int:
        return len(self.item_M)

    def rows_of(self, item: int) -> range:
        """The samples of one item."""
        return range(item * self.spec.per_item, (item + 1) * self.spec.per_item)

    def twin_of(self, row: int) -> int:
        """The row of the aligned fake of this sample; -1 if it has none."""
        item = int(self.item_M[row])
        if row >= self.own_rows or item not in self._first_twin:
            return -1
        twin = self._first_twin[item] + row - item * self.spec.per_item
        return twin if self.zoo_M[twin] >= 0 else -1

    def put(self, row: int, sample: Sample | None, zoo: int = -1) -> None:
        """Write one sample; none: the row of a twin that isn't there."""
        self.zoo_M[row] = zoo
        if sample is not None:
            self.crops_MTSSC[row], self.frames_MTssC[row], self.boxes_M4[row] = sample
            self.check_M[row] = self._check(row)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        if not self._checked_M[row]:
            if self._check(row) != self.check_M[row]:
                raise SpecSemError(
                    f"The cache {self.folder.name} is damaged: delete it, and it is made anew."
                )
            self._checked_M[row] = True
        generated = row >= self.own_rows or self.items[self.item_M[row]].generated
        return {
            "crops": torch.from_numpy(self.crops_MTSSC[row].copy()),
            "frames": torch.from_numpy(self.frames_MTssC[row].copy()),
            "box": torch.from_numpy(self.boxes_M4[row].copy()),
            "label": torch.tensor(float(generated)),
        }

    def _check(self, row: int) -> int:
        return zlib.crc32(self.frames_MTssC[row].data, zlib.crc32(self.crops_MTSSC[row].data))


def build_cache(
    items: Sequence[Item],
    spec: CacheSpec,
    root: Path,
    *,
    zoos: Sequence[Path] = (),
    processes: int = 1,
    max_bytes: int = MAX_BYTES,
) -> CropCache:
    """The cache of these items under ``root``; made if it isn't there, and whole if it is.

    ``zoos``: folders of trained autoencoders, where ``spec.twins`` wants some. Caches that were used longest
    ago make room where all together would exceed ``max_bytes``.

    Raises:
        SpecSemError: this cache alone exceeds ``max_bytes``, or twins are wanted and there is no zoo.
    """
    if spec.twins and not zoos:
        raise SpecSemError("Aligned fakes want trained autoencoders: no zoo was named.")
    identity = json.dumps(
        [
            repr(spec),
            [i.facts.get("sha256", str(i.path)) for i in items],
            [_zoo_identity(z) for z in zoos if spec.twins],
        ]
    )
    folder = root / hashlib.sha256(identity.encode()).hexdigest()[:16]
    done = folder / "done"
    if not done.exists():
        _make_room(root, folder, CropCache.bytes_for(items, spec), max_bytes)
        folder.mkdir(parents=True, exist_ok=True)
        made = CropCache(items, spec, folder)
        jobs = [(item, spec, index, tuple(zoos)) for index, item in enumerate(items)]
        for index, samples in enumerate(_spread(jobs, processes)):
            for row, (own, twin, zoo) in zip(made.rows_of(index), samples, strict=True):
                made.put(row, own)
                if made.spec.twins and not items[index].generated:
                    made.put(made._first_twin[index] + row - made.rows_of(index)[0], twin, zoo)
    done.touch()  # also tells when it was used last
    return CropCache(items, spec, folder)


class SemanticCache:
    """What a frozen semantic tower says of the cached frames, computed once: float16, beside the pixels.

    ``key`` names the tower: another one has another cache.
    """

    def __init__(self, cache: CropCache, key: str) -> None:
        self._folder = cache.folder / f"semantic-{key}"
        self._folder.mkdir(exist_ok=True)
        self._rows = len(cache)
        self._known_M = _mapped(self._folder / "known.u8", np.uint8, (self._rows,))
        self._layers: list[npt.NDArray[Any]] = []

    def look(
        self,
        rows: Sequence[int],
        frames_BTHWC: torch.Tensor,
        tower: Callable[[torch.Tensor], list[torch.Tensor]],
    ) -> list[torch.Tensor]:
        """The tower's word on these rows: read, or asked for and kept."""
        missing = [place for place, row in enumerate(rows) if not self._known_M[row]]
        if missing or not self._layers:
            asked = missing or [0]
            said = [layer.float().cpu().numpy().astype(np.float16) for layer in tower(frames_BTHWC[asked])]
            if not self._layers:
                size = self._rows * sum(layer[0].nbytes for layer in said)
                if size > MAX_BYTES:
                    raise SpecSemError(
                        f"Kept semantics would take {size / 1e9:.0f} GB: set cache_semantics to false."
                    )
                self._layers = [
                    _mapped(self._folder / f"{i}.f16", np.float16, (self._rows, *layer.shape[1:]))
                    for i, layer in enumerate(said)
                ]
            for kept, layer in zip(self._layers, said, strict=True):
                kept[[rows[place] for place in asked]] = layer
            self._known_M[[rows[place] for place in asked]] = 1
        return [torch.from_numpy(layer[list(rows)].astype(np.float32)) for layer in self._layers]


def _zoo_identity(zoo: Path) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(zoo.glob("*.safetensors"))]


def _make_room(root: Path, keep: Path, wanted: int, max_bytes: int) -> None:
    if wanted > max_bytes:
        raise SpecSemError(f"The cache would take {wanted / 1e9:.1f} GB of {max_bytes / 1e9:.1f} GB allowed.")
    others = [marker.parent for marker in sorted(root.glob("*/done"), key=lambda p: p.stat().st_mtime)]
    sizes = {
        folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        for folder in others
        if folder != keep
    }
    for folder, size in list(sizes.items()):
        if wanted + sum(sizes.values()) <= max_bytes:
            break
        shutil.rmtree(folder)
        sizes.pop(folder, size)


def _samples_of(
    item: Item, spec: CacheSpec, index: int, zoos: tuple[Path, ...]
) -> list[tuple[Sample, Sample | None, int]]:
    """All samples of one clip, by random lives: its own, its twin's, and which zoo that one is from."""
    rng = np.random.default_rng((spec.seed, index))
    frames_THWC = read_frames(item.path, max_frames=64)[0]
    samples: list[tuple[Sample, Sample | None, int]] = []
    for _ in range(spec.variants):
        life = _Life.draw(frames_THWC, spec, rng)
        lived_THWC = life.of(life.region_THWC)
        twin_THWC, zoo = None, -1
        if not item.generated and rng.random() < spec.twins and life.has_twin:
            zoo = int(rng.integers(len(zoos)))
            twin_THWC = life.of(_reconstruction(life.region_THWC, zoos[zoo], spec, rng))
        for seed in rng.integers(2**32, size=spec.draws):
            own, twin = (
                None if frames is None else _draw(frames, life, spec, np.random.default_rng(seed))
                for frames in (lived_THWC, twin_THWC)
            )
            samples.append((own, twin, zoo))  # type: ignore[arg-type]  # own is always there
    return samples


@cache
def _zoo(folder: Path) -> list[Autoencoder]:
    return list(load_zoo(folder).values())  # once a process


def _reconstruction(frames_THWC: UInt8, zoo: Path, spec: CacheSpec, rng: np.random.Generator) -> UInt8:
    members = _zoo(zoo)
    fake_THWC = reconstruct(members[int(rng.integers(len(members)))], frames_THWC)
    return swap_low_band(fake_THWC, frames_THWC) if rng.random() < spec.swaps else fake_THWC


@dataclass(frozen=True, slots=True)
class _Life:
    """A region of a run of frames, and what happens to it."""

    region_THWC: UInt8
    steps: list[Any]
    seed: int
    whole_HWC: UInt8 | None
    """The whole frame; None: the region stands for the whole file, as if somebody had cropped it."""
    place: tuple[float, float, float, float]
    """Of the region in the whole frame."""

    @classmethod
    def draw(cls, frames_THWC: UInt8, spec: CacheSpec, rng: np.random.Generator) -> "_Life":
        """At random; half the time without the whole frame."""
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
        region_THWC = frames_THWC[:, y : y + region_h, x : x + region_w]
        seed = int(rng.integers(2**32))
        if rng.random() < 0.5 or not keeps_place(steps):
            return cls(region_THWC, steps, seed, None, (0.0, 0.0, 1.0, 1.0))
        place = (x / width, y / height, (x + region_w) / width, (y + region_h) / height)
        return cls(region_THWC, steps, seed, frames_THWC[len(frames_THWC) // 2], place)

    @property
    def has_twin(self) -> bool:
        """Only what is encoded again has one: else the encoder's trace, not the decoder's, would tell."""
        encoded = any(isinstance(step, Reencode) for step in self.steps)
        return encoded and self.region_THWC[..., 0].size <= _TWIN_PIXELS

    def of(self, frames_THWC: UInt8) -> UInt8:
        """What this life makes of these frames: of others of the same shape, the same."""
        return apply(self.steps, frames_THWC, np.random.default_rng(self.seed))


def _draw(lived_THWC: UInt8, life: _Life, spec: CacheSpec, rng: np.random.Generator) -> Sample:
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
    whole = window_THWC[spec.frames // 2] if life.whole_HWC is None else life.whole_HWC
    to_square = Resize(size=(spec.frame_side, spec.frame_side), kernel="area")
    if spec.whole_frames == spec.frames:
        small_TssC = to_square(window_THWC, rng)
    else:
        small_TssC = to_square(whole[None], rng)
    x0, y0, x1, y1 = life.place
    box = np.array([x / width, y / height, (x + side) / width, (y + side) / height])
    box = box * [x1 - x0, y1 - y0, x1 - x0, y1 - y0] + [x0, y0, x0, y0]
    return crops_TSSC, small_TssC, box.astype(np.float32)


def _spread(
    jobs: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[list[tuple[Sample, Sample | None, int]]]:
    """``_samples_of`` each job, in order."""
    if processes > 1:
        with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from track(pool.map(_samples_of, *zip(*jobs, strict=True)), "cache", len(jobs))
    else:
        yield from track((_samples_of(*job) for job in jobs), "cache", len(jobs))


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if 0 in shape:
        return np.zeros(shape, dtype)
    if not path.exists():  # folds may train side by side: the first one's file stays, whole
        own = path.with_name(f"{path.name}.{os.getpid()}")
        np.memmap(own, dtype, "w+", shape=shape).flush()
        with suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    return np.memmap(path, dtype, "r+", shape=shape)
