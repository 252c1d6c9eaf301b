"""Jobs as routes and workers see them: rows and files together, off the event loop."""

import asyncio
import hashlib
import logging
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from sqlalchemy import Engine as Database
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app.audit import Event, Trail
from app.engines import Engine
from app.folders import ID_PATTERN
from app.jobs.database import DB_THREADS, open_database
from app.jobs.feedback import Counted, Feedback, FeedbackStore, Group, GroupRefused, Said, Waiting
from app.jobs.fetching import Fetched, Fetcher, name_of
from app.jobs.files import JobFiles
from app.jobs.similar import FingerprintStore, Found
from app.jobs.store import AppealStands, Finished, JobStore, KeyTaken, NewJob, Progress
from app.jobs.table import JobRow
from app.observability.telemetry import Telemetry
from app.outbound import Outbound
from app.policy import Decider
from app.problems import Problem
from app.room import Room
from app.schemas import Video
from app.settings import Settings
from app.uploads import Upload, disk_full
from specsem import __version__
from specsem.media import TrustList
from specsem.pipeline import FAST_PATH, Options
from specsem.records import Source, Status
from specsem.result import CalibrationUsed, ScoredFile

if TYPE_CHECKING:
    from specsem.views import Picture

__all__ = ["Jobs", "Order"]

logger = logging.getLogger("specsem.app")

P = ParamSpec("P")
T = TypeVar("T")

ORPHAN_S = 900.0
"""A folder without a row is left alone for so long: its row may be on the way."""
SWEEP_S = 3600.0
TEND_S = 15.0
SILENT_S = 60.0
"""A database that has not been heard of for so long, though asked every `TEND_S`, is away."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a client wants its job."""

    tenant: str
    options: Options = FAST_PATH
    idempotency_key: str | None = None
    surface: str = ""
    """Where the video is to appear; empty: it wasn't said."""
    fresh: bool = False
    """Done anew though the store knows the answer."""
    key: str = ""
    """Public part of the key that asked; for the audit trail."""
    appeal_of: str | None = None
    """The job at whose video this is a second look."""

    def also(self, options: Options) -> "Order":
        """The same, with what these options ask for as well."""
        return replace(self, options=self.options.also(options))

    def on(self, surface: str) -> "Order":
        """The same for this surface, if one is said."""
        return replace(self, surface=surface or self.surface)


@dataclass(frozen=True, slots=True)
class House:
    """How things stand, as of the last look."""

    by_status: dict[Status, int]
    oldest_queued_s: float
    """How long the job that waits longest has waited, in seconds."""
    disk_free_bytes: int


class Jobs:
    """The jobs of all tenants. Its database calls run in threads of their own: where all others write
    uploads to a slow disk, a lease is still renewed."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        telemetry: Telemetry | None = None,
        outbound: Outbound | None = None,
        trust_list: TrustList | None = None,
    ) -> None:
        """``outbound`` is for tests: what addresses are fetched through.

        Raises:
            FileUnusable, PolicyRefused, UnknownPolicy: as ``Decider``.
        """
        self._settings = settings
        self._trust_list = trust_list
        self._engine = engine
        self._telemetry = telemetry or Telemetry()
        self.decider = Decider(settings, engine, self._telemetry)
        self._files = JobFiles(settings.data_dir / "jobs")
        self.room = Room(
            max_bytes=settings.max_stored_bytes,
            max_tenant_bytes=settings.max_tenant_bytes,
            elsewhere=lambda: Counter(self.media_bytes) + Counter(self.views_bytes),
        )
        """What all videos of this process share (stored, arriving, fetched for jobs), and all pictures."""
        self._fetcher = Fetcher(settings, self._files, room=self.room, outbound=outbound)
        self._threads = ThreadPoolExecutor(DB_THREADS, thread_name_prefix="specsem-jobs")
        self._opened: JobStore | None = None
        self._feedback: FeedbackStore
        self._fingerprints: FingerprintStore
        self.trail: Trail
        """The audit trail, once the database is open."""
        self.media_bytes: dict[str, int] = {}
        """Bytes of all media of jobs, by tenant, as this process last heard."""
        self.views_bytes: dict[str, int] = {}
        """The same of the pictures that are kept with answers."""
        self.database: Database
        """Its database, once it is open."""
        self.house = House({}, 0.0, 0)
        self._heard = float("-inf")
        """When the database last answered; never, once a statement found it away."""
        self.working: dict[str, asyncio.Task[None]] = {}
        """What a worker in this process is at, by job."""
        self.stopping = False
        self.news = asyncio.Event()
        """Set when a worker in this process should look again: a new job, or the end."""

    async def open(self) -> None:
        """Open the database and tidy up.

        Raises:
            StoreUnusable: the database can't be used.
        """
        settings = self._settings
        self.database = await self._run(open_database, settings.database_address, settings.data_dir)
        self._opened = JobStore(self.database)
        self._feedback = FeedbackStore(self.database)
        self._fingerprints = FingerprintStore(self.database)
        self.trail = Trail(self.database)
        await self._run(self._files.open)
        await self.sweep()
        await self._look()

    @property
    def database_away(self) -> bool:
        """Whether the database was away when it was last needed."""
        return time.monotonic() - self._heard > SILENT_S

    def stop(self) -> None:
        """Take on nothing more, and let event streams end."""
        self.stopping = True
        self.news.set()

    def hurry(self) -> None:
        """Hand back what a worker in this process is at, finished or not."""
        for task in self.working.values():
            task.cancel()

    async def aclose(self) -> None:
        """Close the database; whoever worked on jobs has ended."""
        self._fetcher.close()
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        if self._opened is not None:
            self._opened.close()

    # -- for clients ----------------------------------------------------------------------------------------

    async def submit_upload(self, upload: Upload, order: Order) -> JobRow:
        """A job for a file that arrived.

        Raises:
            Problem: ``idempotency_key_reused``, ``busy``, ``storage_full``.
        """
        job = self._new(order, upload.name, bytes=upload.bytes, sha256=upload.sha256)
        return await self._submit(job, order, lambda: self._files.move_in(job.id, upload.folder))

    async def submit_video(self, video: Video, path: Path, order: Order) -> JobRow:
        """A job for a stored video, which may be deleted from the store while it waits.

        Raises:
            Problem: as ``submit_upload``; ``video_not_found``, it went meanwhile.
        """
        job = self._new(order, video.filename, bytes=video.bytes, sha256=video.sha256)
        return await self._submit(job, order, lambda: self._files.link_in(job.id, path))

    async def submit_url(self, url: str, order: Order) -> JobRow:
        """A job for what is at an address. Its worker fetches it.

        Raises:
            Problem: ``url_invalid``, ``url_refused``, ``idempotency_key_reused``, ``busy``.
        """
        target = await self._fetcher.admit(url)
        job = self._new(
            order,
            name_of(target),
            url=str(target),
            url_query=target.query,
            url_sha256=hashlib.sha256(target.url.encode()).hexdigest(),
        )
        return await self._submit(job, order, lambda: None)

    async def find(self, tenant: str, job_id: str) -> JobRow:
        """A job.

        Raises:
            Problem: ``job_not_found`` (404): no such id with this tenant, or deleted.
        """
        # What can't be an id never reaches the database: PostgreSQL takes no NUL.
        is_id = ID_PATTERN.fullmatch(job_id) is not None
        found = await self._run(self._store.find, tenant, job_id) if is_id else None
        if found is None:
            raise Problem("job_not_found", "There is no job with this id; it may have been deleted.")
        return found

    async def page(
        self, tenant: str, *, statuses: Sequence[Status], before: tuple[float, str] | None, limit: int
    ) -> list[JobRow]:
        """The latest jobs first; ``before`` is (created_at, id) of the last one seen."""
        return await self._run(self._store.page, tenant, statuses=statuses, before=before, limit=limit)

    async def delete(self, tenant: str, job_id: str, *, key: str = "") -> None:
        """Remove a job with its answer and its media; one under way is cancelled.

        Raises:
            Problem: ``job_not_found`` (404).
        """
        await self.find(tenant, job_id)
        await self._run(self._delete, tenant, job_id, key)
        if job_id in self.working:
            self.working[job_id].cancel()

    def _delete(self, tenant: str, job_id: str, key: str) -> None:
        self._store.remove(tenant, job_id, key=key)
        self._files.remove(job_id)
        self._files.remove_views(job_id)
        # At once: it may have been deleted to make room.
        self.media_bytes, self.views_bytes = self._store.media_bytes(), self._store.views_bytes()

    async def view(self, job: JobRow, name: str) -> bytes | None:
        """The PNG of one of a job's views; None where it has none of this name."""
        return await asyncio.to_thread(self._files.view, job.id, name)

    async def note(self, *events: Event) -> None:
        """Write to the audit trail what comes with no statement of its own. Raises ``SQLAlchemyError``."""
        await self._run(self.trail.note, *events)

    def made_by(self, calibration: CalibrationUsed | None = None) -> str | None:
        """What an answer of this process stands on; None before the model is loaded. ``calibration``: the
        answer's own; another may be active since."""
        if not self._engine.ready:
            return None
        record = self._engine.record
        calibration = calibration or self._engine.calibration.used
        trusted = self._trust_list
        parts = (record.name, record.version, record.sha256, self.decider.active.operating_point, __version__)
        return " ".join(
            [
                *parts,
                f"calibration {calibration.version} {calibration.sha256[:12]}",
                f"{trusted} {trusted.sha256}" if trusted else "nobody trusted",
            ]
        )

    # -- second looks ---------------------------------------------------------------------------------------

    async def appeal(self, tenant: str, job_id: str) -> JobRow | None:
        """The second look at a job's video, under way or done; None where there was none, or it failed."""
        return await self._run(self._store.appeal, tenant, job_id)

    def second_look(self, first: JobRow, *, key: str) -> Order:
        """What a second look at a job's video asks for: all of the time line, or, where that was done by the
        same model and calibration, how it bears re-shipping too.

        Raises:
            Problem: ``job_not_done`` or ``appeal_refused`` (409); ``not_ready`` (503).
        """
        self._engine.check_ready()
        if first.appeal_of is not None:
            raise Problem("appeal_refused", "This job is a second look itself; from here on, people decide.")
        if first.status_now != "done":
            raise Problem("job_not_done", "This job has no answer that anybody could appeal against.")
        options = first.options.also(Options(thorough=True))
        if options == first.options and first.made_by == self.made_by():
            options = options.also(Options(stability=True))
            if options == first.options:
                raise Problem(
                    "appeal_refused",
                    "The same model has looked at all of it, and at its deliveries: a second look would say "
                    "the same.",
                )
        return Order(first.tenant, options, surface=first.surface, fresh=True, key=key, appeal_of=first.id)

    async def submit_kept(self, first: JobRow, order: Order) -> JobRow:
        """A job for the file that another kept.

        Raises:
            Problem: ``media_gone`` (409): it didn't; else as ``submit_upload``.
        """
        gone = Problem(
            "media_gone", "The file of this job is not kept: send it again, or name a stored video of it."
        )
        if not first.keep_media:
            raise gone
        job = self._new(order, first.filename, bytes=first.bytes, sha256=first.sha256)
        try:
            return await self._submit(
                job, order, lambda: self._files.link_in(job.id, self._files.path(first.id))
            )
        except Problem as problem:
            raise gone if problem.code == "video_not_found" else problem from problem

    async def similar(self, tenant: str, job_id: str, *, limit: int) -> tuple[bytes, Found]:
        """The hashes of a job's video, none where they aren't known, and the tenant's jobs that look like it.

        Raises:
            Problem: ``job_not_found`` (404); ``job_not_done`` (409), nobody has looked at it yet.
        """
        job = await self.find(tenant, job_id)
        asked = await self._run(self._fingerprints.fingerprint, tenant, job_id)
        if asked is None:
            if job.status_now != "done":
                raise Problem("job_not_done", "This job has no answer: what it looks like isn't known.")
            return b"", Found()
        most = self._settings.similar_max_jobs
        return asked.hashes, await self._run(self._fingerprints.similar, asked, most=most, limit=limit)

    # -- what people say of answers -------------------------------------------------------------------------

    async def say(self, tenant: str, job_id: str, said: Said) -> None:
        """Take what somebody says of an answer, in place of what the same one said before.

        Raises:
            Problem: ``job_not_found`` (404); ``job_not_done`` (409), there is no answer to speak of.
        """
        await self.find(tenant, job_id)
        if not await self._run(self._feedback.add, tenant, job_id, said):
            raise Problem("job_not_done", "This job has no answer that anybody could speak of.")

    async def unsay(self, tenant: str, job_id: str, *, source: Source, actor: str) -> None:
        """Withdraw it.

        Raises:
            Problem: ``job_not_found``, ``feedback_not_found`` (404).
        """
        await self.find(tenant, job_id)
        if not await self._run(self._feedback.end, tenant, job_id, source=source, actor=actor):
            raise Problem("feedback_not_found", "You said nothing of this job, or it was withdrawn.")

    async def feedback(self, tenant: str, job_id: str) -> list[Feedback]:
        """What counts of what was said of a job, the latest first."""
        return await self._run(self._feedback.current, tenant, job_id)

    async def waiting(
        self, tenant: str, *, after: tuple[int, float, str] | None, limit: int
    ) -> tuple[list[Waiting], int]:
        """Answers that wait for an operator, the most urgent first, and how many wait in all. ``after`` is
        the place of the last one seen."""
        return await self._run(self._feedback.waiting, tenant, after=after, limit=limit)

    async def count(self, tenant: str, counted: Counted) -> Group:
        """Take of how many answers something holds.

        Raises:
            Problem: ``job_not_found``, ``job_not_done``, ``invalid_request``.
        """
        try:
            return await self._run(self._feedback.add_group, tenant, counted)
        except GroupRefused as refused:
            raise Problem(refused.code, refused.detail) from None

    async def groups(self, tenant: str, *, before: int | None, limit: int) -> list[Group]:
        """The latest counts first; ``before`` is the id of the last one seen."""
        return await self._run(self._feedback.groups, tenant, before=before, limit=limit)

    async def uncount(self, tenant: str, group_id: int, *, actor: str) -> None:
        """Forget a count. Raises ``Problem`` ``feedback_not_found`` (404)."""
        if not await self._run(self._feedback.remove_group, tenant, group_id, actor=actor):
            raise Problem("feedback_not_found", "There is no count with this id.")

    # -- for workers ----------------------------------------------------------------------------------------

    def path(self, job: JobRow) -> Path:
        """Where a job's file is."""
        return self._files.path(job.id)

    async def claim(self) -> JobRow | None:
        """The next job under a lease of the caller's. Raises ``SQLAlchemyError``."""
        settings = self._settings
        return await self._run(
            self._store.claim, lease_s=settings.job_lease_s, max_attempts=settings.job_max_attempts
        )

    async def renew(self, job: JobRow, progress: Progress) -> bool:
        """Hold on to it. False: it is no longer the caller's. Raises ``SQLAlchemyError``."""
        return await self._run(self._store.renew, job, progress, lease_s=self._settings.job_lease_s)

    async def fetch(self, job: JobRow, tell: Callable[[str, float], None]) -> Fetched | None:
        """Bring in the file of a job that was submitted by its address. None: it is no longer the caller's.

        Raises:
            Problem: as ``Fetcher.fetch``.
            SQLAlchemyError: the database is away.
        """
        assert job.url is not None  # noqa: S101 - a job without a file has an address
        url = job.url if job.url_query is None else f"{job.url}?{job.url_query}"
        fetched = await self._fetcher.fetch(job.id, url, tell, tenant=job.tenant)
        noted = await self._run(self._store.note_media, job, size=fetched.bytes, sha256=fetched.sha256)
        return fetched if noted else None

    async def answer_known(self, job: JobRow, sha256: str) -> Finished | None:
        """What the store knows of a file that was fetched for a job. Raises ``SQLAlchemyError``."""
        made_by = None if job.fresh else self.made_by()
        if made_by is None:
            return None
        return await self._run(self._known_answer, job, sha256, made_by)

    async def known_answer(self, order: Order, sha256: str, filename: str) -> ScoredFile | None:
        """What an earlier job answered for these bytes, if it stands for what is asked now; undecided.

        None where the client wants it fresh, where it asks for evidence, whose pictures are another job's,
        and while the database is away: whoever waits for an answer can have one without it.
        """
        made_by = None if order.fresh or order.options.evidence else self.made_by()
        if made_by is None:
            return None
        try:
            known = await self._run(
                self._store.find_alike, order.tenant, sha256, options=order.options, made_by=made_by
            )
        except SQLAlchemyError as error:
            logger.warning("what is known of a file can't be read (%s)", type(error).__name__)
            return None
        return _answer_as(known, filename)

    def decided(self, job: NewJob | JobRow, answer: ScoredFile) -> ScoredFile:
        """A job's answer with what the policy makes of it now, whatever an earlier one made of it."""
        return self.decider.decide(answer, tenant=job.tenant, surface=job.surface)

    async def keep_views(self, job: JobRow, pictures: "Sequence[Picture]") -> None:
        """Keep the pictures of a job, before its answer names them. Raises ``OSError``."""
        await asyncio.to_thread(self._files.write_views, job.id, {p.view.name: p.png for p in pictures})

    async def finish(self, job: JobRow, finished: Finished) -> bool:
        """End it, then let its media go. False: it is no longer the caller's. Raises ``SQLAlchemyError``."""
        return await self._run(self._finish, job, finished)

    def _finish(self, job: JobRow, finished: Finished) -> bool:
        # In one go: a caller that is cancelled in between would leave the media to the janitor.
        finished = replace(finished, views_bytes=self._files.views_bytes(job.id))
        if not self._store.finish(job, finished, ttl_s=self._settings.job_ttl_s):
            return False
        if not job.keep_media:
            self._files.remove(job.id)
        return True

    async def hand_back(self, job: JobRow, *, after_s: float = 0.0, counts: bool = False) -> bool:
        """Let others have it. Raises ``SQLAlchemyError``."""
        return await self._run(self._store.hand_back, job, after_s=after_s, counts=counts)

    async def give_up(self) -> None:
        """Fail what has ended its worker too often. Raises ``SQLAlchemyError``."""
        settings = self._settings
        for job_id in await self._run(
            self._store.give_up, max_attempts=settings.job_max_attempts, ttl_s=settings.job_ttl_s
        ):
            logger.error("job %s was given up after %d attempts", job_id, settings.job_max_attempts)
            self._telemetry.metrics.jobs_given_up.inc()
            await self._run(self._files.remove, job_id)

    # -- the janitor ----------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """Sweep every hour, and look and give up in between, for as long as it is let."""
        swept = time.monotonic()
        while True:
            await asyncio.sleep(min(TEND_S, self._settings.job_lease_s))
            try:
                await self.give_up()
                await self._look()
                if time.monotonic() - swept > SWEEP_S:
                    await self.sweep()
                    swept = time.monotonic()
            except (SQLAlchemyError, OSError):
                logger.exception("the jobs could not be swept")

    async def _look(self) -> None:
        self.house, self.media_bytes, self.views_bytes = await self._run(self._survey)
        self._heard = time.monotonic()

    def _survey(self) -> tuple[House, dict[str, int], dict[str, int]]:
        store, disk = self._store, shutil.disk_usage(self._settings.data_dir)
        census = store.census()
        house = House(census.by_status, census.oldest_queued_s, disk.free)
        return house, store.media_bytes(), store.views_bytes()

    async def sweep(self) -> None:
        """Expire what is over, and remove media that nobody needs."""
        await self._run(self._sweep)

    def _sweep(self) -> None:
        settings, store = self._settings, self._store
        # A row that expired stays as long again: its client reads "expired", and not "no such job".
        store.purge(after_s=settings.job_ttl_s)
        store.expire(queue_ttl_s=settings.job_ttl_s)
        present = list(self._files.older_than(ORPHAN_S))
        for first in range(0, len(present), 500):
            ids = present[first : first + 500]
            for job_id in set(ids) - store.in_need_of_media(ids):
                self._files.remove(job_id)
        with_views = list(self._files.views_older_than(ORPHAN_S))
        for first in range(0, len(with_views), 500):
            ids = with_views[first : first + 500]
            for job_id in set(ids) - store.with_answer(ids):
                self._files.remove_views(job_id)

    # -- how ------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> JobStore:
        if self._opened is None:
            raise TypeError("the jobs were not opened")
        return self._opened

    async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: call(*args, **kwargs)
            )
        except OperationalError:
            self._heard = float("-inf")
            raise

    def _new(
        self,
        order: Order,
        filename: str,
        *,
        bytes: int | None = None,  # noqa: A002 - as the row has it
        sha256: str | None = None,
        url: str | None = None,
        url_query: str | None = None,
        url_sha256: str | None = None,
    ) -> NewJob:
        return NewJob(
            id=secrets.token_hex(16),
            tenant=order.tenant,
            filename=filename,
            bytes=bytes,
            sha256=sha256,
            options=order.options,
            keep_media=self._settings.keep_media,
            surface=order.surface,
            idempotency_key=order.idempotency_key,
            url=url,
            url_query=url_query,
            url_sha256=url_sha256,
            fresh=order.fresh,
            key=order.key,
            appeal_of=order.appeal_of,
        )

    async def _submit(self, job: NewJob, order: Order, bring_in: Callable[[], None]) -> JobRow:
        made_by = None if order.fresh or job.sha256 is None else self.made_by()
        adding = asyncio.ensure_future(self._add(job, made_by, bring_in))
        try:
            row = await asyncio.shield(adding)
        except asyncio.CancelledError:
            # Who leaves now may ask again by the key. The upload's folder goes next: not while it is moved.
            await asyncio.gather(adding, return_exceptions=True)
            raise
        except KeyTaken:
            return await self._same_request(job)
        except AppealStands as stands:
            return stands.job
        except FileNotFoundError as error:
            raise Problem("video_not_found", "The video was deleted before the job was there.") from error
        except OSError as error:
            raise disk_full() from error
        self.news.set()
        return row

    async def _add(self, job: NewJob, made_by: str | None, bring_in: Callable[[], None]) -> JobRow:
        """File first, then row: a row never waits for a file that is not there."""
        answered = await self._run(self._answer_or_refuse, job, made_by)
        if answered is not None:
            return answered
        await asyncio.to_thread(bring_in)  # not in our threads: gigabytes take their time to reach the disk
        return await self._run(self._insert, job)

    def _answer_or_refuse(self, job: NewJob, made_by: str | None) -> JobRow | None:
        store, settings = self._store, self._settings
        if job.idempotency_key and store.find_by_key(job.tenant, job.idempotency_key):
            raise KeyTaken
        if made_by and job.sha256 and (answer := self._known_answer(job, job.sha256, made_by)):
            return store.add(job, finished=answer, ttl_s=settings.job_ttl_s)
        if store.queued() >= settings.max_queued_jobs:
            raise Problem("busy", "Too many jobs wait; try again later.", headers={"Retry-After": "30"})
        return None

    def _insert(self, job: NewJob) -> JobRow:
        try:
            row = self._store.add(job)
        except (KeyTaken, AppealStands):  # by a request at the same moment
            self._files.remove(job.id)
            raise
        # Any other error leaves the file to the janitor: the row may be there though its commit went unheard.
        self.media_bytes = self._store.media_bytes()
        return row

    def _known_answer(self, job: NewJob | JobRow, sha256: str, made_by: str) -> Finished | None:
        known = self._store.find_alike(job.tenant, sha256, options=job.options, made_by=made_by)
        answer = _answer_as(known, job.filename)
        if known is None or answer is None:
            return None
        try:
            self._files.share_views(known.id, job.id)
        except OSError:  # it expired meanwhile, say: then it is made anew
            return None
        looks = self._fingerprints.fingerprint(known.tenant, known.id)
        finished = Finished.of(
            self.decided(job, answer),
            made_by=made_by,
            from_store=True,
            fingerprint=looks.hashes if looks else b"",
        )
        return replace(finished, views_bytes=self._files.views_bytes(job.id))

    async def _same_request(self, job: NewJob) -> JobRow:
        assert job.idempotency_key is not None  # noqa: S101 - no key can't be taken
        first = await self._run(self._store.find_by_key, job.tenant, job.idempotency_key)
        if first is None:  # deleted in between
            raise Problem("busy", "The job of this Idempotency-Key was just deleted; try again.")
        if _request(first) != _request(job):
            raise Problem(
                "idempotency_key_reused",
                "This Idempotency-Key was used for another file, other options or another surface.",
            )
        return first


def _answer_as(known: JobRow | None, filename: str) -> ScoredFile | None:
    """What an earlier job answered, for a file of another name; None where it has no answer."""
    if known is None or known.result is None:
        return None
    return ScoredFile.model_validate_json(known.result).model_copy(update={"path": filename})


def _request(job: JobRow | NewJob) -> tuple[str | None, Options, str]:
    """What makes two requests the same."""
    return job.url_sha256 or job.sha256, job.options, job.surface
