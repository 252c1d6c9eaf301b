"""Reports of jobs, and the public keys that they are checked with."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from app.reports.document import Format
from app.routes._openapi import KEYED, problems
from app.routes.jobs import JobId
from app.services import Sender, Services

__all__ = ["router"]

router = APIRouter()

FILE = {"schema": {"type": "string", "format": "binary"}}
REPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report, as a file to keep.",
        "content": {"application/json": {}, "text/html": FILE, "application/pdf": FILE},
    }
}


@router.get(
    "/v1/jobs/{job_id}/report",
    tags=["Jobs"],
    dependencies=KEYED,
    summary="A signed report",
    response_class=Response,
    responses=REPORT | problems("job_not_found", "report_unavailable", "invalid_request", "not_ready"),
)
async def report(
    job_id: JobId,
    parts: Services,
    sender: Sender,
    rendering: Annotated[
        Format, Query(alias="format", description="For machines, for the screen, or for paper.")
    ] = "json",
) -> Response:
    """All that is known of a job that is done, to keep and to pass on: `specsem verify` checks it offline, in
    each format, by the keys at `/.well-known/specsem-keys.json`. Asked again, it differs in its times alone.
    """
    issued = await parts.reports.issue(
        await parts.jobs.find(sender.tenant, job_id), rendering, key=sender.key
    )
    # A file to keep, and not a page to look at: what a browser saves of a page has other bytes.
    disposition = f'attachment; filename="{issued.filename}"'
    return Response(
        issued.content, media_type=issued.media_type, headers={"Content-Disposition": disposition}
    )


@router.get(
    "/.well-known/specsem-keys.json",
    tags=["Jobs"],
    summary="Public keys of reports",
    responses=problems("not_ready"),
)
async def keys(parts: Services) -> dict[str, Any]:
    """A JWKS (RFC 7517) of all keys that ever signed reports here, but for those that were withdrawn."""
    return dict(await parts.reports.key_set())
