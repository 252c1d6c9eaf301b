"""What a connector is: where videos come from, and where their verdicts go."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from specsem.errors import SpecSemError
from specsem.records import Job

__all__ = ["ConnectorUnusable", "Delivery", "Outcome", "Sink", "Source", "Unfit"]


class ConnectorUnusable(SpecSemError):
    """What a connector needs isn't there: a folder, a queue, a package, a key."""

    code = "connector_unusable"


class Unfit(SpecSemError):
    """A delivery that is of no use however often it is tried: a file that is gone, say."""

    code = "unfit"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One video to be scored."""

    id: str
    """The same each time that it is delivered: its job is made once."""
    name: str
    """For people."""
    fetch: Callable[[Path], Path | str] = field(repr=False)
    """Brings the file into the folder that it is given and says where it is, or names an address (``https:``)
    where the service gets it. In a thread of its own. Raises ``Unfit``."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the source says of it; goes along into the outcome. JSON."""
    handle: Any = field(default=None, repr=False)
    """The source's own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery."""

    delivery: Delivery
    job: Job | None
    error: SpecSemError | None = None
    """Why it is set aside."""

    def record(self) -> dict[str, Any]:
        """For whoever hears of it. The answer is that of the job, as the service gave it."""
        error = None
        if self.error is not None:
            error = {"code": self.error.code, "message": self.error.message}
        return {
            "id": self.delivery.id,
            "name": self.delivery.name,
            "about": dict(self.delivery.about),
            "job": self.job.id if self.job else None,
            "answer": self.job.result if self.job else None,
            "error": error,
        }

    def why_aside(self, origin: str) -> dict[str, str]:
        """What a stream of dead letters keeps beside the record as it came; ``origin`` is its place."""
        return {
            "specsem-error-code": self.error.code if self.error else "",
            "specsem-error-message": self.error.message if self.error else "",
            "specsem-delivery": self.delivery.id,
            "specsem-origin": origin,
        }

    def write(self, path: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """The record as a file, all of it or nothing. Raises ``OSError``."""
        draft = path.with_name(f".{path.name}")
        draft.write_text(json.dumps({**self.record(), **more}, indent=1), encoding="utf-8")
        draft.replace(path)


class Source(Protocol):
    """Where videos come from. Used by one thread, but for ``Delivery.fetch``."""

    def receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:
        """At most so many deliveries that are not under way here; none where none came within ``wait_s``.
        Raises ``OSError`` where it may go better later.

        What isn't settled by the end of the process is delivered again, here or elsewhere.
        """

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """These are still under way: nobody else should get them. Called every few seconds."""

    def done(self, outcome: Outcome) -> None:
        """It was scored, and its verdict has been sent: don't deliver it again."""

    def set_aside(self, outcome: Outcome) -> None:
        """It can't be scored: keep it where a person finds it, with the reason; don't deliver it again."""

    def close(self) -> None:
        """Let go of connections."""


class Sink(Protocol):
    """Where verdicts go."""

    def send(self, outcome: Outcome) -> None:
        """Returns once it has arrived: only then its delivery is settled. Raises ``OSError`` where it may go
        better later."""

    def close(self) -> None:
        """Let go of connections."""
