"""The real server under real sockets, with stand-ins for the decoder and the model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import DOUBLES, ROOT, SERVICE, Server, answer_of, chunk, connect, environment, serving, until

LIMIT = 200_000
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("server") / "data"
    with serving(DOUBLES, data_dir, max_upload_bytes=LIMIT, upload_idle_s=1) as server:
        server.wait_ready()
        yield server
        assert server.uploads() == []


FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'


@pytest.mark.parametrize("route", ["/v1/score", "/v1/videos"])
@pytest.mark.parametrize(
    ("kind", "first"),
    [("video/mp4", b""), ("multipart/form-data; boundary=b", FORM_HEAD)],
    ids=["raw", "form"],
)
def test_the_limit_holds_in_the_middle_of_a_body(server: Server, route: str, kind: str, first: bytes) -> None:
    with connect(server, route, f"Content-Type: {kind}", "Transfer-Encoding: chunked") as connection:
        connection.sendall(chunk(first + b"x" * 1000))
        until(server.uploads)
        connection.sendall(chunk(b"x" * LIMIT))  # and it never ends
        begun = time.monotonic()
        answer = answer_of(connection)
        assert time.monotonic() - begun < 5
    assert answer.startswith("HTTP/1.1 413")
    assert "connection: close" in answer
    assert '"code":"limits_exceeded"' in answer
    until(lambda: server.uploads() == [])


def test_an_announced_length_is_refused_before_the_body(server: Server) -> None:
    with connect(server, "/v1/score", "Content-Type: video/mp4", f"Content-Length: {10**10}") as connection:
        assert connection.recv(12) == b"HTTP/1.1 413"
    with connect(
        server, "/v1/score", "Content-Type: video/mp4", f"Content-Length: {10**10}", "Expect: 100-continue"
    ) as connection:
        assert connection.recv(12) == b"HTTP/1.1 413"  # and no 100 before it


def test_a_client_that_goes_on_sending_still_reads_why(server: Server) -> None:
    data = b"x" * 5_000_000
    answer = httpx.post(f"{server.url}/v1/score", files={"file": ("a.mp4", data)})
    assert (answer.status_code, answer.json()["code"]) == (413, "limits_exceeded")


def test_a_stalled_upload_is_let_go(server: Server) -> None:
    with connect(server, "/v1/score", "Content-Type: video/mp4", "Content-Length: 1000") as connection:
        connection.sendall(b"x" * 10)
        assert answer_of(connection).startswith("HTTP/1.1 408")
    until(lambda: server.uploads() == [])


def test_leaving_in_the_middle_of_an_upload_leaves_nothing(server: Server) -> None:
    connection = connect(server, "/v1/videos", "Content-Type: video/mp4", "Content-Length: 100000")
    connection.sendall(b"x" * 50_000)
    until(server.uploads)
    connection.close()
    until(lambda: server.uploads() == [])


def test_leaving_while_it_is_decoded_cancels_and_leaves_nothing(server: Server) -> None:
    connections = []
    for _ in range(2):  # as many as decode at once
        body = b"SLOW:60"
        connection = connect(server, "/v1/score", "Content-Type: video/mp4", f"Content-Length: {len(body)}")
        connection.sendall(body)
        connections.append(connection)
    until(lambda: len(server.uploads()) == 2)
    time.sleep(0.1)
    for connection in connections:
        connection.close()
    until(lambda: server.uploads() == [], 2)
    answer = httpx.post(f"{server.url}/v1/score", files={"file": b"SCORE:0.5"}, timeout=5)
    assert answer.status_code == 200  # the decoder's places are free again


def test_bytes_that_are_no_http(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b"400" in answer_of(connection).encode()
    with connect(server, "/v1/score", "Content-Length: 5", "Content-Length: 6") as connection:
        assert connection.recv(12) == b"HTTP/1.1 400"
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_no_line_of_the_log_is_a_client_s(server: Server) -> None:
    """Whatever is in an address, a header or a name: one line a request, and no control characters."""
    bad = "%0d%0aINFO%20forged%1b[31m%00%e2%80%ae"
    lines = [
        f"GET /{bad} HTTP/1.1",
        f"GET /v1/jobs/{bad}?q={bad} HTTP/1.1",
        f"POST /v1/score?filename={bad} HTTP/1.1",
    ]
    for line in lines:
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            head = f"{line}\r\nHost: {server.host}\r\nUser-Agent: \xa0\tx\r\nX-Request-Id: {bad}\r\n"
            connection.sendall(
                head.encode("latin-1") + b"Connection: close\r\nContent-Length: 5\r\n\r\nBAD:x"
            )
            assert "HTTP/1.1 4" in answer_of(connection)
    for header in ("X: a\x1b[31m", "X: a\rb", "X: a\nINFO forged", "X\x00: a"):
        with connect(server, "/v1/score", header) as connection:
            assert "HTTP/1.1 4" in answer_of(connection)
    form = {"file": ("a\r\nINFO forged\x1b.mp4", b"BAD:undecodable")}
    assert httpx.post(f"{server.url}/v1/score", files=form).status_code == 422
    log = server.log.read_text()
    assert "POST /v1/score 422" in log
    assert "forged" not in log
    assert not [char for char in log if (ord(char) < 0x20 and char != "\n") or char in "\x7f\u202e\xa0"]


def test_many_at_once(server: Server) -> None:
    def score(number: int) -> float:
        answer = httpx.post(
            f"{server.url}/v1/score", files={"file": f"SCORE:0.{number}".encode()}, timeout=30
        )
        assert answer.status_code == 200
        return float(answer.json()["score"])

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(score, range(10, 60))) == [pytest.approx(n / 100) for n in range(10, 60)]
    assert server.uploads() == []


def test_what_it_stores_survives_a_kill(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(DOUBLES, data_dir) as first:
        first.wait_ready()
        stored = httpx.post(f"{first.url}/v1/videos", files={"file": ("a.mp4", b"SCORE:0.97")}).json()
        connection = connect(first, "/v1/videos", "Content-Type: video/mp4", "Content-Length: 100000")
        connection.sendall(b"x" * 50_000)
        until(first.uploads)
        first.process.kill()
        first.process.wait()
        connection.close()
        assert first.uploads()
    with serving(DOUBLES, data_dir) as second:
        assert second.uploads() == []
        assert httpx.get(f"{second.url}/v1/videos/{stored['id']}").json() == stored
        second.wait_ready()
        scored = httpx.post(f"{second.url}/v1/score", json={"video": stored["id"]}).json()
        assert (scored["verdict"], scored["path"]) == ("generated", "a.mp4")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_at_once_and_quietly(tmp_path: Path, how: int) -> None:
    with serving(DOUBLES, tmp_path / "data", shutdown_grace_s=1) as server:
        server.wait_ready()
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(
                httpx.post, f"{server.url}/v1/score", files={"file": b"SLOW:60"}, timeout=20
            )
            until(server.uploads)
            begun = time.monotonic()
            code = server.stop(how)
            assert time.monotonic() - begun < 8
            assert slow.exception() is not None or slow.result().status_code >= 500
        assert code == (0 if how == signal.SIGINT else -signal.SIGTERM)
        assert server.uploads() == []
        assert "Traceback" not in server.log.read_text(), server.log.read_text()


def test_work_in_flight_is_finished_at_a_stop(tmp_path: Path) -> None:
    with serving(DOUBLES, tmp_path / "data") as server:
        server.wait_ready()
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(
                httpx.post, f"{server.url}/v1/score", files={"file": b"SLOW:1 SCORE:0.5"}, timeout=20
            )
            until(server.uploads)
            time.sleep(0.2)
            server.stop()
            assert slow.result().status_code == 200


def test_keys_over_the_wire(tmp_path: Path) -> None:
    with serving(DOUBLES, tmp_path / "data", api_keys=KEY) as server:
        server.wait_ready()
        with connect(server, "/v1/score", f"Content-Length: {10**9}") as connection:
            assert connection.recv(12) == b"HTTP/1.1 401"  # before the body
        files = {"file": b"SCORE:0.5"}
        assert httpx.post(f"{server.url}/v1/score", files=files).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{server.url}/v1/score", files=files, headers=headers).status_code == 200
        assert KEY not in server.log.read_text()


def test_serving_other_machines_without_a_key_is_refused(tmp_path: Path) -> None:
    result = subprocess.run(
        [*SERVICE, "--host", "0.0.0.0"],  # noqa: S104
        check=False,
        env=environment(tmp_path / "data"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert "SPECSEM_API_KEYS" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_fails_to_load_ends_the_service_with_a_sentence(tmp_path: Path) -> None:
    result = subprocess.run(
        DOUBLES,
        check=False,
        env=environment(tmp_path / "data", model="broken"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert result.stderr.endswith("The model could not be loaded; the log says more.\n")
    assert list((tmp_path / "data").rglob("*.lock")) == []


def own_address() -> str:
    """This machine's address towards others, empty where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def test_uvicorn_by_hand_is_no_way_round(tmp_path: Path) -> None:
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "doubles:application", "--host", "0.0.0.0"]  # noqa: S104
    env = environment(tmp_path / "data") | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/app")])
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=env, stderr=log, stdout=log)
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), 60)
        answer = httpx.get(f"http://{address}:{port}/", headers={"Host": "localhost"})
        assert (answer.status_code, answer.json()["code"]) == (403, "exposure_refused")
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_two_servers_share_a_data_folder(tmp_path: Path) -> None:
    """The second one's start must not take the first one's uploads for left-overs."""
    with serving(DOUBLES, tmp_path / "data") as server:
        connection = connect(server, "/v1/videos", "Content-Type: video/mp4", "Content-Length: 20")
        connection.sendall(b"x" * 10)
        until(server.uploads)
        with serving(DOUBLES, server.data_dir) as other:
            assert len(server.uploads()) == 1
            connection.sendall(b"x" * 10)
            assert connection.recv(12) == b"HTTP/1.1 201"
            [folder] = (server.data_dir / "videos").iterdir()
            assert httpx.get(f"{other.url}/v1/videos/{folder.name}").status_code == 200
        connection.close()
