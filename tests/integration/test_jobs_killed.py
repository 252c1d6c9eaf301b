"""Nothing is lost and nothing ends twice, though processes are killed while they work."""

from pathlib import Path

import pytest
from killing import run_under_fire
from postgres import MISSING, cluster


def test_jobs_outlive_their_processes(tmp_path: Path) -> None:
    outcome = run_under_fire(tmp_path / "data", jobs=20, workers=2, seed=1, pause_s=(1.0, 3.0), job_s=0.5)
    assert outcome.clean, outcome
    assert outcome.kills


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_jobs_outlive_their_processes_on_postgresql(tmp_path: Path) -> None:
    with cluster() as url:
        outcome = run_under_fire(
            tmp_path / "data", jobs=20, workers=2, seed=2, pause_s=(1.0, 3.0), job_s=0.5, database_url=url
        )
    assert outcome.clean, outcome
    assert outcome.kills
