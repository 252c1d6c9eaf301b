"""A network on one device, as it judges: pixels go there once, as bytes; a row of numbers a window returns.

Shape letters: B windows, T frames, N crops, H height, W width, C colours, D features, K numbers of a row.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specsem.acceleration import Acceleration, FastestForward, Pixels, backends_for
from specsem.fusing import fuse, lower
from specsem.media import Window
from specsem.model import SpecSemNet
from specsem.spectral import high_pass, luma

__all__ = ["Network", "Precision", "Said", "pixel_facts", "settle_precision"]

Precision = Literal["auto", "float32", "bfloat16"]
"""Of the products in the network; its transform, sums and heads are float32 always. ``auto``: bfloat16 on a
GPU that has it, which may move a score by 0.005, else float32."""

_FACTS = 4
"""Numbers of a row before the features: logit, semantic logit, motion, detail."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What is said of one window; see `specsem.scorer.WindowScore`."""

    logit: float
    semantic_logit: float
    motion: float
    detail: float
    features_D: Float32
    shown_D: Float32
    gate_Nhw: Float32


class Network:
    """See the module. ``forward`` is the whole computation, ``Pixels`` to (B, K), the fastest way known."""

    def __init__(
        self,
        net: SpecSemNet,
        device: torch.device,
        *,
        precision: Precision = "auto",
        acceleration: Acceleration = "auto",
        max_batch: int = 32,
    ) -> None:
        self.device = device
        self.precision = settle_precision(precision, device)
        ready = fuse(net)
        if self.precision == "bfloat16":
            lower(ready)
        self.net = ready.to(device).to(memory_format=torch.channels_last)
        self.forward = FastestForward(
            self._say, backends_for(device, acceleration), sizes=_sizes_up_to(max_batch)
        )
        self._no_gate = np.zeros((0, 0, 0), np.float32)

    def say(self, windows: Sequence[Window], *, gates: bool = False) -> list[Said]:
        """What is said of each window; ``gates``: with the maps of the gate."""
        pixels = self.pixels(windows)
        maps: list[Tensor] | None = [] if gates else None
        said_BK = self.forward(*pixels) if maps is None else self._say(*pixels, gates=maps)
        rows = said_BK.cpu().numpy()  # one trip, and one wait for the device
        gate_BNhw = maps[0].float().cpu().numpy() if maps else [self._no_gate] * len(windows)
        shown_at = _FACTS + self.net.feature_width
        return [
            Said(
                logit=float(row_K[0]),
                semantic_logit=float(row_K[1]),
                motion=float(row_K[2]),
                detail=float(row_K[3]),
                features_D=row_K[_FACTS:shown_at].copy(),
                shown_D=row_K[shown_at:].copy(),
                gate_Nhw=gate_Nhw.copy(),
            )
            for row_K, gate_Nhw in zip(rows, gate_BNhw, strict=True)
        ]

    def pixels(self, windows: Sequence[Window]) -> Pixels:
        """The windows' pixels and boxes, stacked, on the device."""
        return (
            self._stack([w.crops_TNHWC for w in windows]),
            self._stack([w.frames_THWC for w in windows]),
            self._stack([w.boxes_N4 for w in windows]),
        )

    def _say(
        self,
        crops_BTNHWC: Tensor,
        frames_BTHWC: Tensor,
        boxes_BN4: Tensor,
        *,
        gates: list[Tensor] | None = None,
    ) -> Tensor:
        """All that is said of each window in a row, (B, K) float32: four facts, features, what was shown.

        ``gates`` takes the maps of the gate, (B, N, h, w), where it is given and there are any.
        """
        with self._autocast():
            said = self.net.judge(crops_BTNHWC, frames_BTHWC, boxes_BN4, gates=gates is not None)
        if gates is not None and said.gate_BNhw is not None:
            gates.append(said.gate_BNhw)
        facts = (said.logit_B, said.semantic_logit_B, *pixel_facts(crops_BTNHWC, frames_BTHWC))
        return torch.cat([torch.stack(facts, dim=1), said.features_BD, said.shown_BD], dim=1).float()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def _stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        if self.device.type != "cuda":
            return torch.from_numpy(np.stack(arrays))
        # Into memory that the device can fetch from by itself; PyTorch keeps it until then, and for the next.
        dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        host = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, pin_memory=True)
        np.stack(arrays, out=host.numpy())
        return host.to(self.device, non_blocking=True)


def settle_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """What ``auto`` means on this device."""
    if precision != "auto":
        return precision
    # Emulated, it is slower than float32.
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def _sizes_up_to(max_batch: int) -> list[int]:
    """Powers of two, and the limit itself."""
    return sorted({max_batch, *(1 << n for n in range(max_batch.bit_length()))})


def pixel_facts(crops_BTNHWC: Tensor, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Motion and detail of each window, (B,) each, 0..255, on luma: of its crops, else of its frames."""
    luma_BTNHW = luma(crops_BTNHWC if crops_BTNHWC.shape[2] else frames_BTHWC[:, :, None])
    motion_B = luma_BTNHW.diff(dim=1).abs_().mean(dim=(1, 2, 3, 4))
    middle_BNHW = luma_BTNHW[:, luma_BTNHW.shape[1] // 2]
    detail_B = high_pass(middle_BNHW).std(dim=(1, 2, 3))
    return motion_B, detail_B
