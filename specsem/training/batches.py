"""What a training step sees: rows of the cache drawn with balanced odds, cropped and flipped at random.

Shape letters: B samples, T frames, N = 1 crop, S side of a cached crop, s side of a trained crop, C colours,
G groups, m members of a group.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from specsem.training.aligned import mask_frequencies
from specsem.training.cache import CropCache
from specsem.training.data import balanced_weights

__all__ = ["Batch", "Observed", "Rows", "augment", "batches", "held_out_rows"]

Batch = dict[str, Tensor]
Observed = Literal["labels", "count", "mean", "any"]
"""What is known of a batch: every label; of each group how many are generated (``count``: the unbiased risk,
``mean``: the naive one, every member gets the group's share); or whether any is."""


class Rows:
    """Draws the rows of each step. A step's draw depends on the seed and its number only, so a run resumes.

    ``zoos``: the autoencoder zoos whose twins may be used; none: all.
    """

    def __init__(
        self,
        cache: CropCache,
        members: Sequence[int],
        *,
        batch: int,
        observed: Observed = "labels",
        group: int = 8,
        aligned: float = 0.0,
        zoos: Set[int] | None = None,
        seed: int = 0,
    ) -> None:
        if observed != "labels" and batch % group:
            raise ValueError(f"a batch of {batch} holds no whole number of groups of {group}")
        self.cache = cache
        self.batch, self.observed, self.group, self.aligned, self.seed = batch, observed, group, aligned, seed
        self.zoos = zoos
        odds = balanced_weights([cache.items[i] for i in members])
        generated = np.array([cache.items[i].generated for i in members])
        self._members = [np.array(members)[generated == side] for side in (False, True)]
        self._odds = [odds[generated == side] / odds[generated == side].sum() for side in (False, True)]
        sources = sorted({(cache.items[i].generated, cache.items[i].source) for i in members})
        self.classes = {source: number for number, source in enumerate(sources)}
        """Classes of attribution: every source of the members; one more for the aligned fakes."""

    @property
    def class_count(self) -> int:
        """See ``classes``."""
        return len(self.classes) + 1

    def draw(self, step: int) -> tuple[list[int], list[int]]:
        """The rows of a step, and for each the place of its pair in the batch (-1: none)."""
        rng = np.random.default_rng((self.seed, step))
        if self.observed == "any":  # half of the groups hold nothing generated, the others some
            counts = [
                int(rng.integers(1, self.group // 2 + 1)) if rng.random() < 0.5 else 0
                for _ in range(self.batch // self.group)
            ]
            generated = np.concatenate([np.arange(self.group) < count for count in counts])
        elif self.observed == "labels":
            generated = np.arange(self.batch) % 2 == 1
        else:
            generated = rng.random(self.batch) < 0.5
        rows = [self._row(bool(side), rng) for side in generated]
        pairs = [-1] * len(rows)
        if self.aligned and self.observed == "labels":
            for place in range(1, len(rows), 2):  # every second one is generated, beside a camera sample
                twin = self.cache.twin_of(rows[place - 1])
                allowed = twin >= 0 and (self.zoos is None or int(self.cache.zoo_M[twin]) in self.zoos)
                if rng.random() < self.aligned and allowed:
                    rows[place], pairs[place] = twin, place - 1
        return rows, pairs

    def source_class(self, row: int) -> int:
        """The attribution class of a row."""
        if row >= self.cache.own_rows:
            return len(self.classes)
        item = self.cache.items[self.cache.item_M[row]]
        return self.classes[item.generated, item.source]

    def _row(self, generated: bool, rng: np.random.Generator) -> int:
        item = int(rng.choice(self._members[generated], p=self._odds[generated]))
        rows = self.cache.rows_of(item)
        return rows[int(rng.integers(len(rows)))]


def batches(rows: Rows, steps: range, *, workers: int = 0) -> Iterator[Batch]:
    """The batches of these steps, each also with ``pair``, ``source`` and ``row`` (B,)."""
    drawn = (rows.draw(step) for step in steps)
    known: list[list[int]] = []

    def remember() -> Iterator[list[int]]:
        for chosen, pairs in drawn:
            known.append(pairs)
            yield chosen

    loader = DataLoader(_WithSource(rows), batch_sampler=_Once(remember()), num_workers=workers)
    for batch in loader:
        yield {**batch, "pair": torch.tensor(known.pop(0))}


class _WithSource(torch.utils.data.Dataset[Batch]):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __getitem__(self, row: int) -> Batch:
        known = {"source": self.rows.source_class(row), "row": row}
        return {**self.rows.cache[row], **{name: torch.tensor(value) for name, value in known.items()}}


class _Once(torch.utils.data.Sampler[list[int]]):
    def __init__(self, drawn: Iterator[list[int]]) -> None:
        self.drawn = drawn

    def __iter__(self) -> Iterator[list[int]]:
        return self.drawn


def augment(
    batch: Batch, *, side: int, frames: int, masks: float = 0.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A random crop, flip and run of each sample: (B, T, 1, side, side, C), and its boxes (B, 1, 4).

    The two of a pair get the same. ``masks``: share of the samples that lose some of their frequencies.
    """
    crops_BTSSC, box_B4 = batch["crops"], batch["box"]
    pair = batch["pair"].tolist() if "pair" in batch else [-1] * len(crops_BTSSC)
    full = crops_BTSSC.shape[2]
    crops, boxes = [], []
    drawn: list[tuple[int, int, int, bool]] = []
    for crop_TSSC, box, partner in zip(crops_BTSSC, box_B4, pair, strict=True):
        y, x = (int(v) for v in torch.randint(0, full - side + 1, (2,), generator=generator))
        first = int(torch.randint(0, len(crop_TSSC) - frames + 1, (), generator=generator))
        flip = bool(torch.rand((), generator=generator) < 0.5)
        if partner >= 0:
            y, x, first, flip = drawn[partner]
        drawn.append((y, x, first, flip))
        part = crop_TSSC[first : first + frames, y : y + side, x : x + side]
        x0, y0, x1, y1 = box
        w, h = (x1 - x0) / full, (y1 - y0) / full
        place = torch.stack([x0 + w * x, y0 + h * y, x0 + w * (x + side), y0 + h * (y + side)])
        if flip:  # the box is mirrored too, so that the gate looks at the same things
            part, place = part.flip(2), place[[2, 1, 0, 3]]
        crops.append(part)
        boxes.append(place)
    crops_BTssC = torch.stack(crops)
    if masks:
        chosen = torch.rand(len(crops_BTssC), generator=generator) < masks
        if chosen.any():
            own = generator or torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            x_KTCss = crops_BTssC[chosen].movedim(-1, 2).float()
            crops_BTssC[chosen] = _to_uint8(mask_frequencies(x_KTCss, own).movedim(2, -1))
    return crops_BTssC[:, :, None], torch.stack(boxes)[:, None]


def _to_uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def held_out_rows(cache: CropCache, items: Sequence[int], each: int = 2) -> npt.NDArray[np.int64]:
    """``each`` fixed rows of every item, for validation within training: (items, each)."""
    return np.array([[*cache.rows_of(item)][:each] for item in items])
