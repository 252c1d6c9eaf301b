"""Other CPU engines beside ours: one forward of `specsem-compact`, in turns, at several sizes of a batch.

    specsem export compact.onnx && python benchmarks/engines.py compact.onnx [--batches 1,8,32] [--rounds 9]

Equal threads, float32, none spins while it waits. Each round runs every engine once; reported are the medians
of wall and CPU time, and of the ratio ours / theirs within a round: above 1, the other is faster. OpenVINO is
measured where it is installed; it is no dependency of ours.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; read when torch comes

import numpy as np
import onnxruntime
import torch

from specsem.roofline import draw_pixels
from specsem.scorer import Scorer

Forward = Callable[[], np.ndarray]
"""Logits of the batch."""


def onnx_runtime(file: Path, pixels: dict[str, np.ndarray], threads: int) -> Forward:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logit"], pixels)[0]


def openvino(file: Path, pixels: dict[str, np.ndarray], threads: int) -> Forward:
    import openvino as ov  # noqa: PLC0415

    wanted = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = ov.Core().compile_model(file, "CPU", wanted)
    return lambda: model(pixels)["logit"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=9)
    wanted = parser.parse_args()
    threads = torch.get_num_threads()
    network = Scorer(device="cpu", precision="float32", acceleration="off")._network
    print("| windows | engine | wall, ms | CPU, ms | ours / theirs, wall | CPU |\n|---|---|---|---|---|---|")
    for size in map(int, wanted.batches.split(",")):
        crops, frames, boxes = draw_pixels(network, size)
        pixels = {"crops": crops.numpy(), "frames": frames.numpy(), "boxes": boxes.numpy().copy()}
        engines: dict[str, Forward] = {
            "ours": lambda given=(crops, frames, boxes): network.forward(*given)[:, 0].numpy()
        }
        for name, engine in (("ONNX Runtime", onnx_runtime), ("OpenVINO", openvino)):
            try:
                engines[name] = engine(wanted.file, pixels, threads)
            except ModuleNotFoundError:
                continue
        took = in_turns(engines, wanted.rounds)
        for name in engines:
            ratio = took["ours"] / took[name]
            wall_ms, cpu_ms = np.median(took[name], axis=0) * 1e3
            faster, cheaper = np.median(ratio, axis=0)
            print(
                f"| {size} | {name} | {wall_ms:.0f} | {cpu_ms:.0f} | {faster:.2f} | {cheaper:.2f} |",
                flush=True,
            )


@torch.inference_mode()
def in_turns(engines: dict[str, Forward], rounds: int) -> dict[str, np.ndarray]:
    """Wall and CPU seconds of every round, (rounds, 2), after one in which all must say the same."""
    logits = [forward() for forward in engines.values()]
    for theirs in logits:
        np.testing.assert_allclose(theirs, logits[0], atol=0.01)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, forward in engines.items():
            cpu, wall = time.process_time(), time.perf_counter()
            forward()
            took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.array(rows) for name, rows in took.items()}


if __name__ == "__main__":
    main()
