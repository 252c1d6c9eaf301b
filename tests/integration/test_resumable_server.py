"""Uploads in pieces over real sockets, mostly with a tus client that isn't ours."""

import base64
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import DOUBLES, Server, serving, until
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed
from tusclient.uploader import Uploader

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}
DATA = b"SCORE:0.97 " + os.urandom(5_000_000)
CHUNK = 1_000_000
HTTP = httpx.Client(timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("tus") / "data"
    with serving(DOUBLES, data_dir, upload_idle_s=60, max_upload_bytes=6_000_000) as server:
        server.wait_ready()
        yield server
        assert list((data_dir / "resumable").iterdir()) == []
        assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    path.write_bytes(DATA)
    return path


def uploader(server: Server, clip: Path, **options: Any) -> Uploader:
    client = TusClient(f"{server.url}/v1/videos")
    return client.uploader(str(clip), chunk_size=CHUNK, metadata={"filename": "clip.mp4"}, **options)


def check_is_stored(server: Server, url: str) -> None:
    video = HTTP.get(url).json()
    assert (video["bytes"], video["filename"]) == (len(DATA), "clip.mp4")
    assert video["sha256"] == hashlib.sha256(DATA).hexdigest()
    asked = HTTP.post(f"{server.url}/v1/score", json={"video": video["id"]})
    assert asked.json()["score"] == 0.97
    assert HTTP.delete(url).status_code == 204


def begun(server: Server, length: int = len(DATA)) -> str:
    posted = HTTP.post(f"{server.url}/v1/videos", headers=TUS | {"Upload-Length": str(length)})
    assert posted.status_code == 201
    return f"{server.url}{posted.headers['Location']}"


def offset(url: str) -> int:
    return int(HTTP.head(url, headers=TUS).headers["Upload-Offset"])


def send_a_part(server: Server, url: str, part: bytes, **headers: str) -> socket.socket:
    """A PATCH of all of the data whose connection stays open after ``part`` of it."""
    connection = socket.create_connection((server.host, server.port))
    head = {"Host": server.host, "Content-Length": str(len(DATA)), "Upload-Offset": "0"} | PIECE | headers
    lines = [f"PATCH {httpx.URL(url).path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + part)
    return connection


@pytest.mark.parametrize("upload_checksum", [False, True])
def test_a_client_in_chunks(server: Server, clip: Path, upload_checksum: bool) -> None:
    upload = uploader(server, clip, upload_checksum=upload_checksum)
    upload.upload()
    check_is_stored(server, upload.url)


def test_a_broken_connection_is_gone_on_with(server: Server, clip: Path) -> None:
    url = begun(server)
    connection = send_a_part(server, url, DATA[:2_500_000])
    until(lambda: offset(url) >= 2_000_000)
    connection.close()
    until(lambda: offset(url) == 2_500_000)
    upload = uploader(server, clip, url=url)
    assert upload.offset == 2_500_000
    upload.upload()
    assert HTTP.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert HTTP.delete(url).status_code == 204


def test_a_chunk_with_a_checksum_that_breaks_off_never_counts(server: Server) -> None:
    url = begun(server)
    said = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    connection = send_a_part(server, url, DATA[:2_500_000], **{"Upload-Checksum": f"sha256 {said}"})
    folder = server.data_dir / "resumable" / url.rpartition("/")[2]
    until(lambda: (folder / "media").stat().st_size >= 2_000_000)
    assert offset(url) == 0
    connection.close()
    until(lambda: not (folder / "checked").exists())
    assert (offset(url), (folder / "media").stat().st_size) == (0, 0)
    assert HTTP.delete(url).status_code == 204


def test_a_client_that_is_back_before_its_connection_is_given_up(server: Server, clip: Path) -> None:
    """A network that goes away without a word: the server waits for the rest for a minute."""
    url = begun(server)
    connection = send_a_part(server, url, DATA[:2_500_000])
    until(lambda: offset(url) >= 2_000_000)
    refused = HTTP.patch(url, content=b"x", headers=PIECE | {"Upload-Offset": str(offset(url))})
    assert (refused.status_code, refused.json()["code"]) == (423, "upload_locked")
    until(lambda: offset(url) == 2_500_000)
    # Taken over; or on a busy machine let go before that, for its silence.
    assert connection.recv(1000).split()[1] in {b"423", b"408"}
    connection.close()
    uploader(server, clip, url=url).upload()
    assert HTTP.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert HTTP.delete(url).status_code == 204


def test_a_deletion_ends_a_request_that_sends(server: Server) -> None:
    url = begun(server)
    connection = send_a_part(server, url, DATA[:2_500_000])
    until(lambda: offset(url) >= 2_000_000)
    assert HTTP.delete(url, headers=TUS).status_code == 204
    assert b" 423 " in connection.recv(1000)
    connection.close()
    assert HTTP.head(url, headers=TUS).status_code == 404


def test_pieces_at_the_same_time_do_not_mix(server: Server) -> None:
    url = begun(server)
    answers: list[int] = []

    def send() -> None:
        where = 0
        while where < len(DATA):
            headers = PIECE | {"Upload-Offset": str(where)}
            answer = HTTP.patch(url, content=DATA[where : where + 400_000], headers=headers)
            answers.append(answer.status_code)
            assert answer.status_code in {204, 409, 423}, answer.text
            while (looked := HTTP.head(url, headers=TUS)).status_code == 423:  # the last piece is looked at
                time.sleep(0.02)
            where = int(looked.headers["Upload-Offset"])

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(204) == -(-len(DATA) // 400_000)
    assert HTTP.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert HTTP.delete(url).status_code == 204


def test_a_client_hears_why_it_is_refused(server: Server, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"BAD:not_a_video")
    with pytest.raises(TusUploadFailed) as failed:
        uploader(server, bad).upload()
    assert failed.value.status_code == 422
    assert b'"not_a_video"' in failed.value.response_content
    url = begun(server, 1000)
    chunks = iter([b"x" * 900, b"x" * 200])  # without a length
    answer = HTTP.patch(url, content=chunks, headers=PIECE | {"Upload-Offset": "0"})
    assert (answer.status_code, answer.json()["code"]) == (413, "limits_exceeded")
    assert offset(url) in {0, 900}  # as the chunks came
    assert HTTP.delete(url).status_code == 204


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path, clip: Path) -> None:
    with serving(DOUBLES, tmp_path / "data") as server:
        upload = uploader(server, clip)
        upload.upload(stop_at=2 * CHUNK)
        path = httpx.URL(upload.url).path
        headers = {"Upload-Offset": str(2 * CHUNK), "Content-Length": str(len(DATA) - 2 * CHUNK)}
        connection = send_a_part(server, upload.url, DATA[2 * CHUNK : 4 * CHUNK + 5], **headers)
        until(lambda: offset(upload.url) > 3 * CHUNK)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        connection.close()
    with serving(DOUBLES, tmp_path / "data") as server:
        server.wait_ready()
        again = uploader(server, clip, url=f"{server.url}{path}")
        assert 3 * CHUNK < again.offset <= 4 * CHUNK + 5
        again.upload()
        check_is_stored(server, f"{server.url}{path}")
