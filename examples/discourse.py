"""Flags to a Discourse forum's moderators the videos that SpecSem's policy doesn't simply allow.

A webhook for post events (Admin, API, Webhooks; as JSON, with a secret) leads to /post of this program, the
API key is a user's who may flag posts, and SpecSem may fetch (SPECSEM_URL_FETCH).
"""

import hashlib
import hmac
import json
import os
import re
from typing import Any
from urllib.parse import urljoin

import httpx
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request

from specsem.client import Client

FORUM = os.environ["DISCOURSE"]
NOTIFY_MODERATORS = 7  # of Discourse's post action types: the flag that carries a message
VIDEO = re.compile(r'(?:src|href)="((?:https?:)?/[^"]+\.(?:mp4|m4v|mov|webm|ogv))"', re.IGNORECASE)

app = FastAPI(openapi_url=None)
specsem = Client(os.environ["SPECSEM_SERVICE"], key=os.environ.get("SPECSEM_KEY"))
keys = {"Api-Key": os.environ["DISCOURSE_KEY"], "Api-Username": os.environ.get("DISCOURSE_USER", "system")}
discourse = httpx.Client(base_url=FORUM, headers=keys)


@app.post("/post", status_code=202)
async def hear(request: Request, later: BackgroundTasks) -> None:
    body = await request.body()
    signed = hmac.new(os.environ["DISCOURSE_SECRET"].encode(), body, hashlib.sha256).hexdigest()
    given = request.headers.get("x-discourse-event-signature", "")
    if not hmac.compare_digest(f"sha256={signed}".encode(), given.encode()):
        raise HTTPException(401)
    if request.headers.get("x-discourse-event") in {"post_created", "post_edited"}:
        later.add_task(look, json.loads(body)["post"])


def look(post: dict[str, Any]) -> None:
    for path in dict.fromkeys(VIDEO.findall(post["cooked"])):
        url = urljoin(FORUM, path)
        # What was looked at is not looked at again: not when the event comes again, nor after an edit.
        key = hashlib.sha256(f"{post['id']} {url}".encode()).hexdigest()
        job = specsem.wait(specsem.submit_url(url, surface="discourse", idempotency_key=key))
        if job.answer and job.answer.decision and job.answer.decision.action != "allow":
            why = " ".join(reason.text for reason in job.answer.decision.reasons)
            message = f"SpecSem would {job.answer.decision.action} the video {url}: {why}"[:1000]
            flag = {"id": post["id"], "post_action_type_id": NOTIFY_MODERATORS, "message": message}
            discourse.post("/post_actions.json", json=flag).raise_for_status()
