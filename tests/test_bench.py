"""The bench runs and reports what it promises; no figure is asserted."""

import json
from pathlib import Path
from typing import Any

import pytest

from specsem.bench import EXTRAS, STAGES, print_report, run, spread


@pytest.fixture(scope="module")
def report(tiny_models: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
        measured = run(model="specsem-compact", device="cpu", quick=True)
    return json.loads(json.dumps(measured, allow_nan=False))  # type: ignore[no-any-return]


def test_every_stage_has_median_and_quartiles(report: dict[str, Any]) -> None:
    assert tuple(report["stages_ms"]) == STAGES
    assert tuple(report["extras_ms"]) == tuple(report["extras_percent_of_total"]) == EXTRAS
    for values in [
        *report["stages_ms"].values(),
        report["throughput"]["clips_per_s"],
    ]:
        assert 0 < values["low"] <= values["median"] <= values["high"]


def test_it_says_what_the_figures_hold_for(report: dict[str, Any]) -> None:
    for fact in ("cpu", "cores", "device", "torch", "av", "python", "commit", "load_before"):
        assert fact in report["machine"]
    assert report["model"]["version"] == "0-tiny"
    assert report["rounds"] == 1


def test_the_forward_is_held_against_the_ceiling(report: dict[str, Any]) -> None:
    forward = report["forward"]
    assert forward["gmac_per_clip"] > 0
    assert forward["ceiling_gflops"]["median"] > 0
    assert report["peak_memory_mib"]["process"] > 0


def test_decoding_is_compared(report: dict[str, Any]) -> None:
    assert {"short_ms", "long_ms", "long_over_short", "isolation_ms"} <= report["decode_cost"].keys()


def test_people_can_read_it(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)
    shown = capsys.readouterr().out
    for word in (*STAGES, *EXTRAS, "throughput", "peak memory", "GMAC", "decoding"):
        assert word in shown


def test_spread() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
