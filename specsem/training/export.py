"""Writes a trained model, or several as the members of one, as the folder that the registry reads."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from specsem.calibration import Calibration
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.registry import ModelRecord

__all__ = ["load_network", "reconfigured", "stack_members", "write_model"]


def load_network(model: ModelRecord) -> SpecSemNet:
    """The network of a model folder, on the CPU."""
    net = SpecSemNet(SpecSemConfig.from_dict(model.config))
    net.load_state_dict(load_file(model.verified_weights()))
    return net.eval()


def reconfigured(net: SpecSemNet, config: SpecSemConfig) -> SpecSemNet:
    """The same weights under another configuration; what it has beyond them, or in another shape, is as
    initialised."""
    other = SpecSemNet(config)
    fresh, weights = other.state_dict(), net.state_dict()
    kept = {key: v for key, v in weights.items() if key not in fresh or v.shape == fresh[key].shape}
    other.load_state_dict({**fresh, **kept})
    return other.eval()


def stack_members(nets: Sequence[SpecSemNet]) -> SpecSemNet:
    """One network whose members these are: it averages their logits.

    Raises:
        ValueError: they differ in their configuration or their semantic tower.
    """
    first = nets[0]
    tower = first.semantic.state_dict()
    looks = first.config.merging != "spectral-only"
    for net in nets[1:]:
        if net.config != first.config:
            raise ValueError("members of different configurations")
        if looks and any(
            not torch.equal(value, tower[key]) for key, value in net.semantic.state_dict().items()
        ):
            raise ValueError("members with different semantic towers")
    branches = [branch for net in nets for branch in net.branches]
    stacked = SpecSemNet(first.config.variant(members=len(branches)))
    stacked.semantic.load_state_dict(tower)
    for branch, member in zip(stacked.branches, branches, strict=True):
        branch.load_state_dict(member.state_dict())
    return stacked.eval()


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
