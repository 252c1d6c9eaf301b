"""Fakes of our own making: reals through small autoencoders, so that content and compression match.

A detector that sees a real beside its own reconstruction can only tell them apart by what a decoder leaves
behind (method, section 2, finding 2). The autoencoders are trained here, on the reals of the training fold
alone; the caller must encode both of a pair alike. Beside them: the low-band swap (finding 3), frequency
masking, a resampling trace that needs no training, and the paired contrastive term (finding 6).

Shape letters: N clips or flattened frames, B batch, C colours or channels, T frames, H height, W width,
w width of a half spectrum, D feature width, Z latent channels; lower case t, h, w of a latent: squeezed.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from specsem.media import read_frames
from specsem.training.data import Item

__all__ = [
    "DEFAULT_ZOO",
    "Autoencoder",
    "AutoencoderSpec",
    "contrastive_loss",
    "draw_clips",
    "load_zoo",
    "mask_frequencies",
    "psnr",
    "reconstruct",
    "swap_low_band",
    "train_autoencoder",
    "train_zoo",
    "upsampling_trace",
]

UInt8 = npt.NDArray[np.uint8]
Upsampling = Literal["nearest", "bilinear", "transposed", "shuffle"]

MARGIN = 8
"""Pixels mirrored around what is reconstructed, so that the borders' zero padding stays outside the crop."""
CHUNK_PIXELS = 2**19
"""Pixels that pass at once: more only falls out of the processor's cache."""


@dataclass(frozen=True, slots=True)
class AutoencoderSpec:
    """One autoencoder: what its decoder upsamples with, and how much it squeezes."""

    upsample: Upsampling = "nearest"
    factor: Literal[4, 8] = 4
    """Pixels a side that one latent stands for."""
    squeeze: Literal[1, 2, 4] = 1
    """Frames that one latent stands for; over 1 the convolutions reach over time, as in video VAEs."""
    latent: int = 8
    """Channels of the latent, the first three of them a thumbnail."""
    width: int = 16
    """Channels at full resolution; they double as the sides halve."""
    noise: float = 0.05
    """Deviation of the noise on the latent in training, in place of a VAE's sampling."""
    seed: int = 0

    @property
    def temporal(self) -> bool:
        """Whether it reaches over time."""
        return self.squeeze > 1

    @property
    def name(self) -> str:
        """Its file's name: ``nearest-f4``, ``shuffle-f8-t4``, ``nearest-f4-s1``."""
        time = f"-t{self.squeeze}" if self.temporal else ""
        return f"{self.upsample}-f{self.factor}{time}" + (f"-s{self.seed}" if self.seed else "")


DEFAULT_ZOO = (
    AutoencoderSpec("nearest", 4),
    AutoencoderSpec("shuffle", 8, latent=24),
    AutoencoderSpec("nearest", 8, squeeze=4, latent=48),
    AutoencoderSpec("transposed", 4),
    AutoencoderSpec("shuffle", 4, squeeze=2, latent=12),
    AutoencoderSpec("bilinear", 8, latent=24),
    AutoencoderSpec("transposed", 8, squeeze=2, latent=32),
    AutoencoderSpec("bilinear", 4),
)
"""All four decoders at both factors, three of them over time; the most different ones first."""


class Autoencoder(nn.Module):
    """Convolutions without normalisation: brightness passes as it is, and a crop as its frame would.

    Over time it reaches at the latent and wherever frames are squeezed or spread again. The latent begins
    with a thumbnail (plain averages), which the decoder refines, and the rest of it starts from a cosine
    transform: there is detail to decode from the first step on, and a short training goes far.
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.spec = spec
        levels = spec.factor.bit_length() - 1
        widths = [spec.width * 2**level for level in range(levels + 1)]
        # The deepest levels squeeze time.
        steps = [2 if level >= levels - (spec.squeeze.bit_length() - 1) else 1 for level in range(levels)]
        temporal = spec.temporal

        encoder: list[nn.Module] = [_down(3, widths[1], steps[0])]
        for level in range(1, levels):
            encoder += [nn.LeakyReLU(0.1), _down(widths[level], widths[level + 1], steps[level])]
        encoder += [
            _Half(widths[-1], temporal),
            nn.LeakyReLU(0.1),
            _conv(widths[-1], spec.latent - 3, temporal),
        ]
        self.encoder = nn.Sequential(*encoder)
        patch = (spec.squeeze, spec.factor, spec.factor)
        self.project = nn.Conv3d(3, spec.latent - 3, patch, stride=patch, bias=False)

        decoder: list[nn.Module] = [_conv(spec.latent, widths[-1], temporal), _Block(widths[-1], temporal)]
        for level in reversed(range(levels)):
            decoder.append(_Upsample(spec.upsample, widths[level + 1], widths[level], steps[level]))
            decoder.append(_Block(widths[level]) if level else _Half(widths[level]))
        decoder += [nn.LeakyReLU(0.1), _conv(widths[0], 3, temporal=False)]
        self.decoder = nn.Sequential(*decoder)
        self._initialise()

    def _initialise(self) -> None:
        """Weights of a size that keeps the signal's, blocks that begin as nothing, and a latent of cosines.

        It is the cosines that got nearest-f8-t4 off its thumbnail; the weights' size alone did not.
        """
        for module in self.modules():
            if (
                isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and module.weight.any()
            ):  # blocks end in zeros
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                taps = math.prod(module.kernel_size)
                if isinstance(module, nn.ConvTranspose3d):
                    taps //= math.prod(module.stride)  # the others fall between its outputs
                nn.init.normal_(module.weight, std=(1 / (module.in_channels * taps)) ** 0.5)
        with torch.no_grad():
            # Nearly right from the start are the projection below in the latent and the thumbnail at the end.
            for end in (self.encoder[-1], self.decoder[-1]):
                for parameter in end.parameters():
                    parameter.mul_(0.1)
            waves_Zthw = _cosines(self.spec)
            self.project.weight.zero_()
            self.project.weight[: len(waves_Zthw)] = waves_Zthw[:, None]

    def forward(self, x_BCTHW: Tensor, noise: Tensor | None = None) -> Tensor:
        """The reconstruction; sides and frames must be multiples of ``factor`` and ``squeeze``, values -1..1.

        ``noise``: standard normal of :meth:`latent_shape`, scaled by the spec and added beside the thumbnail.
        """
        step = (self.spec.squeeze, self.spec.factor, self.spec.factor)
        thumb_B3thw = F.avg_pool3d(x_BCTHW, step)
        z_BCthw: Tensor = self.encoder(x_BCTHW) + self.project(x_BCTHW)
        if noise is not None:
            z_BCthw = z_BCthw + self.spec.noise * noise[:, 3:]
        y_BCTHW: Tensor = self.decoder(torch.cat([thumb_B3thw.to(z_BCthw.dtype), z_BCthw], dim=1))
        return y_BCTHW + F.interpolate(thumb_B3thw, x_BCTHW.shape[2:], mode="trilinear")

    def latent_shape(self, x_BCTHW: Tensor) -> tuple[int, ...]:
        """The shape of these frames' latent."""
        batch, _, frames, height, width = x_BCTHW.shape
        factor = self.spec.factor
        return batch, self.spec.latent, frames // self.spec.squeeze, height // factor, width // factor


def _bend(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)  # SiLU took a fifth of the time


def _cosines(spec: AutoencoderSpec) -> Tensor:
    """The lowest cosines over a latent's frames and pixels, the mean left out: (Z at most, t, h, w)."""
    sides = (spec.squeeze, spec.factor, spec.factor)
    orders = [(t, y, x) for t in range(sides[0]) for y in range(sides[1]) for x in range(sides[2])]
    orders.sort(
        key=lambda order: 9 * order[0] ** 2 + order[1] ** 2 + order[2] ** 2
    )  # most of video stands still
    waves = []
    for order in orders[1 : spec.latent - 2]:
        t, y, x = (
            torch.cos(math.pi * k * (torch.arange(side) + 0.5) / side)
            for k, side in zip(order, sides, strict=True)
        )
        wave_thw = t[:, None, None] * y[:, None] * x
        waves.append(wave_thw / wave_thw.norm())
    return torch.stack(waves)


class _Block(nn.Module):
    def __init__(self, width: int, temporal: bool = False) -> None:
        super().__init__()
        self.first = _conv(width, width, temporal)
        self.second = _conv(width, width, temporal=False)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        y_BCTHW: Tensor = self.second(_bend(self.first(_bend(x_BCTHW))))
        return x_BCTHW + y_BCTHW


class _Half(nn.Module):
    """One convolution beside the identity: a block where cost counts."""

    def __init__(self, width: int, temporal: bool = False) -> None:
        super().__init__()
        self.conv = _conv(width, width, temporal)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        y_BCTHW: Tensor = self.conv(_bend(x_BCTHW))
        return x_BCTHW + y_BCTHW


class _Upsample(nn.Module):
    """Sides times two, and frames times ``step``, in the way that leaves the trace its kind leaves."""

    def __init__(self, kind: Upsampling, before: int, after: int, step: int) -> None:
        super().__init__()
        self.kind, self.step = kind, step
        self.narrow: nn.Module = nn.Identity()
        self.conv: nn.Module
        if kind == "transposed":
            kernel, padding = ((4, 4, 4), (1, 1, 1)) if step == 2 else ((1, 4, 4), (0, 1, 1))
            self.conv = nn.ConvTranspose3d(before, after, kernel, stride=(step, 2, 2), padding=padding)
        elif kind == "shuffle":
            self.conv = _conv(before, after * 4 * step, temporal=step == 2)
        else:
            self.narrow = nn.Conv3d(before, after, 1)  # before the sides double, where it costs a quarter
            self.conv = _conv(after, after, temporal=step == 2)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        y_BCTHW: Tensor
        if self.kind == "transposed":
            y_BCTHW = self.conv(x_BCTHW)
            return y_BCTHW
        if self.kind == "shuffle":
            return _shuffle(self.conv(x_BCTHW), self.step)
        mode = "nearest" if self.kind == "nearest" else "trilinear"
        scale = (float(self.step), 2.0, 2.0)
        y_BCTHW = self.conv(F.interpolate(self.narrow(x_BCTHW), scale_factor=scale, mode=mode))
        return y_BCTHW


def _shuffle(x_BCTHW: Tensor, step: int) -> Tensor:
    """Channels to places: pixel shuffle, over time too."""
    batch, channels, frames, height, width = x_BCTHW.shape
    x = x_BCTHW.reshape(batch, channels // (4 * step), step, 2, 2, frames, height, width)
    x = x.permute(
        0, 5, 2, 6, 3, 7, 4, 1
    )  # B T step H 2 W 2 C: channels last in memory, as the convolutions like
    x_BTHWC = x.reshape(batch, frames * step, height * 2, width * 2, -1)
    return x_BTHWC.permute(0, 4, 1, 2, 3)


def _conv(before: int, after: int, temporal: bool) -> nn.Module:
    if temporal:
        return _AroundConv(before, after)
    return nn.Conv3d(before, after, (1, 3, 3), padding=(0, 1, 1))


class _AroundConv(nn.Module):
    """A 3x3x3 convolution, written as a 3x3 one of each frame beside the two around it.

    PyTorch's own gave garbage for gradients of its weights in bfloat16 (2.15.0, on one AVX-512 processor).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3 * before, after, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        padded = F.pad(x_BCTHW, (0, 0, 0, 0, 1, 1))
        around = torch.cat([padded[:, :, :-2], x_BCTHW, padded[:, :, 2:]], dim=1)
        y_BCTHW: Tensor = self.conv(around)
        return y_BCTHW


def _down(before: int, after: int, step: int) -> nn.Conv3d:
    reach = step - 1
    return nn.Conv3d(before, after, (1 + 2 * reach, 4, 4), stride=(step, 2, 2), padding=(reach, 1, 1))


# -- training ------------------------------------------------------------------------------------------------


def draw_clips(
    items: Sequence[Item], *, per_item: int = 4, frames: int = 8, side: int = 128, seed: int = 0
) -> UInt8:
    """Random native-resolution crops of the items: (items x per_item, frames, side, side, 3)."""
    rng = np.random.default_rng(seed)
    clips_NTHWC = np.empty((len(items) * per_item, frames, side, side, 3), np.uint8)
    for number, item in enumerate(track(items, "crops")):
        frames_THWC = read_frames(item.path, max_frames=3 * frames)[0]
        for draw in range(per_item):
            clips_NTHWC[number * per_item + draw] = _crop(frames_THWC, frames, side, rng)
    return clips_NTHWC


def _crop(frames_THWC: UInt8, frames: int, side: int, rng: np.random.Generator) -> UInt8:
    wanted = (frames, side, side)
    missing = [max(0, want - has) for want, has in zip(wanted, frames_THWC.shape, strict=False)]
    if any(missing):
        frames_THWC = np.pad(frames_THWC, [(0, m) for m in missing] + [(0, 0)], mode="symmetric")
    t, y, x = (
        int(rng.integers(has - want + 1)) for want, has in zip(wanted, frames_THWC.shape, strict=False)
    )
    return frames_THWC[t : t + frames, y : y + side, x : x + side]


def train_autoencoder(
    spec: AutoencoderSpec,
    clips_NTHWC: UInt8,
    *,
    steps: int = 1200,
    pixels: int = 2**15,
    crop: int = 64,
    learning_rate: float = 1e-3,
    adversarial: float = 0.6,
) -> tuple[Autoencoder, list[dict[str, float]]]:
    """Train one on ``crop`` x ``crop`` parts of these clips, ``pixels`` a step; it and its log.

    For the last third a patch discriminator joins in, for detail as a real VAE invents it: L1 alone blurs.
    ``adversarial``: the norm of its gradient at the output as a share of the reconstruction's; 0: none.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        net = Autoencoder(spec).to(memory_format=torch.channels_last_3d)
        critic = _critic()
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=0.08
    )
    critic_optimiser = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.95))
    judged_from = steps * 2 // 3
    watched_from = judged_from - steps // 12  # the critic learns a little before its word counts
    log: list[dict[str, float]] = []
    net.train()
    for step in track(range(steps), spec.name):
        x_BCTHW = _batch(clips_NTHWC, spec, pixels, crop, generator)
        noise = torch.randn(net.latent_shape(x_BCTHW), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            y_BCTHW = net(x_BCTHW, noise)
        y_BCTHW = y_BCTHW.float()
        seen = y_BCTHW.detach().requires_grad_()
        loss = _reconstruction_loss(seen, x_BCTHW)
        (slope,) = torch.autograd.grad(loss, seen)
        if adversarial and step >= watched_from:
            if step >= judged_from:
                wanted = -_judge(critic, seen).mean()
                (other,) = torch.autograd.grad(wanted, seen)
                slope = slope + other * (adversarial * slope.norm() / (other.norm() + 1e-12))
            _teach(critic, critic_optimiser, x_BCTHW, seen.detach())
        optimiser.zero_grad()
        y_BCTHW.backward(slope)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99 or step in {0, steps - 1}:
            log.append({"step": step + 1.0, "loss": float(loss.detach())})
    return net.eval().requires_grad_(False), log


def _batch(
    clips_NTHWC: UInt8, spec: AutoencoderSpec, pixels: int, crop: int, generator: torch.Generator
) -> Tensor:
    """Random crops, half of them mirrored, of two latents' frames or one frame: (B, C, T, crop, crop)."""
    total, length, height, width = clips_NTHWC.shape[:4]
    frames = min(2 * spec.squeeze if spec.temporal else 1, length // spec.squeeze * spec.squeeze)
    count = max(2, pixels // (frames * crop * crop))
    sides = torch.tensor([total, length - frames + 1, height - crop + 1, width - crop + 1, 2])
    draws = (torch.rand(count, 5, generator=generator) * sides).long().tolist()
    picked = [
        clips_NTHWC[n, t : t + frames, y : y + crop, x : x + crop][:, :, :: -1 if flip else 1]
        for n, t, y, x, flip in draws
    ]
    return _to_signed(np.stack(picked))


def _to_signed(clips_BTHWC: UInt8) -> Tensor:
    """(B, C, T, H, W) in -1..1; channels stay last in memory."""
    return torch.from_numpy(clips_BTHWC).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _reconstruction_loss(y_BCTHW: Tensor, x_BCTHW: Tensor) -> Tensor:
    """L1 of pixels and of gradients, and of the spectrum's log amplitude, which blur can't satisfy."""
    loss = F.l1_loss(y_BCTHW, x_BCTHW)
    for dim in (-1, -2):
        loss = loss + 0.5 * F.l1_loss(y_BCTHW.diff(dim=dim), x_BCTHW.diff(dim=dim))
    if y_BCTHW.shape[2] > 1:
        loss = loss + 0.25 * F.l1_loss(y_BCTHW.diff(dim=2), x_BCTHW.diff(dim=2))
    ours, theirs = ((torch.fft.rfft2(v, norm="ortho").abs() + 0.02).log() for v in (y_BCTHW, x_BCTHW))
    return loss + 0.04 * F.l1_loss(ours, theirs)


def _critic() -> nn.Sequential:
    def layer(before: int, after: int, kernel: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(before, after, kernel, stride, padding=1)
        return nn.utils.parametrizations.spectral_norm(conv)

    net = nn.Sequential(
        layer(3, 32, 4, 2), nn.LeakyReLU(0.2), layer(32, 64, 4, 2), nn.LeakyReLU(0.2), layer(64, 64, 3, 1)
    )
    net.extend([nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 3, padding=1)])
    return net.to(memory_format=torch.channels_last)


def _judge(critic: nn.Module, x_BCTHW: Tensor) -> Tensor:
    """The critic's word on each patch of each frame: positive is real."""
    with torch.autocast("cpu", torch.bfloat16):
        logits_N1hw: Tensor = critic(x_BCTHW.transpose(1, 2).flatten(0, 1))
    return logits_N1hw.float()


def _teach(
    critic: nn.Module, optimiser: torch.optim.Optimizer, real_BCTHW: Tensor, fake_BCTHW: Tensor
) -> None:
    hinge = F.relu(1 - _judge(critic, real_BCTHW)).mean() + F.relu(1 + _judge(critic, fake_BCTHW)).mean()
    optimiser.zero_grad()
    hinge.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


# -- the zoo -------------------------------------------------------------------------------------------------


def train_zoo(
    items: Sequence[Item],
    folder: Path,
    specs: Sequence[AutoencoderSpec] = DEFAULT_ZOO,
    *,
    steps: int = 1200,
    per_item: int = 4,
    side: int = 128,
) -> dict[str, Autoencoder]:
    """Train what is not yet in the folder, each a ``.safetensors`` beside a ``.json``; all of them by name.

    The items must be real, and of the training fold only. A folder made from other items is refused: its
    autoencoders may have seen what this fold holds out.
    """
    if not items or any(item.generated for item in items):
        raise ValueError("autoencoders are trained on reals, and on nothing else")
    folder.mkdir(parents=True, exist_ok=True)
    trained_on = _identity(items)
    for record in folder.glob("*.json"):
        if json.loads(record.read_text(encoding="utf-8"))["trained_on"] != trained_on:
            raise ValueError(f"{record} was trained on other items")
    missing = [spec for spec in specs if not (folder / f"{spec.name}.json").exists()]
    clips_NTHWC = draw_clips(items, per_item=per_item, side=side) if missing else np.empty(0, np.uint8)
    for spec in missing:
        net, log = train_autoencoder(spec, clips_NTHWC, steps=steps)
        state = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_file(state, folder / f"{spec.name}.safetensors")
        facts = {
            "spec": asdict(spec),
            "trained_on": trained_on,
            "items": len(items),
            "steps": steps,
            "log": log,
        }
        (folder / f"{spec.name}.json").write_text(
            json.dumps(facts, indent=1) + "\n", encoding="utf-8"
        )  # last
    return load_zoo(folder)


def load_zoo(folder: Path) -> dict[str, Autoencoder]:
    """The trained autoencoders of a folder by name, ready to reconstruct."""
    zoo = {}
    for record in sorted(folder.glob("*.json")):
        net = Autoencoder(AutoencoderSpec(**json.loads(record.read_text(encoding="utf-8"))["spec"]))
        net.load_state_dict(load_file(record.with_suffix(".safetensors")))
        net = net.to(memory_format=torch.channels_last_3d)
        zoo[record.stem] = net.eval().requires_grad_(False)
    return zoo


def _identity(items: Iterable[Item]) -> str:
    names = sorted(str(item.facts.get("sha256", item.path)) for item in items)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


@torch.inference_mode()
def reconstruct(
    autoencoder: Autoencoder, frames_THWC: UInt8, generator: torch.Generator | None = None
) -> UInt8:
    """The frames as the autoencoder gives them back, of any size and length.

    ``generator``: draws the latent noise of training; without one there is none.
    """
    spec = autoencoder.spec
    total, height, width = frames_THWC.shape[:3]
    after = [MARGIN + -side % spec.factor for side in (height, width)]
    pads = [(0, -total % spec.squeeze), (MARGIN, after[0]), (MARGIN, after[1]), (0, 0)]
    padded_THWC = np.pad(frames_THWC, pads, mode="symmetric")
    at_once = max(1, CHUNK_PIXELS // padded_THWC[0, ..., 0].size)
    at_once = math.ceil(at_once / spec.squeeze) * spec.squeeze
    if spec.temporal:  # a seam every few frames would be a trace of ours, not of a decoder
        at_once = max(at_once, 16)
    parts = []
    for start in range(0, len(padded_THWC), at_once):
        x_1CTHW = _to_signed(padded_THWC[None, start : start + at_once])
        noise = None
        if generator is not None:
            noise = torch.randn(autoencoder.latent_shape(x_1CTHW), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            y_1CTHW = autoencoder(x_1CTHW, noise)
        y_1CTHW = y_1CTHW[..., MARGIN : MARGIN + height, MARGIN : MARGIN + width]
        parts.append(_to_uint8(y_1CTHW.float() * 127.5 + 127.5)[0])
    return np.concatenate(parts)[:total]


def _to_uint8(x_BCTHW: Tensor) -> UInt8:
    array: UInt8 = x_BCTHW.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return array


def psnr(a: UInt8, b: UInt8) -> float:
    """Peak signal to noise of two arrays of pixels in dB; infinite if they are equal."""
    error = float(np.square(a.astype(np.float32) - b).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


# -- without training ----------------------------------------------------------------------------------------


def swap_low_band(fake_THWC: UInt8, real_THWC: UInt8, wavelet: str = "db2", levels: int = 2) -> UInt8:
    """The fake with its lowest wavelet band replaced by its paired real's: only fine traces can tell.

    Source: WaveRep (method, section 2, finding 3). PyWavelets is in the extra ``lab``.
    """
    import pywt  # noqa: PLC0415  of the laboratory; the rest of this module does without

    if fake_THWC.shape != real_THWC.shape:
        raise ValueError(f"a pair of unlike shapes: {fake_THWC.shape}, {real_THWC.shape}")
    fake, real = (
        pywt.wavedec2(v.astype(np.float32), wavelet, mode="symmetric", level=levels, axes=(1, 2))
        for v in (fake_THWC, real_THWC)
    )
    mixed = pywt.waverec2([real[0], *fake[1:]], wavelet, mode="symmetric", axes=(1, 2))
    height, width = fake_THWC.shape[1:3]
    swapped: UInt8 = np.clip(mixed[:, :height, :width] + 0.5, 0, 255).astype(np.uint8)
    return swapped


def upsampling_trace(frames_THWC: UInt8, rng: np.random.Generator) -> UInt8:
    """The frames halved and doubled again, blended with themselves: a decoder's trace without a decoder.

    Doubled by repetition, or by zeros and a fixed kernel whose even and odd taps differ (checkerboard).
    """
    height, width = frames_THWC.shape[1:3]
    x_TCHW = torch.from_numpy(frames_THWC).movedim(-1, 1).float()
    half = (max(1, (height + 1) // 2), max(1, (width + 1) // 2))
    small_TChw = F.interpolate(x_TCHW, half, mode="bicubic", antialias=True)
    if rng.random() < 0.5:
        large_TCHW = F.interpolate(small_TChw, scale_factor=2.0, mode="nearest")
    else:
        uneven = rng.uniform(0.85, 1.15)
        taps = torch.tensor([0.25, 0.75 * uneven, 0.75, 0.25 * uneven], dtype=torch.float32)
        kernel = torch.outer(taps, taps).repeat(3, 1, 1, 1)
        padded = F.pad(small_TChw, (1, 1, 1, 1), mode="replicate")
        large_TCHW = F.conv_transpose2d(padded, kernel, stride=2, padding=3, groups=3)
        large_TCHW = large_TCHW * (4 / float(kernel[0].sum()))
    share = rng.uniform(0.4, 1.0)
    mixed_TCHW = torch.lerp(x_TCHW, large_TCHW[..., :height, :width], share)
    traced: UInt8 = _to_uint8(mixed_TCHW.movedim(0, 1)[None])[0]
    return traced


# -- in a training step --------------------------------------------------------------------------------------


def mask_frequencies(x: Tensor, generator: torch.Generator, *, share: float = 0.15) -> Tensor:
    """Each sample of a batch (B, ..., H, W) without some of its frequencies; its mean stays.

    A third each: an annulus, a rectangle, or single points, about ``share`` of the half spectrum or less. All
    channels and frames of a sample lose the same ones. The generator may live on another device than ``x``.
    """
    batch, (height, width) = len(x), x.shape[-2:]
    device = generator.device
    y_H1 = torch.fft.fftfreq(height, device=device)[:, None].abs() * 2  # 0..1; both signs alike
    x_1w = torch.fft.rfftfreq(width, device=device)[None] * 2
    draws_B411 = torch.rand((batch, 4, 1, 1), generator=generator, device=device)
    kind_B11, *draws = (draws_B411 * torch.tensor([3.0, 1, 1, 1], device=device)[:, None, None]).unbind(1)

    radius_Hw = torch.hypot(y_H1, x_1w)
    inner_B11 = 0.05 + 0.95 * draws[0]
    ring = share * (0.2 + 0.8 * draws[1])
    annulus_BHw = (radius_Hw >= inner_B11) & (radius_Hw < inner_B11 + ring)

    tall = share**0.5 * (0.5 + draws[2])
    wide = share / tall
    near_y, near_x = draws[0] * (1 - tall), draws[1] * (1 - wide)
    rectangle_BHw = (y_H1 >= near_y) & (y_H1 < near_y + tall) & (x_1w >= near_x) & (x_1w < near_x + wide)

    chance_BHw = torch.rand((batch, *radius_Hw.shape), generator=generator, device=device)
    points_BHw = chance_BHw < share
    lost_BHw = torch.where(kind_B11 < 1, annulus_BHw, torch.where(kind_B11 < 2, rectangle_BHw, points_BHw))
    lost_BHw[:, 0, 0] = False
    keep = (~lost_BHw).to(x.device).view(batch, *[1] * (x.ndim - 3), *radius_Hw.shape)
    masked: Tensor = torch.fft.irfft2(torch.fft.rfft2(x.float()) * keep, s=(height, width))
    return masked.to(x.dtype)


def contrastive_loss(
    features_BD: Tensor,
    label_B: Tensor,
    pair_B: Tensor,
    *,
    temperature: float = 0.1,
    pair_weight: float = 4.0,
) -> Tensor:
    """Supervised contrastive term in which a sample's own counterpart weighs more than other negatives.

    ``pair_B``: the row of the same content with the other label (a real's reconstruction), -1 for none; one
    direction is enough. Each row is drawn to the rows of its label and pushed from those of the other, by
    cosine; its pair counts ``pair_weight`` times there, since it differs in nothing but the trace. A plain
    margin between the two of a pair would leave open on which side of anything they fall; this keeps one
    direction for all pairs, and unpaired rows (fakes from elsewhere) take part. A row's positives do not
    stand in each other's denominators, so large classes aren't pushed apart within. 0 where no row has both
    a positive and a negative.
    """
    count = len(features_BD)
    unit_BD = F.normalize(features_BD.float(), dim=-1)
    logits_BB = unit_BD @ unit_BD.T / temperature
    same_BB = label_B[:, None] == label_B[None]
    rows = torch.arange(count, device=features_BD.device)
    paired_BB = (pair_B[:, None] == rows[None]) & ~same_BB
    paired_BB = paired_BB | paired_BB.T
    weighted_BB = logits_BB + paired_BB * math.log(pair_weight)
    against_B1 = weighted_BB.masked_fill(same_BB, -math.inf).logsumexp(1, keepdim=True)
    positive_BB = same_BB & (rows[:, None] != rows[None]) & against_B1.isfinite()
    if not positive_BB.any():
        return features_BD.sum() * 0.0
    each_BB = F.softplus(against_B1 - logits_BB)  # -log(e^positive / (e^positive + negatives))
    per_row_B = (each_BB.where(positive_BB, 0.0)).sum(1) / positive_BB.sum(1).clamp(min=1)
    return per_row_B.sum() / positive_BB.any(1).sum()
