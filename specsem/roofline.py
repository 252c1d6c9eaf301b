"""The forward against what its device can do, from one window to many.

Two ceilings are measured on the device itself: operations a second in a large matrix product of the same
precision, and bytes a second in a large copy. A forward can't take less than its floor, the larger of

- operations / product rate: two for each multiply-accumulate that ``torch.utils.flop_counter`` finds (Fourier
  transforms are not among them);
- bytes / copy rate: those that must move at least once, weights and pixels. What passes between layers is not
  counted, for a perfect program would keep it on the chip.

Source: Williams, Waterman and Patterson, Roofline (CACM 52(4), 2009).
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from specsem.acceleration import Acceleration, Pixels
from specsem.errors import ModelError
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.network import Network, Precision
from specsem.registry import ModelRecord, list_models
from specsem.scorer import Scorer

__all__ = [
    "BATCHES",
    "Point",
    "Roofline",
    "copy_gb_s",
    "matmul_gflops",
    "operations",
    "proc_bytes",
    "roofline",
    "seconds",
    "wait_for",
]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ALSO = ("specsem-compact", "specsem-b32")
"""Measured beside the model in question. Of what has no weights, the architecture: speed hangs on shapes."""
_BUDGET_S = 60.0
"""A batch whose forwards would take longer than this in all is left out."""
_ROUNDS = 3
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Point:
    """One batch size of one model. Without ``ms``, ``note`` says why it was not measured."""

    model: str
    windows: int
    ms: float | None = None
    """The fastest of a few forwards."""
    windows_per_s: float | None = None
    gflops: float | None = None
    share_of_matmul: float | None = None
    times_floor: float | None = None
    """How often the floor goes into ``ms``."""
    bound_by: str | None = None
    """Which floor is the larger one: ``operations`` or ``bytes``."""
    way: str | None = None
    """How it ran (`specsem.acceleration`)."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Ceilings and what was reached under them. ``matmul_gflops`` and ``copy_gb_s`` are the best of a few."""

    precision: str
    matmul_gflops: float
    copy_gb_s: float
    points: list[Point] = field(default_factory=list)


def roofline(
    scorer: Scorer,
    batches: Sequence[int] = BATCHES,
    *,
    also: Sequence[str] = ALSO,
    acceleration: Acceleration = "auto",
    budget_s: float = _BUDGET_S,
    tell: Callable[[str], None] = lambda _step: None,
) -> Roofline:
    """Measure ``scorer``'s model, and those of ``also`` that are registered, at each size of a batch.

    Time and memory are bounded: a size is left out, and says so, where the one before it lets expect more
    than ``budget_s`` or more memory than is free.
    """
    device, precision = scorer.device, scorer._network.precision  # the bench looks inside on purpose
    records = {record.name: record for record in list_models()}
    wanted = [scorer.record, *(records[name] for name in also if name in records)]
    sizes = sorted(set(batches))
    if not sizes or sizes[0] < 1:
        raise ModelError("A batch has at least one window.")
    measured: list[tuple[_Model, _Taken]] = []
    ceilings: list[tuple[float, float]] = []
    for record in {record.name: record for record in wanted}.values():
        model = _model(record, device, precision, acceleration, sizes[-1])
        last: _Taken | None = None
        for size in sizes:
            tell(f"Forward of {record.name}, {size} windows")
            last = _take(model.network, size, last, budget_s)
            measured.append((model, last))
            ceilings.append((matmul_gflops(device, precision), copy_gb_s(device)))
    matmul, copy = (max(rates) for rates in zip(*ceilings, strict=True))
    return Roofline(
        precision=precision,
        matmul_gflops=round(matmul, 1),
        copy_gb_s=round(copy, 2),
        points=[_point(*one, matmul, copy) for one in measured],
    )


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    network: Network
    gflop: float
    """Of one window."""
    weight_bytes: int
    pixel_bytes: int
    """Of one window."""


@dataclass(frozen=True, slots=True)
class _Taken:
    windows: int
    seconds: float = 0.0
    peak_bytes: int = 0
    note: str = ""


def _model(
    record: ModelRecord,
    device: torch.device,
    precision: Precision,
    acceleration: Acceleration,
    max_batch: int,
) -> _Model:
    torch.manual_seed(0)
    net = SpecSemNet(SpecSemConfig.from_dict(record.config))
    network = Network(net, device, precision=precision, acceleration=acceleration, max_batch=max_batch)
    one = draw_pixels(network, 1)
    return _Model(
        name=record.name,
        network=network,
        gflop=operations(net, one) / 1e9,
        weight_bytes=sum(tensor.nbytes for tensor in network.net.state_dict().values()),
        pixel_bytes=sum(x.nbytes for x in one),
    )


@torch.inference_mode()
def _take(network: Network, size: int, last: _Taken | None, budget_s: float) -> _Taken:
    if last is not None and last.note:
        return _Taken(size, note=last.note)
    if last is not None:
        times = size / last.windows
        if (expected_s := last.seconds * times * (_ROUNDS + 1)) > budget_s:
            return _Taken(size, note=f"left out: it would take {expected_s:.0f} s")
        if (expected := last.peak_bytes * times) > 0.5 * _free_bytes(network.device):
            return _Taken(size, note=f"left out: it would take {expected / _MIB:.0f} MiB")
    try:
        pixels = draw_pixels(network, size)
        held = _restart_peak(network.device)
        network.forward.warm_up(draw_pixels(network, 1), sizes=[size])
        network.forward(*pixels)
        peak = _peak_bytes(network.device) - held
        took_s = []
        for _ in range(_ROUNDS):
            begin = time.perf_counter()
            network.forward(*pixels).cpu()
            took_s.append(time.perf_counter() - begin)
    except torch.OutOfMemoryError:
        return _Taken(size, note="left out: the device has too little memory")
    return _Taken(size, min(took_s), max(0, peak))


def _point(model: _Model, taken: _Taken, matmul: float, copy: float) -> Point:
    if taken.note:
        return Point(model.name, taken.windows, note=taken.note)
    gflop = model.gflop * taken.windows
    gigabytes = (model.weight_bytes + model.pixel_bytes * taken.windows) / 1e9
    floors = {"operations": gflop / matmul, "bytes": gigabytes / copy}
    bound_by = max(floors, key=lambda what: floors[what])
    return Point(
        model=model.name,
        windows=taken.windows,
        ms=round(taken.seconds * 1e3, 3),
        windows_per_s=round(taken.windows / taken.seconds, 2),
        gflops=round(gflop / taken.seconds, 1),
        share_of_matmul=round(gflop / taken.seconds / matmul, 3),
        times_floor=round(taken.seconds / floors[bound_by], 2),
        bound_by=bound_by,
        way=model.network.forward.ways.get(taken.windows, "plain"),
    )


def draw_pixels(network: Network, windows: int) -> Pixels:
    """Noise in the shapes that the model wants, on its device."""
    plan = network.net.config.plan()
    generator = torch.Generator().manual_seed(0)
    crops, frames = (
        torch.randint(0, 256, (windows, *shape), generator=generator, dtype=torch.uint8)
        for shape in (plan.crops_shape, plan.frames_shape)
    )
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(windows, plan.crops, 4)
    return crops.to(network.device), frames.to(network.device), boxes.to(network.device)


@torch.no_grad()
def operations(net: SpecSemNet, pixels: Pixels) -> int:
    """Floating-point operations of a forward: two for each multiply-accumulate that PyTorch can count.

    ``net`` is the plain network, on the CPU: the counter knows no fused primitives, PyTorch's own attention
    for inference among them.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            net.eval()(*(x.cpu() for x in pixels))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def matmul_gflops(device: torch.device, precision: Precision = "float32") -> float:
    """What the device reaches in a large product of square matrices; the best of three."""
    side = 1536 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / 1e9 / _best_s(lambda: torch.matmul(factor, factor), device)


def copy_gb_s(device: torch.device) -> float:
    """Bytes read and written a second in a large copy on the device, in 10^9; the best of three."""
    source = torch.ones(1 << (26 if device.type == "cpu" else 29), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e9 / _best_s(lambda: target.copy_(source), device)


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    work()
    wait_for(device)
    return min(seconds(work, device) for _ in range(3))


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """How long it takes until the device, which waits for work, is done with it."""
    begin = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - begin


def wait_for(device: torch.device | None) -> None:
    """Until the device is done with what it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return proc_bytes("/proc/meminfo", "MemAvailable") or 1 << 62  # unknown: only time bounds it


def _restart_peak(device: torch.device) -> int:
    """Forget the peak of memory; what is held now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return proc_bytes("/proc/self/status", "VmRSS")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return proc_bytes("/proc/self/status", "VmHWM")


def proc_bytes(path: str, name: str) -> int:
    """A field of Linux's in kB, as bytes; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
