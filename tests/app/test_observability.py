"""What the service tells of itself: metrics with fixed labels, log lines with ids, probes, the version."""

import asyncio
import io
import json
import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import doubles
import job_house
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from app.batching import Batcher
from app.main import create_app
from app.observability import logs
from app.observability.metrics import Metrics
from app.observability.telemetry import Telemetry
from app.problems import CODES
from app.settings import Settings

Series = tuple[str, frozenset[tuple[str, str]]]


def scraped(text: str) -> dict[Series, float]:
    """Every series of an exposition and its value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(source: TestClient | Metrics, name: str, /, **labels: str) -> float:
    """One series, by its name without the prefix; 0 where it isn't there yet."""
    text = source.render("")[0].decode() if isinstance(source, Metrics) else source.get("/metrics").text
    return scraped(text).get((f"specsem_{name}", frozenset(labels.items())), 0.0)


def score(client: TestClient, content: bytes = b"SCORE:0.95", **more: Any) -> Any:
    return client.post("/v1/score", files={"file": ("secret-name.mp4", content)}, **more)


# -- metrics ------------------------------------------------------------------------------------------------


def test_a_verdict_leaves_its_marks(client: TestClient) -> None:
    assert score(client).status_code == 200
    assert value(client, "http_requests_total", route="/v1/score", method="POST", status="2xx") == 1
    assert value(client, "verdicts_total", verdict="generated", policy="default") == 1
    assert value(client, "score_bucket", le="0.95") == 1
    assert value(client, "score_bucket", le="0.9") == 0
    for stage in ("receive", "decoder_queue", "decode", "queue", "forward", "total"):
        count = value(client, "stage_duration_seconds_count", stage=stage, lane="interactive")
        assert count == 1, stage
    assert value(client, "batch_clips_sum") == 1
    assert value(client, "batch_releases_total", reason="queue_empty") == 1


def test_a_thorough_scan_has_a_stage_of_its_own(client: TestClient) -> None:
    assert score(client, params={"thorough": True}).status_code == 200
    assert value(client, "stage_duration_seconds_count", stage="scan", lane="interactive") == 1
    assert value(client, "stage_duration_seconds_count", stage="decode", lane="interactive") == 0
    assert value(client, "stage_duration_seconds_count", stage="forward", lane="bulk") >= 1


def test_refusals_are_counted_by_code(client: TestClient) -> None:
    assert score(client, b"BAD:encrypted").json()["code"] == "encrypted"
    assert client.get("/v1/jobs/unknown").status_code == 404
    assert value(client, "refusals_total", code="encrypted") == 1
    assert value(client, "refusals_total", code="job_not_found") == 1
    assert value(client, "http_requests_total", route="/v1/jobs/{job_id}", method="GET", status="4xx") == 1


def test_hostile_paths_methods_and_headers_make_no_new_series(
    client: TestClient, engine: doubles.Engine
) -> None:
    def ask(text: str) -> None:
        for path in (f"/{text}", f"/v1/videos/{text}", f"/v1/jobs/{text}/events", f"/static/{text}"):
            client.get(path, params={text: text}, headers={"X-Request-Id": text, "Host": "127.0.0.1"})
        client.request(f"M{secrets.token_hex(4)}", "/v1/score")
        client.get("/v1/models", headers={"Host": f"{secrets.token_hex(4)}.example"})
        client.post("/v1/score", json={"video": text})
        client.post(f"/{text}")
        client.post(f"/v1/jobs/{text}")

    ask("first")
    before = scraped(client.get("/metrics").text).keys()
    before = scraped(client.get("/metrics").text).keys()  # with the series of /metrics itself
    for text in ("%0d%0aevil 1", "a%00b", "../../etc/passwd", "%e2%80%ae", "x" * 4000, "{job_id}"):
        ask(text)
    after = scraped(client.get("/metrics").text).keys()
    assert after == before
    labels = {label for _, labels in after for label in labels}
    codes = {code for name, code in labels if name == "code"}
    assert codes == set(CODES)
    assert ("method", "other") in labels
    assert ("route", "unmatched") in labels


def test_a_batch_tells_why_it_grew_no_more() -> None:
    async def scenario() -> None:
        telemetry = Telemetry()
        batcher: Batcher[int, int] = Batcher(
            list, max_batch=2, shape=lambda item: item > 10, telemetry=telemetry
        )
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3, 11)]
        await asyncio.sleep(0)
        assert batcher.liveness().lanes["interactive"].clips == 4
        assert batcher.liveness().lanes["bulk"].clips == 0
        batcher.start()
        await asyncio.gather(*answers)
        await batcher.aclose()
        for reason in ("full", "shape", "queue_empty"):  # [1, 2], [3], [11]
            assert value(telemetry.metrics, "batch_releases_total", reason=reason) == 1, reason
        assert value(telemetry.metrics, "batch_failures_total") == 0

    asyncio.run(scenario())


def test_a_failed_forward_is_counted() -> None:
    async def scenario() -> None:
        telemetry = Telemetry()
        batcher: Batcher[int, int] = Batcher(
            lambda items: [1 // x for x in items], max_batch=4, telemetry=telemetry
        )
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 0)]
        await asyncio.sleep(0)
        batcher.start()
        await asyncio.gather(*answers, return_exceptions=True)
        await batcher.aclose()
        assert value(telemetry.metrics, "batch_failures_total") == 2  # together, then the one alone

    asyncio.run(scenario())


def test_the_queue_shows_while_it_waits(client: TestClient, engine: doubles.Engine) -> None:
    engine.double.gate.clear()
    waiting = [threading.Thread(target=score, args=(client,)) for _ in range(3)]
    waiting[0].start()
    doubles.until(lambda: value(client, "forward_age_seconds") > 0)  # alone: two at once would share a batch
    for thread in waiting[1:]:
        thread.start()
    doubles.until(lambda: value(client, "queue_clips", lane="interactive") == 2)
    assert value(client, "queue_oldest_age_seconds", lane="interactive") > 0
    assert value(client, "forward_age_seconds") > 0
    assert value(client, "admission_used_ratio", limit="clips") == 3 / 32
    engine.double.gate.set()
    for thread in waiting:
        thread.join()
    assert value(client, "queue_clips", lane="interactive") == 0


def test_what_is_loaded_and_stored(client: TestClient) -> None:
    assert client.post("/v1/videos", files={"file": b"twelve bytes"}).status_code == 201
    assert value(client, "store_bytes", kind="videos") == 12
    assert value(client, "ready") == value(client, "database_up") == 1
    assert value(client, "disk_free_bytes") > 0
    record = doubles.RECORD
    info = {"name": record.name, "version": record.version, "sha256": record.sha256}
    assert value(client, "model_info", **info, device="double", policy="default") == 1
    assert "process_resident_memory_bytes" in client.get("/metrics").text


def test_openmetrics_for_those_who_ask(client: TestClient) -> None:
    assert client.get("/metrics").headers["Content-Type"].startswith("text/plain")
    asked = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert asked.headers["Content-Type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")


def test_each_application_counts_for_itself(client: TestClient, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "other")
    other = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(other, base_url="http://127.0.0.1") as second:
        second.get("/nothing")
        assert value(second, "refusals_total", code="no_such_route") == 1
    assert value(client, "refusals_total", code="no_such_route") == 0


async def attempted(home: job_house.House, outcome: str) -> None:
    """Wait for one attempt to have ended so."""

    async def count() -> float:
        return value(home.telemetry.metrics, "job_attempts_total", outcome=outcome)

    await job_house.until(count, lambda found: found == 1)


def test_attempts_at_jobs_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with job_house.house(tmp_path / "data", job_max_attempts=2) as home:
            await home.submit(b"SCORE:0.2")
            await home.submit(b"BAD:undecodable")
            await attempted(home, "done")
            await attempted(home, "failed")
            home.decoder.started.clear()
            deleted = await home.started(await home.submit(b"SLOW:30"))
            await home.jobs.delete("", deleted.id)
            await attempted(home, "lost")

    asyncio.run(scenario())


def test_jobs_by_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with job_house.house(tmp_path / "data", slots=0, job_lease_s=0.1) as home:
            for _ in range(2):
                await home.submit(b"SCORE:0.2")
            looking = asyncio.create_task(home.jobs.keep_house())

            async def look() -> dict[Any, int]:
                return home.jobs.house.by_status

            await job_house.until(look, lambda by_status: by_status == {"queued": 2})
            assert home.jobs.house.oldest_queued_s > 0
            looking.cancel()

    asyncio.run(scenario())


# -- probes and version -------------------------------------------------------------------------------------


def test_unready_says_why(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = client.app.state.parts.jobs  # type: ignore[attr-defined]

    def refused() -> str:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert value(client, "ready") == 0
        return str(answer.json()["detail"])

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "house", jobs.house.__class__({}, 0.0, disk_free_bytes=1000))
        assert "disk" in refused()

    def away(*_args: object, **_kwargs: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(jobs._store, "page", away)
        assert client.get("/v1/jobs").status_code == 503
        assert "database" in refused()
        assert value(client, "database_up") == 0
    assert client.get("/healthz").status_code == 200, "a restart would not bring the database back"
    client.portal.call(jobs._look)  # type: ignore[union-attr]
    assert client.get("/readyz").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "stopping", True)
        assert "stopping" in refused()


def test_version(client: TestClient, tmp_path: Path) -> None:
    told = client.get("/version").json()
    assert told["model"] == {"name": "double", "version": "1.0.0", "sha256": "0" * 64}
    settings = Settings(data_dir=tmp_path / "loading", commit="abc123")
    engine = doubles.Engine(settings)
    engine.may_load.clear()
    app = create_app(settings, engine, doubles.Decoder())
    with TestClient(app, base_url="http://127.0.0.1") as loading:
        told = loading.get("/version").json()
        engine.may_load.set()
    assert (told["commit"], told["model"]) == ("abc123", None)


def test_metrics_and_version_need_a_key_where_there_are_keys(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "keyed", api_keys=["k" * 32])
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(app, base_url="http://127.0.0.1") as keyed:
        for path in ("/metrics", "/version"):
            assert keyed.get(path).status_code == 401


# -- request ids and log lines ------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["a", "0af7651916cd43dd8448eb211c80319c", "job-7_part.2", "x" * 64])
def test_a_harmless_request_id_is_taken_over(client: TestClient, sent: str) -> None:
    assert client.get("/v1/models", headers={"X-Request-Id": sent}).headers["X-Request-Id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a\tb", "<script>", "é", "a;b"])
def test_any_other_is_replaced(client: TestClient, sent: str) -> None:
    answer = client.get("/v1/models", headers={"X-Request-Id": sent.encode("latin-1")})  # type: ignore[dict-item]
    assert len(answer.headers.get_list("X-Request-Id")) == 1
    assert len(answer.headers["X-Request-Id"]) == 16


def test_two_ids_are_none(client: TestClient) -> None:
    answer = client.get("/v1/models", headers=[("X-Request-Id", "one"), ("X-Request-Id", "two")])
    assert answer.headers["X-Request-Id"] not in {"one", "two"}


@contextmanager
def written(settings: Settings) -> Iterator[io.StringIO]:
    """What goes to standard error meanwhile; the loggers are then as they were."""
    names = ["", "specsem", "uvicorn"]
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names}
    stderr = io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stderr", stderr)
            logs.configure(settings)
        yield stderr
    finally:
        for name, (handlers, level) in before.items():
            logging.getLogger(name).handlers[:] = handlers
            logging.getLogger(name).setLevel(level)


def lines(stderr: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


@pytest.fixture
def json_lines() -> Iterator[io.StringIO]:
    with written(Settings(log_format="json")) as stderr:
        yield stderr


def test_one_line_a_request(json_lines: io.StringIO, client: TestClient) -> None:
    json_lines.truncate(0)
    json_lines.seek(0)
    sent = {"Authorization": "Bearer my-secret-key", "X-Request-Id": "mine-1"}
    score(client, b"BAD:encrypted", params={"filename": "query-name"}, headers=sent)
    (line,) = lines(json_lines)
    assert line.pop("time")
    assert line.pop("duration_ms") > 0
    assert line.pop("bytes_in") > len(b"BAD:encrypted")
    assert line.pop("message").startswith("testclient POST /v1/score 422, ")
    assert line == {
        "level": "INFO",
        "logger": "specsem.access",
        "client": "testclient",
        "method": "POST",
        "route": "/v1/score",
        "status": 422,
        "code": "encrypted",
        "request_id": "mine-1",
    }
    for secret in ("secret-name", "query-name", "my-secret-key"):
        assert secret not in json_lines.getvalue()


def test_probes_that_are_answered_well_leave_no_line(json_lines: io.StringIO, client: TestClient) -> None:
    json_lines.truncate(0)
    json_lines.seek(0)
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    assert json_lines.getvalue() == ""
    client.app.state.parts.jobs.stopping = True  # type: ignore[attr-defined]
    client.get("/readyz")
    assert [line["status"] for line in lines(json_lines)] == [503]


def test_lines_from_threads_have_the_request_s_id(
    json_lines: io.StringIO, client: TestClient, decoder: doubles.Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = decoder.decode

    def decode(*args: Any, **kwargs: Any) -> Any:
        logging.getLogger("specsem.media").warning("deep down")
        return really(*args, **kwargs)

    monkeypatch.setattr(decoder, "decode", decode)
    score(client, headers={"X-Request-Id": "mine-2"})
    deep = [line for line in lines(json_lines) if line["message"] == "deep down"]
    assert [line["request_id"] for line in deep] == ["mine-2"]


def test_lines_of_a_job_have_its_id(json_lines: io.StringIO, tmp_path: Path) -> None:
    async def scenario() -> str:
        async with job_house.house(tmp_path / "data") as home:
            job = await home.submit(b"SCORE:0.2")
            await attempted(home, "done")
            return job.id

    job_id = asyncio.run(scenario())
    (line,) = [line for line in lines(json_lines) if line["message"] == "attempt 1: done"]
    assert line["job_id"] == job_id


HOSTILE = "name\r\n2026-01-01 INFO forged: \x1b[31m\x00\u202e\u2028\x85\ud800"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_control_characters_stay_inside_their_line(log_format: Any) -> None:
    with written(Settings(log_format=log_format)) as stderr, logs.on_every_line(request_id=HOSTILE):
        logging.getLogger("specsem.app").warning("a %s b", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("specsem.app").exception("it failed")
    text = stderr.getvalue()
    text.encode("utf-8")
    assert all(char == "\n" or char.isprintable() for char in text)
    assert not any(line.startswith("2026-01-01 INFO forged") for line in text.splitlines())
    if log_format == "json":
        first, second = lines(stderr)
        assert first["message"] == f"a {HOSTILE} b"
        assert "ValueError" in second["exc_info"]


def test_what_is_learnt_on_the_way_joins_the_lines() -> None:
    with written(Settings(log_format="json")) as stderr, logs.on_every_line(request_id="r"):
        logs.add_to_lines(key="abcd")
        logging.getLogger("specsem.app").warning("once")
    (line,) = lines(stderr)
    assert (line["request_id"], line["key"]) == ("r", "abcd")
    assert "key" not in logs._fields.get()
