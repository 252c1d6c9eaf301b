"""Many files: which ones to score, and scoring them while the next ones decode.

What a folder gives: every regular file in it and below, in the order of names, hidden files and folders left
out, symbolic links to folders not followed. Names say nothing about content, so all of these are opened, and
those without moving pictures (`not_a_video`, `no_video_stream`) are passed over. A file that was named always
gets its answer; so does a folder in which no video was found.
"""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from specsem.errors import Cancelled, MediaError, NotFound, SpecSemError
from specsem.media import Clip, DecoderPool
from specsem.pipeline import assemble, file_sha256, printable_path, scan
from specsem.result import ErrorBody, FailedFile, ScoredFile
from specsem.scorer import ClipVerdict, Scorer

__all__ = ["Answer", "Outcome", "Source", "failed", "find_sources", "score_files"]

log = logging.getLogger(__name__)

Answer = ScoredFile | FailedFile
T = TypeVar("T")

PASSED_OVER = frozenset({"not_a_video", "no_video_stream"})
"""Codes of files that a folder may hold beside its videos."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to score, or the mark behind the last file of a folder."""

    path: Path
    name: str
    """What the answer calls it."""
    kind: Literal["named", "found", "end_of_folder"] = "named"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a source. ``answer`` is None where nothing is to be said of it."""

    source: Source
    answer: Answer | None


def failed(name: str, error: SpecSemError) -> FailedFile:
    """The answer for a file that could not be scored."""
    return FailedFile(path=name, error=ErrorBody(code=error.code, message=error.message))


def find_sources(paths: Iterable[Path]) -> Iterator[Source]:
    """The files that these paths stand for, in order."""
    for path in paths:
        if not path.is_dir():
            yield Source(path, printable_path(path))
            continue
        for file in _walk(path):
            yield Source(file, printable_path(file), "found")
        yield Source(path, printable_path(path), "end_of_folder")


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                yield path


def score_files(
    sources: Iterable[Source],
    *,
    pool: DecoderPool,
    scorer: Scorer,
    thorough: bool = False,
    workers: int = 2,
    batch: int = 8,
    on_progress: Callable[[float], None] | None = None,
) -> Generator[Outcome, None, None]:
    """One outcome for each source, in the order of the sources, each as soon as it is known.

    While a batch is in the model, the files after it are decoded, twice as many ahead as a batch or the
    workers hold. A batch is what is decoded when the model becomes free, up to ``batch`` clips: it never
    waits to become larger.
    Closing the generator cancels all that is under way.

    Args:
        sources: What to score.
        pool: Where files are decoded.
        scorer: What judges them.
        thorough: Scan each file whole. Files then take turns: one keeps the decoder and the model busy.
        workers: Files that are decoded at the same time.
        batch: Clips of one forward, at most.
        on_progress: Told the fraction of the present file that is done; only when ``thorough``.
    """
    if thorough:
        outcomes = _in_turn(sources, pool, scorer, on_progress)
    else:
        outcomes = _overlapped(sources, pool, scorer, workers, batch)
    return _without_what_lies_beside(outcomes)


def _without_what_lies_beside(outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
    """Say nothing of a folder's other files, nor of a folder, unless no video was in it."""
    videos_in_folder = 0
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            source, answer = outcome.source, outcome.answer
            if source.kind == "found":
                beside = isinstance(answer, FailedFile) and answer.error.code in PASSED_OVER
                videos_in_folder += not beside
                yield Outcome(source, None if beside else answer)
            elif source.kind == "end_of_folder":
                yield Outcome(source, None if videos_in_folder else answer)
                videos_in_folder = 0
            else:
                yield outcome


def _in_turn(
    sources: Iterable[Source],
    pool: DecoderPool,
    scorer: Scorer,
    on_progress: Callable[[float], None] | None,
) -> Generator[Outcome, None, None]:
    cancel = threading.Event()

    def score(source: Source) -> ScoredFile:
        begin = time.perf_counter()
        duration_s = pool.probe(source.path).duration_s if on_progress else 0.0

        def tell(seconds: float) -> None:
            if on_progress and duration_s > 0:
                on_progress(min(1.0, seconds / duration_s))

        clip, verdict = scan(source.path, pool=pool, scorer=scorer, cancel=cancel, on_progress=tell)
        total_ms = (time.perf_counter() - begin) * 1e3
        timing_ms = {"decode": clip.decode_ms, "forward": total_ms - clip.read_ms, "total": total_ms}
        return _answer(source, _Decoded(clip, file_sha256(source.path)), verdict, scorer, timing_ms)

    try:
        for source in sources:
            yield Outcome(source, _attempt(source, score))
    finally:
        cancel.set()


@dataclass(frozen=True, slots=True)
class _Decoded:
    clip: Clip
    sha256: str


_Queue = deque[tuple[Source, Future[_Decoded | FailedFile]]]


def _overlapped(
    sources: Iterable[Source], pool: DecoderPool, scorer: Scorer, workers: int, batch: int
) -> Generator[Outcome, None, None]:
    cancel = threading.Event()

    def decode(source: Source) -> _Decoded:
        return _Decoded(pool.decode(source.path, scorer.plan, cancel=cancel), file_sha256(source.path))

    upcoming = iter(sources)
    queue: _Queue = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        while True:
            while len(queue) < 2 * max(batch, workers) and (source := next(upcoming, None)):
                queue.append((source, threads.submit(_attempt, source, decode)))
            if not queue:
                return
            yield from _judge(_take_ready(queue, batch), scorer)
    finally:
        cancel.set()
        threads.shutdown(wait=False, cancel_futures=True)


def _take_ready(queue: _Queue, batch: int) -> list[tuple[Source, _Decoded | FailedFile]]:
    """The head of the queue, waited for, and those right behind it that are ready too."""
    source, future = queue.popleft()
    ready = [(source, future.result())]
    while queue and len(ready) < batch and queue[0][1].done():
        source, future = queue.popleft()
        ready.append((source, future.result()))
    return ready


def _judge(ready: Sequence[tuple[Source, _Decoded | FailedFile]], scorer: Scorer) -> Iterator[Outcome]:
    clips = [item.clip for _, item in ready if isinstance(item, _Decoded)]
    started = time.perf_counter()
    verdicts = iter(scorer.score_batch(clips) if clips else ())
    forward_ms = (time.perf_counter() - started) * 1e3 / max(1, len(clips))
    for source, item in ready:
        if isinstance(item, FailedFile):
            yield Outcome(source, item)
            continue
        timing_ms = {
            "decode": item.clip.decode_ms,
            "forward": forward_ms,
            "total": item.clip.read_ms + forward_ms,
        }
        yield Outcome(source, _answer(source, item, next(verdicts), scorer, timing_ms))


def _answer(
    source: Source, decoded: _Decoded, verdict: ClipVerdict, scorer: Scorer, timing_ms: dict[str, float]
) -> ScoredFile:
    return assemble(
        path=source.name,
        sha256=decoded.sha256,
        clip=decoded.clip,
        verdict=verdict,
        record=scorer.record,
        timing_ms=timing_ms,
    )


def _attempt(source: Source, work: Callable[[Source], T]) -> T | FailedFile:
    """What ``work`` makes of the source, or why it could not: one file's trouble stays its own."""
    try:
        if source.kind == "end_of_folder":
            raise NotFound("There is no video in this folder.")
        return work(source)
    except MediaError as error:
        return failed(source.name, error)
    except OSError:
        return failed(source.name, NotFound("There is no such file, or it can't be read."))
    except Cancelled:
        raise
    except Exception:  # a defect of ours must not take the other files along
        log.debug("%s", source.name, exc_info=True)
        return failed(source.name, SpecSemError("SpecSem failed on this file; the file may be fine."))
