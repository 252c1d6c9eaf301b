"""PostgreSQL crashes under a service at work: it says so, goes on with what needs no jobs, and recovers."""

from pathlib import Path

import httpx
import pytest
from postgres import MISSING, crashable_cluster
from serving import DOUBLES, serving, until

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def test_a_database_that_crashes_loses_nothing(tmp_path: Path) -> None:
    with (
        crashable_cluster() as cluster,
        serving(DOUBLES, tmp_path / "data", database_url=cluster.url, job_lease_s=2) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        server.wait_ready()
        working = client.post("/v1/jobs", content=b"SLOW:1 SCORE:0.25").headers["Location"]
        waiting = client.post("/v1/jobs", content=b"SCORE:0.75").headers["Location"]
        until(lambda: client.get(working).json()["status"] == "running", 60)
        cluster.crash()
        for answer in (
            client.get(working),
            client.get(f"{working}/events"),
            client.get("/v1/jobs"),
            client.post("/v1/jobs", content=b"SCORE:0.5"),
            client.delete(waiting),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready"), answer.text
            assert "Retry-After" in answer.headers
        assert client.post("/v1/score", content=b"SCORE:0.5").status_code == 200
        assert client.get("/healthz").status_code == 200
        cluster.start()
        for location, score in ((working, 0.25), (waiting, 0.75)):
            until(lambda at=location: client.get(at).json()["status"] == "done", 60)
            assert client.get(location).json()["result"]["score"] == score
        assert len(client.get("/v1/jobs").json()["jobs"]) == 2
