"""What the parts of the service hold to tell of their work: metrics, and spans where they are switched on."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from app.observability.metrics import Metrics, Stage
from app.settings import Settings
from specsem.errors import SpecSemError

if TYPE_CHECKING:
    from app.batching import Lane
    from app.observability.tracing import Tracing

__all__ = ["Answered", "Telemetry", "TracingUnavailable", "no_span", "open_telemetry"]

Answered = Callable[[str, int, str | None], None]
"""Told how a request ended: its route's template, the status, the code of a refusal."""


class TracingUnavailable(SpecSemError):
    """Traces are switched on and OpenTelemetry is not installed."""

    code = "tracing_unavailable"


class Telemetry:
    """Metrics of one application, and its traces if it has any."""

    def __init__(self, metrics: Metrics | None = None, tracing: "Tracing | None" = None) -> None:
        self.metrics = metrics or Metrics()
        self._tracing = tracing

    def stage(
        self, stage: Stage, begun: float, ended: float | None = None, *, lane: "Lane" = "interactive"
    ) -> None:
        """A video was in this stage, by the clock of ``time.monotonic``; None: until now.

        Call it in the context of the request or job that the video belongs to.
        """
        ended = time.monotonic() if ended is None else ended
        self.metrics.stage(stage, ended - begun, lane)
        if self._tracing is not None:
            self._tracing.stage(stage, begun, ended)

    def request(self, method: str, headers: Mapping[str, str]) -> AbstractContextManager[Answered]:
        """A span around a request, under the caller's if its headers name one."""
        return no_span() if self._tracing is None else self._tracing.request(method, headers)

    def job(self, job_id: str, attempt: int) -> AbstractContextManager[object]:
        """A span around an attempt at a job."""
        return nullcontext() if self._tracing is None else self._tracing.job(job_id, attempt)

    def close(self) -> None:
        """Send what spans are left. Blocks."""
        if self._tracing is not None:
            self._tracing.close()


def no_span() -> AbstractContextManager[Answered]:
    """In place of a request's span."""
    return nullcontext(lambda _route, _status, _code: None)


def open_telemetry(settings: Settings) -> Telemetry:
    """As the settings want it.

    Raises:
        TracingUnavailable: traces are on without the extra ``otel``.
    """
    tracing = None
    if settings.otel:
        try:
            from app.observability.tracing import exporting  # noqa: PLC0415 - not for those who don't want it
        except ModuleNotFoundError as error:
            raise TracingUnavailable(
                f"SPECSEM_OTEL is on, and {error.name} is not installed here: install the extra `otel`, "
                "or switch traces off."
            ) from error
        tracing = exporting()
    return Telemetry(Metrics(settings.policy), tracing)
