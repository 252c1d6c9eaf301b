"""The worker: every way that a job can end, and every way that a worker can lose it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from job_house import House, house, until
from sqlalchemy.exc import OperationalError

from app.jobs import worker
from app.jobs.store import Progress
from app.jobs.table import JobRow
from app.problems import Problem

AWAY = OperationalError("SELECT", {}, Exception("away"))


def test_a_job_is_done_and_its_media_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            job = await home.submit(b"SCORE:0.97")
            ended = await home.ended(job)
            assert ended.result is not None
            answer = json.loads(ended.result)
            assert (answer["path"], answer["score"], answer["sha256"]) == ("a.mp4", 0.97, job.sha256)
            assert (ended.status, ended.attempts, ended.fraction, ended.eta_s) == ("done", 1, 1.0, None)
            await until(_as_coroutine(home.media), lambda media: media == [])

    asyncio.run(scenario())


def test_media_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", keep_media=True) as home:
            job = await home.submit(b"SCORE:0.97")
            await home.ended(job)
            await home.stop()
            assert home.media() == [job.id]

    asyncio.run(scenario())


def test_a_bad_file_fails_with_its_code_and_only_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            ended = await home.ended(await home.submit(b"BAD:encrypted"))
            assert (ended.status, ended.error_code, ended.attempts) == ("failed", "encrypted", 1)
            assert ended.error_message

    asyncio.run(scenario())


def test_a_defect_of_ours_is_tried_again_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_PAUSE_S", 0.0)

    async def scenario() -> None:
        async with house(tmp_path / "data", job_max_attempts=2) as home:
            home.engine.double.fail_on = 0.25
            ended = await home.ended(await home.submit(b"SCORE:0.25"))
            assert (ended.status, ended.error_code, ended.attempts) == ("failed", "internal_error", 2)

    asyncio.run(scenario())


def test_a_job_has_a_time_limit_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", job_timeout_s=0.1) as home:
            ended = await home.ended(await home.submit(b"SLOW:20"))
            assert (ended.status, ended.error_code) == ("failed", "deadline_exceeded")

    asyncio.run(scenario())


def test_the_lease_is_kept_for_as_long_as_it_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=2, job_lease_s=1.0) as home:
            ended = await home.ended(await home.submit(b"SLOW:2.5"))
            assert (ended.status, ended.attempts) == ("done", 1)

    asyncio.run(scenario())


def test_who_loses_the_lease_stops_and_says_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", job_lease_s=0.4) as home:
            job = await home.submit(b"SLOW:20")
            held = await home.started(job)
            assert await home.jobs.hand_back(held, after_s=60)  # as if another had taken it
            assert await asyncio.to_thread(home.decoder.cancelled.wait, 20)
            assert (await home.now(job)).status == "queued"
            assert home.media() == [job.id]

    asyncio.run(scenario())


def test_a_stop_hands_back_what_is_not_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            job = await home.submit(b"SLOW:20")
            await home.started(job)
            await home.stop()
            left = await home.now(job)
            assert (left.status, left.attempts, left.lease) == ("queued", 0, None)
            assert home.media() == [job.id]

    asyncio.run(scenario())


def test_a_stop_lets_finish_what_soon_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", shutdown_grace_s=30) as home:
            job = await home.submit(b"SLOW:0.5")
            await home.started(job)
            await home.stop()
            assert (await home.now(job)).status == "done"

    asyncio.run(scenario())


def test_deleting_cancels(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            job = await home.submit(b"SLOW:20")
            await home.started(job)
            await home.jobs.delete("", job.id)
            assert await asyncio.to_thread(home.decoder.cancelled.wait, 20)
            assert home.media() == []
            with pytest.raises(Problem, match="job_not_found"):
                await home.now(job)
            assert (await home.ended(await home.submit(b"SCORE:0.5"))).status == "done"  # its slot is free

    asyncio.run(scenario())


def test_deleted_by_another_process_it_is_cancelled_at_the_next_beat(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", job_lease_s=0.4) as home:
            job = await home.submit(b"SLOW:20")
            await home.started(job)
            home.jobs._store.remove("", job.id)
            assert await asyncio.to_thread(home.decoder.cancelled.wait, 20)

    asyncio.run(scenario())


def test_a_database_that_is_away_for_a_moment_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SETTLE_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(worker, "AWAY_PAUSE_S", 0.1)

    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            _fail_first(home, monkeypatch, "claim", 1)
            _fail_first(home, monkeypatch, "finish", 2)
            ended = await home.ended(await home.submit(b"SCORE:0.5"))
            assert (ended.status, ended.attempts) == ("done", 1)

    asyncio.run(scenario())


def test_a_database_that_stays_away_costs_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", job_lease_s=0.4) as home:
            _fail_first(home, monkeypatch, "renew", 1000)
            await home.submit(b"SLOW:20")
            assert await asyncio.to_thread(home.decoder.cancelled.wait, 20)

    asyncio.run(scenario())


def test_media_that_are_gone_are_the_job_s_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:
            job = await home.submit(b"SCORE:0.5")
            home.jobs._files.remove(job.id)
        async with house(tmp_path / "data") as home:
            assert (await home.ended(job)).error_code == "not_found"

    asyncio.run(scenario())


def test_time_left_is_a_guess_from_the_time_so_far() -> None:
    watch = worker._Watch()
    assert watch.progress() == Progress("starting", 0.0, None)
    watch.tell("scan", 0.5)
    watch._begun -= 10.0
    assert watch.progress().eta_s == pytest.approx(10.0, abs=0.5)


def test_a_thorough_job_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(worker._Watch, "tell", lambda _watch, *progress: told.append(progress))

    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            await home.ended(await home.submit(b"SCORE:0.5", thorough=True))

    asyncio.run(scenario())
    assert [stage for stage, _ in told] == ["scan", "scan"]
    assert 0 < told[0][1] < told[1][1] <= 1


def _as_coroutine(call: Any) -> Any:
    async def look() -> Any:
        return call()

    return look


def _fail_first(home: House, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """The first calls of this kind find the database away."""
    really = getattr(home.jobs, name)
    left = times

    async def call(*args: Any, **kwargs: Any) -> JobRow | bool | None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise AWAY
        return await really(*args, **kwargs)  # type: ignore[no-any-return]

    monkeypatch.setattr(home.jobs, name, call)
