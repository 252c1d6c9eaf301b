"""``specsem train``: a plain PyTorch loop that runs on a CPU or a GPU unchanged, and resumes after a kill.

Shape letters: B samples, T frames, N = 1 crop, S side of the crop, C colours.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, WeightedRandomSampler

from specsem.model import SpecSemConfig, SpecSemNet
from specsem.training.data import CacheSpec, CropCache, balanced_weights

__all__ = ["TrainConfig", "fit"]


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
    train_only: tuple[str, ...] = ()
    """Beginnings of the names of parameters that are trained; empty: all but the semantic tower."""
    seed: int = 0
    mixed_precision: bool = True
    checkpoint_every_s: float = 60.0

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
    ema: AveragedModel
    optimiser: torch.optim.Optimizer
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        payload = {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "log": self.log,
        }
        partial = path.with_suffix(".partial")
        torch.save(payload, partial)
        partial.replace(path)  # a kill leaves the old one or the new one, never half of one

    def load(self, path: Path, device: torch.device) -> None:
        payload = torch.load(path, map_location=device, weights_only=True)
        self.net.load_state_dict(payload["net"])
        self.ema.load_state_dict(payload["ema"])
        self.optimiser.load_state_dict(payload["optimiser"])
        self.step, self.log = payload["step"], payload["log"]


def fit(
    config: TrainConfig,
    cache: CropCache | Callable[[], CropCache],
    members: Sequence[int],
    out: Path,
    *,
    tower: dict[str, Tensor] | None = None,
    start: dict[str, Tensor] | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: bool = True,
) -> SpecSemNet:
    """Train on the cached samples of these items; returns the averaged (EMA) network.

    ``cache`` may be a function that makes it: then a finished run needs none.
    ``tower``: weights of the semantic tower, which stay as they are. ``start``: weights of an earlier stage;
    what it lacks (gates) or doesn't share stays as initialised. ``out`` receives ``last.pt`` (resumed
    from when it is there) and ``log.jsonl``.
    """
    torch.manual_seed(config.seed)
    place = torch.device(device)
    net = SpecSemNet(config.model)
    if start is not None:
        mine = net.state_dict()
        shared = {
            key: value for key, value in start.items() if key in mine and value.shape == mine[key].shape
        }
        net.load_state_dict(shared, strict=False)
    if tower is not None:
        net.semantic.load_state_dict(tower)
    if config.train_only:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name.startswith(config.train_only))
    net = net.to(place).to(memory_format=torch.channels_last)
    state = _State(
        net,
        AveragedModel(
            net,
            multi_avg_fn=get_ema_multi_avg_fn(config.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        ),
        torch.optim.AdamW(_decay_groups(net, config.weight_decay), lr=config.learning_rate),
    )
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "last.pt"
    if checkpoint.exists():
        state.load(checkpoint, place)

    net.train()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    saved = time.monotonic()
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task(out.name, total=config.steps, completed=state.step, loss="")
        for batch in _batches(config, cache, members, state.step, workers):
            for group in state.optimiser.param_groups:
                group["lr"] = config.learning_rate * _schedule(state.step / config.steps)
            loss = _step(state, batch, config, place)
            state.step += 1
            if state.step % 20 == 0:
                state.log.append({"step": state.step, "loss": loss})
            recent = np.mean([entry["loss"] for entry in state.log[-10:]] or [loss])
            bar.update(task, advance=1, loss=f"loss {recent:.3f}")
            if time.monotonic() - saved > config.checkpoint_every_s:
                state.save(checkpoint)
                saved = time.monotonic()
    state.save(checkpoint)
    lines = [json.dumps(entry) for entry in state.log]
    (out / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    averaged = state.ema.module
    return cast("SpecSemNet", averaged.eval())


def _step(state: _State, batch: dict[str, Tensor], config: TrainConfig, place: torch.device) -> float:
    crops_BTNSSC, box_BN4 = _augment(batch["crops"], batch["box"], config.crop_side, config.frames)
    frame_BTHWC = batch["frames"]
    label_B = batch["label"].to(place)
    target_B = label_B * (1 - config.label_smoothing) + config.label_smoothing / 2
    with _precision(place, config.mixed_precision):
        logit_B = state.net(crops_BTNSSC.to(place), frame_BTHWC.to(place), box_BN4.to(place))
    loss = F.binary_cross_entropy_with_logits(logit_B.float(), target_B)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.net.parameters(), config.gradient_clip)
    state.optimiser.step()
    state.ema.update_parameters(state.net)
    return float(loss.detach())


def _augment(crops_BTSSC: Tensor, box_B4: Tensor, side: int, frames: int) -> tuple[Tensor, Tensor]:
    """A random crop, flip and run of each sample: (B, T, 1, side, side, C), and its boxes (B, 1, 4)."""
    full = crops_BTSSC.shape[2]
    crops, boxes = [], []
    for crop_TSSC, box in zip(crops_BTSSC, box_B4, strict=True):
        y, x = (int(v) for v in torch.randint(0, full - side + 1, (2,)))
        first = int(torch.randint(0, len(crop_TSSC) - frames + 1, ()))
        part = crop_TSSC[first : first + frames, y : y + side, x : x + side]
        x0, y0, x1, y1 = box
        w, h = (x1 - x0) / full, (y1 - y0) / full
        place = torch.stack([x0 + w * x, y0 + h * y, x0 + w * (x + side), y0 + h * (y + side)])
        if torch.rand(()) < 0.5:  # the box is mirrored too, so that the gate looks at the same things
            part, place = part.flip(2), place[[2, 1, 0, 3]]
        crops.append(part)
        boxes.append(place)
    return torch.stack(crops)[:, :, None], torch.stack(boxes)[:, None]


def _batches(
    config: TrainConfig,
    cache: CropCache | Callable[[], CropCache],
    members: Sequence[int],
    first: int,
    workers: int,
) -> Iterator[dict[str, Tensor]]:
    """The remaining batches. Items are drawn with balanced odds, then one of their cached samples."""
    if first >= config.steps:
        return
    cache = cache if isinstance(cache, CropCache) else cache()
    weights = balanced_weights([cache.items[i] for i in members])
    per_item = len(cache.rows_of(0))
    generator = torch.Generator().manual_seed(config.seed * 100_003 + first)
    rows = [row for i in members for row in cache.rows_of(i)]
    count = (config.steps - first) * config.batch
    sampler = WeightedRandomSampler(np.repeat(weights, per_item).tolist(), count, True, generator)
    subset: torch.utils.data.Dataset[dict[str, Tensor]] = torch.utils.data.Subset(cache, rows)
    yield from DataLoader(subset, config.batch, sampler=sampler, num_workers=workers)


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
