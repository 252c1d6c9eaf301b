"""Scores by week, and what operators found of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from test_auth import Make, make  # noqa: F401 - a fixture
from test_jobs_routes import ended, service
from test_main import check_problem

from app.drift import BINS, DriftStore, Evidence, Limits, Scored, Tally, bin_of, edge_of, week_of, weigh
from app.jobs.table import ScoreCountRow
from specsem.calibration import Calibration
from specsem.result import Threshold

WEIGHTS = "a" * 64
THRESHOLD = Threshold(value=0.9, lower=0.1, max_fpr=0.05, fpr_upper95=0.06, calibration_n=50)
CALIBRATION = Calibration(slope=1.0, intercept=0.0, policies={"default": THRESHOLD})
LIMITS = Limits(shift=0.2, disagreement=0.1)
NOW = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
"""A Monday."""
WEEK_S = 7 * 86400.0


def row(week: str, number: int, count: int, verdict: str = "authentic") -> ScoreCountRow:
    return ScoreCountRow(week=week, weights=WEIGHTS, bin=number, verdict=verdict, count=count)


def evidence(**given: Any) -> Evidence:
    return Evidence(**{"counts": [], "opinions": [], "labels": [], "groups": []} | given)


def alerts(found: Any) -> list[str]:
    return [alert.name for alert in found.alerts]


def test_a_week_begins_on_monday() -> None:
    assert [week_of(NOW + days * 86400) for days in (-1, 0, 6, 7)] == [
        "2026-11-23",
        "2026-11-30",
        "2026-11-30",
        "2026-12-07",
    ]


def test_every_logit_has_its_bin() -> None:
    for logit in (-7.9, -0.5, -0.01, 0.0, 0.49, 7.99):
        number = bin_of(logit)
        assert edge_of(number) <= logit < edge_of(number + 1)
    assert (bin_of(-1e6), bin_of(1e6)) == (0, BINS + 1)


def test_what_is_counted_side_by_side_adds_up(database: Engine) -> None:
    with database.execution_options(writes=True).begin() as connection:
        connection.execute(text("DELETE FROM score_counts"))
    store, scored = DriftStore(database), Scored(week_of(NOW), WEIGHTS, bin_of(1.2), "generated")
    store.add({})
    store.add({scored: 3, Scored(week_of(NOW - WEEK_S), WEIGHTS, bin_of(1.2), "generated"): 5})
    store.add({scored: 4})
    assert store.stream(WEIGHTS, since=NOW) == {1.0: 7}
    assert store.stream(WEIGHTS) == {1.0: 12}
    assert store.stream("b" * 64) == {}
    counts = store.evidence(WEIGHTS, since=NOW - WEEK_S).counts
    assert [(found.week, found.count) for found in counts] == [("2026-11-23", 5), ("2026-11-30", 7)]


def test_what_the_database_did_not_take_is_kept() -> None:
    tally, scored = Tally(), Scored("2026-11-30", WEIGHTS, 3, "authentic")
    tally.give_back({scored: 2})
    taken = tally.take()
    assert tally.take() == {}
    tally.give_back(taken)
    assert tally.take() == {scored: 2}


def test_a_week_that_scores_otherwise_is_an_alert() -> None:
    quiet = [row(week, 10 + i, 40) for week in ("2026-11-16", "2026-11-23") for i in range(10)]
    same = [row("2026-11-30", 10 + i, 25) for i in range(10)]
    other = [row("2026-11-30", 15 + i, 25, "generated") for i in range(10)]
    few = [row("2026-11-30", 30, 199)]
    calm = weigh(evidence(counts=quiet + same), CALIBRATION, "default", LIMITS)
    assert calm.shift == pytest.approx(0, abs=0.02)
    assert alerts(calm) == []
    shifted = weigh(evidence(counts=quiet + other), CALIBRATION, "default", LIMITS)
    assert shifted.shift is not None
    assert shifted.shift > 1
    assert alerts(shifted) == ["scores_shifted"]
    # Of too few nothing is said of that week; the one before is looked at.
    assert weigh(evidence(counts=quiet + few), CALIBRATION, "default", LIMITS).shift == pytest.approx(
        0, abs=0.02
    )
    assert weigh(evidence(counts=same), CALIBRATION, "default", LIMITS).shift is None
    last = shifted.weeks[-1]
    assert (last.week, last.n, last.generated, sum(b.count for b in last.histogram)) == (
        "2026-11-30",
        250,
        1,
        250,
    )
    assert all(b.lower < b.upper for week in shifted.weeks for b in week.histogram)


def test_disagreement_is_an_alert_once_it_is_sure() -> None:
    week = "2026-11-30"
    unsure = evidence(opinions=[(week, "review", "right", 7), (week, "review", "wrong", 3)])
    found = weigh(unsure, CALIBRATION, "default", LIMITS)
    [said] = found.agreement
    assert said.disagreement == 0.3
    assert said.disagreement95 == pytest.approx((0.1078, 0.6032), abs=1e-3)
    assert alerts(weigh(unsure, CALIBRATION, "default", Limits(shift=0.2, disagreement=0.2))) == []
    assert alerts(found) == ["operators_disagree"]
    # Counts say as much as labels; users' opinions are shown beside.
    counted = evidence(groups=[(week, 64, 12)], opinions=[(week, "user", "wrong", 2)])
    [said] = weigh(counted, CALIBRATION, "default", LIMITS).agreement
    assert (said.right, said.wrong, said.reported_wrong) == (12, 52, 2)


def test_scores_are_held_to_labels_at_the_labels_own_odds() -> None:
    """Nine reals to each generated one: a score of one half then promises a tenth."""
    labels = [(0.0, False)] * 90 + [(0.0, True)] * 10
    found = weigh(evidence(labels=labels), CALIBRATION, "default", LIMITS)
    [middle] = found.reliability
    assert (middle.n, middle.expected, middle.generated) == (100, pytest.approx(0.1), 0.1)
    assert middle.generated95[0] < 0.1 < middle.generated95[1]
    assert weigh(evidence(labels=labels[:90]), CALIBRATION, "default", LIMITS).reliability == []


def test_false_positives_beyond_what_is_stated_are_an_alert() -> None:
    labels = [(5.0, False)] * 20 + [(-5.0, False)] * 60 + [(5.0, True)] * 10 + [(-5.0, True)] * 5
    found = weigh(evidence(labels=labels), CALIBRATION, "default", LIMITS)
    point = found.operating_point
    assert (point.real, point.false_positives, point.generated, point.called_authentic) == (80, 20, 15, 5)
    assert point.false_positive_rate95[0] > 0.05
    assert alerts(found) == ["false_positives"]


def test_every_score_is_counted_and_shown(client: TestClient) -> None:
    for score in (0.97, 0.02, 0.5):
        ended(client, client.post("/v1/jobs", content=f"SCORE:{score}"))
    job = ended(client, client.post("/v1/jobs", content="SCORE:0.97"))["id"]  # from the store: no new score
    assert client.post("/v1/score", content="SCORE:0.95").status_code == 200
    client.put(f"/v1/review/{job}", json={"label": "real"})
    found = client.get("/v1/drift").json()
    [week] = found["weeks"]
    assert (week["n"], week["generated"], week["inconclusive"]) == (4, 0.5, 0.25)
    assert found["agreement"][0]["wrong"] == 1
    assert found["operating_point"]["real"] == 1
    assert (found["shift"], found["calibration"]["version"]) == (None, 0)
    assert 'specsem_drift_alert{name="scores_shifted"} 0.0' in client.get("/metrics").text
    check_problem(client.get("/v1/drift?weeks=0"), 422, "invalid_request")


def test_only_an_administrator_sees_what_concerns_all(tmp_path: Path, make: Make) -> None:  # noqa: F811
    keys = {scope: make(scopes=[scope]) for scope in ("admin", "review")}
    with service(tmp_path) as client:
        for path in ("/v1/drift", "/v1/calibrations"):
            admin = client.get(path, headers=keys["admin"])
            assert admin.status_code == 200
            check_problem(client.get(path, headers=keys["review"]), 403, "forbidden")
