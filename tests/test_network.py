"""A network on its device: what of it is said, and in which precision."""

from pathlib import Path

import numpy as np
import pytest
import torch

from specsem.media import DecoderPool
from specsem.model import SpecSemNet
from specsem.network import Network, settle_precision
from specsem.scorer import Scorer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shipped(drawn_clip: Path) -> tuple[Scorer, Scorer, list[object]]:
    """The shipped model in both precisions, and the windows of a clip."""
    full, lowered = (Scorer(device="cpu", precision=precision) for precision in ("float32", "bfloat16"))
    with DecoderPool(workers=1) as pool:
        return full, lowered, pool.decode(drawn_clip, full.plan).windows


def test_bfloat16_moves_no_score_by_half_a_percent(shipped: tuple[Scorer, Scorer, list[object]]) -> None:
    *scorers, windows = shipped
    logits = [[said.logit for said in scorer.score_windows(windows)] for scorer in scorers]
    scores = [list(map(scorers[0].calibration.probability, row)) for row in logits]
    assert logits[0] != logits[1]  # it was computed in another precision
    np.testing.assert_allclose(scores[0], scores[1], atol=0.005)


def test_gates_come_when_asked_for_and_change_nothing(shipped: tuple[Scorer, Scorer, list[object]]) -> None:
    scorer, _, windows = shipped
    plain, gated = scorer.score_windows(windows), scorer.score_windows(windows, gates=True)
    assert all(said.gate_Nhw.size == 0 for said in plain)
    assert all(said.gate_Nhw.ndim == 3 and said.gate_Nhw.size > 0 for said in gated)
    for a, b in zip(plain, gated, strict=True):
        assert (a.logit, a.semantic_logit, a.motion) == pytest.approx((b.logit, b.semantic_logit, b.motion))


def test_a_row_holds_what_the_network_judges(shipped: tuple[Scorer, Scorer, list[object]]) -> None:
    scorer, _, windows = shipped
    network = scorer._network
    with torch.inference_mode():
        judged = network.net.judge(*network.pixels(windows))
        said = network.say(windows)
    np.testing.assert_allclose([one.logit for one in said], judged.logit_B, atol=1e-5)
    np.testing.assert_allclose([one.semantic_logit for one in said], judged.semantic_logit_B, atol=1e-5)
    np.testing.assert_allclose(np.stack([one.features_D for one in said]), judged.features_BD, atol=1e-5)
    np.testing.assert_allclose(np.stack([one.shown_D for one in said]), judged.shown_BD, atol=1e-5)


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert settle_precision("auto", CPU) == "float32"
    assert settle_precision("bfloat16", CPU) == "bfloat16"


def test_the_given_network_stays_trainable(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specsem.model import SpecSemConfig
    from specsem.registry import read_model

    net = SpecSemNet(SpecSemConfig.from_dict(read_model(tiny_models / "specsem-compact").config))
    Network(net, CPU, precision="bfloat16")
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert any(parameter.requires_grad for parameter in net.parameters())
