"""``specsem evaluate``: from manifests and a model, or from saved scores, to report.json and report.html.

What was scored is kept in the output folder, a file a condition in a folder named by the model's and the
manifests' checksums, and is not scored again: a run that was stopped goes on where it was.
"""

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from specsem.calibration import Calibration
from specsem.errors import SpecSemError
from specsem.evaluation.conditions import CONDITIONS, QUICK, condition
from specsem.evaluation.files import FileScore, read_scores, rejoined, score_conditions, write_scores
from specsem.evaluation.report import build, page
from specsem.evaluation.tables import Calibrations, cross_fitted
from specsem.registry import DEFAULT_MODEL, ModelRecord, get_model, read_model
from specsem.scorer import load_network
from specsem.training.calibrate import calibrate_headlines
from specsem.training.data import Item, assign_folds, identity_of_folds, read_manifest
from specsem.training.export import unstacked, write_members

__all__ = ["evaluate"]

_SCORES_VERSION = 2
"""Part of the name under which scores are kept: to be raised when conditions or the scoring change."""


def evaluate(
    data: Sequence[Path],
    out: Path,
    *,
    model: str = DEFAULT_MODEL,
    split: str = "val",
    conditions: Sequence[str] = (),
    quick: bool = False,
    held_out: bool = False,
    scores: Sequence[Path] = (),
    device: str = "auto",
    processes: int = 2,
    rounds: int = 1000,
) -> dict[str, Any]:
    """Judge a model on manifests: ``report.json``, ``report.html`` and ``scores.jsonl`` in ``out``.

    Args:
        data: Manifests; with ``scores`` they say where the clips lie.
        out: Made if it isn't there; scoring resumes in it.
        model: A registered model, or a folder that ``specsem train`` wrote.
        split: ``train``, ``val`` or ``all``.
        conditions: Names of ``specsem.evaluation.conditions``; empty: all that there are.
        quick: Only the conditions that headlines need, where none are named.
        held_out: Let each clip be judged by the member that never saw its source, of a model that was
            cross-validated on these manifests: what its card tells can so be measured again, and more. The
            members are left in ``out/members``.
        scores: Saved scores to judge instead of scoring. Where they are of several folds, thresholds are
            cross-fitted: each fold's clips are judged by what the other folds give.
        device: auto, cpu or cuda.
        processes: That make the files of conditions and decode them.
        rounds: Of the bootstrap.

    Returns:
        The report (``specsem.evaluation.report``).

    Raises:
        SpecSemError: an unknown model, condition or split, nothing to judge, or held-out clips of a model
            that was not cross-validated on them.
    """
    try:
        names = [condition(name).name for name in conditions or (QUICK if quick else ())]
    except ValueError as error:
        raise SpecSemError(str(error)) from error
    record = read_model(Path(model)) if (Path(model) / "model.json").is_file() else get_model(model)
    split = "all" if held_out else split
    items = read_manifest(*data, split=None if split == "all" else split)
    if {item.generated for item in items} != {True, False}:
        raise SpecSemError(f"Split {split!r} of the manifests must hold clips of both labels.")
    out.mkdir(parents=True, exist_ok=True)
    if scores:
        judged = _saved(scores, items, names)
    else:
        folder = out / "scores" / _identity(record, data)
        score = partial(score_conditions, device=device, processes=processes)
        wanted = names or list(CONDITIONS)
        if held_out:
            judged = []
            for fold, (member, own) in enumerate(_members(record, items, out / "members")):
                judged += score(own, wanted, folder / str(fold), model=member, fold=str(fold))
            judged = _by_condition(judged)
        else:
            judged = score(items, wanted, folder, model=record)
    calibration = _calibration(judged, record)
    report = build(
        judged,
        calibration,
        model=record,
        manifests=data,
        split=split,
        command=_command(data, model, split=split, conditions=names, held_out=held_out, scores=scores),
        rounds=rounds,
    )
    if not report["conditions"]:
        raise SpecSemError("Under no condition could clips of both labels be scored.")
    write_scores(out / "scores.jsonl", judged)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    (out / "report.json").write_text(text, encoding="utf-8")
    (out / "report.html").write_text(page(report, judged), encoding="utf-8")
    return report


def _saved(paths: Sequence[Path], items: Sequence[Item], names: Sequence[str]) -> list[FileScore]:
    """Saved scores of these items, in the order of the known conditions."""
    found = [s for s in rejoined(read_scores(*paths), items) if s.condition in (names or [s.condition])]
    if not found:
        raise SpecSemError("The saved scores hold no clip of these manifests and this split.")
    return _by_condition(found)


def _by_condition(scores: list[FileScore]) -> list[FileScore]:
    order = {name: place for place, name in enumerate(CONDITIONS)}
    return sorted(scores, key=lambda s: order.get(s.condition, len(order)))


def _members(
    model: ModelRecord, items: Sequence[Item], folder: Path
) -> Iterator[tuple[ModelRecord, list[Item]]]:
    """Each member of a cross-validated model, with the clips of the fold that it has not seen."""
    count = int(model.config.get("members", 1))
    fold_M = assign_folds(items, count)
    if not model.folds or model.folds != identity_of_folds(items, fold_M):
        raise SpecSemError(f"{model.name} {model.version} was not cross-validated on just these clips.")
    members = write_members(
        folder,
        unstacked(load_network(model)),
        name=model.name,
        version=model.version,
        summary=model.summary,
    )
    for fold, member in enumerate(members):
        yield member, [item for item, own in zip(items, fold_M, strict=True) if own == fold]


def _calibration(scores: Sequence[FileScore], model: ModelRecord) -> Calibration | Calibrations:
    """The model's own; cross-fitted for scores of several folds."""
    if len({s.fold for s in scores}) < 2:
        return Calibration.load(model.folder)
    return cross_fitted(scores, calibrate_headlines)


def _identity(model: ModelRecord, data: Sequence[Path]) -> str:
    """What scores depend on, as a folder's name."""
    parts = [str(_SCORES_VERSION), model.sha256, json.dumps(model.config, sort_keys=True)]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in data]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _command(
    data: Sequence[Path],
    model: str,
    *,
    split: str,
    conditions: Sequence[str],
    held_out: bool,
    scores: Sequence[Path],
) -> str:
    """How this report is made again; folders are left out, they are nobody's business."""
    words = ["specsem", "evaluate", "--data", *(path.name for path in data), "--model", Path(model).name]
    words += ["--split", split]
    words += ["--held-out"] if held_out else []
    words += ["--conditions", *conditions] if conditions else []
    words += ["--scores", *(path.name for path in scores)] if scores else []
    return shlex.join([*words, "--out", "DIR"])
