"""Near-duplicates of jobs: found within a tenant, with what people decided, never applied by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from job_house import House, house
from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import Session

from app.jobs.feedback import Said
from app.jobs.table import FingerprintRow, JobRow
from app.problems import Problem
from app.settings import Settings


async def done(home: House, content: str, **order: Any) -> JobRow:
    return await home.ended(await home.submit(content.encode(), **order))


async def alike(home: House, job: JobRow, limit: int = 20) -> list[tuple[str, float, bool]]:
    _, found = await home.jobs.similar(job.tenant, job.id, limit=limit)
    return [(one.job_id, one.share, one.same_bytes) for one in found.alike]


def test_what_looks_alike_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            first = await done(home, "LOOKS:1 first")
            again = await done(home, "LOOKS:1 encoded again")
            scanned = await done(home, "LOOKS:1 scanned", thorough=True)
            await done(home, "LOOKS:2 another")
            blank = await done(home, "nothing to see")
            assert {found for found, _, _ in await alike(home, first)} == {again.id, scanned.id}
            assert {share for _, share, _ in await alike(home, first)} == {1.0}
            assert await alike(home, blank) == []
            hashes, found = await home.jobs.similar("", first.id, limit=20)
            assert (len(hashes), found.compared, found.complete) == (64, 3, True)

    asyncio.run(scenario())


def test_the_same_bytes_answered_from_the_store_are_found_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            first = await done(home, "LOOKS:1")
            second = await done(home, "LOOKS:1")
            assert second.from_store
            assert await alike(home, second) == [(first.id, 1.0, True)]

    asyncio.run(scenario())


def test_another_tenant_s_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            mine = await done(home, "LOOKS:1", tenant="mine")
            theirs = await done(home, "LOOKS:1 x", tenant="theirs")
            assert await alike(home, mine) == await alike(home, theirs) == []
            with pytest.raises(Problem, match="job_not_found"):
                await home.jobs.similar("mine", theirs.id, limit=20)

    asyncio.run(scenario())


def test_what_is_not_done_has_no_looks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:
            job = await home.submit(b"LOOKS:1")
            with pytest.raises(Problem, match="job_not_done"):
                await home.jobs.similar("", job.id, limit=20)

    asyncio.run(scenario())


def test_only_so_many_are_compared_and_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", similar_max_jobs=2) as home:
            jobs = [await done(home, f"LOOKS:1 {number}") for number in range(4)]
            _, found = await home.jobs.similar("", jobs[0].id, limit=1)
            assert (found.compared, found.complete, len(found.alike)) == (2, False, 1)
            assert found.alike[0].job_id in {jobs[2].id, jobs[3].id}

    asyncio.run(scenario())


def test_a_deleted_job_is_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            first, second = await done(home, "LOOKS:1 a"), await done(home, "LOOKS:1 b")
            await home.jobs.say("", second.id, Said("review", "key", label="generated"))
            await home.jobs.delete("", second.id)
            assert await alike(home, first) == []

    asyncio.run(scenario())


def test_a_decision_outlives_its_job_until_it_is_withdrawn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            decided, plain = await done(home, "LOOKS:1 a"), await done(home, "LOOKS:1 b")
            later = await done(home, "LOOKS:1 c")
            await home.jobs.say("", decided.id, Said("review", "key", label="real"))
            with Session(home.jobs.database) as session, session.begin():
                gone = JobRow.id.in_([decided.id, plain.id])
                session.execute(update(JobRow).where(gone).values(status="expired", expires_at=0.0))
            await home.jobs.sweep()
            _, found = await home.jobs.similar("", later.id, limit=20)
            [one] = found.alike
            assert (one.job_id, one.job, one.decided) == (decided.id, None, True)
            await home.jobs._run(home.jobs._feedback.end, "", decided.id, source="review", actor="key")
            await home.jobs.sweep()
            assert await alike(home, later) == []

    asyncio.run(scenario())


def test_statements_run_on_each_database(database: Engine) -> None:
    from app.jobs.similar import FingerprintStore

    store = FingerprintStore(database)
    rows = [
        FingerprintRow(job_id=f"{at:032x}", tenant="t", sha256=None, hashes=bytes(32), created_at=float(at))
        for at in range(3)
    ]
    with Session(database) as session, session.begin():
        session.add_all(rows)
    asked = store.fingerprint("t", f"{0:032x}")
    assert asked is not None
    found = store.similar(asked, most=10, limit=5)
    assert [(one.share, one.bits, one.same_bytes, one.job) for one in found.alike] == [
        (1.0, 0, False, None)
    ] * 2
    with Session(database) as session, session.begin():
        session.execute(delete(FingerprintRow))
        assert session.scalars(select(FingerprintRow)).all() == []


# -- by HTTP ------------------------------------------------------------------------------------------------


def scored(client: TestClient, content: str, **headers: str) -> str:
    import doubles

    job = client.post("/v1/jobs", files={"file": ("a.mp4", content.encode())}, headers=headers).json()
    doubles.until(lambda: client.get(f"/v1/jobs/{job['id']}", headers=headers).json()["status"] == "done")
    return str(job["id"])


def test_a_decision_is_offered_and_changes_nothing(client: TestClient) -> None:
    first, second = scored(client, "LOOKS:1 SCORE:0.95 a"), scored(client, "LOOKS:1 SCORE:0.95 b")
    client.put(f"/v1/review/{first}", json={"label": "real", "note": "our own camera"})
    links = client.get(f"/v1/jobs/{second}").json()["links"]
    answer = client.get(links["similar"]).json()
    [one] = answer["jobs"]
    assert (one["job"], one["share"], one["verdict"], one["filename"]) == (first, 1.0, "generated", "a.mp4")
    assert (one["decision"]["label"], one["decision"]["note"]) == ("real", "our own camera")
    assert (answer["compared"], answer["complete"]) == (1, True)
    assert [len(hashed) for hashed in answer["hashes"]] == [64, 64]
    mine = client.get(f"/v1/jobs/{second}").json()
    assert mine["result"]["verdict"] == "generated"
    assert mine["feedback"]["decision"] is None
    assert second in {item["job"]["id"] for item in client.get("/v1/review").json()["items"]}


def test_odd_questions_are_refused(client: TestClient, settings: Settings) -> None:
    job = scored(client, "LOOKS:1")
    assert client.get(f"/v1/jobs/{job}/similar?limit=0").status_code == 422
    assert client.get(f"/v1/jobs/{'0' * 32}/similar").json()["code"] == "job_not_found"
    slow = client.post("/v1/jobs", files={"file": ("a.mp4", b"SLOW:20")}).json()["id"]
    assert client.get(f"/v1/jobs/{slow}/similar").json()["code"] == "job_not_done"
    client.delete(f"/v1/jobs/{slow}")
