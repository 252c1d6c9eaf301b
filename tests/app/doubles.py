"""Stand-ins for the decoder and the model, so that the service's tests take milliseconds; run as a script, a
server that uses them, or a worker beside it (`doubles.py worker`); settings come from the environment.

What a file does is written in it: ``BAD:<code>`` is refused with that code, ``SLOW:<seconds>`` decodes
slowly, ``DIE`` takes the whole process along, ``SCORE:<0..1>`` gets that score, ``FLIP:<0..1>`` gets this one
after any delivery; any other gets 0.5. ``LOOKS:<number>`` shows pictures of that number, and any
other file nothing.
"""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app.engines import LocalEngine
from app.main import create_app, run, work
from app.settings import Settings
from specsem.calibration import Calibration
from specsem.errors import Cancelled, NotFound, SpecSemError, media_error
from specsem.media import Clip, Coverage, MediaInfo, SamplePlan, Window
from specsem.media.types import UInt8
from specsem.registry import ModelRecord
from specsem.result import Attribution, Family, Segment, Threshold

INFO = MediaInfo(
    container="mp4", codec="h264", width=640, height=360, fps=25.0, duration_s=4.0, frames_scored=8
)
THRESHOLD = Threshold(value=0.9, lower=0.1, max_fpr=0.05, fpr_upper95=0.06, calibration_n=50)
ATTRIBUTION = Attribution(
    family="double", probability=0.8, candidates=[Family(name="double", probability=0.8)], basis="Made up."
)
RECORD = ModelRecord(
    name="double",
    version="1.0.0",
    licence="none",
    summary="A stand-in.",
    sha256="0" * 64,
    config={"semantic": {}},
    folder=Path("nowhere"),
)


def picture(number: int) -> UInt8:
    """One that looks like no other's: soft blobs, as a photograph has them."""
    chance = np.random.default_rng(number)
    coarse = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def window(start_s: float, score: float, looks: UInt8 | None = None) -> Window:
    pixels = np.zeros((1, 1, 2, 2, 3), np.uint8)
    frames = pixels[0] if looks is None else looks[None]
    boxes = np.full((1, 4), score, np.float32)  # the stand-in for a model reads the score from here
    return Window(start_s, start_s + 0.32, pixels, frames, boxes)


def looks_of(path: Path, at: int) -> UInt8 | None:
    """What a file shows in one of its windows."""
    found = re.search(rb"LOOKS:(\d+)", path.read_bytes()[:200])
    return picture(100 * int(found[1]) + at) if found else None


class Decoder:
    """As ``specsem.media.DecoderPool``, without opening anything."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.started = threading.Event()

    def probe(self, path: Path, /, *, cancel: threading.Event | None) -> MediaInfo:
        self._read(path, cancel)
        return INFO

    def decode(self, path: Path, plan: SamplePlan, /, *, cancel: threading.Event | None) -> Clip:
        score = self._read(path, cancel, delivered=plan.delivery is not None)
        starts_s = plan.starts_s or (0.0, 2.0)
        windows = [window(start_s, score, looks_of(path, at)) for at, start_s in enumerate(starts_s)]
        return Clip(INFO, windows, Coverage(0.64, 4.0, 0.16), warnings=[], decode_ms=1.0)

    @contextmanager
    def scan(self, path: Path, _plan: SamplePlan, /, *, cancel: threading.Event | None) -> Iterator[Any]:
        score = self._read(path, cancel)
        scan = iter([window(at * 0.32, score, looks_of(path, at // 6)) for at in range(12)])

        class Scan:
            clip = Clip(replace(INFO, frames_scored=96), [], Coverage(4.0, 4.0, 1.0))

            def __iter__(self) -> Iterator[Window]:
                return scan

            def __next__(self) -> Window:
                return next(scan)

        yield Scan()

    def close(self) -> None:
        pass

    def _read(self, path: Path, cancel: threading.Event | None, delivered: bool = False) -> float:
        try:
            with path.open("rb") as file:
                text = file.read(200).decode("latin-1")
        except FileNotFoundError:
            raise NotFound("There is no such file.") from None
        self.started.set()
        if "DIE" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if found := re.search(r"BAD:(\w+)", text):
            raise media_error(found[1], f"This file is made to fail: {found[1]}.")
        if found := re.search(r"SLOW:([\d.]+)", text):
            ends = time.monotonic() + float(found[1])
            while time.monotonic() < ends:
                if cancel is not None and cancel.wait(0.01):
                    self.cancelled.set()
                    raise Cancelled("Nobody waits for it.")
        found = re.search(r"FLIP:([\d.]+)", text) if delivered else None
        found = found or re.search(r"SCORE:([\d.]+)", text)
        return float(found[1]) if found else 0.5


class Scorer:
    """As ``specsem.scorer.Scorer``: the score that the stand-in decoder put into each window."""

    record = RECORD
    plan = SamplePlan()
    device = "double"
    shipped = Calibration(slope=1.0, intercept=0.0, policies={"default": THRESHOLD})

    def __init__(self) -> None:
        self.calibration = self.shipped
        self.batches: list[int] = []
        self.fail_on: float | None = None
        self.gate = threading.Event()
        self.gate.set()

    def use(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def score_windows(self, windows: Sequence[Window], *, gates: bool = False) -> list[Any]:
        self.gate.wait(10)
        self.batches.append(len(windows))
        scores = [float(w.boxes_N4[0, 0]) for w in windows]
        if self.fail_on is not None and any(abs(score - self.fail_on) < 1e-6 for score in scores):
            raise RuntimeError("a poisoned clip")
        return [
            SimpleNamespace(
                start_s=w.start_s,
                end_s=w.end_s,
                logit=s,
                semantic_logit=s / 4,
                gate_Nhw=np.full((1, 2, 2) if gates else (0, 0, 0), 0.5, np.float32),
            )
            for w, s in zip(windows, scores, strict=True)
        ]

    def judge(self, _clip: Clip, scores: Sequence[Any]) -> Any:
        score = round(scores[0].logit, 6)
        verdict = "generated" if score >= 0.9 else "authentic" if score < 0.1 else "inconclusive"
        return SimpleNamespace(
            verdict=verdict,
            score=score,
            logit=score,
            threshold=THRESHOLD,
            reasons=["between_thresholds"] if verdict == "inconclusive" else [],
            segments=[Segment(start_s=s.start_s, end_s=s.end_s, score=round(s.logit, 6)) for s in scores],
            scores=scores,
            outside={},
            attribution=ATTRIBUTION,
            calibration=self.calibration.used,
        )


class Engine(LocalEngine):
    """The real engine and batcher around the stand-in for a model. Loading waits for ``may_load``."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.double = Scorer()
        self.may_load = threading.Event()
        self.may_load.set()

    def _load(self) -> Any:
        self.may_load.wait(30)
        if self._settings.model == "broken":
            raise RuntimeError("a defect")
        return self.double, 1.0


class Plodding(Engine):
    """The same, whose model takes its time: 50 ms a batch."""

    def _score_together(self, clips: Any) -> Any:
        time.sleep(0.05)
        return super()._score_together(clips)


def load_judge(_settings: Settings) -> Scorer:
    """As ``app.ray_app`` wants what makes verdicts of scores."""
    return Scorer()


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a condition to hold."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.01)


def until_ready(client: TestClient) -> None:
    until(lambda: client.get("/readyz").status_code == 200)


def application() -> FastAPI:
    """For ``uvicorn --factory``: the application as somebody may start it by hand."""
    settings = Settings()
    return create_app(settings, Engine(settings), Decoder())


if __name__ == "__main__":
    settings = Settings()
    try:
        if sys.argv[1:] == ["worker"]:
            work(settings, engine=Engine(settings), decoder=Decoder())
        else:
            run(settings, Engine(settings), Decoder())
    except SpecSemError as error:
        sys.exit(error.message)
