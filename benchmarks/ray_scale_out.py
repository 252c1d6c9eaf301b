"""Throughput against replicas on Ray, with a model that sleeps: what the way to the replicas costs.

``python benchmarks/ray_scale_out.py`` (in the developers' environment): one process asks 1, 2, 4, 8 and 16
replicas on this machine, each of which takes 200 ms for a batch of at most 4 clips and no CPU for it. So a
replica can do 20 clips a second, and what is missing at many of them is the price of the way. Asked with
clips as they are (14.5 MB) and with tiny ones. Prints JSON. docs/scaling.md holds what came of it.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.ray_app import APPLICATION, MODEL, RayEngine, serving  # first: it tells Ray how to behave

# isort: split
import numpy as np
from ray import serve

from app.settings import Settings
from specsem.media import SamplePlan, Window
from tests.app import doubles

BATCH = 4
FORWARD_S = 0.2


class Sleeping(doubles.Engine):
    """An engine whose model sleeps."""

    def _score_together(self, clips: Sequence[Any]) -> Any:
        time.sleep(FORWARD_S)
        return [[f"{window.start_s}" for window in clip.windows] for clip in clips]


def windows(plan: SamplePlan) -> list[Window]:
    """What is decoded of one file."""
    return [
        Window(
            float(number),
            number + 0.3,
            np.zeros(plan.crops_shape, np.uint8),
            np.zeros(plan.frames_shape, np.uint8),
            np.zeros((plan.crops, 4), np.float32),
        )
        for number in range(plan.windows)
    ]


async def measure(settings: Settings, clip: list[Window], callers: int, seconds: float) -> dict[str, float]:
    """Clips a second while so many callers ask again and again, and CPU of this process for each."""
    handle = serve.get_deployment_handle(MODEL, app_name=APPLICATION)
    engine = RayEngine(settings, handle, doubles.load_judge)
    await engine.start()
    done = 0

    async def ask(ends: float) -> None:
        nonlocal done
        while time.perf_counter() < ends:
            await engine.score_windows(clip, lane="bulk")
            done += 1

    await asyncio.gather(*(ask(time.perf_counter() + 2.0) for _ in range(callers)))  # all replicas are known
    done, begun, cpu_s = 0, time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask(begun + seconds) for _ in range(callers)))
    elapsed_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
    await engine.aclose()
    return {
        "clips_per_s": round(done / elapsed_s, 1),
        "caller_cpu_ms_a_clip": round(1e3 * cpu_s / max(1, done), 2),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    here = Path(__file__).parent.parent
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (here, here / "tests" / "app", here / "benchmarks")))
    sizes = {"whole": windows(SamplePlan()), "tiny": [doubles.window(0.0, 0.5)]}
    report: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "ideal_per_replica": BATCH / FORWARD_S,
    }
    for replicas in asked.replicas:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(
                data_dir=Path(folder),
                port=0,
                ray_replicas=replicas,
                max_batch_clips=BATCH,
                ray_replica_cpus=0.1,
                max_queue_clips=1000,
            )
            with serving(
                settings, make_engine=Sleeping, load_judge=doubles.load_judge, make_decoder=doubles.Decoder
            ):
                for size, clip in sizes.items():
                    found = asyncio.run(measure(settings, clip, 3 * BATCH * replicas, asked.seconds))
                    report[f"{replicas} replicas, {size} clips"] = found
                    print(json.dumps({f"{replicas}, {size}": found}), flush=True)
    report["load_after"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
