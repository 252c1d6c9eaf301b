"""A model as ONNX: it says the same, for any number of windows, or it is not left there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specsem.errors import ExportRefused, FileUnusable, ModelError, WeightsMissing
from specsem.media import Window
from specsem.model import SpecSemConfig, SpecSemNet, TowerConfig
from specsem.registry import ModelRecord, get_model, read_model
from specsem.scorer import Scorer
from specsem.training.export import UNCALIBRATED, write_model

export = pytest.importorskip("specsem.export", reason="needs the extra `onnx`", exc_type=ModuleNotFoundError)

TOWER = TowerConfig(image_size=32, patch_size=16, width=32, layers=2, heads=2, output_dim=32)
COMPACT = SpecSemConfig(
    spectral="conv",
    semantic=TOWER,
    gate_hidden=8,
    conv_widths=(8, 16),
    conv_depths=(1,),
    pooling="mean-std",
    residual_norm="asinh",
    spectral_stride=4,
    temporal="mean",
    temporal_width=16,
    semantic_head=True,
    semantic_supports=5,
    crop_side=48,
    crops=2,
    windows=2,
)
PUBLISHED = SpecSemConfig(
    semantic=replace(TOWER, layers=1), gate_hidden=16, temporal_depth=1, temporal_heads=2, windows=2
)


def registered(config: SpecSemConfig, folder: Path) -> ModelRecord:
    """A model with weights that make all of its parts speak."""
    torch.manual_seed(0)
    net = SpecSemNet(config)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith((".alpha_S", ".support_SD", "last.weight")):
                tensor.normal_(std=0.3)
    write_model(folder, net, UNCALIBRATED, name=folder.name, version="1", summary="For tests.")
    return read_model(folder)


@pytest.fixture(scope="module", params=[COMPACT, PUBLISHED], ids=["compact", "published"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, drawn_clip: Path
) -> tuple[ModelRecord, Path, "export.Parity"]:
    folder = tmp_path_factory.mktemp("export")
    record = registered(request.param, folder / "model")
    return record, folder / "model.onnx", export.export_onnx(record, folder / "model.onnx", [drawn_clip])


def noise(config: SpecSemConfig, count: int) -> list[Window]:
    plan, rng = config.plan(), np.random.default_rng(count)
    boxes_N4 = np.array([[0.1, 0.2, 0.4, 0.6], [0.5, 0.4, 0.9, 0.8]], np.float32)[: plan.crops]
    return [
        Window(
            0.0,
            1.0,
            rng.integers(0, 256, plan.crops_shape, np.uint8),
            rng.integers(0, 256, plan.frames_shape, np.uint8),
            boxes_N4.reshape(plan.crops, 4),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_windows_says_all_that_the_model_says(
    written: tuple[ModelRecord, Path, "export.Parity"], count: int
) -> None:
    record, file, _ = written
    windows = noise(SpecSemConfig.from_dict(record.config), count)
    expected = Scorer(record, device="cpu").score_windows(windows)
    found = export.OnnxScorer(file, record).score_windows(windows)
    for ours, theirs in zip(expected, found, strict=True):
        for name in ("logit", "semantic_logit", "motion", "detail", "features_D", "shown_D"):
            np.testing.assert_allclose(
                getattr(theirs, name), getattr(ours, name), rtol=1e-4, atol=2e-4, err_msg=name
            )


def test_it_was_checked_on_drawn_clips_and_those_given(
    written: tuple[ModelRecord, Path, "export.Parity"],
) -> None:
    _, _, parity = written
    assert (parity.clips, parity.windows) == (4, 2 * 3 + 2 + 2)
    assert parity.score <= parity.logit < 1e-3


def test_the_file_describes_itself(written: tuple[ModelRecord, Path, "export.Parity"]) -> None:
    import onnxruntime

    record, file, _ = written
    described = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    model, plan, calibration = (
        json.loads(described[f"specsem.{name}"]) for name in ("model", "plan", "calibration")
    )
    assert model["sha256"] == record.sha256
    assert plan["frames"] == 8
    assert calibration["policies"]["default"]["value"] == 0.5


def test_what_says_otherwise_is_not_left_there(
    written: tuple[ModelRecord, Path, "export.Parity"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, file, _ = written

    def with_other_weights(*args: Any, **options: Any) -> Scorer:
        scorer = Scorer(*args, **options)
        for branch in scorer._network.net.branches:
            branch.head.bias += 0.1  # type: ignore[operator, union-attr]
        return scorer

    monkeypatch.setattr(export, "Scorer", with_other_weights)
    monkeypatch.setattr(export, "_write", lambda _net, _judge, part: shutil.copy(file, part))
    (tmp_path / "model.onnx").write_text("an older one")
    with pytest.raises(ExportRefused, match=r"a score differs by 0\.0"):
        export.export_onnx(record, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "an older one"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, tiny_models: Path) -> None:
    record = registered(PUBLISHED, tmp_path / "model")
    with pytest.raises(FileUnusable, match=r"model\.onnx can't be written there"):
        export.export_onnx(record, tmp_path / "nowhere" / "model.onnx")
    (tmp_path / "no.onnx").write_text("nothing of the kind")
    with pytest.raises(ModelError, match=r"no\.onnx is no ONNX model"):
        export.OnnxScorer(tmp_path / "no.onnx", record)
    with pytest.raises(WeightsMissing):
        export.export_onnx(get_model("specsem-b32"), tmp_path / "b32.onnx")
    assert not list(tmp_path.glob("*.part"))


def test_another_model_s_file_is_refused(
    written: tuple[ModelRecord, Path, "export.Parity"], tmp_path: Path
) -> None:
    _, file, _ = written
    other = registered(COMPACT.variant(members=2), tmp_path / "other")
    with pytest.raises(ModelError, match=r"was not made of other 1\."):
        export.OnnxScorer(file, other)
