"""Spans: off and not even imported by default, one for each request, its stages and each attempt at a job."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import doubles
import job_house
import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.main import create_app
from app.observability import telemetry as telemetry_module
from app.observability import tracing
from app.observability.telemetry import Telemetry, TracingUnavailable, open_telemetry
from app.observability.tracing import Tracing
from app.settings import Settings

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{CALLER}-00f067aa0ba902b7-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(
    exporter: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    monkeypatch.setattr(tracing, "exporting", lambda: Tracing(SimpleSpanProcessor(exporter)))
    settings = Settings(data_dir=tmp_path / "data", otel=True, job_slots=0)
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        doubles.until_ready(client)
        yield client


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert len(found) == len(exporter.get_finished_spans())
    return found


def test_a_request_with_its_stages_under_the_caller_s_trace(
    traced: TestClient, exporter: InMemorySpanExporter
) -> None:
    file = {"file": ("secret-name.mp4", b"SCORE:0.5")}
    answer = traced.post(
        "/v1/score", files=file, params={"filename": "query-name"}, headers={"traceparent": TRACEPARENT}
    )
    assert answer.status_code == 200
    found = spans(exporter)
    request = found.pop("POST /v1/score")
    assert found.keys() == {"receive", "decoder_queue", "decode", "queue", "forward", "total"}
    assert request.context is not None
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    for name, stage in found.items():
        assert stage.parent == request.context, name
        assert stage.start_time is not None
        assert stage.end_time is not None
        assert request.start_time <= stage.start_time <= stage.end_time <= request.end_time, name
    assert found["decode"].end_time <= found["queue"].start_time + 1_000_000  # type: ignore[operator]
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
    }
    told = " ".join(span.to_json() for span in exporter.get_finished_spans())
    assert CALLER in told
    for secret in ("secret-name", "query-name"):
        assert secret not in told


def test_a_scan_s_forwards_belong_to_its_request(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    traced.post("/v1/score", files={"file": b"SCORE:0.5"}, params={"thorough": True})
    traces = {span.context.trace_id for span in exporter.get_finished_spans() if span.context}
    assert len(traces) == 1
    assert {"scan", "queue", "forward"} <= {span.name for span in exporter.get_finished_spans()}


def test_a_refusal_has_its_code(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    traced.get("/v1/videos/nothing", headers={"traceparent": "not one"})
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /v1/videos/{video_id}"
    assert span.attributes is not None
    assert span.attributes["error.type"] == "video_not_found"


def test_probes_leave_no_span(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        traced.get(path)
    assert not exporter.get_finished_spans()


def test_an_attempt_at_a_job(exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    async def scenario() -> str:
        telemetry = Telemetry(tracing=Tracing(SimpleSpanProcessor(exporter)))
        async with job_house.house(tmp_path / "data", telemetry=telemetry) as home:
            job = await home.submit(b"SCORE:0.2")
            await home.ended(job)
            return job.id

    job_id = asyncio.run(scenario())
    found = spans(exporter)
    job = found["job"]
    assert job.attributes == {"specsem.job.id": job_id, "specsem.job.attempt": 1}
    for stage in ("decode", "queue", "forward", "total"):
        assert found[stage].parent == job.context, stage


def test_the_endpoint_alone_switches_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert open_telemetry(Settings())._tracing is None


def test_nothing_of_it_is_imported_while_it_is_off() -> None:
    program = (
        "import sys; from app.observability.telemetry import open_telemetry\n"
        "from app.settings import Settings\n"
        "open_telemetry(Settings()); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "prometheus_client" in loaded.stdout.split()
    assert not [name for name in loaded.stdout.split() if name.startswith("opentelemetry")]


def test_without_the_extra_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "app.observability.tracing")
    monkeypatch.delattr(telemetry_module.__package__ + ".tracing")
    with pytest.raises(TracingUnavailable, match=r"SPECSEM_OTEL is on.*extra `otel`"):
        create_app(Settings(otel=True))


def test_a_stop_does_not_wait_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.01)
    away = threading.Event()

    class Hanging(SimpleSpanProcessor):
        def shutdown(self) -> None:
            away.wait(60)

    try:
        Tracing(Hanging(InMemorySpanExporter())).close()  # returns
    finally:
        away.set()


def test_an_operator_s_name_for_the_service_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(exporter: InMemorySpanExporter) -> object:
        Tracing(SimpleSpanProcessor(exporter)).stage("decode", 0.0, 1.0)
        return exporter.get_finished_spans()[0].resource.attributes["service.name"]

    assert named(InMemorySpanExporter()) == "specsem"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    assert named(InMemorySpanExporter()) == "theirs"
