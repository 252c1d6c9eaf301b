"""The model card for Coop: of its form, and with the figures that the model has."""

import dataclasses
import json
from pathlib import Path

import pytest

from app.connectors.coop import REQUIRED_SECTIONS, card_file, model_card
from specsem.registry import get_model

PLUGIN = Path(__file__).parents[2] / "integrations" / "coop"
MODEL = get_model()


def test_the_card_is_one_that_coop_takes() -> None:
    card = model_card(MODEL)
    assert (card["modelName"], card["version"]) == (MODEL.name, MODEL.version)
    assert [section["id"] for section in card["sections"]] == list(REQUIRED_SECTIONS)
    for section in card["sections"]:
        assert section["title"]
        assert section["fields"], section["id"]
        for field in section["fields"]:
            assert field.keys() == {"label", "value"}
            assert all(isinstance(text, str) and text for text in field.values())
            assert "**" not in field["value"]


def test_its_figures_are_the_model_s() -> None:
    card = json.dumps(model_card(MODEL), ensure_ascii=False)
    figures = MODEL.validation()["as-is"]
    assert f"AUC {figures['auc']:.3f}" in card
    assert f"{figures['n_generated']} generated" in card
    assert MODEL.sha256 in card


def test_the_plugin_has_the_card_of_the_model_that_is_shipped() -> None:
    assert (PLUGIN / "model.json").read_text(encoding="utf-8") == card_file(MODEL), (
        "`make docs` makes it anew"
    )


def test_a_model_without_its_card_has_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A model\n")
    with pytest.raises(ValueError, match="no section"):
        model_card(dataclasses.replace(MODEL, folder=tmp_path))
