"""The batcher: pull, when the model becomes free, what has come in meanwhile.

With zero wait by default a lone request runs at once and batches grow by themselves under load. Sealing
batches on a timer while the model is busy only lets the queue grow.

There are two lanes: somebody waits for what is ``interactive``; ``bulk`` takes what is left, and one place in
four while both have work, so that it never starves.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from app.observability.metrics import Release
from app.observability.telemetry import Telemetry
from app.problems import Problem, stopping
from specsem.errors import DeviceLost

__all__ = ["Batcher", "Lane", "Liveness", "Waiting"]

logger = logging.getLogger("specsem.app")

Item = TypeVar("Item")
Result = TypeVar("Result")
Lane = Literal["interactive", "bulk"]

BULK_EVERY = 4
"""Where both lanes have work, every fourth place is of bulk."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in a lane."""

    clips: int = 0
    oldest_s: float = 0.0
    """How long the first in line has waited, in seconds."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """How a batcher is."""

    alive: bool = True
    """Its task runs."""
    forward_s: float = 0.0
    """How long the forward under way has taken so far, in seconds; 0 where none is."""
    lanes: Mapping[Lane, Waiting] = field(
        default_factory=lambda: {"interactive": Waiting(), "bulk": Waiting()}
    )

    @property
    def queued(self) -> int:
        """Items that wait."""
        return sum(lane.clips for lane in self.lanes.values())

    @property
    def oldest_wait_s(self) -> float:
        """How long the first in line has waited, in seconds."""
        return max(lane.oldest_s for lane in self.lanes.values())


@dataclass(slots=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    lane: Lane
    future: "asyncio.Future[Result]"
    since: float
    deadline: float
    """On the clock of ``since``."""
    begun: float = 0.0
    """When it was taken into a batch, on the same clock."""


class Batcher(Generic[Item, Result]):
    """Runs ``run(items) -> results`` in threads. An awaiting caller that is cancelled leaves the queue.

    ``in_flight``: batches that run at a time. Two keep a GPU busy: one is copied while the other is computed.
    ``shape``: items of one batch share it.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        in_flight: int = 1,
        shape: Callable[[Item], Hashable] = lambda _item: None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._run = run
        self._telemetry = telemetry or Telemetry()
        self._max_batch = max_batch
        self._shape = shape
        self._lanes: dict[Lane, deque[_Job[Item, Result]]] = {"interactive": deque(), "bulk": deque()}
        self._since_bulk = 0
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(in_flight)
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="specsem-model")
        self._task: asyncio.Task[None] | None = None
        self._batches: set[asyncio.Task[None]] = set()
        self._forwards: list[float] = []
        """When each forward under way began."""
        self._closed = False
        self._lost: asyncio.Future[DeviceLost] | None = None

    def start(self) -> None:
        """Begin to work. Call inside the event loop."""
        self._lost = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(), name="batcher")

    async def submit(
        self, item: Item, *, lane: Lane = "interactive", deadline_s: float | None = None
    ) -> Result:
        """The result for one item, after its turn.

        ``deadline_s``: not begun within so many seconds, it is not begun at all.

        Raises:
            Problem: ``not_ready``, the service is stopping; ``deadline_exceeded``.
            Exception: what ``run`` raised for this item when it ran alone.
        """
        if self._closed:
            raise stopping()
        now = time.monotonic()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        job = _Job(item, lane, future, now, now + (float("inf") if deadline_s is None else deadline_s))
        self._lanes[lane].append(job)
        self._wake.set()
        try:
            result = await future
        except asyncio.CancelledError:
            # Its pixels go at once, however long the forward under way takes.
            with contextlib.suppress(ValueError):  # taken already
                self._lanes[lane].remove(job)
            raise
        # Here, and not where it ran: spans belong to the caller's context.
        self._telemetry.stage("queue", job.since, job.begun, lane=lane)
        self._telemetry.stage("forward", job.begun, lane=lane)
        return result

    async def device_lost(self) -> DeviceLost:
        """Waits for the error after which this process can't compute any more. Most never see one."""
        assert self._lost is not None  # noqa: S101 - start made it
        return await asyncio.shield(self._lost)

    def liveness(self) -> Liveness:
        """How the batcher is, without touching it."""
        now = time.monotonic()
        return Liveness(
            alive=self._task is not None and not self._task.done(),
            forward_s=now - min(self._forwards, default=now),
            lanes={
                name: Waiting(len(lane), now - lane[0].since if lane else 0.0)
                for name, lane in self._lanes.items()
            },
        )

    async def aclose(self) -> None:
        """Stop: what waits is told so, forwards under way end first."""
        self._closed = True
        self._tell_waiting()
        tasks = [task for task in (self._task, *self._batches) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def _supervise(self) -> None:
        while True:
            try:
                await self._work()
            except Exception:
                logger.exception("the batcher stumbled and goes on")

    async def _work(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                batch = await self._next()
                task = asyncio.create_task(self._forward(batch), name="batch")
            except BaseException:
                self._slots.release()
                raise
            self._batches.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._slots.release()

    async def _next(self) -> list[_Job[Item, Result]]:
        """What runs next, as soon as there is anything."""
        while True:
            await self._wake.wait()
            if batch := self._take():
                return batch
            self._wake.clear()

    def _take(self) -> list[_Job[Item, Result]]:
        batch: list[_Job[Item, Result]] = []
        now = time.monotonic()
        released: Release = "full"
        while len(batch) < self._max_batch:
            lane = self._turn()
            if lane is None:
                released = "queue_empty"
                break
            job = lane[0]
            if job.future.done():  # cancelled: its client left
                lane.popleft()
            elif job.deadline < now:
                lane.popleft()
                job.future.set_exception(Problem("deadline_exceeded", "The model was busy for too long."))
            elif batch and self._shape(job.item) != self._shape(batch[0].item):
                released = "shape"  # it begins the next batch
                break
            else:
                lane.popleft()
                job.begun = now
                batch.append(job)
                self._since_bulk = 0 if job.lane == "bulk" else self._since_bulk + 1
        if batch:
            self._telemetry.metrics.batch(len(batch), released)
        return batch

    def _turn(self) -> deque[_Job[Item, Result]] | None:
        """The lane whose turn it is; None where nobody waits."""
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        if interactive and bulk:
            return bulk if self._since_bulk >= BULK_EVERY - 1 else interactive
        return interactive or bulk or None

    async def _forward(self, batch: list[_Job[Item, Result]]) -> None:
        try:
            await self._forward_or_split(batch)
        except DeviceLost as error:  # nothing that this process computes there succeeds any more
            self._closed = True
            _tell_stopping(batch)
            self._tell_waiting()
            if self._lost is not None and not self._lost.done():
                self._lost.set_result(error)
        except asyncio.CancelledError:  # aclose
            _tell_stopping(batch)
            raise

    async def _forward_or_split(self, batch: list[_Job[Item, Result]]) -> None:
        try:
            results = await self._compute([job.item for job in batch])
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this item's, and the next ones go on
            self._telemetry.metrics.batch_failures.inc()
            if len(batch) == 1:
                if not batch[0].future.done():
                    batch[0].future.set_exception(error)
                return
            logger.warning(
                "a batch of %d failed (%s); once more, one by one", len(batch), type(error).__name__
            )
            for job in batch:
                if not job.future.done():
                    await self._forward_or_split([job])
        else:
            for job, result in zip(batch, results, strict=True):
                if not job.future.done():
                    job.future.set_result(result)

    async def _compute(self, items: list[Item]) -> Sequence[Result]:
        begun = time.monotonic()
        self._forwards.append(begun)
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, items)
        finally:
            self._forwards.remove(begun)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results

    def _tell_waiting(self) -> None:
        for lane in self._lanes.values():
            _tell_stopping(lane)
            lane.clear()


def _tell_stopping(jobs: Iterable[_Job[Item, Result]]) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(stopping())
