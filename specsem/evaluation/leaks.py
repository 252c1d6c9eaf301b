"""What a headline figure may owe to something other than the pixels' origin.

Two audits on the very clips that were scored. A classifier that sees only the facts of the files, no pixel:
what it reaches, a detector may have reached in the same way; where a condition makes the facts equal it must
sit near .5. And a real-vs-real floor: how well the detector's scores tell one half of the camera sources from
the other; a detector of cameras rather than of generators scores high there.

Source: method, section 2 (VidAudit, arXiv 2606.31004).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from specsem.evaluation.files import FileFacts
from specsem.evaluation.metrics import intervals
from specsem.evaluation.tables import Judged

__all__ = ["FACTS", "file_facts", "metadata_classifier", "real_floor"]

Floats = npt.NDArray[np.float64]

FACTS = ("bytes", "width", "height", "aspect", "fps", "n_frames", "duration_s", "bit_rate", "codec")
"""The columns that the classifier sees; ``bit_rate`` in bits a second, ``codec`` as a number a name."""


def file_facts(files: Sequence[FileFacts]) -> Floats:
    """The facts as columns (N, len(FACTS)), as ``FACTS`` has them."""
    codecs = sorted({file.codec for file in files})
    return np.array(
        [
            (
                file.bytes,
                file.width,
                file.height,
                file.width / max(1, file.height),
                file.fps,
                file.n_frames,
                file.duration_s,
                8 * file.bytes / max(file.duration_s, 1e-3),
                codecs.index(file.codec),
            )
            for file in files
        ],
        np.float64,
    ).reshape(-1, len(FACTS))


def metadata_classifier(
    columns: Judged, *, folds: int = 5, repeats: int = 3, rounds: int = 1000
) -> dict[str, Any]:
    """How well boosted trees on the facts of the files alone tell the two classes apart, on unseen groups.

    Args:
        columns: Their ``file`` is what was really scored, so the facts are the condition's own.

    Returns:
        ``auc`` of out-of-fold probabilities (mean over ``repeats`` of the folds' draw), its ``interval95``
        over sources, ``n``, and ``constant``: the facts that are the same in all files. ``auc`` is None with
        a ``reason`` where too few groups of a class remain.
    """
    here = [(s, s.file) for s in columns.scores if s.file is not None]
    generated = np.array([s.item.generated for s, _ in here], bool)
    source = [s.item.source for s, _ in here]
    # Labels are part of a group's name: a camera source and a generator may share theirs.
    group = np.array([f"{s.item.generated}:{s.item.group}" for s, _ in here])
    groups = [len(set(group[generated == side])) for side in (True, False)]
    if min(groups) < 2:
        return {"auc": None, "reason": "fewer than two groups of a class have facts", "n": len(here)}
    facts = file_facts([file for _, file in here])
    probability = np.zeros(len(here))
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(min(folds, *groups), shuffle=True, random_state=repeat)
        for train, test in splitter.split(facts, generated, group):
            if len(set(generated[train])) < 2:  # no telling what the trees would say; say nothing
                probability[test] += 0.5 / repeats
                continue
            trees = HistGradientBoostingClassifier(
                max_iter=60,
                min_samples_leaf=5,
                class_weight="balanced",
                categorical_features=[FACTS.index("codec")],
                random_state=repeat,
            ).fit(facts[train], generated[train])
            probability[test] += trees.predict_proba(facts[test])[:, 1] / repeats
    bounds = intervals(generated, probability, source, threshold=0.5, rounds=rounds)
    return {
        "auc": float(roc_auc_score(generated, probability)),
        "interval95": bounds["auc"],
        "n": len(here),
        "facts": list(FACTS),
        "constant": [name for name, column in zip(FACTS, facts.T, strict=True) if len(set(column)) == 1],
    }


def real_floor(columns: Judged, *, splits: int = 500, seed: int = 0) -> dict[str, Any]:
    """How well the scores tell camera sources from other camera sources: max(AUC, 1 - AUC), .5 = not at all.

    Few clips differ by chance alone: ``chance_mean`` and ``chance_max`` are the same figures for halves of
    clips drawn without regard to their sources. The floor is what goes beyond.

    Returns:
        ``mean`` and ``max`` over random halves of the sources, the same of chance, and ``sources``: each one
        against the rest, with its ``n``. ``mean`` is None where there are fewer than four sources.
    """
    score = columns.score[~columns.generated]
    names, index = np.unique(np.asarray(columns.source)[~columns.generated], return_inverse=True)
    if len(names) < 4:
        return {"mean": None, "reason": "fewer than four camera sources", "n": len(score), "sources": {}}
    rng = np.random.default_rng(seed)
    order_MS = rng.permuted(np.tile(np.arange(len(names)), (splits, 1)), axis=1)
    inside_MN = (order_MS < len(names) // 2)[:, index]
    halves = _folded(inside_MN, score)
    chance = _folded(rng.permuted(inside_MN, axis=1), score)
    alone = _folded(index == np.arange(len(names))[:, None], score)
    return {
        "mean": float(np.mean(halves)),
        "max": float(np.max(halves)),
        "chance_mean": float(np.mean(chance)),
        "chance_max": float(np.max(chance)),
        "n": len(score),
        "n_sources": len(names),
        "sources": {
            str(name): {"n": int((index == i).sum()), "auc": float(alone[i])} for i, name in enumerate(names)
        },
    }


def _folded(inside_MN: npt.NDArray[np.bool_], score: Floats) -> Floats:
    """max(AUC, 1 - AUC) of each of M divisions of the clips, by ranks: thousands of them in one product."""
    n = inside_MN.sum(axis=1)
    ranks = inside_MN @ rankdata(score)
    auc = (ranks - n * (n + 1) / 2) / (n * (len(score) - n))
    folded: Floats = np.maximum(auc, 1 - auc)
    return folded
