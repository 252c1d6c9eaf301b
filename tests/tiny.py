"""A model small enough to be made on the spot."""

from pathlib import Path


def write_tiny_models(folder: Path) -> Path:
    """Fill a folder of models (for SPECSEM_MODELS_DIR) with an untrained `specsem-compact` of some KB."""
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
    write_model(
        folder / "specsem-compact",
        SpecSemNet(config),
        Calibration(slope=1.0, intercept=0.0, policies={"default": threshold}, domain=domain),
        name="specsem-compact",
        version="0-tiny",
        summary="Untrained, for tests.",
    )
    return folder
