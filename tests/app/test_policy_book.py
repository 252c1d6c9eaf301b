"""Decisions in the service: in every answer, anew for stored ones, by surface and tenant, with a shadow."""

import json
import logging
from pathlib import Path
from typing import Any

import doubles
import pytest
from fastapi.testclient import TestClient
from test_jobs_routes import ended, service
from test_main import check_problem
from test_observability import value

from app.jobs.store import JobStore
from app.keys import open_keys
from app.main import create_app
from app.policy import stored_answers
from app.settings import Settings
from specsem.errors import PolicyRefused, UnknownPolicy
from specsem.result import ScoredFile

HIGH = {"file": ("a.mp4", b"SCORE:0.97")}
ADS = {
    "name": "moderation",
    "version": 3,
    "rules": [
        {"name": "ads", "when": {"max_fpr": 0.06, "surface": ["ads"]}, "then": "block"},
        {"name": "acme", "when": {"max_fpr": 0.06, "tenant": ["acme"]}, "then": "label"},
        {"name": "high", "when": {"max_fpr": 0.06}, "then": "review"},
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Policies of an operator. The stand-in for a model keeps to 6% of false alarms."""
    path = tmp_path / "policies.json"
    path.write_text(json.dumps({"policies": [ADS]}))
    return path


def score(client: TestClient, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/score", files=HIGH, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def action(answer: dict[str, Any]) -> tuple[str, str | None]:
    return answer["decision"]["action"], answer["decision"]["rule"]


def test_every_answer_has_its_decision(client: TestClient) -> None:
    decision = score(client)["decision"]
    assert (decision["action"], decision["policy"], decision["version"]) == ("review", "default", 1)
    assert decision["threshold"]["calibration_n"] == 50
    job = ended(client, client.post("/v1/jobs", files=HIGH))
    assert job["result"]["decision"] == decision
    assert (job["action"], job["surface"]) == ("review", "")
    [listed] = client.get("/v1/jobs").json()["jobs"]
    assert listed["action"] == "review"
    [waiting] = client.get("/v1/review").json()["items"]
    assert waiting["action"] == "review"
    assert value(client, "decisions_total", action="review", surface="", policy="default") == 2


def test_a_surface_is_said_in_the_query_the_form_or_json(tmp_path: Path, file: Path) -> None:
    with service(tmp_path / "data", policy="moderation", policy_file=file) as client:
        assert action(score(client)) == ("review", "high")
        assert action(score(client, params={"surface": "ads"})) == ("block", "ads")
        assert action(score(client, data={"surface": "ads"})) == ("block", "ads")
        video = client.post("/v1/videos", files=HIGH).json()["id"]
        named = {"video": video, "surface": "ads"}
        assert action(client.post("/v1/score", json=named).json()) == ("block", "ads")
        job = ended(client, client.post("/v1/jobs", json=named))
        assert (job["action"], job["surface"]) == ("block", "ads")
        score(client, params={"surface": "never-heard-of"})
        assert value(client, "decisions_total", action="block", surface="ads", policy="moderation") == 4
        assert value(client, "decisions_total", action="review", surface="other", policy="moderation") == 1
        for sent in ({"params": {"surface": "no name"}}, {"data": {"surface": "<b>"}}):
            check_problem(client.post("/v1/score", files=HIGH, **sent), 422, "invalid_request")
        check_problem(client.post("/v1/jobs", json=named | {"surface": "\n"}), 422, "invalid_request")


def test_a_stored_answer_is_decided_anew(tmp_path: Path, file: Path) -> None:
    with service(tmp_path / "data", policy_file=file, policy="default") as client:
        assert action(ended(client, client.post("/v1/jobs", files=HIGH))["result"]) == (
            "review",
            "looks-generated",
        )
    with service(tmp_path / "data", policy_file=file, policy="moderation@3") as client:
        again = ended(client, client.post("/v1/jobs", files=HIGH, data={"surface": "ads"}))
        assert (again["from_store"], again["action"]) == (True, "block")
        assert action(again["result"]) == ("block", "ads")
        other = client.post("/v1/jobs", files=HIGH, headers={"Idempotency-Key": "k"})
        assert ended(client, other)["action"] == "review"
        reused = client.post(
            "/v1/jobs", files=HIGH, headers={"Idempotency-Key": "k"}, data={"surface": "ads"}
        )
        check_problem(reused, 422, "idempotency_key_reused")


def test_tenants_see_the_rules_that_are_theirs(tmp_path: Path, file: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    settings.make_data_dir()
    with open_keys(settings) as keys:
        ours, theirs = (keys.create(tenant=tenant)[0] for tenant in ("acme", "other"))
    with service(tmp_path / "data", policy="moderation", policy_file=file) as client:
        seen = {}
        for tenant, key in (("acme", ours), ("other", theirs)):
            headers = {"X-API-Key": key}
            seen[tenant] = client.get("/v1/policies/moderation", headers=headers).json()
            expected = ("label", "acme") if tenant == "acme" else ("review", "high")
            assert action(score(client, headers=headers)) == expected
        assert [rule["name"] for rule in seen["acme"]["rules"]] == ["ads", "acme", "high"]
        assert [rule["name"] for rule in seen["other"]["rules"]] == ["ads", "high"]
        assert "acme" not in json.dumps(seen["other"])
        assert seen["other"]["rules"][0]["threshold"]["fpr_upper95"] == 0.06


def test_policies_are_found_by_name_and_version(tmp_path: Path, file: Path) -> None:
    with service(tmp_path / "data", policy="moderation", policy_file=file) as client:
        listed = client.get("/v1/policies").json()["policies"]
        assert [(one["name"], one["version"], one["active"]) for one in listed] == [
            ("default", 1, False),
            ("moderation", 3, True),
            ("review", 1, False),
        ]
        assert "no operating point 'review'" in listed[2]["refused"][0]
        assert client.get("/v1/policies/moderation@3").json() == listed[1]
        check_problem(client.get("/v1/policies/moderation@4"), 404, "policy_not_found")
        schema = client.get("/v1/policies.schema.json")
        assert schema.headers["Content-Type"] == "application/schema+json"
        assert schema.json()["$defs"]["Rule"]["properties"]["then"]["enum"] == [
            "allow",
            "label",
            "review",
            "block",
        ]


def test_the_shadow_is_logged_and_counted_and_never_shown(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "specsem.app")
    with service(tmp_path / "data", policy_file=file, policy_shadow="moderation") as client:
        answer = score(client, params={"surface": "ads"})
        assert action(answer) == ("review", "looks-generated")
        assert "moderation" not in json.dumps(answer)
        assert value(client, "shadow_decisions_total", action="review", shadow="block") == 1
        assert value(client, "decisions_total", action="review", surface="ads", policy="default") == 1
    [line] = [record for record in caplog.records if hasattr(record, "shadow_action")]
    assert line.getMessage() == "default@1 decided review, moderation@3 would decide block"
    assert (line.shadow_rule, line.surface) == ("ads", "ads")  # type: ignore[attr-defined]


@pytest.mark.parametrize("setting", ["policy", "policy_shadow"])
def test_what_the_model_can_t_keep_is_never_ready(tmp_path: Path, file: Path, setting: str) -> None:
    strict = ADS | {"rules": [{"name": "strict", "when": {"max_fpr": 0.001}, "then": "block"}]}
    file.write_text(json.dumps({"policies": [strict]}))
    settings = Settings(data_dir=tmp_path / "data", policy_file=file, **{setting: "moderation"})
    application = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(application, base_url="http://127.0.0.1") as client:
        doubles.until(lambda: "can't be promised" in client.get("/readyz").text)
        detail = check_problem(client.get("/readyz"), 503, "not_ready")["detail"]
    assert detail.startswith("The policy moderation@3 can't be used with this model. Rule 'strict'")


def test_what_is_no_policy_ends_the_start(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UnknownPolicy), service(tmp_path / "data", policy="none"):
        pass
    file.write_text("{}")
    with pytest.raises(PolicyRefused), service(tmp_path / "data", policy_file=file):
        pass


def test_stored_answers_of_one_tenant_or_of_all(client: TestClient, settings: Settings) -> None:
    for number in range(3):
        ended(client, client.post("/v1/jobs", files={"file": f"SCORE:0.9{number}".encode()}))
    ended(client, client.post("/v1/jobs", files={"file": b"BAD:encrypted"}))
    stored = list(stored_answers(settings))
    assert len(stored) == 3
    assert all(isinstance(one.answer, ScoredFile) and one.answer.decision for one in stored)
    assert list(stored_answers(settings, "nobody")) == []
    store = JobStore(client.app.state.parts.jobs.database)  # type: ignore[attr-defined]
    assert [row.id for row in store.answers(at_a_time=2)] == sorted(one.id for one in stored)
