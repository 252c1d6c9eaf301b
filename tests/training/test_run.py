"""``specsem train`` from a manifest to a model that the scorer loads; and what a kill leaves behind."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_recipe import CONFIG, TINY, recipe

from specsem.errors import SpecSemError
from specsem.evaluation.conditions import QUICK
from specsem.evaluation.files import read_scores
from specsem.evaluation.metrics import summary
from specsem.evaluation.run import evaluate
from specsem.media import DecoderPool
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.registry import read_model
from specsem.scorer import Scorer, load_network
from specsem.training.cache import build_cache
from specsem.training.data import read_manifest
from specsem.training.export import unstacked, write_members
from specsem.training.loop import fit
from specsem.training.run import Recipe, train


def test_from_a_manifest_to_a_model_that_tells_them_apart(drawn_pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(recipe(tmp_path / "recipe.json"), [drawn_pack], out, device="cpu", processes=1)
    model = out / "model"
    record = read_model(model)
    assert record.name == "specsem-test"
    scorer = Scorer(record, device="cpu")
    table = json.loads((model / "validation.json").read_text())
    assert table["conditions"]["as-is"]["n_generated"] == 6
    assert set(table["conditions"]) == set(QUICK)
    assert set(table["conditions"]["as-is"]["generators"]) == {"source-2", "source-6"}

    scores = [s for s in read_scores(out / "scores.jsonl") if s.condition == "as-is"]
    generated = np.array([s.item.generated for s in scores])
    probability = np.array([scorer.calibration.probability(s.logit) for s in scores])
    assert summary(generated, probability, threshold=0.5)["auc"] > 0.9
    assert table["conditions"]["as-is"]["auc"] == pytest.approx(
        summary(generated, probability, threshold=0.5)["auc"]
    )


def test_folds_become_members_that_never_saw_what_they_are_judged_on(
    drawn_pack: Path, tmp_path: Path
) -> None:
    fields = json.loads(recipe(tmp_path / "r.json", replace(CONFIG, steps=30, aligned=0.5)).read_text())
    stage = fields["stages"][0]
    stage["cache"] |= {"twins": 1.0, "variants": 3}
    fields |= {"folds": 2, "zoo_steps": 3, "zoo": [{"width": 4}, {"upsample": "shuffle", "width": 4}]}
    (tmp_path / "r.json").write_text(json.dumps(fields))
    out = tmp_path / "out"
    train(tmp_path / "r.json", [drawn_pack], out, device="cpu", processes=1)

    scorer = Scorer(read_model(out / "model"), device="cpu")
    items = read_manifest(drawn_pack)
    scores = [s for s in read_scores(out / "scores.jsonl") if s.condition == "as-is"]
    assert {s.item.path.name for s in scores} == {i.path.name for i in items}
    of_fold = {fold: {s.item.group for s in scores if s.fold == fold} for fold in ("0", "1")}
    assert not of_fold["0"] & of_fold["1"]
    assert scorer.threshold.calibration_n == sum(not i.generated for i in items)
    for fold in (0, 1):  # the zoo of a fold knows its camera clips only
        record = json.loads(next((out / "zoo" / str(fold)).glob("*.json")).read_text())
        assert record["items"] == sum(s.fold == str(fold) and not s.item.generated for s in scores)
    assert read_model(out / "model").config["members"] == 2

    again = tmp_path / "again"
    held_out = partial(
        evaluate, model=str(out / "model"), held_out=True, conditions=["as-is"], device="cpu", rounds=10
    )
    assert held_out([drawn_pack], again)["protocol"]["kind"] == "cross-validation"
    logits = [
        {(s.fold, s.item.path.name): s.logit for s in found}
        for found in (scores, read_scores(again / "scores.jsonl"))
    ]
    assert logits[0] == pytest.approx(logits[1], abs=1e-4)
    fewer = drawn_pack.with_name("fewer.jsonl")
    fewer.write_text("".join(drawn_pack.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(SpecSemError, match="not cross-validated on just these clips"):
        held_out([fewer], tmp_path / "other")


def test_semantic_heads_join_what_the_networks_say(drawn_pack: Path, tmp_path: Path) -> None:
    gated = replace(CONFIG, model=TINY.variant(merging="gate"), steps=10)
    fields = json.loads(recipe(tmp_path / "r.json", gated).read_text()) | {"folds": 3, "semantic_head": True}
    (tmp_path / "r.json").write_text(json.dumps(fields))
    out = tmp_path / "out"
    out.mkdir()
    save_file(SpecSemNet(gated.model).semantic.state_dict(), out / "semantic.safetensors")  # distilled before
    train(tmp_path / "r.json", [drawn_pack], out, device="cpu", processes=1)

    record = read_model(out / "model")
    assert record.config["semantic_head"]
    whole = load_network(record)
    score = next(s for s in read_scores(out / "scores.jsonl", root=drawn_pack.parent) if s.fold == "1")
    member = unstacked(whole)[1]
    (alone,) = write_members(tmp_path / "alone", [member], name="one", version="1", summary="")
    with DecoderPool(workers=1) as pool:
        clip = pool.decode(score.item.path, member.config.plan())
    windows = Scorer(alone, device="cpu").score_windows(clip.windows)
    assert [w.logit for w in windows] == pytest.approx([w.logit for w in score.windows], abs=1e-3)
    assert [w.semantic_logit for w in windows] == pytest.approx(
        [w.semantic_logit for w in score.windows], abs=1e-3
    )


def test_semantic_heads_want_folds(drawn_pack: Path, tmp_path: Path) -> None:
    fields = json.loads(recipe(tmp_path / "r.json").read_text()) | {"semantic_head": True}
    (tmp_path / "r.json").write_text(json.dumps(fields))
    with pytest.raises(SpecSemError, match="3 folds"):
        train(tmp_path / "r.json", [drawn_pack], tmp_path / "out", device="cpu")


def test_a_killed_run_goes_on_where_it_stopped(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")

    class Killed(BaseException):
        pass

    part = tmp_path / "part"
    first = replace(CONFIG, steps=6, checkpoint_every_s=0.0)
    with pytest.MonkeyPatch.context() as patch:
        from specsem.training import loop

        step, count = loop._step, iter(range(100))

        def dying(*args: object) -> float:
            if next(count) == 4:
                raise Killed
            return step(*args)  # type: ignore[arg-type]

        patch.setattr(loop, "_step", dying)
        with pytest.raises(Killed):
            fit(first, cache, range(len(items)), part, progress=False)
    assert torch.load(part / "last.pt", weights_only=True)["step"] == 4
    fit(first, cache, range(len(items)), part, progress=False)
    assert torch.load(part / "last.pt", weights_only=True)["step"] == 6


def test_equal_seeds_train_equal_weights(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    config = replace(CONFIG, steps=3)
    one, two = (fit(config, cache, range(len(items)), tmp_path / n, progress=False) for n in ("one", "two"))
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[key], msg=key)


def test_a_recipe_without_its_teacher_or_with_one_label_is_refused(drawn_pack: Path, tmp_path: Path) -> None:
    gated = replace(CONFIG, model=TINY.variant(merging="gate"))
    with pytest.raises(SpecSemError, match="teacher"):
        train(recipe(tmp_path / "r.json", gated), [drawn_pack], tmp_path / "out", device="cpu")
    lines = [line for line in drawn_pack.read_text().splitlines() if '"real"' in line]
    reals = tmp_path / "reals.jsonl"
    reals.write_text("\n".join(lines))
    with pytest.raises(SpecSemError, match="both labels"):
        train(recipe(tmp_path / "r.json"), [reals], tmp_path / "out", device="cpu")


@pytest.mark.parametrize("name", ["specsem-b32", "specsem-compact"])
def test_shipped_recipes_are_those_of_the_registered_models(name: str) -> None:
    models = Path(__file__).parents[2] / "models"
    shipped = Recipe.read(models / f"{name}.json")
    record = json.loads((models / name / "model.json").read_text())
    assert shipped.name == record["name"] == name
    config = SpecSemConfig.from_dict(record["config"])
    fitted = {"members": shipped.folds or 1, "semantic_supports": config.semantic_supports}
    assert config == shipped.model.variant(**fitted)


def test_a_stage_begins_with_the_weights_of_the_one_before(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    everything = range(len(items))
    alone = fit(replace(CONFIG, steps=2), cache, everything, tmp_path / "one", progress=False).state_dict()
    gated = replace(CONFIG, steps=1, model=TINY.variant(merging="gate"), learning_rate=0.0)
    then = fit(gated, cache, everything, tmp_path / "two", start=alone, progress=False).state_dict()
    assert set(alone) < set(then)
    for key in ("stem.conv.weight", "stages.1.down.0.weight", "head.weight"):
        torch.testing.assert_close(then[f"branches.0.{key}"], alone[f"branches.0.{key}"])


def test_only_what_is_asked_for_is_trained(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    gated = replace(CONFIG, steps=2, ema=0.0, model=TINY.variant(merging="gate"), train_only=("merging",))
    start = SpecSemNet(gated.model).state_dict()
    end = fit(gated, cache, range(len(items)), tmp_path / "out", start=start, progress=False).state_dict()
    moved = {key for key, value in end.items() if not torch.equal(value, start[key])}
    weights = {key for key in moved if "running" not in key and "num_batches" not in key}
    assert weights
    assert all(key.startswith("branches.0.merging") for key in weights)


def test_an_untrained_tower_takes_nothing_of_the_one_before_and_may_be_trained(
    drawn_pack: Path, tmp_path: Path
) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    model = TINY.variant(merging="gate")
    before = SpecSemNet(model)
    tower = {key: torch.zeros_like(value) for key, value in before.semantic.state_dict().items()}
    anew = replace(
        CONFIG, steps=2, ema=0.0, model=model, tower="untrained", train_only=("merging", "semantic"), seed=3
    )
    torch.manual_seed(anew.seed)
    fresh = SpecSemNet(model).state_dict()
    end = fit(
        anew,
        cache,
        range(len(items)),
        tmp_path / "out",
        start=before.state_dict(),
        tower=tower,
        progress=False,
    ).state_dict()
    key = "semantic.conv1.weight"
    assert not torch.equal(end[key], fresh[key]), "it is trained"
    torch.testing.assert_close(end[key], fresh[key], atol=0.05, rtol=0)  # from where it began


@pytest.mark.parametrize("observed", ["count", "mean", "any"])
def test_groups_teach_without_single_labels(drawn_pack: Path, tmp_path: Path, observed: str) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    config = replace(CONFIG, observed=observed, group=4, batch=16, steps=80)
    fit(config, cache, range(len(items)), tmp_path / "out", progress=False)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    if observed != "mean":  # which has nothing to fall to: every member of a group is told the same
        assert min(losses[-2:]) < losses[0]
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))


def test_training_stops_when_unseen_sources_gain_nothing_and_keeps_the_best(
    drawn_pack: Path, tmp_path: Path
) -> None:
    items = read_manifest(drawn_pack)
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    held_out = [n for n, i in enumerate(items) if i.split == "val"]
    members = [n for n, i in enumerate(items) if i.split == "train"]
    config = replace(CONFIG, steps=200, validate_every=2, patience=3, learning_rate=0.0)  # nothing can gain
    net = fit(config, cache, members, tmp_path / "out", held_out=held_out, progress=False)
    last = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert last["step"] == last["best"][1] + 6 < 50  # norms still settle for a while
    best = torch.load(tmp_path / "out" / "best.pt", weights_only=True)
    assert all(torch.equal(value, best[key]) for key, value in net.state_dict().items())


def test_every_term_of_the_loss_is_logged(drawn_pack: Path, tmp_path: Path) -> None:
    items = read_manifest(drawn_pack, split="train")
    cache = build_cache(items, CONFIG.cache, tmp_path / "cache")
    config = replace(CONFIG, steps=20, attribution=0.5, contrastive=0.1, masks=0.5)
    fit(config, cache, range(len(items)), tmp_path / "out", progress=False)
    (entry,) = map(json.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
    assert set(entry) == {"step", "loss", "attribution", "contrastive"}


@pytest.mark.parametrize("spectral", ["conv", "tower"])
def test_kept_semantics_train_the_same_gates(drawn_pack: Path, tmp_path: Path, spectral: str) -> None:
    items = read_manifest(drawn_pack, split="train")
    whole = 8 if spectral == "tower" else 1
    side = 0 if spectral == "tower" else 64
    spec = replace(CONFIG.cache, whole_frames=whole, crop_side=side)
    cache = build_cache(items, spec, tmp_path / "cache")
    model = TINY.variant(merging="gate", spectral=spectral, crop_side=side)
    plain = replace(CONFIG, steps=6, model=model, cache=spec, crop_side=48 if side else 0)
    kept = replace(plain, cache_semantics=True)
    asked = []
    original = SpecSemNet.look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SpecSemNet, "look", lambda net, frames: asked.append(len(frames)) or original(net, frames)
        )
        one = fit(plain, cache, range(len(items)), tmp_path / "plain", progress=False)
        every_time = sum(asked)
        asked.clear()
        two = fit(kept, cache, range(len(items)), tmp_path / "kept", progress=False)
    assert every_time == 6 * 8
    assert sum(asked) < every_time  # what is drawn again is not asked for again
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[key], atol=2e-3, rtol=2e-2, msg=key)
