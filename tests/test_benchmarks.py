"""The programs under benchmarks/ run, on scores drawn for the purpose; no figure is judged here."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from specsem.evaluation.files import FileScore, write_scores
from specsem.evaluation.scaling_tables import read_runs
from specsem.scorer import WindowScore
from specsem.training.data import Item

ROOT = Path(__file__).parent.parent


def run(name: str, *args: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [name, *args])
    module.main()


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 clips whose third feature tells the classes apart, and whose fourth the generators."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(160):
        generated, source = number % 2 == 0, number // 2 % 8
        shown_D = rng.normal(size=6).astype("f4")
        shown_D[2] += 3 * generated
        shown_D[3] += 2 * source
        item = Item(
            Path(f"{number}.mp4"), generated, f"s{source}", f"g{source}", "val", {"path": f"{number}.mp4"}
        )
        window = WindowScore(0, 0.3, 0.0, 2.0, 3.0, np.zeros(2, "f4"), 0.0, shown_D)
        rows.append(FileScore(item, "as-is", [window], fold=str(source % 4)))
    path = tmp_path_factory.mktemp("scores") / "scores.jsonl"
    write_scores(path, rows)
    return path


@pytest.mark.parametrize("queues", ["", "--uneven"])
def test_counts_teach_what_labels_teach(
    queues: str, scores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds", "2", "--steps", "300", "--ridge", "1", *queues.split()]
    run("counts", str(scores), *options, monkeypatch=monkeypatch)
    table = dict(line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if "(0." in line)
    auc = {name.strip(): float(cell.split()[0]) for name, cell in table.items()}
    assert set(auc) == {"every label", "counts", "mean label"}
    assert auc["every label"] > 0.8
    assert auc["counts"] > auc["every label"] - 0.1


def test_a_scaling_curve_is_a_table_of_both_outcomes(
    scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("scaling_curve", str(scores), "--out", str(tmp_path), "--seeds", "1", monkeypatch=monkeypatch)
    runs = read_runs([tmp_path])
    assert {r.outcome for r in runs} == {"detector", "attribution"}
    detector = {r.size: r for r in runs if r.outcome == "detector"}
    assert sorted(detector) == [24, 48, 96, 192, 384]
    assert all(len(r.rank_N) == 160 for r in detector.values())
    last = detector[384]
    assert last.p1_N is not None
    assert last.is1_N is not None
    assert last.p1_N[last.is1_N].mean() > last.p1_N[~last.is1_N].mean() + 0.1
    assert all(r.classes == 8 for r in runs if r.outcome == "attribution")
