"""The cache of crops: made once, whole, bounded; and the twins in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specsem.errors import SpecSemError
from specsem.training.aligned import AutoencoderSpec, train_zoo
from specsem.training.cache import CacheSpec, CropCache, build_cache
from specsem.training.data import read_manifest

SPEC = CacheSpec(variants=2, draws=2, crop_side=48, frame_side=16)


def test_the_cache_is_made_once_and_the_same_again_elsewhere(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")[:3]
    first = build_cache(items, SPEC, tmp_path / "a")
    assert len(first) == 3 * 4
    sample = first[5]
    assert sample["crops"].shape == (8, 48, 48, 3)
    assert sample["frames"].shape == (1, 16, 16, 3)
    x0, y0, x1, y1 = sample["box"].tolist()
    assert x0 < x1
    assert y0 < y1
    assert sample["label"] == float(items[1].generated)
    assert np.asarray(first.crops_MTSSC).std() > 5

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.u8")}
    build_cache(items, SPEC, tmp_path / "a")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.u8")}

    again = build_cache(items, SPEC, tmp_path / "b")
    # The first x264 encode of a process differs from later ones by some levels in some frames (seen with PyAV
    # 18.1): equal lives, nearly equal pixels.
    difference = np.abs(first.crops_MTSSC.astype(np.int16) - again.crops_MTSSC)
    assert difference.mean() < 0.5
    np.testing.assert_array_equal(first.boxes_M4, again.boxes_M4)
    side_by_side = build_cache(items, SPEC, tmp_path / "c", processes=2)
    np.testing.assert_array_equal(first.boxes_M4, side_by_side.boxes_M4)


def test_another_specification_is_another_cache(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")[:1]
    for spec in (SPEC, CacheSpec(variants=1, draws=1, crop_side=0, whole_frames=8, frame_side=32)):
        build_cache(items, spec, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    tower = build_cache(items, spec, tmp_path)[0]
    assert tower["frames"].shape == (8, 32, 32, 3)
    assert tower["crops"].shape == (8, 0, 0, 3)


def test_a_damaged_row_is_noticed(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")[:2]
    built = build_cache(items, SPEC, tmp_path)
    built.crops_MTSSC[3, 0, 0, 0, 0] ^= 1
    again = build_cache(items, SPEC, tmp_path)
    again[2]
    with pytest.raises(SpecSemError, match="damaged"):
        again[3]


def test_old_caches_make_room_and_too_large_a_one_is_refused(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")[:1]
    size = CropCache.bytes_for(items, SPEC)
    first = build_cache(items, SPEC, tmp_path)
    assert sum(f.stat().st_size for f in first.folder.iterdir()) == size
    second = build_cache(items, replace(SPEC, seed=1), tmp_path, max_bytes=2 * size)
    assert first.folder.exists()
    build_cache(items, replace(SPEC, seed=2), tmp_path, max_bytes=2 * size)
    assert not first.folder.exists()
    assert second.folder.exists()
    with pytest.raises(SpecSemError, match="GB"):
        build_cache(items, replace(SPEC, seed=3), tmp_path, max_bytes=size - 1)


def test_twins_are_the_same_life_of_a_reconstruction(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")
    reals = [i for i in items if not i.generated]
    train_zoo(reals, tmp_path / "zoo", [AutoencoderSpec(width=4)], steps=2, per_item=1, side=64)
    spec = replace(SPEC, variants=6, twins=1.0, swaps=0.0)
    with pytest.raises(SpecSemError, match="zoo"):
        build_cache(items, spec, tmp_path)
    cache = build_cache(items, spec, tmp_path, zoos=[tmp_path / "zoo"])
    assert len(cache) == (len(items) + len(reals)) * spec.per_item
    pairs = [(row, twin) for row in range(cache.own_rows) if (twin := cache.twin_of(row)) >= 0]
    assert len(pairs) > len(reals) * spec.per_item / 4  # where a life encodes
    for row, twin in pairs[:6]:
        own, fake = cache[row], cache[twin]
        assert (own["label"], fake["label"]) == (0.0, 1.0)
        assert own["box"].tolist() == fake["box"].tolist()
        gap = np.abs(own["crops"].numpy().astype(int) - fake["crops"].numpy())
        assert 0 < gap.mean() < 60
        assert cache.twin_of(twin) == -1
    assert all(
        cache.twin_of(row) == -1 for i, x in enumerate(items) if x.generated for row in cache.rows_of(i)
    )
