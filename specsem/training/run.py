"""``specsem train``: from a configuration and manifests to a model folder that the registry reads.

Semantics, cache of crops, training, judgement on the validation split, calibration; each step is kept in the
output folder and not done twice.
"""

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from specsem.errors import SpecSemError
from specsem.evaluation.conditions import QUICK
from specsem.evaluation.files import FileScore, score_conditions, write_scores
from specsem.evaluation.tables import as_markdown, cross_fitted, validation_table
from specsem.model import SpecSemConfig
from specsem.registry import read_model
from specsem.scorer import load_network, resolve_device
from specsem.semantic import build_tower, load_clip_tower
from specsem.training.aligned import AutoencoderSpec, train_zoo
from specsem.training.cache import CropCache, build_cache
from specsem.training.calibrate import calibrate_headlines
from specsem.training.data import Item, assign_folds, identity_of_folds, read_manifest
from specsem.training.distill import AGAIN, collect_scenes, distill, load_teacher
from specsem.training.export import (
    UNCALIBRATED,
    reconfigured,
    stack_members,
    write_members,
    write_model,
)
from specsem.training.loop import TrainConfig, fit
from specsem.training.semantic_head import (
    MIN_FOLDS_OF_HEADS,
    apply_heads,
    fit_semantic_heads,
)

__all__ = ["Job", "Recipe", "train"]


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
    folds: int = 0
    """0: train on the split ``train``, judge on ``val``. Else grouped cross-validation over all clips: a
    network a fold, each trained on the others, shipped together as the members of one model. Every clip has
    a score by a member that saw neither its source nor its family, and thresholds stand on all of them."""
    zoo: tuple[AutoencoderSpec, ...] = ()
    """The autoencoders that make aligned fakes. With folds, each is trained on the camera clips of one fold,
    and its fakes are kept from the network that leaves this fold out."""
    zoo_steps: int = 1200
    distill_again: int = 0
    """Steps of a second cycle of distillation, all of them end to end."""
    distill_on: Literal["all", "generated"] = "all"
    """``generated``: no camera clip that a threshold stands on has been seen by the semantic tower either."""
    semantic_head: bool = False
    """Give each network a semantic head, fitted to the scores of the clips that it has not left out."""
    spectral_stride: int = 1
    """Of the shipped networks (``SpecSemConfig``); training takes fewer frames by itself."""

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """A JSON file with these fields."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(TrainConfig.from_dict(stage) for stage in fields["stages"])
        zoo = tuple(AutoencoderSpec(**spec) for spec in fields.get("zoo", ()))
        return cls(**{**fields, "stages": stages, "zoo": zoo})

    @property
    def model(self) -> SpecSemConfig:
        """The architecture that comes out: the last stage's, and what only serving knows."""
        return self.stages[-1].model.variant(
            semantic_head=self.semantic_head, spectral_stride=self.spectral_stride
        )


def train(
    config: Path,
    data: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] = (),
    teacher: Path | None = None,
    device: str = "auto",
    processes: int = 2,
) -> None:
    """Train, judge and calibrate; resumes in ``out``. The model is in ``out/model``, with its validation.

    With folds, ``out/members`` has each fold's network as a model of its own.

    ``weights``: of each manifest, for mixtures. ``processes``: that prepare clips, and on a CPU train folds.

    Raises:
        SpecSemError: the manifests hold too little, or the recipe wants a teacher and there is none.
    """
    recipe = Recipe.read(config)
    device = str(resolve_device(device))
    items = read_manifest(*data, weights=weights)
    fold_M = (
        assign_folds(items, recipe.folds) if recipe.folds else np.array([i.split == "val" for i in items])
    )
    for fold in range(max(recipe.folds, 1)):
        for side in (fold_M == fold, fold_M != fold):
            if {item.generated for item, inside in zip(items, side, strict=True) if inside} != {True, False}:
                what = f"{recipe.folds} folds" if recipe.folds else "the splits 'train' and 'val'"
                raise SpecSemError(f"Each of {what} must hold clips of both labels.")
    if recipe.semantic_head and recipe.folds < MIN_FOLDS_OF_HEADS:
        raise SpecSemError(f"A recipe with semantic heads wants {MIN_FOLDS_OF_HEADS} folds or more.")
    out.mkdir(parents=True, exist_ok=True)
    job = Job(recipe, tuple(items), tuple(int(fold) for fold in fold_M), out, device, processes)
    job.prepare(teacher)
    job.train_networks()
    scores = job.scores()
    nets = {str(fold): load_network(read_model(job.folder_of(fold))) for fold in job.held_out_folds}
    if recipe.semantic_head:
        heads = fit_semantic_heads(scores)
        scores = apply_heads(scores, heads)
        supports = max(len(head.alpha_S) for head in heads.values())
        nets = {name: heads[name].installed(net, supports) for name, net in nets.items()}
    write_scores(out / "scores.jsonl", scores)

    calibration = calibrate_headlines(scores)
    if recipe.folds:  # each by itself: what it says of its own fold's clips is what an unseen clip gets
        write_members(out / "members", list(nets.values()), **job.record)
    net = stack_members(list(nets.values()))
    folds = identity_of_folds(items, fold_M) if recipe.folds else ""
    write_model(out / "model", net, calibration, folds=folds, **job.record)
    judged_by = cross_fitted(scores, calibrate_headlines) if recipe.folds else calibration
    table = validation_table(scores, judged_by)
    (out / "model" / "validation.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    (out / "model" / "validation.md").write_text(as_markdown(table), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Job:
    """One run of ``train``: what it makes lies in ``out``, and what is there is not made again."""

    recipe: Recipe
    items: tuple[Item, ...]
    fold_M: tuple[int, ...]
    out: Path
    device: str
    processes: int
    runs: Path | None = None
    """Where its networks go, if not into ``out`` too: variants share what is prepared, and in the folder
    ``stages`` beside it the stages that they have in common."""

    @property
    def record(self) -> dict[str, str]:
        return {"name": self.recipe.name, "version": self.recipe.version, "summary": self.recipe.summary}

    @property
    def networks(self) -> Path:
        """Where its networks, their runs and their scores lie."""
        return self.runs or self.out

    @property
    def held_out_folds(self) -> range:
        """Each is judged by the network that was trained without it."""
        return range(self.recipe.folds) if self.recipe.folds else range(1, 2)

    @property
    def training(self) -> list[Item]:
        """What any network trains on: what is cached."""
        return [i for i, fold in zip(self.items, self.fold_M, strict=True) if self.recipe.folds or not fold]

    @property
    def zoos(self) -> list[Path]:
        """A folder of autoencoders for each fold of the training items."""
        return [self.out / "zoo" / str(fold) for fold in range(max(self.recipe.folds, 1))]

    def folder_of(self, fold: int) -> Path:
        """The network that leaves this fold out, as a model of its own."""
        return self.networks / f"without-{fold}"

    def stage_folder(self, fold: int, number: int) -> Path:
        """Where this stage of a network lies while it is trained."""
        if self.runs is None:
            return self.out / f"fold-{fold}" / f"stage-{number}"
        stages = [stage.to_dict() for stage in self.recipe.stages[:number]]
        return self.runs.parent / "stages" / f"{_digest(stages)}-{fold}"

    def of(self, fold: int) -> list[Item]:
        """The items of a fold."""
        return [item for item, own in zip(self.items, self.fold_M, strict=True) if own == fold]

    def prepare(self, teacher: Path | None) -> None:
        """Semantics, autoencoders and the cache."""
        if all((self.folder_of(fold) / "model.json").exists() for fold in self.held_out_folds):
            return
        _semantics(self.recipe, self.training, self.out, teacher, self.device)
        for number, folder in enumerate(self.zoos):
            if specs := self.recipe.zoo[number :: len(self.zoos)]:
                train_zoo(
                    [item for item in self.of(number) if not item.generated],
                    folder,
                    specs,
                    steps=self.recipe.zoo_steps,
                )
        for stage in self.recipe.stages:
            self.cache(stage)

    def cache(self, stage: TrainConfig) -> CropCache:
        """Of all training items: folds share it, and leave out rows."""
        return build_cache(
            self.training, stage.cache, self.out / "cache", zoos=self.zoos, processes=self.processes
        )

    def train_networks(self) -> None:
        """A network for each fold that is held out; on a CPU several at a time: one fills no two cores."""
        missing = [f for f in self.held_out_folds if not (self.folder_of(f) / "model.json").exists()]
        side_by_side = min(self.processes, len(missing))
        if self.device == "cpu" and side_by_side > 1:
            threads = max(1, (os.cpu_count() or 1) // side_by_side)
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(side_by_side, context, torch.set_num_threads, (threads,)) as pool:
                for fold, loss in zip(missing, pool.map(self.train_network, missing), strict=True):
                    print(f"network without fold {fold}: loss {loss:.3f}", file=sys.stderr)
        else:
            for fold in missing:
                self.train_network(fold, progress=True)

    def train_network(self, fold: int, progress: bool = False) -> float:
        """Train without this fold and write it; the loss of its last steps."""
        tower = _semantics(self.recipe, self.training, self.out, None, self.device)
        trained_on = [own for own in self.fold_M if self.recipe.folds or not own]
        members = [n for n, own in enumerate(trained_on) if own != fold]
        held_out = [n for n, own in enumerate(trained_on) if own == fold]
        start: dict[str, Tensor] | None = None
        for number, stage in enumerate(self.recipe.stages, start=1):
            folder = self.stage_folder(fold, number)
            net = fit(
                replace(stage, seed=stage.seed + fold),
                partial(self.cache, stage),
                members,
                folder,
                held_out=held_out,
                zoos=set(range(len(self.zoos))) - {fold} if self.recipe.folds else None,
                tower=tower,
                start=start,
                device=self.device,
                progress=progress,
            )
            start = net.state_dict()
        write_model(self.folder_of(fold), reconfigured(net, self.recipe.model), UNCALIBRATED, **self.record)
        log = (folder / "log.jsonl").read_text("utf-8")
        losses = [float(json.loads(line)["loss"]) for line in log.splitlines()[-10:] if line]
        return sum(losses) / max(1, len(losses))

    def scores(self) -> list[FileScore]:
        """Of every clip that a network holds out, by that network."""
        return [score for fold in self.held_out_folds for score in self.scores_of(fold, QUICK)]

    def scores_of(self, fold: int, conditions: Sequence[str]) -> list[FileScore]:
        """Of a fold's clips, by the network that was trained without it."""
        return score_conditions(
            self.of(fold),
            conditions,
            self.networks / "scores" / str(fold),
            model=read_model(self.folder_of(fold)),
            device=self.device,
            processes=self.processes,
            fold=str(fold) if self.recipe.folds else "",
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _semantics(
    recipe: Recipe, items: Sequence[Item], out: Path, teacher: Path | None, device: str
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
    if recipe.distill_on == "generated":
        items = [item for item in items if item.generated]
    learn = partial(distill, tower, load_teacher(teacher), collect_scenes(items), device=device)
    seed = recipe.stages[0].seed
    log = learn(steps=recipe.distill_steps, seed=seed, checkpoint=out / "distill.pt")
    if recipe.distill_again:
        log += learn(
            steps=recipe.distill_again,
            forced=0.0,
            learning_rate=AGAIN,
            seed=seed + 1,
            checkpoint=out / "distill-again.pt",
        )
    (out / "distill.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    weights = {key: value.contiguous() for key, value in tower.state_dict().items()}
    save_file(weights, kept)
    return weights
