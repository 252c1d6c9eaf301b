"""docs/operations.md tells the truth: its tables are the code's, its commands run, its names exist."""

import re
import shutil
import sqlite3
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from app.jobs.database import open_database
from app.observability.metrics import Metrics
from app.problems import CODES
from app.reference import DOCUMENT, OPENAPI, openapi, renewed
from app.settings import Settings

TEXT = DOCUMENT.read_text(encoding="utf-8")
METRICS = {metric.name: metric for metric in Metrics().described}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def test_its_tables_are_the_code_s() -> None:
    assert renewed(TEXT) == TEXT, "`make docs` writes them anew"


def test_the_openapi_document_is_the_service_s() -> None:
    assert openapi() == OPENAPI.read_text(encoding="utf-8"), "`make docs` writes it anew"


def test_a_setting_without_a_meaning_would_show() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_document_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places for the table of settings"):
        renewed("no places")


def test_every_setting_it_names_exists() -> None:
    named = {name.lower() for name in re.findall(r"SPECSEM_([A-Z0-9_]+)", TEXT)}
    assert named >= Settings.model_fields.keys()
    assert named <= Settings.model_fields.keys()


def test_every_metric_it_names_exists() -> None:
    named = set(re.findall(r"\bspecsem_[a-z_]+", TEXT))
    histograms = {name for name, metric in METRICS.items() if metric.kind == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    assert named <= METRICS.keys() | parts
    assert named >= METRICS.keys()


def test_every_code_it_names_exists() -> None:
    cells = {code for row in re.findall(r"503 `(\w+)`|fail as `(\w+)`", TEXT) for code in row if code}
    assert cells
    assert cells <= CODES.keys()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the backup's command is sqlite3's")
def test_the_backup_holds_what_the_log_holds(tmp_path: Path) -> None:
    data, backup = tmp_path / "data folder", tmp_path / "backup"
    for folder in (data / "jobs", data / "videos", backup):
        folder.mkdir(parents=True)
    (data / "videos" / "media").write_bytes(b"x")
    open_database(None, data).dispose()
    (commands,) = [block for block in blocks("sh") if "sqlite3" in block]
    with sqlite3.connect(data / "jobs.sqlite3") as writer:  # open meanwhile: its log is not folded in
        columns = [row[1] for row in writer.execute("PRAGMA table_info(jobs)")]
        values = ", ".join("'x'" for _ in columns)
        writer.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({values})")  # noqa: S608
        writer.commit()
        assert (data / "jobs.sqlite3-wal").stat().st_size > 0
        environment = {"SPECSEM_DATA_DIR": str(data), "BACKUP": str(backup), "PATH": "/usr/bin:/bin"}
        subprocess.run(["bash", "-eu", "-c", commands], env=environment, check=True)
    url = f"file:{quote(str(backup / 'jobs.sqlite3'))}?immutable=1"
    with sqlite3.connect(url, uri=True) as copy:
        assert copy.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    open_database(None, backup).dispose()
    assert (backup / "videos" / "media").read_bytes() == b"x"
