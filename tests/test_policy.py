"""What policies may say, what a calibration supports of it, and what they decide."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from specsem.errors import FileUnusable, PolicyRefused, UnknownPolicy
from specsem.policy import (
    Policy,
    PolicyBook,
    PolicyFile,
    decide,
    json_schema,
    refusals,
    require_supported,
    threshold_of,
)
from specsem.result import (
    C2pa,
    Coverage,
    Decision,
    Media,
    Model,
    Provenance,
    ScoredFile,
    Stability,
    Threshold,
)

POINTS = {
    "default": Threshold(value=0.9, lower=0.2, max_fpr=0.01, fpr_upper95=0.022, calibration_n=284),
    "review": Threshold(value=0.7, lower=0.2, max_fpr=0.1, fpr_upper95=0.133, calibration_n=284),
}


def answer(score: float = 0.95, **changes: Any) -> ScoredFile:
    """Of a camera or a generator, by its score."""
    verdict = "generated" if score >= 0.9 else "authentic" if score < 0.2 else "inconclusive"
    c2pa = changes.pop("c2pa", C2pa())
    duration_s = changes.pop("duration_s", 10.0)
    fields: dict[str, Any] = {
        "path": "a.mp4",
        "sha256": "0" * 64,
        "verdict": verdict,
        "score": score,
        "logit": 0.0,
        "threshold": POINTS["default"],
        "reasons": ["between_thresholds"] if verdict == "inconclusive" else [],
        "segments": [],
        "coverage": Coverage(analysed_s=1, duration_s=duration_s, fraction=1 / duration_s),
        "media": Media(
            container="mp4", codec="h264", width=9, height=9, fps=25, duration_s=duration_s, frames_scored=8
        ),
        "provenance": Provenance(c2pa=c2pa),
        "model": Model(name="m", version="1", sha256="ab"),
        "timing_ms": {},
        "warnings": [],
    }
    return ScoredFile(**fields | changes)


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    named = [{"name": f"r{number}"} | rule for number, rule in enumerate(rules)]
    fields = {"name": "own", "version": 2, "rules": named} | more
    return Policy.model_validate_json(json.dumps(fields))


def decided(rules: Policy, given: ScoredFile, **where: str) -> tuple[str, str | None]:
    decision = decide(rules, given, POINTS, **where)
    return decision.action, decision.rule


BLOCK = {"when": {"max_fpr": 0.03}, "then": "block"}
REVIEW = {"when": {"max_fpr": 0.15}, "then": "review"}
TRUSTED = C2pa(status="trusted", digital_source_types=["digitalCapture", "trainedAlgorithmicMedia"])
DECLARED = {"when": {"c2pa": ["trusted"], "source_types": ["trainedAlgorithmicMedia"]}, "then": "label"}


# -- a decision ---------------------------------------------------------------------------------------------


def test_the_first_rule_that_applies_decides() -> None:
    rules = policy(BLOCK, REVIEW)
    assert [decided(rules, answer(score)) for score in (0.9, 0.89, 0.7, 0.69)] == [
        ("block", "r0"),
        ("review", "r1"),
        ("review", "r1"),
        ("allow", None),
    ]


def test_a_decision_says_what_it_rests_on() -> None:
    decision = decide(policy(BLOCK | {"because": "Ours."}, REVIEW), answer(0.95), POINTS, surface="ads")
    assert (decision.policy, decision.version, decision.surface) == ("own", 2, "ads")
    assert decision.threshold
    assert decision.threshold.model_dump() == {
        "value": 0.9,
        "max_fpr": 0.03,
        "fpr_upper95": 0.022,
        "calibration_n": 284,
    }
    score, said = decision.reasons
    assert (score.code, said.code, said.text) == ("score_at_rate", "policy_says", "Ours.")
    assert score.figures["score"] == 0.95
    assert "at most 2.2% of camera clips (95% confidence, 284 clips" in score.text
    nothing = decide(policy(BLOCK), answer(0.5), POINTS)
    assert (nothing.action, nothing.threshold, nothing.reasons[0].code) == ("allow", None, "no_rule")
    assert "inconclusive (between_thresholds), the score 0.500" in nothing.reasons[0].text


@pytest.mark.parametrize(
    "reason", ["too_short", "too_small", "low_quality", "static", "out_of_domain", "unstable"]
)
def test_no_rate_holds_outside_of_the_model_s_domain(reason: Any) -> None:
    outside = answer(0.99, verdict="inconclusive", reasons=[reason])
    decision = decide(policy(BLOCK), outside, POINTS)
    assert decision.action == "allow"
    assert [finding.code for finding in decision.reasons] == ["no_rule", "no_rate_holds"]
    assert decided(policy({"when": {"reasons": [reason]}, "then": "review"}), outside) == ("review", "r0")


def test_provenance_decides_by_whose_word_it_is() -> None:
    rules = policy(DECLARED)
    assert decided(rules, answer(0.01, c2pa=TRUSTED)) == ("label", "r0")
    for other in (
        TRUSTED.model_copy(update={"status": "valid"}),
        C2pa(status="trusted", digital_source_types=["digitalCapture"]),
        C2pa(status="absent"),
    ):
        assert decided(rules, answer(0.01, c2pa=other)) == ("allow", None)
    assert (
        decided(
            policy({"when": {"c2pa": ["invalid"]}, "then": "block"}), answer(c2pa=C2pa(status="invalid"))
        )[0]
        == "block"
    )


def test_stability_counts_only_where_it_was_looked_at() -> None:
    steady, shaken = (Stability(stable=stable, spread=0.1, tried=[]) for stable in (True, False))
    rules = policy(
        {"when": {"max_fpr": 0.03, "stable": True}, "then": "block"},
        {"when": {"stable": False}, "then": "review"},
    )
    assert decided(rules, answer(stability=steady)) == ("block", "r0")
    assert decided(rules, answer(stability=shaken)) == ("review", "r1")
    assert decided(rules, answer()) == ("allow", None)


def test_length_surface_and_tenant() -> None:
    rules = policy(
        BLOCK | {"when": {"max_fpr": 0.03, "surface": ["ads"], "tenant": ["acme", ""]}},
        {"when": {"min_duration_s": 5, "max_duration_s": 60}, "then": "review"},
    )
    assert decided(rules, answer(), surface="ads", tenant="acme") == ("block", "r0")
    assert decided(rules, answer(), surface="ads") == ("block", "r0")
    assert decided(rules, answer(), surface="ads", tenant="other") == ("review", "r1")
    assert decided(rules, answer(), tenant="acme") == ("review", "r1")
    assert [decided(rules, answer(duration_s=s))[0] for s in (4.9, 5.0, 59.9, 60.0)] == [
        "allow",
        "review",
        "review",
        "allow",
    ]


def test_the_verdict_is_that_of_the_policy_s_operating_point() -> None:
    rule = {"when": {"verdict": ["generated"]}, "then": "review"}
    given = answer(0.8)
    assert given.verdict == "inconclusive"
    assert decided(policy(rule), given) == ("allow", None)
    assert decided(policy(rule, operating_point="review"), given) == ("review", "r0")
    decision = decide(policy(rule, operating_point="review"), given, POINTS)
    assert decision.threshold
    assert (decision.threshold.value, decision.threshold.max_fpr) == (0.7, 0.1)


def test_what_ships_blocks_nothing_by_a_score() -> None:
    for shipped in PolicyBook.read().policies:
        assert refusals(shipped, POINTS) == []
        assert decided(shipped, answer(0.999)) == ("review", "looks-generated")
        assert decided(shipped, answer(0.01, c2pa=TRUSTED)) == ("label", "declared-generated")
        assert decided(shipped, answer(0.01)) == ("allow", None)


def test_a_decision_is_part_of_an_answer_and_back() -> None:
    decision = decide(policy(BLOCK), answer(), POINTS)
    whole = answer(decision=decision)
    assert ScoredFile.model_validate_json(whole.model_dump_json()).decision == decision
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


# -- what a calibration supports ----------------------------------------------------------------------------


def test_a_rate_takes_the_lowest_threshold_that_keeps_to_it() -> None:
    assert [threshold_of(rate, POINTS).value for rate in (0.022, 0.13, 0.133, 0.5)] == [0.9, 0.9, 0.7, 0.7]


@pytest.mark.parametrize(
    ("max_fpr", "points", "sentence"),
    [
        (
            0.001,
            POINTS,
            r"no false alarm at all among the calibration's 284 camera clips supports 0.0105 at best",
        ),
        (0.0104, POINTS, r"about 3/284, with 95% confidence"),
        (0.0106, POINTS, r"strictest of the model's thresholds is known to keep to 0.022 \(284"),
        (0.2, {"default": POINTS["default"].model_copy(update={"calibration_n": 0})}, "never measured"),
    ],
)
def test_a_rate_that_can_t_be_kept_is_refused(
    max_fpr: float, points: dict[str, Threshold], sentence: str
) -> None:
    with pytest.raises(PolicyRefused, match=sentence):
        threshold_of(max_fpr, points)
    [found] = refusals(policy({"when": {"max_fpr": max_fpr}, "then": "review"}), points)
    assert found.startswith("Rule 'r0': A false-positive rate of")


def test_an_operating_point_must_be_the_model_s() -> None:
    unknown = policy(REVIEW, operating_point="none")
    for call in (lambda: require_supported(unknown, POINTS), lambda: decide(unknown, answer(), POINTS)):
        with pytest.raises(PolicyRefused, match="no operating point 'none'; it has: default, review"):
            call()


# -- the file -----------------------------------------------------------------------------------------------


def write(folder: Path, *policies: dict[str, Any]) -> Path:
    path = folder / "policies.json"
    path.write_text(json.dumps({"policies": policies}))
    return path


def test_a_name_means_its_highest_version(tmp_path: Path) -> None:
    own = [{"name": "default", "version": number} for number in (10, 9)]
    book = PolicyBook.read(write(tmp_path, *own))
    assert [str(book.policy(name)) for name in ("default", "default@9", "default@1")] == [
        "default@10",
        "default@9",
        "default@1",
    ]
    with pytest.raises(
        UnknownPolicy, match="No policy is named 'default@2'; there are: default@1, default@9"
    ):
        book.policy("default@2")
    assert book.policy("default@9").sha256 != book.policy("default@10").sha256


def test_what_ships_is_not_replaced_under_its_own_version(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="default@1 is there twice"):
        PolicyBook.read(write(tmp_path, {"name": "default", "version": 1}))


RULE = {"name": "r", "when": {"max_fpr": 0.1}, "then": "review"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"then": "delete"}, "Input should be 'allow', 'label', 'review' or 'block'"),
        ({"when": {}}, "a rule needs a condition"),
        ({"when": {"max_fpr": 0}}, "greater than 0"),
        ({"when": {"max_fpr": "0.1"}}, "valid number"),
        ({"when": {"surface": []}}, "name at least one"),
        ({"when": {"source_types": ["trainedAlgorithmicMedia"]}}, "`source_types` needs `c2pa`"),
        ({"when": {"min_duration_s": 9, "max_duration_s": 9}}, "must be below"),
        ({"when": {"verdict": ["generated"]}, "then": "block"}, "`block` has to rest on"),
        ({"when": {"c2pa": ["absent"]}, "then": "label"}, "`label` has to rest on"),
        ({"when": {"colour": ["red"]}}, "Extra inputs"),
        ({"name": "A rule"}, "pattern"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_place(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = write(tmp_path, {"name": "own", "version": 1, "rules": [RULE | change]})
    with pytest.raises(PolicyRefused, match=sentence) as refused:
        PolicyBook.read(path)
    assert "policies.0.rules.0" in refused.value.message


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"{", PolicyRefused),
        (b"", PolicyRefused),
        (b'{"policies": []}', PolicyRefused),
        (b" " * (1024**2 + 1), FileUnusable),
        (b'{"policies": [{"name": "a", "version": 1}, {"name": "a", "version": 1}]}', PolicyRefused),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: bytes, error: type[Exception]) -> None:
    path = tmp_path / "policies.json"
    path.write_bytes(text)
    with pytest.raises(error, match=r"policies.json|there twice"):
        PolicyBook.read(path)
    with pytest.raises(FileUnusable, match="can't be read"):
        PolicyBook.read(tmp_path / "missing.json")


def test_otherwise_never_blocks() -> None:
    with pytest.raises(ValueError, match="'allow' or 'review'"):
        policy(otherwise="block")


def test_the_schema_knows_what_the_models_know() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    shipped = PolicyFile(policies=PolicyBook.read().policies)
    assert validator.is_valid(json.loads(shipped.model_dump_json(exclude_none=True, by_alias=True)))
    assert validator.is_valid({"$schema": "x", "policies": [{"name": "a", "version": 1, "rules": [RULE]}]})
    for wrong in ({"then": "delete"}, {"when": {"colour": 1}}, {"when": {"max_fpr": 2}}):
        assert not validator.is_valid({"policies": [{"name": "a", "version": 1, "rules": [RULE | wrong]}]})
