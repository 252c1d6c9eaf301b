"""Every answer there is, of whatever route and however it ends: what it may be, and what goes around it."""

import re
from collections.abc import Iterator
from pathlib import Path

import doubles
import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from app.main import create_app
from app.routes import pages
from app.settings import Settings

KEY = "0123456789abcdef0123456789abcdef"
FOREIGN = {"Origin": "https://evil.example"}
PAGES = ("/", "/review", "/docs")
NEVER = re.compile(r"video/|audio/|multipart/|application/octet-stream|application/xhtml")
"""Types under which a client's file could come back, or run."""


@pytest.fixture(params=["open", "keyed"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(data_dir=tmp_path / "data", api_keys=[KEY] if request.param == "keyed" else [])
    application = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(application, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        doubles.until_ready(client)
        yield client


def answers(client: TestClient) -> Iterator[httpx.Response]:
    """Each route with each method, with and without key, found and not; statics; what no route has."""
    key = {"X-API-Key": KEY}
    routers = [getattr(route, "original_router", None) for route in client.app.routes]  # type: ignore[attr-defined]
    routes = [route for router in routers if router for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 12
    form = {"file": ("clip.mp4", b"SCORE:0.5", "text/html")}
    job = client.post("/v1/jobs", files=form, headers=key).json()["id"]
    video = client.post("/v1/videos", files=form, headers=key).json()["id"]
    for name in (job, video, "0" * 32, "%0d%0aX-Evil:%20yes", "..%2f..%2fapp.py"):
        for route in routes:
            path = re.sub(r"\{\w+\}", name, route.path)
            for method in (route.methods - {"DELETE"}) | {"OPTIONS", "TRACE"}:
                yield client.request(method, path, headers=key | FOREIGN)
                yield client.request(method, path, headers=FOREIGN)
    for file in pages.STATIC.rglob("*.*"):
        yield client.get(f"/static/{file.relative_to(pages.STATIC).as_posix()}")
    for path in (
        "/nothing",
        "/v1",
        "/v1/",
        "/static/",
        "/static/nothing",
        "/static/%2e%2e/main.py",
        "//v1/models",
    ):
        yield client.get(path, headers=key)
    yield client.post("/v1/score", files=form, headers=key)
    yield client.post("/v1/score", content=b"BAD:encrypted", headers=key)
    yield client.post("/v1/score", json={"url": "https://example.org/"}, headers=key)
    yield client.post("/v1/jobs", content=b"x", headers=key | {"Content-Encoding": "gzip"})
    yield client.get("/v1/models", headers=key | {"Host": "evil.example"})
    yield client.delete(f"/v1/videos/{video}", headers=key)
    client.app.state.parts = None  # type: ignore[attr-defined]
    yield client.get("/readyz")  # a 500


def test_every_answer_is_shielded(client: TestClient) -> None:
    statuses, events = set(), 0
    for answer in answers(client):
        path, headers = answer.request.url.path, answer.headers
        statuses.add(answer.status_code)
        kind = headers.get("Content-Type", "")
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in str(policy)
        assert "*" not in str(policy)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Request-Id"]
        assert (
            headers["Cross-Origin-Resource-Policy"] == headers["Cross-Origin-Opener-Policy"] == "same-origin"
        )
        assert headers["Cache-Control"] == ("no-store" if path.startswith("/v1/") else "no-cache"), path
        assert not [name for name in headers if name.startswith("access-control-")]
        assert not {"set-cookie", "server", "x-powered-by", "x-evil"} & set(headers)
        assert not NEVER.match(kind), path
        assert not kind.startswith("text/html") or path in PAGES, path
        assert answer.status_code < 400 or kind == "application/problem+json", path
        events += kind.startswith("text/event-stream")
    assert {200, 204, 403, 404, 405, 415, 422, 500} <= statuses
    assert events


def test_a_file_never_comes_back(client: TestClient) -> None:
    mark = b"SCORE:0.5 <script>alert(1)</script>"
    key = {"X-API-Key": KEY}
    job = client.post("/v1/jobs", content=mark, headers=key)
    video = client.post("/v1/videos", content=mark, headers=key)
    for location in (job.headers["Location"], video.headers["Location"]):
        for suffix in ("", "/events", "/media", "/file", "/content", "/media?inline=1"):
            assert b"<script>" not in client.get(location + suffix, headers=key).content
