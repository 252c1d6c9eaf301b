"""``specsem ablate``: variants change what they say, and are judged on the same unseen sources."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_recipe import CONFIG, TINY, recipe

from specsem.errors import SpecSemError
from specsem.training.ablation import VARIANTS, _stages, ablate, as_markdown, vary
from specsem.training.run import Recipe


def test_every_variant_changes_the_recipe_with_folds() -> None:
    shipped = Recipe.read(Path(__file__).parents[2] / "models" / "specsem-compact.json")
    for name, changes in VARIANTS.items():
        stages = _stages(shipped, changes)
        assert (stages == shipped.stages) is (name == "as in the recipe"), name
    assert [s.model.merging for s in _stages(shipped, VARIANTS["spectral only"])] == ["spectral-only"]
    assert _stages(shipped, VARIANTS["concatenation"])[-1].model.merging == "concat"
    assert _stages(shipped, VARIANTS["concatenation"])[0] == shipped.stages[0]


def test_changes_reach_the_loop_and_the_architecture() -> None:
    changed = vary(CONFIG, {"aligned": 0.25, "model.radius": 7.0})
    assert changed == replace(CONFIG, aligned=0.25, model=TINY.variant(radius=7.0))


def test_variants_are_trained_once_and_judged_on_the_fold_held_out(drawn_pack: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path / "r.json", replace(CONFIG, steps=4))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"folds": 2}))
    with pytest.raises(SpecSemError, match="No variant"):
        ablate(path, [drawn_pack], tmp_path / "out", variants=["nonsense"])

    def run() -> dict[str, object]:
        names = ["as in the recipe", "radius 0"]
        return ablate(
            path,
            [drawn_pack],
            tmp_path / "out",
            variants=names,
            seeds=2,
            conditions=["as-is"],
            device="cpu",
            processes=1,
        )

    table = run()
    figures = table["variants"]["radius 0"]["as-is"]["auc"]  # type: ignore[index]
    assert len(figures["seeds"]) == 2
    assert figures["mean"] == pytest.approx(sum(figures["seeds"]) / 2)
    assert "| radius 0 |" in as_markdown(table)
    weights = list((tmp_path / "out" / "runs").rglob("model.safetensors"))
    assert len(weights) == 4
    before = {p: p.stat().st_mtime_ns for p in weights}
    assert run() == table
    assert before == {p: p.stat().st_mtime_ns for p in weights}
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 1
