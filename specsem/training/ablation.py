"""``specsem ablate``: what each choice of a recipe is worth, by training it without, several seeds each.

A variant is the recipe with some fields of its stages changed. Each is trained without one fold and judged on
it, through the product's own decoder and scorer, so that all variants answer for the same unseen sources.
Variants that share a stage train it once.

Source: method, section 1 (ablation table of the paper) and section 2 (the list of findings).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore, decode_items
from specsem.evaluation.metrics import summary
from specsem.evaluation.tables import judged
from specsem.media import Clip, DecoderPool
from specsem.registry import read_model
from specsem.scorer import Scorer, resolve_device
from specsem.training.data import Item, assign_folds, read_manifest
from specsem.training.export import UNCALIBRATED
from specsem.training.loop import TrainConfig
from specsem.training.run import Job, Recipe

__all__ = ["MERGING", "SPECTRAL", "VARIANTS", "ablate", "as_markdown", "vary"]

Changes = Mapping[str, Any]
Clips = Mapping[str, Sequence[tuple[Item, Clip]]]
Figures = dict[str, dict[str, float]]

WINDOWS = 2
"""Of a clip, looked at by every variant: half of what is served costs half, and ranks variants as well."""

SPECTRAL: dict[str, Changes] = {
    "spectral branch": {},
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
    "without attribution": {"attribution": 0.0},
    "counts of groups of 8": {"observed": "count"},
    "mean label of groups of 8": {"observed": "mean"},
}
"""Name -> changed fields of the first stage, the spectral branch, which is judged by itself: what it gains or
loses is not hidden behind the semantic branch. ``model.`` reaches into the architecture."""

MERGING: dict[str, Changes] = {
    "gate": {},
    "gate, untrained tower": {"tower": "untrained"},
    "gate, tower trained with it": {"train_only": ("merging", "semantic"), "cache_semantics": False},
    "gate, untrained tower trained with it": {
        "tower": "untrained",
        "train_only": ("merging", "semantic"),
        "cache_semantics": False,
    },
    "gate, spectral branch trained with it": {"train_only": ()},
    "concatenation": {"model.merging": "concat"},
    "semantic only": {"model.merging": "semantic-only", "model.semantic_dropout": 0.0, "train_only": ()},
}
"""Name -> changed fields of the last stage, which merges the branches: the same spectral branch before it."""

VARIANTS = SPECTRAL | MERGING


def vary(stage: TrainConfig, changes: Changes) -> TrainConfig:
    """A stage with some fields changed."""
    inside = {key.removeprefix("model."): v for key, v in changes.items() if key.startswith("model.")}
    own = {key: v for key, v in changes.items() if not key.startswith("model.")}
    return replace(stage, model=stage.model.variant(**inside), **own)


def _stages(recipe: Recipe, name: str) -> tuple[TrainConfig, ...]:
    """The stages under a variant."""
    if name in SPECTRAL:
        return (vary(recipe.stages[0], SPECTRAL[name]),)
    return (*recipe.stages[:-1], vary(recipe.stages[-1], MERGING[name]))


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
    clips = _decoded(base, fold, conditions)
    table: dict[str, Any] = {"fold": fold, "steps": recipe.stages[0].steps, "variants": {}}
    for name in variants or VARIANTS:
        rows = []
        for seed in range(seeds):
            stages = tuple(replace(s, seed=s.seed + 100 * seed) for s in _stages(recipe, name))
            runs = out / "runs" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            rows.append(_run(replace(base, recipe=replace(recipe, stages=stages), runs=runs), fold, clips))
        table["variants"][name] = _spread(rows)
        (out / "ablation.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        (out / "ablation.md").write_text(as_markdown(table), encoding="utf-8")
    return table


def _decoded(job: Job, fold: int, conditions: Sequence[str]) -> Clips:
    """The fold's clips as the product decodes them: once for all variants, which look at the same windows."""
    plan = job.recipe.model.variant(windows=WINDOWS).plan()
    with DecoderPool(workers=job.processes) as pool:
        return {
            name: [
                (item, clip)
                for item, (clip, _) in zip(
                    job.of(fold), decode_items(job.of(fold), name, plan=plan, pool=pool), strict=True
                )
                if isinstance(clip, Clip)
            ]
            for name in conditions
        }


def _run(job: Job, fold: int, clips: Clips) -> Figures:
    """Train one network and judge it on the fold that it never saw; .5 stands for the threshold."""
    assert job.runs is not None  # noqa: S101
    kept = job.runs / "figures.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    if not (job.folder_of(fold) / "model.json").exists():
        job.train_network(fold, progress=True)
    scorer = Scorer(read_model(job.folder_of(fold)), device=job.device)
    figures: Figures = {}
    for condition, decoded in clips.items():
        scores = [FileScore(item, condition, scorer.score_windows(clip.windows)) for item, clip in decoded]
        columns = judged(scores, UNCALIBRATED)
        figures[condition] = summary(columns.generated, columns.score, threshold=0.5)
    kept.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _spread(rows: Sequence[Figures]) -> dict[str, Any]:
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
