"""Jobs by address: what is fetched, what is tried again, and what becomes of the address."""

import asyncio
import gzip
import hashlib
import logging
import socket
import threading
import time
from contextlib import AbstractAsyncContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from job_house import House, house, until
from origin import Origin, dripping, endless, gives, in_turn, origin, raw, status
from sqlalchemy import text
from test_jobs_routes import ended, service, stored_files
from test_jobs_worker import _as_coroutine
from test_main import check_problem

from app.jobs import worker
from app.jobs.fetching import name_of
from app.jobs.service import Order
from app.jobs.table import JobRow
from app.outbound import Outbound, Rules, parse_url
from app.problems import CODES, Problem

CLIP = b"SCORE:0.97"
SECRET = "X-Amz-Signature=5ec2e7"  # noqa: S105 - a stand-in for one


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FETCH_PAUSE_S", 0.0)


def allowing(port: int) -> dict[str, Any]:
    """Settings of an operator who keeps videos on a server on loopback."""
    return {
        "url_fetch": True,
        "url_fetch_http": True,
        "url_fetch_ports": [port],
        "url_fetch_internal": ["127.0.0.1"],
    }


def fetching(data_dir: Path, server: Origin, **given: Any) -> AbstractAsyncContextManager[House]:
    return house(data_dir, **allowing(server.port) | given)


async def submit(home: House, url: str, **order: Any) -> JobRow:
    return await home.jobs.submit_url(url, Order(**{"tenant": ""} | order))


def run(data_dir: Path, server: Origin, path: str, **given: Any) -> JobRow:
    """The job once it has ended, and nothing is left of its file."""

    async def scenario() -> JobRow:
        async with fetching(data_dir, server, **given) as home:
            job = await home.ended(await submit(home, server.url(path)))
            await nothing_left(home)
            return job

    return asyncio.run(scenario())


async def nothing_left(home: House) -> None:
    """The file goes right after the row says that the job has ended."""
    await until(_as_coroutine(home.media), lambda media: media == [])


def in_database(home: House) -> str:
    with home.jobs._store._engine.connect() as connection:
        return str(connection.execute(text("SELECT * FROM jobs")).all())


def test_it_is_fetched_scored_and_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server) as home:
            url = server.url(f"/videos/clip%20one.mp4?{SECRET}")
            job = await submit(home, url)
            assert (job.filename, job.bytes, job.sha256) == ("clip one.mp4", None, None)
            done = await home.ended(job)
            assert (done.status, done.attempts, done.bytes) == ("done", 1, len(CLIP))
            assert done.sha256 == hashlib.sha256(CLIP).hexdigest()
            assert done.result is not None
            assert '"path":"clip one.mp4"' in done.result
            assert done.url == server.url("/videos/clip%20one.mp4")
            assert SECRET not in in_database(home)
            took = 'specsem_stage_duration_seconds_count{lane="bulk",stage="fetch"} 1.0'
            assert took in home.telemetry.metrics.render("")[0].decode()
            await nothing_left(home)

    with origin({"/videos/clip%20one.mp4": gives(CLIP)}) as server:
        asyncio.run(scenario(server))
        (method, path, headers) = server.asked[0]
    assert (method, path) == ("GET", f"/videos/clip%20one.mp4?{SECRET}")
    assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert "fetched 10 bytes" in caplog.text
    assert SECRET not in caplog.text


def test_the_query_waits_with_its_job_and_goes_with_it(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server, slots=0, job_max_attempts=1, job_lease_s=0.01) as home:
            url = server.url(f"/a?{SECRET}")
            for _ in range(3):
                await submit(home, url)
            assert in_database(home).count(SECRET) == 3
            assert await home.jobs.claim()
            await asyncio.sleep(0.02)
            await home.jobs.give_up()  # the first
            assert in_database(home).count(SECRET) == 2
            home.jobs._store.expire(queue_ttl_s=-1)  # the others
            assert SECRET not in in_database(home)

    with origin({}) as server:
        asyncio.run(scenario(server))


def test_a_worker_that_lost_its_database_shows_no_query(tmp_path: Path) -> None:
    """What SQLAlchemy says of a statement that failed goes to the log."""

    async def scenario(server: Origin) -> str:
        async with fetching(tmp_path / "data", server, slots=0) as home:
            with home.jobs._store._engine.begin() as connection:
                connection.execute(text("DROP TABLE jobs"))
            job = home.jobs._new(Order(""), "a", url="https://example.org/a", url_query=SECRET)
            assert SECRET not in repr(job)
            with pytest.raises(Exception, match="no such table") as failed:
                home.jobs._store.add(job)
            return str(failed.value)

    with origin({}) as server:
        said = asyncio.run(scenario(server))
    assert "INSERT INTO jobs" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("act", "code", "says"),
    [
        (status(404), "not_fetchable", "status 404"),
        (status(403), "not_fetchable", "status 403"),
        (status(410), "not_fetchable", "status 410"),
        (status(204), "not_fetchable", "status 204"),
        (status(304), "not_fetchable", "status 304"),
        (status(302, Location="/a"), "not_fetchable", "redirected too often"),
        (status(302, Location="http://127.0.0.2/"), "url_refused", "ports"),
        (status(302, Location="https://10.0.0.1/"), "url_refused", "ports"),
        (gives(gzip.compress(CLIP), Content_Encoding="gzip"), "not_fetchable", "compressed"),
        (gives(b"x" * 2000), "limits_exceeded", "larger than"),
        (gives(b"", Content_Length="99999999999999999999"), "limits_exceeded", "larger than"),
        (endless, "limits_exceeded", "larger than"),
        (
            raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + b"3e8\r\n"
                + b"x" * 1000
                + b"\r\n3e8\r\n"
                + b"x" * 1000
            ),
            "limits_exceeded",
            "larger than",
        ),
        (gives(b""), "not_a_video", "empty"),
        (gives(b"BAD:encrypted"), "encrypted", "made to fail"),
    ],
)
def test_what_would_not_go_better_another_time(tmp_path: Path, act: Any, code: str, says: str) -> None:
    with origin({"/a": act}) as server:
        job = run(tmp_path / "data", server, "/a", max_upload_bytes=1500)
    assert (job.status, job.error_code, job.attempts) == ("failed", code, 1)
    assert job.error_message is not None
    assert says in job.error_message
    assert code in CODES


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (status(500), "status 500"),
        (status(503), "status 503"),
        (status(429), "status 429"),
        (gives(b"SCORE", Content_Length="100"), "broke off"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "broke off"),
        (dripping(CLIP, pause_s=0.5), "in time"),
    ],
)
def test_what_fails_on_the_way_is_tried_again_so_often(tmp_path: Path, act: Any, says: str) -> None:
    with origin({"/a": act}) as server:
        job = run(tmp_path / "data", server, "/a", job_max_attempts=2, url_fetch_idle_s=0.2)
        assert len(server.asked) == 2
    assert (job.status, job.error_code, job.attempts) == ("failed", "fetch_failed", 2)
    assert says in (job.error_message or "")


def test_what_fails_once_may_go_well_then(tmp_path: Path) -> None:
    cut_off = gives(b"SCORE", Content_Length="10")
    with origin({"/a": in_turn(status(503), cut_off, gives(CLIP))}) as server:
        job = run(tmp_path / "data", server, "/a")
    assert (job.status, job.attempts, job.bytes) == ("done", 3, 10)


def test_a_redirect_is_followed_and_the_name_is_the_client_s(tmp_path: Path) -> None:
    moved = status(301, Location=f"/b.mp4?{SECRET}")
    with origin({"/a.mp4": moved, "/b.mp4": gives(CLIP)}) as server:
        job = run(tmp_path / "data", server, "/a.mp4")
    assert (job.status, job.filename, job.url) == ("done", "a.mp4", server.url("/a.mp4"))


def test_a_fetch_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    half_told = threading.Event()
    tell = worker._Watch.tell

    def noting(watch: Any, stage: str, fraction: float) -> None:
        tell(watch, stage, fraction)
        told.append((watch.progress().stage, watch.progress().fraction))
        if told[-1] == ("fetch", 0.25):
            half_told.set()

    def in_halves(request: BaseHTTPRequestHandler) -> None:
        gives(CLIP[:5], Content_Length="10")(request)
        request.wfile.flush()
        half_told.wait(20)
        request.wfile.write(CLIP[5:])

    monkeypatch.setattr(worker._Watch, "tell", noting)
    with origin({"/a": in_halves, "/b": dripping(CLIP, pause_s=0.01)}) as server:
        run(tmp_path / "data", server, "/a")
        assert told == [("fetch", 0.0), ("fetch", 0.25), ("fetch", 0.5), ("decode", 0.5), ("score", 0.75)]
        told.clear()
        run(tmp_path / "more", server, "/b")
        assert told == [("fetch", 0.0), ("decode", 0.5), ("score", 0.75)]  # no length, no telling


def test_bytes_that_are_known_are_answered_from_the_store(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server) as home:
            first = await home.ended(await home.submit(CLIP))
            again = await home.ended(await submit(home, server.url("/b.mp4")))
            assert (again.status, again.from_store, again.sha256) == ("done", True, first.sha256)
            assert again.result is not None
            assert '"path":"b.mp4"' in again.result
            batches = len(home.engine.double.batches)
            fresh = await home.ended(await submit(home, server.url("/b.mp4"), fresh=True))
            assert (fresh.status, fresh.from_store) == ("done", False)
            assert len(home.engine.double.batches) > batches
            assert (await home.submit(CLIP)).from_store  # and the other way round

    with origin({"/b.mp4": gives(CLIP)}) as server:
        asyncio.run(scenario(server))


def test_deleting_ends_the_fetch(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server) as home:
            job = await submit(home, server.url("/a"))
            await until(_as_coroutine(lambda: server.asked), bool)
            await home.jobs.delete("", job.id)
            assert await asyncio.to_thread(server.dropped.wait, 10)
            await nothing_left(home)

    with origin({"/a": dripping(b"x" * 10_000, pause_s=0.01)}) as server:
        asyncio.run(scenario(server))


def test_a_stop_hands_the_job_back_and_the_next_fetches_anew(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server) as home:
            job = await submit(home, server.url("/a"))
            await until(_as_coroutine(lambda: server.asked), bool)
            await home.stop()
            left = await home.now(job)
            assert (left.status, left.attempts, left.sha256, home.media()) == ("queued", 0, None, [])
        async with fetching(tmp_path / "data", server) as home:
            assert (await home.ended(job)).status == "done"

    with origin({"/a": in_turn(dripping(b"x" * 10_000, pause_s=0.01), gives(CLIP))}) as server:
        asyncio.run(scenario(server))


def test_what_was_fetched_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_PAUSE_S", 0.0)

    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server) as home:
            home.engine.double.fail_on = 0.97  # a defect of ours after the fetch
            job = await submit(home, server.url("/a"))
            failed = await home.ended(job)
            assert (failed.error_code, failed.attempts) == ("internal_error", 3)

    with origin({"/a": gives(CLIP)}) as server:
        asyncio.run(scenario(server))
        assert len(server.asked) == 1


def test_what_a_dead_attempt_left_goes_with_the_next(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server, slots=0) as home:
            job = await submit(home, server.url("/a"))
            jobs = home.settings.data_dir / "jobs"
            for left in (job.id, f"{job.id}.0123abcd.part"):  # killed after the move, and before
                (jobs / left).mkdir()
                (jobs / left / "media").write_bytes(b"BAD:undecodable")
        async with fetching(tmp_path / "data", server) as home:
            assert (await home.ended(job)).status == "done"
            await nothing_left(home)

    with origin({"/a": gives(CLIP)}) as server:
        asyncio.run(scenario(server))


def test_the_janitor_leaves_alone_what_still_arrives(tmp_path: Path) -> None:
    import os

    from app.jobs.files import JobFiles

    files = JobFiles(tmp_path / "jobs")
    files.open()
    part = files.begin("a" * 32)
    (part / "media").write_bytes(b"0123")
    old = time.time() - 3600
    os.utime(part, (old, old))
    assert list(files.older_than(60)) == []
    assert part.exists()
    os.utime(part / "media", (old, old))
    os.utime(part, (old, old))
    assert list(files.older_than(60)) == []
    assert not part.exists()


def test_who_lost_the_lease_while_fetching_says_nothing(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server, slots=0) as home:
            job = await submit(home, server.url("/a"))
            held = await home.jobs.claim()
            assert held is not None
            await home.jobs.hand_back(held)  # as if another had taken it
            assert await home.jobs.fetch(held, lambda *_: None) is None
            assert (await home.now(job)).sha256 is None

    with origin({"/a": gives(CLIP)}) as server:
        asyncio.run(scenario(server))


def test_a_full_store_takes_nothing_in(tmp_path: Path) -> None:
    with origin({"/a": gives(CLIP)}) as server:
        job = run(tmp_path / "data", server, "/a", max_stored_bytes=9, job_max_attempts=2)
    assert (job.status, job.error_code, job.attempts) == ("failed", "storage_full", 2)


def test_a_worker_with_the_switch_off_fetches_nothing(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server, slots=0) as home:
            job = await submit(home, server.url("/a"))
        async with fetching(tmp_path / "data", server, url_fetch=False) as home:
            failed = await home.ended(job)
            assert (failed.error_code, failed.attempts) == ("url_refused", 1)

    with origin({"/a": gives(CLIP)}) as server:
        asyncio.run(scenario(server))
        assert server.asked == []


def test_a_job_is_taken_while_names_can_t_be_looked_up(tmp_path: Path) -> None:
    async def scenario(server: Origin) -> None:
        async with fetching(tmp_path / "data", server, slots=0) as home:
            answers: list[Any] = [socket.gaierror(socket.EAI_AGAIN, "later"), ["10.0.0.1"]]

            def look_up(_host: str, _port: int) -> list[str]:
                answer = answers.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return list(answer)

            home.jobs._fetcher._outbound = Outbound(Rules(), look_up=look_up)
            assert (await submit(home, "https://example.org/a")).status == "queued"
            with pytest.raises(Problem, match="url_refused"):
                await submit(home, "https://example.org/a")

    with origin({}) as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "video"),
        ("/a/b/clip.mp4", "clip.mp4"),
        ("/a/", "a"),
        ("/%2e%2e/%2e%2e", "video"),
        ("/..%2f..%2fetc%2fpasswd", "passwd"),
        ("/a%0d%0aX%1b[31m%e2%80%ae.mp4", "aX[31m.mp4"),
        ("/%ff.mp4", "�.mp4"),
        ("/" + "a" * 500, "a" * 200),
    ],
)
def test_the_name_is_the_path_s_last_part_cleaned(path: str, name: str) -> None:
    assert name_of(parse_url(f"https://example.org{path}?name=other")) == name


# -- over HTTP ----------------------------------------------------------------------------------------------


def test_a_job_by_address_over_http(tmp_path: Path) -> None:
    with (
        origin({"/clip.mp4": gives(CLIP)}) as server,
        service(tmp_path / "data", **allowing(server.port)) as client,
    ):
        url = server.url(f"/clip.mp4?{SECRET}")
        posted = client.post("/v1/jobs", json={"url": url, "thorough": True})
        assert posted.status_code == 202
        job = posted.json()
        assert (job["filename"], job["bytes"], job["sha256"]) == ("clip.mp4", None, None)
        done = ended(client, posted)
        assert (done["status"], done["bytes"], done["thorough"]) == ("done", len(CLIP), True)
        assert (done["result"]["sha256"], len(done["result"]["segments"])) == (done["sha256"], 12)
        assert done["url"] == job["url"] == server.url("/clip.mp4")
        events = client.get(f"{posted.headers['Location']}/events").text
        listed = client.get("/v1/jobs").text
        assert SECRET not in posted.text + str(done) + events + listed
        assert stored_files(client, client.app.state.parts.settings) == []  # type: ignore[attr-defined]


def test_a_key_holds_for_an_address(tmp_path: Path) -> None:
    with origin({"/a": gives(CLIP)}) as server, service(tmp_path / "data", **allowing(server.port)) as client:
        headers = {"Idempotency-Key": "mine"}
        first = client.post("/v1/jobs", json={"url": server.url("/a?x=1")}, headers=headers)
        ended(client, first)
        again = client.post("/v1/jobs", json={"url": server.url("/a?x=1#part")}, headers=headers)
        assert again.json()["id"] == first.json()["id"]
        for body in ({"url": server.url("/a?x=2")}, {"url": server.url("/a?x=1"), "thorough": True}):
            other = client.post("/v1/jobs", json=body, headers=headers)
            check_problem(other, 422, "idempotency_key_reused")
        by_file = client.post("/v1/jobs", content=b"other", headers=headers)
        check_problem(by_file, 422, "idempotency_key_reused")


def test_refusals(client: TestClient, tmp_path: Path) -> None:
    url = {"url": "https://example.org/a.mp4"}
    check_problem(client.post("/v1/jobs", json=url), 403, "url_refused")
    document = check_problem(client.post("/v1/score", json=url), 403, "url_refused")
    assert "/v1/jobs" in document["detail"]
    with service(tmp_path / "on", url_fetch=True, job_slots=0) as on:
        for bad in (
            "b",
            "https://user:pw@example.org/",
            "https://2130706433/",
            "file:///etc/passwd",
            "",
            "x" * 9000,
        ):
            document = check_problem(on.post("/v1/jobs", json={"url": bad}), 422, "url_invalid")
            assert "pw" not in document["detail"]
        inside = [
            check_problem(on.post("/v1/jobs", json={"url": f"https://{host}/a?{SECRET}"}), 403, "url_refused")
            for host in (
                "127.0.0.1",
                "[::1]",
                "10.0.0.1",
                "169.254.169.254",
                "localhost",
                "[::ffff:127.0.0.1]",
            )
        ]
        assert len({document["detail"].replace(host(document), "") for document in inside}) == 1
        assert SECRET not in str(inside)
        check_problem(on.post("/v1/jobs", json={"url": "http://example.org/"}), 403, "url_refused")
        check_problem(on.post("/v1/jobs", json={"url": "https://example.org:22/"}), 403, "url_refused")
        assert on.get("/v1/jobs").json()["jobs"] == []


def host(document: dict[str, Any]) -> str:
    return str(document["detail"].split("The host ")[1].split(" is refused")[0])
