"""``specsem ablate``: variants change what they say, and are judged on the same unseen sources."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_recipe import CONFIG, TINY, recipe

from specsem.errors import SpecSemError
from specsem.training.ablation import MERGING, SPECTRAL, _stages, ablate, as_markdown, vary
from specsem.training.run import Recipe

SHIPPED = Recipe.read(Path(__file__).parents[2] / "models" / "specsem-compact.json")


@pytest.mark.parametrize("name", SPECTRAL)
def test_a_spectral_variant_is_the_first_stage_with_one_change(name: str) -> None:
    (stage,) = _stages(SHIPPED, name)
    assert (stage == SHIPPED.stages[0]) is (name == "spectral branch")
    assert stage.model.merging == "spectral-only"


@pytest.mark.parametrize("name", MERGING)
def test_a_merging_variant_shares_the_spectral_stage(name: str) -> None:
    *before, last = _stages(SHIPPED, name)
    assert tuple(before) == SHIPPED.stages[:-1]
    assert (last == SHIPPED.stages[-1]) is (name == "gate")


def test_changes_reach_the_loop_and_the_architecture() -> None:
    changed = vary(CONFIG, {"aligned": 0.25, "model.radius": 7.0})
    assert changed == replace(CONFIG, aligned=0.25, model=TINY.variant(radius=7.0))


def test_variants_are_trained_once_and_judged_on_the_fold_held_out(drawn_pack: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path / "r.json", replace(CONFIG, steps=4))
    fields = json.loads(path.read_text())
    more = replace(CONFIG, steps=2).to_dict()
    path.write_text(json.dumps(fields | {"folds": 2, "stages": [*fields["stages"], more]}))
    with pytest.raises(SpecSemError, match="No variant"):
        ablate(path, [drawn_pack], tmp_path / "out", variants=["nonsense"])

    def run() -> dict[str, object]:
        names = ["spectral branch", "radius 0", "gate"]
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
    assert len(weights) == 6
    stages = list((tmp_path / "out" / "runs" / "stages").iterdir())
    assert len(stages) == 6, "the gate begins with the spectral branch that is there"
    before = {p: p.stat().st_mtime_ns for p in weights}
    assert run() == table
    assert before == {p: p.stat().st_mtime_ns for p in weights}
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 1
