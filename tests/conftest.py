"""Fixtures for all: a clip drawn for the purpose, and a model small enough to be made on the spot."""

import signal
from pathlib import Path

import pytest

from specsem.synthetic import write_clip


def pytest_configure() -> None:
    """Where a shell runs the suite in its background, all that the tests start would be deaf to Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def drawn_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 320x240 H.264. Read only."""
    path = tmp_path_factory.mktemp("drawn") / "clip.mp4"
    write_clip(path, width=320, height=240, seconds=2.0)
    return path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models (for SPECSEM_MODELS_DIR) with one untrained `specsem-compact` of a few kilobytes."""
    import torch

    from specsem.calibration import Calibration, DomainLimits
    from specsem.model import SpecSemConfig, SpecSemNet, TowerConfig
    from specsem.result import Threshold
    from specsem.training.export import write_model

    torch.manual_seed(0)
    config = SpecSemConfig(
        spectral="conv",
        semantic=TowerConfig(image_size=32, patch_size=16, width=32, layers=2, heads=2, output_dim=32),
        gate_hidden=8,
        conv_widths=(8, 16, 16),
        conv_depths=(1, 1),
        temporal="mean",
        crop_side=64,
        windows=2,
    )
    threshold = Threshold(value=0.9, lower=0.1, max_fpr=0.01, fpr_upper95=0.05, calibration_n=60)
    domain = DomainLimits(max_distance=1e9)
    folder = tmp_path_factory.mktemp("models")
    write_model(
        folder / "specsem-compact",
        SpecSemNet(config),
        Calibration(slope=1.0, intercept=0.0, policies={"default": threshold}, domain=domain),
        name="specsem-compact",
        version="0-tiny",
        summary="Untrained, for tests.",
    )
    return folder
