"""The media of jobs: whole or not there, and nobody else's."""

import os
import time
from pathlib import Path

import pytest

from app.jobs.files import JobFiles

JOB = "a" * 32


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    files = JobFiles(tmp_path / "jobs")
    files.open()
    return files


def folder_in(root: Path, data: bytes = b"0123") -> Path:
    folder = root / "arrived"
    folder.mkdir()
    (folder / "media").write_bytes(data)
    return folder


def test_an_arrived_folder_moves_in(tmp_path: Path, files: JobFiles) -> None:
    folder = folder_in(tmp_path)
    old = time.time() - 3600
    os.utime(folder, (old, old))
    files.move_in(JOB, folder)
    assert not folder.exists()
    assert files.path(JOB).read_bytes() == b"0123"
    assert list(files.older_than(60)) == []  # it counts from now, however long it took to arrive
    assert list(files.older_than(-1)) == [JOB]
    files.remove(JOB)
    files.remove(JOB)
    assert not files.path(JOB).exists()


def test_a_stored_file_gets_a_second_name(tmp_path: Path, files: JobFiles) -> None:
    stored = folder_in(tmp_path) / "media"
    files.link_in(JOB, stored)
    stored.unlink()
    assert files.path(JOB).read_bytes() == b"0123"


def test_what_is_gone_is_said_and_leaves_nothing(tmp_path: Path, files: JobFiles) -> None:
    with pytest.raises(FileNotFoundError):
        files.link_in(JOB, tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        files.move_in(JOB, tmp_path / "gone")
    assert list((tmp_path / "jobs").iterdir()) == []


def test_only_ours_are_listed_and_halves_are_removed(tmp_path: Path, files: JobFiles) -> None:
    (tmp_path / "jobs" / f"{JOB}.part").mkdir()
    (tmp_path / "jobs" / "somebody-else-s").mkdir()
    assert list(files.older_than(60)) == []
    assert (tmp_path / "jobs" / f"{JOB}.part").exists()
    assert list(files.older_than(-1)) == []
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["somebody-else-s"]


def test_bytes_reach_the_disk_before_the_name(
    tmp_path: Path, files: JobFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(descriptor: int) -> None:
        order.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noting_rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    files.move_in(JOB, folder_in(tmp_path))
    assert order == ["fsync media", "fsync arrived", "rename", "fsync jobs"]
