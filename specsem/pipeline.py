"""One file's way from path to answer, the same for the command line, the service and every job."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from specsem.errors import MediaError
from specsem.explain import evidence_of, findings_of, pictures_of, stability_of
from specsem.media import DELIVERIES, Clip, DecoderPool, Delivery
from specsem.provenance import provenance_of
from specsem.registry import ModelRecord
from specsem.result import Coverage, Media, Model, ScoredFile, Stability, View

if TYPE_CHECKING:  # torch takes seconds to import, and nothing here needs it
    from specsem.scorer import ClipVerdict, Scorer, WindowScore
    from specsem.views import Picture

__all__ = [
    "FAST_PATH",
    "SCAN_BATCH",
    "Options",
    "StopWatch",
    "assemble",
    "file_sha256",
    "printable_path",
    "scan",
    "score_file",
]

SCAN_BATCH = 8
"""Windows decoded ahead and scored together in a thorough scan."""


def printable_path(path: str | os.PathLike[str]) -> str:
    r"""The path as text that any encoder takes: bytes that are no UTF-8 become ``\xhh``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Options:
    """What of an answer is asked for, beyond the fast path."""

    thorough: bool = False
    """Scan the whole time line instead of a few windows."""
    evidence: bool = False
    """Say what the score stands on, and which family of generators it looks like."""
    stability: bool = False
    """Score it again after cheap deliveries; a verdict that turns into its opposite is none."""

    def also(self, other: Options) -> Options:
        """What either of the two asks for."""
        return Options(
            thorough=self.thorough or other.thorough,
            evidence=self.evidence or other.evidence,
            stability=self.stability or other.stability,
        )


FAST_PATH = Options()


class StopWatch:
    """``timing_ms`` of an answer as it is made."""

    def __init__(self) -> None:
        self._begun = self._last = time.perf_counter()
        self._decoded: float | None = None
        self._stages: dict[str, float] = {}

    def decoded(self) -> None:
        """The forward begins. Not told in a scan: there it is what decoding leaves of the time."""
        self._decoded = time.perf_counter()

    def scored(self, clip: Clip) -> None:
        """Decoding and forward are done."""
        self._last = time.perf_counter()
        begun = self._begun + clip.read_ms / 1e3 if self._decoded is None else self._decoded
        self._stages = {"decode": clip.decode_ms, "forward": max(0.0, self._last - begun) * 1e3}

    def lap(self, stage: str) -> None:
        """One more stage is done."""
        now = time.perf_counter()
        self._stages[stage] = (now - self._last) * 1e3
        self._last = now

    @property
    def timing_ms(self) -> dict[str, float]:
        """The stages so far, and ``total``."""
        return {**self._stages, "total": (time.perf_counter() - self._begun) * 1e3}


def assemble(
    *,
    path: str,
    sha256: str,
    clip: Clip,
    verdict: ClipVerdict,
    record: ModelRecord,
    timing_ms: dict[str, float],
    options: Options = FAST_PATH,
    stability: Stability | None = None,
    views: Sequence[View] = (),
) -> ScoredFile:
    """The public answer for one file. ``timing_ms``: stages but ``provenance``, which the clip knows.

    A verdict that delivery turns into its opposite is none. A family of generators is only named where the
    verdict is ``generated``: the head knows nothing else.
    """
    word, reasons, warnings = verdict.verdict, list(verdict.reasons), list(clip.warnings)
    if options.stability and stability is None:
        warnings.append("stability_not_checked")
    if stability is not None and not stability.stable:
        word, reasons = "inconclusive", [*reasons, "unstable"]
    attribution = verdict.attribution if options.evidence and word == "generated" else None
    return ScoredFile(
        path=path,
        sha256=sha256,
        verdict=word,
        score=verdict.score,
        logit=verdict.logit,
        threshold=verdict.threshold,
        reasons=reasons,
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
        findings=findings_of(verdict, clip, stability=stability, attribution=attribution),
        evidence=evidence_of(verdict, views) if options.evidence else None,
        stability=stability,
        attribution=attribution,
        model=Model(name=record.name, version=record.version, sha256=record.sha256),
        calibration=verdict.calibration,
        timing_ms={
            stage: round(ms, 1) for stage, ms in {**timing_ms, "provenance": clip.manifests_ms}.items()
        },
        warnings=warnings,
    )


def score_file(
    path: str | os.PathLike[str],
    *,
    pool: DecoderPool,
    scorer: Scorer,
    options: Options = FAST_PATH,
    name: str | None = None,
    cancel: threading.Event | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_pictures: Callable[[list[Picture]], None] | None = None,
) -> ScoredFile:
    """Decode, score and judge one file.

    Args:
        name: What the answer calls it; its path, if nothing else is said.
        on_progress: Hears the seconds of video scanned (thorough only).
        on_pictures: Takes the views, where evidence is asked for; without it none are made.

    Raises:
        MediaError: this file can't be scored.
        Cancelled: ``cancel`` was set.
    """
    clock = StopWatch()
    decode = partial(pool.decode, path, cancel=cancel)
    if options.thorough:
        clip, verdict = scan(
            path,
            pool=pool,
            scorer=scorer,
            gates=options.evidence,
            cancel=cancel,
            on_progress=on_progress,
        )
        sampled = None
    else:
        clip = decode(scorer.plan)
        clock.decoded()
        [verdict] = scorer.score_batch([clip], gates=options.evidence)
        sampled = verdict
    clock.scored(clip)
    stability = None
    if options.stability:
        sampled = sampled or scorer.score_batch([decode(scorer.plan)])[0]
        trials: dict[Delivery, ClipVerdict] = {}
        for delivery in DELIVERIES:
            with contextlib.suppress(MediaError):  # too few frames for half of them, say
                [trials[delivery]] = scorer.score_batch([decode(replace(scorer.plan, delivery=delivery))])
        stability = stability_of(sampled, trials)
        clock.lap("stability")
    views: list[View] = []
    if options.evidence and on_pictures:
        pictures = pictures_of(decode, scorer.plan, verdict, scorer.record)
        on_pictures(pictures)
        views = [picture.view for picture in pictures]
        clock.lap("evidence")
    return assemble(
        path=name or printable_path(path),
        sha256=file_sha256(path),
        clip=clip,
        verdict=verdict,
        record=scorer.record,
        timing_ms=clock.timing_ms,
        options=options,
        stability=stability,
        views=views,
    )


def scan(
    path: str | os.PathLike[str],
    *,
    pool: DecoderPool,
    scorer: Scorer,
    gates: bool = False,
    cancel: threading.Event | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[Clip, ClipVerdict]:
    """Score the whole time line in constant memory: no more than ``SCAN_BATCH`` windows are held."""
    scores: list[WindowScore] = []
    with pool.scan(path, scorer.plan, cancel=cancel) as windows:
        while batch := list(islice(windows, SCAN_BATCH)):
            scores += scorer.score_windows(batch, gates=gates)
            if on_progress:
                on_progress(batch[-1].end_s)
        clip = windows.clip
    return clip, scorer.judge(clip, scores)
