"""What is taken of the room is what is on disk, whatever goes wrong on the way."""

import asyncio
import base64
import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import doubles
import pytest
from fastapi import FastAPI, Request
from starlette.types import Message

from app import services
from app.auth import ANYBODY, Caller
from app.main import create_app
from app.problems import Problem
from app.room import Room, Tally
from app.services import Parts
from app.settings import Settings

QUOTA = 4000
TENANTS = ("one", "two")


@dataclass
class Client:
    """Asks the application directly, chunk by chunk, and may leave in the middle of a body."""

    app: FastAPI
    dice: random.Random
    statuses: Counter[int] = field(default_factory=Counter)

    async def ask(
        self, method: str, path: str, tenant: str, headers: dict[str, str], body: bytes = b""
    ) -> dict[str, str]:
        """The answer's headers and ``status``; empty where the client left."""
        size = self.dice.choice([100, 700, 5000])
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        leaves = self.dice.random() < 0.15
        if leaves:
            chunks = chunks[: self.dice.randrange(len(chunks) + 1)]
        if self.dice.random() < 0.5:
            headers = headers | {"Content-Length": str(len(body))}
        headers = headers | {"Host": "localhost", "X-Tenant": tenant}
        answer: dict[str, str] = {}

        async def receive() -> Message:
            await asyncio.sleep(self.dice.choice([0, 0, 0.001]))
            if chunks:
                return {"type": "http.request", "body": chunks.pop(0), "more_body": True}
            if leaves:
                return {"type": "http.disconnect"}
            if not answer.get("asked"):
                answer["asked"] = "1"
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
                answer["status"] = str(message["status"])
                answer.update({name.decode(): value.decode() for name, value in message["headers"]})

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "root_path": "",
        }
        await self.app(scope, receive, send)
        return answer


async def one_upload(client: Client) -> None:
    """A plain one or one in pieces, of a good file or a bad one, with whatever may go wrong."""
    dice, tenant = client.dice, client.dice.choice(TENANTS)
    start = dice.choice([b"SCORE:0.5", b"SCORE:0.5", b"BAD:undecodable"])
    data = start.ljust(dice.randrange(20, 2500))
    tus = {"Tus-Resumable": "1.0.0"}
    if dice.random() < 0.4:
        answer = await client.ask("POST", "/v1/videos", tenant, {"Content-Type": "video/mp4"}, data)
    else:
        said = {"Upload-Length": str(len(data))} if dice.random() < 0.8 else {"Upload-Defer-Length": "1"}
        answer = await client.ask("POST", "/v1/videos", tenant, tus | said)
        for _ in range(6):
            if "location" not in answer:
                return
            looked = await client.ask("HEAD", answer["location"], tenant, tus)
            begin = int(looked.get("upload-offset", 0)) + dice.choice([0, 0, 0, 0, 7])
            piece = data[begin : begin + dice.randrange(1, 1500)]
            headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(begin)}
            if "Upload-Defer-Length" in said:
                headers["Upload-Length"] = str(len(data))
            if dice.random() < 0.4:
                digest = hashlib.sha1(dice.choice([piece, piece, b"?"]), usedforsecurity=False).digest()
                headers["Upload-Checksum"] = f"sha1 {base64.b64encode(digest).decode()}"
            await client.ask("PATCH", answer["location"], tenant, tus | headers, piece)
    if "location" in answer and dice.random() < 0.7:
        await client.ask("DELETE", answer["location"], tenant, tus)


def on_disk(data_dir: Path) -> Counter[str]:
    """Bytes of each tenant's files."""
    found: Counter[str] = Counter()
    for record in [*data_dir.glob("videos/*/video.json"), *data_dir.glob("resumable/*/upload.json")]:
        found[json.loads(record.read_text())["tenant"]] += (record.parent / "media").stat().st_size
    return found


@pytest.mark.parametrize("seed", range(3))
def test_whatever_goes_wrong_what_is_taken_is_what_is_on_disk(tmp_path: Path, seed: int) -> None:
    settings = Settings(data_dir=tmp_path, max_tenant_bytes=QUOTA, max_stored_bytes=7000, max_queue_clips=6)

    def by_header(request: Request) -> Caller:
        return replace(ANYBODY, tenant=request.headers["x-tenant"])

    def application() -> FastAPI:
        app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
        app.dependency_overrides[services._caller] = by_header
        return app

    async def scenario() -> None:
        dice = random.Random(seed)
        app = application()
        async with app.router.lifespan_context(app):
            parts: Parts = app.state.parts
            client = Client(app, dice)

            async def worker() -> None:
                for _ in range(12):
                    await one_upload(client)
                    for tenant in TENANTS:
                        assert 0 <= parts.admission.room.taken(tenant) <= QUOTA
                    if dice.random() < 0.3:
                        await dice.choice([parts.videos, parts.resumable]).sweep()

            await asyncio.gather(*(worker() for _ in range(6)))
            taken = {tenant: parts.admission.room.taken(tenant) for tenant in TENANTS}
            assert taken == {tenant: on_disk(tmp_path)[tenant] for tenant in TENANTS}
            assert (parts.admission.clips, parts.admission.bytes) == (0, 0)
            assert list((tmp_path / "uploads").glob("*/*")) == []
        assert {201, 204, 409, 413, 422, 460} <= set(client.statuses), client.statuses
        assert not {status for status in client.statuses if status >= 500} - {503}
        app = application()
        async with app.router.lifespan_context(app):
            assert taken == {tenant: app.state.parts.admission.room.taken(tenant) for tenant in TENANTS}

    asyncio.run(scenario())


def test_what_others_take_counts_too() -> None:
    room = Room(max_bytes=100, max_tenant_bytes=60, elsewhere=lambda: {"one": 50})
    assert room.taken("one") == 50
    room.check("one", 10)
    with pytest.raises(Problem, match="quota_exceeded"):
        room.check("one", 11)
    room.check("two", 50)
    with pytest.raises(Problem, match="storage_full") as refused:
        room.check("two", 51)
    assert refused.value.headers["Retry-After"] == "60"


def test_a_folder_is_believed_but_not_about_what_changed_meanwhile() -> None:
    room = Room()
    tally = Tally(room)
    for name in ("stays", "expired", "deleted", "grew"):
        tally.set(name, "", 1)
    before = tally.snapshot()
    tally.drop("deleted")
    tally.set("grew", "", 5)
    tally.set("new", "", 10)
    found = dict.fromkeys(("stays", "deleted", "grew", "theirs", "gone"), ("", 1))
    tally.reconcile(before, found, lambda name: name == "theirs")
    assert tally.snapshot() == {
        name: ("", size) for name, size in {"stays": 1, "grew": 5, "new": 10, "theirs": 1}.items()
    }
    assert (room.taken(""), tally.count("")) == (17, 4)
