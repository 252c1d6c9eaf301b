"""Requests and answers of /v1. A scored file is ``specsem.result.ScoredFile``, the command line's own."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from specsem.result import Threshold

__all__ = [
    "Health",
    "ModelInfo",
    "ModelList",
    "PolicyInfo",
    "PolicyList",
    "ProblemDocument",
    "Readiness",
    "ScoreVideo",
    "Video",
    "VideoMedia",
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoMedia(_Record):
    """Facts of a stored file; ``duration_s`` and ``fps`` come from its timestamps."""

    container: str
    codec: str
    width: int = Field(description="Pixels, as displayed.")
    height: int = Field(description="Pixels, as displayed.")
    fps: float | None
    duration_s: float = Field(description="Seconds.")


class Video(_Record):
    """An uploaded video."""

    id: str = Field(
        description="128 random bits in hexadecimal.", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    filename: str = Field(description="The client's name of it, for showing.", examples=["clip.mp4"])
    bytes: int
    sha256: str
    media: VideoMedia
    created_at: datetime
    expires_at: datetime = Field(description="It is removed at this time.")


class ScoreVideo(_Record):
    """Score a video that was uploaded before."""

    video: str = Field(description="Its id.", examples=["9f86d081884c7d659a2feaa0c55ad015"])
    thorough: bool = Field(False, description="Scan the whole time line instead of a few windows.")


class ModelInfo(_Record):
    """A registered model."""

    name: str
    version: str
    licence: str
    summary: str
    sha256: str = Field(description="Of its weights file; empty where none is shipped.")
    present: bool = Field(description="Whether its weights are on this machine.")
    active: bool = Field(description="Whether this service scores with it.")


class ModelList(_Record):
    """Every registered model."""

    models: list[ModelInfo]


class PolicyInfo(_Record):
    """Which scores become which verdict, and what that costs in false alarms."""

    name: str
    active: bool
    threshold: Threshold


class PolicyList(_Record):
    """The policies of the active model."""

    policies: list[PolicyInfo]


class Health(_Record):
    """Liveness."""

    status: str = Field(examples=["ok"])
    version: str
    queued: int = Field(description="Clips that wait for the model.")
    oldest_wait_s: float = Field(description="How long the first of them has waited, in seconds.")
    forward_s: float = Field(description="How long the model has been at the present batch, in seconds.")


class Readiness(_Record):
    """Readiness."""

    status: str = Field(examples=["ready"])
    model: str
    device: str
    warm_up_ms: float


class ProblemDocument(BaseModel):
    """A refusal (RFC 9457)."""

    type: str = Field(examples=["/docs#error-not_a_video"])
    title: str = Field(examples=["Not a video"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The content is of no container that is opened here."])
    code: str = Field(description="Stable.", examples=["not_a_video"])
    errors: list[dict[str, Any]] | None = Field(None, description="Which parts of the request are not valid.")
