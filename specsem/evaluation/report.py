"""report.json, for machines, and report.html, one file for people, from scores and their calibration.

The keys of report.json (``schema`` 1)::

    schema, created (UTC), command, software {specsem, commit}, model {name, version, sha256, licence}
    data        manifests [{file, sha256}], split, counts of clips, generators, families and cameras
    protocol    kind ("one model" | "cross-validation"), folds, calibration ("shipped" | "cross-fitted"), says
    headlines   [{condition, says, audit}]: a sentence and what it may owe to leaks, to be quoted together
    policies    the shipped thresholds (empty if cross-fitted)
    conditions  name -> says, kind, every figure of metrics.summary, macro_auc, interval95 of each,
                policies, macro, generators, families, cameras, folds (tables.validation_table),
                leaks {metadata, floor} (leaks), curves {roc, reliability, risk_coverage}, not_scored, errors
    not_judged  conditions under which no clip of one class could be scored
    worst       [{path, sha256, label, source, score, logit}]: the clips that the model is most wrong about

Frames of the worst clips are in the page alone, and the page only where the user writes it.
"""

import base64
import hashlib
import io
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from sklearn.metrics import roc_curve

import specsem
from specsem.calibration import Calibration
from specsem.errors import MediaError
from specsem.evaluation import plots
from specsem.evaluation.conditions import CONDITIONS, QUICK
from specsem.evaluation.files import FileScore
from specsem.evaluation.leaks import metadata_classifier, real_floor
from specsem.evaluation.metrics import BINS, risk_coverage
from specsem.evaluation.tables import Calibrations, Judged, judged, validation_table
from specsem.media import read_frames
from specsem.registry import ModelRecord

__all__ = ["build", "page"]

SCHEMA = 1
WORST = 20
_FRAME_HEIGHT = 120
"""Pixels of a frame on the page."""
_FRAMES = 3


def build(
    scores: Sequence[FileScore],
    calibration: Calibration | Calibrations,
    *,
    model: ModelRecord,
    manifests: Sequence[Path],
    split: str,
    command: str,
    rounds: int = 1000,
) -> dict[str, Any]:
    """All that is said of these scores, as plain data (keys: module docstring)."""
    table = validation_table(scores, calibration, rounds=rounds)
    conditions: dict[str, Any] = {}
    for name, figures in table["conditions"].items():
        here = [s for s in scores if s.condition == name]
        columns = judged(here, calibration)
        known = CONDITIONS.get(name)
        conditions[name] = {
            "says": known.says if known else name,
            "kind": known.kind if known else "other",
            **figures,
            "errors": dict(Counter(s.error for s in here if s.error)),
            "leaks": {
                "metadata": metadata_classifier(columns, rounds=rounds),
                "floor": real_floor(columns),
            },
            "curves": _curves(columns),
        }
    folds = sorted({s.fold for s in scores if s.fold})
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "software": {"specsem": specsem.__version__, "commit": _commit()},
        "model": {key: getattr(model, key) for key in ("name", "version", "sha256", "licence")},
        "data": _data(scores, manifests, split),
        "protocol": _protocol(folds, isinstance(calibration, Calibration)),
        "headlines": [_headline(name, conditions[name]) for name in QUICK if name in conditions],
        "policies": table["policies"],
        "conditions": conditions,
        "not_judged": table["not_judged"],
        "worst": _worst(scores, calibration),
    }


def page(report: Mapping[str, Any], scores: Sequence[FileScore]) -> str:
    """The report as one HTML file that fetches nothing; frames are read from the clips where they lie."""
    conditions = report["conditions"]
    main = [name for name in QUICK if name in conditions] or list(conditions)[:1]
    chosen = {name: conditions[name] for name in main}
    curves = {kind: {name: row["curves"][kind] for name, row in chosen.items()} for kind in _CURVES}
    first = conditions[main[0]] if main else None
    svgs = {}
    if first:
        svgs = {
            "roc": plots.roc(curves["roc"], {name: row["auc"] for name, row in chosen.items()}),
            "det": plots.det(curves["roc"]),
            "reliability": plots.reliability(curves["reliability"]),
            "risk": plots.risk_coverage(curves["risk_coverage"], first["policies"]),
            "bars": plots.bars(first["generators"], "auc", "AUC against all camera clips", chance=0.5),
            "conditions": plots.conditions(conditions),
        }
    files = {(s.item.facts.get("path", s.item.path.name)): s.item.path for s in scores}
    worst = [row | {"frames": _frames(files[row["path"]])} for row in report["worst"]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(
        report=report, main=main, first=first, svgs=svgs, worst=worst, grid=_grid(conditions)
    )


_CURVES = ("roc", "reliability", "risk_coverage")


def _curves(columns: Judged) -> dict[str, list[dict[str, float]]]:
    generated, score = columns.generated, columns.score
    fpr, tpr, thresholds = roc_curve(generated, score)
    risk = risk_coverage(generated, score)
    index = np.minimum((score * BINS).astype(int), BINS - 1)
    return {
        "roc": [
            {"fpr": float(f), "tpr": float(t), "threshold": float(min(v, 1.0))}
            for f, t, v in zip(fpr, tpr, thresholds, strict=True)
        ],
        "reliability": [
            {
                "from": b / BINS,
                "n": int(inside.sum()),
                "mean_score": float(score[inside].mean()),
                "share_generated": float(generated[inside].mean()),
            }
            for b in range(BINS)
            if (inside := index == b).any()
        ],
        "risk_coverage": [
            {"half_width": float(w), "coverage": float(c), "risk": float(r)}
            for w, c, r in zip(risk.half_width, risk.coverage, risk.risk, strict=True)
        ],
    }


def _data(scores: Sequence[FileScore], manifests: Sequence[Path], split: str) -> dict[str, Any]:
    items = {s.item.path: s.item for s in scores}.values()
    fakes, reals = ([i for i in items if i.generated is side] for side in (True, False))
    return {
        "manifests": [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in manifests
        ],
        "split": split,
        "n_generated": len(fakes),
        "n_real": len(reals),
        "generators": len({i.source for i in fakes}),
        "families": len({i.group for i in fakes}),
        "cameras": len({i.source for i in reals}),
    }


def _protocol(folds: Sequence[str], shipped: bool) -> dict[str, Any]:
    if len(folds) > 1:
        says = (
            f"Every clip was scored by one of {len(folds)} fold models that saw neither its generator family "
            "nor its camera source (leave generators out)."
        )
    else:
        says = "Every clip was scored by the one model named here."
    says += (
        " Probabilities and thresholds are those that ship with the model; where they were fitted to these "
        "clips, figures at a threshold lean optimistic."
        if shipped
        else " Probabilities and thresholds of a fold's clips were fitted to the other folds' clips."
    )
    return {
        "kind": "cross-validation" if len(folds) > 1 else "one model",
        "folds": len(folds) if len(folds) > 1 else None,
        "calibration": "shipped" if shipped else "cross-fitted",
        "says": says,
    }


def _headline(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    low, high = row["interval95"]["auc"]
    says = (
        f"{name} ({row['says']}): a generated clip scores above a camera clip {row['auc']:.1%} of the time "
        f"(AUC {row['auc']:.3f}, 95% interval {low:.3f} to {high:.3f}; mean over generators "
        f"{row['macro_auc']:.3f}; {row['n_generated']} generated and {row['n_real']} camera clips)."
    )
    metadata, floor = row["leaks"]["metadata"], row["leaks"]["floor"]
    if metadata["auc"] is None:
        audit = f"What the files' facts alone would reach is not known: {metadata['reason']}."
    else:
        low, high = metadata["interval95"]
        audit = (
            f"The files' facts alone, without a pixel, reach AUC {metadata['auc']:.3f} "
            f"({low:.3f} to {high:.3f}) on the same clips."
        )
    if floor["mean"] is None:
        audit += f" No real-vs-real floor: {floor['reason']}."
    else:
        audit += (
            f" Real against real, half of the camera sources against the other half: {floor['mean']:.3f} on "
            f"average and {floor['max']:.3f} at most (by chance {floor['chance_mean']:.3f} and "
            f"{floor['chance_max']:.3f})."
        )
    return {"condition": name, "says": says, "audit": audit}


def _worst(scores: Sequence[FileScore], calibration: Calibration | Calibrations) -> list[dict[str, Any]]:
    """The clips that are most wrong as delivered, or under the first condition if that was not judged."""
    names = list(dict.fromkeys(s.condition for s in scores))
    if not names:
        return []
    name = "as-is" if "as-is" in names else names[0]
    columns = judged([s for s in scores if s.condition == name], calibration)
    order = np.argsort(-np.abs(columns.score - columns.generated), kind="stable")[:WORST]
    return [
        {
            "path": str(s.item.facts.get("path", s.item.path.name)),
            "sha256": s.item.facts.get("sha256", ""),
            "label": "generated" if s.item.generated else "real",
            "source": s.item.source,
            "condition": name,
            "score": float(columns.score[i]),
            "logit": s.logit,
        }
        for i, s in ((i, columns.scores[i]) for i in order)
    ]


def _frames(path: Path) -> list[str]:
    """A few frames of a clip as data URIs; none if the file isn't there or can't be read."""
    try:
        frames_THWC, _ = read_frames(path, max_frames=64)
    except (MediaError, OSError):
        return []
    places = np.unique(np.linspace(0, len(frames_THWC) - 1, _FRAMES).round().astype(int))
    uris = []
    for frame_HWC in frames_THWC[places]:
        image = Image.fromarray(frame_HWC)
        image.thumbnail((4 * _FRAME_HEIGHT, _FRAME_HEIGHT))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        uris.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
    return uris


def _grid(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """The heat map: AUC of each generator under each condition, with what a reader sorts by."""
    generators = sorted({g for row in conditions.values() for g in row["generators"]})
    return {
        "columns": list(conditions),
        "rows": {
            g: [row["generators"].get(g, {}).get("auc") for row in conditions.values()] for g in generators
        },
        "all": [row["auc"] for row in conditions.values()],
        "macro": [row["macro_auc"] for row in conditions.values()],
    }


def _commit() -> str | None:
    """The commit of this code, marked where it was changed; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():  # an installed package may lie inside a stranger's repository
        return None
    git = ("git", "-C", str(folder))
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
