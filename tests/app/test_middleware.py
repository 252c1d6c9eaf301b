"""Who may ask, and what surrounds every answer."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doubles
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from app.auth import Keyring
from app.main import create_app
from app.middleware import AccessGuard, Lingering
from app.quotas import Failures
from app.settings import Settings, parse_rate

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(data_dir=tmp_path / "data", host="0.0.0.0", api_keys=[KEY, "x" * 20])  # noqa: S104
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(app, base_url="http://192.0.2.7") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY} "},
        {"X-API-Key": KEY},
        {"X-API-Key": "x" * 20},
    ],
)
def test_a_key_opens_v1(keyed: TestClient, headers: dict[str, str]) -> None:
    assert keyed.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"X-API-Key": ""},
        {"X-API-Key": "é" * 32},
    ],
)
def test_no_key_no_entry(keyed: TestClient, headers: dict[str, str]) -> None:
    headers = {name: value.encode("latin-1") for name, value in headers.items()}  # type: ignore[misc]
    for path in ("/v1/models", "/v1/nothing", "/v1", "/v1/videos/" + "0" * 32, "/nothing", "//v1/models"):
        answer = keyed.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthorized"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/static/base.css"])
def test_what_needs_no_key(keyed: TestClient, path: str) -> None:
    assert keyed.get(path).status_code == 200


@pytest.mark.parametrize(("root_path", "path"), [("/at", "/at/v1/models"), ("/static", "/static/v1/models")])
def test_a_root_path_is_no_way_round_the_key(root_path: str, path: str) -> None:
    scope = _scope(("10.0.0.1", 80)) | {"root_path": root_path}
    settings = Settings(api_keys=[KEY])
    assert _refusal(settings, scope | {"path": path}) == "unauthorized"
    assert _refusal(settings, scope | {"path": f"{root_path}/docs"}) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[::1", "a b", "10.0.0.1"],
)
def test_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/v1/models", "/healthz"):
        answer = client.get(path, headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "host_refused")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST."]
)
def test_loopback_host_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_configured_host_names_are_served(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, allowed_hosts=["Specsem.example"], api_keys=[KEY])
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    with TestClient(app, base_url="https://specsem.example", headers={"X-API-Key": KEY}) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers={"Host": "other.example"}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://127.0.0.1"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:9"}, False),
    ],
)
def test_other_sites_may_not_write(client: TestClient, headers: dict[str, str], allowed: bool) -> None:
    answer = client.post("/v1/score", files={"file": b"SCORE:0.5"}, headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert allowed or answer.json()["code"] == "cross_site"


def _scope(server: tuple[str, int | None] | None) -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1")]
    return {"type": "http", "method": "GET", "path": "/v1/models", "headers": headers, "server": server}


@pytest.mark.parametrize(
    ("server", "exposed"),
    [
        (("127.0.0.1", 8000), False),
        (("::1", 8000), False),
        (("/run/specsem.sock", None), False),
        (None, False),
        (("192.168.0.9", 8000), True),
        (("::ffff:10.0.0.1", 8000), True),
    ],
)
def test_however_it_was_started_it_answers_on_loopback_alone(
    server: tuple[str, int | None] | None, exposed: bool
) -> None:
    assert _refusal(Settings(api_keys=[]), _scope(server)) == ("exposure_refused" if exposed else None)


def _refusal(settings: Settings, scope: dict[str, Any]) -> str | None:
    """The code by which the guard refuses; None: it passes the request on."""
    passed_on: list[Any] = []
    sent: list[Message] = []

    async def app(*request: Any) -> None:
        passed_on.append(request)

    async def send(message: Message) -> None:
        sent.append(message)

    guard = AccessGuard(
        app, keyring=Keyring(settings), failures=Failures(parse_rate("9/minute")), allowed_hosts=[]
    )
    asyncio.run(guard(scope, asyncio.Queue().get, send))
    assert len(passed_on) == (not sent)
    return json.loads(sent[1]["body"])["code"] if sent else None


def test_an_unforeseen_error_tells_an_id_and_nothing_else(
    client: TestClient,
    decoder: doubles.Decoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr(decoder, "decode", fails)
    answer = client.post("/v1/score", files={"file": b"x"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert answer.json()["id"] == answer.headers["X-Request-Id"]
    assert answer.json()["id"] in caplog.text


def test_lingering_answers_before_it_drains() -> None:
    sent: list[Message] = []
    chunks = iter([b"x" * 10] * 3)

    async def receive() -> Message:
        sent.append({"type": "read"})
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Message) -> None:
        sent.append(message)

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    scope = {"type": "http", "headers": [(b"content-length", b"30")]}
    asyncio.run(Lingering(refuses)(scope, receive, send))
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.body",
        *["read"] * 4,
        "http.response.body",
    ]
    assert (b"connection", b"close") in [(k.lower(), v) for k, v in sent[0]["headers"]]
    assert (sent[1]["body"], sent[1]["more_body"], sent[-1]["more_body"]) == (b"no", True, False)
