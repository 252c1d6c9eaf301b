"""Writes a trained model, or several as the members of one, as the folder that the registry reads."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from specsem.calibration import Calibration, DomainLimits
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.registry import ModelRecord, read_model
from specsem.result import Threshold

__all__ = [
    "UNCALIBRATED",
    "reconfigured",
    "stack_members",
    "unstacked",
    "write_members",
    "write_model",
]

UNCALIBRATED = Calibration(
    slope=1.0,
    intercept=0.0,
    policies={"default": Threshold(value=0.5, lower=0.5, max_fpr=1, fpr_upper95=1, calibration_n=0)},
    domain=DomainLimits(max_distance=1e9),
)


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


def unstacked(net: SpecSemNet) -> list[SpecSemNet]:
    """Each member as a network of its own: what ``stack_members`` was given."""
    members = []
    for branch in net.branches:
        member = SpecSemNet(net.config.variant(members=1))
        member.semantic.load_state_dict(net.semantic.state_dict())
        member.branches[0].load_state_dict(branch.state_dict())
        members.append(member.eval())
    return members


def write_model(
    folder: Path,
    net: SpecSemNet,
    calibration: Calibration,
    *,
    name: str,
    version: str,
    summary: str,
    folds: str = "",
) -> None:
    """``model.safetensors``, ``model.json`` and ``calibration.json``; what was there is replaced.

    ``folds``: as in ``ModelRecord``.
    """
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
    if folds:
        record["folds"] = folds
    (folder / "model.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    calibration.save(folder)


def write_members(
    folder: Path, nets: Sequence[SpecSemNet], *, name: str, version: str, summary: str
) -> list[ModelRecord]:
    """Each as an uncalibrated model of its own, in a folder by its number, which is that of the fold it has
    not seen."""
    folders = [folder / str(number) for number in range(len(nets))]
    for own, net in zip(folders, nets, strict=True):
        write_model(own, net, UNCALIBRATED, name=name, version=version, summary=summary)
    return [read_model(own) for own in folders]
