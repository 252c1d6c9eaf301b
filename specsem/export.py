"""A registered model as one ONNX file, and the scorer that runs it; needs the extra ``onnx``.

The file takes the pixels of any number of windows as bytes, as `specsem.media` cuts them, and gives of each
what `specsem.network.Said` holds. Its metadata say which pixels those are and how a logit becomes a score
(``specsem.model``, ``specsem.plan``, ``specsem.calibration``, each as JSON).

A file is left only where ONNX Runtime says by it what the model says. All of the model is in it, float32.

Shape letters: B windows, T frames, N crops, H height, W width, C colours, D features.
"""

import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxscript import opset20 as op
from torch import Tensor, nn

from specsem.errors import ExportRefused, FileUnusable, ModelError
from specsem.media import Clip, DecoderPool, SamplePlan, Window
from specsem.model import SpecSemNet
from specsem.network import pixel_facts
from specsem.registry import ModelRecord
from specsem.scorer import ClipVerdict, Judge, Scorer, WindowScore, load_network
from specsem.synthetic import write_clip

__all__ = ["TOLERANCE", "OnnxScorer", "Parity", "export_onnx"]

TOLERANCE = 0.005
"""By how much a score may differ."""
OPSET = 20
"""Of ONNX: the first with the GELU and a grid sample as PyTorch has them."""
_OUTPUTS = ("logit", "semantic_logit", "motion", "detail", "features", "shown")
_DRAWN = ((640, 360), (256, 256), (360, 480))
"""Width and height of the clips that every file is checked on."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far what ONNX Runtime says is from what the model says, over so many clips."""

    clips: int
    windows: int
    score: float
    """Largest difference of a score, of a clip or a window."""
    logit: float
    """The same before calibration."""


def export_onnx(record: ModelRecord, out: Path, videos: Sequence[Path] = ()) -> Parity:
    """Write the model, and check the file on clips drawn for it and on ``videos`` before it gets its name.

    Raises:
        WeightsMissing, WeightsCorrupt, MediaError: of the model, of one of the videos.
        FileUnusable: it can't be written there.
        ExportRefused: a score differs by more than `TOLERANCE`, or a verdict; what lay there is as it was.
    """
    expected = Scorer(record, device="cpu", precision="float32", acceleration="off")
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_bytes(b"")  # before minutes of work
    except OSError as error:
        raise FileUnusable(f"{out.name} can't be written there: {error.strerror}.") from error
    try:
        _write(load_network(record), expected, part)
        parity = _compare(expected, OnnxScorer(part, record), videos)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return parity


class OnnxScorer(Judge):
    """As `specsem.scorer.Scorer`, but the model is an ONNX file that runs on the CPU by ONNX Runtime.

    Raises:
        ModelError: the file is no ONNX model, or another one than ``model``.
    """

    def __init__(self, file: Path, model: ModelRecord, *, threads: int | None = None) -> None:
        super().__init__(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base of their own
            raise ModelError(f"{file.name} is no ONNX model that runs here.") from error
        described = json.loads(self._session.get_modelmeta().custom_metadata_map.get("specsem.model", "{}"))
        if described.get("sha256") != model.sha256:
            raise ModelError(f"{file.name} was not made of {model.name} {model.version}.")
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._outputs = [said.name for said in self._session.get_outputs()]

    def score_windows(self, windows: Sequence[Window]) -> list[WindowScore]:
        """One score a window, in order, from one forward."""
        pixels: dict[str, list[np.ndarray]] = {
            "frames": [w.frames_THWC for w in windows],
            "crops": [w.crops_TNHWC for w in windows],
            "boxes": [w.boxes_N4 for w in windows],
        }
        said = self._session.run(None, {name: np.stack(pixels[name]) for name in self._inputs})
        of = dict(zip(self._outputs, said, strict=True))
        nothing = np.zeros((len(windows), 0), np.float32)
        return [
            WindowScore(
                window.start_s,
                window.end_s,
                logit=float(of["logit"][i]),
                motion=float(of["motion"][i]),
                detail=float(of["detail"][i]),
                features_D=of["features"][i],
                semantic_logit=float(of["semantic_logit"][i]),
                shown_D=of.get("shown", nothing)[i],
            )
            for i, window in enumerate(windows)
        ]

    def score_batch(self, clips: Sequence[Clip]) -> list[ClipVerdict]:
        """One verdict a clip, in order; the windows of all clips share the forward."""
        return self.judge_each(clips, self.score_windows([w for clip in clips for w in clip.windows]))


class _Said(nn.Module):
    """What is written: pixels to `_OUTPUTS`, without ``shown`` where nothing is."""

    def __init__(self, net: SpecSemNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, frames_BTHWC: Tensor, crops_BTNHWC: Tensor | None = None, boxes_BN4: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Crops and boxes are only given of a model that wants them."""
        if crops_BTNHWC is None or boxes_BN4 is None:
            B, T = frames_BTHWC.shape[:2]
            crops_BTNHWC = frames_BTHWC.new_zeros(B, T, 0, 0, 0, 3)
            boxes_BN4 = torch.zeros(B, 0, 4)
        judged = self.net.judge(crops_BTNHWC, frames_BTHWC, boxes_BN4)
        motion_B, detail_B = pixel_facts(crops_BTNHWC, frames_BTHWC)
        said = (judged.logit_B, judged.semantic_logit_B, motion_B, detail_B, judged.features_BD)
        return (*said, judged.shown_BD) if self.net.config.semantic_head else said


def _write(net: SpecSemNet, judge: Judge, file: Path) -> None:
    plan, record, calibration = judge.plan, judge.record, judge.calibration
    pixels = {
        "frames": torch.zeros(2, *plan.frames_shape, dtype=torch.uint8),  # two windows: one would be fixed
        "crops": torch.zeros(2, *plan.crops_shape, dtype=torch.uint8),
        "boxes": torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(2, plan.crops, 1),
    }
    names = list(pixels) if plan.crops else ["frames"]
    arguments = tuple(pixels[name] for name in names)
    said = _Said(net).eval().requires_grad_(False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention as an operation that ONNX has
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said(*arguments)  # constants come into being outside of the trace
            program = torch.onnx.export(
                said,
                arguments,
                input_names=names,
                output_names=_OUTPUTS if net.config.semantic_head else _OUTPUTS[:-1],
                dynamic_shapes=tuple({0: torch.export.Dim("windows", min=1)} for _ in names),
                opset_version=OPSET,
                dynamo=True,
                optimize=False,  # runtimes do it when they load it, and it takes half of the time
                custom_translation_table={torch.ops.aten._cdist_forward.default: _manhattan},
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if program is None:
        raise ModelError("PyTorch made no ONNX program of the model.")
    described = {
        "model": {
            name: getattr(record, name) for name in ("name", "version", "licence", "summary", "sha256")
        },
        "plan": asdict(plan),
        "calibration": json.loads(calibration.to_json()),
    }
    program.model.metadata_props.update({f"specsem.{name}": json.dumps(f) for name, f in described.items()})
    program.save(file)


def _manhattan(x_BD: Any, y_SD: Any, p: float, compute_mode: int | None = None) -> Any:  # noqa: ARG001
    """``torch.cdist`` as ONNX, where it is the sum of the distances along each axis: (B, S)."""
    if p != 1.0:
        raise NotImplementedError("only sums of absolute differences are translated")
    before_last: Any = op.Constant(value_ints=[-2])
    last: Any = op.Constant(value_ints=[-1])
    return op.ReduceSum(op.Abs(op.Sub(op.Unsqueeze(x_BD, before_last), y_SD)), last, keepdims=0)


def _compare(expected: Scorer, found: OnnxScorer, videos: Sequence[Path]) -> Parity:
    """Batches of several sizes, for a file takes any number of windows."""
    windows, worst_score, worst_logit = 0, 0.0, 0.0
    for batch in _batches(expected.plan, videos):
        for ours, theirs in zip(expected.score_batch(batch), found.score_batch(batch), strict=True):
            score, logit = _differences(ours, theirs)
            if not score <= TOLERANCE:  # not a number is no answer either
                raise ExportRefused(f"By ONNX Runtime a score differs by {score:.3g}; {TOLERANCE:g} may be.")
            if (ours.verdict, ours.reasons) != (theirs.verdict, theirs.reasons):
                raise ExportRefused("By ONNX Runtime a verdict differs, or the reasons for it.")
            windows += len(ours.segments)
            worst_score, worst_logit = max(worst_score, score), max(worst_logit, logit)
    return Parity(len(_DRAWN) + len(videos), windows, worst_score, worst_logit)


def _batches(plan: SamplePlan, videos: Sequence[Path]) -> Iterator[list[Clip]]:
    with DecoderPool(workers=1) as pool, tempfile.TemporaryDirectory(prefix="specsem-export-") as folder:
        drawn = []
        for seed, (width, height) in enumerate(_DRAWN):
            write_clip(
                path := Path(folder, f"{seed}.mp4"), width=width, height=height, seconds=1.5, seed=seed
            )
            drawn.append(pool.decode(path, replace(plan, windows=2)))
        yield drawn
        yield drawn[:1]
        yield from ([pool.decode(path, plan)] for path in videos)


def _differences(ours: ClipVerdict, theirs: ClipVerdict) -> tuple[float, float]:
    """The largest of the scores and of the logits, of the clip and its windows."""
    both = (ours, theirs)
    scores = [np.array([one.score, *(segment.score for segment in one.segments)]) for one in both]
    logits = [np.array([one.logit, *(window.logit for window in one.scores)]) for one in both]
    return float(np.abs(np.subtract(*scores)).max()), float(np.abs(np.subtract(*logits)).max())
