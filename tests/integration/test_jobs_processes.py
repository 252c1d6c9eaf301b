"""Jobs across processes: a service that stops, workers beside it, and a file that takes its worker along."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from serving import DOUBLES, WORKER, Server, serving, until, working

from specsem.result import ScoredFile


def submit(server: Server, content: bytes) -> str:
    answer = httpx.post(f"{server.url}/v1/jobs", content=content, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["Location"])


def job(server: Server, location: str) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}{location}", timeout=30).json())


def wait_for(server: Server, location: str, *statuses: str, timeout_s: float = 60) -> dict[str, Any]:
    until(lambda: job(server, location)["status"] in statuses, timeout_s)
    return job(server, location)


def test_a_service_that_stops_hands_back_and_the_next_goes_on(tmp_path: Path) -> None:
    ended = threading.Event()

    def watch(url: str) -> None:
        with httpx.stream("GET", url, timeout=60) as events:
            for _ in events.iter_lines():
                pass
        ended.set()

    with serving(DOUBLES, tmp_path / "data", shutdown_grace_s=8) as server:
        server.wait_ready()
        soon, later = submit(server, b"SLOW:2 SCORE:0.97"), submit(server, b"SCORE:0.3")
        wait_for(server, soon, "running")
        watching = threading.Thread(target=watch, args=(f"{server.url}{later}/events",))
        watching.start()
        time.sleep(0.5)
        begun = time.monotonic()
        assert server.stop() == -signal.SIGTERM
        assert time.monotonic() - begun < 7  # the stream didn't hold it up until its grace was over
        assert ended.wait(5)
        watching.join()
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
    with serving(DOUBLES, tmp_path / "data", job_slots=0, shutdown_grace_s=0) as server:
        assert job(server, soon)["result"]["score"] == 0.97  # there was time to finish this one
        assert job(server, later)["status"] == "queued"
        long = submit(server, b"SLOW:60")
        with working(tmp_path / "data", shutdown_grace_s=0) as worker:
            wait_for(server, later, "done")
            wait_for(server, long, "running")
            worker.terminate()
            assert worker.wait(20) == 0
        assert job(server, long)["status"] == "queued"
        assert "Traceback" not in server.log.read_text(), server.log.read_text()


def test_a_file_that_takes_its_worker_along_does_so_only_so_often(tmp_path: Path) -> None:
    settings = {"job_lease_s": 1, "job_max_attempts": 2}
    with serving(DOUBLES, tmp_path / "data", job_slots=0, **settings) as server:
        deadly = submit(server, b"DIE")
        for _ in range(2):
            with working(tmp_path / "data", **settings) as worker:
                assert worker.wait(60) == -signal.SIGKILL
        failed = wait_for(server, deadly, "failed")
        assert failed["error"]["code"] == "attempts_exceeded"
        assert list((tmp_path / "data" / "jobs").iterdir()) == []


def test_the_worker_as_it_ships(tmp_path: Path, tiny_models: Path, drawn_clip: Path) -> None:
    with serving(DOUBLES, tmp_path / "data", job_slots=0) as server:
        posted = submit(server, drawn_clip.read_bytes())
        with working(
            tmp_path / "data", [*WORKER, "--jobs", "1"], models_dir=tiny_models, device="cpu"
        ) as worker:
            done = wait_for(server, posted, "done", "failed", timeout_s=120)
            worker.terminate()
            assert worker.wait(20) == 0
    assert done["status"] == "done", done
    assert ScoredFile.model_validate(done["result"]).model.name == "specsem-compact"
