"""The statements on feedback and on the review queue, on SQLite and on PostgreSQL."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, text

from app.jobs.database import migrate, open_database
from app.jobs.feedback import Counted, FeedbackStore, GroupRefused, Said
from app.jobs.store import Finished, JobStore, NewJob
from app.jobs.table import FeedbackRow, GroupMemberRow, GroupRow, JobRow
from specsem.pipeline import Options
from specsem.result import Action, Decision

JOB = NewJob(
    id="",
    tenant="",
    filename="a.mp4",
    bytes=1,
    sha256="0" * 64,
    options=Options(),
    keep_media=False,
    fresh=True,
)
WEIGHTS = "a" * 64
MINE = Said("user", "key", "wrong", "real", "it is mine")


class House:
    def __init__(self, database: Engine) -> None:
        with database.execution_options(writes=True).begin() as connection:
            for table in (JobRow, FeedbackRow, GroupRow, GroupMemberRow):
                connection.execute(delete(table))
        self.database = database
        self.jobs, self.feedback = JobStore(database), FeedbackStore(database)

    def answered(
        self,
        number: int,
        verdict: Any,
        margin: float,
        *,
        tenant: str = "",
        ttl_s: float = 60,
        weights: str = WEIGHTS,
        action: Action | None = None,
    ) -> str:
        job_id = f"{number:032x}"
        model = {"name": "model", "version": "1", "sha256": weights}
        result = json.dumps({"verdict": verdict, "score": 0.7, "logit": 1.5 + number, "model": model})
        decision = None
        if action is not None:
            decision = Decision(action=action, policy="own", version=1, rule=None, threshold=None, reasons=[])
        finished = Finished(
            result=result, made_by="model 1", verdict=verdict, margin=margin, decision=decision
        )
        self.jobs.add(replace(JOB, id=job_id, tenant=tenant), finished=finished, ttl_s=ttl_s)
        return job_id

    def queue(self, tenant: str = "") -> list[int]:
        found, total = self.feedback.waiting(tenant, after=None, limit=100)
        assert total == len(found)
        return [int(waiting.job.id, 16) for waiting in found]

    def history(self) -> list[tuple[str, bool]]:
        with self.database.connect() as connection:
            rows = connection.execute(text("SELECT opinion, ended_at IS NULL FROM feedback ORDER BY id"))
            return [(opinion, bool(counts)) for opinion, counts in rows]


@pytest.fixture
def house(database: Engine) -> House:
    return House(database)


def test_a_later_opinion_takes_the_place_of_the_earlier_which_is_kept(house: House) -> None:
    job = house.answered(1, "generated", 0.01)
    assert house.feedback.add("", job, MINE)
    assert house.feedback.add("", job, replace(MINE, opinion="right"))
    assert house.feedback.add("", job, replace(MINE, actor="another"))
    assert house.feedback.add("", job, replace(MINE, source="review", opinion=None))
    assert [row.opinion for row in house.feedback.current("", job)] == ["wrong", "wrong", "right"]
    assert house.feedback.end("", job, source="user", actor="key")
    assert not house.feedback.end("", job, source="user", actor="key")
    assert house.history() == [("wrong", False), ("right", False), ("wrong", True), ("wrong", True)]
    [latest, *_] = house.feedback.current("", job)
    assert (latest.answer, latest.score, latest.logit, latest.made_by) == ("generated", 0.7, 2.5, "model 1")


@pytest.mark.parametrize(
    ("verdict", "label", "opinion"),
    [
        ("generated", "generated", "right"),
        ("generated", "real", "wrong"),
        ("authentic", "real", "right"),
        ("authentic", "generated", "wrong"),
        ("inconclusive", "real", None),
        ("generated", None, "unsure"),
        ("inconclusive", None, "unsure"),
    ],
)
def test_what_a_label_says_of_a_verdict(house: House, verdict: str, label: str, opinion: str) -> None:
    job = house.answered(1, verdict, 0.2)
    assert house.feedback.add("", job, Said("review", "", label=label))  # type: ignore[arg-type]
    assert [row.opinion for row in house.feedback.current("", job)] == [opinion]


def test_an_answer_that_is_not_there_is_not_spoken_of(house: House) -> None:
    expired = house.answered(1, "generated", 0.1, ttl_s=-1)
    failed = f"{2:032x}"
    house.jobs.add(replace(JOB, id=failed), finished=Finished(error_code="encrypted"), ttl_s=60)
    waiting = house.jobs.add(replace(JOB, id=f"{3:032x}")).id
    for job in (expired, failed, waiting, "f" * 32):
        assert not house.feedback.add("", job, MINE)
    foreign = house.answered(4, "generated", 0.1, tenant="other")
    assert not house.feedback.add("", foreign, MINE)
    assert house.feedback.current("", foreign) == []


def test_of_one_actor_at_the_same_moment_one_opinion_counts(house: House) -> None:
    job = house.answered(1, "generated", 0.1)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: house.feedback.add("", job, MINE), range(16)))
    assert [counts for _, counts in house.history()].count(True) == 1


def test_who_speaks_while_the_job_is_deleted_is_too_late_or_forgotten(house: House) -> None:
    for number in range(20):
        job = house.answered(number, "generated", 0.1)
        house.feedback.add("", job, MINE)
        with ThreadPoolExecutor(8) as threads:
            speaking = [threads.submit(house.feedback.add, "", job, MINE) for _ in range(4)]
            deleting = threads.submit(house.jobs.remove, "", job)
            speaking += [threads.submit(house.feedback.add, "", job, MINE) for _ in range(3)]
        assert deleting.result()
        assert {said.result() for said in speaking} <= {True, False}
        assert house.feedback.current("", job) == []


def test_what_the_policy_wants_reviewed_comes_first(house: House) -> None:
    house.answered(1, "generated", 0.01, action="allow")
    house.answered(2, "generated", 0.2, action="review")
    house.answered(3, "inconclusive", 0.1)
    assert house.queue() == [3, 2, 1]


def test_the_order_of_the_queue(house: House) -> None:
    house.answered(1, "generated", 0.05)
    house.answered(2, "authentic", 0.02)
    house.answered(3, "inconclusive", 0.3)
    reported = house.answered(4, "authentic", 0.1)
    praised = house.answered(5, "authentic", 0.09)
    house.answered(6, "inconclusive", 0.01, tenant="other")
    house.answered(7, "inconclusive", 0.01, ttl_s=-1)
    house.feedback.add("", reported, MINE)
    house.feedback.add("", praised, replace(MINE, opinion="right"))
    assert house.queue() == [4, 3, 2, 1, 5]
    assert house.queue("other") == [6]
    [first, *_], _ = house.feedback.waiting("", after=None, limit=1)
    assert (first.rank, [report.note for report in first.reports]) == (0, ["it is mine"])

    house.feedback.end("", reported, source="user", actor="key")
    assert house.queue() == [3, 2, 1, 5, 4]


def test_a_decision_takes_it_out_and_undoing_brings_it_back(house: House) -> None:
    job = house.answered(1, "inconclusive", 0.1)
    house.answered(2, "generated", 0.1)
    house.feedback.add("", job, Said("review", "key", label="real"))
    assert house.queue() == [2]
    house.feedback.end("", job, source="review", actor="key")
    assert house.queue() == [1, 2]


def test_pages_of_the_queue_join(house: House) -> None:
    for number in range(7):
        house.answered(number, "inconclusive" if number % 2 else "generated", 0.1)
    seen, after = [], None
    while True:
        found, total = house.feedback.waiting("", after=after, limit=2)
        assert total == 7
        if not found:
            break
        seen += [int(waiting.job.id, 16) for waiting in found]
        after = found[-1].place
    assert seen == house.queue() == [1, 3, 5, 0, 2, 4, 6]


def test_feedback_outlives_the_job_but_not_its_deletion(house: House) -> None:
    deleted = house.answered(1, "generated", 0.1)
    expired = house.answered(2, "generated", 0.1)
    house.feedback.add("", deleted, MINE)
    house.feedback.add("", expired, MINE)
    house.jobs.remove("other", deleted)
    assert len(house.history()) == 2
    house.jobs.remove("", deleted)
    with house.database.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE jobs SET expires_at = 1"))
    house.jobs.expire(queue_ttl_s=60)
    assert house.jobs.purge(after_s=0) == [expired]
    assert [row.job_id for row in house.feedback.current("", expired)] == [expired]
    assert house.feedback.current("", deleted) == []


def test_of_how_many_without_saying_which(house: House) -> None:
    jobs = [house.answered(n, "generated" if n < 3 else "authentic", 0.1) for n in range(1, 5)]
    one = house.feedback.add_group("", Counted("upheld", 3, jobs, "key", "monday"))
    other = house.feedback.add_group("", Counted("generated", 1, jobs[:2], "key"))
    assert [(g.id, g.kind, g.count, g.jobs) for g in house.feedback.groups("", before=None, limit=9)] == [
        (other.id, "generated", 1, 2),
        (one.id, "upheld", 3, 4),
    ]
    assert house.feedback.groups("", before=other.id, limit=1)[0].note == "monday"
    assert house.feedback.groups("else", before=None, limit=9) == []
    upheld, generated = house.feedback.confirmations(WEIGHTS, since=0)
    assert upheld.jobs == tuple(jobs)
    assert upheld.logits == (2.5, 3.5, 4.5, 5.5)
    assert upheld.holds_if_generated == (True, True, False, False)
    assert (upheld.count, generated.count) == (3, 1)
    assert generated.holds_if_generated == (True, True)
    assert house.feedback.confirmations("b" * 64, since=0) == []
    assert house.feedback.confirmations(WEIGHTS, since=upheld.at + 3600) == []
    assert not house.feedback.remove_group("else", one.id, actor="")
    assert house.feedback.remove_group("", one.id, actor="")
    assert house.feedback.confirmations(WEIGHTS, since=0) == [generated]


def test_counts_that_say_nothing_are_refused(house: House) -> None:
    job, open_ = house.answered(1, "generated", 0.1), house.answered(2, "inconclusive", 0.1)
    foreign = house.answered(3, "generated", 0.1, tenant="else")
    later = house.answered(4, "generated", 0.1, weights="b" * 64)
    waiting = house.jobs.add(replace(JOB, id=f"{5:032x}")).id
    for counted, code in (
        (Counted("upheld", 2, [job], ""), "invalid_request"),
        (Counted("upheld", 1, [job, job], ""), "invalid_request"),
        (Counted("upheld", 1, [job, open_], ""), "invalid_request"),
        (Counted("upheld", 1, [job, later], ""), "invalid_request"),
        (Counted("generated", 1, [job, foreign], ""), "job_not_found"),
        (Counted("generated", 1, [job, "f" * 32], ""), "job_not_found"),
        (Counted("generated", 1, [job, waiting], ""), "job_not_done"),
    ):
        with pytest.raises(GroupRefused) as refused:
            house.feedback.add_group("", counted)
        assert refused.value.code == code
    assert house.feedback.groups("", before=None, limit=9) == []
    assert house.feedback.add_group("", Counted("generated", 1, [job, open_], "")).jobs == 2


def test_a_count_goes_with_any_of_its_jobs_but_not_with_its_expiry(house: House) -> None:
    jobs = [house.answered(n, "generated", 0.1) for n in range(1, 6)]
    house.feedback.add_group("", Counted("upheld", 1, jobs[:2], ""))
    kept = house.feedback.add_group("", Counted("upheld", 1, jobs[2:], ""))
    house.jobs.remove("else", jobs[0])
    assert len(house.feedback.groups("", before=None, limit=9)) == 2
    house.jobs.remove("", jobs[0])
    with house.database.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE jobs SET expires_at = 1"))
    house.jobs.expire(queue_ttl_s=60)
    house.jobs.purge(after_s=0)
    assert [group.id for group in house.feedback.groups("", before=None, limit=9)] == [kept.id]
    [confirmation] = house.feedback.confirmations(WEIGHTS, since=0)
    assert confirmation.jobs == tuple(jobs[2:])
    with house.database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM group_members")).scalar_one() == 3


def test_an_operator_s_label_goes_before_a_user_s(house: House) -> None:
    first, second = house.answered(1, "generated", 0.1), house.answered(2, "generated", 0.1)
    house.feedback.add("", first, Said("review", "op", label="generated"))
    house.feedback.add("", first, MINE)
    house.feedback.add("", second, MINE)
    house.feedback.add("", second, Said("user", "another", "right"))
    assert [(c.jobs, c.count) for c in house.feedback.confirmations(WEIGHTS, since=0)] == [((first,), 1)]
    believed = house.feedback.confirmations(WEIGHTS, since=0, users=True)
    assert sorted((c.jobs, c.count) for c in believed) == [((first,), 1), ((second,), 0)]


def test_answers_of_before_are_put_into_the_queue(tmp_path: Path) -> None:
    """As a database of the version before has them."""
    engine = open_database(None, tmp_path)
    result = {"verdict": "authentic", "score": 0.25, "threshold": {"value": 0.9, "lower": 0.3}}
    JobStore(engine).add(
        replace(JOB, id="a" * 32), finished=Finished(result=json.dumps(result), made_by="x"), ttl_s=60
    )
    with engine.execution_options(writes=True).begin() as connection:
        for table in (
            *("feedback", "audit_trail", "signing_keys", "webhooks", "webhook_deliveries"),
            *("group_feedback", "group_members", "calibrations", "activations", "score_counts"),
            "fingerprints",
        ):
            connection.execute(text(f"DROP TABLE {table}"))
        for index in ("ix_jobs_appeal_of", "ix_jobs_tenant_views_bytes"):
            connection.execute(text(f"DROP INDEX {index}"))
        columns = ("appeal_of", "verdict", "margin", "evidence", "stability", "surface", "action")
        for column in (*columns, "views_bytes"):
            connection.execute(text(f"ALTER TABLE jobs DROP COLUMN {column}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    migrate(engine)
    [waiting], _ = FeedbackStore(engine).waiting("", after=None, limit=10)
    assert (waiting.job.verdict, round(waiting.place[1], 6)) == ("authentic", 0.05)
    engine.dispose()
