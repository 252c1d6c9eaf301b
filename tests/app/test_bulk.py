"""Many files on Ray Data: which ones, what they become, and going on after a kill."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from specsem.errors import FileUnusable
from specsem.registry import DEFAULT_MODEL

pytestmark = pytest.mark.ray
# It, and not ray: what Ray reads must be said before.
bulk = pytest.importorskip("app.bulk", reason="needs the extra `ray`", exc_type=ModuleNotFoundError)

import pyarrow.parquet as pq  # noqa: E402

ANSWER = {
    "path": "a.mp4",
    "sha256": "0" * 64,
    "verdict": "authentic",
    "score": 0.1,
    "logit": -2.0,
    "reasons": [],
}
FAILURE = {"path": "b.mp4", "error": {"code": "undecodable", "message": "Nothing in it."}}
MADE_BY = {"model": "m", "version": "1", "sha256": "1" * 64, "policy": "default"}


# -- which files --------------------------------------------------------------------------------------------


def test_a_manifest_names_files_beside_itself_once_each(tmp_path: Path) -> None:
    lines = [{"path": "a.mp4", "label": "real"}, {"group": ["b.mp4", "a.mp4"]}, {"path": "s3://bucket/c.mp4"}]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n\n".join(map(json.dumps, lines)))
    assert bulk.list_files(str(manifest)) == {
        "a.mp4": f"{tmp_path}/a.mp4",
        "b.mp4": f"{tmp_path}/b.mp4",
        "s3://bucket/c.mp4": "s3://bucket/c.mp4",
    }
    assert bulk.list_files(f"file://{manifest}")["a.mp4"] == f"file://{tmp_path}/a.mp4"


def test_a_folder_gives_all_that_is_not_hidden(tmp_path: Path) -> None:
    for name in ("b.mp4", "sub/a.mp4", ".hidden/c.mp4", "sub/.d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(bulk.list_files(str(tmp_path))) == ["b.mp4", "sub/a.mp4"]
    assert list(bulk.list_files(f"file://{tmp_path}")) == ["b.mp4", "sub/a.mp4"]


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"label": "real"}', '{"path": 7}', '{"group": [1]}'])
def test_what_is_no_manifest_is_said_with_its_line(tmp_path: Path, line: str) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(f'{{"path": "a.mp4"}}\n{line}\n')
    with pytest.raises(FileUnusable, match="line 2"):
        bulk.list_files(str(manifest))


@pytest.mark.parametrize(
    "source", ["nowhere", "file:///nowhere/at-all.jsonl", "nonesuch://bucket/list.jsonl"]
)
def test_a_source_that_can_t_be_read_is_said_in_a_sentence(source: str) -> None:
    with pytest.raises(FileUnusable, match=source.partition("://")[2] or source):
        bulk.list_files(source)


# -- the journal --------------------------------------------------------------------------------------------


def results(out: Path, **made_by: str) -> Any:
    opened = bulk._Results(out, {**MADE_BY, **made_by})
    opened.open()
    return opened


def test_what_is_in_the_journal_is_known_and_a_torn_line_is_not(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    results(out).append([json.dumps(ANSWER), json.dumps(FAILURE)])
    with (tmp_path / "results.parquet.journal").open("a") as journal:
        journal.write('{"path": "torn')
    again = results(out)
    assert again.known == {"a.mp4": True, "b.mp4": False}
    again.append([json.dumps({**ANSWER, "path": "c.mp4"})])
    again.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["results.parquet"]
    rows = pq.read_table(out).to_pylist()
    assert [(row["path"], row["verdict"], row["error_code"]) for row in rows] == [
        ("a.mp4", "authentic", None),
        ("b.mp4", None, "undecodable"),
        ("c.mp4", "authentic", None),
    ]
    assert json.loads(rows[0]["answer"]) == ANSWER


def test_a_kill_between_the_last_two_steps_leaves_every_row_once(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    first = results(out)
    first.append([json.dumps(ANSWER)])
    journal = first.journal.read_bytes()
    first.finish()
    first.journal.write_bytes(journal)  # as if it had not been removed yet
    again = results(out)
    assert again.known == {"a.mp4": True}
    again.append([json.dumps(FAILURE)])
    again.finish()
    assert pq.read_table(out)["path"].to_pylist() == ["a.mp4", "b.mp4"]


def test_answers_of_two_models_are_never_mixed(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    results(out)
    with pytest.raises(FileUnusable, match="begun with m 1"):
        results(out, version="2")
    results(out).finish()
    with pytest.raises(FileUnusable, match="begun with m 1"):
        results(out, policy="review")
    out.write_bytes(b"something else")
    with pytest.raises(FileUnusable, match="no result of a bulk run"):
        results(out)


# -- the whole ----------------------------------------------------------------------------------------------


def actors(name: str) -> list[int]:
    """Pids of the actors of this class."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:  # it has just ended
            continue
        if command.startswith(b"ray::MapWorker") and name.encode() in command:
            found.append(int(folder.name))
    return found


def test_every_file_has_its_row_once_though_an_actor_is_killed(
    ray_cluster: None, tmp_path: Path, drawn_clip: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(22):
        shutil.copy(drawn_clip, folder / f"{number:02}.mp4")
    (folder / "notes.txt").write_text("Not a video.")
    (folder / "cut.mp4").write_bytes(drawn_clip.read_bytes()[:300])
    out = tmp_path / "results.parquet"
    killed: list[int] = []

    def kill(_files: int) -> None:
        if not killed:
            killed.extend(actors("Decode")[:1])
            os.kill(killed[0], signal.SIGKILL)

    model = {"model": DEFAULT_MODEL, "device": "cpu"}
    tally = bulk.bulk(str(folder), out, **model, on_progress=kill)
    assert killed
    assert (tally.files, tally.before, tally.scored, tally.failed) == (24, 0, 22, 2)
    rows = {row["path"]: row for row in pq.read_table(out).to_pylist()}
    assert pq.read_metadata(out).num_rows == len(rows) == 24
    assert len({row["sha256"] for row in rows.values() if row["verdict"]}) == 1
    assert (
        max(row["score"] for row in rows.values() if row["verdict"])
        - min(row["score"] for row in rows.values() if row["verdict"])
        < 1e-4
    )
    assert rows["notes.txt"]["error_code"] == "not_a_video"
    assert rows["cut.mp4"]["error_code"] == "undecodable"
    assert json.loads(rows["00.mp4"]["answer"])["media"]["width"] == rows["00.mp4"]["width"] == 320

    # Only what is new is done.
    elsewhere = tmp_path / "elsewhere.mp4"
    shutil.copy(drawn_clip, elsewhere)
    manifest = tmp_path / "manifest.jsonl"
    names = ["cut.mp4", "00.mp4", f"file://{elsewhere}", "file:///nowhere.mp4"]
    manifest.write_text("\n".join(json.dumps({"path": name}) for name in names))
    seen: list[int] = []
    tally = bulk.bulk(str(manifest), out, **model, on_progress=seen.append)
    assert (tally.files, tally.before, tally.scored, tally.failed) == (4, 2, 2, 2)
    assert sum(seen) == 2
    added = {row["path"]: row for row in pq.read_table(out).to_pylist()}
    assert len(added) == 26
    assert added[f"file://{elsewhere}"]["sha256"] == rows["00.mp4"]["sha256"]
    assert added["file:///nowhere.mp4"]["error_code"] == "not_found"
