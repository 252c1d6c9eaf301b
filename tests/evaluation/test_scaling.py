"""Scaling laws: worked values of the method (section 4), families whose exponent is known, the command."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from sklearn.metrics import roc_auc_score

from specsem import cli
from specsem.errors import SpecSemError
from specsem.evaluation.scaling import (
    Floats,
    Ints,
    auc,
    chain_probability,
    error_entropy,
    fit_floor_law,
    fit_power_law,
    forecast,
    rank_based_error,
    rbp,
    truth_rank,
)
from specsem.evaluation.scaling_report import Target, analyse, scaling
from specsem.evaluation.scaling_tables import read_runs, write_table

SIZES = np.array([100.0, 200, 400, 800, 1600, 3200])


# -- what is measured of one run ----------------------------------------------------------------------------


def test_ranks_of_the_method() -> None:
    p_NK = np.array(
        [[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.6, 0.2, 0.1, 0.1]]
    )
    truth_N = np.array([0, 1, 2, 3])
    assert truth_rank(p_NK, truth_N).tolist() == [1, 3, 4, 4]
    assert rank_based_error(p_NK, truth_N).tolist() == [0, 2, 0, 2]
    assert rbp(truth_rank(p_NK, truth_N), [1, 2, 3, 4]).tolist() == [0.25, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("rbe", "score", "parts"),
    [
        ([0, 0, 1, 1], [0.4, 0.9, 0.1, 0.4], (1.060132, 0.693147, 0.143841, 0.223144)),
        ([0, 0, 0, 1], [0.5, 0.5, 0.5, 0.125], (1.039721, 0.562335, 0.007382, 0.470004)),
    ],
)
def test_error_entropy_of_the_method(
    rbe: list[int], score: list[float], parts: tuple[float, float, float, float]
) -> None:
    found = error_entropy(np.array(rbe), np.array(score))
    measured = (found.cross_entropy, found.error_entropy, found.self_alignment, found.confidence)
    assert measured == pytest.approx(parts, abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(1e-300, 1.0), st.integers(1, 3)), min_size=1, max_size=40)
)
def test_the_parts_sum_to_cross_entropy(samples: list[tuple[int, float, int]]) -> None:
    rbe, score, times = (np.array(column) for column in zip(*samples, strict=True))
    found = error_entropy(rbe, score, times.astype(float))
    parts = found.error_entropy + found.self_alignment + found.confidence
    assert found.cross_entropy == pytest.approx(parts, rel=1e-12, abs=1e-12)
    assert found.cross_entropy == pytest.approx(-np.average(np.log(score), weights=times))
    assert found.error_entropy >= 0
    assert found.self_alignment >= -1e-9
    repeated = error_entropy(np.repeat(rbe, times), np.repeat(score, times))
    assert repeated.self_alignment == pytest.approx(found.self_alignment, rel=1e-9, abs=1e-9)


def test_a_probability_of_zero_is_infinite_where_it_enters() -> None:
    one = error_entropy(np.array([0, 0, 1]), np.array([0.5, 0.5, 0.0]))
    assert one.error_entropy == pytest.approx(0.636514, abs=1e-6)
    assert (one.cross_entropy, one.self_alignment) == (math.inf, math.inf)
    assert one.confidence == pytest.approx(math.log(2))
    every = error_entropy(np.array([0, 1]), np.zeros(2))
    assert (every.error_entropy, every.confidence) == (pytest.approx(math.log(2)), math.inf)


def test_area_under_the_curve_counts_weights() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.4
    score = np.round(rng.normal(positive * 1.0, 1.0), 1)  # with ties
    times = rng.integers(0, 3, 300)
    assert auc(positive, score) == pytest.approx(roc_auc_score(positive, score))
    expected = roc_auc_score(positive, score, sample_weight=times)
    assert auc(positive, score, times.astype(float)) == pytest.approx(expected)
    assert math.isnan(auc(np.ones(3, bool), np.arange(3.0)))


# -- the power law ------------------------------------------------------------------------------------------


def test_a_law_without_noise_is_found_as_it_is() -> None:
    law = fit_power_law(SIZES, 3.0 * SIZES**-0.4)
    assert (law.c, law.alpha, law.r_squared) == pytest.approx((3.0, 0.4, 1.0))
    assert law.alpha_interval == pytest.approx((0.4, 0.4))
    assert law.alpha_interval_samples is None
    wanted = forecast(law, 3.0 * 6400**-0.4)
    assert wanted.size == pytest.approx(6400)
    assert wanted.interval == pytest.approx((6400, 6400))
    assert wanted.more == pytest.approx(3200)
    assert wanted.extrapolation == pytest.approx(2)
    assert chain_probability(law, 100, 5) == pytest.approx(math.exp(-5 * 3.0 * 100**-0.4))


def test_the_slope_is_scipys() -> None:
    rng = np.random.default_rng(3)
    value = 2.0 * SIZES**-0.3 * np.exp(rng.normal(0, 0.1, 6))
    law, line = fit_power_law(SIZES, value), linregress(np.log(SIZES), np.log(value))
    assert law.alpha == pytest.approx(-line.slope)
    assert law.r_squared == pytest.approx(line.rvalue**2)
    assert law.alpha_interval[1] - law.alpha == pytest.approx(2.776445 * line.stderr)  # t, 4 degrees


def test_weights_are_as_so_many_runs_to_the_line() -> None:
    value = np.array([1.0, 0.9, 0.5, 0.6])
    size = np.array([1.0, 2, 4, 8])
    weighted = fit_power_law(size, value, weight_M=np.array([1.0, 3, 1, 2]))
    repeated = fit_power_law(np.repeat(size, [1, 3, 1, 2]), np.repeat(value, [1, 3, 1, 2]))
    assert (weighted.alpha, weighted.c) == pytest.approx((repeated.alpha, repeated.c))
    assert weighted.r_squared == pytest.approx(repeated.r_squared)
    assert weighted.runs == 4


def test_the_interval_covers_the_exponent_as_often_as_it_says() -> None:
    """400 families of six runs that scatter about a law: 95% of the intervals hold its exponent, and 95% of
    the forecasts' intervals hold the size at which a new run has the value it has."""
    rng = np.random.default_rng(0)
    slopes, forecasts, trials = 0, 0, 400
    for _ in range(trials):
        law = fit_power_law(SIZES, 3.0 * SIZES**-0.35 * np.exp(rng.normal(0, 0.08, 6)))
        slopes += law.alpha_interval[0] <= 0.35 <= law.alpha_interval[1]
        wanted = forecast(law, 3.0 * 10_000**-0.35 * math.exp(rng.normal(0, 0.08)))
        assert wanted.interval is not None
        forecasts += wanted.interval[0] <= 10_000 <= wanted.interval[1]
    assert 0.92 <= slopes / trials <= 0.98
    assert 0.92 <= forecasts / trials <= 0.98


def test_both_intervals_hold_the_exponent_of_a_measured_family() -> None:
    """-log RBP_k = c S^-alpha exactly, each run seen through 1,500 samples."""
    rng = np.random.default_rng(1)
    n, rounds, trials = 1500, 300, 60
    by_runs, by_samples = 0, 0
    for _ in range(trials):
        hit_M = rng.binomial(n, np.exp(-6.0 * SIZES**-0.5)) / n
        draws_BM = rng.binomial(n, hit_M, (rounds, len(SIZES))) / n
        law = fit_power_law(SIZES, -np.log(hit_M), draws_BM=-np.log(draws_BM))
        by_runs += law.alpha_interval[0] <= 0.5 <= law.alpha_interval[1]
        assert law.alpha_interval_samples is not None
        by_samples += law.alpha_interval_samples[0] <= 0.5 <= law.alpha_interval_samples[1]
    assert by_runs >= 0.88 * trials
    assert by_samples >= 0.88 * trials


def test_values_without_a_logarithm_are_left_out_and_counted() -> None:
    value = np.array([0.8, 0.4, 0.2, 0.1, 0.0, math.inf])
    law = fit_power_law(SIZES, value, draws_BM=np.tile(value, (5, 1)))
    assert (law.alpha, law.runs, law.left_out) == (pytest.approx(1.0), 4, 2)
    assert law.size_range == (100, 800)
    assert law.alpha_interval_samples == pytest.approx((1.0, 1.0))
    lost = np.array([[0.8, 0.4, 0.0, 0.0, 0.0, 0.0]])  # one draw, in which two runs made no error
    assert fit_power_law(SIZES, value, draws_BM=lost).alpha_interval_samples is None
    with pytest.raises(SpecSemError, match="at 3 different sizes; here are 2"):
        fit_power_law(np.array([1.0, 1, 2, 3]), np.array([0.5, 0.6, 0.4, 0.0]))


# -- how much more for a target -----------------------------------------------------------------------------


def test_no_forecast_where_size_shows_no_effect() -> None:
    flat = fit_power_law(SIZES, np.array([0.5, 0.45, 0.52, 0.44, 0.51, 0.47]))
    assert flat.alpha_interval[0] < 0 < flat.alpha_interval[1]
    assert "includes 0" in forecast(flat, 0.1).reason
    assert forecast(flat, 0.1).size is None
    assert "includes 0" in forecast(fit_power_law(SIZES, np.full(6, 0.3)), 0.1).reason
    assert "grows with size" in forecast(fit_power_law(SIZES, SIZES**0.2), 0.1).reason
    unsure = fit_power_law(SIZES, 3 / SIZES, draws_BM=np.stack([SIZES**-3.0, SIZES**2.0]))
    assert "includes 0" in forecast(unsure, 0.001).reason, "the samples alone may be too few"
    with pytest.raises(SpecSemError, match="positive"):
        forecast(flat, 0.0)


def test_a_forecast_says_how_far_it_reaches() -> None:
    law = fit_power_law(SIZES, 3.0 * SIZES**-0.4)
    assert forecast(law, 3.0 * 1000**-0.4).extrapolation == pytest.approx(1)
    before = forecast(law, 3.0 * 50**-0.4)
    assert (before.extrapolation, before.more) == (pytest.approx(0.5), pytest.approx(50 - 3200))
    assert forecast(law, 1e-300).size == math.inf


# -- the law with a floor -----------------------------------------------------------------------------------


def test_a_floor_is_found_where_there_is_one() -> None:
    rng = np.random.default_rng(2)
    size = np.geomspace(10, 100_000, 9)
    law = fit_floor_law(size, (2.0 * size**-0.6 + 0.05) * np.exp(rng.normal(0, 0.02, 9)))
    assert law is not None
    assert (law.alpha, law.floor) == (pytest.approx(0.6, abs=0.03), pytest.approx(0.05, abs=0.003))
    assert law.p_value < 0.001
    assert law.size_for(0.04) is None
    assert law.size_for(law.c * 500**-law.alpha + law.floor) == pytest.approx(500)


def test_no_floor_is_made_up() -> None:
    rng = np.random.default_rng(4)
    laws = [fit_floor_law(SIZES, SIZES**-0.4 * np.exp(rng.normal(0, 0.05, 6))) for _ in range(100)]
    assert sum(law is not None and law.p_value < 0.05 for law in laws) <= 10
    assert fit_floor_law(SIZES[:4], SIZES[:4] ** -0.4) is None


# -- tables -------------------------------------------------------------------------------------------------


def probabilities(rng: np.random.Generator, size: float, k: int, n: int) -> tuple[Floats, Ints]:
    """What a model of K outcomes says: the truth is on top with probability exp(-6 / sqrt(size))."""
    truth_N = rng.integers(0, k, n)
    p_NK = rng.dirichlet(np.ones(k), n)
    hit = rng.random(n) < math.exp(-6 * size**-0.5)
    for i in range(n):
        best = int(np.argmax(p_NK[i]))
        place = truth_N[i] if hit[i] else (truth_N[i] + 1) % k
        p_NK[i, [best, place]] = p_NK[i, [place, best]]
    return p_NK, truth_N


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sizes of attribution among twelve (Parquet) and of the detector (CSV), side by side."""
    path = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    for size in SIZES:
        for outcome, k, ending in (("attribution", 12, "parquet"), ("detector", 2, "csv")):
            file = path / f"{outcome}-{size:.0f}.{ending}"
            write_table(file, "seed-0", size, *probabilities(rng, size, k, 800), outcome=outcome)
    (path / "notes.txt").write_text("Not a table.")
    return path


def write(path: Path, **columns: Any) -> Path:
    pa.csv.write_csv(pa.table(columns), path)
    return path


def test_what_is_written_is_read(folder: Path) -> None:
    runs = read_runs([folder])
    assert [(run.outcome, run.size) for run in runs] == [
        (outcome, size) for outcome in ("attribution", "detector") for size in SIZES
    ]
    p_NK, truth_N = probabilities(np.random.default_rng(0), SIZES[0], 12, 800)
    assert (runs[0].run, runs[0].classes, runs[-1].classes) == ("seed-0", 12, 2)
    assert np.array_equal(runs[0].rank_N, truth_rank(p_NK, truth_N))
    assert np.array_equal(runs[0].score_N, p_NK[np.arange(800), truth_N])
    with pytest.raises(SpecSemError, match=r"\.csv or \.parquet"):
        write_table(folder / "a.xlsx", "a", 1, p_NK, truth_N)


def test_a_table_of_tokens_holds_many_runs(tmp_path: Path) -> None:
    """Rank and probability alone; ties are in ``rbe``; the name of the file is the run's."""
    ranks = {
        "rank": [1, 2, 2, 1, 3, 1],
        "probability": [0.5, 0.2, 0.0, 0.9, 0.1, 1.0],
        "size": [8] * 4 + [4] * 2,
    }
    plain = read_runs([write(tmp_path / "lm.csv", **ranks)])
    assert [(run.run, run.size, len(run.rank_N)) for run in plain] == [("lm", 4, 2), ("lm", 8, 4)]
    assert plain[1].rbe_N.tolist() == [0, 1, 1, 0]
    tied = read_runs([write(tmp_path / "lm.csv", rbe=[0, 0, 1, 0, 2, 0], run=[7] * 6, **ranks)])
    assert (tied[1].run, tied[1].rbe_N.tolist()) == ("7", [0, 0, 1, 0])


GOOD = {"size": [1.0, 2.0], "rank": [1, 2], "probability": [0.5, 0.5]}
WIDE = {"size": [1.0, 2.0], "p_0": [0.5, 0.1], "p_1": [0.5, 0.9], "truth": [0, 1]}


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"rank": [1], "probability": [0.5]}, "column 'size' is missing"),
        ({"size": [1.0], "rank": [1]}, "column 'probability' is missing"),
        (GOOD | {"probability": [0.5, 1.5]}, "'probability' must be in 0..1; it isn't in row 2"),
        (GOOD | {"probability": [-0.1, 0.5]}, "'probability' must be in 0..1; it isn't in row 1"),
        (GOOD | {"probability": [0.5, None]}, "'probability' must be a finite number"),
        (GOOD | {"probability": ["a", "b"]}, "'probability' must hold numbers"),
        (GOOD | {"rank": [0, 1]}, "'rank' must be 1 or more"),
        (GOOD | {"rank": [1.5, 1]}, "'rank' must be a whole number"),
        (GOOD | {"rbe": [1, 0]}, "'rbe' must be in 0..rank-1"),
        (GOOD | {"size": [0, 1]}, "'size' must be above 0"),
        (WIDE | {"truth": [0, 2]}, "'truth' must be in 0..1; it isn't in row 2"),
        (WIDE | {"p_1": [0.5, 9.0]}, "must be in 0..1"),
        (WIDE | {"p_1": [0.9, 0.9]}, "must be 1 in sum"),
        ({"size": [1.0], "p_0": [0.5], "p_2": [0.5], "truth": [0]}, "column 'p_1' is missing"),
        ({"size": [1.0], "p_0": [1.0], "truth": [0]}, "column 'p_1' is missing"),
        ({"size": pa.array([], pa.float64())}, "has no rows"),
        (GOOD, "Laws need runs of 3 sizes or more; 'default' has 2"),
    ],
)
def test_a_bad_table_is_a_sentence(columns: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpecSemError) as refused:
        scaling([write(tmp_path / "bad.csv", **columns)], tmp_path / "out", draws=0)
    assert sentence in refused.value.message
    assert not (tmp_path / "out").exists()


def test_bad_files_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("text")
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        (tmp_path / "no.parquet", "can't be read"),
        (tmp_path / "empty", "no .csv or .parquet"),
        (tmp_path / "missing.csv", "There is no"),
    ):
        with pytest.raises(SpecSemError, match=sentence):
            read_runs([path])
    twice = write(tmp_path / "a.csv", **GOOD)
    with pytest.raises(SpecSemError, match="in two tables"):
        read_runs([twice, twice])
    other = {"size": [3.0], "p_0": [0.2], "p_1": [0.3], "p_2": [0.5], "truth": [1]}
    unlike = [write(tmp_path / "w.csv", **WIDE), write(tmp_path / "x.csv", **other)]
    with pytest.raises(SpecSemError, match="don't agree"):
        analyse(read_runs(unlike), [1])


# -- the command --------------------------------------------------------------------------------------------


def test_groups_are_drawn_not_rows(tmp_path: Path) -> None:
    """Copies within a group make no interval narrower; copies that pass for samples do."""
    rng = np.random.default_rng(5)
    for size in SIZES[:4]:
        p_NK, truth_N = probabilities(rng, size, 3, 60)
        copies = np.repeat(p_NK, 5, axis=0), np.repeat(truth_N, 5)
        names = [f"source {i}" for i in range(60)]
        write_table(tmp_path / f"once-{size}.csv", "r", size, p_NK, truth_N, outcome="once", group_N=names)
        grouped = np.repeat(names, 5).tolist()
        write_table(tmp_path / f"many-{size}.csv", "r", size, *copies, outcome="many", group_N=grouped)
        write_table(tmp_path / f"rows-{size}.csv", "r", size, *copies, outcome="rows")
    width = {}
    runs = read_runs([tmp_path])
    for outcome in ("once", "many", "rows"):
        law, *_ = analyse([run for run in runs if run.outcome == outcome], [1], draws=200)
        assert law.power is not None
        assert law.power.alpha_interval_samples is not None
        width[outcome] = np.ptp(law.power.alpha_interval_samples)
    assert width["many"] == pytest.approx(width["once"])
    assert width["rows"] < 0.7 * width["many"]


@pytest.mark.parametrize(
    "text",
    ["rbp_1", "rbp_1=1", "rbp_0=0.5", "auc=0", "auc=much", "error_entropy=-1", "confidence=1", "auc=1e"],
)
def test_what_is_no_target_is_a_sentence(text: str) -> None:
    with pytest.raises(SpecSemError, match="is no target"):
        Target.parse(text)


def run_command(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["specsem", "scaling", *map(str, args)])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_recovers_a_known_exponent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ("attribution/rbp_1=0.95", "auc=0.999", "rbp_20=0.5")
    args = [folder, "--out", tmp_path, "--k", "1", "--k", "2", "--draws", "40"]
    args += [arg for target in targets[:2] for arg in ("--target", target)]
    assert run_command(monkeypatch, *args) == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if "to" in line and "Forecast" not in line) <= 80
    assert "attribution: value = c * (training clips) ** -alpha" in shown
    assert "Forecast: rbp_1 = 0.95 at about" in shown
    assert "its size: an extrapolation" in shown
    report = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))
    assert (tmp_path / "scaling.svg").stat().st_size > 10_000
    assert report["outcomes"].keys() == {"attribution", "detector"}
    assert "auc" not in report["outcomes"]["attribution"]["laws"]
    assert "rbp_2" not in report["outcomes"]["detector"]["laws"], "k = K says nothing"
    for outcome in report["outcomes"].values():
        law = outcome["laws"]["rbp_1"]["power_law"]
        for interval in ("alpha_interval", "alpha_interval_samples"):
            assert law[interval][0] < 0.5 < law[interval][1]
        assert law["r_squared"] > 0.9
        first = outcome["runs"][0]
        assert -math.log(first["rbp_1"]) == pytest.approx(outcome["laws"]["rbp_1"]["values"][0])
    wanted = report["outcomes"]["attribution"]["forecasts"][targets[0]]
    assert wanted["interval"][0] < (6 / -math.log(0.95)) ** 2 < wanted["interval"][1]
    assert (
        run_command(monkeypatch, folder, "--out", tmp_path / "x", "--target", targets[2], "--draws", "0") == 2
    )
    assert "No outcome here has the figure" in capsys.readouterr().err
    assert run_command(monkeypatch, os.devnull, "--out", tmp_path / "x") == 2
    assert capsys.readouterr().err.startswith("specsem: null")


def test_a_perfect_run_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes, ranks = [1] * 4 + [2] * 4 + [4] * 4 + [8] * 4, [1, 2, 2, 2, 1, 1, 2, 2, 1, 1, 1, 2, 1, 1, 1, 1]
    score = [0.0] + [0.3] * 15
    table = write(tmp_path / "t.csv", size=sizes, rank=ranks, probability=score)
    scaling([table], tmp_path, ks=[1, 2], targets=["rbp_1=0.9", "rbp_2=0.9"], draws=20)
    shown = capsys.readouterr().out
    assert "-log RBP_1: 1 of 4 runs left out: RBP_1 is 1 or 0 there" in shown
    assert "Cross-entropy: 1 of 4 runs left out: Cross-entropy is 0, negative or infinite there" in shown
    assert "no forecast for rbp_2 = 0.9: 4 of 4 runs left out" in shown
    [outcome] = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))["outcomes"].values()
    assert outcome["laws"]["cross_entropy"]["values"][0] is None, "JSON has no infinity"
    assert outcome["laws"]["rbp_2"]["power_law"] is None


def test_a_forecast_says_where_the_values_level_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("specsem.evaluation.scaling_report.plot", lambda *_: None)  # others draw
    tables = []
    for size in np.geomspace(100, 100_000, 8):
        hits = round(5000 * math.exp(-(2 * size**-0.5 + 0.03)))
        rank = np.repeat([1, 2], [hits, 5000 - hits])
        file = tmp_path / f"{size:.0f}.csv"
        tables.append(write(file, size=np.full(5000, size), rank=rank, probability=1 / (rank + 1)))
    scaling(tables, tmp_path, ks=[1], targets=["rbp_1=0.98", "rbp_1=0.96"], draws=0)
    shown = capsys.readouterr().out
    assert "-log RBP_1: levels off at 0.0" in shown
    assert "a law with a floor fits better and never meets it" in shown
    assert "a law with a floor fits better and meets it at" in shown
    [outcome] = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))["outcomes"].values()
    never, once = outcome["forecasts"].values()
    assert (never["levels_off"], never["size_with_floor"]) == (True, None)
    assert once["size_with_floor"] == pytest.approx((2 / (-math.log(0.96) - 0.03)) ** 2, rel=0.2)
