"""A statement of reasons: what SpecSem knows of it, and what only the platform can say.

Source: Regulation (EU) 2022/2065 (Digital Services Act), article 17(3), points (a) to (f). Who restricts what
somebody uploaded owes them such a statement. A detector knows neither the restriction nor its ground: those
fields are null here, and ``to_supply`` names each with its point. It is no statement before they are filled.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.table import FeedbackRow, JobRow
from specsem.records import Label
from specsem.result import CalibrationUsed, Finding, Model, ScoredFile, Threshold, Verdict

__all__ = ["SCHEMA", "Statement", "compose_statement"]

SCHEMA: Final = "urn:specsem:statement:1"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Measure(_Record):
    """Point (a): what was done, where and for how long."""

    proposed: dict[str, Any] | None = Field(
        description="The decision of the policy, where one was asked: a proposal, not what was done."
    )
    restriction: str | None = Field(
        None, description="Removal, disabling of access, demotion, restricted visibility, or of payments."
    )
    territorial_scope: str | None = None
    duration: str | None = None


class Facts(_Record):
    """Point (b): facts and circumstances relied on."""

    filename: str
    sha256: str
    scored_at: datetime
    verdict: Verdict
    score: float
    threshold: Threshold
    findings: list[Finding]
    text: str
    origin: Literal["notice", "own_initiative"] | None = Field(
        None, description="Whether a notice under article 16 led to it, or an investigation of one's own."
    )
    notifier: str | None = Field(None, description="Only where strictly necessary.")


class Automated(_Record):
    """Point (c): the use of automated means."""

    assessed: Literal[True] = Field(True, description="The content was assessed by automated means.")
    model: Model
    calibration: CalibrationUsed | None
    text: str
    reviewed_by_human: bool = Field(description="An operator decided on this answer at the review queue.")
    reviewed_at: datetime | None
    reviewed_as: Label | None = Field(description="What the operator found it to be; null: unsure.")
    detected: bool | None = Field(None, description="Whether automated means brought it to attention.")
    decided: Literal["fully", "partially", "not"] | None = Field(
        None, description="How far the decision itself was automated."
    )


class IllegalContent(_Record):
    """Point (d): where it is held to be illegal."""

    legal_ground: str | None = None
    explanation: str | None = None


class IncompatibleContent(_Record):
    """Point (e): where it is held to be against the terms and conditions."""

    contractual_ground: str | None = None
    explanation: str | None = None


class SecondLook(_Record):
    """An appeal that was answered here."""

    job: str
    status: str
    verdict: Verdict | None
    agrees: bool | None = Field(description="Whether the verdict is the first one's; null before it is done.")


class Redress(_Record):
    """Point (f): what the recipient can do."""

    second_look_at: str | None = Field(
        description="Path where SpecSem takes an appeal; null where there was one. It replaces nothing else."
    )
    second_look: SecondLook | None
    internal_complaint: str | None = Field(None, description="Article 20: where, and until when.")
    out_of_court: str | None = Field(None, description="Article 21: a certified body.")
    judicial: str | None = None


class Blank(_Record):
    """A field that the platform has to fill."""

    field: str = Field(description="JSON pointer (RFC 6901).", examples=["/measure/restriction"])
    point: str = Field(description="Of article 17(3).", examples=["(a)"])
    what: str


class Statement(_Record):
    """What of a statement of reasons follows from an answer."""

    schema_: Literal["urn:specsem:statement:1"] = Field(SCHEMA, alias="$schema")
    issued_at: datetime
    job: str
    measure: Measure
    facts: Facts
    automated_means: Automated
    illegal_content: IllegalContent
    incompatible_content: IncompatibleContent
    redress: Redress
    to_supply: list[Blank]


BLANKS = [
    Blank(
        field="/measure/restriction",
        point="(a)",
        what="What was done: removal, disabling of access, demotion, restricted visibility, suspension or "
        "termination of payments, or another measure of article 17(1).",
    ),
    Blank(field="/measure/territorial_scope", point="(a)", what="Where it applies, where that is relevant."),
    Blank(field="/measure/duration", point="(a)", what="For how long, where that is relevant."),
    Blank(
        field="/facts/origin",
        point="(b)",
        what="Whether a notice under article 16 or a voluntary investigation of your own led to it.",
    ),
    Blank(field="/facts/notifier", point="(b)", what="Who sent the notice, only where strictly necessary."),
    Blank(
        field="/automated_means/detected",
        point="(c)",
        what="Whether automated means detected or identified the content; here it was assessed by some.",
    ),
    Blank(
        field="/automated_means/decided",
        point="(c)",
        what="How far the decision was automated: whether somebody decided, or a verdict was enough.",
    ),
    Blank(field="/illegal_content/legal_ground", point="(d)", what="The law, if it is held to be illegal."),
    Blank(
        field="/illegal_content/explanation",
        point="(d)",
        what="Why it is illegal on that ground. That it is AI-generated is seldom enough.",
    ),
    Blank(
        field="/incompatible_content/contractual_ground",
        point="(e)",
        what="The clause of your terms, if it is held to be against them.",
    ),
    Blank(field="/incompatible_content/explanation", point="(e)", what="Why it is against that clause."),
    Blank(
        field="/redress/internal_complaint",
        point="(f)",
        what="How to complain to you (article 20), for at least six months, and not to a machine alone.",
    ),
    Blank(
        field="/redress/out_of_court", point="(f)", what="Certified bodies that settle disputes (article 21)."
    ),
    Blank(field="/redress/judicial", point="(f)", what="That courts are open, and which."),
]


def compose_statement(
    job: JobRow,
    result: ScoredFile,
    *,
    said: Sequence[FeedbackRow],
    appeal: JobRow | None,
) -> Statement:
    """What is known of the reasons for a decision on a job that is done.

    Args:
        said: What counts of what was said of the answer, the latest first.
        appeal: The second look at it, if there is one; its verdict is in its row.
    """
    assert job.finished_at is not None  # noqa: S101 - it is done
    threshold, decision = result.threshold, result.decision
    review = next((row for row in said if row.source == "review"), None)
    return Statement(
        issued_at=datetime.now(UTC).replace(microsecond=0),
        job=job.id,
        measure=Measure(proposed=decision and decision.model_dump(mode="json")),
        facts=Facts(
            filename=job.filename,
            sha256=result.sha256,
            scored_at=datetime.fromtimestamp(job.finished_at, UTC),
            verdict=result.verdict,
            score=result.score,
            threshold=threshold,
            findings=result.findings,
            text=_facts(result),
        ),
        automated_means=Automated(
            model=result.model,
            calibration=result.calibration,
            text=f"The video was assessed by {result.model.name} {result.model.version}, a model that tells "
            "AI-generated video from camera video by its pixels. Its score is the probability that the video "
            "is generated, at even odds; it is evidence and no proof. Of camera videos, at most "
            f"{threshold.fpr_upper95:.1%} reach the threshold of {threshold.value:.3f} (upper 95% bound, "
            f"from {threshold.calibration_n} of them); {threshold.max_fpr:.1%} were asked for.",
            reviewed_by_human=review is not None,
            reviewed_at=None if review is None else datetime.fromtimestamp(review.created_at, UTC),
            reviewed_as=None if review is None else review.label,
        ),
        illegal_content=IllegalContent(),
        incompatible_content=IncompatibleContent(),
        redress=Redress(
            second_look_at=f"/v1/jobs/{job.id}/appeal" if appeal is None and job.appeal_of is None else None,
            second_look=None if appeal is None else _second_look(appeal, result.verdict),
        ),
        to_supply=BLANKS,
    )


def _facts(result: ScoredFile) -> str:
    begun = {
        "generated": "The video was found to be like AI-generated video",
        "authentic": "The video was found to be like camera video",
        "inconclusive": "Whether the video is AI-generated could not be told",
    }[result.verdict]
    found = " ".join(finding.text for finding in result.findings)
    return f"{begun}: it scores {result.score:.3f} of 1. {found}".rstrip()


def _second_look(appeal: JobRow, verdict: Verdict) -> SecondLook:
    status = appeal.status_now
    found: Any = appeal.verdict if status == "done" else None
    return SecondLook(
        job=f"/v1/jobs/{appeal.id}",
        status=status,
        verdict=found,
        agrees=None if found is None else found == verdict,
    )
