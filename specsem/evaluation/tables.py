"""The figures of every condition as one table: for ``specsem train``, ``specsem evaluate`` and cards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from specsem.calibration import Calibration
from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.evaluation.metrics import intervals, macro, summary

__all__ = ["Judged", "as_markdown", "cross_fitted", "judged", "validation_table"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Calibrations = Callable[[FileScore], Calibration]
"""The calibration of each score: one for all, or that of its fold."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The scored clips of one condition as columns of N rows."""

    scores: list[FileScore]
    generated: Bools
    score: Floats
    """Calibrated probability."""
    value: dict[str, Floats]
    """Policy -> where ``generated`` begins for each clip."""
    lower: dict[str, Floats]
    """Policy -> where ``authentic`` ends."""

    @property
    def source(self) -> list[str]:
        """Generator, or camera source."""
        return [s.item.source for s in self.scores]

    @property
    def group(self) -> list[str]:
        """Generator family, or camera source."""
        return [s.item.group for s in self.scores]

    @property
    def fold(self) -> list[str]:
        """Whose model scored it."""
        return [s.fold for s in self.scores]

    @property
    def one_sided(self) -> bool:
        """Whether clips of one class are missing: nothing can be told apart then."""
        return bool(self.generated.all() or not self.generated.any())


def judged(scores: Sequence[FileScore], calibration: Calibration | Calibrations) -> Judged:
    """Columns of the clips that could be scored; ``scores`` are of one condition."""
    here = [s for s in scores if s.windows]
    own = [calibration if isinstance(calibration, Calibration) else calibration(s) for s in here]
    policies = list(own[0].policies) if own else []
    return Judged(
        here,
        np.array([s.item.generated for s in here], bool),
        np.array([c.probability(s.logit) for c, s in zip(own, here, strict=True)]),
        {name: np.array([c.threshold(name).value for c in own]) for name in policies},
        {name: np.array([c.threshold(name).lower for c in own]) for name in policies},
    )


def cross_fitted(
    scores: Sequence[FileScore], fit: Callable[[Sequence[FileScore]], Calibration]
) -> Calibrations:
    """For each fold's clips the calibration that the other folds give, so that no threshold saw its clip.

    Raises:
        SpecSemError: there are not two folds.
    """
    folds = sorted({s.fold for s in scores})
    if len(folds) < 2:
        raise SpecSemError("A calibration can be cross-fitted only to scores of two folds or more.")
    fitted = {fold: fit([s for s in scores if s.fold != fold]) for fold in folds}
    return lambda score: fitted[score.fold]


def validation_table(
    scores: Sequence[FileScore], calibration: Calibration | Calibrations, *, rounds: int = 1000
) -> dict[str, Any]:
    """Every figure of each condition with its interval; what is said of each generator, family and camera.

    ``policies`` are the shipped thresholds, empty if they are cross-fitted. Conditions under which nothing of
    one class could be scored are named in ``not_judged``.
    """
    shipped = calibration.policies if isinstance(calibration, Calibration) else {}
    table: dict[str, Any] = {
        "policies": {name: t.model_dump() for name, t in shipped.items()},
        "conditions": {},
        "not_judged": [],
    }
    for name in dict.fromkeys(s.condition for s in scores):
        here = [s for s in scores if s.condition == name]
        columns = judged(here, calibration)
        if columns.one_sided:  # too few could be scored, for their size or length
            table["not_judged"].append(name)
            continue
        table["conditions"][name] = _figures(columns, rounds) | {
            "not_scored": len(here) - len(columns.scores)
        }
    return table


def _figures(columns: Judged, rounds: int) -> dict[str, Any]:
    generated, score, threshold = columns.generated, columns.score, columns.value["default"]
    reals, fakes = np.sort(score[~generated]), np.sort(score[generated])

    def column(rows: Bools, others: Floats) -> dict[str, float]:
        """``auc``: how often one of these scores above one of the other class, or below for a camera."""
        above = _share_below(score[rows], others)
        ours = generated[rows][0]
        return {
            "n": int(rows.sum()),
            "mean_score": float(score[rows].mean()),
            "above_threshold": float((score[rows] >= threshold[rows]).mean()),
            "above_half": float((score[rows] >= 0.5).mean()),
            "auc": float(above.mean() if ours else 1 - above.mean()),
        }

    def by(names: Sequence[str], side: bool) -> dict[str, dict[str, float]]:
        array = np.asarray(names)
        inside = generated == side
        return {
            str(name): column(inside & (array == name), reals if side else fakes)
            for name in np.unique(array[inside])
        }

    generators, families = by(columns.source, True), by(columns.group, True)
    figures: dict[str, Any] = dict(summary(generated, score, threshold=threshold))
    macros = {"generators": macro(generators), "families": macro(families)}
    figures["macro_auc"] = macros["generators"]["auc"]
    figures["interval95"] = intervals(generated, score, columns.source, threshold=threshold, rounds=rounds)
    figures["policies"] = {
        policy: _at_policy(generated, score, columns.value[policy], columns.lower[policy])
        for policy in columns.value
    }
    figures["macro"] = macros
    figures["generators"] = generators
    figures["families"] = families
    figures["cameras"] = by(columns.source, False)
    if len(set(columns.fold)) > 1:
        figures["folds"] = _by_fold(columns)
    return figures


def _at_policy(generated: Bools, score: Floats, value: Floats, lower: Floats) -> dict[str, float]:
    called_generated, called_authentic = score >= value, score < lower
    answered = called_generated | called_authentic
    wrong = (called_generated & ~generated) | (called_authentic & generated)
    return {
        "recall": float(called_generated[generated].mean()),
        "false_positive_rate": float(called_generated[~generated].mean()),
        "camera_called_authentic": float(called_authentic[~generated].mean()),
        "generated_called_authentic": float(called_authentic[generated].mean()),
        "coverage": float(answered.mean()),
        "risk": float(wrong.sum() / max(1, answered.sum())),
    }


def _by_fold(columns: Judged) -> dict[str, dict[str, float | None]]:
    """Each fold's model on its own clips: models of folds differ in scale, which the pooled AUC pays for."""
    fold = np.asarray(columns.fold)
    rows = {str(name): fold == name for name in np.unique(fold)}
    return {
        name: {
            "n_generated": int(columns.generated[inside].sum()),
            "n_real": int((~columns.generated[inside]).sum()),
            "auc": float(roc_auc_score(columns.generated[inside], columns.score[inside]))
            if len(set(columns.generated[inside])) == 2
            else None,
        }
        for name, inside in rows.items()
    }


def _share_below(score: Floats, others: Floats) -> Floats:
    """Share of the others (sorted) that lie below each score; equals count half."""
    places = np.searchsorted(others, score, "left") + np.searchsorted(others, score, "right")
    share: Floats = places / (2 * len(others))
    return share


def as_markdown(table: dict[str, Any]) -> str:
    """The table for people: a row a condition, then a row a policy, then a row a generator."""
    conditions: dict[str, Any] = table["conditions"]
    lines = [
        "| condition | clips (generated + real) | AUC (95% interval) | mean AUC of generators | AP "
        "| recall at threshold | false positives at threshold | balanced accuracy at threshold / at .5 "
        "| TPR at 1% FPR | ECE | Brier |",
        "|---" * 11 + "|",
    ]
    for name, row in conditions.items():
        low, high = row["interval95"]["auc"]
        lines.append(
            f"| {name} | {row['n_generated']} + {row['n_real']} | {row['auc']:.3f} ({low:.3f} to {high:.3f}) "
            f"| {row['macro_auc']:.3f} | {row['ap']:.3f} "
            f"| {row['tpr_at_threshold']:.3f} | {row['fpr_at_threshold']:.3f} "
            f"| {row['balanced_accuracy_at_threshold']:.3f} / {row['balanced_accuracy_at_half']:.3f} "
            f"| {row['tpr_at_1pct_fpr']:.3f} | {row['ece']:.3f} | {row['brier']:.3f} |"
        )
    lines += [
        "",
        "| policy | false-positive rate asked for, upper 95% bound | condition | generated found "
        "| camera called generated | camera called authentic | generated called authentic | answered "
        "| wrong among answers |",
        "|---" * 9 + "|",
    ]
    for policy in dict.fromkeys(p for row in conditions.values() for p in row["policies"]):
        shipped = table["policies"].get(policy)
        asked = f"{shipped['max_fpr']:.3f}, {shipped['fpr_upper95']:.3f}" if shipped else "cross-fitted"
        for name, row in conditions.items():
            rates = " | ".join(f"{rate:.3f}" for rate in row["policies"][policy].values())
            lines.append(f"| {policy} | {asked} | {name} | {rates} |")
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
            f"{f['above_threshold']:.2f} / {f['above_half']:.2f} ({f['n']})" if f else "-" for f in found
        ]
        lines.append(f"| {generator} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
