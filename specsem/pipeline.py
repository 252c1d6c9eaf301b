"""One file's way from path to answer, the same for the command line, the service and every job."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from specsem.media import Clip, DecoderPool
from specsem.provenance import provenance_of
from specsem.registry import ModelRecord
from specsem.result import Coverage, Media, Model, ScoredFile

if TYPE_CHECKING:  # torch takes seconds to import, and nothing here needs it
    from specsem.scorer import ClipVerdict, Scorer, WindowScore

__all__ = ["SCAN_BATCH", "assemble", "file_sha256", "printable_path", "scan", "score_file"]

SCAN_BATCH = 8
"""Windows decoded ahead and scored together in a thorough scan."""


def printable_path(path: str | os.PathLike[str]) -> str:
    r"""The path as text that any encoder takes: bytes that are no UTF-8 become ``\xhh``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assemble(
    *,
    path: str,
    sha256: str,
    clip: Clip,
    verdict: ClipVerdict,
    record: ModelRecord,
    timing_ms: dict[str, float],
) -> ScoredFile:
    """The public answer for one file. ``timing_ms``: stages but ``provenance``, which the clip knows."""
    return ScoredFile(
        path=path,
        sha256=sha256,
        verdict=verdict.verdict,
        score=verdict.score,
        logit=verdict.logit,
        threshold=verdict.threshold,
        reasons=verdict.reasons,
        segments=verdict.segments,
        coverage=Coverage(
            analysed_s=clip.coverage.analysed_s,
            duration_s=clip.coverage.duration_s,
            fraction=clip.coverage.fraction,
        ),
        media=Media(
            container=clip.info.container,
            codec=clip.info.codec,
            width=clip.info.width,
            height=clip.info.height,
            fps=clip.info.fps,
            duration_s=clip.info.duration_s,
            frames_scored=clip.info.frames_scored,
        ),
        provenance=provenance_of(clip),
        model=Model(name=record.name, version=record.version, sha256=record.sha256),
        timing_ms={
            stage: round(ms, 1) for stage, ms in {**timing_ms, "provenance": clip.manifests_ms}.items()
        },
        warnings=list(clip.warnings),
    )


def score_file(
    path: str | os.PathLike[str],
    *,
    pool: DecoderPool,
    scorer: Scorer,
    thorough: bool = False,
    cancel: threading.Event | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> ScoredFile:
    """Decode, score and judge one file. ``on_progress`` hears the seconds of video scanned (thorough only).

    Raises:
        MediaError: this file can't be scored.
        Cancelled: ``cancel`` was set.
    """
    begin = time.perf_counter()
    if thorough:
        clip, verdict = scan(path, pool=pool, scorer=scorer, cancel=cancel, on_progress=on_progress)
        decoded = time.perf_counter() - clip.read_ms / 1e3  # decode and forward overlap: report the parts
    else:
        clip = pool.decode(path, scorer.plan, cancel=cancel)
        decoded = time.perf_counter()
        [verdict] = scorer.score_batch([clip])
    end = time.perf_counter()
    timing = {"decode": clip.decode_ms, "forward": (end - decoded) * 1e3, "total": (end - begin) * 1e3}
    return assemble(
        path=printable_path(path),
        sha256=file_sha256(path),
        clip=clip,
        verdict=verdict,
        record=scorer.record,
        timing_ms=timing,
    )


def scan(
    path: str | os.PathLike[str],
    *,
    pool: DecoderPool,
    scorer: Scorer,
    cancel: threading.Event | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[Clip, ClipVerdict]:
    """Score the whole time line in constant memory: no more than ``SCAN_BATCH`` windows are held."""
    scores: list[WindowScore] = []
    with pool.scan(path, scorer.plan, cancel=cancel) as windows:
        while batch := list(islice(windows, SCAN_BATCH)):
            scores += scorer.score_windows(batch)
            if on_progress:
                on_progress(batch[-1].end_s)
        clip = windows.clip
    return clip, scorer.judge(clip, scores)
