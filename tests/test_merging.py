"""The gated merging mechanism and its ablation variants (paper: gated merging)."""

import pytest
import torch

from specsem.merging import Merging, MergingKind

SEM, SPEC = torch.randn(2, 50, 12), torch.randn(2, 50, 8)


def merging(kind: MergingKind, gate_bias: float = -4.0) -> Merging:
    torch.manual_seed(0)
    return Merging(kind, sem_width=12, spec_width=8, hidden=6, gate_bias=gate_bias)


def test_the_gate_starts_near_the_identity() -> None:
    merged = merging("gate")(SEM, SPEC)
    torch.testing.assert_close(merged, SPEC * (1 + torch.sigmoid(torch.tensor(-4.0))))
    assert (merged / SPEC).max() ** 12 < 1.25  # over the twelve layers of the paper, not 130-fold


def test_suppression_starts_as_the_identity_and_concatenation_too() -> None:
    torch.testing.assert_close(merging("suppress")(SEM, SPEC), SPEC)
    torch.testing.assert_close(merging("concat")(SEM, SPEC), SPEC)
    assert merging("spectral-only")(SEM, SPEC) is SPEC


def test_the_gate_is_the_papers_formula() -> None:
    """g = sigmoid(MLP([sem; spec])) written with the concatenation."""
    layer = merging("gate")
    torch.nn.init.normal_(layer.last.weight)
    joint = torch.cat([layer.pair.sem.weight, layer.pair.spec.weight], dim=1)
    hidden = torch.nn.functional.gelu(torch.cat([SEM, SPEC], dim=-1) @ joint.T + layer.pair.sem.bias)
    g = torch.sigmoid(hidden @ layer.last.weight.T + layer.last.bias)
    torch.testing.assert_close(layer(SEM, SPEC), SPEC * (1 + g))
    torch.testing.assert_close(layer.gate(SEM, SPEC), g)


@pytest.mark.parametrize(("kind", "low", "high"), [("gate", 1.0, 2.0), ("suppress", 0.0, 2.0)])
def test_the_gates_range(kind: MergingKind, low: float, high: float) -> None:
    layer = merging(kind)
    torch.nn.init.normal_(layer.last.weight, std=50)
    ratio = layer(SEM, torch.ones_like(SPEC))
    assert ratio.min() >= low
    assert ratio.max() <= high
    assert ratio.min() < low + 0.05
    assert ratio.max() > high - 0.05


def test_semantic_only_does_not_see_the_spectrum() -> None:
    layer = merging("semantic-only")
    torch.testing.assert_close(layer(SEM, SPEC), layer(SEM, torch.zeros_like(SPEC)))


@pytest.mark.parametrize("kind", ["gate", "suppress", "concat", "semantic-only"])
def test_one_semantic_frame_can_stand_for_several(kind: MergingKind) -> None:
    layer = merging(kind)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    sem, spec = torch.randn(2, 1, 5, 12), torch.randn(2, 8, 5, 8)
    torch.testing.assert_close(layer(sem, spec), layer(sem.expand(2, 8, 5, 12), spec))
