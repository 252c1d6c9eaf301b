"""The worker: claims jobs, holds on to them while they are scored, and lets go in every way there is."""

import asyncio
import contextlib
import logging
import time
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from app.engines import Engine
from app.jobs.service import Jobs
from app.jobs.store import Finished, Progress
from app.jobs.table import JobRow
from app.observability.logs import on_every_line
from app.observability.metrics import Outcome
from app.observability.telemetry import Telemetry
from app.problems import Problem
from app.scoring import Scoring
from app.settings import Settings
from specsem.errors import Cancelled, MediaError

__all__ = ["Worker"]

logger = logging.getLogger("specsem.app")

POLL_S = 1.0
AWAY_PAUSE_S = 5.0
BEAT_S = 2.0
NOT_READY_PAUSE_S = 5.0
RETRY_PAUSE_S = 2.0
"""After a first failure of ours."""
FETCH_PAUSE_S = 10.0
"""After a first failure of another server, or where the store is full."""
FETCH_SHARE = 0.5
"""Of the work on a job, about: which takes longer, to fetch or to score, depends on line and file."""
SETTLE_PAUSES_S = (0.2, 1.0, 5.0)
ETA_FROM = 0.02
"""A guess from less of the work than this would only mislead."""
PASSING = frozenset({"fetch_failed", "storage_full"})
"""Codes of what may go better another time."""
OUR_FAULT = Finished(
    error_code="internal_error", error_message="The job failed on our side, again and again."
)


class _HandBack(Exception):
    """This worker can't do the job now: that is not the job's fault."""


class _Retry(Exception):
    """Something went wrong that may go better another time; ``finished`` is the end where none is left."""

    def __init__(self, finished: Finished, pause_s: float) -> None:
        super().__init__()
        self.finished = finished
        self.pause_s = pause_s
        """Before the second attempt; doubled before each further one."""


class _Watch:
    """How far a job is, as its scoring says; read at each beat."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._stage, self._fraction = "starting", 0.0
        self._first, self._last = 0.0, 1.0

    def tell(self, stage: str, fraction: float) -> None:
        """For ``Scoring``, from any thread."""
        self._stage, self._fraction = stage, self._first + fraction * (self._last - self._first)

    def span(self, first: float, last: float) -> None:
        """What is told from now on is of the work between these two fractions of all."""
        self._first, self._last = first, last

    def progress(self) -> Progress:
        """With the time left, as the time so far lets expect."""
        fraction = self._fraction
        eta_s = None
        if fraction >= ETA_FROM:
            eta_s = round((time.monotonic() - self._begun) * (1 - fraction) / fraction, 1)
        return Progress(self._stage, round(fraction, 4), eta_s)


class Worker:
    """Works on up to ``slots`` jobs at a time until ``jobs.stop`` is called."""

    def __init__(
        self,
        jobs: Jobs,
        scoring: Scoring,
        engine: Engine,
        settings: Settings,
        *,
        slots: int,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._jobs = jobs
        self._scoring = scoring
        self._engine = engine
        self._settings = settings
        self._slots = slots
        self._telemetry = telemetry or Telemetry()

    async def run(self) -> None:
        """Work. At the stop, jobs under way get ``shutdown_grace_s`` to finish; the rest is handed back."""
        jobs = self._jobs
        while not jobs.stopping:
            pause_s = POLL_S
            jobs.news.clear()
            try:
                while not jobs.stopping and len(jobs.working) < self._slots and await self._start_one():
                    pass
            except Exception:  # the database is away, say: leases are kept meanwhile, and it may come back
                logger.exception("no job could be claimed")
                pause_s = AWAY_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):  # other processes submit too, and hand back
                    await jobs.news.wait()
        under_way = list(jobs.working.values())
        if under_way:
            await asyncio.wait(under_way, timeout=self._settings.shutdown_grace_s)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _start_one(self) -> bool:
        """Whether there was a job to start."""
        if not self._engine.ready:
            return False
        job = await self._jobs.claim()
        if job is None:
            return False
        task = asyncio.create_task(self._attempt(job), name=f"job {job.id}")
        self._jobs.working[job.id] = task
        task.add_done_callback(lambda task: self._ended(job, task))
        return True

    def _ended(self, job: JobRow, task: "asyncio.Task[None]") -> None:
        # After a lost lease the same job may have been claimed here again: then the entry is that one's.
        if self._jobs.working.get(job.id) is task:
            del self._jobs.working[job.id]
        self._jobs.news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("job %s: its lease runs out", job.id, exc_info=error)

    async def _attempt(self, job: JobRow) -> None:
        with on_every_line(job_id=job.id), self._telemetry.job(job.id, job.attempts):
            await self._work(job)

    async def _work(self, job: JobRow) -> None:
        """One attempt. Cancelled when the service stops or the job is deleted here."""
        watch = _Watch()
        scoring = asyncio.create_task(self._score(job, watch))
        holding = asyncio.create_task(self._hold(job, watch))
        try:
            await asyncio.wait({scoring, holding}, return_when=asyncio.FIRST_COMPLETED)
            if scoring.done():
                await self._settle(job, scoring)
            else:
                logger.warning("the job was deleted or is another worker's now")
                self._tell(job, "lost")
        except asyncio.CancelledError:
            scoring.cancel()
            await asyncio.gather(scoring, return_exceptions=True)
            with contextlib.suppress(SQLAlchemyError):  # its lease runs out, then
                await self._hand_back(job)
            raise
        finally:
            for task in (scoring, holding):
                task.cancel()
            await asyncio.gather(scoring, holding, return_exceptions=True)

    async def _score(self, job: JobRow, watch: _Watch) -> Finished:
        try:
            sha256 = job.sha256
            if sha256 is None:
                sha256 = await self._fetch(job, watch)
                if known := await self._jobs.answer_known(job, sha256):
                    return known
            looks = [b""]
            answer = await self._scoring.score(
                self._jobs.path(job),
                name=job.filename,
                sha256=sha256,
                options=job.options,
                timeout_s=self._settings.job_timeout_s,
                lane="bulk",
                on_progress=watch.tell,
                on_pictures=partial(self._jobs.keep_views, job),
                on_fingerprint=looks.append,
            )
        except MediaError as error:
            return Finished(error_code=error.code, error_message=error.message)
        except Cancelled as error:  # the decoders were closed
            raise _HandBack from error
        except Problem as problem:
            if problem.code == "not_ready":
                raise _HandBack from problem
            finished = Finished(error_code=problem.code, error_message=problem.detail)
            if problem.code in PASSING:
                logger.warning("attempt %d failed: %s", job.attempts, problem.detail)
                raise _Retry(finished, FETCH_PAUSE_S) from problem
            return finished
        except _HandBack:
            raise
        except Exception as error:
            logger.exception("attempt %d failed", job.attempts)
            raise _Retry(OUR_FAULT, RETRY_PAUSE_S) from error
        made_by = self._jobs.made_by(answer.calibration)
        return Finished.of(self._jobs.decided(job, answer), made_by=made_by, fingerprint=looks[-1])

    async def _fetch(self, job: JobRow, watch: _Watch) -> str:
        """Bring in the file of a job that was submitted by its address. Its sha256."""
        watch.span(0.0, FETCH_SHARE)
        begun = time.monotonic()
        fetched = await self._jobs.fetch(job, watch.tell)
        if fetched is None:
            raise _HandBack
        self._telemetry.stage("fetch", begun, lane="bulk")
        watch.span(FETCH_SHARE, 1.0)
        logger.info("fetched %d bytes", fetched.bytes)
        return fetched.sha256

    async def _hold(self, job: JobRow, watch: _Watch) -> None:
        """Renew the lease, beat after beat; ends when it is lost, or may be because the database is away."""
        lease_s = self._settings.job_lease_s
        held_until = time.monotonic() + lease_s
        while True:
            await asyncio.sleep(min(BEAT_S, lease_s / 4))
            asked = time.monotonic()
            try:
                if not await self._jobs.renew(job, watch.progress()):
                    return
                held_until = asked + lease_s
            except SQLAlchemyError as error:
                logger.warning("the lease could not be renewed (%s)", type(error).__name__)
                if time.monotonic() > held_until:
                    return

    async def _settle(self, job: JobRow, scoring: "asyncio.Task[Finished]") -> None:
        """Write down how the attempt ended, again where the database is away for a moment."""
        for pause_s in (*SETTLE_PAUSES_S, None):
            try:
                await self._write_down(job, scoring)
            except SQLAlchemyError:
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                return

    async def _write_down(self, job: JobRow, scoring: "asyncio.Task[Finished]") -> None:
        try:
            finished = scoring.result()
        except _HandBack:
            await self._hand_back(job, after_s=0.0 if self._jobs.stopping else NOT_READY_PAUSE_S)
            return
        except _Retry as retry:
            if job.attempts < self._settings.job_max_attempts:
                pause_s = retry.pause_s * 2 ** (job.attempts - 1)
                await self._hand_back(job, after_s=pause_s, counts=True)
                return
            finished = retry.finished
        held = await self._jobs.finish(job, finished)
        if not held:
            logger.warning("the job was finished elsewhere or deleted; this answer is dropped")
        outcome: Outcome = "lost" if not held else "failed" if finished.result is None else "done"
        self._tell(job, outcome)

    async def _hand_back(self, job: JobRow, *, after_s: float = 0.0, counts: bool = False) -> None:
        held = await self._jobs.hand_back(job, after_s=after_s, counts=counts)
        self._tell(job, "lost" if not held else "retried" if counts else "handed_back")

    def _tell(self, job: JobRow, outcome: Outcome) -> None:
        self._telemetry.metrics.attempt(outcome)
        logger.info("attempt %d: %s", job.attempts, outcome)
