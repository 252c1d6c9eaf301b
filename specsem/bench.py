"""``specsem bench``: where the time goes, on clips that it draws itself (`specsem.synthetic`).

Every figure is taken in rounds, and the rounds of all cases are interleaved, so that a noisy neighbour or a
hot chip meets all of them alike. Reported are the median and the quartiles.

Stages, each waited for (on CUDA, synchronised):

- ``decode``: file to pixels, the trip out of the decoder's process included;
- ``transfer``: pixels stacked, and moved to the device;
- ``preprocess``: pixels to the high-pass residual;
- ``forward``: the network's forward less ``preprocess``, which is part of it;
- ``total``: path to verdict, one after the other, as an only file meets it.

Extras are what each piece of evidence adds to that: ``provenance`` (again, to compare), ``findings``
(peak, lowest, shares, and the reasons in words), ``attribution``, ``gates`` (their maps: forwards with and
without, one after the other, in turns of who is first), ``pictures`` (decoding two windows again and drawing
them), and each delivery of ``stability``. Each is also given in percent of the ``total`` of its own round: a
noisy neighbour meets both.

``ceiling`` is what the same device reaches in a large matrix product of the network's precision, in the same
rounds (see `specsem.roofline`, which also takes the forward at each size of a batch).
"""

import contextlib
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import specsem
from specsem.explain import evidence_of, findings_of, pictures_of
from specsem.files import Source, score_files
from specsem.media import DELIVERIES, Clip, DecoderPool, Delivery, SamplePlan, Window
from specsem.media._measure import decode_cost
from specsem.model import SpecSemNet
from specsem.roofline import BATCHES, matmul_gflops, operations, proc_bytes, roofline, seconds, wait_for
from specsem.scorer import Scorer
from specsem.synthetic import write_clip

__all__ = ["EXTRAS", "STAGES", "print_report", "run"]

Report = dict[str, Any]
STAGES = ("decode", "provenance", "transfer", "preprocess", "forward", "total")
EXTRAS = ("provenance", "findings", "attribution", "gates", "pictures", *DELIVERIES)


def run(
    *,
    model: str,
    device: str = "auto",
    quick: bool = False,
    batches: Sequence[int] | None = None,
    tell: Callable[[str], None] = lambda _step: None,
) -> Report:
    """Measure, and report as plain data for JSON.

    Args:
        model: A registered model with its weights.
        device: auto, cpu or cuda.
        quick: One round on small clips: shows that all of it runs; its figures mean nothing.
        batches: Windows in a forward, for the table of ``roofline``; 1 to 256, unless ``quick``.
        tell: Hears what is being done now.
    """
    load_before = os.getloadavg()[0]
    rounds = 1 if quick else 7
    clips = 2 if quick else 8
    width, height, seconds = (320, 240, 1.0) if quick else (1280, 720, 5.0)
    with contextlib.ExitStack() as stack:
        tell("Loading the model")
        scorer = Scorer(model, device=device)  # first: what can't be had is refused before anything slow
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="specsem-bench-")))
        paths = [folder / f"{number}.mp4" for number in range(clips)]
        for seed, path in enumerate(paths):
            tell(f"Drawing clip {seed + 1} of {clips}")
            write_clip(path, width=width, height=height, seconds=seconds, seed=seed)
        pool = stack.enter_context(DecoderPool(workers=2))
        scorer.warm_up()
        pool.decode(paths[0], scorer.plan)

        report: Report = {
            "machine": machine_facts(scorer.device) | {"load_before": round(load_before, 2)},
            "model": {
                "name": scorer.record.name,
                "version": scorer.record.version,
                "parameters": sum(p.numel() for p in scorer._network.net.parameters()),
            },
            "clips": {"width": width, "height": height, "seconds": seconds, "codec": "h264", "count": clips},
            "rounds": rounds,
        }
        report |= _stages(pool, scorer, paths, rounds, tell)
        tell("Throughput")
        report["throughput"] = _throughput(pool, scorer, paths, max(1, rounds // 3))
        report["peak_memory_mib"] = _peak_memory(pool, scorer.device)
        sizes = batches if batches is not None else BATCHES[:2] if quick else BATCHES
        report["roofline"] = asdict(roofline(scorer, sizes, tell=tell))
    tell("Decoding ten seconds and ten minutes")
    report["decode_cost"] = _decode_cost(quick)
    return report


def machine_facts(device: torch.device) -> Report:
    """What the figures hold for."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "specsem": specsem.__version__,
        "commit": _commit(),
    }


def spread(values: Sequence[float]) -> Report:
    """Median and quartiles."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return {"median": round(float(median), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _stages(
    pool: DecoderPool, scorer: Scorer, paths: Sequence[Path], rounds: int, tell: Callable[[str], None]
) -> Report:
    """Milliseconds of each stage for one clip, the share of a clip in a forward of several, the ceiling."""
    plan, device = scorer.plan, scorer.device
    clips = [pool.decode(path, plan) for path in paths[: 8 if device.type == "cuda" else 4]]
    together = [window for clip in clips for window in clip.windows]
    samples: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        tell(f"Stages, round {number + 1} of {rounds}")
        path, clip = paths[number % len(paths)], clips[number % len(clips)]
        alone = _reading(pool, path, plan) | _forward(scorer, clip.windows)
        alone["total"] = _ms(partial(_path_to_verdict, pool, scorer, path))
        for stage, took_ms in alone.items():
            samples[stage].append(took_ms)
        added = {"provenance": alone["provenance"]} | _extras(pool, scorer, path, clip, first=number % 2 == 0)
        for extra, took_ms in added.items():
            samples[f"added {extra}"].append(took_ms)
            samples[f"percent {extra}"].append(100 * took_ms / alone["total"])
        for stage, took_ms in _forward(scorer, together).items():
            samples[f"batched {stage}"].append(took_ms / len(clips))
        samples["ceiling"].append(matmul_gflops(device, scorer._network.precision))

    plain = SpecSemNet(scorer._network.net.config)
    gmacs = operations(plain, scorer._network.pixels(clips[0].windows)) / 2e9
    ceiling = statistics.median(samples["ceiling"])
    reached = 2 * gmacs / (statistics.median(samples["forward"]) / 1e3)
    reached_batched = 2 * gmacs / (statistics.median(samples["batched forward"]) / 1e3)
    return {
        "stages_ms": {stage: spread(samples[stage]) for stage in STAGES},
        "extras_ms": {extra: spread(samples[f"added {extra}"]) for extra in EXTRAS},
        "extras_percent_of_total": {extra: spread(samples[f"percent {extra}"]) for extra in EXTRAS},
        "batched_ms_per_clip": {"clips": len(clips)}
        | {stage: spread(samples[f"batched {stage}"]) for stage in ("transfer", "preprocess", "forward")},
        "forward": {
            "gmac_per_clip": round(gmacs, 3),
            "windows_per_clip": len(clips[0].windows),
            "gmac_per_window": round(gmacs / len(clips[0].windows), 3),
            "gflops": round(reached, 1),
            "gflops_batched": round(reached_batched, 1),
            "ceiling_gflops": spread(samples["ceiling"]),
            "share_of_ceiling": round(reached / ceiling, 3),
            "share_of_ceiling_batched": round(reached_batched / ceiling, 3),
        },
    }


def _reading(pool: DecoderPool, path: Path, plan: SamplePlan) -> dict[str, float]:
    """Milliseconds of ``decode`` and ``provenance`` of one file."""
    begin = time.perf_counter()
    clip = pool.decode(path, plan)
    took_ms = (time.perf_counter() - begin) * 1e3
    return {"decode": took_ms - clip.manifests_ms, "provenance": clip.manifests_ms}


def _path_to_verdict(pool: DecoderPool, scorer: Scorer, path: Path, delivery: Delivery | None = None) -> None:
    scorer.score_batch([pool.decode(path, replace(scorer.plan, delivery=delivery))])


def _extras(pool: DecoderPool, scorer: Scorer, path: Path, clip: Clip, *, first: bool) -> dict[str, float]:
    """Milliseconds that each piece of evidence adds; ``first``: the forward with gates comes first."""
    forward_ms = {
        gates: _ms(partial(scorer.score_batch, [clip], gates=gates), scorer.device)
        for gates in (first, not first)
    }
    [verdict] = scorer.score_batch([clip], gates=True)
    decode = partial(pool.decode, path)
    return {
        "findings": _ms(lambda: (evidence_of(verdict), findings_of(verdict, clip))),
        "attribution": _ms(partial(scorer._attribute, verdict.scores)),
        "gates": forward_ms[True] - forward_ms[False],
        "pictures": _ms(partial(pictures_of, decode, scorer.plan, verdict, scorer.record)),
        **{name: _ms(partial(_path_to_verdict, pool, scorer, path, name)) for name in DELIVERIES},
    }


@torch.inference_mode()
def _forward(scorer: Scorer, windows: Sequence[Window]) -> dict[str, float]:
    """Milliseconds of ``transfer``, ``preprocess`` and ``forward`` of these windows."""
    network, device = scorer._network, scorer.device  # the bench looks inside on purpose
    begin = time.perf_counter()
    crops, frames, boxes = network.pixels(windows)
    wait_for(device)
    transfer_ms = (time.perf_counter() - begin) * 1e3
    stride = network.net.config.spectral_stride  # only of these frames is there a residual
    pixels = crops[:, stride // 2 :: stride] if scorer.plan.crop_side else frames[:, :, None]
    preprocess_ms = _ms(partial(network.net.residual, pixels), device)
    whole_ms = _ms(partial(network.forward, crops, frames, boxes), device)
    return {
        "transfer": transfer_ms,
        "preprocess": preprocess_ms,
        "forward": max(1e-3, whole_ms - preprocess_ms),
    }


def _throughput(pool: DecoderPool, scorer: Scorer, paths: Sequence[Path], rounds: int) -> Report:
    """Clips a second from path to verdict, decoding ahead: what `specsem score FOLDER` reaches."""
    sources = [Source(path, path.name) for path in paths]
    rates = []
    for _ in range(rounds):
        took_ms = _ms(lambda: list(score_files(sources, pool=pool, scorer=scorer)))
        rates.append(len(sources) / took_ms * 1e3)
    return {"clips_per_s": spread(rates)}


def _decode_cost(quick: bool) -> Report:
    """See ``decode_cost``; None for what could not be measured (OpenCV comes with the development set)."""
    small: dict[str, Any] = {"rounds": 1, "short_s": 1, "long_s": 2, "size": (320, 240)}
    measured = decode_cost(**small if quick else {})
    return {name: round(value, 3) if math.isfinite(value) else None for name, value in measured.items()}


def _peak_memory(pool: DecoderPool, device: torch.device) -> Report:
    """MiB; of the decoders, that of the largest."""
    peak = {"process": _peak_mib("self"), "largest decoder": max(map(_peak_mib, pool.pids()), default=0)}
    if device.type == "cuda":
        peak["device"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return peak


def _peak_mib(process: int | str) -> int:
    """Of resident memory, as Linux keeps it; 0 where it can't be read.

    Not ``getrusage``: to that, a child was as large as its parent when it was forked.
    """
    return proc_bytes(f"/proc/{process}/status", "VmHWM") >> 20


def _ms(work: Callable[[], object], device: torch.device | None = None) -> float:
    return seconds(work, device) * 1e3


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, with ``+`` if it has changes; None where there is no checkout."""
    root = Path(specsem.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        ask = partial(subprocess.run, cwd=root, check=True, capture_output=True, text=True)
        commit = ask(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()
        changes = ask(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
        return commit + ("+" if changes else "")
    return None


def print_report(report: Report) -> None:
    """The same figures for people."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    machine, model, clips = report["machine"], report["model"], report["clips"]
    console.print(
        f"{model['name']} {model['version']} on {machine['device']}; {machine['cpu']}, "
        f"{machine['cores']} cores, torch {machine['torch']}, av {machine['av']}, "
        f"commit {machine['commit']}\n"
        f"{clips['count']} clips of {clips['width']}x{clips['height']}, {clips['seconds']:g} s; "
        f"{report['rounds']} interleaved rounds; median (quartiles)\n"
    )
    table = Table(box=None, header_style="dim")
    table.add_column("stage")
    table.add_column("one clip, ms", justify="right")
    table.add_column("clips/s", justify="right")
    table.add_column(f"of {report['batched_ms_per_clip']['clips']} together, ms a clip", justify="right")
    for stage in STAGES:
        batched = report["batched_ms_per_clip"].get(stage)
        alone = report["stages_ms"][stage]
        rate = f"{1e3 / alone['median']:.1f}" if alone["median"] else ""
        table.add_row(stage, _shown(alone), rate, _shown(batched) if batched else "")
    console.print(table)
    extras = Table(box=None, header_style="dim")
    extras.add_column("evidence")
    extras.add_column("added, ms a clip", justify="right")
    extras.add_column("of the total, %", justify="right")
    for extra in EXTRAS:
        measured = (report["extras_ms"][extra], report["extras_percent_of_total"][extra])
        extras.add_row(extra, *map(_shown, measured))
    console.print()
    console.print(extras)
    _print_roofline(console, report["roofline"])
    forward, memory = report["forward"], report["peak_memory_mib"]
    console.print(
        f"\nthroughput   {_shown(report['throughput']['clips_per_s'])} clips/s from path to verdict\n"
        f"forward      {forward['gmac_per_clip']} GMAC a clip ({forward['gmac_per_window']} a window); "
        f"{forward['gflops']} GFLOP/s, "
        f"{forward['share_of_ceiling']:.0%} of the device's {_shown(forward['ceiling_gflops'])} "
        f"({forward['share_of_ceiling_batched']:.0%} batched)\n"
        f"peak memory  {', '.join(f'{what} {mib} MiB' for what, mib in memory.items())}\n"
    )
    cost = report["decode_cost"]
    opencv = (
        f"{cost['short_over_opencv']:.2f} of OpenCV's {cost['opencv_ms']:.0f} ms for all of its frames"
        if cost["opencv_ms"]
        else "OpenCV is not here to compare with"
    )
    console.print(
        f"decoding     {cost['short_ms']:.0f} ms for ten seconds of 720p, {opencv};\n"
        f"             {cost['long_ms']:.0f} ms for ten minutes, {cost['long_over_short']:.2f} times that; "
        f"{cost['isolation_ms']:.1f} ms of it is the price of a process of its own"
    )


def _print_roofline(console: Console, measured: Report) -> None:
    console.print(
        f"\nforwards in {measured['precision']}, against {measured['matmul_gflops']:.0f} GFLOP/s "
        f"in a matrix product and {measured['copy_gb_s']:.1f} GB/s in a copy"
    )
    table = Table(box=None, header_style="dim")
    table.add_column("model", no_wrap=True)
    for column in ("windows", "ms", "windows/s", "GFLOP/s", "share", "x floor"):
        table.add_column(column, justify="right")
    table.add_column("bound by, runs as", no_wrap=True)
    for point in measured["points"]:
        shown = [point["model"], str(point["windows"])]
        if point["ms"] is None:
            table.add_row(*shown, *[""] * 5, point["note"])  # why it was left out
            continue
        table.add_row(
            *shown,
            f"{point['ms']:.1f}",
            f"{point['windows_per_s']:.1f}",
            f"{point['gflops']:.0f}",
            f"{point['share_of_matmul']:.0%}",
            f"{point['times_floor']:.1f}",
            f"{point['bound_by']}, {point['way']}",
        )
    console.print(table)


def _shown(values: Report) -> str:
    digits = 2 if values["median"] < 10 else 1
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}-{values['high']:.{digits}f})"
