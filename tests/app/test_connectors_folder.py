"""A folder that is watched."""

import json
import os
from pathlib import Path

import pytest

from app.connectors.folder import FolderSource
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Unfit
from specsem.records import Job
from tests.client.test_clients import DONE

SCORED = Job.model_validate(DONE)


def taken(source: FolderSource) -> list[Delivery]:
    return list(source.receive(10, wait_s=0))


def test_what_is_whole_is_taken_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    for name in (".hidden.mp4", "b.mp4.part", "c.tmp"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "below").mkdir()
    (tmp_path / "link.mp4").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    source = FolderSource(tmp_path, settle_s=0)
    [delivery] = taken(source)
    assert delivery.name == "a.mp4"
    assert delivery.fetch(tmp_path) == tmp_path / "a.mp4"
    assert source.receive(10, wait_s=0) == [], "it is under way"


def test_a_file_that_still_grows_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("app.connectors.folder.time.monotonic", lambda: now[0])
    source = FolderSource(tmp_path, settle_s=2.0)
    for size in (1, 2, 3):
        (tmp_path / "a.mp4").write_bytes(bytes(size))
        assert source.receive(1, wait_s=0) == []
        now[0] += 1.5
    assert source.receive(1, wait_s=0) == []
    now[0] += 2.5
    assert [delivery.name for delivery in source.receive(1, wait_s=0)] == ["a.mp4"]


def test_files_are_moved_with_their_outcomes_and_none_is_overwritten(tmp_path: Path) -> None:
    source = FolderSource(tmp_path, settle_s=0)
    for content in (b"1", b"22"):
        (tmp_path / "a.mp4").write_bytes(content)
        [delivery] = taken(source)
        source.done(Outcome(delivery, SCORED))
    (tmp_path / "bad.mp4").write_bytes(b"bad")
    [delivery] = taken(source)
    source.set_aside(Outcome(delivery, None, Unfit("It is no video.")))
    done = tmp_path / "done"
    assert sorted(path.name for path in done.iterdir()) == ["a-2.mp4", "a-2.mp4.json", "a.mp4", "a.mp4.json"]
    assert (done / "a-2.mp4").read_bytes() == b"22"
    report = json.loads((done / "a.mp4.json").read_text())
    assert (report["name"], report["job"], report["error"]) == ("a.mp4", SCORED.id, None)
    assert report["answer"]["verdict"] == "generated"
    failed = json.loads((tmp_path / "failed" / "bad.mp4.json").read_text())
    assert failed["error"] == {"code": "unfit", "message": "It is no video."}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_file_is_the_same_after_a_restart_and_another_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    [first] = taken(FolderSource(tmp_path, settle_s=0))
    [again] = taken(FolderSource(tmp_path, settle_s=0))
    (tmp_path / "a.mp4").write_bytes(b"22")
    [other] = taken(FolderSource(tmp_path, settle_s=0))
    assert first.id == again.id != other.id
    assert len(first.id) <= 255


def test_a_file_that_is_taken_away_is_unfit_and_leaves_its_outcome(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    source = FolderSource(tmp_path, settle_s=0)
    [delivery] = taken(source)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(Unfit):
        delivery.fetch(tmp_path)
    source.set_aside(Outcome(delivery, None, Unfit("It went.")))
    assert [path.name for path in (tmp_path / "failed").iterdir()] == ["a.mp4.json"]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectorUnusable, match="can't be used"):
        FolderSource(tmp_path / "nowhere")
