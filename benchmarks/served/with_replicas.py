"""Our service on Ray, with replicas of a model that sleeps and clips of a size that is asked for."""

import argparse
import threading
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import doubles  # of tests/app
import numpy as np

from app.ray_app import serving
from app.settings import Settings
from specsem.media import Clip, SamplePlan

BATCH_S = 0.2
"""What the model takes for a batch, whatever is in it: a replica with batches of 4 does 20 clips a second."""
CLIP_MEGABYTES = 14.5
"""As decoded for `specsem-compact`."""


class Engine(doubles.Engine):
    """The service's own engine and batcher around it."""

    def _score_together(self, clips: Any) -> Any:
        time.sleep(BATCH_S)
        return super()._score_together(clips)


@cache
def _pixels(megabytes: float) -> Any:
    return np.ones((1, 1, 1, int(megabytes * 1e6 / 3), 3), np.uint8)


class HeavyDecoder(doubles.Decoder):
    """Clips of that size."""

    def decode(self, path: Path, plan: SamplePlan, /, *, cancel: threading.Event | None) -> Clip:
        clip = super().decode(path, plan, cancel=cancel)
        pixels = _pixels(CLIP_MEGABYTES / len(clip.windows))
        return replace(clip, windows=[replace(window, crops_TNHWC=pixels) for window in clip.windows])


DECODERS = {"light": doubles.Decoder, "heavy": HeavyDecoder}


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--clips", choices=DECODERS, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    settings = Settings(
        port=given.port,
        data_dir=given.folder,
        max_batch_clips=given.batch,
        max_queue_clips=1024,
        access_log=False,
        ray_replicas=given.replicas,
        ray_replica_cpus=0.01,  # it sleeps
    )
    with serving(
        settings,
        make_engine=Engine,
        load_judge=doubles.load_judge,
        make_decoder=DECODERS[given.clips],
    ):
        threading.Event().wait()


if __name__ == "__main__":
    import with_replicas  # so that Ray's workers find by name what is made here

    with_replicas.main()
