"""``/healthz``: is the process alive and moving. ``/readyz``: may it be sent work."""

from fastapi import APIRouter

from app.problems import Problem, stopping
from app.routes._openapi import problems
from app.schemas import Health, Readiness
from app.services import Services
from specsem import __version__

__all__ = ["router"]

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Liveness", responses=problems("not_ready"))
async def healthz(parts: Services) -> Health:
    """200 while the service moves on; 503 where the model's task died or a forward outlasts the time that a
    whole request has: restart it then."""
    state = parts.engine.liveness()
    # The forward's age and not that of who waits: they give up after just this time.
    if not state.alive or state.forward_s > parts.settings.request_timeout_s:
        raise Problem("not_ready", "The model no longer takes work.")
    return Health(
        status="ok",
        version=__version__,
        queued=state.queued,
        oldest_wait_s=round(state.oldest_wait_s, 3),
        forward_s=round(state.forward_s, 3),
    )


@router.get("/readyz", summary="Readiness", responses=problems("not_ready"))
async def readyz(parts: Services) -> Readiness:
    """200 after a warm-up forward; 503 before, and from the moment on that the service is told to stop."""
    if parts.drain.stopping:
        raise stopping()
    parts.engine.check_ready()
    return Readiness(
        status="ready",
        model=f"{parts.engine.record.name} {parts.engine.record.version}",
        device=parts.engine.device,
        warm_up_ms=round(parts.engine.warm_up_ms, 1),
    )
