"""Frames to clip."""

import pytest
import torch

from specsem.temporal import TemporalHead, TemporalKind


@pytest.mark.parametrize("kind", ["transformer", "mean", "conv"])
@pytest.mark.parametrize("frames", [1, 5, 8])
def test_shapes_and_batch_independence(kind: TemporalKind, frames: int) -> None:
    head = TemporalHead(kind, 16, depth=1, heads=4).eval()
    x = torch.randn(3, frames, 16)
    y = head(x)
    assert y.shape == (3, 16)
    torch.testing.assert_close(y[1:2], head(x[1:2]), atol=1e-5, rtol=1e-5)


def test_mean_does_not_know_the_order_and_the_others_do() -> None:
    x = torch.randn(2, 8, 16)
    torch.testing.assert_close(TemporalHead("mean", 16)(x), TemporalHead("mean", 16)(x.flip(1)))
    for kind in ("transformer", "conv"):
        head = TemporalHead(kind, 16, depth=1, heads=4).eval()
        assert not torch.allclose(head(x), head(x.flip(1)), atol=1e-4)


def test_the_paper_s_head_has_eight_heads_and_a_fourfold_feed_forward() -> None:
    head = TemporalHead("transformer", 64)
    layer = head.encoder.layers[0]
    assert layer.self_attn.num_heads == 8
    assert layer.linear1.out_features == 4 * 64
    assert len(head.encoder.layers) == 2
