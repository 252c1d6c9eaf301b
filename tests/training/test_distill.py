"""A tower learns, layer by layer, what a teacher's layers make of images; the teacher here is a small one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transformer import VisionTransformer
from timm.models.vision_transformer import VisionTransformer as Teacher

from specsem.errors import SpecSemError
from specsem.semantic import build_tower
from specsem.synthetic import frames
from specsem.training.data import Item
from specsem.training.distill import Scenes, collect_scenes, distill, teach
from specsem.training.distort import encode


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(1)
    return (
        Teacher(patch_size=32, embed_dim=32, depth=3, num_heads=2, num_classes=0).eval().requires_grad_(False)
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    items = []
    for number in range(3):
        path = tmp_path_factory.mktemp("scenes") / f"{number}.mp4"
        clip_THWC = np.stack(list(frames(width=320, height=192, count=6, seed=number)))
        with path.open("wb") as file:
            encode(clip_THWC, file, quality=14)
        items.append(Item(path, number == 0, f"s{number}", f"g{number}", "train"))
    return collect_scenes(items, frames=2)


def tower() -> VisionTransformer:
    torch.manual_seed(0)
    config = {"image_size": 224, "patch_size": 32, "width": 32, "layers": 2, "heads": 2, "output_dim": 8}
    return build_tower({**config, "no_ln_pre": True})


def test_the_tower_comes_to_say_what_the_teacher_says(teacher: Teacher, scenes: Scenes) -> None:
    student = tower()
    log = distill(student, teacher, scenes, steps=150, batch=4, learning_rate=1e-2, held_out=scenes)
    assert [entry["step"] for entry in log] == [50, 100, 150]
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    assert log[-1]["held_out_cosine"] > max(0.3, log[0]["held_out_cosine"])
    assert not student.training


def test_a_second_cycle_goes_on_end_to_end(teacher: Teacher, scenes: Scenes) -> None:
    student = tower()
    first = distill(student, teacher, scenes, steps=100, batch=4, learning_rate=1e-2, held_out=scenes)
    again = distill(
        student, teacher, scenes, steps=100, batch=4, forced=0.0, learning_rate=5e-3, seed=1, held_out=scenes
    )
    assert again[-1]["held_out_cosine"] > first[-1]["held_out_cosine"]


def test_what_is_finished_is_not_done_again(teacher: Teacher, scenes: Scenes, tmp_path: Path) -> None:
    checkpoint = tmp_path / "distill.pt"
    once = distill(student := tower(), teacher, scenes, steps=2, batch=2, checkpoint=checkpoint)
    again = distill(other := tower(), teacher, scenes, steps=2, batch=2, checkpoint=checkpoint)
    assert again == once
    for key, value in student.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value)


def test_a_tower_of_another_shape_is_refused(teacher: Teacher, scenes: Scenes) -> None:
    other = build_tower({"image_size": 224, "patch_size": 32, "width": 48, "layers": 2, "heads": 2})
    with pytest.raises(SpecSemError, match="tokens, width"):
        distill(other, teacher, scenes, steps=1)


def test_the_teacher_is_read_before_and_after_each_layer(teacher: Teacher, scenes: Scenes) -> None:
    x_NHWC = scenes.views(2, np.random.default_rng(0))
    tokens = teach(teacher, x_NHWC, 2)
    assert [t.shape for t in tokens] == [(2, 50, 32)] * 3
    torch.testing.assert_close(teacher.blocks[1](tokens[1]), tokens[2])
    last = teacher.norm(teacher.blocks[2](tokens[2]))
    whole = teacher.forward_features((x_NHWC.movedim(-1, 1).float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(last, whole)


def test_views_depend_on_the_seed_alone_and_small_frames_are_made_large_enough(scenes: Scenes) -> None:
    assert len(scenes.native) == len(scenes.motion) == len(scenes.whole) == 6
    assert all(min(frame.shape[:2]) >= 224 for kind in (scenes.native, scenes.whole) for frame in kind)
    one, two, other = (scenes.views(8, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.shape == (8, 224, 224, 3)
    assert one.dtype == torch.uint8
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
