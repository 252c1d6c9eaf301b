"""``specsem ablate``: what each choice of a recipe is worth, by training it without, several seeds each.

A variant is the recipe with some fields of its stages changed. Each is trained without one fold and judged on
it, through the product's own decoder and scorer, so that all variants answer for the same unseen sources.

Source: method, section 1 (ablation table of the paper) and section 2 (the list of findings).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from specsem.errors import SpecSemError
from specsem.evaluation.metrics import summary
from specsem.evaluation.tables import judged
from specsem.scorer import resolve_device
from specsem.training.data import assign_folds, read_manifest
from specsem.training.loop import TrainConfig
from specsem.training.run import UNCALIBRATED, Job, Recipe

__all__ = ["VARIANTS", "ablate", "as_markdown", "vary"]

Changes = Mapping[str, Any]

VARIANTS: dict[str, Changes] = {
    "as in the recipe": {},
    "spectral only": {"model.merging": "spectral-only", "train_only": ()},
    "semantic only": {"model.merging": "semantic-only", "model.semantic_dropout": 0.0, "train_only": ()},
    "concatenation": {"model.merging": "concat", "train_only": ("merging",)},
    "gate, everything trained": {"model.merging": "gate", "train_only": ()},
    "radius 0": {"model.radius": 0.0},
    "radius 16": {"model.radius": 16.0},
    "radius 112": {"model.radius": 112.0},
    "residual not compressed": {"model.residual_norm": "fixed"},
    "temporal difference": {"model.temporal_difference": True},
    "temporal transformer": {"model.temporal": "transformer"},
    "pooled by the mean only": {"model.pooling": "mean"},
    "without aligned fakes": {"aligned": 0.0},
    "without frequency masks": {"masks": 0.0},
    "paired contrastive term": {"contrastive": 0.1},
    "attribution": {"attribution": 0.5},
    "counts of groups of 8": {"observed": "count"},
    "mean label of groups of 8": {"observed": "mean"},
}
"""Name -> changed fields; ``model.`` reaches into the architecture."""


def vary(stage: TrainConfig, changes: Changes) -> TrainConfig:
    """A stage with some fields changed."""
    inside = {key.removeprefix("model."): v for key, v in changes.items() if key.startswith("model.")}
    own = {key: v for key, v in changes.items() if not key.startswith("model.")}
    return replace(stage, model=stage.model.variant(**inside), **own)


def _stages(recipe: Recipe, changes: Changes) -> tuple[TrainConfig, ...]:
    """The stages under a variant. A change of merging concerns the stage that merges."""
    merges = {"model.merging", "model.semantic_dropout", "train_only"}
    early = {key: value for key, value in changes.items() if key not in merges}
    if changes.get("model.merging") == "spectral-only":
        return tuple(vary(stage, early) for stage in recipe.stages if stage.model.merging == "spectral-only")
    return (*(vary(stage, early) for stage in recipe.stages[:-1]), vary(recipe.stages[-1], changes))


def ablate(
    config: Path,
    data: Sequence[Path],
    out: Path,
    *,
    variants: Sequence[str] = (),
    seeds: int = 3,
    fold: int = 0,
    steps: int = 0,
    conditions: Sequence[str] = ("as-is", "level"),
    teacher: Path | None = None,
    device: str = "auto",
    processes: int = 2,
) -> dict[str, Any]:
    """Train and judge each variant; ``ablation.json`` and ``ablation.md`` in ``out``. Resumes.

    ``variants``: names of ``VARIANTS``; empty: all. ``steps``: of the first stage, instead of the recipe's.

    Raises:
        SpecSemError: an unknown variant, or a recipe without folds.
    """
    unknown = set(variants) - VARIANTS.keys()
    if unknown:
        raise SpecSemError(f"No variant is named {sorted(unknown)[0]!r}; there are: {', '.join(VARIANTS)}.")
    recipe = Recipe.read(config)
    if not recipe.folds:
        raise SpecSemError("An ablation wants a recipe with folds: one of them is held out.")
    device = str(resolve_device(device))
    recipe = replace(recipe, semantic_head=False)  # what is varied is the rest
    if steps:
        recipe = replace(recipe, stages=(replace(recipe.stages[0], steps=steps), *recipe.stages[1:]))
    items = read_manifest(*data)
    fold_M = tuple(int(own) for own in assign_folds(items, recipe.folds))
    out.mkdir(parents=True, exist_ok=True)
    base = Job(recipe, tuple(items), fold_M, out, device, processes)
    base.prepare(teacher)
    table: dict[str, Any] = {"fold": fold, "steps": recipe.stages[0].steps, "variants": {}}
    for name in variants or VARIANTS:
        rows = []
        for seed in range(seeds):
            stages = tuple(replace(s, seed=100 * seed) for s in _stages(recipe, VARIANTS[name]))
            job = replace(
                base,
                recipe=replace(recipe, stages=stages),
                runs=out / "runs" / f"{name.replace(' ', '-').replace(',', '')}-{seed}",
            )
            if not (job.folder_of(fold) / "model.json").exists():
                job.train_network(fold, progress=True)
            rows.append(_figures(job, fold, conditions))
        table["variants"][name] = _spread(rows)
        (out / "ablation.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        (out / "ablation.md").write_text(as_markdown(table), encoding="utf-8")
    return table


def _figures(job: Job, fold: int, conditions: Sequence[str]) -> dict[str, dict[str, float]]:
    """Condition -> figures on the fold that this network never saw; .5 stands for the threshold."""
    scores = job.scores_of(fold, conditions)
    figures = {}
    for condition in conditions:
        columns = judged([s for s in scores if s.condition == condition], UNCALIBRATED)
        figures[condition] = summary(columns.generated, columns.score, threshold=0.5)
    return figures


def _spread(rows: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Condition -> figure -> each seed's value, their mean and their standard deviation."""
    return {
        condition: {
            figure: {
                "seeds": [row[condition][figure] for row in rows],
                "mean": float(np.mean([row[condition][figure] for row in rows])),
                "std": float(np.std([row[condition][figure] for row in rows], ddof=1)) if rows[1:] else 0.0,
            }
            for figure in ("auc", "ap", "balanced_accuracy_at_half", "tpr_at_1pct_fpr")
        }
        for condition in rows[0]
    }


def as_markdown(table: Mapping[str, Any]) -> str:
    """A row a variant: AUC of each condition, mean and deviation over the seeds."""
    variants = table["variants"]
    conditions = list(next(iter(variants.values()), {}))
    lines = [
        "| variant | " + " | ".join(f"AUC {c}" for c in conditions) + " |",
        "|---|" + "---|" * len(conditions),
    ]
    for name, row in variants.items():
        cells = [f"{row[c]['auc']['mean']:.3f} ± {row[c]['auc']['std']:.3f}" for c in conditions]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
