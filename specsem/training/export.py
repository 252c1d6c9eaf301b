"""Writes a trained model as the folder that the registry reads."""

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file

from specsem.calibration import Calibration
from specsem.model import SpecSemNet

__all__ = ["write_model"]


def write_model(
    folder: Path, net: SpecSemNet, calibration: Calibration, *, name: str, version: str, summary: str
) -> None:
    """``model.safetensors``, ``model.json`` and ``calibration.json``; what was there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}, weights)
    weights.chmod(0o644)  # the service may run as another user than the one who trained
    record = {
        "name": name,
        "version": version,
        "licence": "Apache-2.0",
        "summary": summary,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "config": net.config.to_dict(),
    }
    (folder / "model.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    calibration.save(folder)
