"""Gives the compact semantic tower its semantics: it learns a teacher's features on the pack's frames.

The teacher is an ImageNet ViT of timm's layout; only its features are used, never its tensors. The student is
an open_clip image tower of our own config; after this it is frozen, as the paper's semantic twin is.

Shape letters: N images, H height, W width, C colours, P places (patches), D width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from open_clip.transformer import VisionTransformer
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from specsem.media import read_frames
from specsem.semantic import CLIP_MEAN, CLIP_STD, embed, layers
from specsem.training.data import Item

__all__ = ["Views", "distill", "load_teacher", "make_views", "tokens"]

UInt8 = npt.NDArray[np.uint8]
TEACHER_SIDE = 224


def load_teacher(weights: Path, name: str = "vit_tiny_patch16_224") -> nn.Module:
    """A timm vision transformer with these weights, frozen."""
    teacher: nn.Module = timm.create_model(name, pretrained=False)
    teacher.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    return teacher.eval().requires_grad_(False)


class Views:
    """Images beside what the teacher sees in them.

    ``image_NHWC`` uint8 at the student's side; ``places_NPD`` float16, the teacher's tokens averaged to the
    student's grid; ``whole_ND`` float16, its class token.
    """

    def __init__(self, image_NHWC: Tensor, places_NPD: Tensor, whole_ND: Tensor) -> None:
        self.image_NHWC = image_NHWC
        self.places_NPD = places_NPD
        self.whole_ND = whole_ND


@torch.inference_mode()
def make_views(
    items: Sequence[Item],
    teacher: nn.Module,
    *,
    side: int,
    grid: int,
    frames: int = 6,
    crops: int = 4,
    seed: int = 0,
) -> Views:
    """``crops`` random views (the first is the whole frame) of ``frames`` frames of each item."""
    rng = np.random.default_rng(seed)
    images, places, whole = [], [], []
    for item in track(items, "views"):
        views_NCHW = torch.stack(list(_views_of(item, frames, crops, rng)))
        features_NLD = teacher.forward_features((views_NCHW / 255 - 0.5) / 0.5)  # type: ignore[operator]
        map_NDhw = features_NLD[:, 1:].transpose(1, 2).reshape(len(views_NCHW), -1, 14, 14)
        places.append(F.adaptive_avg_pool2d(map_NDhw, grid).flatten(2).transpose(1, 2).half())
        whole.append(features_NLD[:, 0].half())
        small_NCHW = F.interpolate(views_NCHW, (side, side), mode="area")
        images.append(small_NCHW.round().to(torch.uint8).movedim(1, -1))
    return Views(torch.cat(images), torch.cat(places), torch.cat(whole))


def tokens(tower: VisionTransformer, image_NHWC: Tensor) -> Tensor:
    """The tower's last tokens, normalised as the merging layers see them: (N, 1 + P, D)."""
    x_NCHW = image_NHWC.movedim(-1, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    x_NLD = embed(tower, (x_NCHW - mean) / std)
    for block in layers(tower):
        x_NLD = block(x_NLD)
    normed_NLD: Tensor = F.layer_norm(x_NLD, x_NLD.shape[-1:])
    return normed_NLD


def distill(
    tower: VisionTransformer,
    views: Views,
    *,
    steps: int,
    batch: int = 96,
    learning_rate: float = 1e-3,
    seed: int = 0,
    held_out: Views | None = None,
) -> list[dict[str, float]]:
    """Train the tower to name what the teacher names: 1 - cosine, place by place and for the whole image.

    Returns the log: step, loss, and the mean cosine on the held-out views.
    """
    generator = torch.Generator().manual_seed(seed)
    width = views.whole_ND.shape[-1]
    to_teacher = nn.Linear(tower.positional_embedding.shape[-1], width)  # thrown away afterwards
    parameters: list[nn.Parameter] = [*tower.parameters(), *to_teacher.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    log: list[dict[str, float]] = []
    tower.train()
    for step in track(range(steps), "distil"):
        index = torch.randint(len(views.image_NHWC), (batch,), generator=generator)
        image_NHWC = views.image_NHWC[index]
        places_NPD = views.places_NPD[index].float()
        if torch.rand((), generator=generator) < 0.5:
            grid = round(places_NPD.shape[1] ** 0.5)
            image_NHWC = image_NHWC.flip(2)
            places_NPD = places_NPD.reshape(batch, grid, grid, -1).flip(2).flatten(1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            predicted_NLD = to_teacher(tokens(tower, image_NHWC))
        loss = _loss(predicted_NLD.float(), places_NPD, views.whole_ND[index].float())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99 or step + 1 == steps:
            entry = {"step": step + 1.0, "loss": float(loss)}
            if held_out is not None:
                entry["held_out_cosine"] = _cosine(tower, to_teacher, held_out)
            log.append(entry)
    tower.eval()
    return log


def _loss(predicted_NLD: Tensor, places_NPD: Tensor, whole_ND: Tensor) -> Tensor:
    whole = 1 - F.cosine_similarity(predicted_NLD[:, 0], whole_ND, dim=-1).mean()
    places = 1 - F.cosine_similarity(predicted_NLD[:, 1:], places_NPD, dim=-1).mean()
    total: Tensor = whole + places
    return total


@torch.inference_mode()
def _cosine(tower: VisionTransformer, to_teacher: nn.Module, views: Views) -> float:
    tower.eval()
    predicted_NLD = to_teacher(tokens(tower, views.image_NHWC))
    places = F.cosine_similarity(predicted_NLD[:, 1:], views.places_NPD.float(), dim=-1).mean()
    tower.train()
    return float(places)


def _views_of(item: Item, frames: int, crops: int, rng: np.random.Generator) -> Iterator[Tensor]:
    frames_THWC = read_frames(item.path, max_frames=64)[0]
    for t in np.linspace(0, len(frames_THWC) - 1, frames).round().astype(int):
        for crop in range(crops):
            yield _view(frames_THWC[t], rng if crop else None)


def _view(frame_HWC: UInt8, rng: np.random.Generator | None) -> Tensor:
    """The whole frame, squashed to a square, or a random part of it: (C, H, W) float32 0..255."""
    height, width = frame_HWC.shape[:2]
    if rng is not None:
        share, ratio = rng.uniform(0.15, 0.9), np.exp(rng.uniform(-0.3, 0.3))
        h = min(height, int((height * width * share / ratio) ** 0.5))
        w = min(width, int((height * width * share * ratio) ** 0.5))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        frame_HWC = frame_HWC[y : y + h, x : x + w]
    x_1CHW = torch.from_numpy(np.ascontiguousarray(frame_HWC)).movedim(-1, 0)[None].float()
    sized: Any = F.interpolate(x_1CHW, (TEACHER_SIDE, TEACHER_SIDE), mode="bilinear", antialias=True)
    view_CHW: Tensor = sized[0].clamp(0, 255)
    return view_CHW
