"""What machines ask of a process: does it live, may it be sent work, what is it, how does it do."""

from fastapi import APIRouter, Request, Response

from app.problems import Problem
from app.routes._openapi import problems
from app.schemas import Health
from app.services import Running
from app.version import built_from
from specsem import __version__
from specsem.records import Readiness, Version
from specsem.result import Model

__all__ = ["router"]

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Liveness", responses=problems("not_ready"))
async def healthz(works: Running) -> Health:
    """200 while the service moves on; 503 where the model's task died or a forward outlasts the time that a
    whole request has: restart it then."""
    state = works.engine.liveness()
    # The forward's age and not that of who waits: they give up after just this time.
    if not state.alive or state.forward_s > works.settings.request_timeout_s:
        raise Problem("not_ready", "The model no longer takes work.")
    return Health(
        status="ok",
        version=__version__,
        queued=state.queued,
        oldest_wait_s=round(state.oldest_wait_s, 3),
        forward_s=round(state.forward_s, 3),
    )


@router.get("/readyz", summary="Readiness", responses=problems("not_ready"))
async def readyz(works: Running) -> Readiness:
    """200 while it may be sent work: the model has run a warm-up forward, the database of jobs answers, the
    disk has room, and nobody has told it to stop. 503 says which of these is missing."""
    works.check_ready()
    return Readiness(
        status="ready",
        model=f"{works.engine.record.name} {works.engine.record.version}",
        device=works.engine.device,
        warm_up_ms=round(works.engine.warm_up_ms, 1),
    )


@router.get("/version", summary="Version", responses=problems())
async def version(works: Running) -> Version:
    """The software, the commit that it was built from where that is known, and the model in use."""
    record = works.engine.record if works.engine.ready else None
    return Version(
        version=__version__,
        commit=works.settings.commit or built_from(),
        model=record and Model(name=record.name, version=record.version, sha256=record.sha256),
    )


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, works: Running) -> Response:
    """For Prometheus, in its text format or as OpenMetrics. On the loop: what it reads is the loop's."""
    text, media_type = works.telemetry.metrics.render(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})
