"""Calibrations in the database: kept, activated, rolled back, and followed by the process that scores."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import doubles
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, delete, text
from test_feedback_store import JOB
from test_jobs_routes import ended

from app import calibrations
from app.calibrations import CalibrationRefused, CalibrationStore, Follower, open_calibrations
from app.jobs.database import database_of, open_database
from app.jobs.feedback import Counted, FeedbackStore
from app.jobs.store import Finished, JobStore
from app.jobs.table import ActivationRow, AuditRow, CalibrationRow
from app.settings import Settings
from specsem import cli
from specsem.calibration import Calibration
from specsem.registry import get_model

WEIGHTS = doubles.RECORD.sha256
OTHER = replace(doubles.Scorer.shipped, intercept=0.5)


@pytest.fixture
def store(database: Engine) -> CalibrationStore:
    with database.execution_options(writes=True).begin() as connection:
        for table in (CalibrationRow, ActivationRow, AuditRow):
            connection.execute(delete(table))
    return CalibrationStore(database)


def test_nothing_becomes_active_by_itself_and_all_can_be_undone(store: CalibrationStore) -> None:
    first, second = store.add(WEIGHTS, OTHER, note="for the phones"), store.add(WEIGHTS, OTHER)
    assert (first.version, second.version, store.active(WEIGHTS)) == (1, 2, 0)
    with pytest.raises(CalibrationRefused, match="the model's own"):
        store.roll_back(WEIGHTS)
    for version in (1, 2, 0, 1):
        store.activate(WEIGHTS, version)
        assert store.active(WEIGHTS) == version
    assert [store.roll_back(WEIGHTS) for _ in range(4)] == [0, 2, 1, 0]
    with pytest.raises(CalibrationRefused):
        store.roll_back(WEIGHTS)
    store.activate(WEIGHTS, 2)
    for wrong in (2, 3):
        with pytest.raises(CalibrationRefused):
            store.activate(WEIGHTS, wrong)
    assert [row.version for row in store.listed(WEIGHTS)] == [2, 1]
    row = store.find(WEIGHTS, 1)
    assert row is not None
    assert Calibration.from_json(row.content) == replace(OTHER, version=1)


def test_calibrations_of_other_weights_are_not_there(store: CalibrationStore) -> None:
    store.add(WEIGHTS, OTHER)
    assert store.find("f" * 64, 1) is None
    assert store.listed("f" * 64) == []
    with pytest.raises(CalibrationRefused):
        store.activate("f" * 64, 1)
    store.activate(WEIGHTS, 1)
    assert store.active("f" * 64) == 0


def test_it_is_in_the_audit_trail(store: CalibrationStore, database: Engine) -> None:
    kept = store.add(WEIGHTS, OTHER)
    store.activate(WEIGHTS, 1)
    store.roll_back(WEIGHTS)
    with database.connect() as connection:
        told = [
            json.loads(row.entry)
            for row in connection.execute(text("SELECT entry FROM audit_trail ORDER BY seq"))
        ]
    names = ["calibration_made", "calibration_activated", "calibration_rolled_back"]
    assert [entry["event"] for entry in told] == names
    assert told[0]["details"]["sha256"] == kept.used.sha256
    assert told[2]["details"] == {"weights": WEIGHTS, "version": 0, "undone": 1}


def test_an_engine_follows_and_keeps_what_it_has_where_it_can_t(tmp_path: Path) -> None:
    database = open_database(None, tmp_path)
    store, engine = CalibrationStore(database), doubles.Engine(Settings(data_dir=tmp_path))
    store.add(WEIGHTS, OTHER)
    store.add(WEIGHTS, OTHER)
    with database.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE calibrations SET content = '{}' WHERE version = 2"))

    async def follow() -> list[int]:
        follower, seen = Follower(store, engine), []
        store.activate(WEIGHTS, 1)
        await engine.start(on_loaded=follower.look)
        seen.append(engine.calibration.version)
        store.activate(WEIGHTS, 2)
        for version in (None, 0):
            if version is not None:
                store.activate(WEIGHTS, version)
            await follower.look()
            seen.append(engine.calibration.version)
        await engine.aclose()
        return seen

    assert asyncio.run(follow()) == [1, 1, 0]
    database.dispose()


def test_a_new_calibration_serves_no_old_verdict_as_new(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrations, "FOLLOW_S", 0.05)
    first = ended(client, client.post("/v1/jobs", content="SCORE:0.97"))
    again = ended(client, client.post("/v1/jobs", content="SCORE:0.97"))
    assert (first["from_store"], again["from_store"]) == (False, True)
    assert first["result"]["calibration"] == doubles.Scorer.shipped.used.model_dump()
    store: CalibrationStore = client.app.state.parts.calibrations  # type: ignore[attr-defined]
    kept = store.add(WEIGHTS, OTHER)
    store.activate(WEIGHTS, 1)
    metric = "specsem_calibration_version 1.0"
    doubles.until(lambda: metric in client.get("/metrics").text)
    later = ended(client, client.post("/v1/jobs", content="SCORE:0.97"))
    assert later["from_store"] is False
    assert later["result"]["calibration"] == kept.used.model_dump()
    listed = client.get("/v1/calibrations").json()["calibrations"]
    assert [(one["version"], one["active"]) for one in listed] == [(1, True), (0, False)]
    store.roll_back(WEIGHTS)
    doubles.until(lambda: metric not in client.get("/metrics").text)
    back = ended(client, client.post("/v1/jobs", content="SCORE:0.97"))
    assert (back["from_store"], back["result"]["calibration"]["version"]) == (True, 0)


def test_the_workbench_of_an_operator(
    tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    own = Calibration.load(get_model().folder)
    with open_calibrations(Settings(data_dir=tmp_path / "data")) as bench:
        assert bench.base() == own
        assert (bench.confirmations(), bench.stream()) == ([], {})
        kept = bench.keep(replace(own, intercept=0.25), note="more phones")
        assert bench.base() == own
        bench.activate(1)
        assert bench.base() == kept
        assert Calibration.from_json(bench.shown(1)) == kept
        assert [(one["version"], one["active"], one["note"]) for one in bench.listed()] == [
            (1, True, "more phones"),
            (0, False, "came with the model"),
        ]
        assert bench.roll_back() == 0
        with pytest.raises(CalibrationRefused):
            bench.shown(7)


def test_what_a_policy_in_use_can_t_rest_on_is_not_activated(
    tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    file = tmp_path / "policies.json"
    strict = {
        "name": "strict",
        "version": 1,
        "rules": [{"name": "r", "when": {"max_fpr": 0.06}, "then": "block"}],
    }
    file.write_text(json.dumps({"policies": [strict]}))
    any_policy = Settings(data_dir=tmp_path / "data")
    own = Calibration.load(get_model().folder)
    loose = {name: each.model_copy(update={"fpr_upper95": 0.2}) for name, each in own.policies.items()}
    with open_calibrations(any_policy) as bench:
        bench.keep(replace(own, policies=loose))
        bench.keep(own)
    for in_use in ({"policy": "strict"}, {"policy_shadow": "strict"}):
        settings = any_policy.model_copy(update={"policy_file": file, **in_use})
        with open_calibrations(settings) as bench:
            with pytest.raises(CalibrationRefused, match=r"Calibration 1 .* the policy strict") as refused:
                bench.activate(1)
            assert "0.06" in refused.value.message
            assert bench.base() == own
    with open_calibrations(any_policy) as bench:
        bench.activate(1)
        bench.activate(2)
    with open_calibrations(settings) as bench:
        with pytest.raises(CalibrationRefused, match="Calibration 1 "):
            bench.roll_back()
        assert bench.base().version == 2


def test_from_counts_to_an_active_calibration_at_the_command_line(
    tmp_path: Path,
    tiny_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Four days of 64 jobs, of which nobody says more than how many are generated: none."""
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("SPECSEM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["specsem", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    code, _, said = run("recalibrate")
    assert (code, "too_little_feedback" in said) == (2, True)
    model = get_model()
    answer = {"verdict": "authentic", "score": 0.5, "model": {"sha256": model.sha256}}
    with database_of(Settings()) as database:
        jobs, feedback = JobStore(database), FeedbackStore(database)
        for day in range(4):
            ids = [f"{64 * day + number:032x}" for number in range(64)]
            for number, job in enumerate(ids):
                finished = Finished(result=json.dumps(answer | {"logit": number / 8}), verdict="authentic")
                jobs.add(replace(JOB, id=job), finished=finished, ttl_s=60)
            feedback.add_group("", Counted("generated", 0, ids, "op"))
    code, shown, _ = run("recalibrate", "--dry-run")
    assert (code, "it was not kept" in shown, "256 camera clips" in shown) == (0, True, True)
    code, kept, _ = run("recalibrate", "--note", "four days", "--json")
    fitted = Calibration.from_json(kept)
    assert (code, fitted.version, fitted.basis and fitted.basis.grouped) == (0, 1, 256)
    policy, before = fitted.policies["default"], Calibration.load(model.folder)
    above = sum(before.probability(number / 8) >= policy.value for number in range(64)) / 64
    assert above <= policy.max_fpr
    assert json.loads(run("calibrations", "list", "--json")[1].splitlines()[0])["active"] is False
    assert run("calibrations", "activate", "1")[0] == 0
    assert run("calibrations", "activate", "1")[0] == 2
    assert "four days" in run("calibrations", "list")[1]
    assert Calibration.from_json(run("calibrations", "show", "1")[1]) == fitted
    assert "Calibration 0 is active again." in run("calibrations", "rollback")[1]
    assert run("recalibrate", "--since", "yesterday")[0] == 2
