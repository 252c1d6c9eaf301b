"""Learning from counts: "c of these 8 were upheld", without a single label, against every label.

Both train the same linear head on what the frozen semantic tower says of the clips (``shown`` in the scores
that ``specsem train`` keeps; the tower has seen no label), and are judged on the fold that they never saw.

    python benchmarks/counts.py DIR/scores.jsonl

Source: method, section 3; ``specsem.training.loop.group_loss``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from specsem.evaluation.files import read_scores
from specsem.training.batches import Observed
from specsem.training.loop import group_loss
from specsem.training.semantic_head import shown_features

WAYS: dict[str, Observed] = {"every label": "labels", "counts": "count", "mean label": "mean"}
WARM_UP = 0.2


def compose(y_N: Tensor, group: int, generator: torch.Generator, *, uneven: bool) -> Tensor:
    """Which clips (G, m) share a group, each in one at most. ``uneven``: each group comes from a queue with a
    share of generated clips of its own, any from none to all as likely, for as long as both last."""
    order_N = torch.randperm(len(y_N), generator=generator)
    if not uneven:
        return order_N[: len(y_N) // group * group].reshape(-1, group)
    kinds = [order_N[y_N[order_N] == label].tolist() for label in (0.0, 1.0)]
    groups = []
    while True:
        share = float(torch.rand((), generator=generator))
        wanted = int((torch.rand(group, generator=generator) < share).sum())
        if wanted > len(kinds[1]) or group - wanted > len(kinds[0]):
            return torch.tensor(groups)
        groups.append([kinds[label].pop() for label in (0,) * (group - wanted) + (1,) * wanted])


def fit(
    x_ND: Tensor,
    y_N: Tensor,
    observed: Observed,
    *,
    group: int,
    uneven: bool,
    redrawn: bool,
    ridge: float,
    steps: int,
    seed: int,
) -> Tensor:
    """The weights (D + 1,) of a linear head. Groups are fixed, as in a queue that is moderated once; redrawn,
    every clip comes back in ever new company, as in ``specsem.training.loop``."""
    generator = torch.Generator().manual_seed(seed)
    index_Gm = compose(y_N, group, generator, uneven=uneven)
    weight_D = torch.zeros(x_ND.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.AdamW([weight_D], lr=3e-3, weight_decay=ridge)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        if redrawn:
            index_Gm = compose(y_N, group, generator, uneven=uneven)
        chosen_gm = index_Gm[torch.randint(len(index_Gm), (16,), generator=generator)]
        logit_gm = x_ND[chosen_gm] @ weight_D[:-1] + weight_D[-1]
        if observed == "labels":
            risk = F.binary_cross_entropy_with_logits(logit_gm, y_N[chosen_gm])
        else:
            risk = group_loss(logit_gm, y_N[chosen_gm], observed, naive=step < WARM_UP * steps)
        optimiser.zero_grad()
        risk.backward()
        optimiser.step()
        schedule.step()
    return weight_D.detach()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--redrawn", action="store_true")
    parser.add_argument("--uneven", action="store_true")
    parser.add_argument("--ridge", type=float, default=20.0, help="weight decay of AdamW")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--condition", default="as-is")
    asked = parser.parse_args()
    scores = [s for s in read_scores(asked.scores) if s.condition == asked.condition and s.windows]
    x_ND = torch.from_numpy(shown_features(scores)).float()
    y_N = torch.tensor([float(s.item.generated) for s in scores])
    fold_N = np.array([s.fold for s in scores])
    print(f"{len(scores)} clips, {int(y_N.sum())} generated, groups of {asked.group}, {asked.seeds} seeds")
    print("| what is known | AUC of unseen families and cameras: mean (deviation over seeds) |")
    print("|---|---|")
    for name, observed in WAYS.items():
        aucs = []
        for seed in range(asked.seeds):
            unseen_N = np.zeros(len(scores))
            for fold in sorted(set(fold_N)):
                inside_N = torch.from_numpy(fold_N != fold)
                mean_D, std_D = x_ND[inside_N].mean(0), x_ND[inside_N].std(0) + 1e-3
                z_ND = (x_ND - mean_D) / std_D
                weight_D = fit(
                    z_ND[inside_N],
                    y_N[inside_N],
                    observed,
                    group=asked.group,
                    uneven=asked.uneven,
                    redrawn=asked.redrawn,
                    ridge=asked.ridge,
                    steps=asked.steps,
                    seed=seed,
                )
                logit_N = z_ND @ weight_D[:-1] + weight_D[-1]
                unseen_N[fold_N == fold] = logit_N[~inside_N].numpy()
            aucs.append(roc_auc_score(y_N.numpy(), unseen_N))
        print(f"| {name} | {np.mean(aucs):.3f} ({np.std(aucs, ddof=1):.3f}) |", flush=True)


if __name__ == "__main__":
    main()
