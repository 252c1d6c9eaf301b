"""Heads are fitted to what their network has not left out, and say in a network what they say on paper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.model import SpecSemConfig, SpecSemNet, TowerConfig
from specsem.scorer import WindowScore
from specsem.training.data import Item
from specsem.training.export import reconfigured
from specsem.training.semantic_head import (
    SemanticHead,
    apply_heads,
    fit_semantic_heads,
    shown_features,
)

WIDTH = 12


def made(number: int) -> FileScore:
    """The third feature tells the classes apart a little, the spectral logit a little more."""
    rng = np.random.default_rng(number)
    generated = number % 2 == 0
    item = Item(Path(f"{number}.mp4"), generated, f"s{number // 4}", f"g{number // 4}", "val")
    shown_D = rng.normal(size=WIDTH).astype("f4") * 3 + 5
    shown_D[2] += 5 * generated
    windows = [
        WindowScore(k, k + 0.3, rng.normal(0.8 * generated), 2.0, 3.0, np.zeros(2, "f4"), 0.0, shown_D + k)
        for k in range(2)
    ]
    return FileScore(item, "as-is", windows, fold=str(number // 4 % 4))


SCORES = [made(number) for number in range(320)]


def auc(scores: list[FileScore]) -> float:
    return float(roc_auc_score([s.item.generated for s in scores], [s.logit for s in scores]))


def test_unseen_clips_are_told_apart_better_than_by_the_spectral_logit_alone() -> None:
    fused = apply_heads(SCORES, fit_semantic_heads(SCORES))
    assert auc(fused) > auc(SCORES) + 0.03
    window = fused[0].windows[0]
    assert window.logit != window.semantic_logit != 0.0


def test_a_head_does_not_see_the_clips_of_its_own_fold() -> None:
    turned = [
        replace(s, item=replace(s.item, generated=not s.item.generated)) if s.fold == "1" else s
        for s in SCORES
    ]
    before, after = fit_semantic_heads(SCORES), fit_semantic_heads(turned)
    np.testing.assert_array_equal(before["1"].alpha_S, after["1"].alpha_S)
    np.testing.assert_array_equal(before["1"].support_SD, after["1"].support_SD)
    assert not np.array_equal(before["0"].alpha_S, after["0"].alpha_S)


def test_a_network_says_what_its_head_says_on_paper() -> None:
    torch.manual_seed(0)
    tower = TowerConfig(image_size=32, patch_size=8, width=32, layers=3, heads=2, output_dim=16)
    shape = {"conv_widths": (8, 16), "conv_depths": (0,), "gate_hidden": 8, "temporal": "mean"}
    config = SpecSemConfig(
        spectral="conv", semantic=tower, crop_side=48, crops=2, frame_fit="squash", **shape
    )
    net = reconfigured(SpecSemNet(config), config.variant(semantic_head=True))
    crops = torch.randint(0, 256, (2, 8, 2, 48, 48, 3), dtype=torch.uint8)
    frames = torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8)
    x = (crops, frames, torch.rand(2, 2, 4).sort(-1).values)
    with torch.no_grad():
        before = net.judge(*x)
    assert before.shown_BD.shape == (2, 12 * 32)
    assert before.semantic_logit_B.abs().max() == 0  # it says nothing until it is fitted
    rng = np.random.default_rng(0)
    head = SemanticHead(
        gain=0.7,
        scale_D=rng.uniform(0.5, 2, 12 * 32),
        support_SD=rng.normal(size=(5, 12 * 32)).astype(np.float16),
        alpha_S=rng.normal(size=5) * 10,
        gamma=0.6,
        bias=0.3,
    )
    net = head.installed(net, supports=7)
    with torch.no_grad():
        after = net.judge(*x)
    for number in range(2):
        window = WindowScore(
            0,
            1,
            float(before.logit_B[number]),
            1.0,
            1.0,
            np.zeros(1, "f4"),
            0.0,
            before.shown_BD[number].numpy(),
        )
        (expected,) = head.apply(FileScore(SCORES[0].item, "as-is", [window])).windows
        assert float(after.logit_B[number]) == pytest.approx(expected.logit, abs=1e-4)
        assert float(after.semantic_logit_B[number]) == pytest.approx(expected.semantic_logit, abs=1e-4)


def test_features_of_a_file_are_the_mean_of_its_windows() -> None:
    expected = np.mean([w.shown_D for w in SCORES[3].windows], axis=0)
    np.testing.assert_allclose(shown_features(SCORES[:5])[3], expected)


def test_too_few_folds_or_no_features_are_refused() -> None:
    with pytest.raises(SpecSemError, match="3 folds"):
        fit_semantic_heads([s for s in SCORES if s.fold in "01"])
    bare = [replace(s, windows=[replace(w, shown_D=np.zeros(0, "f4")) for w in s.windows]) for s in SCORES]
    with pytest.raises(SpecSemError, match="no semantic features"):
        fit_semantic_heads(bare)
