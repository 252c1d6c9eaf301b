"""The parts that routes share, made once by ``app.main`` and handed to them as a dependency."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.admission import Admission
from app.auth import Caller, Keyring
from app.calibrations import CalibrationStore
from app.drift import DriftWatch
from app.engines import Engine
from app.jobs.service import Jobs
from app.middleware import CALLER
from app.observability.telemetry import Telemetry
from app.problems import Problem, stopping
from app.reports.issuing import Reports
from app.resumable import ResumableUploads
from app.scoring import Scoring
from app.settings import Settings
from app.uploads import Inbox
from app.videos import VideoStore
from app.webhooks.service import Webhooks

__all__ = ["Parts", "Running", "Sender", "Services", "Tenant", "Works"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """What every process of ours has, the service and a worker beside it."""

    settings: Settings
    engine: Engine
    scoring: Scoring
    jobs: Jobs
    webhooks: Webhooks
    calibrations: CalibrationStore
    drift: DriftWatch
    telemetry: Telemetry

    def check_ready(self) -> None:
        """Raises ``Problem`` ``not_ready`` (503), which says why it should be sent no work."""
        if self.jobs.stopping:
            raise stopping()
        self.engine.check_ready()
        if self.jobs.decider.refused:
            raise Problem("not_ready", self.jobs.decider.refused)
        if self.jobs.database_away:
            raise Problem("not_ready", "The database of jobs can't be reached.")
        if self.jobs.house.disk_free_bytes < self.settings.min_free_bytes:
            raise Problem("not_ready", "The disk of the data folder is nearly full.")

    @property
    def ready(self) -> bool:
        """Whether it may be sent work."""
        try:
            self.check_ready()
        except Problem:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Works):
    """Everything that a route may need."""

    admission: Admission
    inbox: Inbox
    videos: VideoStore
    resumable: ResumableUploads
    keyring: Keyring
    reports: Reports


# Dependencies are coroutines: FastAPI runs a plain function in a thread, which costs more than they do.


async def _works(request: Request) -> Works:
    works = request.app.state.parts
    if not isinstance(works, Works):
        raise TypeError("the application was not started")
    return works


async def _parts(works: Annotated[Works, Depends(_works)]) -> Parts:
    if not isinstance(works, Parts):
        raise TypeError("this process takes no videos")
    return works


Running = Annotated[Works, Depends(_works)]
Services = Annotated[Parts, Depends(_parts)]


async def _caller(request: Request) -> Caller:
    """Whose request it is; ``ANYBODY`` where no key is needed."""
    caller: Caller = request.scope[CALLER]
    return caller


Sender = Annotated[Caller, Depends(_caller)]


async def _tenant(caller: Sender) -> str:
    """The tenant without a name where no key is needed."""
    return caller.tenant


Tenant = Annotated[str, Depends(_tenant)]
