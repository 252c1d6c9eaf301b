"""The audit trail: chained, written with what it tells of, and what tampering with it shows."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session
from test_jobs_routes import NEW

from app.audit import Event, Head, Trail, TrailBroken, append, check
from app.auditing import Auditing, Export
from app.jobs.database import database_of
from app.jobs.feedback import FeedbackStore, Said
from app.jobs.store import Finished, JobStore
from app.jobs.table import AuditRow, JobRow
from app.keys import KeyStore
from app.settings import Settings
from app.signing import SignatureRefused, load_signer
from specsem.errors import FileUnusable

JOB = replace(NEW, tenant="acme", filename="secret name.mp4", sha256="5" * 64, key="abc123")


@pytest.fixture
def empty(database: Engine) -> Engine:
    with database.execution_options(writes=True).begin() as connection:
        for table in ("audit_trail", "jobs", "feedback", "api_keys"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
    return database


@pytest.fixture
def trail(empty: Engine) -> Trail:
    return Trail(empty)


def entries(trail: Trail) -> list[dict[str, object]]:
    return [json.loads(link.entry) for link in trail.links()]


def test_an_empty_trail_holds(trail: Trail) -> None:
    assert check(trail.links()) == trail.head() == Head(0, "0" * 64)


def test_a_job_s_life_is_written_down_without_its_video(trail: Trail, empty: Engine) -> None:
    store = JobStore(empty)
    store.add(JOB)
    claimed = store.claim(lease_s=60, max_attempts=3)
    assert claimed
    summary = {"verdict": "generated", "score": 0.97}
    assert store.finish(claimed, Finished("{}", "model 1", summary=summary), ttl_s=60)
    assert not store.finish(claimed, Finished("{}", "model 1"), ttl_s=60)  # and nothing is noted of it
    assert store.remove("acme", JOB.id, key="def456")
    assert not store.remove("acme", JOB.id)
    told = entries(trail)
    assert [(entry["event"], entry["key"]) for entry in told] == [
        ("job_submitted", "abc123"),
        ("job_scored", ""),
        ("job_deleted", "def456"),
    ]
    assert {(entry["tenant"], entry["job"]) for entry in told} == {("acme", JOB.id)}
    assert told[1]["details"] == summary | {"from_store": False}
    assert "secret name" not in str(told)
    assert JOB.sha256 not in str(told)
    assert check(trail.links()) == trail.head()


def test_failures_and_expiry_are_written_down(trail: Trail, empty: Engine) -> None:
    store = JobStore(empty)
    store.add(JOB)
    store.claim(lease_s=-1, max_attempts=1)
    assert store.give_up(max_attempts=1, ttl_s=-1) == [JOB.id]
    assert store.expire(queue_ttl_s=60) == [JOB.id]
    told = entries(trail)
    assert [entry["event"] for entry in told] == ["job_submitted", "job_failed", "job_expired"]
    assert told[1]["details"] == {"code": "attempts_exceeded"}


def test_feedback_is_written_down_without_its_note(trail: Trail, empty: Engine) -> None:
    result = json.dumps({"verdict": "generated", "score": 0.97, "logit": 3.4})
    JobStore(empty).add(JOB, finished=Finished(result, "model 1", verdict="generated"), ttl_s=60)
    feedback = FeedbackStore(empty)
    assert feedback.add("acme", JOB.id, Said("user", "def456", "wrong", "real", "secret note"))
    assert not feedback.add("other", JOB.id, Said("user", "def456", "wrong"))  # and nothing is noted of it
    assert feedback.end("acme", JOB.id, source="user", actor="def456")
    assert not feedback.end("acme", JOB.id, source="user", actor="def456")
    *before, given, withdrawn = entries(trail)
    assert [entry["event"] for entry in before] == ["job_submitted", "job_scored"]
    assert (given["event"], withdrawn["event"]) == ("feedback_given", "feedback_withdrawn")
    assert (withdrawn["tenant"], withdrawn["key"], withdrawn["job"]) == ("acme", "def456", JOB.id)
    assert (given["tenant"], given["key"], given["job"]) == ("acme", "def456", JOB.id)
    assert given["details"] == {"source": "user", "opinion": "wrong", "label": "real"}
    assert "secret note" not in str(given)
    assert check(trail.links()) == trail.head()


def test_keys_are_written_down_without_their_secrets(trail: Trail, empty: Engine) -> None:
    store = KeyStore(empty)
    key, row = store.create(tenant="acme")
    store.revoke(row.prefix, forget=True)
    told = entries(trail)
    assert [(entry["event"], entry["key"]) for entry in told] == [
        ("key_created", row.prefix),
        ("key_revoked", row.prefix),
    ]
    assert key.rpartition("_")[2] not in str(told)


def test_what_is_rolled_back_was_never_written_down(trail: Trail, empty: Engine) -> None:
    trail.note(Event("service_started"))
    with Session(empty.execution_options(writes=True)) as session:
        append(session, Event("job_deleted"))
        session.rollback()
    trail.note(Event("service_started"))
    assert [entry["event"] for entry in entries(trail)] == ["service_started"] * 2
    check(trail.links())


def test_writers_at_the_same_moment_make_one_chain(trail: Trail, empty: Engine) -> None:
    def write() -> None:
        for _ in range(20):
            trail.note(Event("report_issued"))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert check(trail.links()).seq == 80


def edit(session: Session) -> None:
    row = session.get_one(AuditRow, 3)
    row.entry = row.entry.replace("acme", "evil")


def rehash(session: Session) -> None:
    """An edit by somebody who knows that a hash stands beside it."""
    edit(session)
    row = session.get_one(AuditRow, 3)
    row.sha256 = sha256(row.entry.encode()).hexdigest()


def remove(session: Session) -> None:
    session.delete(session.get_one(AuditRow, 3))


def remove_and_renumber(session: Session) -> None:
    remove(session)
    session.flush()
    for row in session.scalars(select(AuditRow).where(AuditRow.seq > 3).order_by(AuditRow.seq)):
        moved = AuditRow(seq=row.seq - 1, entry=row.entry, sha256=row.sha256)
        session.delete(row)
        session.flush()
        session.add(moved)
        session.flush()


def swap(session: Session) -> None:
    third, fourth = session.get_one(AuditRow, 3), session.get_one(AuditRow, 4)
    third.entry, fourth.entry = fourth.entry, third.entry
    third.sha256, fourth.sha256 = fourth.sha256, third.sha256


def behead(session: Session) -> None:
    session.delete(session.get_one(AuditRow, 1))


def garble(session: Session) -> None:
    session.get_one(AuditRow, 3).entry = "no JSON"


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (edit, "Entry 3 is broken"),
        (rehash, "Entry 4 is broken"),
        (remove, "Entry 3 is missing"),
        (remove_and_renumber, "Entry 3 is broken"),
        (swap, "Entry 3 is broken"),
        (behead, "Entry 1 is missing"),
        (garble, "Entry 3 is broken"),
    ],
)
def test_tampering_is_found_where_it_begins(
    tamper: Callable[[Session], None], says: str, trail: Trail, empty: Engine
) -> None:
    for number in range(5):
        trail.note(Event("job_submitted", "acme", job=str(number)))
    check(trail.links())
    with Session(empty.execution_options(writes=True)) as session, session.begin():
        tamper(session)
    with pytest.raises(TrailBroken, match=says):
        check(trail.links())


def test_a_lost_end_shows_against_a_head_that_was_kept(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    kept, others = tmp_path / "head.json", tmp_path / "others.json"
    with database_of(settings) as engine:
        trail, auditing = Trail(engine), Auditing(Trail(engine), settings)
        for _ in range(3):
            trail.note(Event("report_issued"))
        kept.write_text(auditing.signed_head())
        kid = load_signer(settings).kid
        trail.note(Event("report_issued"))
        assert auditing.verify(head=kept, keys=kid).seq == 4  # what came after it is no harm
        with pytest.raises(SignatureRefused, match="none of yours"):
            auditing.verify(head=kept, keys="A" * 43)
        others.write_text(kept.read_text().replace('"seq":3', '"seq":2'))
        with pytest.raises(SignatureRefused):
            auditing.verify(head=others)
        with pytest.raises(FileUnusable):
            auditing.verify(head=tmp_path / "nothing")
        with engine.execution_options(writes=True).begin() as connection:
            connection.execute(text("DELETE FROM audit_trail WHERE seq > 2"))
        assert auditing.verify().seq == 2  # by itself, it can't be seen
        with pytest.raises(TrailBroken, match="The end is missing"):
            auditing.verify(head=kept)
        trail.note(Event("report_issued"))  # nor is it healed by going on
        with pytest.raises(TrailBroken, match="another than the one that the kept head names"):
            auditing.verify(head=kept)


def test_an_export_can_be_checked_without_the_database(tmp_path: Path) -> None:
    settings, export = Settings(data_dir=tmp_path / "data"), tmp_path / "trail.jsonl"
    with database_of(settings) as engine:
        trail = Trail(engine)
        for number in range(3):
            trail.note(Event("job_scored", "änne", details={"score": 0.1 * number}))
        export.write_text(
            "".join(f"{line}\n" for line in Auditing(trail, settings).lines()), encoding="utf-8"
        )
        assert Export(export).verify() == trail.head()
    lines = export.read_text(encoding="utf-8").splitlines(keepends=True)
    assert json.loads(lines[1])["entry"]["details"] == {"score": 0.1}
    export.write_text(lines[0] + lines[1].replace("änne", "anne") + lines[2], encoding="utf-8")
    with pytest.raises(TrailBroken, match="Entry 2 is broken"):
        Export(export).verify()
    export.write_text("[1]\n")
    with pytest.raises(TrailBroken, match="no entry"):
        Export(export).verify()
    with pytest.raises(FileUnusable):
        Export(tmp_path / "nothing").verify()


def test_a_job_and_its_entry_come_together_or_not_at_all(
    trail: Trail, empty: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("app.jobs.store.append", fail)
    with pytest.raises(OSError, match="full"):
        JobStore(empty).add(JOB)
    with Session(empty) as session:
        assert session.scalars(select(JobRow)).all() == []
    assert entries(trail) == []
