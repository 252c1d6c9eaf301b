"""The batcher: pull, when the model becomes free, what has come in meanwhile.

With zero wait by default a lone request runs at once and batches grow by themselves under load. Sealing
batches on a timer while the model is busy only lets the queue grow.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.problems import Problem

__all__ = ["Batcher", "Liveness"]

logger = logging.getLogger("specsem.app")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Liveness:
    """How a batcher is."""

    alive: bool
    """Its task runs."""
    queued: int
    """Items that wait."""
    oldest_wait_s: float
    """How long the first in line has waited, in seconds."""
    forward_s: float
    """How long the forward under way has taken so far, in seconds; 0 where none is."""


@dataclass(slots=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"
    since: float


class Batcher(Generic[Item, Result]):
    """Runs ``run(items) -> results`` in one thread. An awaiting caller that is cancelled leaves the queue."""

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], *, max_batch: int) -> None:
        self._run = run
        self._max_batch = max_batch
        self._queue: deque[_Job[Item, Result]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="specsem-model")
        self._task: asyncio.Task[None] | None = None
        self._forward_since: float | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to work. Call inside the event loop."""
        self._task = asyncio.create_task(self._supervise(), name="batcher")

    async def submit(self, item: Item) -> Result:
        """The result for one item, after its turn.

        Raises:
            Problem: ``not_ready``, the service is stopping.
            Exception: what ``run`` raised for this item when it ran alone.
        """
        if self._closed:
            raise _stopping()
        job: _Job[Item, Result] = _Job(item, asyncio.get_running_loop().create_future(), time.monotonic())
        self._queue.append(job)
        self._wake.set()
        try:
            return await job.future
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # taken already
                self._queue.remove(job)  # its pixels go at once, however long the forward under way takes
            raise

    def liveness(self) -> Liveness:
        """How the batcher is, without touching it."""
        now = time.monotonic()
        return Liveness(
            alive=self._task is not None and not self._task.done(),
            queued=len(self._queue),
            oldest_wait_s=now - self._queue[0].since if self._queue else 0.0,
            forward_s=0.0 if self._forward_since is None else now - self._forward_since,
        )

    async def aclose(self) -> None:
        """Stop: what waits is told so, a forward under way ends first."""
        self._closed = True
        for job in self._queue:
            if not job.future.done():
                job.future.set_exception(_stopping())
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _supervise(self) -> None:
        while True:
            try:
                await self._work()
            except Exception:
                logger.exception("the batcher stumbled and goes on")

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._take()
            if batch:
                await self._forward(batch)
            else:
                self._wake.clear()

    def _take(self) -> list[_Job[Item, Result]]:
        batch: list[_Job[Item, Result]] = []
        while self._queue and len(batch) < self._max_batch:
            job = self._queue.popleft()
            if not job.future.done():  # done here means cancelled: its client left
                batch.append(job)
        return batch

    async def _forward(self, batch: list[_Job[Item, Result]]) -> None:
        try:
            await self._forward_or_split(batch)
        except asyncio.CancelledError:  # aclose
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(_stopping())
            raise

    async def _forward_or_split(self, batch: list[_Job[Item, Result]]) -> None:
        items = [job.item for job in batch]
        self._forward_since = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results for {len(items)} items")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this item's, and the next ones go on
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
            return
        finally:
            self._forward_since = None
        for job, result in zip(batch, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)


def _stopping() -> Problem:
    return Problem("not_ready", "The service is stopping.")
