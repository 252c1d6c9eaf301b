"""The parts that routes share, made once by ``app.main`` and handed to them as a dependency."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.admission import Admission
from app.auth import Caller, Keyring
from app.engines import Engine
from app.jobs.service import Jobs
from app.middleware import CALLER
from app.scoring import Scoring
from app.settings import Settings
from app.stopping import Drain
from app.uploads import Inbox
from app.videos import VideoStore

__all__ = ["Parts", "Services", "Tenant"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a route may need."""

    settings: Settings
    engine: Engine
    scoring: Scoring
    admission: Admission
    inbox: Inbox
    videos: VideoStore
    jobs: Jobs
    keyring: Keyring
    drain: Drain


# async, though nothing is awaited: what is not would cost each request a trip to a thread.


async def _parts(request: Request) -> Parts:
    parts = request.app.state.parts
    if not isinstance(parts, Parts):
        raise TypeError("the application was not started")
    return parts


Services = Annotated[Parts, Depends(_parts)]


async def _tenant(request: Request) -> str:
    """Whose request it is; the tenant without a name where no key is needed."""
    caller: Caller = request.scope[CALLER]
    return caller.tenant


Tenant = Annotated[str, Depends(_tenant)]
