"""Spans for OpenTelemetry. Imported only where ``SPECSEM_OTEL`` is on; ``OTEL_*`` says where they go."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.observability.logs import on_every_line
from app.observability.telemetry import Answered
from specsem import __version__

__all__ = ["Tracing", "exporting"]

FLUSH_S = 3.0


class Tracing:
    """Makes spans and hands them to a processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        # An operator's own names win.
        attributes = {"service.version": __version__}
        if not {"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"} & os.environ.keys():
            attributes["service.name"] = "specsem"
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("specsem", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Answered]:
        """A server's span, under the one that ``traceparent`` names; it tells neither path nor query."""
        parent, facts = self._propagator.extract(headers), {"http.request.method": method}
        with self._span(method, SpanKind.SERVER, facts, parent) as span:

            def answered(route: str, status: int, code: str | None) -> None:
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.route": route, "http.response.status_code": status})
                if code is not None:
                    span.set_attribute("error.type", code)
                if status >= 500:
                    span.set_status(StatusCode.ERROR)

            yield answered

    def job(self, job_id: str, attempt: int) -> AbstractContextManager[object]:
        """A span around an attempt at a job; a trace of its own, as the request is long over."""
        return self._span(
            "job", SpanKind.CONSUMER, {"specsem.job.id": job_id, "specsem.job.attempt": attempt}
        )

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, facts: Mapping[str, str | int], parent: Context | None = None
    ) -> Iterator[Span]:
        """A span that is the current one for a while, and whose trace the log's lines name."""
        opened = self._tracer.start_as_current_span(name, context=parent, kind=kind, attributes=facts)
        with opened as span, on_every_line(trace_id=format_trace_id(span.get_span_context().trace_id)):
            yield span

    def stage(self, name: str, begun: float, ended: float) -> None:
        """A span that is over already, under the current one; times by ``time.monotonic``."""
        epoch_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(name, start_time=epoch_ns + int(begun * 1e9))
        span.end(epoch_ns + int(ended * 1e9))

    def close(self) -> None:
        """Send what is left. Blocks, but no stop waits long for a collector that is away."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(FLUSH_S)


def exporting() -> Tracing:
    """Spans leave in batches, by OTLP over HTTP, from a thread of the SDK's own."""
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))
