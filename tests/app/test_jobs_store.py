"""The statements, on SQLite and on PostgreSQL: who may claim, hold, finish and see what."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from app.jobs.store import AppealStands, Finished, JobStore, KeyTaken, NewJob, Progress
from app.jobs.table import JobRow
from specsem.pipeline import Options

DONE = Finished(result="{}", made_by="model 1")
NOW = Progress("decode", 0.5, 3.0)
OVER = -1.0
"""A lease or an answer that has ended already: no test needs to wait for it."""


@pytest.fixture
def store(database: Engine) -> JobStore:
    with database.execution_options(writes=True).begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    return JobStore(database)


def job(number: int, *, tenant: str = "", key: str | None = None, keep_media: bool = False) -> NewJob:
    return NewJob(
        id=f"{number:032x}",
        tenant=tenant,
        filename=f"{number}.mp4",
        bytes=10,
        sha256=f"{number:064x}",
        options=Options(),
        keep_media=keep_media,
        idempotency_key=key,
    )


def claim(store: JobStore, *, lease_s: float = 60.0, max_attempts: int = 3) -> JobRow | None:
    return store.claim(lease_s=lease_s, max_attempts=max_attempts)


def claimed(store: JobStore, *, lease_s: float = 60.0) -> JobRow:
    row = claim(store, lease_s=lease_s)
    assert row is not None
    return row


def found(store: JobStore, row: JobRow | NewJob, tenant: str = "") -> JobRow:
    row_now = store.find(tenant, row.id)
    assert row_now is not None
    return row_now


def test_the_oldest_is_claimed_first_and_each_once(store: JobStore) -> None:
    for number in range(3):
        store.add(job(number))
    assert [claimed(store).id for _ in range(3)] == [job(number).id for number in range(3)]
    assert claim(store) is None


def test_many_claim_at_once_and_no_two_get_the_same(store: JobStore) -> None:
    for number in range(40):
        store.add(job(number))
    ready = threading.Barrier(4)

    def take(_worker: int) -> list[str]:
        ready.wait()
        taken = []
        while (row := claim(store)) is not None:
            taken.append(row.id)
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = [job_id for ids in threads.map(take, range(4)) for job_id in ids]
    assert sorted(taken) == [job(number).id for number in range(40)]


def test_a_claim_says_who_holds_it_and_a_beat_keeps_it(store: JobStore) -> None:
    store.add(job(1))
    row = claimed(store, lease_s=OVER)
    assert (row.status, row.attempts) == ("running", 1)
    assert row.lease is not None
    assert store.renew(row, NOW, lease_s=60)
    assert claim(store) is None
    seen = found(store, row)
    assert (seen.stage, seen.fraction, seen.eta_s) == ("decode", 0.5, 3.0)
    assert seen.started_at is not None
    assert seen.started_at >= seen.created_at


def test_who_lost_the_lease_changes_nothing_any_more(store: JobStore) -> None:
    store.add(job(1))
    slow = claimed(store, lease_s=OVER)
    quick = claimed(store)
    assert (quick.id, quick.attempts) == (slow.id, 2)
    assert not store.renew(slow, NOW, lease_s=60)
    assert not store.finish(slow, Finished(result='{"score": 0}'), ttl_s=60)
    assert not store.hand_back(slow, counts=False)
    assert store.finish(quick, DONE, ttl_s=60)
    assert not store.finish(quick, Finished(error_code="late", error_message="again"), ttl_s=60)
    assert not store.finish(slow, Finished(result='{"score": 0}'), ttl_s=60)
    ended = found(store, quick)
    assert (ended.status, ended.result, ended.error_code, ended.lease) == ("done", "{}", None, None)
    assert claim(store) is None


def test_a_late_finish_counts_while_nobody_else_has_claimed(store: JobStore) -> None:
    store.add(job(1))
    row = claimed(store, lease_s=OVER)
    assert store.finish(row, DONE, ttl_s=60)


def test_what_ends_its_worker_is_given_up(store: JobStore) -> None:
    store.add(job(1))
    for attempt in range(1, 4):
        assert store.give_up(max_attempts=3, ttl_s=60) == []
        assert claimed(store, lease_s=OVER).attempts == attempt
    assert claim(store) is None
    assert store.give_up(max_attempts=3, ttl_s=60) == [job(1).id]
    ended = found(store, job(1))
    assert (ended.status, ended.error_code) == ("failed", "attempts_exceeded")


def test_handed_back_it_is_another_s(store: JobStore) -> None:
    store.add(job(1))
    row = claimed(store)
    assert store.hand_back(row, counts=False)
    again = claimed(store)
    assert (again.attempts, again.lease == row.lease) == (1, False)
    assert store.hand_back(again, counts=True)
    last = claimed(store)
    assert last.attempts == 2
    assert store.hand_back(last, after_s=60, counts=True)
    assert claim(store) is None


def test_a_deleted_one_is_nobody_s(store: JobStore) -> None:
    store.add(job(1))
    row = claimed(store)
    assert store.remove("", row.id)
    assert not store.remove("", row.id)
    assert not store.renew(row, NOW, lease_s=60)
    assert not store.finish(row, DONE, ttl_s=60)
    assert store.find("", row.id) is None


def test_a_key_is_its_tenant_s(store: JobStore) -> None:
    store.add(job(1, key="k"))
    with pytest.raises(KeyTaken):
        store.add(job(2, key="k"))
    store.add(job(3, tenant="other", key="k"))
    first = store.find_by_key("", "k")
    assert first is not None
    assert first.id == job(1).id


def test_no_tenant_sees_another_s(store: JobStore) -> None:
    store.add(job(1, tenant="a", key="k"), finished=DONE, ttl_s=60)
    assert store.find("b", job(1).id) is None
    assert store.find_by_key("b", "k") is None
    assert store.find_alike("b", job(1).sha256, options=Options(), made_by="model 1") is None
    assert store.page("b", limit=10) == []
    assert not store.remove("b", job(1).id)
    assert found(store, job(1), tenant="a").status == "done"


def test_alike_means_bytes_options_and_model(store: JobStore) -> None:
    store.add(job(1), finished=DONE, ttl_s=60)
    sha256 = job(1).sha256
    alike = store.find_alike("", sha256, options=Options(), made_by="model 1")
    assert alike is not None
    assert store.find_alike("", sha256, options=Options(thorough=True), made_by="model 1") is None
    assert store.find_alike("", sha256, options=Options(), made_by="model 2") is None
    assert store.find_alike("", job(2).sha256, options=Options(), made_by="model 1") is None
    store.add(job(3), finished=DONE, ttl_s=OVER)
    assert store.find_alike("", job(3).sha256, options=Options(), made_by="model 1") is None


def test_pages_follow_one_another_whatever_comes_in(store: JobStore) -> None:
    for number in range(5):
        store.add(job(number))
    first = store.page("", limit=2)
    store.add(job(9))
    second = store.page("", before=(first[-1].created_at, first[-1].id), limit=2)
    third = store.page("", before=(second[-1].created_at, second[-1].id), limit=2)
    assert [row.filename[0] for row in first + second + third] == ["4", "3", "2", "1", "0"]
    claimed(store)
    assert [row.filename for row in store.page("", statuses=["running"], limit=9)] == ["0.mp4"]
    assert len(store.page("", statuses=["running", "queued"], limit=9)) == 6


def test_what_is_over_expires_and_goes(store: JobStore) -> None:
    store.add(job(1), finished=replace(DONE, views_bytes=50), ttl_s=OVER)
    store.add(job(2), finished=replace(DONE, views_bytes=7), ttl_s=60)
    store.add(job(3))
    assert [row.id for row in store.page("", statuses=["expired"], limit=9)] == [job(1).id]
    assert [row.id for row in store.page("", statuses=["done"], limit=9)] == [job(2).id]
    assert store.views_bytes() == {"": 50 + 7}
    assert store.expire(queue_ttl_s=60) == [job(1).id]
    assert store.views_bytes() == {"": 7}
    assert (found(store, job(1)).status, found(store, job(1)).result) == ("expired", None)
    assert store.expire(queue_ttl_s=OVER) == [job(3).id]  # it waited too long
    assert claim(store) is None
    assert store.purge(after_s=60) == []
    assert sorted(store.purge(after_s=OVER)) == [job(1).id, job(3).id]
    assert store.find("", job(1).id) is None


def test_whose_media_are_needed(store: JobStore) -> None:
    for number in range(4):
        store.add(job(number, keep_media=number == 1))
    for _ in range(2):
        assert store.finish(claimed(store), DONE, ttl_s=60)
    claimed(store)
    ids = [job(number).id for number in range(5)]
    assert store.in_need_of_media(ids) == {job(1).id, job(2).id, job(3).id}
    assert store.media_bytes() == {"": 30}
    assert store.queued() == 1


def test_of_appeals_at_one_moment_one_counts(store: JobStore) -> None:
    first = store.add(job(0), finished=DONE, ttl_s=60)
    together = threading.Barrier(6)

    def appeal(number: int) -> str:
        together.wait()
        try:
            return store.add(replace(job(number), appeal_of=first.id)).id
        except AppealStands as stands:
            return stands.job.id

    with ThreadPoolExecutor(6) as threads:
        answered = set(threads.map(appeal, range(1, 7)))
    standing = store.appeal("", first.id)
    assert standing is not None
    assert answered == {standing.id}
    assert len(store.page("", statuses=(), before=None, limit=10)) == 2
    assert store.finish(claimed(store), Finished(error_code="undecodable", error_message="No."), ttl_s=60)
    assert store.appeal("", first.id) is None
    again = store.add(replace(job(9), appeal_of=first.id))  # one that failed was none
    standing = store.appeal("", first.id)
    assert standing is not None
    assert standing.id == again.id
