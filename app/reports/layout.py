"""How a report is laid out for people: sections of blocks, which ``html`` and ``pdf`` draw in their ways."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from app.reports.document import Report
from specsem.result import Action, C2pa, Evidence, Segment, Trail

__all__ = [
    "Block",
    "Chart",
    "Facts",
    "Gallery",
    "Headline",
    "Page",
    "Section",
    "Sentences",
    "Shot",
    "Table",
    "lay_out",
]

ROWS = 60
"""A longer time line is a chart, and in the signed data; as a table nobody would read it."""

VERDICTS = {"generated": "Generated", "authentic": "Authentic", "inconclusive": "Inconclusive"}
ACTIONS: Mapping[Action, str] = {
    "allow": "Allow: let it pass",
    "label": "Label it as generated",
    "review": "Review: have somebody look at it",
    "block": "Block it",
}
REASONS = {
    "between_thresholds": "The score lies between the two thresholds, where both kinds of video are found.",
    "too_short": "Too little of the video could be analysed.",
    "too_small": "The frames are too small for the fine traces that the method looks at.",
    "low_quality": "Compression or blur has removed the fine detail that the method looks at.",
    "static": "Almost nothing moves: the video is close to a still picture.",
    "out_of_domain": "The video is unlike those that the model was calibrated on.",
    "unstable": "The verdict changes with small changes of the file.",
}
RESHIPPINGS = {
    "half_size": "half size",
    "reencode": "encoded again",
    "crop": "cropped",
    "flip": "mirrored",
    "fewer_frames": "fewer frames",
}
CONDITIONS = {
    "as-is": "as delivered",
    "level": "all clips encoded alike",
    "canonical": "512x512 at 8 frames per second, encoded alike",
}
C2PA = {
    "not_checked": "not looked for",
    "absent": "none in the file, which is evidence of nothing",
    "trusted": "valid, signed by somebody on the operator's list",
    "valid": "valid, but signed by somebody who is on no list here: anybody could have signed it",
    "invalid": "invalid: changed since it was signed, or badly signed",
    "unsupported": "can't be read in a file of this kind",
    "failed": "could not be read",
}

CHECKING = [
    "It is signed. Keep the file as it is: saving it anew from a browser or printing it gives another file.",
    "The command specsem verify FILE --keys KEYS checks it, offline. KEYS is what the service shows at "
    "/.well-known/specsem-keys.json, or the key's thumbprint, from a source that you trust.",
    "Without KEYS the check says only that nothing was changed since it was signed with the key inside, "
    "which anybody can make.",
]


@dataclass(frozen=True, slots=True)
class Sentences:
    """Paragraphs."""

    lines: list[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    rows: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of figures under their names."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Chart:
    """The time line: a score for each window."""

    segments: list[Segment]
    duration_s: float
    levels: list[tuple[float, str]]
    """The two thresholds."""
    text: str
    """The same for who can't see it."""

    @property
    def span_s(self) -> float:
        """What the width stands for."""
        return max(self.duration_s, *(segment.end_s for segment in self.segments), 1e-9)


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture and what it shows."""

    png: bytes
    width: int
    height: int
    caption: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures."""

    shots: list[Shot]


Block = Sentences | Facts | Table | Chart | Gallery


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class Headline:
    """What is read first."""

    verdict: Literal["generated", "authentic", "inconclusive"]
    word: str
    score: str
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """A report as people read it."""

    headline: Headline
    sections: list[Section]
    kid: str
    issued: str
    job: str
    version: str


def lay_out(report: Report, pictures: Mapping[str, bytes], kid: str) -> Page:
    """The report for people. ``pictures`` are PNGs by name."""
    return Page(
        headline=_headline(report),
        sections=list(_sections(report, pictures, kid)),
        kid=kid,
        issued=_moment(report.issued_at),
        job=report.job.id,
        version=report.software.version,
    )


def _headline(report: Report) -> Headline:
    result, threshold = report.result, report.result.threshold
    base = (
        f"At most {_rate(threshold.fpr_upper95)} of camera clips reach that: the upper 95% bound, from "
        f"{threshold.calibration_n} camera clips that the model had not seen. The policy asks for "
        f"{_rate(threshold.max_fpr)}."
    )
    lines = {
        "generated": [f"The score is {_threshold(threshold.value)} or more. {base}"],
        "authentic": [
            f"The score is below {_threshold(threshold.lower)}: the traces of generators that the model "
            "knows are too weak. That is no proof of a camera."
        ],
        "inconclusive": ["The model can't tell.", *(_reason(code) for code in result.reasons)],
    }[result.verdict]
    high = sum(segment.score >= threshold.value for segment in result.segments)
    if high and result.verdict != "generated":
        lines.append(
            f"But {high} of {len(result.segments)} windows of the time line reach "
            f"{_threshold(threshold.value)}, from where a whole video is called generated: a part of this "
            "one may be. The verdict is of the mean."
        )
    return Headline(result.verdict, VERDICTS[result.verdict], _score(result.score), lines)


def _sections(report: Report, pictures: Mapping[str, bytes], kid: str) -> Iterator[Section]:
    result, job = report.result, report.job
    yield Section("The file", [Facts(_file(report))])
    yield Section("The verdict and its basis", _verdict(report))
    yield Section("What the policy made of it", _decision(report))
    yield Section("The time line", _time_line(report))
    yield Section("Evidence", _evidence(report, pictures))
    yield Section("Stability under delivery", _stability(report))
    yield Section("Likeness to known generators", _attribution(report))
    yield Section("Provenance, as the file tells it", _provenance(report))
    yield Section("The model", _model(report))
    yield Section("What could not be checked", [Sentences([gap.text for gap in report.gaps] or ["Nothing."])])
    yield Section("What this verdict can't say", [Sentences(report.limits)])
    yield Section(
        "How this report came about",
        [
            Facts(
                [
                    ("Job", job.id),
                    ("Submitted", _moment(job.submitted_at)),
                    ("Done", _moment(job.finished_at)),
                    ("Report issued", _moment(report.issued_at)),
                    ("Software", f"SpecSem {report.software.version}"),
                    ("Commit", report.software.commit or "not known"),
                    ("Time line scanned", "the whole" if job.thorough else "windows spread over it"),
                    (
                        "Answer",
                        "from the store: the same bytes were scored before"
                        if job.from_store
                        else "made for this job",
                    ),
                    ("Times", ", ".join(f"{name} {ms:.0f} ms" for name, ms in result.timing_ms.items())),
                    ("Warnings", ", ".join(result.warnings) or "none"),
                ]
            )
        ],
    )
    yield Section(
        "How to check this report",
        [
            Sentences(CHECKING),
            Facts([("Key", kid)]),
        ],
    )


def _file(report: Report) -> list[tuple[str, str]]:
    job, media = report.job, report.result.media
    rows = [("Name", job.filename or "(none)"), ("SHA-256", job.sha256)]
    if job.bytes is not None:
        rows.append(("Size", f"{job.bytes:,} bytes"))
    if job.url is not None:
        rows.append(("Fetched from", job.url))
    fps = "of no even rate" if media.fps is None else f"{media.fps:.4g} frames per second"
    return [
        *rows,
        ("Container, codec", f"{media.container}, {media.codec}"),
        ("Picture", f"{media.width}x{media.height} pixels, {fps}"),
        ("Length", f"{media.duration_s:.2f} s"),
    ]


def _verdict(report: Report) -> list[Block]:
    result, threshold = report.result, report.result.threshold
    facts = [
        ("Verdict", VERDICTS[result.verdict]),
        ("Score", f"{_score(result.score)} (calibrated probability that it is generated, at even odds)"),
        ("Logit", f"{result.logit:.3f}"),
        ("Generated from", f"{_threshold(threshold.value)} on"),
        ("Authentic below", _threshold(threshold.lower)),
        ("False alarms asked for", f"at most {_rate(threshold.max_fpr)} of camera clips"),
        (
            "False alarms shown",
            f"at most {_rate(threshold.fpr_upper95)} (upper 95% bound from {threshold.calibration_n} clips)",
        ),
        (
            "Looked at",
            f"{result.coverage.analysed_s:.2f} of {result.coverage.duration_s:.2f} s "
            f"({result.coverage.fraction:.0%}), {result.media.frames_scored} frames",
        ),
    ]
    reasons = [_reason(code) for code in result.reasons] + [finding.text for finding in result.findings]
    return [Facts(facts), Sentences(reasons)] if reasons else [Facts(facts)]


def _decision(report: Report) -> list[Block]:
    decision = report.result.decision
    if decision is None:
        return [Sentences(["No policy was asked."])]
    facts = [
        ("Action", ACTIONS[decision.action]),
        ("Policy", f"{decision.policy}, version {decision.version}"),
        ("Rule", decision.rule or "none applies"),
    ]
    if decision.surface:
        facts.append(("Surface", decision.surface))
    if (threshold := decision.threshold) is not None:
        facts += [
            ("Acts from", f"a score of {_threshold(threshold.value)} on"),
            ("False alarms allowed", f"at most {_rate(threshold.max_fpr)} of camera clips"),
            (
                "False alarms shown",
                f"at most {_rate(threshold.fpr_upper95)} (upper 95% bound from "
                f"{threshold.calibration_n} clips)",
            ),
        ]
    return [Facts(facts), Sentences([reason.text for reason in decision.reasons])]


def _time_line(report: Report) -> list[Block]:
    result, segments = report.result, report.result.segments
    scores = [segment.score for segment in segments]
    if not scores:
        return [Sentences(["There is none."])]
    text = (
        f"{len(segments)} windows; scores from {_score(min(scores))} to {_score(max(scores))}, the highest "
        f"at {segments[scores.index(max(scores))].start_s:.2f} s."
    )
    levels = [(result.threshold.value, "generated from"), (result.threshold.lower, "authentic below")]
    chart = Chart(segments, result.media.duration_s, levels, text)
    if len(segments) > ROWS:
        return [chart, Sentences([text, "Every window is in the signed data."])]
    rows = [[f"{s.start_s:.2f}", f"{s.end_s:.2f}", _score(s.score)] for s in segments]
    return [chart, Sentences([text]), Table(["from (s)", "to (s)", "score"], rows)]


def _evidence(report: Report, pictures: Mapping[str, bytes]) -> list[Block]:
    evidence = report.result.evidence
    if evidence is None:
        return [Sentences(["It was not asked for."])]
    blocks: list[Block] = [Facts(_moments(evidence, report.result.segments))]
    if len(evidence.shares) <= ROWS:
        gates: Sequence[float | None] = evidence.gate or [None] * len(evidence.shares)
        blocks.append(
            Table(
                ["window", "spectral part of the logit", "semantic part", "gate (0 to 1)"],
                [
                    [
                        str(number + 1),
                        f"{share.spectral:+.3f}",
                        f"{share.semantic:+.3f}",
                        "-" if gate is None else f"{gate:.3f}",
                    ]
                    for number, (share, gate) in enumerate(zip(evidence.shares, gates, strict=False))
                ],
            )
        )
    shots = [
        Shot(pictures[view.name], view.width, view.height, f"{view.pts_s:.2f} s: {view.caption}")
        for view in evidence.views
        if view.name in pictures
    ]
    blocks.append(Gallery(shots) if shots else Sentences(["There are no pictures."]))
    return blocks


def _moments(evidence: Evidence, segments: list[Segment]) -> list[tuple[str, str]]:
    rows = [
        ("Highest frame", f"{evidence.highest.pts_s:.2f} s, score {_score(evidence.highest.score)}"),
        ("Lowest frame", f"{evidence.lowest.pts_s:.2f} s, score {_score(evidence.lowest.score)}"),
    ]
    if evidence.peak < len(segments):
        peak = segments[evidence.peak]
        rows.insert(0, ("Peak", f"{peak.start_s:.2f} to {peak.end_s:.2f} s, score {_score(peak.score)}"))
    return rows


def _stability(report: Report) -> list[Block]:
    stability = report.result.stability
    if stability is None:
        return [Sentences(["It was not tried."])]
    word = (
        "No change turned the verdict into its opposite."
        if stability.stable
        else "A change turned the verdict into its opposite."
    )
    return [
        Sentences([f"{word} Between the lowest and the highest score lie {stability.spread:.3f}."]),
        Table(
            ["change", "score", "verdict"],
            [[RESHIPPINGS[one.name], _score(one.score), VERDICTS[one.verdict]] for one in stability.tried],
        ),
    ]


def _attribution(report: Report) -> list[Block]:
    attribution = report.result.attribution
    if attribution is None:
        return [Sentences([gap.text for gap in report.gaps if gap.about == "attribution"])]
    return [
        Facts(
            [
                ("Most like", f"{attribution.family} (probability {attribution.probability:.2f})"),
                *((family.name, f"{family.probability:.2f}") for family in attribution.candidates),
            ]
        ),
        Sentences([attribution.basis]),
    ]


def _provenance(report: Report) -> list[Block]:
    provenance = report.result.provenance
    blocks: list[Block] = [
        Sentences(["Facts and claims of the file, beside the verdict. They have no part in it."]),
        Facts(_c2pa(provenance.c2pa)),
    ]
    blocks.append(
        Facts(_trail(provenance.trail))
        if provenance.trail
        else Sentences(["How the file was written was not looked at."])
    )
    return blocks


def _c2pa(c2pa: C2pa) -> list[tuple[str, str]]:
    rows = [("Content credentials (C2PA)", C2PA[c2pa.status])]
    given = {
        "Detail": c2pa.detail,
        "Signer": c2pa.signer,
        "Signed at": c2pa.signed_at and _moment(c2pa.signed_at),
        "Made the claim": c2pa.claim_generator,
        "Actions": ", ".join(c2pa.actions),
        "Digital source types": ", ".join(c2pa.digital_source_types),
        "Says that a model made it": "it, a part of it or an ingredient" if c2pa.says_generated else "",
        "Trust list": c2pa.trust_list,
    }
    return rows + [(name, value) for name, value in given.items() if value]


def _trail(trail: Trail) -> list[tuple[str, str]]:
    given = {
        "Written by": trail.muxer,
        "Encoded by": trail.encoder,
        "Made at": trail.created_at and _moment(trail.created_at),
        "Brands": ", ".join(trail.brands),
        "Profile": trail.profile,
        "Pixel format": trail.pixel_format,
        "First frames": trail.gop,
        "Keyframe interval": trail.keyframe_interval and f"{trail.keyframe_interval:g} frames",
        "Edit lists": str(trail.edit_lists),
        "Tracks": "; ".join(trail.tracks),
        "Bytes after the end": None if trail.trailing_bytes is None else str(trail.trailing_bytes),
    }
    return [(name, value) for name, value in given.items() if value]


def _model(report: Report) -> list[Block]:
    model, card = report.result.model, report.model_card
    facts = [("Model", f"{model.name} {model.version}"), ("SHA-256 of its weights", model.sha256)]
    if (used := report.result.calibration) is not None:
        whose = f"{used.version}, fitted from feedback" if used.version else "the model's own"
        facts += [("Calibration", whose), ("SHA-256 of its file", used.sha256)]
    if card is None:
        return [Facts(facts)]
    facts += [("Licence", card.licence), ("In short", card.summary)]
    rows = [
        [
            CONDITIONS.get(one.condition, one.condition),
            f"{one.generated_clips} + {one.camera_clips}",
            f"{one.auc:.3f}"
            + ("" if one.auc_interval95 is None else " ({:.3f} to {:.3f})".format(*one.auc_interval95)),
            f"{one.found:.1%}",
            f"{one.false_alarms:.1%}",
        ]
        for one in card.figures
    ]
    head = [
        "clips",
        "generated + camera",
        "AUC (95% interval)",
        "generated found at threshold",
        "camera called generated",
    ]
    return [
        Facts(facts),
        Sentences(
            [
                "Validated on clips of generators and cameras that it had not seen, by the default policy. "
                "The model's card says how."
            ]
        ),
        Table(head, rows),
    ]


def _reason(code: str) -> str:
    return REASONS.get(code, code.replace("_", " "))


def _score(value: float) -> str:
    """Two decimals, never rounded up to certainty."""
    return "> 0.99" if value > 0.994 else "< 0.01" if value < 0.006 else f"{value:.2f}"


def _threshold(value: float) -> str:
    """As exactly as it is needed to tell it from 0 and 1."""
    return f"{value:.4f}" if min(value, 1 - value) < 0.01 else f"{value:.2f}"


def _rate(rate: float) -> str:
    return f"{rate:.2g}" if rate < 0.001 else f"{rate:.1%}"


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
