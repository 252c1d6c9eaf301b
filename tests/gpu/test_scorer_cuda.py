"""The same answers on a CUDA device as on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from specsem.media import DecoderPool
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.scorer import Scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine shows no CUDA device"),
]


def test_scores_agree_within_half_a_percent(drawn_clip: Path) -> None:
    """The shipped model: logits of each window, CPU against CUDA."""
    cpu, cuda = (Scorer(device=device) for device in ("cpu", "cuda"))
    with DecoderPool(workers=1) as pool:
        windows = pool.decode(drawn_clip, cpu.plan).windows
    scores = [
        [scorer.calibration.probability(s.logit) for s in scorer.score_windows(windows)]
        for scorer in (cpu, cuda)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=0.005)


def test_the_published_architecture_runs_on_the_device() -> None:
    torch.manual_seed(0)
    net = SpecSemNet(SpecSemConfig()).eval().cuda()
    frames = torch.randint(0, 256, (2, 8, 224, 224, 3), dtype=torch.uint8, device="cuda")
    with torch.inference_mode():
        logit = net(frames[:, :, None], frames, torch.zeros(2, 1, 4, device="cuda"))
    assert logit.shape == (2,)
    assert torch.isfinite(logit).all()


def test_out_of_memory_halves_the_batch_and_every_window_is_scored(drawn_clip: Path) -> None:
    scorer = Scorer(device="cuda", max_batch=256)
    with DecoderPool(workers=1) as pool:
        windows = pool.decode(drawn_clip, scorer.plan).windows
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        scores = scorer.score_windows((windows * 256)[:256])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(scores) == 256
