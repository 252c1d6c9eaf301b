"""Gives the compact semantic tower its semantics: it learns a teacher's features on the pack's frames.

The teacher is an ImageNet ViT of timm's layout; only its features are used, never its tensors. The student is
an open_clip image tower of the same width; after this it is frozen, as the paper's semantic twin is.

A few hundred clips can't teach a whole transformer by its last tokens. They can teach it block by block: at
first every block is fed the teacher's own tokens and learns what the teacher's block makes of them (as in
teacher forcing), hundreds of samples an image; then the tower runs by itself and learns all its layers at
once, so that errors don't add up.

Shape letters: N images, H height, W width, C colours, L tokens (class token first), D width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from specsem.errors import SpecSemError
from specsem.media import read_frames
from specsem.model import motion_image
from specsem.semantic import clip_normalize, embed, layers, tokens_after_layers
from specsem.training.data import Item
from specsem.training.loop import save_whole

__all__ = ["AGAIN", "Scenes", "collect_scenes", "distill", "load_teacher", "teach"]

UInt8 = npt.NDArray[np.uint8]
TEACHER_SIDE = 224
CLASS_TOKEN_WEIGHT = 0.25
FORCED = 0.6
"""Share of the steps in which blocks see the teacher's tokens."""
AGAIN = 1e-3
"""Learning rate of a second cycle, which is end to end from its first step."""


def load_teacher(weights: Path, name: str = "vit_tiny_patch16_224") -> nn.Module:
    """A timm vision transformer with these weights, frozen."""
    teacher: nn.Module = timm.create_model(name, pretrained=False)
    teacher.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    return teacher.eval().requires_grad_(False)


class Scenes:
    """Frames to draw views from: of each a native-resolution part, its motion, and the whole made small.

    All lists hold uint8 (H, W, C) of at least 224 by 224 pixels.
    """

    def __init__(self, native: list[UInt8], motion: list[UInt8], whole: list[UInt8]) -> None:
        self.native, self.motion, self.whole = native, motion, whole

    def views(self, count: int, rng: np.random.Generator) -> Tensor:
        """Random views, (N, H, W, C) uint8 of 224 by 224: as the tower is shown them in serving, and parts.

        Two fifths are native crops, a fifth their motion. In a quarter another view covers a part: more
        neighbourhoods from few scenes.
        """
        views = [self._view(rng) for _ in range(count)]
        for view in views[: count // 4]:
            other = self._view(rng)
            h, w = rng.integers(48, 176, 2)
            y, x = int(rng.integers(TEACHER_SIDE - h)), int(rng.integers(TEACHER_SIDE - w))
            view[y : y + h, x : x + w] = other[y : y + h, x : x + w]
        return torch.from_numpy(np.stack(views))

    def _view(self, rng: np.random.Generator) -> UInt8:
        scene = int(rng.integers(len(self.whole)))
        kind = rng.random()
        if kind < 0.6:
            parts = self.native if kind < 0.4 else self.motion
            view_HWC = _part(parts[scene], TEACHER_SIDE, TEACHER_SIDE, rng)
        else:
            frame_HWC = self.whole[scene]
            share = rng.uniform(0.4, 1.0) if rng.random() < 0.5 else 1.0
            height, width = (max(32, int(side * share**0.5)) for side in frame_HWC.shape[:2])
            view_HWC = _resized(_part(frame_HWC, height, width, rng), TEACHER_SIDE, TEACHER_SIDE)
        return (view_HWC[:, ::-1] if rng.random() < 0.5 else view_HWC).copy()


def collect_scenes(items: Sequence[Item], *, frames: int = 10, seed: int = 0) -> Scenes:
    """``frames`` of each item, evenly spread over its beginning."""
    rng = np.random.default_rng(seed)
    scenes = Scenes([], [], [])
    for item in track(items, "scenes"):
        frames_THWC = read_frames(item.path, max_frames=64)[0]
        for t in np.linspace(0, len(frames_THWC) - 1, frames).round().astype(int):
            frame_HWC, before_HWC = _at_least(frames_THWC[t]), _at_least(frames_THWC[t - 1 if t else 1])
            height, width = frame_HWC.shape[:2]
            side = TEACHER_SIDE + 96
            both_HWC = _part(np.concatenate([frame_HWC, before_HWC], axis=-1), side, side, rng)
            native_HWC, before_HWC = both_HWC[..., :3].copy(), both_HWC[..., 3:]
            scenes.native.append(native_HWC)
            pair_BTHWC = torch.from_numpy(np.stack([before_HWC, native_HWC]))[None]
            motion_CHW = motion_image(pair_BTHWC)[0]
            scenes.motion.append((motion_CHW * 255).round().to(torch.uint8).movedim(0, -1).numpy())
            scale = max(TEACHER_SIDE / min(height, width), min(1.0, 352 / max(height, width)))
            scenes.whole.append(_resized(frame_HWC, round(height * scale), round(width * scale)))
    return scenes


@torch.no_grad()
def teach(teacher: nn.Module, x_NHWC: Tensor, depth: int) -> list[Tensor]:
    """The teacher's tokens before its first block and after each of ``depth`` blocks: each (N, L, D)."""
    tokens: list[Tensor] = []
    blocks = list(teacher.blocks)[:depth]  # type: ignore[arg-type]
    hooks = [blocks[0].register_forward_pre_hook(lambda _block, args: tokens.append(args[0]))]
    hooks += [block.register_forward_hook(lambda _b, _args, out: tokens.append(out)) for block in blocks]
    try:
        teacher.forward_intermediates(  # type: ignore[operator]
            (_unit(x_NHWC) - 0.5) / 0.5, indices=[depth - 1], stop_early=True, intermediates_only=True
        )
    finally:
        for hook in hooks:
            hook.remove()
    return [x_NLD.float() for x_NLD in tokens]


def distill(
    tower: VisionTransformer,
    teacher: nn.Module,
    scenes: Scenes,
    *,
    steps: int,
    batch: int = 32,
    forced: float = FORCED,
    learning_rate: float = 2e-3,
    seed: int = 0,
    held_out: Scenes | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> list[dict[str, float]]:
    """Train the tower's layers to make of an image what the teacher's first layers make of it.

    The tower has the teacher's width and grid, and no more layers. In the first ``forced`` of the steps its
    blocks see the teacher's tokens. Resumes from ``checkpoint``; the tower comes back on the CPU.
    Returns the log: step, loss (share of the teacher's variance that is missed, summed over the layers), and
    on views of the held-out scenes the mean cosine to the teacher's last tokens.

    Raises:
        SpecSemError: the tower's shape is not the teacher's.
    """
    depth = len(list(layers(tower)))
    asked, given = tower.positional_embedding.shape, teacher.pos_embed.shape[1:]  # type: ignore[index]
    if asked != given or depth > len(teacher.blocks):  # type: ignore[arg-type]
        raise SpecSemError(
            f"A tower of {tuple(asked)} (tokens, width) can't learn from one of {tuple(given)}."
        )
    tower.to(device)
    teacher.to(device)
    # Constants may lie far from zero: at the others' rate they would hardly get there.
    constants = [tower.class_embedding, tower.positional_embedding]
    others = [p for p in tower.parameters() if all(p is not constant for constant in constants)]
    groups: list[dict[str, Any]] = [{"params": constants, "weight_decay": 0.0}, {"params": others}]
    optimiser = torch.optim.AdamW(groups)
    rates = [10 * learning_rate, learning_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.05)
    log: list[dict[str, float]] = []
    first = 0
    if checkpoint is not None and checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        tower.load_state_dict(kept["tower"])
        optimiser.load_state_dict(kept["optimiser"])
        schedule.load_state_dict(kept["schedule"])
        first, log = kept["step"], kept["log"]
    tower.train()
    for step in track(range(first, steps), "distil", total=steps - first):
        x_NHWC = scenes.views(batch, np.random.default_rng((seed, step))).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            taught = teach(teacher, x_NHWC, depth)
            missed = list(_losses(tower, x_NHWC, taught, forced=step < forced * steps))
            loss = torch.stack(missed).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(tower.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49 or step + 1 == steps:
            entry = {"step": step + 1.0, "loss": float(loss.detach())}
            if held_out is not None:
                entry["held_out_cosine"] = _cosine(tower, teacher, held_out)
            log.append(entry)
            if checkpoint is not None:
                parts = {"tower": tower, "optimiser": optimiser, "schedule": schedule}
                state = {name: part.state_dict() for name, part in parts.items()}
                save_whole(checkpoint, {**state, "step": step + 1, "log": log})
    tower.eval().to("cpu")
    return log


def _losses(
    tower: VisionTransformer, x_NHWC: Tensor, taught: Sequence[Tensor], *, forced: bool
) -> Iterator[Tensor]:
    """What each layer misses: of the tokens, or where they are given of what the teacher's layer adds."""
    x_NLD = embed(tower, clip_normalize(_unit(x_NHWC)))
    yield _missed(x_NLD.float(), taught[0])
    for number, block in enumerate(layers(tower), start=1):
        before_NLD = taught[number - 1]
        x_NLD = block(before_NLD if forced else x_NLD)
        known_NLD = before_NLD if forced else torch.zeros_like(before_NLD)
        yield _missed(x_NLD.float() - known_NLD, taught[number] - known_NLD)


def _missed(x_NLD: Tensor, wanted_NLD: Tensor) -> Tensor:
    """Squared error in units of each channel's variance, so that no loud channel drowns the others.

    The class token hardly varies in the first layers: there it counts in units of the others' variance.
    """
    error_NLD = (x_NLD - wanted_NLD).square()
    variance_D = wanted_NLD[:, 1:].var((0, 1)).clamp_min(1e-6)
    places = (error_NLD[:, 1:] / variance_D).mean()
    whole = (error_NLD[:, 0] / (wanted_NLD[:, 0].var(0) + 0.25 * variance_D)).mean()
    return places + CLASS_TOKEN_WEIGHT * whole


@torch.inference_mode()
def _cosine(tower: VisionTransformer, teacher: nn.Module, scenes: Scenes) -> float:
    """Of the last tokens, places only, each centred on its mean over the images."""
    x_NHWC = scenes.views(24, np.random.default_rng(0)).to(tower.positional_embedding.device)
    wanted_NLD = teach(teacher, x_NHWC, len(list(layers(tower))))[-1]
    x_NLD = tokens_after_layers(tower, _unit(x_NHWC))[-1]
    mean_D, std_D = wanted_NLD[:, 1:].mean((0, 1)), wanted_NLD[:, 1:].std((0, 1))
    ours_NLD, theirs_NLD = ((tokens_NLD[:, 1:] - mean_D) / std_D for tokens_NLD in (x_NLD, wanted_NLD))
    return float(F.cosine_similarity(ours_NLD, theirs_NLD, dim=-1).mean())


def _unit(x_NHWC: Tensor) -> Tensor:
    return x_NHWC.movedim(-1, 1).float() / 255


def _part(frame_HWC: UInt8, height: int, width: int, rng: np.random.Generator) -> UInt8:
    """A random part of this size, or as much of it as there is."""
    height, width = min(height, frame_HWC.shape[0]), min(width, frame_HWC.shape[1])
    y = int(rng.integers(frame_HWC.shape[0] - height + 1))
    x = int(rng.integers(frame_HWC.shape[1] - width + 1))
    return frame_HWC[y : y + height, x : x + width]


def _at_least(frame_HWC: UInt8) -> UInt8:
    height, width = frame_HWC.shape[:2]
    scale = TEACHER_SIDE / min(height, width)
    return _resized(frame_HWC, round(height * scale), round(width * scale)) if scale > 1 else frame_HWC


def _resized(frame_HWC: UInt8, height: int, width: int) -> UInt8:
    return np.asarray(Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.BICUBIC))
