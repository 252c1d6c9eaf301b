"""Nothing is lost and nothing ends twice, though processes are killed while they work."""

from pathlib import Path
from typing import Any

import pytest
from killing import run_under_fire
from postgres import MISSING, crashable_cluster

CAMPAIGN: Any = {"jobs": 20, "workers": 2, "pause_s": (0.5, 3.0), "most_kills": 4, "job_s": 1.0}


def test_jobs_outlive_their_processes(tmp_path: Path) -> None:
    outcome = run_under_fire(tmp_path / "data", seed=1, **CAMPAIGN)
    assert outcome.clean, outcome
    assert outcome.kills


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_jobs_outlive_their_processes_on_postgresql(tmp_path: Path) -> None:
    """Here the database itself is among what is killed."""
    with crashable_cluster() as cluster:
        outcome = run_under_fire(tmp_path / "data", seed=2, cluster=cluster, **CAMPAIGN)
    assert outcome.clean, outcome
    assert outcome.kills
