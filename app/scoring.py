"""From a file on disk to an answer: decode in threads that wait for the decoder's processes, then score."""

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from app.batching import Lane
from app.engines import Engine
from app.observability.metrics import Stage
from app.observability.telemetry import Telemetry
from app.problems import Problem
from specsem.errors import MediaError
from specsem.explain import pictures_of, stability_of
from specsem.fingerprint import Fingerprinter
from specsem.media import DELIVERIES, Clip, Delivery, MediaInfo, SamplePlan, Window
from specsem.pipeline import FAST_PATH, SCAN_BATCH, Options, StopWatch, assemble
from specsem.result import ScoredFile

if TYPE_CHECKING:
    from specsem.scorer import ClipVerdict, WindowScore
    from specsem.views import Picture

__all__ = ["Decoder", "Scan", "Scoring"]

T = TypeVar("T")

Progress = Callable[[str, float], None]
"""Told (stage, fraction of all work that is done)."""
Answered = Callable[[ScoredFile], None]
"""Told of each answer."""
Pictures = Callable[["list[Picture]"], Awaitable[None]]
"""Takes the views of a file."""


class Scan(Protocol):
    """The windows of a whole time line in order; ``clip`` holds the facts once they are through."""

    @property
    def clip(self) -> Clip: ...
    def __iter__(self) -> Iterator[Window]: ...
    def __next__(self) -> Window: ...


class Decoder(Protocol):
    """What the service needs of ``specsem.media.DecoderPool``. Every method raises ``MediaError``."""

    def probe(self, path: Path, /, *, cancel: threading.Event | None) -> MediaInfo: ...
    def decode(self, path: Path, plan: SamplePlan, /, *, cancel: threading.Event | None) -> Clip: ...
    def scan(
        self, path: Path, plan: SamplePlan, /, *, cancel: threading.Event | None
    ) -> AbstractContextManager[Scan]: ...
    def close(self) -> None: ...


class Scoring:
    """Decodes and scores. Cancelling a caller stops its decoder and takes its clip out of the queue."""

    def __init__(
        self,
        decoder: Decoder,
        engine: Engine,
        *,
        workers: int,
        timeout_s: float,
        telemetry: Telemetry | None = None,
        on_answer: Answered | None = None,
    ) -> None:
        self._decoder = decoder
        self._engine = engine
        self._timeout_s = timeout_s
        self._telemetry = telemetry or Telemetry()
        self._on_answer = on_answer
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="specsem-decode")

    async def probe(self, path: Path) -> MediaInfo:
        """Facts of a file. Raises ``MediaError``, and ``Problem`` ``deadline_exceeded``."""
        return await self._within_time(
            self._in_thread(lambda cancel: self._decoder.probe(path, cancel=cancel))
        )

    async def score(
        self,
        path: Path,
        *,
        name: str,
        sha256: str,
        options: Options = FAST_PATH,
        timeout_s: float | None = None,
        lane: Lane = "interactive",
        on_progress: Progress | None = None,
        on_pictures: Pictures | None = None,
        on_fingerprint: Callable[[bytes], None] | None = None,
    ) -> ScoredFile:
        """The answer for a file; ``name`` is what the answer calls it.

        ``timeout_s`` takes the place of a request's. ``on_progress`` hears the stage and the fraction of all
        work that is done, maybe in another thread. ``on_pictures`` takes the views, where evidence is asked
        for; without it none are made. ``on_fingerprint`` takes what the video looks like, likewise.

        Raises:
            MediaError: this file can't be scored.
            Problem: ``not_ready`` or ``deadline_exceeded`` (503).
        """
        work = self._score(
            path,
            name=name,
            sha256=sha256,
            options=options,
            lane=lane,
            tell=on_progress,
            on_pictures=on_pictures,
            on_fingerprint=on_fingerprint,
        )
        return await self._within_time(work, timeout_s)

    def close(self) -> None:
        """Stop the decoder, then the threads that it lets go: none outlives the event loop that it needs."""
        self._decoder.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _score(
        self,
        path: Path,
        *,
        name: str,
        sha256: str,
        options: Options,
        lane: Lane,
        tell: Progress | None,
        on_pictures: Pictures | None,
        on_fingerprint: Callable[[bytes], None] | None,
    ) -> ScoredFile:
        printer = Fingerprinter() if on_fingerprint is not None else None
        begun, clock = time.monotonic(), StopWatch()
        pictured = options.evidence and on_pictures is not None
        # About: what takes how long depends on the file and the device.
        share = 1.0 / (1.0 + len(DELIVERIES) * options.stability + 0.5 * pictured)

        def say(stage: str, units: float) -> None:
            if tell:
                tell(stage, share * units)

        if options.thorough:
            clip, scores = await self._scan(path, say if tell else None, lane, options, printer)
            verdict = await self._engine.judge(clip, scores)
        else:
            say("decode", 0.0)
            clip = await self._decode(path, self._engine.plan, lane)
            clock.decoded()
            if printer is not None:
                await asyncio.to_thread(printer.see, clip.windows)
            say("score", 0.5)
            verdict = await self._engine.score(clip, lane=lane, gates=options.evidence)
        clock.scored(clip)
        if printer is not None and on_fingerprint is not None:
            on_fingerprint(printer.fingerprint)
        stability = None
        if options.stability:
            sampled = verdict
            if options.thorough:  # deliveries are sampled: so is what they are compared with
                again = await self._decode(path, self._engine.plan, lane)
                sampled = await self._engine.score(again, lane=lane)
            trials: dict[Delivery, ClipVerdict] = {}
            for done, delivery in enumerate(DELIVERIES):
                say("stability", 1.0 + done)
                plan = replace(self._engine.plan, delivery=delivery)
                with contextlib.suppress(MediaError):  # too few frames for half of them, say
                    trials[delivery] = await self._engine.score(
                        await self._decode(path, plan, lane), lane=lane
                    )
            stability = stability_of(sampled, trials)
            clock.lap("stability")
        pictures: list[Picture] = []
        if pictured and on_pictures is not None:
            say("evidence", 1.0 / share - 0.5)
            pictures = await self._in_thread(
                lambda cancel: pictures_of(
                    lambda plan: self._decoder.decode(path, plan, cancel=cancel),
                    self._engine.plan,
                    verdict,
                    self._engine.record,
                )
            )
            await on_pictures(pictures)
            clock.lap("evidence")
        answer = assemble(
            path=name,
            sha256=sha256,
            clip=clip,
            verdict=verdict,
            record=self._engine.record,
            timing_ms=clock.timing_ms,
            options=options,
            stability=stability,
            views=[picture.view for picture in pictures],
        )
        self._telemetry.stage("total", begun, time.monotonic(), lane=lane)
        self._telemetry.metrics.verdict(answer)
        if self._on_answer is not None:
            self._on_answer(answer)
        return answer

    async def _decode(self, path: Path, plan: SamplePlan, lane: Lane) -> Clip:
        return await self._in_thread(
            lambda cancel: self._decoder.decode(path, plan, cancel=cancel), "decode", lane
        )

    async def _scan(
        self,
        path: Path,
        tell: Progress | None,
        lane: Lane,
        options: Options,
        printer: Fingerprinter | None,
    ) -> "tuple[Clip, list[WindowScore]]":
        """The whole time line in constant memory: the decoder waits while the engine scores a handful."""
        loop = asyncio.get_running_loop()
        pending: list[Future[list[WindowScore]]] = []

        def scan(cancel: threading.Event) -> "tuple[Clip, list[WindowScore]]":
            scores: list[WindowScore] = []
            duration_s = self._decoder.probe(path, cancel=cancel).duration_s if tell else 0.0
            with self._decoder.scan(path, self._engine.plan, cancel=cancel) as windows:
                while batch := list(islice(windows, SCAN_BATCH)):
                    if printer is not None:
                        printer.see(batch, scanning=True)
                    # A scan is long anyway: nobody who waits for a single clip should wait for it.
                    scored = self._engine.score_windows(batch, lane="bulk", gates=options.evidence)
                    pending[:] = [asyncio.run_coroutine_threadsafe(scored, loop)]
                    scores += pending[0].result()
                    if tell and duration_s > 0:
                        tell("scan", min(1.0, batch[-1].end_s / duration_s))
                return windows.clip, scores

        try:
            return await self._in_thread(scan, "scan", lane)
        finally:
            for future in pending:
                future.cancel()

    async def _in_thread(
        self, call: Callable[[threading.Event], T], stage: Stage | None = None, lane: Lane = "interactive"
    ) -> T:
        """Run a blocking call that stops when its event is set; set it when the caller is cancelled.

        It waits for a thread for as long as all decoders are busy: there are as many.
        """
        cancel = threading.Event()
        asked = time.monotonic()

        def timed() -> T:
            begun = time.monotonic()
            result = call(cancel)
            if stage is not None:
                self._telemetry.stage("decoder_queue", asked, begun, lane=lane)
                self._telemetry.stage(stage, begun, lane=lane)
            return result

        here = contextvars.copy_context()  # lines and spans of the thread are the request's
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, here.run, timed)
        finally:
            cancel.set()

    async def _within_time(self, work: Awaitable[T], timeout_s: float | None = None) -> T:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            raise Problem(
                "deadline_exceeded",
                f"The video could not be scored within {limit_s:g} s. "
                "Try again when less is going on; a long one is quicker without a thorough scan.",
            ) from None
