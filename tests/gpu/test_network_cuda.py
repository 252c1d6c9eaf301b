"""What the warm-up chooses on a CUDA device says what the plain forward says."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from specsem.acceleration import PLAIN, CudaGraphs
from specsem.media import DecoderPool, Window
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.network import Network
from specsem.roofline import draw_pixels, roofline
from specsem.scorer import Scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine shows no CUDA device"),
]


@pytest.fixture(scope="module")
def windows(drawn_clip: Path) -> list[Window]:
    with DecoderPool(workers=1) as pool:
        return pool.decode(drawn_clip, Scorer(device="cpu").plan).windows


def test_a_graph_of_each_size_says_what_the_plain_forward_says(windows: list[Window]) -> None:
    plain, graphed = (Scorer(device="cuda", acceleration=how, precision="float32") for how in ("off", "auto"))
    graphed.warm_up()
    assert set(graphed.ways) == {1, 2, 4, 8, 16, 32}
    assert set(graphed.ways.values()) - {PLAIN}  # launching one by one is slower at some size
    for count in (1, 3, 5, 32):
        batch = (windows * 32)[:count]
        expected, said = ([s.logit for s in scorer.score_windows(batch)] for scorer in (plain, graphed))
        np.testing.assert_allclose(said, expected, atol=1e-3)


def test_bfloat16_moves_no_score_by_half_a_percent(windows: list[Window]) -> None:
    full, lowered = (Scorer(device="cuda", precision=precision) for precision in ("float32", "bfloat16"))
    scores = [
        [full.calibration.probability(s.logit) for s in scorer.score_windows(windows)]
        for scorer in (full, lowered)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=0.005)


def test_threads_that_score_at_a_time_get_their_own_answers(windows: list[Window]) -> None:
    scorer = Scorer(device="cuda")
    scorer.warm_up()
    batches = [windows[n % len(windows) :] for n in range(40)]
    expected = [[s.logit for s in scorer.score_windows(batch)] for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(lambda batch: [s.logit for s in scorer.score_windows(batch)], batches))
    for ours, theirs in zip(said, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@torch.inference_mode()
def test_the_published_architecture_can_be_captured() -> None:
    network = Network(SpecSemNet(SpecSemConfig()), torch.device("cuda"), acceleration="off")
    pixels = draw_pixels(network, 2)
    expected = network.forward(*pixels)
    graph = CudaGraphs(network.device)(network.forward, pixels)
    torch.testing.assert_close(graph(*pixels), expected, atol=1e-2, rtol=1e-2)


def test_the_roofline_of_a_device() -> None:
    measured = roofline(Scorer(device="cuda"), [1, 64])
    assert all(point.share_of_matmul and point.share_of_matmul < 1.0 for point in measured.points)
