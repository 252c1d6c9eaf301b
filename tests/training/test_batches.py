"""What a training step sees: balanced, paired, grouped, and the same again after a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch

from specsem.training.batches import Rows, augment, batches
from specsem.training.cache import CacheSpec, CropCache
from specsem.training.data import Item

SPEC = CacheSpec(variants=2, draws=1, frames=4, crop_side=24, frame_side=8, twins=1.0)


def item(number: int) -> Item:
    return Item(
        Path(f"{number}.mp4"), number % 2 == 0, f"source-{number % 4}", f"group-{number % 4}", "train"
    )


@pytest.fixture
def cache(tmp_path: Path) -> CropCache:
    """Eight items; camera clips have twins of zoo 0 in their first life, of zoo 1 in their second."""
    filled = CropCache([item(n) for n in range(8)], SPEC, tmp_path)
    rng = np.random.default_rng(0)
    for row in range(len(filled)):
        sample = (
            rng.integers(0, 256, (4, 24, 24, 3)).astype(np.uint8),
            rng.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8),
            np.array([0.0, 0, 1, 1], np.float32),
        )
        filled.put(row, sample, zoo=row % 2 if row >= filled.own_rows else -1)
    return filled


def test_half_of_a_batch_is_generated_and_a_step_is_drawn_alike_each_time(cache: CropCache) -> None:
    rows = Rows(cache, range(8), batch=8, seed=3)
    drawn, pairs = rows.draw(5)
    assert [cache.items[cache.item_M[row]].generated for row in drawn] == [False, True] * 4
    assert pairs == [-1] * 8
    assert (drawn, pairs) == Rows(cache, range(8), batch=8, seed=3).draw(5)
    assert drawn != rows.draw(6)[0]
    assert drawn != Rows(cache, range(8), batch=8, seed=4).draw(5)[0]


def test_aligned_fakes_stand_beside_their_own_camera_sample(cache: CropCache) -> None:
    rows = Rows(cache, range(8), batch=8, aligned=1.0)
    drawn, pairs = rows.draw(0)
    assert pairs == [-1, 0, -1, 2, -1, 4, -1, 6]
    for place, pair in enumerate(pairs):
        if pair >= 0:
            assert drawn[place] == cache.twin_of(drawn[pair])
            assert rows.source_class(drawn[place]) == rows.class_count - 1


def test_a_zoo_that_knows_the_fold_that_is_held_out_is_not_used(cache: CropCache) -> None:
    rows = Rows(cache, range(8), batch=8, aligned=1.0, zoos={1})
    twins = [row for step in range(20) for row in rows.draw(step)[0] if row >= cache.own_rows]
    assert twins
    assert {int(cache.zoo_M[row]) for row in twins} == {1}


def test_only_members_are_drawn(cache: CropCache) -> None:
    rows = Rows(cache, [0, 1, 2, 3], batch=8, aligned=0.5)
    seen = {int(cache.item_M[row]) for step in range(30) for row in rows.draw(step)[0]}
    assert seen == {0, 1, 2, 3}


def test_groups_of_any_hold_nothing_or_a_minority(cache: CropCache) -> None:
    rows = Rows(cache, range(8), batch=16, observed="any", group=8)
    counts = []
    for step in range(40):
        generated = np.array([cache.items[cache.item_M[row]].generated for row in rows.draw(step)[0]])
        counts += generated.reshape(2, 8).sum(1).tolist()
    assert 0.3 < np.mean(np.array(counts) == 0) < 0.7
    assert max(counts) == 4
    with pytest.raises(ValueError, match="whole number"):
        Rows(cache, range(8), batch=12, observed="any", group=8)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_carry_pairs_and_sources(cache: CropCache, workers: int) -> None:
    rows = Rows(cache, range(8), batch=4, aligned=0.5, seed=1)
    for step, batch in zip(range(2, 6), batches(rows, range(2, 6), workers=workers), strict=True):
        drawn, pairs = rows.draw(step)
        assert batch["pair"].tolist() == pairs
        assert batch["source"].tolist() == [rows.source_class(row) for row in drawn]
        torch.testing.assert_close(batch["crops"][0], torch.from_numpy(cache.crops_MTSSC[drawn[0]].copy()))


def test_both_of_a_pair_are_cropped_and_flipped_alike() -> None:
    crops = torch.arange(4 * 24 * 24 * 3).reshape(1, 4, 24, 24, 3).remainder(251).to(torch.uint8)
    batch = {
        "crops": crops.expand(2, -1, -1, -1, -1),
        "box": torch.tensor([[0.0, 0, 1, 1]] * 2),
        "pair": torch.tensor([-1, 0]),
    }
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        cut, boxes = augment(batch, side=16, frames=2, generator=generator)
        assert cut.shape == (2, 2, 1, 16, 16, 3)
        assert torch.equal(cut[0], cut[1])
        assert torch.equal(boxes[0], boxes[1])
        left, _, right, _ = boxes[0, 0].tolist()
        assert abs(right - left) == pytest.approx(16 / 24)


def test_masked_samples_change_and_keep_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(64, 192, (6, 2, 24, 24, 3), generator=generator, dtype=torch.uint8)
    batch = {"crops": noise, "box": torch.tensor([[0.0, 0, 1, 1]] * 6)}
    plain, masked = (
        augment(batch, side=24, frames=2, masks=share, generator=torch.Generator().manual_seed(1))[0].float()
        for share in (0.0, 1.0)
    )
    assert ((plain - masked).abs().mean(dim=(1, 2, 3, 4, 5)) > 0.5).all()
    torch.testing.assert_close(
        plain.mean(dim=(1, 2, 3, 4, 5)), masked.mean(dim=(1, 2, 3, 4, 5)), atol=1, rtol=0
    )
