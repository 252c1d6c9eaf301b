"""From a source through the service to a sink: at least once, bounded, and at the service's pace.

- **At least once.** A delivery is settled after its verdict has arrived. Whoever is killed in between gets it
  again, and its id is the job's idempotency key: the work is done once, the verdict may be sent twice.
- **Bounded.** So many deliveries are under way at a time; only then more are taken. A service that is busy or
  away holds all of them up, and with them the source.
- **Set aside.** What can't be scored however often it is tried goes where the source keeps such, with the
  reason. That the service is away, or wants another key, is no delivery's fault.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Sink, Source, Unfit
from specsem.client import Client, JobFailed, ProblemError, ServiceError
from specsem.errors import FileUnusable, SpecSemError
from specsem.records import Job

__all__ = ["Bridge"]

logger = logging.getLogger("specsem.connect")

T = TypeVar("T")

HOLD_S = 5.0
LOOK_S = 1.0
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Before another attempt where the service or the sink is away; the last one again and again."""
NOT_ITS_FAULT = frozenset({"unauthorized", "forbidden", "host_refused", "exposure_refused"})
"""Codes with which the service refuses this connector, whatever it brings."""


class _Stopped(Exception):
    """The bridge ends: what is under way is left for another time."""


class Bridge:
    """One connector at work."""

    def __init__(
        self,
        source: Source,
        sink: Sink | None,
        client: Client,
        *,
        in_flight: int = 4,
        pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        """``sink`` hears of what was scored and of what was set aside; None: the source alone does."""
        self._source, self._sink, self._client = source, sink, client
        self._in_flight = in_flight
        self._pauses_s = pauses_s
        self._stopping = threading.Event()
        self.settled = 0
        """Deliveries that were scored or set aside."""

    def stop(self) -> None:
        """Take on nothing more; from any thread or a handler of signals."""
        self._stopping.set()

    def run(self, *, until_idle: bool = False) -> None:
        """Work until it is stopped, or with ``until_idle`` until nothing comes.

        Raises:
            ConnectorUnusable: the service refuses this connector.
        """
        under_way: dict[Future[Outcome], Delivery] = {}
        held = time.monotonic()
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="specsem-connect") as threads:
            try:
                while not self._stopping.is_set():
                    room = self._in_flight - len(under_way)
                    arrived = self._receive(room, wait_s=0 if under_way else LOOK_S) if room else ()
                    for delivery in arrived:
                        under_way[threads.submit(self._score, delivery)] = delivery
                    if not under_way:
                        if until_idle and not arrived:
                            return
                        continue
                    ended, _ = wait(under_way, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                    for future in ended:
                        del under_way[future]
                        self._settle(future.result())
                    if under_way and time.monotonic() - held > HOLD_S:
                        self._source.hold(list(under_way.values()))
                        held = time.monotonic()
            except _Stopped:
                logger.info("stopped; what was under way is delivered again")
            finally:
                self._stopping.set()
                for future in under_way:
                    future.cancel()

    def _receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:
        return self._patiently(lambda: self._source.receive(most, wait_s=wait_s), "the source")

    def _score(self, delivery: Delivery) -> Outcome:
        """In a thread of its own."""
        try:
            job = self._patiently(lambda: self._job(delivery), delivery.name)
        except (Unfit, FileUnusable, JobFailed, ProblemError) as error:
            failed = error.job if isinstance(error, JobFailed) else None
            return Outcome(delivery, failed, error)
        return Outcome(delivery, job)

    def _job(self, delivery: Delivery) -> Job:
        with tempfile.TemporaryDirectory(prefix="specsem-connect-") as folder:
            video = delivery.fetch(Path(folder))
            if isinstance(video, str):
                job = self._client.submit_url(video, idempotency_key=delivery.id)
            else:
                job = self._client.submit(video, idempotency_key=delivery.id)
        while not job.over:  # the client's own way of waiting would not hear of a stop
            if self._stopping.wait(LOOK_S):
                raise _Stopped
            job = self._client.job(job)
        if job.status != "done":
            raise JobFailed(job)
        return job

    def _settle(self, outcome: Outcome) -> None:
        name, error = outcome.delivery.name, outcome.error
        if self._sink is not None:
            sink = self._sink
            self._patiently(lambda: sink.send(outcome), name)
        if error is None:
            self._patiently(lambda: self._source.done(outcome), name)
            logger.info("%s: scored as job %s", name, outcome.job.id if outcome.job else "")
        else:
            self._patiently(lambda: self._source.set_aside(outcome), name)
            logger.warning("%s: set aside: %s (%s)", name, error.message, error.code)
        self.settled += 1

    def _patiently(self, call: Callable[[], T], what: str) -> T:
        """Again and again, where something of ours is away."""
        attempt = 0
        while True:
            try:
                return call()
            except (Unfit, FileUnusable, JobFailed):
                raise
            except (ServiceError, OSError) as error:
                if isinstance(error, ProblemError):
                    if error.code in NOT_ITS_FAULT:
                        refused = f"The service refuses this connector: {error.message}"
                        raise ConnectorUnusable(refused) from error
                    if not error.passing:
                        raise
                pause_s = self._pauses_s[min(attempt, len(self._pauses_s) - 1)]
                reason = error.message if isinstance(error, SpecSemError) else error.strerror
                logger.warning("%s: again in %g s: %s", what, pause_s, reason)
            if self._stopping.wait(pause_s):
                raise _Stopped
            attempt += 1
