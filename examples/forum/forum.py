"""A tiny forum whose uploads SpecSem looks at: shown, labelled, held for moderators, or blocked.

A post is scored as a job, and waits unseen until a webhook brings the decision. What moderators decide goes
back as feedback. It is an example: there is no login, and whoever reaches it is a moderator.
"""

import os
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates

from specsem.client import Client, NotGenuine, ServiceError, verify
from specsem.records import JobEvent, JobEventData

DATA = Path(os.environ.get("FORUM_DATA", "forum-data"))
HOOK = os.environ.get("FORUM_HOOK", "http://127.0.0.1:8080/hook")
"""Where SpecSem finds this forum."""
MAX_BYTES = 100_000_000
SECTIONS = ("chat", "news", "market")
"""Each is a surface, of which policies.json says what is done about a generated video there."""
STATES = {"allow": "shown", "label": "labelled", "review": "held", "block": "blocked"}

specsem = Client(
    os.environ.get("SPECSEM_SERVICE", "http://127.0.0.1:8000"), key=os.environ.get("SPECSEM_KEY")
)
"""Its key, where one is needed, has the scopes jobs, review and webhooks."""
templates = Jinja2Templates(Path(__file__).parent / "templates")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Has itself told of how jobs end, once and for all: the secret is kept."""
    (DATA / "videos").mkdir(parents=True, exist_ok=True)
    with database() as db:
        db.execute("CREATE TABLE IF NOT EXISTS webhook (secret)")
        db.execute("CREATE TABLE IF NOT EXISTS posts (id PRIMARY KEY, section, title, job, state, because)")
        if db.execute("SELECT secret FROM webhook").fetchone() is None:
            webhook = specsem.create_webhook(HOOK, events=["job.done", "job.failed"], description="forum")
            db.execute("INSERT INTO webhook VALUES (?)", [webhook.secret])
    yield


app = FastAPI(title="Forum", lifespan=lifespan, openapi_url=None)


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """A transaction."""
    connection = sqlite3.connect(DATA / "forum.db")
    connection.row_factory = sqlite3.Row
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def change(db: sqlite3.Connection, post: str, state: str, because: str) -> None:
    db.execute("UPDATE posts SET state = ?, because = ? WHERE id = ?", [state, because, post])


@app.get("/")
def read(request: Request) -> Response:
    with database() as db:
        posts = db.execute("SELECT * FROM posts ORDER BY rowid DESC LIMIT 50").fetchall()
    return templates.TemplateResponse(request, "forum.html", {"posts": posts, "sections": SECTIONS})


@app.post("/posts")
def write(
    section: Annotated[Literal["chat", "news", "market"], Form()],
    title: Annotated[str, Form(max_length=200)],
    video: UploadFile,
) -> Response:
    """Takes a post. Whatever becomes of it: nobody sees it before it was decided on."""
    if (video.size or 0) > MAX_BYTES:
        raise HTTPException(413, "The video is too large.")
    post = uuid.uuid4().hex
    path = DATA / "videos" / post
    with path.open("wb") as file:
        shutil.copyfileobj(video.file, file)
    with database() as db:
        db.execute("INSERT INTO posts VALUES (?, ?, ?, NULL, 'waiting', '')", [post, section, title])
    try:
        job = specsem.submit(path, surface=section, idempotency_key=post)
    except ServiceError as error:  # what no machine could look at, people do
        with database() as db:
            change(db, post, "held", error.message)
    else:
        with database() as db:
            db.execute("UPDATE posts SET job = ? WHERE id = ?", [job.id, post])
    return RedirectResponse("/", 303)


async def body_of(request: Request) -> bytes:
    return await request.body()


@app.post("/hook", status_code=204)
def hear(request: Request, body: Annotated[bytes, Depends(body_of)]) -> None:
    """What SpecSem tells. It may come twice; what may be of a post that is being submitted is sent again."""
    with database() as db:
        secret = db.execute("SELECT secret FROM webhook").fetchone()["secret"]
        try:
            event = verify(body, request.headers, secret).event
        except NotGenuine as error:
            raise HTTPException(401) from error
        if not isinstance(event, JobEvent):
            return
        post = db.execute("SELECT id, state FROM posts WHERE job = ?", [event.data.job]).fetchone()
        submitting = "SELECT id FROM posts WHERE job IS NULL AND state = 'waiting'"
        if post is None and db.execute(submitting).fetchone():
            raise HTTPException(503, headers={"Retry-After": "1"})
        if post is not None and post["state"] == "waiting":  # what a moderator decided stays
            change(db, post["id"], *outcome(event.data))


def outcome(data: JobEventData) -> tuple[str, str]:
    """The state of a post, and why."""
    if data.decision is None:
        return "held", data.error.message if data.error else "Nothing was decided."
    return STATES[data.decision.action], " ".join(reason.text for reason in data.decision.reasons)


@app.post("/posts/{post}/decision")
def decide(post: str, state: Annotated[Literal["shown", "labelled", "blocked"], Form()]) -> Response:
    """What a moderator found: it is done here, and told to SpecSem, whose thresholds can be fitted to it."""
    with database() as db:
        row = db.execute("SELECT job FROM posts WHERE id = ?", [post]).fetchone()
        if row is None:
            raise HTTPException(404)
        try:
            if row["job"] is not None:
                specsem.decide(row["job"], "real" if state == "shown" else "generated")
        except ServiceError as error:
            if error.code not in {"job_not_done", "job_not_found"}:  # of those there is no answer to judge
                raise HTTPException(503, error.message) from error
        change(db, post, state, "A moderator has decided.")
    return RedirectResponse("/", 303)


@app.get("/videos/{post}")
def watch(post: str, *, moderating: bool = False) -> Response:
    """The video, if everybody may see it or a moderator asks."""
    with database() as db:
        row = db.execute("SELECT state FROM posts WHERE id = ?", [post]).fetchone()
    if row is None or not (moderating or row["state"] in {"shown", "labelled"}):
        raise HTTPException(404)
    return FileResponse(
        DATA / "videos" / post, media_type="video/mp4", headers={"X-Content-Type-Options": "nosniff"}
    )
