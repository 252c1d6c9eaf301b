"""``Scorer.score_batch(clips)``: decoded clips to calibrated verdicts, on one device.

Shape letters: B windows, T frames, N crops, H height, W width, C colours, D features.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from specsem.acceleration import Acceleration
from specsem.attribution import Attributor
from specsem.calibration import Calibration, CalibrationUnusable, verdict_at
from specsem.errors import DeviceLost, ModelError, WeightsCorrupt, WeightsMissing
from specsem.media import Clip, Window
from specsem.model import SpecSemConfig, SpecSemNet
from specsem.network import Network, Precision
from specsem.registry import DEFAULT_MODEL, ModelRecord, get_model
from specsem.result import Attribution, CalibrationUsed, Reason, Segment, Threshold, Verdict

__all__ = ["ClipVerdict", "Judge", "Scorer", "WindowScore", "load_network"]


@dataclass(frozen=True, slots=True, eq=False)
class WindowScore:
    """What the model and a look at the pixels say of one window."""

    start_s: float
    end_s: float
    logit: float
    motion: float
    """Mean absolute difference of frames in a row, 0..255."""
    detail: float
    """Standard deviation of the high-pass residual, 0..255."""
    features_D: npt.NDArray[np.float32]
    """What the spectral branch's last layer saw."""
    semantic_logit: float = 0.0
    """The semantic head's part of the logit: what is shown speaks for itself."""
    shown_D: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """What the semantic head saw."""
    gate_Nhw: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    """How far semantics opened spectral evidence in each place of each crop, 0..1; empty where that was not
    asked for, and without a gate."""


@dataclass(frozen=True, slots=True)
class ClipVerdict:
    """The verdict on one file, before the facts of the file join it."""

    verdict: Verdict
    score: float
    logit: float
    threshold: Threshold
    reasons: list[Reason]
    segments: list[Segment]
    scores: Sequence[WindowScore] = ()
    """Of the windows, one a segment."""
    outside: Mapping[Reason, tuple[float, float]] = field(default_factory=dict)
    """What lies outside of the model's domain: the measure, and its limit."""
    attribution: Attribution | None = None
    """Which family of generators a ``generated`` one looks like; None where the model can't tell any."""
    calibration: CalibrationUsed | None = None
    """Which one made score and threshold of the logit."""


class Judge:
    """What makes a verdict of windows' scores: calibration, operating point and the model's domain.

    Raises:
        UnknownModel, WeightsMissing, UnknownPolicy: see ``specsem.errors``.
        CalibrationUnusable: it was fitted for another model's features.
    """

    def __init__(
        self,
        model: str | ModelRecord = DEFAULT_MODEL,
        *,
        operating_point: str = "default",
        calibration: Calibration | None = None,
    ) -> None:
        self.record = get_model(model) if isinstance(model, str) else model
        if not self.record.present:  # nor is its calibration
            raise WeightsMissing(f"The weights of {self.record.name!r} are not on this machine.")
        self.operating_point = operating_point
        self.shipped = Calibration.load(self.record.folder)
        """The calibration that came with the model."""
        self.calibration = self.shipped
        self.use(calibration or self.shipped)
        self.attributor = Attributor.load(self.record)
        self.config = SpecSemConfig.from_dict(self.record.config)
        self.plan = self.config.plan()

    @property
    def threshold(self) -> Threshold:
        """Which scores become which verdict."""
        return self.calibration.threshold(self.operating_point)

    def use(self, calibration: Calibration) -> None:
        """Judge by another calibration from now on; any thread may say so.

        Raises:
            UnknownPolicy: it lacks the policy in use.
            CalibrationUnusable: it was fitted for another model's features.
        """
        calibration.threshold(self.operating_point)
        if len(calibration.feature_mean) != len(self.shipped.feature_mean):
            raise CalibrationUnusable(
                f"This calibration was fitted for another model than {self.record.name}."
            )
        self.calibration = calibration

    def judge_each(self, clips: Sequence[Clip], scores: Sequence[WindowScore]) -> list[ClipVerdict]:
        """A verdict a clip, from the scores of all their windows one after another."""
        of = iter(scores)
        return [self.judge(clip, [next(of) for _ in clip.windows]) for clip in clips]

    def judge(self, clip: Clip, scores: Sequence[WindowScore]) -> ClipVerdict:
        """The file's verdict from its windows. The file's logit is the mean of theirs.

        ``clip`` gives the facts; its own windows are not looked at (a thorough scan has let go of them).
        """
        calibration = self.calibration  # once: another may come in the middle
        threshold = calibration.threshold(self.operating_point)
        logits = [s.logit for s in scores]
        logit = sum(logits) / len(logits)
        score = calibration.probability(logit)
        outside = self._outside(clip, scores, calibration)
        verdict, reasons = verdict_at(threshold, score, list(outside))
        segments = [
            Segment(start_s=s.start_s, end_s=s.end_s, score=calibration.probability(s.logit)) for s in scores
        ]
        return ClipVerdict(
            verdict=verdict,
            score=score,
            logit=logit,
            threshold=threshold,
            reasons=reasons,
            segments=segments,
            scores=scores,
            outside=outside,
            attribution=self._attribute(scores) if verdict == "generated" else None,
            calibration=calibration.used,
        )

    def _outside(
        self, clip: Clip, scores: Sequence[WindowScore], calibration: Calibration
    ) -> dict[Reason, tuple[float, float]]:
        """Why no verdict should be trusted, whatever the score says; empty if nothing speaks against one.

        For each reason the measure and its limit; for ``unstable`` the lowest and the highest score that
        leaving out one window would give.
        """
        domain = calibration.domain
        features_D = np.mean([s.features_D for s in scores], axis=0)
        frames, analysed_s = clip.info.frames_scored, clip.coverage.analysed_s
        side, motion = min(clip.info.width, clip.info.height), median(s.motion for s in scores)
        detail = max(s.detail for s in scores)
        distance = calibration.distance(features_D.tolist())
        found: dict[Reason, tuple[float, float]] = {}
        if frames < self.plan.frames:
            found["too_short"] = (frames, self.plan.frames)
        elif analysed_s < domain.min_analysed_s:
            found["too_short"] = (analysed_s, domain.min_analysed_s)
        if side < domain.min_side:
            found["too_small"] = (side, domain.min_side)
        if motion < domain.min_motion:
            found["static"] = (motion, domain.min_motion)
        if detail < domain.min_detail:
            found["low_quality"] = (detail, domain.min_detail)
        if distance > domain.max_distance:
            found["out_of_domain"] = (distance, domain.max_distance)
        if (turned := self._turned_by_one([s.logit for s in scores], calibration)) is not None:
            found["unstable"] = turned
        return found

    def _turned_by_one(self, logits: Sequence[float], calibration: Calibration) -> tuple[float, float] | None:
        """The scores between which leaving out one window turns the verdict into its opposite, if it does."""
        if len(logits) < 2:
            return None
        total = sum(logits)
        means = [(total - left_out) / (len(logits) - 1) for left_out in logits]
        threshold = calibration.threshold(self.operating_point)
        lowest, highest = calibration.probability(min(means)), calibration.probability(max(means))
        turns = lowest < threshold.lower and highest >= threshold.value
        return (lowest, highest) if turns else None

    def _attribute(self, scores: Sequence[WindowScore]) -> Attribution | None:
        if self.attributor is None:
            return None
        return self.attributor.guess(np.mean([s.shown_D for s in scores], axis=0))


class Scorer(Judge):
    """A judge with the model itself, on one device.

    On a CPU one thread owns it: forwards side by side only share the cores. On a GPU two threads may score at
    a time, each on a stream of its own. ``judge`` may run in any. ``acceleration`` says what may be tried at
    the warm-up to make forwards faster; `specsem.acceleration` keeps what works and pays.

    Raises:
        UnknownModel, WeightsMissing, WeightsCorrupt, UnknownPolicy: see ``specsem.errors``.
        ModelError: the device is not there.
    """

    def __init__(
        self,
        model: str | ModelRecord = DEFAULT_MODEL,
        *,
        device: str = "auto",
        operating_point: str = "default",
        calibration: Calibration | None = None,
        max_batch: int = 32,
        precision: Precision = "auto",
        acceleration: Acceleration = "auto",
    ) -> None:
        super().__init__(model, operating_point=operating_point, calibration=calibration)
        self.device = resolve_device(device)
        self.max_batch = max_batch
        """Windows in one forward; halved when the device runs out of memory."""
        net = load_network(self.record)
        self._streams = threading.local()
        self._network = Network(
            net, self.device, precision=precision, acceleration=acceleration, max_batch=max_batch
        )

    @property
    def ways(self) -> dict[int, str]:
        """How batches of so many windows run since the warm-up; empty where there was no choice."""
        return self._network.forward.ways

    def warm_up(self) -> float:
        """Find the fastest way, then one forward on gray; returns that one's milliseconds."""
        plan = self.plan
        gray = Window(
            start_s=0.0,
            end_s=0.0,
            crops_TNHWC=np.full((plan.frames, plan.crops, plan.crop_side, plan.crop_side, 3), 128, np.uint8),
            frames_THWC=np.full((plan.frames, plan.frame_side, plan.frame_side, 3), 128, np.uint8),
            boxes_N4=np.tile(np.array([0, 0, 1, 1], np.float32), (plan.crops, 1)),
        )
        with torch.inference_mode(), self._stream():
            self._network.forward.warm_up(self._network.pixels([gray]))
        begin = time.perf_counter()
        self.score_windows([gray])
        return (time.perf_counter() - begin) * 1e3

    def score_windows(self, windows: Sequence[Window], *, gates: bool = False) -> list[WindowScore]:
        """One score a window, in order. A smaller batch never changes a score by more than rounding.

        ``gates``: with the maps of the gate, which take a few percent longer.

        Raises:
            DeviceLost: the accelerator failed for good.
        """
        scores: list[WindowScore] = []
        while len(scores) < len(windows):
            batch = windows[len(scores) : len(scores) + self.max_batch]
            try:
                scores += self._forward(batch, gates)
            except torch.OutOfMemoryError:
                if self.max_batch == 1 or len(batch) == 1:
                    raise
                self.max_batch = max(1, len(batch) // 2)
                torch.cuda.empty_cache()
            except torch.AcceleratorError as error:
                # After an illegal access, an assertion or a lost bus every later call fails as well.
                raise DeviceLost("The accelerator failed; the process must be started anew.") from error
        return scores

    def score_batch(self, clips: Sequence[Clip], *, gates: bool = False) -> list[ClipVerdict]:
        """One verdict a clip, in order; the windows of all clips share the forwards."""
        windows = [window for clip in clips for window in clip.windows]
        return self.judge_each(clips, self.score_windows(windows, gates=gates))

    @torch.inference_mode()
    def _forward(self, windows: Sequence[Window], gates: bool) -> list[WindowScore]:
        with self._stream():
            said = self._network.say(windows, gates=gates)
        return [
            WindowScore(
                window.start_s,
                window.end_s,
                logit=one.logit,
                motion=one.motion,
                detail=one.detail,
                features_D=one.features_D,
                semantic_logit=one.semantic_logit,
                shown_D=one.shown_D,
                gate_Nhw=one.gate_Nhw,
            )
            for window, one in zip(windows, said, strict=True)
        ]

    def _stream(self) -> AbstractContextManager[Any]:
        """On a GPU each thread has its stream: one's copies run beside the other's kernels."""
        if self.device.type != "cuda":
            return nullcontext()
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        context: AbstractContextManager[Any] = torch.cuda.stream(self._streams.own)
        return context


def load_network(record: ModelRecord) -> SpecSemNet:
    """The network of a model with its weights, on the CPU, in evaluation mode.

    Raises:
        WeightsMissing, WeightsCorrupt: see ``specsem.errors``.
    """
    net = SpecSemNet(SpecSemConfig.from_dict(record.config))
    try:
        net.load_state_dict(load_file(record.verified_weights()))
    except RuntimeError as error:
        raise WeightsCorrupt(f"The weights of {record.name!r} don't fit its config.") from error
    return net.eval()


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a device.

    Raises:
        ModelError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("Device 'cuda' was asked for, but this machine shows no CUDA device.")
    if name != "cpu" and not name.startswith("cuda"):
        raise ModelError(f"No device is named {name!r}; there are: auto, cpu, cuda.")
    return torch.device(name)
