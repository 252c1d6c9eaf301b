"""Reports of jobs, statements of reasons, and the public keys that reports are checked with."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from app.audit import Event
from app.reports.document import Format
from app.reports.issuing import answer_of
from app.reports.statement import Statement, compose_statement
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
    "/v1/jobs/{job_id}/statement",
    tags=["Jobs"],
    dependencies=KEYED,
    summary="A statement of reasons",
    responses=problems("job_not_found", "report_unavailable", "not_ready"),
)
async def statement(job_id: JobId, parts: Services, sender: Sender) -> Statement:
    """The fields of article 17(3) of the Digital Services Act for a decision on this video: what follows from
    the answer is filled in, and `to_supply` names what only the platform can say. Unsigned, as it is a draft;
    the report is the signed record behind it.
    """
    jobs = parts.jobs
    job = await jobs.find(sender.tenant, job_id)
    result = answer_of(job)
    composed = compose_statement(
        job,
        result,
        said=await jobs.feedback(sender.tenant, job_id),
        appeal=await jobs.appeal(sender.tenant, job_id),
    )
    await jobs.note(Event("statement_issued", sender.tenant, sender.key, job_id))
    return composed


@router.get(
    "/.well-known/specsem-keys.json",
    tags=["Jobs"],
    summary="Public keys of reports",
    responses=problems("not_ready"),
)
async def keys(parts: Services) -> dict[str, Any]:
    """A JWKS (RFC 7517) of all keys that ever signed reports here, but for those that were withdrawn."""
    return dict(await parts.reports.key_set())
