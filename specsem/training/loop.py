"""``specsem train``: a plain PyTorch loop that runs on a CPU or a GPU unchanged, and resumes after a kill.

Shape letters: B samples, G groups, m members of a group, T frames, N = 1 crop, S side of the crop, C colours,
D feature width.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from specsem.model import SpecSemConfig, SpecSemNet
from specsem.training.aggregate import aggregate_risk, weights_any, weights_count
from specsem.training.aligned import contrastive_loss
from specsem.training.batches import Batch, Observed, Rows, augment, batches, held_out_rows
from specsem.training.cache import CacheSpec, CropCache, SemanticCache

__all__ = ["TrainConfig", "fit", "group_loss", "save_whole"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that fixes a training run beside the data."""

    model: SpecSemConfig
    cache: CacheSpec = field(default_factory=CacheSpec)
    steps: int = 1500
    batch: int = 24
    crop_side: int = 128
    """Random crops of the cached crops: fewer pixels than in serving, which a convolutional branch allows."""
    frames: int = 8
    """Frames of a sample that are used, a random run of them."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.02
    ema: float = 0.995
    gradient_clip: float = 1.0
    tower: Literal["given", "untrained"] = "given"
    """``untrained``: the semantic tower has fresh weights, to see what those that were learned are worth."""
    train_only: tuple[str, ...] = ()
    """Parts of the net that are trained, e.g. ``merging``; empty: all but the semantic tower."""
    seed: int = 0
    cache_semantics: bool = False
    """Keep what the frozen semantic tower says of each cached sample: it is asked once, not in every step."""
    mixed_precision: bool = True
    checkpoint_every_s: float = 60.0
    aligned: float = 0.0
    """Share of the generated half that are aligned fakes of the camera samples beside them (method, 2,
    finding 2); the cache must hold twins."""
    contrastive: float = 0.0
    """Weight of the paired contrastive term (finding 6)."""
    masks: float = 0.0
    """Share of the samples that lose some of their frequencies."""
    attribution: float = 0.0
    """Weight of telling sources apart, by a linear head that is thrown away afterwards."""
    observed: Observed = "labels"
    """What is known of the labels (method, section 3)."""
    group: int = 8
    """Members of a group, where ``observed`` is not ``labels``."""
    warm_up: float = 0.2
    """Share of the steps before the model's own posterior weights the members of a group."""
    validate_every: int = 0
    """Steps between looks at the sources that are held out; 0: none."""
    patience: int = 0
    """Looks without a better AUC of unseen generators after which training stops; 0: it doesn't."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainConfig":
        """As read from JSON."""
        model = SpecSemConfig.from_dict(fields["model"])
        cache = CacheSpec(**fields.get("cache", {}))
        only = tuple(fields.get("train_only", ()))
        return cls(**{**fields, "model": model, "cache": cache, "train_only": only})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class _State:
    net: SpecSemNet
    attribution: nn.Linear
    ema: AveragedModel
    optimiser: torch.optim.Optimizer
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    best_auc: float = 0.0
    best_step: int = 0
    semantics: SemanticCache | None = None

    @property
    def averaged(self) -> SpecSemNet:
        return cast("SpecSemNet", self.ema.module)

    def save(self, path: Path) -> None:
        payload = {
            "net": self.net.state_dict(),
            "attribution": self.attribution.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "log": self.log,
            "best": (self.best_auc, self.best_step),
        }
        save_whole(path, payload)

    def load(self, path: Path, device: torch.device) -> None:
        payload = torch.load(path, map_location=device, weights_only=True)
        self.net.load_state_dict(payload["net"])
        self.attribution.load_state_dict(payload["attribution"])
        self.ema.load_state_dict(payload["ema"])
        self.optimiser.load_state_dict(payload["optimiser"])
        self.step, self.log = payload["step"], payload["log"]
        self.best_auc, self.best_step = payload["best"]


def save_whole(path: Path, payload: Any) -> None:
    """Write a checkpoint in place of the one before."""
    partial = path.with_suffix(".partial")
    torch.save(payload, partial)
    partial.replace(path)  # a kill leaves the old one or the new one, never half of one


def fit(
    config: TrainConfig,
    cache: CropCache | Callable[[], CropCache],
    members: Sequence[int],
    out: Path,
    *,
    held_out: Sequence[int] = (),
    zoos: Set[int] | None = None,
    tower: dict[str, Tensor] | None = None,
    start: dict[str, Tensor] | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: bool = True,
) -> SpecSemNet:
    """Train on the cached samples of these items; returns the averaged (EMA) network.

    ``cache`` may be a function that makes it: then a finished run needs none.
    ``held_out``: items of other generators and cameras, for ``validate_every``; with ``patience`` the best of
    them is returned. ``zoos``: whose aligned fakes may be used; none: all.
    ``tower``: weights of the semantic tower, which stay as they are. ``start``: weights of an earlier stage;
    what it lacks (gates) or doesn't share stays as initialised. ``out`` receives ``last.pt`` (resumed
    from when it is there), ``best.pt``, ``log.jsonl`` and TensorBoard's events.
    """
    out.mkdir(parents=True, exist_ok=True)
    finished = out / "final.pt"
    net = _begin(config, tower, start)
    if finished.exists():
        net.load_state_dict(torch.load(finished, map_location="cpu", weights_only=True))
        return net.to(device).eval()
    cache = cache if isinstance(cache, CropCache) else cache()
    rows = Rows(
        cache,
        members,
        batch=config.batch,
        observed=config.observed,
        group=config.group,
        aligned=config.aligned,
        zoos=zoos,
        seed=config.seed,
    )
    place = torch.device(device)
    state = _ready(net, rows.class_count, config, place)
    if config.cache_semantics and config.model.merging != "spectral-only":
        state.semantics = SemanticCache(cache, _key(net.semantic))
    checkpoint = out / "last.pt"
    if checkpoint.exists():
        state.load(checkpoint, place)

    state.net.train()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    saved = time.monotonic()
    with (
        SummaryWriter(str(out / "tensorboard"), purge_step=state.step) as board,
        Progress(*columns, disable=not progress) as bar,
    ):
        task = bar.add_task(out.name, total=config.steps, completed=state.step, loss="")
        for batch in batches(rows, range(state.step, config.steps), workers=workers):
            for group in state.optimiser.param_groups:
                group["lr"] = config.learning_rate * _schedule(state.step / config.steps)
            parts = _step(state, batch, config, place)
            state.step += 1
            if state.step % 20 == 0:
                state.log.append({"step": state.step, **parts})
                for name, value in parts.items():
                    board.add_scalar(f"train/{name}", value, state.step)
                board.add_scalar("train/learning_rate", state.optimiser.param_groups[0]["lr"], state.step)
            recent = np.mean([entry["loss"] for entry in state.log[-10:]] or [parts["loss"]])
            bar.update(task, advance=1, loss=f"loss {recent:.3f}")
            if held_out and config.validate_every and state.step % config.validate_every == 0:
                auc = _validate(state, cache, held_out, config, place)
                board.add_scalar("held out/auc", auc, state.step)
                state.log.append({"step": state.step, "loss": parts["loss"], "held_out_auc": auc})
                if auc > state.best_auc:
                    state.best_auc, state.best_step = auc, state.step
                    save_whole(out / "best.pt", state.averaged.state_dict())
                elif (
                    config.patience
                    and state.step - state.best_step >= config.patience * config.validate_every
                ):
                    break
            if time.monotonic() - saved > config.checkpoint_every_s:
                state.save(checkpoint)
                saved = time.monotonic()
    state.save(checkpoint)
    lines = [json.dumps(entry) for entry in state.log]
    (out / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    averaged = state.averaged
    if config.patience and (out / "best.pt").exists():
        averaged.load_state_dict(torch.load(out / "best.pt", map_location=place, weights_only=True))
    save_whole(finished, averaged.state_dict())
    return averaged.eval()


def _begin(
    config: TrainConfig, tower: dict[str, Tensor] | None, start: dict[str, Tensor] | None
) -> SpecSemNet:
    torch.manual_seed(config.seed)
    net = SpecSemNet(config.model)
    anew = config.tower == "untrained"
    if start is not None:
        mine = net.state_dict()
        shared = {
            key: value
            for key, value in start.items()
            if key in mine and value.shape == mine[key].shape and not (anew and key.startswith("semantic."))
        }
        net.load_state_dict(shared, strict=False)
    if tower is not None and not anew:
        net.semantic.load_state_dict(tower)
    if config.train_only:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(any(part in name.split(".") for part in config.train_only))
    return net


def _ready(net: SpecSemNet, classes: int, config: TrainConfig, place: torch.device) -> _State:
    net = net.to(place).to(memory_format=torch.channels_last)
    attribution = nn.Linear(net.feature_width, classes).to(place)
    ema = AveragedModel(
        net,
        multi_avg_fn=get_ema_multi_avg_fn(config.ema),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    groups = _decay_groups(net, config.weight_decay)
    if config.attribution:
        groups += _decay_groups(attribution, config.weight_decay)
    return _State(net, attribution, ema, torch.optim.AdamW(groups, lr=config.learning_rate))


def _step(state: _State, batch: Batch, config: TrainConfig, place: torch.device) -> dict[str, float]:
    """One step; the parts of its loss."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
    crops_BTNSSC, box_BN4 = augment(
        batch, side=config.crop_side, frames=config.frames, masks=config.masks, generator=generator
    )
    label_B = batch["label"].to(place)
    frames_BTHWC = batch["frames"].to(place)
    with _precision(place, config.mixed_precision):
        semantics = None
        if state.semantics is not None:
            kept = state.semantics.look(batch["row"].tolist(), frames_BTHWC, state.net.look)
            semantics = [layer.to(place) for layer in kept]
        said = state.net.judge(crops_BTNSSC.to(place), frames_BTHWC, box_BN4.to(place), semantics=semantics)
        source_BK = state.attribution(said.features_BD).float() if config.attribution else None
    logit_B = said.logit_B.float()
    parts = {"loss": _label_loss(logit_B, label_B, config, state.step / config.steps)}
    if source_BK is not None:
        parts["attribution"] = F.cross_entropy(source_BK, batch["source"].to(place))
    if config.contrastive:
        parts["contrastive"] = contrastive_loss(said.features_BD, label_B, batch["pair"].to(place))
    total = parts["loss"]
    for name in ("attribution", "contrastive"):
        if name in parts:
            total = total + getattr(config, name) * parts[name]
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.net.parameters(), config.gradient_clip)
    state.optimiser.step()
    state.ema.update_parameters(state.net)
    return {name: float(part.detach()) for name, part in parts.items()}


def _key(tower: nn.Module) -> str:
    """Names a tower by its weights."""
    digest = hashlib.sha256()
    for value in tower.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _label_loss(logit_B: Tensor, label_B: Tensor, config: TrainConfig, done: float) -> Tensor:
    """Cross-entropy with what is known of the labels."""
    smoothing = config.label_smoothing
    if config.observed == "labels":
        target_B = label_B * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logit_B, target_B)
    logit_Gm, label_Gm = logit_B.reshape(-1, config.group), label_B.reshape(-1, config.group)
    return group_loss(logit_Gm, label_Gm, config.observed, naive=done < config.warm_up)


def group_loss(logit_Gm: Tensor, label_Gm: Tensor, observed: Observed, *, naive: bool = False) -> Tensor:
    """The risk of what is observed of each group (``any``, ``count``), unbiased, or naive: every member is
    given what the group tells. ``mean`` is the naive one of a count. The labels make the observation only."""
    count_G = label_Gm.sum(-1)
    if observed == "mean" or naive:
        told_G = (count_G > 0).float() if observed == "any" else count_G / label_Gm.shape[-1]
        return F.binary_cross_entropy_with_logits(logit_Gm, told_G[:, None].expand_as(logit_Gm))
    weights = (
        weights_any(logit_Gm, count_G > 0) if observed == "any" else weights_count(logit_Gm, count_G.long())
    )
    w_GmK = weights.w_GmK.to(logit_Gm.dtype)
    return aggregate_risk(torch.stack([F.softplus(logit_Gm), F.softplus(-logit_Gm)], dim=-1), w_GmK)


@torch.no_grad()
def _validate(
    state: _State, cache: CropCache, held_out: Sequence[int], config: TrainConfig, place: torch.device
) -> float:
    """AUC of the averaged network on clips of sources that it never saw: a mean logit each."""
    net = state.averaged.eval()
    rows = held_out_rows(cache, held_out)
    logits = []
    for samples in rows:
        batch = [cache[row] for row in samples]
        crops, frames, boxes = (torch.stack([s[key] for s in batch]) for key in ("crops", "frames", "box"))
        with _precision(place, config.mixed_precision):
            logit_B = net(
                crops[:, : config.frames, None].to(place), frames.to(place), boxes[:, None].to(place)
            )
        logits.append(float(logit_B.float().mean()))
    return float(roc_auc_score([cache.items[i].generated for i in held_out], logits))


def _schedule(done: float) -> float:
    """Warm-up over the first 5%, then a cosine to 2%."""
    if done < 0.05:
        return done / 0.05 + 0.01
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))


def _precision(place: torch.device, mixed: bool) -> AbstractContextManager[Any]:
    return torch.autocast(place.type, torch.bfloat16, enabled=mixed)


def _decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Norms, biases and positions are not decayed; frozen parameters are not there at all."""
    trained = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
