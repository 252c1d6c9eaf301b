"""Reports to a Mastodon server's moderators the videos that SpecSem's policy doesn't simply allow.

A webhook for `status.created` (Administration, Webhooks) leads to /status of this program, the token is an
account's with the scope `write:reports`, and SpecSem may fetch (SPECSEM_URL_FETCH).
"""

import hashlib
import hmac
import json
import os
from typing import Any

import httpx
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request

from specsem.client import Client

app = FastAPI(openapi_url=None)
specsem = Client(os.environ["SPECSEM_SERVICE"], key=os.environ.get("SPECSEM_KEY"))
mastodon = httpx.Client(
    base_url=os.environ["MASTODON"], headers={"Authorization": f"Bearer {os.environ['MASTODON_TOKEN']}"}
)


@app.post("/status", status_code=202)
async def hear(request: Request, later: BackgroundTasks) -> None:
    body = await request.body()
    signed = hmac.new(os.environ["MASTODON_SECRET"].encode(), body, hashlib.sha256).hexdigest()
    given = request.headers.get("x-hub-signature", "")
    if not hmac.compare_digest(f"sha256={signed}".encode(), given.encode()):
        raise HTTPException(401)
    event = json.loads(body)
    if event["event"] == "status.created":
        later.add_task(look, event["object"])


def look(status: dict[str, Any]) -> None:
    for media in status["media_attachments"]:
        if media["type"] in {"video", "gifv"}:
            key = f"mastodon {media['id']}"  # an event that comes again is the same job
            url = media["url"] or media["remote_url"]  # of another server's status it may not be here yet
            job = specsem.wait(specsem.submit_url(url, surface="mastodon", idempotency_key=key))
            if job.answer and job.answer.decision and job.answer.decision.action != "allow":
                why = " ".join(reason.text for reason in job.answer.decision.reasons)
                report = {
                    "account_id": status["account"]["id"],
                    "status_ids": [status["id"]],
                    "category": "other",
                    "comment": f"SpecSem would {job.answer.decision.action} its video {url}: {why}"[:1000],
                }
                mastodon.post("/api/v1/reports", json=report).raise_for_status()
