"""What a model says of files under a condition, through the product's own way, and how that is kept.

Scores are kept as JSON lines, a line for a file under a condition. Figures, calibrations and reports can be
made again without scoring, and scores of cross-validation (each clip scored by the model of a fold that did
not see it) are judged like those of one model. The fields of a line::

    path       relative to the manifest          label      "real" | "generated"
    sha256     of the clip, where known          source     generator, or camera source
    group      generator family, or source       split      "train" | "val"
    condition  see specsem.evaluation.conditions fold       whose model scored it; "" if not cross-validated
    logit      mean over windows; null if none   error      code of a MediaError; "" if it was scored
    file       FileFacts of what was really scored; null if it could not be read
    windows    [{start_s, end_s, logit, semantic_logit, motion, detail, features, shown}]; the last two are
               what the spectral and the semantic head saw: float32, little-endian, base64
"""

import base64
import json
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from specsem.errors import MediaError, SpecSemError
from specsem.evaluation.conditions import materialise, workshop_of
from specsem.media import Clip, DecoderPool, SamplePlan
from specsem.registry import ModelRecord
from specsem.scorer import Scorer, WindowScore
from specsem.training.data import Item

__all__ = [
    "FileFacts",
    "FileScore",
    "append_score",
    "decode_items",
    "read_scores",
    "rejoined",
    "score_conditions",
    "score_items",
    "write_scores",
]

_WINDOW_NUMBERS = ("start_s", "end_s", "logit", "semantic_logit", "motion", "detail")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file says of itself without a look at its pixels: what the leak audit may use."""

    codec: str
    width: int
    height: int
    fps: float
    duration_s: float
    n_frames: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FileScore:
    """What the model says of one file. ``windows`` is empty where the file could not be scored."""

    item: Item
    condition: str
    windows: list[WindowScore]
    error: str = ""
    file: FileFacts | None = None
    fold: str = ""
    """Whose model scored it in cross-validation: one that saw neither this family nor this source."""

    @property
    def logit(self) -> float:
        """The file's logit: the mean of its windows', as ``Scorer.judge`` has it."""
        return float(np.mean([w.logit for w in self.windows]))


Outcome = tuple[Clip | MediaError, FileFacts | None]
"""What came of decoding a file."""


def score_items(
    items: Sequence[Item],
    name: str,
    *,
    scorer: Scorer,
    pool: DecoderPool,
    threads: int = 2,
    workshop: Executor | None = None,
    fold: str = "",
) -> Iterator[FileScore]:
    """One score an item, in order, under the condition ``name``."""
    outcomes = decode_items(items, name, plan=scorer.plan, pool=pool, threads=threads, workshop=workshop)
    for item, (clip, facts) in zip(items, outcomes, strict=True):
        if isinstance(clip, Clip):
            yield FileScore(item, name, scorer.score_windows(clip.windows), file=facts, fold=fold)
        else:
            yield FileScore(item, name, [], clip.code, fold=fold)


def decode_items(
    items: Sequence[Item],
    name: str,
    *,
    plan: SamplePlan,
    pool: DecoderPool,
    threads: int = 2,
    workshop: Executor | None = None,
) -> Iterator[Outcome]:
    """What is decoded of each item, in order, under the condition ``name``.

    Files of a condition are made by ``threads`` threads, or by the processes of ``workshop``; they live in a
    temporary folder until they are decoded. Few are in the works at a time: memory does not grow with items.
    """
    with tempfile.TemporaryDirectory(prefix="specsem-") as folder, ThreadPoolExecutor(threads) as executor:
        decode = partial(_decode, name=name, folder=Path(folder), plan=plan, pool=pool, workshop=workshop)
        outcomes = _in_order(decode, items, executor, ahead=2 * threads)
        try:
            yield from track(outcomes, name, len(items), console=Console(stderr=True))
        finally:
            executor.shutdown(wait=True, cancel_futures=True)  # interrupted: what is begun may end, no more


def score_conditions(
    items: Sequence[Item],
    conditions: Sequence[str],
    folder: Path,
    *,
    model: ModelRecord,
    device: str = "auto",
    processes: int = 1,
    fold: str = "",
) -> list[FileScore]:
    """Score items under conditions; a condition's scores are kept in ``folder``, item by item, and reused."""
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[FileScore] = []
    with ExitStack() as stack:
        scorer: Scorer | None = None
        for name in conditions:
            path = folder / f"{name}.jsonl"
            kept = _kept(path, items)
            missing = [item for item in items if item.key not in kept]
            if missing and scorer is None:  # nothing is loaded or started for what is there already
                scorer = Scorer(model, device=device)
                pool = stack.enter_context(DecoderPool(workers=max(1, processes)))
                workshop = stack.enter_context(workshop_of(processes)) if processes > 1 else None
            if missing and scorer is not None:
                for score in score_items(
                    missing,
                    name,
                    scorer=scorer,
                    pool=pool,
                    threads=processes,
                    workshop=workshop,
                    fold=fold,
                ):
                    append_score(path, score)
                    kept[score.item.key] = score
            scores += [kept[item.key] for item in items]
    return scores


def write_scores(path: Path, scores: Iterable[FileScore]) -> None:
    """Scores as JSON lines (module docstring); what was there is replaced."""
    path.write_text("".join(_line(score) for score in scores), encoding="utf-8")


def append_score(path: Path, score: FileScore) -> None:
    """One more line. A run that is killed leaves all lines before."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(score))


def read_scores(*paths: Path, root: Path | None = None, partial_last: bool = False) -> list[FileScore]:
    """The scores that files hold, as they were written.

    Args:
        root: Where clips lie: the manifest's folder; without it, the paths stay relative.
        partial_last: A last line without its end, left by a kill, is passed over.

    Raises:
        SpecSemError: a line is no such record.
    """
    scores = []
    for path in paths:
        lines = path.read_text(encoding="utf-8").split("\n")
        if lines[-1] and partial_last:
            lines.pop()
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                scores.append(_read(json.loads(line), root or Path()))
            except (KeyError, TypeError, ValueError) as error:
                raise SpecSemError(f"Line {number} of {path} is no score.") from error
    return scores


def _kept(path: Path, items: Sequence[Item]) -> dict[str, FileScore]:
    """What was scored before; a last line that a kill has torn is cut off, for more will be appended."""
    if not path.exists():
        return {}
    scores = read_scores(path, partial_last=True)
    write_scores(path, scores)
    return {score.item.key: score for score in rejoined(scores, items)}


def rejoined(scores: Iterable[FileScore], items: Sequence[Item]) -> list[FileScore]:
    """Those scores that are of these items, each with its item as the manifest has it."""
    by_key = {item.key: item for item in items}
    return [replace(s, item=by_key[s.item.key]) for s in scores if s.item.key in by_key]


def _line(score: FileScore) -> str:
    item = score.item
    row: dict[str, Any] = {
        "path": item.facts.get("path", item.path.name),
        "sha256": item.facts.get("sha256", ""),
        "label": "generated" if item.generated else "real",
        "source": item.source,
        "group": item.group,
        "split": item.split,
        "condition": score.condition,
        "fold": score.fold,
        "logit": score.logit if score.windows else None,
        "error": score.error,
        "file": asdict(score.file) if score.file else None,
        "windows": [
            {
                **{key: getattr(w, key) for key in _WINDOW_NUMBERS},
                "features": _packed(w.features_D),
                "shown": _packed(w.shown_D),
            }
            for w in score.windows
        ],
    }
    return json.dumps(row, allow_nan=False) + "\n"


def _packed(values_D: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(values_D.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def _read(row: dict[str, Any], root: Path) -> FileScore:
    item = Item(
        path=root / row["path"],
        generated={"generated": True, "real": False}[row["label"]],
        source=row["source"],
        group=row["group"],
        split=row["split"],
        facts={"path": row["path"], "sha256": row["sha256"]},
    )
    windows = [
        WindowScore(
            **{key: window[key] for key in _WINDOW_NUMBERS},
            features_D=_unpacked(window["features"]),
            shown_D=_unpacked(window["shown"]),
        )
        for window in row["windows"]
    ]
    facts = FileFacts(**row["file"]) if row["file"] else None
    return FileScore(item, row["condition"], windows, row["error"], facts, row["fold"])


def _decode(
    item: Item, *, name: str, folder: Path, plan: SamplePlan, pool: DecoderPool, workshop: Executor | None
) -> Outcome:
    path = item.path
    try:
        if workshop is None or name == "as-is":
            path = materialise(item.path, name, folder)
        else:
            path = workshop.submit(materialise, item.path, name, folder).result()
        clip = pool.decode(path, plan)
        return clip, _facts(clip, path)
    except MediaError as error:
        return error, None
    finally:
        if path != item.path:
            path.unlink(missing_ok=True)


def _facts(clip: Clip, path: Path) -> FileFacts:
    info = clip.info
    fps = info.fps or 0.0
    return FileFacts(
        codec=info.codec,
        width=info.width,
        height=info.height,
        fps=round(fps, 3),
        duration_s=round(info.duration_s, 3),
        n_frames=round(info.duration_s * fps),
        bytes=path.stat().st_size,
    )


def _in_order(
    function: partial[Outcome], items: Sequence[Item], executor: Executor, *, ahead: int
) -> Iterator[Outcome]:
    """As ``executor.map``, but at most ``ahead`` outcomes wait to be fetched."""
    waiting: deque[Future[Outcome]] = deque()
    for item in items:
        waiting.append(executor.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
