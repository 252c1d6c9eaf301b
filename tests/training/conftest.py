"""A small pack drawn for the purpose: "camera" clips, and "generated" ones with an upsampling trace."""

import json
from pathlib import Path

import numpy as np
import pytest

from specsem.synthetic import frames
from specsem.training.distort import Resize, encode


@pytest.fixture(scope="session")
def drawn_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 24 clips of 96x96: 2 generators and 2 cameras in each split, 3 clips a source."""
    folder = tmp_path_factory.mktemp("pack")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        generated, split, source = number % 2 == 0, "train" if number % 4 < 2 else "val", number % 8
        clip_THWC = np.stack(list(frames(width=96, height=96, count=16, seed=number)))
        if generated:
            clip_THWC = Resize(2.0, "nearest")(Resize(0.5, "area")(clip_THWC, rng), rng)
        path = folder / f"{number:02}.mp4"
        with path.open("wb") as file:
            encode(clip_THWC, file, quality=14)
        lines.append(
            {
                "path": path.name,
                "label": "generated" if generated else "real",
                "source": f"source-{source}",
                "split": split,
                "sha256": f"{number:064x}",
            }
            | ({"generator_family": f"family-{source}"} if generated else {})
        )
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return manifest
