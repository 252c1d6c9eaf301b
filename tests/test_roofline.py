"""Ceilings, floors and what is left out; no figure is asserted but what arithmetic fixes."""

from pathlib import Path

import pytest
import torch

from specsem import roofline as module
from specsem.errors import ModelError
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.network import Network
from specsem.roofline import draw_pixels, operations, roofline
from specsem.scorer import Scorer


@pytest.fixture
def scorer(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    monkeypatch.setattr(module, "matmul_gflops", lambda *_: 100.0)
    monkeypatch.setattr(module, "copy_gb_s", lambda *_: 10.0)
    return Scorer(device="cpu")


def test_every_size_is_held_against_its_floor(scorer: Scorer) -> None:
    measured = roofline(scorer, [2, 1])
    assert (measured.precision, measured.matmul_gflops, measured.copy_gb_s) == ("float32", 100.0, 10.0)
    assert [(point.model, point.windows) for point in measured.points] == [
        ("specsem-compact", 1),
        ("specsem-compact", 2),
    ]
    config = scorer._network.net.config
    gflop = operations(SpecSemNet(config), draw_pixels(scorer._network, 2)) / 1e9
    two = measured.points[1]
    assert two.ms is not None
    assert two.gflops == pytest.approx(gflop / two.ms * 1e3, rel=0.05, abs=0.1)
    assert two.way == "plain"
    assert two.times_floor is not None
    assert two.times_floor > 1


def test_operations_are_those_of_the_published_architecture() -> None:
    """74.2 GMAC a clip of 8 frames are stated; counted are ours, with a head of two layers."""
    with torch.device("meta"):
        net = SpecSemNet(SpecSemConfig())
    frames = torch.zeros(1, 8, 224, 224, 3, dtype=torch.uint8)
    crops, boxes = torch.zeros(1, 8, 0, 0, 0, 3, dtype=torch.uint8), torch.zeros(1, 0, 4)
    net.to_empty(device="cpu")
    assert operations(net, (crops, frames, boxes)) / 2e9 == pytest.approx(74.2, rel=0.02)


def test_what_would_take_too_long_is_left_out_and_said(scorer: Scorer) -> None:
    measured = roofline(scorer, [1, 2, 4], budget_s=0.0, also=())
    assert [point.ms is None for point in measured.points] == [False, True, True]
    assert all("left out" in point.note for point in measured.points[1:])


def test_what_needs_too_much_memory_is_left_out(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_peak_bytes", lambda _device: module._restart_peak(_device) + (100 << 20))
    monkeypatch.setattr(module, "_free_bytes", lambda _device: 300 << 20)
    measured = roofline(scorer, [1, 2], also=())
    assert "MiB" in measured.points[1].note


def test_out_of_memory_ends_a_model(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(self: Network, *pixels: torch.Tensor, **_more: object) -> torch.Tensor:
        if len(pixels[1]) > 1:
            raise torch.OutOfMemoryError
        return torch.zeros(len(pixels[1]), 4)

    monkeypatch.setattr(Network, "_say", small)
    measured = roofline(scorer, [1, 2, 4], also=())
    assert [point.ms is None for point in measured.points] == [False, True, True]


def test_a_batch_of_nothing_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ModelError, match="one window"):
        roofline(scorer, [0])
