"""Keys as an operator makes them, against a real server."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
from serving import DOUBLES, ROOT, Server, environment, serving, until
from test_server import answer_of, connect

from app.keys import open_keys
from app.settings import Settings


def keys(data_dir: Path, *args: str) -> str:
    """What `specsem keys` prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "specsem", "keys", *args],
        check=False,
        env=environment(data_dir),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def score(server: Server, key: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/score", content=b"SCORE:0.97", headers=bearer(key), timeout=60)


def test_a_key_from_its_making_to_its_end(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    key = keys(data_dir, "create", "--name", "queue", "--tenant", "acme", "--scope", "score")
    with serving(DOUBLES, data_dir, key_cache_s=0.1) as server:
        server.wait_ready()
        with connect(server, "/v1/score", f"Content-Length: {10**9}") as connection:
            assert connection.recv(12) == b"HTTP/1.1 401"  # before the body
        assert score(server, key).json()["verdict"] == "generated"
        assert httpx.get(f"{server.url}/v1/jobs", headers=bearer(key)).json()["code"] == "forbidden"
        assert key.split("_")[1] in keys(data_dir, "revoke", key)
        until(lambda: score(server, key).status_code == 401)
        assert key.rpartition("_")[2] not in server.log.read_text()
    listed = json.loads(keys(data_dir, "list", "--json"))
    assert (listed["name"], listed["state"]) == ("queue", "revoked")
    assert listed["last_used_at"]


def test_a_quota_is_held_before_the_body(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with open_keys(Settings(data_dir=data_dir)) as store:
        one_at_a_time, _ = store.create(concurrency=1)
        one_an_hour, _ = store.create(rate="1/hour")
    with serving(DOUBLES, data_dir) as server:
        server.wait_ready()
        head = f"Content-Length: {10**9}\r\nAuthorization: Bearer {one_at_a_time}"
        with connect(server, "/v1/score", head):  # waits for its body
            until(server.uploads)
            with connect(server, "/v1/score", head) as second:
                answer = answer_of(second)
            assert answer.startswith("HTTP/1.1 429")
            assert '"violated-policies":["concurrency"]' in answer
            assert score(server, one_an_hour).status_code == 200  # another key is not concerned
            assert score(server, one_an_hour).json()["violated-policies"] == ["rate"]
        until(lambda: score(server, one_at_a_time).status_code == 200)  # who leaves gives the place back


def test_the_log_has_the_client_s_address_as_a_trusted_proxy_tells_it(tmp_path: Path) -> None:
    with serving(DOUBLES, tmp_path / "data", trusted_proxies="127.0.0.0/8") as server:
        httpx.get(f"{server.url}/v1/models", headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
        until(lambda: "198.51.100.7" in server.log.read_text())
        assert "203.0.113.9" not in server.log.read_text()  # the client's own words
