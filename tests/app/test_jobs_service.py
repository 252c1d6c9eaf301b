"""Rows and files together: kept in the right order, answered again where known, tidied up."""

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from job_house import House, house
from sqlalchemy.exc import OperationalError

from app.jobs.service import ORPHAN_S, Order
from app.jobs.table import JobRow
from app.problems import Problem
from app.room import Room
from app.schemas import VideoMedia
from app.videos import VideoStore
from tests.media.signatory import Signatory


def age(home: House, job_id: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(home.settings.data_dir / "jobs" / job_id, (then, then))


def test_the_file_is_there_before_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:
            add = home.jobs._store.add

            def checked(job: Any, **how: Any) -> JobRow:
                assert home.jobs._files.path(job.id).read_bytes() == b"SCORE:0.5"
                return add(job, **how)

            monkeypatch.setattr(home.jobs._store, "add", checked)
            job = await home.submit(b"SCORE:0.5")
            assert (job.status, len(job.id), home.jobs.media_bytes) == ("queued", 32, {"": 9})

    asyncio.run(scenario())


def test_the_same_bytes_are_answered_from_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data") as home:
            first = await home.ended(await home.submit(b"SCORE:0.97"))
            again = await home.submit(b"SCORE:0.97")
            assert (again.status, again.from_store, again.id == first.id) == ("done", True, False)
            assert again.result == first.result
            for order in ({"thorough": True}, {"fresh": True}, {"tenant": "other"}):
                other = await home.submit(b"SCORE:0.97", **order)
                assert (other.status, other.from_store) == ("queued", False)
                await home.ended(other)
            await home.stop()
            assert home.media() == []

    asyncio.run(scenario())


def test_pictures_take_of_their_tenant_s_room(tmp_path: Path) -> None:
    import specsem.views  # noqa: F401 - who draws brings torch, which takes its time

    async def scenario() -> None:
        async with house(tmp_path / "data", max_tenant_bytes=1000) as home:
            plain = await home.ended(await home.submit(b"SCORE:0.97"))
            first = await home.ended(await home.submit(b"SCORE:0.97", evidence=True))
            again = await home.submit(b"SCORE:0.97", evidence=True)  # from the store
            await home.jobs._look()
            size = home.jobs._files.views_bytes(first.id)
            assert (plain.views_bytes, first.views_bytes, again.views_bytes) == (0, size, size)
            assert home.jobs.room.taken("") == 2 * size > 1000
            with pytest.raises(Problem, match="quota_exceeded"):
                home.jobs.room.check("", 1)
            home.jobs.room.check("another", 1)
            for job in (first, again):
                await home.jobs.delete("", job.id)
            home.jobs.room.check("", 1)  # at once

    asyncio.run(scenario())


def test_another_trust_list_asks_for_another_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def answered(trust_list: Path | None) -> bool:
            async with house(tmp_path / "data", c2pa_trust_list=trust_list) as home:
                job = await home.submit(b"SCORE:0.97")
                await home.ended(job)
                await home.stop()
                return job.from_store

        first, second = tmp_path / "first.pem", tmp_path / "second.pem"
        for path in (first, second):
            path.write_bytes(Signatory().anchor)
        for trust_list in (None, first, second):
            assert [await answered(trust_list) for _ in range(2)] == [False, True]

    asyncio.run(scenario())


def test_a_key_makes_one_job_however_often_it_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:
            sent = [home.submit(b"SCORE:0.5", idempotency_key="k") for _ in range(6)]
            jobs = await asyncio.gather(*sent)
            assert {job.id for job in jobs} == set(home.media())
            assert len(home.media()) == 1
            for content, thorough in ((b"SCORE:0.6", False), (b"SCORE:0.5", True)):
                with pytest.raises(Problem, match="idempotency_key_reused"):
                    await home.submit(content, thorough=thorough, idempotency_key="k")
            other = await home.submit(b"SCORE:0.5", idempotency_key="k", tenant="other")
            assert other.id != jobs[0].id
            await home.jobs.delete("", jobs[0].id)
            assert (await home.submit(b"SCORE:0.6", idempotency_key="k")).id != jobs[0].id

    asyncio.run(scenario())


def test_who_leaves_while_it_is_stored_finds_it_by_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:
            begun, may_go_on = threading.Event(), threading.Event()
            move_in = home.jobs._files.move_in

            def slow(job_id: str, folder: Path) -> None:
                begun.set()
                may_go_on.wait(20)
                move_in(job_id, folder)

            monkeypatch.setattr(home.jobs._files, "move_in", slow)
            upload = home.upload(b"SCORE:0.5")
            submitting = asyncio.ensure_future(
                home.jobs.submit_upload(upload, Order("", idempotency_key="k"))
            )
            await asyncio.to_thread(begun.wait, 20)
            submitting.cancel()
            await asyncio.sleep(0.01)
            may_go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            shutil.rmtree(upload.folder, ignore_errors=True)  # as the inbox does then
            found = await home.submit(b"SCORE:0.5", idempotency_key="k")
            assert home.media() == [found.id]
            assert home.jobs.path(found).exists()

    asyncio.run(scenario())


def test_a_stored_video_is_the_job_s_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:
            store = VideoStore(home.settings.data_dir / "videos", ttl_s=60, room=Room())
            await store.open()
            media = VideoMedia(container="mp4", codec="h264", width=1, height=1, fps=None, duration_s=1.0)
            video = await store.keep("", home.upload(b"SCORE:0.7"), media)
            found, path = await store.get("", video.id)
            job = await home.jobs.submit_video(found, path, Order(""))
            await store.delete("", video.id)
            assert home.jobs.path(job).read_bytes() == b"SCORE:0.7"
            with pytest.raises(Problem, match="video_not_found"):
                await home.jobs.submit_video(found, path, Order(""))
            assert home.media() == [job.id]

    asyncio.run(scenario())


def test_too_many_that_wait_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0, max_queued_jobs=1) as home:
            await home.submit(b"1")
            with pytest.raises(Problem, match="busy"):
                await home.submit(b"2")
            assert len(home.media()) == 1

    asyncio.run(scenario())


def test_a_row_that_may_be_there_keeps_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection broke at the commit: nobody knows. If there is no row, the file is an orphan."""

    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0) as home:

            def breaks(*_: Any, **__: Any) -> JobRow:
                raise OperationalError("INSERT", {}, Exception("the connection broke"))

            with monkeypatch.context() as patch:
                patch.setattr(home.jobs._store, "add", breaks)
                with pytest.raises(OperationalError):
                    await home.submit(b"SCORE:0.5")
            [orphan] = home.media()
            kept = await home.submit(b"SCORE:0.6")
            await home.jobs.sweep()
            assert set(home.media()) == {orphan, kept.id}
            for job_id in (orphan, kept.id):
                age(home, job_id, ORPHAN_S + 60)
            await home.jobs.sweep()
            assert home.media() == [kept.id]

    asyncio.run(scenario())


def test_the_janitor_ends_what_is_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", job_ttl_s=0.05, keep_media=True) as home:
            job = await home.ended(await home.submit(b"SCORE:0.5"))
            await asyncio.sleep(0.06)
            age(home, job.id, ORPHAN_S + 60)
            await home.jobs.sweep()
            left = await home.now(job)
            assert (left.status, left.result, home.media()) == ("expired", None, [])
            await asyncio.sleep(0.06)
            await home.jobs.sweep()
            with pytest.raises(Problem, match="job_not_found"):
                await home.now(job)

    asyncio.run(scenario())


def test_what_a_killed_worker_left_is_given_up_in_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "data", slots=0, job_lease_s=0.001, job_max_attempts=1) as home:
            job = await home.submit(b"SCORE:0.5")
            assert await home.jobs.claim() is not None  # and is never heard of again
            await asyncio.sleep(0.01)
            await home.jobs.give_up()
            assert (await home.now(job)).error_code == "attempts_exceeded"
            assert home.media() == []

    asyncio.run(scenario())
