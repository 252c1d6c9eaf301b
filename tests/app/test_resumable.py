"""Uploads in pieces by the protocol, with stand-ins for the decoder and the model."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import doubles
import httpx
import pytest
from fastapi.testclient import TestClient

from app.auth import ANYBODY
from app.main import create_app
from app.services import Parts
from app.settings import Settings

TUS = {"Tus-Resumable": "1.0.0"}
DATA = b"SCORE:0.97 " + bytes(range(256)) * 20


def create(client: TestClient, length: int | None = len(DATA), **headers: str) -> httpx.Response:
    said = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    return client.post("/v1/videos", headers=TUS | said | headers)


def begun(client: TestClient, length: int | None = len(DATA), **headers: str) -> str:
    posted = create(client, length, **headers)
    assert (posted.status_code, posted.content) == (201, b""), posted.text
    return str(posted.headers["Location"])


def patch(client: TestClient, url: str, offset: int, data: Any, **headers: str) -> httpx.Response:
    kind = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    return client.patch(url, content=data, headers=TUS | kind | headers)


def checksum(data: bytes, algorithm: str = "sha1") -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["Tus-Resumable"] == "1.0.0"


def offset(client: TestClient, url: str) -> int:
    looked = client.head(url, headers=TUS)
    assert looked.status_code == 200
    assert looked.headers["Cache-Control"] == "no-store"
    return int(looked.headers["Upload-Offset"])


def folders(settings: Settings, name: str) -> list[str]:
    return [path.name for path in (settings.data_dir / name).iterdir()]


def parts(client: TestClient) -> Parts:
    found = client.app.state.parts  # type: ignore[attr-defined]
    assert isinstance(found, Parts)
    return found


def taken(client: TestClient) -> int:
    return parts(client).admission.room.taken("")


@contextmanager
def service(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        doubles.until_ready(client)
        yield client


def test_pieces_become_a_video(client: TestClient, settings: Settings) -> None:
    metadata = f"filename {base64.b64encode('Straße.mp4'.encode()).decode()},is_confidential"
    posted = create(client, **{"Upload-Metadata": metadata})
    url = str(posted.headers["Location"])
    assert posted.headers["Upload-Offset"] == "0"
    expires = parsedate_to_datetime(posted.headers["Upload-Expires"])
    assert timedelta(hours=23) < expires - datetime.now(UTC) <= timedelta(hours=24)
    for begin in range(0, len(DATA), 1000):
        looked = client.head(url, headers=TUS)
        assert looked.headers["Upload-Offset"] == str(begin) if begin else "0"
        assert (looked.headers["Upload-Length"], looked.headers["Upload-Metadata"]) == (
            str(len(DATA)),
            metadata,
        )
        refused_early = client.get(url)
        assert (refused_early.status_code, refused_early.json()["code"]) == (409, "upload_incomplete")
        answer = patch(client, url, begin, DATA[begin : begin + 1000])
        assert answer.status_code == 204, answer.text
        assert answer.headers["Upload-Offset"] == str(min(begin + 1000, len(DATA)))
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert "Upload-Expires" in answer.headers
    assert (folders(settings, "resumable"), folders(settings, "videos")) == ([], [url.rpartition("/")[2]])
    video = client.get(url).json()
    assert url == f"/v1/videos/{video['id']}"
    assert (video["filename"], video["bytes"]) == ("Straße.mp4", len(DATA))
    assert video["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert "tenant" not in video
    assert client.post("/v1/score", json={"video": video["id"]}).json()["score"] == 0.97
    assert client.post("/v1/jobs", json={"video": video["id"]}).status_code == 202
    looked = client.head(url, headers=TUS)
    assert looked.headers["Upload-Offset"] == looked.headers["Upload-Length"] == str(len(DATA))
    assert looked.headers["Upload-Metadata"] == metadata
    assert "Upload-Expires" not in looked.headers
    refused(patch(client, url, len(DATA), b""), 409, "offset_mismatch")
    gone = client.delete(url, headers=TUS)
    assert (gone.status_code, gone.headers["Tus-Resumable"]) == (204, "1.0.0")
    assert client.head(url, headers=TUS).status_code == 404
    assert folders(settings, "videos") == []


def test_what_it_can_do(client: TestClient) -> None:
    for url in ("/v1/videos", "/v1/videos/" + "0" * 32):
        answer = client.options(url, headers={"Tus-Resumable": "9.9"})  # ignored there
        assert answer.status_code == 204
        assert answer.headers["Tus-Resumable"] == answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Max-Size"] == "100000"
        extensions = set(answer.headers["Tus-Extension"].split(","))
        assert {"creation", "creation-with-upload", "expiration", "checksum", "termination"} <= extensions
        assert {"sha1", "sha256"} <= set(answer.headers["Tus-Checksum-Algorithm"].split(","))


def test_another_version_is_refused(client: TestClient) -> None:
    url = begun(client)
    old = {"Tus-Resumable": "0.2.2"}
    for answer in (
        client.post("/v1/videos", headers=old | {"Upload-Length": "5"}),
        client.head(url, headers=old),
        client.delete(url, headers=old),
        client.patch(url, content=b"x", headers={"Upload-Offset": "0"}),
    ):
        assert answer.status_code == 412
        assert answer.headers["Tus-Resumable"] == answer.headers["Tus-Version"] == "1.0.0"


@pytest.mark.parametrize("piece", [DATA, DATA[:1000]])
def test_the_first_piece_comes_with_the_creation(client: TestClient, piece: bytes) -> None:
    kind = {"Content-Type": "application/offset+octet-stream", "Upload-Length": str(len(DATA))}
    posted = client.post("/v1/videos", content=piece, headers=TUS | kind)
    assert (posted.status_code, posted.headers["Upload-Offset"]) == (201, str(len(piece)))
    url = posted.headers["Location"]
    if piece != DATA:
        assert patch(client, url, len(piece), DATA[len(piece) :]).status_code == 204
    assert client.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_a_creation_that_fails_leaves_nothing(client: TestClient, settings: Settings) -> None:
    kind = {"Content-Type": "application/offset+octet-stream", "Upload-Length": str(len(DATA))}
    bad_file = b"BAD:no_video_stream".ljust(len(DATA))
    for piece, headers, status, code in (
        (DATA, {"Content-Type": "video/mp4"}, 415, "unsupported_media_type"),
        (DATA + b"x", {}, 413, "limits_exceeded"),
        (DATA, {"Upload-Checksum": checksum(b"other")}, 460, "checksum_mismatch"),
        (bad_file, {}, 422, "no_video_stream"),
    ):
        refused(client.post("/v1/videos", content=piece, headers=TUS | kind | headers), status, code)
        assert (folders(settings, "resumable"), taken(client)) == ([], 0)


def test_bad_creations(client: TestClient) -> None:
    for headers, status, code in (
        ({}, 400, "malformed_header"),
        ({"Upload-Length": "-5"}, 400, "malformed_header"),
        ({"Upload-Length": "٣"}, 400, "malformed_header"),
        ({"Upload-Length": "5", "Upload-Defer-Length": "1"}, 400, "malformed_header"),
        ({"Upload-Defer-Length": "2"}, 400, "malformed_header"),
        ({"Upload-Length": "0"}, 422, "not_a_video"),
        ({"Upload-Length": "100001"}, 413, "limits_exceeded"),
        ({"Upload-Length": "5", "Upload-Metadata": "filename ???"}, 400, "malformed_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "a YQ==,a YQ=="}, 400, "malformed_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "a YQ==,,"}, 400, "malformed_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "a " + "YWFh" * 1100}, 400, "malformed_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "ä YQ=="}, 400, "malformed_header"),
    ):
        raw = {name: value.encode() for name, value in (TUS | headers).items()}
        refused(client.post("/v1/videos", headers=raw), status, code)
    assert taken(client) == 0


def test_wrong_pieces_change_nothing(client: TestClient) -> None:
    url = begun(client)
    assert patch(client, url, 0, DATA[:100]).status_code == 204
    wrong = patch(client, url, 50, DATA[50:100])
    refused(wrong, 409, "offset_mismatch")
    assert wrong.headers["Upload-Offset"] == "100"
    refused(patch(client, url, 101, DATA[101:]), 409, "offset_mismatch")
    refused(patch(client, url, 100, DATA[100:] + b"x"), 413, "limits_exceeded")
    refused(
        patch(client, url, 100, DATA[100:], **{"Content-Type": "video/mp4"}), 415, "unsupported_media_type"
    )
    refused(patch(client, url, 100, b"x", **{"Upload-Offset": "ten"}), 400, "malformed_header")
    refused(patch(client, url, 100, b"x", **{"Upload-Length": "101"}), 400, "malformed_header")
    refused(patch(client, "/v1/videos/" + "0" * 32, 0, b"x"), 404, "video_not_found")
    assert (offset(client, url), taken(client)) == (100, 100)


def test_too_much_without_a_length_is_refused_while_it_arrives(client: TestClient) -> None:
    url = begun(client, 1000)
    refused(patch(client, url, 0, iter([b"x" * 999, b"xx"])), 413, "limits_exceeded")
    assert (offset(client, url), taken(client)) == (0, 0)  # this client sends it in one chunk
    deferred = begun(client, None)
    refused(patch(client, deferred, 0, iter([b"x" * 100_000, b"x"])), 413, "limits_exceeded")


def test_a_piece_counts_only_as_its_checksum_says(client: TestClient) -> None:
    url = begun(client)
    assert patch(client, url, 0, DATA[:100], **{"Upload-Checksum": checksum(DATA[:100])}).status_code == 204
    refused(
        patch(client, url, 100, DATA[100:], **{"Upload-Checksum": checksum(b"?")}), 460, "checksum_mismatch"
    )
    assert (offset(client, url), taken(client)) == (100, 100)
    for malformed in ("crc32 AAAA", "sha1 ???", "sha1", "sha1 AAAA", "SHA1 AAAA"):
        answer = patch(client, url, 100, DATA[100:], **{"Upload-Checksum": malformed})
        refused(answer, 400, "malformed_header")
    said = {"Upload-Checksum": checksum(DATA[100:], "sha256")}
    assert patch(client, url, 100, DATA[100:], **said).status_code == 204
    assert client.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_a_length_that_comes_later(client: TestClient) -> None:
    url = begun(client, None)
    assert client.head(url, headers=TUS).headers["Upload-Defer-Length"] == "1"
    assert patch(client, url, 0, DATA[:100]).headers["Upload-Offset"] == "100"
    refused(patch(client, url, 100, b"", **{"Upload-Length": "99"}), 400, "malformed_header")
    refused(patch(client, url, 100, b"", **{"Upload-Length": "100001"}), 413, "limits_exceeded")
    said = patch(client, url, 100, DATA[100:200], **{"Upload-Length": str(len(DATA))})
    assert (said.status_code, said.headers["Upload-Length"]) == (204, str(len(DATA)))
    assert patch(client, url, 200, DATA[200:]).status_code == 204
    assert client.get(url).json()["bytes"] == len(DATA)


def test_a_bad_file_is_said_so_after_its_last_piece(client: TestClient, settings: Settings) -> None:
    data = b"BAD:undecodable"
    url = begun(client, len(data))
    assert patch(client, url, 0, data[:5]).status_code == 204
    answer = patch(client, url, 5, data[5:])
    refused(answer, 422, "undecodable")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert client.head(url, headers=TUS).status_code == 404
    assert (folders(settings, "resumable"), folders(settings, "videos"), taken(client)) == ([], [], 0)


def test_it_goes_on_after_a_restart_and_counts_the_same(settings: Settings) -> None:
    settings = settings.model_copy(update={"max_tenant_bytes": 8000})
    with service(settings) as client:
        url, other = begun(client), begun(client, 100)
        assert patch(client, url, 0, DATA[:3000]).status_code == 204
        client.post("/v1/videos", content=b"x" * 10)
        assert taken(client) == 3010
    # What a killed process leaves: bytes that were to be checked, and their mark.
    folder = settings.data_dir / "resumable" / url.rpartition("/")[2]
    with (folder / "media").open("ab") as file:
        file.write(b"?" * 500)
    (folder / "checked").write_text("3000")
    with service(settings) as client:
        assert (taken(client), offset(client, url), offset(client, other)) == (3010, 3000, 0)
        assert patch(client, url, 3000, DATA[3000:]).status_code == 204
        assert client.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
        assert taken(client) == 10 + len(DATA)
        assert client.delete(other, headers=TUS).status_code == 204


def test_a_server_that_went_away_after_the_last_byte(settings: Settings) -> None:
    with service(settings) as client:
        good, bad = begun(client), begun(client, 15)
    for url, data in ((good, DATA), (bad, b"BAD:not_a_video")):
        (settings.data_dir / "resumable" / url.rpartition("/")[2] / "media").write_bytes(data)
    with service(settings) as client:
        assert client.get(good).status_code == 409
        assert offset(client, good) == len(DATA)
        assert client.get(good).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
        assert client.head(bad, headers=TUS).status_code == 422
        assert client.head(bad, headers=TUS).status_code == 404
        assert taken(client) == len(DATA)


def age(settings: Settings, url: str, seconds: float) -> None:
    """Let an upload have been created so much earlier."""
    path = settings.data_dir / "resumable" / url.rpartition("/")[2] / "upload.json"
    record = json.loads(path.read_text())
    for name in ("created_at", "expires_at"):
        record[name] = (datetime.fromisoformat(record[name]) - timedelta(seconds=seconds)).isoformat()
    path.write_text(json.dumps(record))


def test_what_has_expired_is_gone(settings: Settings) -> None:
    with service(settings) as client:
        url = begun(client)
        assert patch(client, url, 0, DATA[:3000]).status_code == 204
        age(settings, url, settings.resumable_ttl_s)
        for _ in range(2):
            assert client.head(url, headers=TUS).status_code == 410
            refused(patch(client, url, 3000, DATA[3000:]), 410, "upload_expired")
            refused(client.delete(url, headers=TUS), 410, "upload_expired")
            client.portal.call(parts(client).resumable.sweep)  # type: ignore[union-attr]
            assert taken(client) == 0
        assert not list((settings.data_dir / "resumable").rglob("media"))
        age(settings, url, settings.resumable_ttl_s)
        client.portal.call(parts(client).resumable.sweep)  # type: ignore[union-attr]
        assert folders(settings, "resumable") == []
        assert client.head(url, headers=TUS).status_code == 404


def test_a_tenant_s_room(settings: Settings) -> None:
    settings = settings.model_copy(update={"max_tenant_bytes": 1000})
    with service(settings) as client:
        refused(create(client, 1001), 413, "quota_exceeded")
        one, two = begun(client, 900), begun(client, 900)
        assert patch(client, one, 0, b"x" * 600).status_code == 204
        answer = patch(client, two, 0, b"x" * 600)
        refused(answer, 413, "quota_exceeded")
        assert (answer.json()["limit_bytes"], answer.json()["used_bytes"]) == (1000, 600)
        refused(patch(client, two, 0, iter([b"x" * 300, b"x" * 300])), 413, "quota_exceeded")
        assert patch(client, two, 0, b"x" * 300).status_code == 204
        assert taken(client) == 900
        plain = client.post("/v1/videos", content=b"x" * 101)
        assert (plain.status_code, plain.json()["code"]) == (413, "quota_exceeded")
        assert client.post("/v1/score", content=b"x" * 101).json()["code"] == "quota_exceeded"
        assert client.delete(two, headers=TUS).status_code == 204
        assert patch(client, one, 600, b"x" * 300).status_code == 204
        assert taken(client) == 900
        assert client.post("/v1/videos", content=b"x" * 100).status_code == 201
        assert client.post("/v1/videos", content=b"x").status_code == 413


def test_not_too_many_at_a_time(settings: Settings) -> None:
    with service(settings.model_copy(update={"max_partial_uploads": 2})) as client:
        urls = [begun(client), begun(client)]
        refused(create(client), 429, "quota_exceeded")
        client.delete(urls[0])
        begun(client)


def test_busy_before_a_byte_is_read(client: TestClient) -> None:
    url = begun(client)
    admission = parts(client).admission
    admission.clips += admission.max_clips
    refused(patch(client, url, 0, DATA), 503, "busy")
    admission.clips -= admission.max_clips
    assert (offset(client, url), taken(client)) == (0, 0)


def test_a_foreign_upload_is_not_found(settings: Settings) -> None:
    from app import services

    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    app.dependency_overrides[services._caller] = lambda: replace(ANYBODY, tenant=tenant)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        doubles.until_ready(client)
        tenant = "one"
        part, video = begun(client), client.post("/v1/videos", content=DATA).headers["Location"]
        tenant = "two"
        for url in (part, video):
            asked = {"video": url.rpartition("/")[2]}
            assert client.head(url, headers=TUS).status_code == 404
            refused(patch(client, url, 0, b"x"), 404, "video_not_found")
            for answer in (
                client.get(url),
                client.delete(url),
                client.post("/v1/score", json=asked),
                client.post("/v1/jobs", json=asked),
            ):
                assert (answer.status_code, answer.json()["code"]) == (404, "video_not_found")
        tenant = "one"
        assert offset(client, part) == 0
        assert client.get(video).status_code == 200


def test_a_method_in_a_header(client: TestClient) -> None:
    url = begun(client)
    headers = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    sent = client.post(url, content=DATA[:9], headers=headers | {"X-HTTP-Method-Override": "PATCH"})
    assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, "9")
    refused(client.post(url, headers=TUS), 405, "method_not_allowed")
    assert client.post(url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert client.head(url, headers=TUS).status_code == 404


def test_a_disk_that_is_full_keeps_what_it_took(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.uploads import Sink

    url = begun(client)
    write = Sink._write

    def full(sink: Sink, data: bytes) -> None:
        write(sink, data[:1000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Sink, "_write", full)
        refused(patch(client, url, 0, DATA), 503, "storage_full")
    assert (offset(client, url), taken(client)) == (1000, 1000)
    assert patch(client, url, 1000, DATA[1000:]).status_code == 204
    assert client.get(url).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_a_record_of_the_future_harms_nobody(client: TestClient, settings: Settings, tmp_path: Path) -> None:
    url = begun(client)
    path = settings.data_dir / "resumable" / url.rpartition("/")[2] / "upload.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_the_future": 1}))
    client.portal.call(parts(client).resumable.sweep)  # type: ignore[union-attr]
    assert client.head(url, headers=TUS).status_code == 404
    assert path.exists()
    assert client.get(f"/v1/videos/{secrets.token_hex(16)}").status_code == 404


def test_the_description_has_it(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    named = {entry["name"] for entry in paths["/v1/videos/{video_id}"]["patch"]["parameters"]}
    assert {"Tus-Resumable", "Upload-Offset", "Upload-Checksum", "video_id"} <= named
    assert "Upload-Offset" in paths["/v1/videos/{video_id}"]["head"]["responses"]["200"]["headers"]
    assert "Tus-Extension" in paths["/v1/videos"]["options"]["responses"]["204"]["headers"]
    assert "Upload-Length" in {entry["name"] for entry in paths["/v1/videos"]["post"]["parameters"]}
    assert "201" in paths["/v1/videos"]["post"]["responses"]
