"""The smallest recipe that learns the drawn pack, in seconds."""

import json
from pathlib import Path

from specsem.model import SpecSemConfig, TowerConfig
from specsem.training.cache import CacheSpec
from specsem.training.loop import TrainConfig

TINY = SpecSemConfig(
    spectral="conv",
    semantic=TowerConfig(image_size=32, patch_size=16, width=32, layers=2, heads=2, output_dim=16),
    merging="spectral-only",
    gate_hidden=8,
    conv_widths=(8, 16, 16),
    conv_depths=(0, 0),
    temporal="mean",
    pooling="mean-std",
    crop_side=64,
    frame_fit="squash",
    windows=2,
)
CONFIG = TrainConfig(
    model=TINY,
    cache=CacheSpec(variants=2, draws=1, crop_side=64, frame_side=32),
    steps=60,
    batch=8,
    crop_side=48,
    frames=2,
    learning_rate=5e-3,
    ema=0.8,
    mixed_precision=False,
)


def recipe(path: Path, config: TrainConfig = CONFIG, semantics: str = "distill") -> Path:
    fields = {
        "name": "specsem-test",
        "version": "1",
        "summary": "A test.",
        "semantics": semantics,
        "distill_steps": 2,
        "stages": [config.to_dict()],
    }
    path.write_text(json.dumps(fields))
    return path
