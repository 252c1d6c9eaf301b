"""``specsem train``: from a configuration and manifests to a model folder that the registry reads.

Semantics, cache of crops, training, judgement on the validation split, calibration; each step is kept in the
output folder and not done twice.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from specsem.calibration import Calibration, DomainLimits
from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore, score_items
from specsem.evaluation.tables import as_markdown, validation_table
from specsem.media import DecoderPool
from specsem.model import SpecSemConfig
from specsem.registry import read_model
from specsem.result import Threshold
from specsem.scorer import Scorer
from specsem.semantic import build_tower, load_clip_tower
from specsem.training.cache import build_cache
from specsem.training.calibrate import calibrate
from specsem.training.data import Item, read_manifest
from specsem.training.distill import distill, load_teacher, make_views
from specsem.training.export import write_model
from specsem.training.loop import TrainConfig, fit

__all__ = ["Recipe", "judge", "train"]

CALIBRATION_CONDITIONS = ("as-is", "level")
REPORTED_CONDITIONS = (*CALIBRATION_CONDITIONS, "canonical", "h264-crf28", "half-size")
UNCALIBRATED = Calibration(
    slope=1.0,
    intercept=0.0,
    policies={"default": Threshold(value=0.5, lower=0.5, max_fpr=1, fpr_upper95=1, calibration_n=0)},
    domain=DomainLimits(max_distance=1e9),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training configuration file: the name, where the semantics come from, how it trains."""

    name: str
    version: str
    summary: str
    semantics: str
    """``distill``: learn a teacher's features on the training split; else a CLIP checkpoint for open_clip."""
    distill_steps: int
    stages: tuple[TrainConfig, ...]
    """Trained in turn, each from the weights of the one before: the spectral branch alone may come first, for
    a gate that starts near the identity leaves what it has learned as it is."""

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """A JSON file with these fields."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "stages": tuple(TrainConfig.from_dict(stage) for stage in fields["stages"])})

    @property
    def model(self) -> SpecSemConfig:
        """The architecture that comes out: the last stage's."""
        return self.stages[-1].model


def train(
    config: Path,
    data: Sequence[Path],
    out: Path,
    *,
    teacher: Path | None = None,
    device: str = "auto",
    processes: int = 2,
) -> None:
    """Train on the split ``train`` of the manifests, judge and calibrate on ``val``; resumes in ``out``.

    Raises:
        SpecSemError: the manifests hold too little, or the recipe wants a teacher and there is none.
    """
    recipe = Recipe.read(config)
    members, held_out = (read_manifest(*data, split=split) for split in ("train", "val"))
    for items, split in ((members, "train"), (held_out, "val")):
        if len({item.generated for item in items}) < 2:
            raise SpecSemError(f"Split {split!r} of the manifests must hold clips of both labels.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)
    tower = _semantics(recipe, members, out, teacher)
    start: dict[str, Tensor] | None = None
    for number, stage in enumerate(recipe.stages, start=1):
        cache = partial(build_cache, members, stage.cache, out / "cache", processes=processes)
        folder = out / f"stage-{number}"
        net = fit(stage, cache, range(len(members)), folder, tower=tower, start=start, device=device)
        start = net.state_dict()

    record = {"name": recipe.name, "version": recipe.version, "summary": recipe.summary}
    write_model(out / "model", net, UNCALIBRATED, **record)
    scores = judge(out / "model", held_out, REPORTED_CONDITIONS)
    calibration = calibrate([s for s in scores if s.condition in CALIBRATION_CONDITIONS])
    write_model(out / "model", net, calibration, **record)
    table = validation_table(scores, calibration)
    (out / "model" / "validation.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    (out / "model" / "validation.md").write_text(as_markdown(table), encoding="utf-8")


def judge(folder: Path, items: Sequence[Item], conditions: Sequence[str]) -> list[FileScore]:
    """Score items with the model in a folder under several conditions, the product's own way."""
    scorer = Scorer(read_model(folder))
    with DecoderPool(workers=2) as pool:
        return [s for name in conditions for s in score_items(items, name, scorer=scorer, pool=pool)]


def _semantics(
    recipe: Recipe, items: Sequence[Item], out: Path, teacher: Path | None
) -> dict[str, Tensor] | None:
    """The semantic tower's weights: from the output folder, by distillation, or through open_clip."""
    model = recipe.model
    if model.merging == "spectral-only":
        return None
    kept = out / "semantic.safetensors"
    if kept.exists():
        return dict(load_file(kept))
    if recipe.semantics != "distill":
        return dict(load_clip_tower(pretrained=recipe.semantics).state_dict())
    if teacher is None:
        raise SpecSemError("This recipe distils its semantic tower: name the teacher's weights by --teacher.")
    tower_config = asdict(model.semantic)
    quick_gelu = tower_config.pop("quick_gelu")
    torch.manual_seed(recipe.stages[0].seed)
    tower = build_tower(tower_config, quick_gelu=quick_gelu)
    grid = model.semantic.image_size // model.semantic.patch_size
    views = make_views(items, load_teacher(teacher), side=model.semantic.image_size, grid=grid)
    log = distill(tower, views, steps=recipe.distill_steps, seed=recipe.stages[0].seed)
    (out / "distill.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    weights = {key: value.contiguous() for key, value in tower.state_dict().items()}
    save_file(weights, kept)
    return weights
