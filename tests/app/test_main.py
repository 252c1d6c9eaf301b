"""The routes, with stand-ins for the decoder and the model."""

import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import doubles
import pytest
from fastapi.testclient import TestClient

from app.main import CannotServe, create_app, run
from app.problems import CODES
from app.settings import DataDirUnusable, Settings
from specsem.errors import MediaError, UnknownModel, WeightsMissing
from specsem.provenance import TrustListUnusable
from specsem.result import ScoredFile

MEDIA_CODES = sorted({error.code for error in MediaError.__subclasses__()} - {"not_found"})


def files_in(settings: Settings) -> list[Path]:
    """Whatever of a client's is kept."""
    files = (path for path in settings.data_dir.rglob("*") if path.is_file())
    ours = ("jobs.sqlite3", "signing-key.pem")
    return [path for path in files if path.suffix != ".lock" and not path.name.startswith(ours)]


def check_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(document)
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"/docs#error-{code}"
    return document


def test_a_form_is_scored_and_nothing_is_kept(client: TestClient, settings: Settings) -> None:
    data = b"SCORE:0.97"
    answer = client.post("/v1/score", files={"file": ("clip.mp4", data)})
    assert answer.status_code == 200
    found = ScoredFile.model_validate(answer.json())
    assert (found.path, found.verdict, found.score) == ("clip.mp4", "generated", 0.97)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.model.name == "double"
    assert set(found.timing_ms) == {"decode", "provenance", "forward", "total"}
    assert files_in(settings) == []


@pytest.mark.parametrize("kind", ["video/mp4", "application/octet-stream", "", "text/plain", "image/png"])
def test_a_raw_body_is_scored(client: TestClient, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = client.post("/v1/score?filename=Stra%C3%9Fe.mp4", content=b"SCORE:0.02", headers=headers)
    assert answer.status_code == 200
    assert (answer.json()["path"], answer.json()["verdict"]) == ("Straße.mp4", "authentic")


def test_thorough_by_query_form_and_json(client: TestClient) -> None:
    file = {"file": ("a.mp4", b"SCORE:0.5")}
    assert len(client.post("/v1/score", files=file).json()["segments"]) == 2
    assert len(client.post("/v1/score?thorough=true", files=file).json()["segments"]) == 12
    assert len(client.post("/v1/score", files=file, data={"thorough": "on"}).json()["segments"]) == 12
    video = client.post("/v1/videos", files=file).json()["id"]
    asked = {"video": video, "thorough": True}
    assert len(client.post("/v1/score", json=asked).json()["segments"]) == 12
    check_problem(client.post("/v1/score", files=file, data={"thorough": "perhaps"}), 422, "invalid_request")


def test_a_video_is_stored_scored_and_deleted(client: TestClient, settings: Settings) -> None:
    posted = client.post("/v1/videos", files={"file": ("clip.mp4", b"SCORE:0.97")})
    assert posted.status_code == 201
    video = posted.json()
    assert posted.headers["Location"] == f"/v1/videos/{video['id']}"
    assert (video["filename"], video["bytes"], video["media"]["width"]) == ("clip.mp4", 10, 640)
    assert client.get(f"/v1/videos/{video['id']}").json() == video
    by_id = client.post("/v1/score", json={"video": video["id"]}).json()
    by_file = client.post("/v1/score", files={"file": ("clip.mp4", b"SCORE:0.97")}).json()
    assert by_id | {"timing_ms": {}} == by_file | {"timing_ms": {}}
    assert client.delete(f"/v1/videos/{video['id']}").status_code == 204
    assert files_in(settings) == []
    check_problem(client.get(f"/v1/videos/{video['id']}"), 404, "video_not_found")
    check_problem(client.delete(f"/v1/videos/{video['id']}"), 404, "video_not_found")
    check_problem(client.post("/v1/score", json={"video": video["id"]}), 404, "video_not_found")


@pytest.mark.parametrize("route", ["/v1/score", "/v1/videos"])
@pytest.mark.parametrize("code", MEDIA_CODES)
def test_a_bad_file_is_422_with_its_code_and_leaves_nothing(
    client: TestClient, settings: Settings, route: str, code: str
) -> None:
    answer = client.post(route, files={"file": ("bad.mp4", f"BAD:{code}".encode())})
    check_problem(answer, 422, code)
    assert files_in(settings) == []


def test_too_large_is_413(client: TestClient, settings: Settings) -> None:
    document = check_problem(client.post("/v1/score", files={"file": b"x" * 200_000}), 413, "limits_exceeded")
    assert document["limit_bytes"] == settings.max_upload_bytes
    check_problem(client.post("/v1/videos", content=b"x" * 100_001), 413, "limits_exceeded")
    chunks = (b"x" * 10_000 for _ in range(11))
    check_problem(client.post("/v1/videos", content=chunks), 413, "limits_exceeded")


def test_bodies_that_hold_no_file(client: TestClient) -> None:
    check_problem(client.post("/v1/score", data={"file": "x"}), 415, "unsupported_media_type")
    check_problem(client.post("/v1/videos", json={}), 415, "unsupported_media_type")
    gzip = {"Content-Encoding": "gzip", "Content-Type": "video/mp4"}
    check_problem(client.post("/v1/score", content=b"x", headers=gzip), 415, "unsupported_media_type")
    check_problem(client.post("/v1/score", content=b""), 422, "not_a_video")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"vide": "x"}', b'{"video": 5}', b'{"video": "a", "b": 1}']
)
def test_bad_json(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    document = check_problem(answer, 422, "invalid_request")
    assert document["errors"][0]["where"].startswith("body")


def test_large_json(client: TestClient) -> None:
    check_problem(client.post("/v1/score", json={"video": "x" * 70_000}), 413, "limits_exceeded")


def test_other_addresses_and_methods(client: TestClient) -> None:
    check_problem(client.get("/nothing"), 404, "no_such_route")
    check_problem(client.get("/static/../main.py"), 404, "no_such_route")
    check_problem(client.get("/v1/score"), 405, "method_not_allowed")
    for path, methods in (("/v1/videos/x", {"DELETE", "GET"}), ("/v1/jobs", {"GET", "POST"})):
        allowed = client.put(path).headers["Allow"].split(", ")
        assert methods <= set(allowed)
    check_problem(client.post("/v1/score?thorough=perhaps"), 422, "invalid_request")


def test_busy_is_503_with_retry_after(client: TestClient, engine: doubles.Engine, settings: Settings) -> None:
    parts = client.app.state.parts  # type: ignore[attr-defined]
    parts.admission.max_clips = 2
    engine.double.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(client.post, "/v1/score", files={"file": b"SCORE:0.5"}) for _ in range(2)]
        ends = time.monotonic() + 5
        while parts.admission.clips < 2:
            assert time.monotonic() < ends
            time.sleep(0.01)
        refused = client.post("/v1/score", files={"file": b"SCORE:0.5"})
        engine.double.gate.set()
        assert [answer.result().status_code for answer in running] == [200, 200]
    check_problem(refused, 503, "busy")
    assert int(refused.headers["Retry-After"]) > 0
    assert client.post("/v1/score", files={"file": b"SCORE:0.5"}).status_code == 200
    assert (parts.admission.clips, parts.admission.bytes) == (0, 0)


def test_concurrent_answers_do_not_mix(client: TestClient) -> None:
    def score(number: int) -> tuple[float, str]:
        answer = client.post("/v1/score", files={"file": (f"{number}.mp4", f"SCORE:0.{number:02}".encode())})
        return answer.json()["score"], answer.json()["path"]

    with ThreadPoolExecutor(8) as threads:
        for number, found in zip(range(10, 50), threads.map(score, range(10, 50)), strict=True):
            assert found == (pytest.approx(number / 100), f"{number}.mp4")


def test_not_in_time_is_503(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, request_timeout_s=0.2)
    decoder = doubles.Decoder()
    with TestClient(
        create_app(settings, doubles.Engine(settings), decoder), base_url="http://localhost"
    ) as client:
        doubles.until_ready(client)
        check_problem(client.post("/v1/score", files={"file": b"SLOW:5"}), 503, "deadline_exceeded")
        assert decoder.cancelled.wait(2)
        assert files_in(settings) == []


def test_the_largest_accepted_video_is_let_in_whatever_the_queue_s_limit(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, max_upload_bytes=1000, max_queue_bytes=10)
    with TestClient(
        create_app(settings, doubles.Engine(settings), doubles.Decoder()), base_url="http://localhost"
    ) as client:
        assert client.post("/v1/videos", files={"file": b"x" * 1000}).status_code == 201


def test_a_full_store_refuses(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, max_stored_bytes=700)
    with TestClient(
        create_app(settings, doubles.Engine(settings), doubles.Decoder()), base_url="http://localhost"
    ) as client:
        assert client.post("/v1/videos", content=b"x" * 500).status_code == 201
        check_problem(client.post("/v1/videos", content=b"x" * 500), 503, "storage_full")
        chunks = (b"x" * 100 for _ in range(5))  # no length was announced
        check_problem(client.post("/v1/score", content=chunks), 503, "storage_full")


def test_ready_only_after_the_warm_up(settings: Settings, decoder: doubles.Decoder) -> None:
    engine = doubles.Engine(settings)
    engine.may_load.clear()
    with TestClient(create_app(settings, engine, decoder), base_url="http://127.0.0.1") as client:
        assert client.get("/healthz").json()["status"] == "ok"
        check_problem(client.get("/readyz"), 503, "not_ready")
        refused = client.post("/v1/score", files={"file": b"x"})
        check_problem(refused, 503, "not_ready")
        assert "Retry-After" in refused.headers
        check_problem(client.get("/v1/policies"), 503, "not_ready")
        assert client.get("/").status_code == 200
        engine.may_load.set()
        doubles.until_ready(client)
        assert client.get("/readyz").json()["model"] == "double 1.0.0"


def test_a_batcher_that_died_is_not_alive(client: TestClient, engine: doubles.Engine) -> None:
    assert engine._batcher is not None
    task = engine._batcher._task
    assert task is not None
    task.get_loop().call_soon_threadsafe(task.cancel)
    ends = time.monotonic() + 5
    while client.get("/healthz").status_code == 200:
        assert time.monotonic() < ends
    check_problem(client.get("/healthz"), 503, "not_ready")


def test_a_model_that_hangs_is_not_alive(tmp_path: Path) -> None:
    """Though who waits for it gives up, so that nobody in the queue is ever older than a request may be."""
    settings = Settings(data_dir=tmp_path, request_timeout_s=0.2)
    engine = doubles.Engine(settings)
    with TestClient(create_app(settings, engine, doubles.Decoder()), base_url="http://localhost") as client:
        doubles.until_ready(client)
        engine.double.gate.clear()
        check_problem(client.post("/v1/score", files={"file": b"SCORE:0.5"}), 503, "deadline_exceeded")
        time.sleep(0.05)
        assert client.get("/healthz").status_code == 503
        engine.double.gate.set()
        ends = time.monotonic() + 5
        while client.get("/healthz").status_code != 200:
            assert time.monotonic() < ends


def test_models_and_policies(client: TestClient) -> None:
    models = client.get("/v1/models").json()["models"]
    assert "specsem-compact" in [model["name"] for model in models]
    [policy, other] = client.get("/v1/policies").json()["policies"]
    assert (policy["name"], policy["active"], policy["refused"]) == ("default", True, [])
    assert policy["threshold"] == doubles.THRESHOLD.model_dump()
    assert (other["name"], other["active"], other["threshold"]) == ("review", False, None)


def test_the_page_and_the_reference_name_no_other_host(client: TestClient) -> None:
    seen: set[str] = set()
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200
        for attribute in ("src=", "href=", "action="):
            for piece in page.text.split(attribute)[1:]:
                address = piece.split('"')[1]
                assert address.startswith(("/", "#")), address
                seen.add(address.split("#")[0])
        assert " style=" not in page.text
        assert "<style" not in page.text
        assert "<script>" not in page.text
    for path in seen - {"", "/v1/score"}:
        assert client.get(path).status_code == 200, path


def test_the_reference_explains_every_code(client: TestClient) -> None:
    page = client.get("/docs").text
    for code in CODES:
        assert f'id="error-{code}"' in page
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page


def test_the_description_names_errors_and_bodies(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    score = schema["paths"]["/v1/score"]["post"]
    assert {"multipart/form-data", "application/json", "video/*"} <= set(score["requestBody"]["content"])
    assert {"200", "401", "404", "413", "415", "422", "503"} <= set(score["responses"])
    assert "not_a_video" in score["responses"]["422"]["content"]["application/problem+json"]["examples"]
    assert {"ScoredFile", "Video", "ProblemDocument"} <= set(schema["components"]["schemas"])
    assert "HTTPValidationError" not in client.get("/openapi.json").text, "no refusal looks like that"
    names = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert {"jobs_submit", "videos_upload", "score_score"} <= set(names)


def test_serve_says_at_once_that_the_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownModel, match="no-such-model"):
        run(Settings(data_dir=tmp_path, model="no-such-model"))
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "model.json").write_text(
        '{"name": "hollow", "version": "1", "licence": "none", "summary": "", "config": {}}'
    )
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tmp_path))
    with pytest.raises(WeightsMissing):
        run(Settings(data_dir=tmp_path, model="hollow"))


def test_the_data_folder_is_private(client: TestClient, settings: Settings) -> None:
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700
    assert threading.active_count() < 50


def test_a_taken_port_a_closed_folder_and_a_list_of_nobody_are_said_in_a_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = settings.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(CannotServe, match="--port"):
            run(busy, doubles.Engine(busy), doubles.Decoder())
    (tmp_path / "file").touch()
    closed = Settings(data_dir=tmp_path / "file" / "data")
    with pytest.raises(DataDirUnusable, match="SPECSEM_DATA_DIR"):
        run(closed, doubles.Engine(closed), doubles.Decoder())
    untrusting = settings.model_copy(update={"c2pa_trust_list": tmp_path / "file"})
    with pytest.raises(TrustListUnusable, match="holds no certificates"):
        run(untrusting, doubles.Engine(untrusting), doubles.Decoder())
