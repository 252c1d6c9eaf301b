"""Pictures of a window."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from specsem.errors import WeightsCorrupt
from specsem.media import MediaInfo, SamplePlan, Window
from specsem.registry import ModelRecord, read_model
from specsem.views import SPECTRUM_FILE, CameraSpectrum, Look, draw, log_spectrum, view_plan

INFO = MediaInfo(container="mp4", codec="h264", width=640, height=360, fps=25.0, duration_s=4.0)
SIDE = 64


def window(*, repeats: bool = False) -> Window:
    rng = np.random.default_rng(0)
    crops = rng.integers(100, 156, (4, 2, SIDE, SIDE, 3), np.uint8)
    if repeats:  # a pattern of period 4 in both directions
        crops[..., ::4, ::4, :] = 255
    boxes = np.array([[0, 0, 0.3, 0.5], [0.6, 0.4, 0.9, 0.9]], np.float32)
    return Window(1.0, 1.4, crops, rng.integers(0, 255, (4, 128, 128, 3), np.uint8), boxes)


def look(gate: float = 0.2, spread: float = 0.0, **more: bool) -> Look:
    gate_Nhw = np.full((2, 4, 4), gate, np.float32)
    gate_Nhw[0, 0, 0] += spread
    return Look(window(**more), 3, 0.97, gate_Nhw)


@pytest.fixture(scope="module")
def record(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRecord:
    """A model with the spectrum of camera clips."""
    folder = tmp_path_factory.mktemp("model")
    fields = json.loads((tiny_models / "specsem-compact" / "model.json").read_text("utf-8"))
    mean_HW = log_spectrum(window().crops_TNHWC, 32.0).astype(np.float16)
    facts = {"clips": "9", "sources": "4", "radius": "32"}
    save_file({"mean_HW": mean_HW}, folder / SPECTRUM_FILE, metadata=facts)
    fields["files"] = {SPECTRUM_FILE: hashlib.sha256((folder / SPECTRUM_FILE).read_bytes()).hexdigest()}
    (folder / "model.json").write_text(json.dumps(fields), "utf-8")
    return read_model(folder)


def test_a_window_is_drawn_as_its_views_say(record: ModelRecord) -> None:
    pictures = draw([look(), look()], INFO, record)
    kinds = [picture.view.kind for picture in pictures]
    assert kinds[:5] == ["frame", "residual", "spectrum", "reference_spectrum", "gate"]
    assert kinds[5:] == ["frame", "residual", "spectrum", "gate"]  # cameras' spectrum is there already
    for picture in pictures:
        image = Image.open(io.BytesIO(picture.png))
        assert image.format == "PNG"
        assert image.size == (picture.view.width, picture.view.height)
        assert picture.view.segment == 3
        assert picture.view.pts_s == pytest.approx(1.2)
    assert pictures[0].view.name == "3-frame"
    assert (pictures[0].view.width, pictures[0].view.height) == (512, 288)  # aspect ratio of the file
    assert (pictures[1].view.width, pictures[1].view.height) == (2 * SIDE, SIDE)


def test_equal_windows_give_equal_bytes(record: ModelRecord) -> None:
    first, second = draw([look()], INFO, record), draw([look()], INFO, record)
    assert [picture.png for picture in first] == [picture.png for picture in second]


def test_a_model_without_references_or_gate_has_fewer_pictures(tiny_models: Path) -> None:
    bare = Look(window(), 0, 0.5, np.zeros((0, 0, 0), np.float32))
    kinds = [p.view.kind for p in draw([bare], INFO, read_model(tiny_models / "specsem-compact"))]
    assert kinds == ["frame", "residual", "spectrum"]


def test_the_caption_of_a_gate_says_whether_it_tells_anything(record: ModelRecord) -> None:
    flat, telling = (draw([look(spread=spread)], INFO, record)[-1] for spread in (0.0, 0.6))
    assert "between 0.200 and 0.200" in flat.view.caption
    assert "says nothing" in flat.view.caption
    assert "between 0.200 and 0.800" in telling.view.caption
    assert "says nothing" not in telling.view.caption
    assert flat.png != telling.png


def test_a_pattern_that_repeats_stands_out_of_the_spectrum(record: ModelRecord) -> None:
    plain, repeating = (log_spectrum(window(repeats=repeats).crops_TNHWC, 32.0) for repeats in (False, True))
    middle = SIDE // 2
    assert repeating[middle, middle + SIDE // 4] - plain[middle, middle + SIDE // 4] > 1.0
    assert plain[middle, middle] == pytest.approx(-3.0)  # taken away: at the floor
    louder = draw([look(repeats=True)], INFO, record)[2].view.caption
    assert "dB stronger than in 9 camera clips" in louder


def test_a_reference_whose_checksum_is_wrong_is_refused(record: ModelRecord) -> None:
    assert CameraSpectrum.load(record) is not None
    (record.folder / SPECTRUM_FILE).write_bytes(b"other")
    with pytest.raises(WeightsCorrupt):
        CameraSpectrum.load(record)


def test_views_are_decoded_at_their_times_with_a_larger_frame() -> None:
    plan = view_plan(SamplePlan(crop_side=224, frame_side=224, frame_fit="crop"), [0.5, 2.0])
    assert (plan.windows, plan.starts_s, plan.frame_side, plan.frame_fit) == (2, (0.5, 2.0), 512, "squash")
    whole = view_plan(SamplePlan(crop_side=0, crops=0), [0.5])
    assert whole.frame_side == 224  # of a model that sees frames, what it sees
