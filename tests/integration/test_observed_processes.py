"""Real processes tell of themselves: a server in JSON lines, a worker on its port, both to be scraped."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
from serving import DOUBLES, ROOT, Server, environment, serving, until, working

LIGHT = [sys.executable, str(ROOT / "tests" / "light_specsem.py"), "serve"]
"""The service as it ships, with real decoders and a stand-in for the model."""


def series(url: str, start: str) -> list[str]:
    return [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(start)]


def logged(server: Server, request_id: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]


def test_a_server_in_json_lines(tmp_path: Path, drawn_clip: Path) -> None:
    with serving(LIGHT, tmp_path / "data", log_format="json", decode_wall_s=0.001) as server:
        server.wait_ready()
        with drawn_clip.open("rb") as file:
            answer = httpx.post(
                f"{server.url}/v1/score?filename=query-name",
                files={"file": ("secret-name.mp4", file)},
                headers={"X-Request-Id": "mine"},
                timeout=60,
            )
        assert answer.json()["code"] == "timeout", "no decoder is that quick, its start included"
        assert answer.headers["X-Request-Id"] == "mine"
        until(lambda: logged(server, "mine"))
        (line,) = logged(server, "mine")
        assert (line["route"], line["status"], line["code"]) == ("/v1/score", 422, "timeout")
        assert int(str(line["bytes_in"])) > drawn_clip.stat().st_size
        assert series(server.url, 'specsem_decoder_deaths_total{cause="wall"}')[0].endswith(" 1.0")
        assert series(server.url, "process_open_fds")
        assert httpx.get(f"{server.url}/version").json()["model"]["name"] == "specsem-compact"
    text = server.log.read_text()
    assert "query-name" not in text
    assert "secret-name" not in text
    for line_of_log in text.splitlines():
        json.loads(line_of_log)


def test_a_worker_on_its_port(tmp_path: Path) -> None:
    data = tmp_path / "data"
    worker = [*DOUBLES, "worker"]
    with serving(DOUBLES, data, job_slots=0) as server, working(data, worker, worker_port=0) as process:
        place = re.compile(r"probes are at (http://127\.0\.0\.1:\d+)/")
        until(lambda: place.search(server.log.read_text()), 60)
        (url,) = place.findall(server.log.read_text())
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 60)
        assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
        assert httpx.get(f"{url}/v1/jobs").status_code == 404
        assert httpx.get(f"{url}/metrics", headers={"Host": "evil.example"}).status_code == 403
        httpx.post(f"{server.url}/v1/jobs", files={"file": b"SCORE:0.5"})
        until(lambda: series(url, 'specsem_job_attempts_total{outcome="done"}')[0].endswith(" 1.0"), 60)
        assert series(server.url, 'specsem_job_attempts_total{outcome="done"}')[0].endswith(" 0.0")
        assert series(url, "specsem_admission_used_ratio{") == []
        process.terminate()
        assert process.wait(30) == 0
    assert "attempt 1: done (job_id=" in server.log.read_text()


def test_a_worker_that_others_reach_wants_a_key(tmp_path: Path) -> None:
    settings = {"worker_host": "0.0.0.0", "worker_port": 0, "api_keys": "k" * 32}  # noqa: S104
    data = tmp_path / "data"
    with (
        serving(DOUBLES, data, job_slots=0) as server,
        working(data, [*DOUBLES, "worker"], **settings),
    ):
        place = re.compile(r"probes are at http://0\.0\.0\.0:(\d+)/")
        until(lambda: place.search(server.log.read_text()), 60)
        url = f"http://127.0.0.1:{place.findall(server.log.read_text())[0]}"
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 60)
        assert httpx.get(f"{url}/metrics").status_code == 401
        with_key = {"Authorization": f"Bearer {settings['api_keys']}"}
        assert "specsem_jobs" in httpx.get(f"{url}/metrics", headers=with_key).text


def test_a_worker_s_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = subprocess.run(
            [*DOUBLES, "worker"],
            env=environment(tmp_path / "data", worker_port=taken.getsockname()[1]),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert told.returncode == 1
    assert "SPECSEM_WORKER_PORT" in told.stderr
    assert "Traceback" not in told.stderr
