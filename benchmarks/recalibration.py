"""A stream of camera clips that changes, and thresholds brought back to their stated rate by counts alone.

    python benchmarks/recalibration.py score MANIFEST SCORES.jsonl
    python benchmarks/recalibration.py show SCORES.jsonl

``score`` gives every camera clip, then each fourth generated one, its logit as delivered and at half size:
the shift, as when an application starts to shrink what it uploads. One window is looked at, which takes a
quarter of the time. ``show`` draws two thirds of the cameras (sources, not clips), again and again: operators
count there, in groups of 32 of which they only say how many are generated; the false-positive rate is
measured on the other third. A rate of 10% is stated.

The embedded model was fitted on these clips, so its scores of them are better than of others, and its own
thresholds meet none of them. Rates are therefore stated, and fitted, for the stream before the shift in the
same way: what is shown is what recalibration does to a rate, and not how good the model is.

Seen with specsem-compact 1.3.0 and the first 171 camera clips of 70 sources that were scored (40 draws,
mean): 10.4% before the shift, 34.6% after it, 10.3% recalibrated from counts of none. docs/feedback.md has
the spread.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, quantiles
from typing import Literal

from specsem.calibration import Calibration, Confirmation
from specsem.errors import MediaError
from specsem.media import DecoderPool, Delivery
from specsem.registry import get_model
from specsem.result import Threshold
from specsem.scorer import Scorer
from specsem.training.recalibrate import recalibrate

Way = Literal["before", "after"]
SHIFT: Delivery = "half_size"
GROUP = 32
RATE = 0.1
ROUNDS = 40
EVERY_GENERATED = 4


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the pack."""

    path: str
    source: str
    generated: bool
    before: float
    """Logit as delivered."""
    after: float
    """Logit at half size."""


def score(manifest: Path, out: Path) -> None:
    """Write a line a clip; those that are there are not scored again."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    done = {json.loads(line)["path"] for line in out.read_text().splitlines()} if out.exists() else set()
    real = [row for row in rows if row["label"] == "real"]
    generated = [row for row in rows if row["label"] == "generated"][::EVERY_GENERATED]
    scorer = Scorer(device="cpu")
    plan = replace(scorer.plan, windows=1)
    shuffled = random.Random(0)
    wanted = [*shuffled.sample(real, len(real)), *shuffled.sample(generated, len(generated))]
    with DecoderPool(workers=2) as pool, out.open("a") as file:
        for row in wanted:
            if row["path"] in done:
                continue
            path = manifest.parent / row["path"]
            try:
                clips = [pool.decode(path, replace(plan, delivery=delivery)) for delivery in (None, SHIFT)]
            except MediaError:
                continue
            before, after = scorer.score_batch(clips)
            facts = {key: row[key] for key in ("path", "source", "label")}
            file.write(json.dumps(facts | {"before": before.logit, "after": after.logit}) + "\n")
            file.flush()


def read(path: Path) -> list[Clip]:
    """What ``score`` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Clip(r["path"], r["source"], r["label"] == "generated", r["before"], r["after"]) for r in rows]


def counted(clips: Sequence[Clip], way: Way, drawn: random.Random) -> list[Confirmation]:
    """Groups of which only the number of generated clips is told."""
    order = drawn.sample(clips, len(clips))
    groups = [order[first : first + GROUP] for first in range(0, len(order), GROUP)]
    return [
        Confirmation(
            jobs=tuple(clip.path for clip in group),
            logits=tuple(getattr(clip, way) for clip in group),
            holds_if_generated=(True,) * len(group),
            count=sum(clip.generated for clip in group),
            at=float(number),
        )
        for number, group in enumerate(groups)
    ]


def show(path: Path) -> None:
    """Print the false-positive rate on unseen cameras: before the shift, after it, and recalibrated."""
    clips = read(path)
    own = Calibration.load(get_model().folder)
    asked = Threshold(value=0.5, lower=0.1, max_fpr=RATE, fpr_upper95=RATE, calibration_n=0)
    base = replace(own, policies={"stated": asked})
    real = [clip for clip in clips if not clip.generated]
    generated = [clip for clip in clips if clip.generated]
    print(f"{len(real)} camera clips of {len({c.source for c in real})} sources, {len(generated)} generated")
    streams = [("camera clips alone", []), *([("with generated clips", generated)] if generated else [])]
    for title, others in streams:
        rates: dict[str, list[float]] = {"before": [], "shifted": [], "recalibrated": []}
        for seed in range(ROUNDS):
            drawn = random.Random(seed)
            sources = sorted({clip.source for clip in real})
            mine = set(drawn.sample(sources, len(sources) * 2 // 3))
            inside = [clip for clip in real if clip.source in mine]
            outside = [clip for clip in real if clip.source not in mine]
            before = recalibrate(base, counted([*inside, *others], "before", drawn))
            after = recalibrate(before, counted([*inside, *others], "after", drawn))
            rates["before"].append(false_positives(before, outside, "before"))
            rates["shifted"].append(false_positives(before, outside, "after"))
            rates["recalibrated"].append(false_positives(after, outside, "after"))
        print(title)
        for name, found in rates.items():
            low, *_, high = quantiles(found, n=20)
            print(f"  {name:13} {mean(found):.1%} ({low:.1%} to {high:.1%} in 9 of 10 draws)")


def false_positives(calibration: Calibration, clips: Sequence[Clip], way: Way) -> float:
    """Share of these camera clips that is called generated."""
    value = calibration.policies["stated"].value
    return mean(calibration.probability(getattr(clip, way)) >= value for clip in clips)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser("score")
    scoring.add_argument("manifest", type=Path)
    scoring.add_argument("scores", type=Path)
    commands.add_parser("show").add_argument("scores", type=Path)
    given = parser.parse_args()
    if given.command == "score":
        score(given.manifest, given.scores)
    else:
        show(given.scores)
