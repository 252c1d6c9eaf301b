"""The figures of every condition as one table: for ``specsem train``, ``specsem evaluate`` and model cards."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from specsem.calibration import Calibration
from specsem.evaluation.files import FileScore
from specsem.evaluation.metrics import interval, summary

__all__ = ["as_markdown", "validation_table"]


def validation_table(scores: Sequence[FileScore], calibration: Calibration) -> dict[str, Any]:
    """Every figure of each condition, and for each generator how much of it is found at the threshold."""
    threshold = calibration.threshold("default")
    policies = {policy: t.model_dump() for policy, t in calibration.policies.items()}
    table: dict[str, Any] = {"policies": policies, "conditions": {}, "not_judged": []}
    for name in dict.fromkeys(s.condition for s in scores):
        here = [s for s in scores if s.condition == name and s.windows]
        generated = np.array([s.item.generated for s in here], bool)
        if generated.all() or not generated.any():  # too few could be scored, for their size or length
            table["not_judged"].append(name)
            continue
        score = np.array([calibration.probability(s.logit) for s in here])
        sources = [s.item.source for s in here]
        figures: dict[str, Any] = dict(summary(generated, score, threshold=threshold.value))
        figures["auc_interval95"] = interval(generated, score, sources)
        figures["policies"] = {
            policy: {
                "recall": float((score[generated] >= t.value).mean()),
                "false_positive_rate": float((score[~generated] >= t.value).mean()),
                "camera_called_authentic": float((score[~generated] < t.lower).mean()),
                "generated_called_authentic": float((score[generated] < t.lower).mean()),
            }
            for policy, t in calibration.policies.items()
        }
        figures["not_scored"] = sum(s.condition == name and not s.windows for s in scores)
        figures["generators"] = {
            source: {
                "n": int(rows.sum()),
                "mean_score": float(score[rows].mean()),
                "recall_at_threshold": float((score[rows] >= threshold.value).mean()),
                "above_half": float((score[rows] >= 0.5).mean()),
            }
            for source in sorted({s for s, g in zip(sources, generated, strict=True) if g})
            if (rows := np.array([s == source for s in sources])).any()
        }
        table["conditions"][name] = figures
    return table


def as_markdown(table: dict[str, Any]) -> str:
    """The validation table for people: a row a condition, then a row a generator."""
    conditions: dict[str, Any] = table["conditions"]
    lines = [
        "| condition | clips (generated + real) | AUC (95% interval) | AP | recall at threshold "
        "| false positives at threshold | balanced accuracy at threshold / at .5 | TPR at 1% FPR | ECE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in conditions.items():
        low, high = row["auc_interval95"]
        lines.append(
            f"| {name} | {row['n_generated']} + {row['n_real']} | {row['auc']:.3f} ({low:.3f} to {high:.3f}) "
            f"| {row['ap']:.3f} | {row['tpr_at_threshold']:.3f} | {row['fpr_at_threshold']:.3f} "
            f"| {row['balanced_accuracy_at_threshold']:.3f} / {row['balanced_accuracy_at_half']:.3f} "
            f"| {row['tpr_at_1pct_fpr']:.3f} | {row['ece']:.3f} |"
        )
    lines += [
        "",
        "| policy | false-positive rate asked for, upper 95% bound | condition | generated found "
        "| camera called generated | camera called authentic | generated called authentic |",
        "|---|---|---|---|---|---|---|",
    ]
    for policy, t in table["policies"].items():
        for name, row in conditions.items():
            rates = " | ".join(f"{rate:.3f}" for rate in row["policies"][policy].values())
            lines.append(f"| {policy} | {t['max_fpr']:.3f}, {t['fpr_upper95']:.3f} | {name} | {rates} |")
    generators = sorted({g for row in conditions.values() for g in row["generators"]})
    lines += [
        "",
        "| generator | "
        + " | ".join(f"{name}: found at threshold / above .5 (n)" for name in conditions)
        + " |",
        "|---|" + "---|" * len(conditions),
    ]
    for generator in generators:
        found = [row["generators"].get(generator) for row in conditions.values()]
        cells = [
            f"{f['recall_at_threshold']:.2f} / {f['above_half']:.2f} ({f['n']})" if f else "-" for f in found
        ]
        lines.append(f"| {generator} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
