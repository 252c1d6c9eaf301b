"""Scores files under an evaluation condition through the product's own way: container, decoder, scorer."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from specsem.errors import MediaError
from specsem.evaluation.conditions import materialise
from specsem.media import Clip, DecoderPool
from specsem.scorer import Scorer, WindowScore
from specsem.training.data import Item

__all__ = ["FileScore", "score_items"]


@dataclass(frozen=True, slots=True)
class FileScore:
    """What the model says of one file. ``windows`` is empty where the file could not be scored."""

    item: Item
    condition: str
    windows: list[WindowScore]
    error: str = ""

    @property
    def logit(self) -> float:
        """The file's logit: the mean of its windows', as ``Scorer.judge`` has it."""
        return float(np.mean([w.logit for w in self.windows]))


def score_items(
    items: Sequence[Item], name: str, *, scorer: Scorer, pool: DecoderPool, threads: int = 2
) -> Iterator[FileScore]:
    """One score an item, in order. Files of a condition live in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="specsem-") as folder, ThreadPoolExecutor(threads) as executor:
        decode = partial(_decode, name=name, folder=Path(folder), scorer=scorer, pool=pool)
        clips = executor.map(decode, items)
        for item, clip in track(zip(items, clips, strict=True), name, len(items)):
            if isinstance(clip, Clip):
                yield FileScore(item, name, scorer.score_windows(clip.windows))
            else:
                yield FileScore(item, name, [], clip.code)


def _decode(item: Item, name: str, folder: Path, scorer: Scorer, pool: DecoderPool) -> Clip | MediaError:
    path = materialise(item.path, name, folder)
    try:
        return pool.decode(path, scorer.plan)
    except MediaError as error:
        return error
    finally:
        if path != item.path:
            path.unlink()
