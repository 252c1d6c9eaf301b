"""A model is a folder; its checksum is looked at before its weights are used."""

from pathlib import Path

import pytest

from specsem.errors import UnknownModel, WeightsCorrupt, WeightsMissing
from specsem.registry import DEFAULT_MODEL, get_model, list_models, models_dir


@pytest.fixture
def tiny(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of the tiny model's folder, registered."""
    import shutil

    shutil.copytree(tiny_models, tmp_path / "models")
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models" / DEFAULT_MODEL


def test_finds_what_is_registered(tiny: Path) -> None:
    [record] = list_models()
    assert record == get_model()
    assert record.present
    assert record.verified_weights() == tiny / "model.safetensors"


def test_an_unknown_name_is_answered_with_the_known_ones(tiny: Path) -> None:
    with pytest.raises(UnknownModel, match=DEFAULT_MODEL):
        get_model("specsem-huge")


def test_changed_weights_are_refused(tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsCorrupt):
        get_model().verified_weights()


def test_missing_weights_are_said_so(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    assert not get_model().present
    with pytest.raises(WeightsMissing):
        get_model().verified_weights()


def test_the_project_ships_its_default_model_and_the_published_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SPECSEM_MODELS_DIR", raising=False)
    records = {r.name: r for r in list_models()}
    assert set(records) == {"specsem-compact", "specsem-b32"}
    compact = records[DEFAULT_MODEL]
    assert compact.verified_weights().stat().st_size <= 40_000_000
    assert (models_dir() / DEFAULT_MODEL / "README.md").is_file()  # its card
    assert not records["specsem-b32"].present
