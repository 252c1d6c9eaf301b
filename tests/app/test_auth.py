"""What a key opens: each route, its own tenant, and for how long."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import doubles
import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from test_jobs_routes import service
from test_main import check_problem

from app import auth
from app.auth import PUBLIC, SCOPES
from app.keys import KeyScope, KeyStore, open_keys
from app.main import create_app
from app.settings import Settings

CONFIGURED = "0123456789abcdef0123456789abcdef"
WRONG = f"specsem_{'0' * 12}_{'0' * 64}"
Make = Callable[..., dict[str, str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a key for the service of this test, as the command line does; gives its header."""

    def made(**given: Any) -> dict[str, str]:
        with open_keys(Settings(data_dir=tmp_path)) as store:
            return bearer(store.create(**given)[0])

    return made


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def revoke(data_dir: Path, header: dict[str, str], **how: bool) -> None:
    with open_keys(Settings(data_dir=data_dir)) as store:
        store.revoke(header["Authorization"].partition(" ")[2], **how)


# -- routes -------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_table_and_nothing_else(settings: Settings) -> None:
    """A new route goes into ``app.auth.SCOPES``, or into ``PUBLIC``."""
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    there = set()
    for route in iter_route_contexts(app.routes):
        path = re.sub(r"\{\w+\}", "{id}", route.path or "")
        if path in PUBLIC:
            assert route.methods is not None
            assert route.methods <= {"GET", "HEAD"}
        elif path not in {"/static", "/static/charts"}:
            assert route.methods, f"{path} is mounted: nobody knows what is in it"
            there |= {(path, method) for method in route.methods}
    named = {(path, method) for path, methods in SCOPES.items() for method in methods}
    assert there <= named
    assert named - there <= {("/metrics", "GET")}  # which comes with the metrics


@pytest.mark.parametrize("scope", KeyScope)
def test_a_scope_opens_its_routes_and_no_other(scope: KeyScope, tmp_path: Path, make: Make) -> None:
    key = make(scopes=[scope])
    with service(tmp_path, job_slots=0) as client:
        for path, methods in SCOPES.items():
            for method, scopes in methods.items():
                answer = client.request(method, path.format(id="0" * 32), headers=key)
                assert (answer.status_code == 403) == (scope not in scopes), (method, path)
                if answer.status_code == 403 and answer.content:  # not for HEAD
                    check_problem(answer, 403, "forbidden")


def test_a_route_that_nobody_thought_of_is_closed(tmp_path: Path, make: Make) -> None:
    key = make(scopes=list(KeyScope))
    settings = Settings(data_dir=tmp_path)
    app = create_app(settings, doubles.Engine(settings), doubles.Decoder())
    app.add_api_route("/v1/secret", lambda: "told", methods=["GET"])
    app.add_api_route("/v1/jobs/{job_id}", lambda: "told", methods=["PUT"])
    with TestClient(app, base_url="http://127.0.0.1", headers=key) as client:
        check_problem(client.get("/v1/secret"), 404, "no_such_route")
        put = client.put("/v1/jobs/x")
        check_problem(put, 405, "method_not_allowed")
        assert put.headers["Allow"] == "GET, DELETE"


def test_what_is_not_there_is_said_to_who_has_a_key(tmp_path: Path, make: Make) -> None:
    key = make()
    with service(tmp_path, job_slots=0) as client:
        for path in ("/v1/nothing", "/nothing", "//v1/models", "/v1/jobs/a/b/c", "/static"):
            check_problem(client.get(path, headers=key), 404, "no_such_route")
            check_problem(client.get(path), 401, "unauthorized")
        check_problem(client.get("/v1/score", headers=key), 405, "method_not_allowed")
        assert client.get("/v1/jobs/", headers=key).url.path == "/v1/jobs"  # by redirection, as ever


# -- tenants ------------------------------------------------------------------------------------------------


def test_a_tenant_sees_its_own_and_a_foreign_id_is_none(tmp_path: Path, make: Make) -> None:
    ours, theirs, nobody_s = make(tenant="ours"), make(tenant="theirs"), make()
    second = make(tenant="ours", scopes=["score"])
    with service(tmp_path, job_slots=0) as client:
        posted = client.post("/v1/jobs", content=b"a", headers=ours | {"Idempotency-Key": "1"})
        job = posted.headers["Location"]
        assert client.get(job, headers=ours).status_code == 200
        assert client.get(job, headers=second).status_code == 200
        for foreign in (theirs, nobody_s):
            check_problem(client.get(job, headers=foreign), 404, "job_not_found")
            check_problem(client.get(f"{job}/events", headers=foreign), 404, "job_not_found")
            check_problem(client.delete(job, headers=foreign), 404, "job_not_found")
            assert client.get("/v1/jobs", headers=foreign).json()["jobs"] == []
        again = client.post("/v1/jobs", content=b"b", headers=theirs | {"Idempotency-Key": "1"})
        assert again.status_code == 202
        assert client.get(again.headers["Location"], headers=ours).status_code == 404
        assert client.delete(job, headers=ours).status_code == 204


# -- how long a key opens -----------------------------------------------------------------------------------


class Clock:
    """``app.auth``'s monotonic clock, to be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: self.now))


def test_a_key_is_looked_up_once_in_a_while(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, clock, looked_up = make(), Clock(monkeypatch), []
    find = KeyStore.find
    monkeypatch.setattr(
        KeyStore, "find", lambda store, prefix: looked_up.append(prefix) or find(store, prefix)
    )
    with service(tmp_path, job_slots=0, key_cache_s=5) as client:
        for _ in range(10):
            assert client.get("/v1/models", headers=key).status_code == 200
        check_problem(client.get("/v1/models", headers=_tampered(key)), 401, "unauthorized")
        assert len(looked_up) == 1
        revoke(tmp_path, key)
        assert client.get("/v1/models", headers=key).status_code == 200  # not yet
        clock.now += 5
        refused = check_problem(client.get("/v1/models", headers=key), 401, "unauthorized")
        assert refused["detail"] == "This key was revoked."
        told_nobody = check_problem(client.get("/v1/models", headers=_tampered(key)), 401, "unauthorized")
        assert "revoked" not in told_nobody["detail"]
        assert len(looked_up) == 2


def _tampered(header: dict[str, str]) -> dict[str, str]:
    """The same prefix with another secret."""
    key = header["Authorization"]
    return {"Authorization": key[:-1] + ("0" if key[-1] != "0" else "1")}


def test_a_key_expires_though_it_was_just_looked_up(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(expires="1h")
    with service(tmp_path, job_slots=0, key_cache_s=300) as client:
        assert client.get("/v1/models", headers=key).status_code == 200
        later = time.time() + 3600
        monkeypatch.setattr("app.keys.time", SimpleNamespace(time=lambda: later))
        refused = check_problem(client.get("/v1/models", headers=key), 401, "unauthorized")
        assert refused["detail"] == "This key has expired."


def test_a_use_is_noted(tmp_path: Path, make: Make) -> None:
    used, unused = make(name="used"), make(name="unused")
    assert used != unused
    with service(tmp_path, job_slots=0) as client:
        assert client.get("/v1/models", headers=used).status_code == 200
    with open_keys(Settings(data_dir=tmp_path)) as store:  # written by the end of the service at the latest
        assert {key["name"]: key["last_used_at"] is not None for key in store.listed()} == {
            "used": True,
            "unused": False,
        }


def test_loopback_is_open_until_a_key_is_made(tmp_path: Path, make: Make) -> None:
    with service(tmp_path, job_slots=0, key_cache_s=0) as client:
        assert client.get("/v1/models").status_code == 200
        assert 'data-needs-key="no"' in client.get("/").text
        key = make(expires="1h")
        check_problem(client.get("/v1/models"), 401, "unauthorized")
        assert 'data-needs-key="yes"' in client.get("/").text
        assert client.get("/v1/models", headers=key).status_code == 200
        revoke(tmp_path, key)  # the last key to go doesn't let everybody in
        check_problem(client.get("/v1/models"), 401, "unauthorized")
        revoke(tmp_path, key, forget=True)
        assert client.get("/v1/models").status_code == 200


def test_configured_keys_go_on_working_beside_stored_ones(tmp_path: Path, make: Make) -> None:
    key = make(scopes=["score"])
    with service(tmp_path, job_slots=0, api_keys=[CONFIGURED]) as client:
        for headers in (bearer(CONFIGURED), {"X-API-Key": CONFIGURED}, key):
            assert client.get("/v1/models", headers=headers).status_code == 200
        posted = client.post("/v1/jobs", content=b"a", headers=bearer(CONFIGURED))
        assert posted.status_code == 202
        assert client.get(posted.headers["Location"], headers=key).status_code == 200  # the nameless tenant


def test_while_the_database_is_away_a_stored_key_can_t_be_told(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make()

    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    with service(tmp_path, job_slots=0, key_cache_s=0, api_keys=[CONFIGURED]) as client:
        monkeypatch.setattr(KeyStore, "find", away)
        check_problem(client.get("/v1/models", headers=key), 503, "not_ready")
        assert client.get("/v1/models", headers=bearer(CONFIGURED)).status_code == 200
        answers = threading.Event()
        with monkeypatch.context() as hanging:
            hanging.setattr(KeyStore, "find", lambda *_: answers.wait(30) and None)
            hanging.setattr(auth, "ASK_S", 0.1)
            check_problem(client.get("/v1/models", headers=key), 503, "not_ready")
        answers.set()
    with service(tmp_path, job_slots=0, key_cache_s=0) as client:
        monkeypatch.setattr(KeyStore, "is_empty", away)
        check_problem(client.get("/v1/models"), 401, "unauthorized")  # as it was last known
        assert client.get("/healthz").status_code == 200


# -- how much -----------------------------------------------------------------------------------------------


def test_a_key_s_own_rate(tmp_path: Path, make: Make) -> None:
    slow, other = make(rate="2/hour", scopes=["score"]), make()
    with service(tmp_path, job_slots=0) as client:
        first = client.get("/v1/models", headers=slow)
        assert first.headers["RateLimit-Policy"].startswith('"rate";q=2;w=3600')
        assert first.headers["RateLimit"].startswith('"rate";r=1;')
        forbidden = client.get("/v1/jobs", headers=slow)  # counts as well
        check_problem(forbidden, 403, "forbidden")
        assert forbidden.headers["RateLimit"].startswith('"rate";r=0;')
        refused = client.post("/v1/score", content=b"SCORE:0.5", headers=slow)
        assert check_problem(refused, 429, "rate_limited")["violated-policies"] == ["rate"]
        assert int(refused.headers["Retry-After"]) > 0
        assert (
            client.get("/v1/models", headers=other).headers["RateLimit-Policy"].startswith('"rate";q=1200;')
        )
        assert "RateLimit" not in client.get("/healthz").headers


def test_wrong_keys_are_slowed_and_nobody_is_locked_out(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    stored = make()
    with service(tmp_path, job_slots=0, api_keys=[CONFIGURED], key_failures="3/hour") as client:
        for _ in range(5):
            check_problem(client.get("/v1/models"), 401, "unauthorized")  # no key is no guess
        for guess in (WRONG, "a guess", CONFIGURED[:-1]):
            check_problem(client.get("/v1/models", headers=bearer(guess)), 401, "unauthorized")
        # Right or wrong, a key that could be guessed is told nothing now.
        for guess in (WRONG, "another guess", CONFIGURED):
            refused = client.get("/v1/models", headers=bearer(guess))
            check_problem(refused, 429, "rate_limited")
            assert 0 < int(refused.headers["Retry-After"]) <= 3601
        # One that can't be guessed works: a neighbour behind the same address can't shut anybody out.
        assert client.get("/v1/models", headers=stored).status_code == 200
    assert caplog.text.count("too many wrong keys") == 1
    assert WRONG not in caplog.text


PROXY = "192.0.2.1"


def guesses(client: TestClient, forwarded: str, count: int) -> list[int]:
    return [
        client.get("/v1/models", headers={"X-API-Key": "a guess", "X-Forwarded-For": forwarded}).status_code
        for _ in range(count)
    ]


def test_a_trusted_proxy_tells_who_asks(tmp_path: Path) -> None:
    given = {"api_keys": [CONFIGURED], "key_failures": "2/hour", "trusted_proxies": ["192.0.2.0/24"]}
    with service(tmp_path, address=PROXY, job_slots=0, **given) as client:
        assert guesses(client, "198.51.100.7", 3) == [401, 401, 429]
        # What the client itself wrote stands to the left of what the proxy saw, and counts for nothing.
        assert guesses(client, "203.0.113.5, 198.51.100.7", 1) == [429]
        assert guesses(client, "203.0.113.5", 1) == [401]
        # Through two proxies of ours.
        assert guesses(client, "198.51.100.7, 192.0.2.99", 1) == [429]


def test_nobody_else_is_believed(tmp_path: Path) -> None:
    given = {"api_keys": [CONFIGURED], "key_failures": "2/hour"}
    for trusted in ([], ["198.51.100.1"]):
        with service(tmp_path, address=PROXY, job_slots=0, trusted_proxies=trusted, **given) as client:
            found = [guesses(client, f"203.0.113.{number}", 1)[0] for number in range(3)]
            assert found == [401, 401, 429]
