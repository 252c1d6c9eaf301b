"""Our own training curve: semantic heads of more and more clips, as tables for ``specsem scaling``.

For each size a head that detects and one that names the generator are fitted to so many clips of the other
folds, nested from size to size, and asked about the fold that they never saw. A detector answers for unseen
generators and cameras; attribution can only be asked about known ones, so it holds out every fourth clip.

    python benchmarks/scaling_curve.py DIR/scores.jsonl --out TABLES
    specsem scaling TABLES --out SCALING --size-name "training clips" --target detector/auc=0.95

Source: method, section 4.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from specsem.evaluation.files import FileScore, read_scores
from specsem.evaluation.scaling_tables import write_table
from specsem.training.semantic_head import shown_features

Floats = npt.NDArray[np.float64]
SIZES = (24, 48, 96, 192, 384)
FEWEST = 8
"""A generator is an outcome of attribution with so many clips or more."""
STRENGTH = 10.0
"""As ``specsem.training.semantic_head`` has it: an inverse ridge for the mean loss."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--condition", default="as-is")
    asked = parser.parse_args()
    scores = [s for s in read_scores(asked.scores) if s.condition == asked.condition and s.windows]
    for seed in range(asked.seeds):
        _detector(scores, asked.out, seed)
        _attribution([s for s in scores if s.item.generated], asked.out, seed)


def _detector(scores: list[FileScore], out: Path, seed: int) -> None:
    shown_ND = shown_features(scores)
    generated_N = np.array([s.item.generated for s in scores])
    fold_N = np.array([s.fold for s in scores])
    # Whole groups come in one after another: a pack grows by generators and cameras.
    order_N = _by_groups([(s.item.generated, s.item.group) for s in scores], seed)
    for size in SIZES:
        p_NK = np.zeros((len(scores), 2))
        for fold in sorted(set(fold_N)):
            known = [n for n in order_N if fold_N[n] != fold]
            cameras, generators = ([n for n in known if generated_N[n] == side] for side in (False, True))
            chosen = cameras[: size // 2] + generators[: size // 2]
            p_NK[fold_N == fold] = _fitted(shown_ND, generated_N, chosen, shown_ND[fold_N == fold])
        sources = [s.item.source for s in scores]
        path = out / f"detector-{size}-{seed}.parquet"
        write_table(
            path, f"seed {seed}", size, p_NK, generated_N.astype(int), outcome="detector", group_N=sources
        )


def _attribution(scores: list[FileScore], out: Path, seed: int) -> None:
    common = {name for name, n in Counter(s.item.source for s in scores).items() if n >= FEWEST}
    scores = [s for s in scores if s.item.source in common]
    names, truth_N = np.unique([s.item.source for s in scores], return_inverse=True)
    shown_ND = shown_features(scores)
    order_N = np.random.default_rng(seed).permutation(len(scores))
    asked_N, rest_N = order_N[: len(scores) // 4], order_N[len(scores) // 4 :]
    first = [next(n for n in rest_N if truth_N[n] == k) for k in range(len(names))]  # each is known by a clip
    known = [*first, *(n for n in rest_N if n not in set(first))]
    sizes = [size for size in (len(names), *SIZES) if len(names) <= size <= len(known)]
    for size in sizes:
        p_NK = _fitted(shown_ND, truth_N, known[:size], shown_ND[asked_N])
        clips = [str(scores[n].item.path) for n in asked_N]
        path = out / f"attribution-{size}-{seed}.parquet"
        write_table(path, f"seed {seed}", size, p_NK, truth_N[asked_N], outcome="attribution", group_N=clips)


def _by_groups(groups: list[tuple[bool, str]], seed: int) -> list[int]:
    """Places, group after group in random order."""
    rng = np.random.default_rng(seed)
    place = {group: n for n, group in enumerate(rng.permutation(len(set(groups))))}
    rank = {group: place[n] for n, group in enumerate(sorted(set(groups)))}
    return sorted(range(len(groups)), key=lambda n: (rank[groups[n]], n))


def _fitted(shown_ND: Floats, truth_N: npt.NDArray[np.generic], known: list[int], asked_MD: Floats) -> Floats:
    """Probabilities (M, K) of a ridge-like logistic regression."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH / len(known), max_iter=1000))
    head.fit(shown_ND[known], truth_N[known])
    p_MK: Floats = head.predict_proba(asked_MD)
    return p_MK


if __name__ == "__main__":
    main()
