"""Several nets become the members of one; a model folder survives the way through the registry."""

from pathlib import Path

import numpy as np
import pytest
import torch

from specsem.calibration import Calibration
from specsem.media import Window
from specsem.model import SpecSemConfig, SpecSemNet, TowerConfig
from specsem.registry import read_model
from specsem.result import Threshold
from specsem.scorer import Scorer
from specsem.training.export import stack_members, write_model

CONFIG = SpecSemConfig(
    spectral="conv",
    semantic=TowerConfig(image_size=32, patch_size=16, width=32, layers=2, heads=2, output_dim=16),
    gate_hidden=8,
    conv_widths=(8, 16, 16),
    conv_depths=(0, 1),
    temporal="mean",
    temporal_width=12,
    crop_side=48,
)


def nets(count: int, config: SpecSemConfig = CONFIG) -> list[SpecSemNet]:
    """Different branches on one semantic tower."""
    torch.manual_seed(0)
    made = [SpecSemNet(config).eval() for _ in range(count)]
    for net in made[1:]:
        net.semantic.load_state_dict(made[0].semantic.state_dict())
    return made


def windows(count: int) -> list[Window]:
    rng = np.random.default_rng(0)
    return [
        Window(
            start_s=0.0,
            end_s=0.3,
            crops_TNHWC=rng.integers(0, 256, (8, 1, 48, 48, 3), np.uint8),
            frames_THWC=rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
            boxes_N4=np.array([[0.1, 0.2, 0.6, 0.7]], np.float32),
        )
        for _ in range(count)
    ]


def write(folder: Path, net: SpecSemNet) -> Scorer:
    """A scorer of this net, by way of a model folder; the training domain is a point at the origin."""
    threshold = Threshold(value=0.9, lower=0.1, max_fpr=0.01, fpr_upper95=0.05, calibration_n=60)
    calibration = Calibration(
        slope=1.0,
        intercept=0.0,
        policies={"default": threshold},
        feature_mean=(0.0,) * net.feature_width,
        feature_std=(1.0,) * net.feature_width,
    )
    write_model(folder, net, calibration, name="test", version="1", summary="A test.")
    return Scorer(read_model(folder), device="cpu")


def test_a_stack_scores_as_its_members_do_on_average(tmp_path: Path) -> None:
    members = nets(2)
    scorer = write(tmp_path / "both", stack_members(members))
    assert scorer.record.config["members"] == 2
    both = scorer.score_windows(windows(3))
    apart = [
        write(tmp_path / str(number), net).score_windows(windows(3)) for number, net in enumerate(members)
    ]
    for score, *own in zip(both, *apart, strict=True):
        assert score.logit == pytest.approx(np.mean([one.logit for one in own]), abs=1e-5)
        np.testing.assert_allclose(
            score.features_D, np.concatenate([one.features_D for one in own]), atol=1e-5
        )
        distances = [scorer.calibration.distance(score.features_D.tolist())]
        distances += [np.sqrt(np.mean(np.square(one.features_D))) for one in own]
        assert min(distances[1:]) <= distances[0] <= max(distances[1:])  # whatever the number of members


def test_what_does_not_fit_together_is_refused() -> None:
    one, two = nets(2)
    with pytest.raises(ValueError, match="configurations"):
        stack_members([one, *nets(1, CONFIG.variant(radius=16.0))])
    with torch.no_grad():
        two.semantic.class_embedding[0] += 1
    with pytest.raises(ValueError, match="semantic towers"):
        stack_members([one, two])


def test_ungated_members_need_no_common_tower() -> None:
    """They never look at it."""
    members = nets(2, CONFIG.variant(merging="spectral-only"))
    with torch.no_grad():
        members[1].semantic.class_embedding[0] += 1
    assert stack_members(members).config == CONFIG.variant(merging="spectral-only", members=2)
