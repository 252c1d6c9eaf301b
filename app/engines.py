"""Where scores come from: an ``Engine`` behind the service, local here, elsewhere later."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.batching import Batcher, Lane, Liveness
from app.observability.telemetry import Telemetry
from app.problems import Problem
from app.settings import Settings
from specsem.calibration import Calibration
from specsem.errors import ModelError, SpecSemError
from specsem.media import Clip, SamplePlan, Window
from specsem.registry import ModelRecord
from specsem.result import Threshold

if TYPE_CHECKING:  # torch takes seconds to import: the server is up before it
    from specsem.scorer import ClipVerdict, Judge, Scorer, WindowScore

__all__ = ["Engine", "JudgingEngine", "LocalEngine"]

logger = logging.getLogger("specsem.app")

FEW_WINDOWS = 32
"""So many are sooner judged than handed to a thread: it is arithmetic. A thorough scan of an hour has some
ten thousand."""


class Engine(Protocol):
    """Scores decoded clips. A caller that is cancelled drops its work; that is the only way to cancel."""

    @property
    def ready(self) -> bool:
        """Whether a warm-up forward has run."""

    @property
    def record(self) -> ModelRecord:
        """The model in use. Raises ``Problem`` ``not_ready`` before it is loaded."""

    @property
    def plan(self) -> SamplePlan:
        """Which pixels the model wants. Raises ``Problem`` ``not_ready`` before it is loaded."""

    @property
    def policies(self) -> Mapping[str, Threshold]:
        """The model's thresholds by operating point. Raises ``Problem`` ``not_ready`` before it is loaded."""

    @property
    def calibration(self) -> Calibration:
        """What makes verdicts of logits. Raises ``Problem`` ``not_ready`` before the model is loaded."""

    @property
    def shipped(self) -> Calibration:
        """The model's own calibration. Raises ``Problem`` ``not_ready`` before it is loaded."""

    def use(self, calibration: Calibration | None) -> None:
        """Judge by another calibration from now on; None: by the model's own.

        Raises:
            UnknownPolicy, CalibrationUnusable: it doesn't fit the policy, or the model.
        """

    @property
    def device(self) -> str:
        """Where it runs, such as ``cpu``."""

    @property
    def warm_up_ms(self) -> float:
        """Milliseconds of the warm-up forward."""

    async def start(
        self,
        telemetry: Telemetry | None = None,
        *,
        on_loaded: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Load and warm up; ``telemetry`` hears of every batch. ``on_loaded`` is awaited before it is ready.

        Raises:
            SpecSemError: the model can't be used.
        """

    async def broken(self) -> SpecSemError:
        """Waits, once it is started, for the error after which it can't score any more."""

    def check_ready(self) -> None:
        """Raises ``Problem`` ``not_ready`` (503) where it can't score yet, or will never."""

    async def score_windows(
        self, windows: Sequence[Window], *, lane: Lane = "interactive", gates: bool = False
    ) -> "list[WindowScore]":
        """One score a window, in order; ``gates``: with the maps of the gate."""

    async def judge(self, clip: Clip, scores: "Sequence[WindowScore]") -> "ClipVerdict":
        """The verdict on a clip from the scores of its windows."""

    async def score(self, clip: Clip, *, lane: Lane = "interactive", gates: bool = False) -> "ClipVerdict":
        """The verdict on a clip with its windows; ``gates``: see ``score_windows``."""

    def liveness(self) -> Liveness:
        """Whether work moves on."""

    async def aclose(self) -> None:
        """Stop. What waits is told so."""


class JudgingEngine(ABC):
    """What engines share whose verdicts are made in this process, wherever windows are scored."""

    @abstractmethod
    def _judging(self) -> "Judge":
        """Who makes the verdicts. Raises ``Problem`` ``not_ready`` before the model is loaded."""

    @abstractmethod
    async def score_windows(
        self, windows: Sequence[Window], *, lane: Lane = "interactive", gates: bool = False
    ) -> "list[WindowScore]":
        """See ``Engine``."""

    @property
    def plan(self) -> SamplePlan:
        return self._judging().plan

    @property
    def policies(self) -> Mapping[str, Threshold]:
        return self.calibration.policies

    @property
    def calibration(self) -> Calibration:
        return self._judging().calibration

    @property
    def shipped(self) -> Calibration:
        return self._judging().shipped

    def use(self, calibration: Calibration | None) -> None:
        judge = self._judging()
        judge.use(calibration or judge.shipped)

    async def judge(self, clip: Clip, scores: "Sequence[WindowScore]") -> "ClipVerdict":
        judge = self._judging().judge
        if len(scores) <= FEW_WINDOWS:
            return judge(clip, scores)
        return await asyncio.to_thread(judge, clip, scores)

    async def score(self, clip: Clip, *, lane: Lane = "interactive", gates: bool = False) -> "ClipVerdict":
        return await self.judge(clip, await self.score_windows(clip.windows, lane=lane, gates=gates))


class LocalEngine(JudgingEngine):
    """One ``Scorer`` in this process, in one thread, behind a batcher."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._scorer: Scorer | None = None
        self._failure: SpecSemError | None = None
        self._warm_up_ms = 0.0
        self._batcher: Batcher[_Work, list[WindowScore]] | None = None

    @property
    def ready(self) -> bool:
        return self._batcher is not None

    @property
    def record(self) -> ModelRecord:
        return self._loaded().record

    @property
    def device(self) -> str:
        return str(self._loaded().device)

    @property
    def warm_up_ms(self) -> float:
        return self._warm_up_ms

    async def start(
        self,
        telemetry: Telemetry | None = None,
        *,
        on_loaded: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        try:
            self._scorer, self._warm_up_ms = await asyncio.to_thread(self._load)
            if on_loaded is not None:
                await on_loaded()
        except Exception as error:
            self._failure = (
                error if isinstance(error, SpecSemError) else ModelError("it could not be loaded.")
            )
            raise
        batcher = Batcher(
            self._score_together,
            max_batch=self._settings.max_batch_clips,
            in_flight=2 if self.device.startswith("cuda") else 1,
            shape=_shape,
            telemetry=telemetry,
        )
        batcher.start()
        self._batcher = batcher

    async def broken(self) -> SpecSemError:
        assert self._batcher is not None  # noqa: S101 - it was started
        self._failure = await self._batcher.device_lost()
        return self._failure

    def _load(self) -> "tuple[Scorer, float]":
        from specsem.scorer import Scorer  # noqa: PLC0415

        settings = self._settings
        scorer = Scorer(
            settings.model,
            device=settings.device,
            operating_point=settings.operating_point(),
            precision=settings.precision,
            acceleration=settings.acceleration,
        )
        return scorer, scorer.warm_up()

    def check_ready(self) -> None:
        if self._failure is not None:
            raise Problem("not_ready", f"The model can't be used: {self._failure.message}")
        if not self.ready:
            raise Problem("not_ready", "The model is still warming up; try again in a moment.")

    async def score_windows(
        self, windows: Sequence[Window], *, lane: Lane = "interactive", gates: bool = False
    ) -> "list[WindowScore]":
        self.check_ready()
        assert self._batcher is not None  # noqa: S101 - check_ready said so
        limit_s = self._settings.request_timeout_s if lane == "interactive" else None  # jobs have their own
        return await self._batcher.submit(_Work(windows, gates), lane=lane, deadline_s=limit_s)

    def liveness(self) -> Liveness:
        if self._batcher is None:
            return Liveness()
        return self._batcher.liveness()

    async def aclose(self) -> None:
        if self._batcher is not None:
            await self._batcher.aclose()

    def _judging(self) -> "Judge":
        return self._loaded()

    def _loaded(self) -> "Scorer":
        if self._scorer is None:
            self.check_ready()
            raise Problem("not_ready", "The model is still warming up; try again in a moment.")
        return self._scorer

    def _score_together(self, clips: "Sequence[_Work]") -> "list[list[WindowScore]]":
        """The windows of several clips in one forward, and back to one list a clip."""
        windows = [window for clip in clips for window in clip.windows]
        scores = iter(self._loaded().score_windows(windows, gates=clips[0].gates))
        return [[next(scores) for _ in clip.windows] for clip in clips]


@dataclass(frozen=True, slots=True)
class _Work:
    """What the batcher takes: the windows of a clip. Those of a batch all want the gate's maps, or none."""

    windows: Sequence[Window]
    gates: bool


def _shape(work: _Work) -> Hashable:
    """Of one window's pixels: windows of unequal shapes can't be stacked. And who wants no maps, waits for
    none."""
    return work.windows[0].crops_TNHWC.shape, work.windows[0].frames_THWC.shape, work.gates
