"""What a report says: the record that is signed, and the sentences in it."""

from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.table import JobRow
from specsem import __version__
from specsem.explain import WHOLE
from specsem.registry import list_models
from specsem.result import Model, ScoredFile

__all__ = ["SCHEMA", "Card", "Figures", "Format", "Gap", "Order", "Picture", "Report", "Software", "compose"]

SCHEMA: Final = "urn:specsem:report:1"
Format = Literal["json", "html", "pdf"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Software(_Record):
    """Who gave the answer and wrote the report."""

    name: Literal["SpecSem"] = "SpecSem"
    version: str
    commit: str | None


class Order(_Record):
    """The job as it was submitted, and when it was done."""

    id: str
    filename: str
    bytes: int | None
    sha256: str
    url: str | None
    thorough: bool
    from_store: bool
    submitted_at: datetime
    finished_at: datetime


class Picture(_Record):
    """A picture that came with the evidence."""

    name: str
    bytes: int
    sha256: str


class Figures(_Record):
    """How good the model was on clips of families and cameras that it had not seen."""

    condition: str
    generated_clips: int
    camera_clips: int
    auc: float
    auc_interval95: tuple[float, float] | None
    found: float = Field(description="Share of the generated clips above the default threshold.")
    false_alarms: float = Field(description="Share of the camera clips above it.")


class Card(_Record):
    """The headline figures of the model's card."""

    licence: str
    summary: str
    figures: list[Figures]


class Gap(_Record):
    """Something that the report doesn't cover, and why."""

    about: Literal["coverage", "evidence", "pictures", "stability", "attribution", "c2pa", "trail", "card"]
    text: str


class Report(_Record):
    """One job's report. Everything that its renderings show is in here, but for the pictures' pixels."""

    schema_: Literal["urn:specsem:report:1"] = Field(SCHEMA, alias="$schema")
    issued_at: datetime
    software: Software
    job: Order
    result: ScoredFile
    pictures: list[Picture]
    model_card: Card | None
    gaps: list[Gap]
    limits: list[str]

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.model_dump(mode="json", by_alias=True)


def compose(
    job: JobRow, result: ScoredFile, pictures: list[Picture], *, issued_at: datetime, commit: str | None
) -> Report:
    """The report of a job that is done."""
    assert job.sha256 is not None  # noqa: S101 - it was scored
    assert job.finished_at is not None  # noqa: S101
    card = _card(result.model)
    return Report(
        issued_at=issued_at,
        software=Software(version=__version__, commit=commit),
        job=Order(
            id=job.id,
            filename=job.filename,
            bytes=job.bytes,
            sha256=job.sha256,
            url=job.url,
            thorough=job.thorough,
            from_store=job.from_store,
            submitted_at=_time(job.created_at),
            finished_at=_time(job.finished_at),
        ),
        result=result,
        pictures=pictures,
        model_card=card,
        gaps=_gaps(result, pictures, card),
        limits=LIMITS,
    )


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def _card(model: Model) -> Card | None:
    """Of the very weights that gave the score. None: they are registered no longer, or were never judged."""
    record = next((r for r in list_models() if (r.name, r.sha256) == (model.name, model.sha256)), None)
    if record is None or not (conditions := record.validation()):
        return None
    return Card(
        licence=record.licence,
        summary=record.summary,
        figures=[
            Figures(
                condition=name,
                generated_clips=found["n_generated"],
                camera_clips=found["n_real"],
                auc=found["auc"],
                auc_interval95=found.get("interval95", {}).get("auc"),
                found=found["tpr_at_threshold"],
                false_alarms=found["fpr_at_threshold"],
            )
            for name, found in conditions.items()
        ],
    )


LIMITS = [
    "The verdict says how like generated video these frames are to one model. It is evidence to weigh with "
    "other evidence, and by itself no proof of anything.",
    "Authentic does not mean true: camera video can be staged, cut, or given a false caption. It says that "
    "the model found the traces of generators too weak.",
    "The score is a probability at even odds. Where generated videos are rare, most of those that are called "
    "generated may be false alarms; where they are common, the chance of being right is higher.",
    "The false-positive rate was measured on the clips of the calibration. Other cameras, other kinds of "
    "content, and heavier compression than theirs can have another rate.",
    "Generators that came after the model may leave traces that it doesn't know. Edits of a part of the "
    "picture, exchanged faces, and short inserts in a long video were not trained for.",
    "Provenance is reported beside the verdict and is no part of it. That a file carries no provenance data "
    "is evidence of nothing: most software removes them.",
    "The signature says that the holder of the key gave this answer about a file with this SHA-256, and that "
    "nothing was changed since. It doesn't say that the answer is right.",
]


def _gaps(result: ScoredFile, pictures: list[Picture], card: Card | None) -> list[Gap]:
    """What could not be checked, or was not."""
    gaps: list[Gap] = []
    coverage, evidence, c2pa = result.coverage, result.evidence, result.provenance.c2pa
    if coverage.fraction < WHOLE:
        gaps.append(
            Gap(
                about="coverage",
                text=f"{1 - coverage.fraction:.0%} of the time line was not looked at: only "
                f"{coverage.analysed_s:.2f} of {coverage.duration_s:.2f} seconds were. The rest may differ.",
            )
        )
    if evidence is None:
        gaps.append(Gap(about="evidence", text="Evidence within the video was not asked for."))
    elif missing := {view.name for view in evidence.views} - {picture.name for picture in pictures}:
        gaps.append(
            Gap(about="pictures", text=f"{len(missing)} pictures of the evidence are no longer kept.")
        )
    if result.stability is None:
        gaps.append(
            Gap(
                about="stability",
                text="Whether the verdict outlives a re-encode, a crop or a smaller size was not tried.",
            )
        )
    if result.attribution is None:
        text = (
            "Which generator it may come from is looked for only where the verdict is that it was generated."
            if evidence is not None and result.verdict != "generated"
            else "Which generator it may come from was not asked."
        )
        gaps.append(Gap(about="attribution", text=text))
    if c2pa.status in _C2PA_GAPS:
        gaps.append(Gap(about="c2pa", text=_C2PA_GAPS[c2pa.status]))
    if result.provenance.trail is None:
        gaps.append(Gap(about="trail", text="How the file was written (its container) was not looked at."))
    if card is None:
        gaps.append(
            Gap(
                about="card",
                text="The validation figures of these weights are not on the machine that wrote this report.",
            )
        )
    return gaps


_C2PA_GAPS = {
    "not_checked": "Content credentials (C2PA) were not looked for.",
    "unsupported": "Content credentials (C2PA) can't be read in a file of this kind.",
    "failed": "Content credentials (C2PA) could not be read.",
}
