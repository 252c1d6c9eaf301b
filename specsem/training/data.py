"""Manifests, their splits and folds by source, and the odds of drawing each item."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specsem.errors import SpecSemError

__all__ = ["Item", "assign_folds", "balanced_weights", "identity_of_folds", "read_manifest"]


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
    weight: float = 1.0
    """How often its manifest is drawn from, beside others."""

    @property
    def key(self) -> str:
        """What names a clip wherever its manifest lies."""
        return str(self.facts.get("sha256") or self.facts.get("path") or self.path.name)


def read_manifest(*paths: Path, split: str | None = None, weights: Sequence[float] = ()) -> list[Item]:
    """The single-label lines of manifests (design, section 3), optionally of one split.

    ``weights``: one for each manifest, for mixtures; none: all alike.

    Raises:
        SpecSemError: a line is not of the contract, or the weights don't fit.
    """
    if weights and (len(weights) != len(paths) or min(weights) <= 0):
        raise SpecSemError(f"{len(paths)} manifests want as many weights, all above 0.")
    items = []
    for path, weight in zip(paths, weights or [1.0] * len(paths), strict=True):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = _row(line, f"{path.name}, line {number}")
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
                    weight=weight,
                )
            )
    return items


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise SpecSemError(f"{where}: no JSON.") from None
    if not isinstance(row, dict):
        raise SpecSemError(f"{where}: no JSON object.")
    if "group" not in row:
        missing = {"path", "label", "source"} - row.keys()
        if missing:
            raise SpecSemError(f"{where}: without {', '.join(sorted(missing))}.")
        if row["label"] not in ("real", "generated"):
            raise SpecSemError(f"{where}: label {row['label']!r} is neither 'real' nor 'generated'.")
    return row


def assign_folds(items: Sequence[Item], count: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """The fold of each item, 0 to ``count`` - 1: no group is in two, and each has its share of both labels.

    The largest groups are placed first, each into the fold that has least of its label.
    With as many folds as there are generator families this is leave one generator out.
    """
    rng = np.random.default_rng(seed)
    fold_of: dict[tuple[bool, str], int] = {}
    for generated in (True, False):
        sizes = Counter(item.group for item in items if item.generated is generated)
        filled = np.zeros(count)
        shuffled = rng.permutation(sorted(sizes))
        for group in sorted(shuffled, key=lambda name: -sizes[name]):
            fold = int(filled.argmin())
            fold_of[generated, group] = fold
            filled[fold] += sizes[group]
    return np.array([fold_of[item.generated, item.group] for item in items], np.int64)


def identity_of_folds(items: Sequence[Item], fold_M: npt.NDArray[np.int64]) -> str:
    """A checksum of which clip is in which fold: two that are alike mean the same cross-validation."""
    lines = sorted(f"{item.key} {fold}" for item, fold in zip(items, fold_M.tolist(), strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def balanced_weights(items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """Odds of drawing each item: both classes alike; within a class a source by the root of its size, and by
    the weight of its manifest.
    """
    sizes = Counter((item.generated, item.source) for item in items)
    weights = np.array([item.weight * sizes[item.generated, item.source] ** -0.5 for item in items])
    generated = np.array([item.generated for item in items])
    for side in (generated, ~generated):
        weights[side] /= weights[side].sum()
    odds: npt.NDArray[np.float64] = weights / weights.sum()
    return odds
