"""The database comes up as this version wants it, whoever else starts at the same moment."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import MISSING, cluster
from sqlalchemy import Engine, text

from app.jobs.database import StoreUnusable, migrate, open_database
from app.jobs.table import Base

TOGETHER = """
import sys
from contextlib import nullcontext
from pathlib import Path
from app.jobs.database import open_database
for url in sys.argv[2:]:
    open_database(url or None, Path(sys.argv[1])).dispose()
"""


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def test_sqlite_is_made_in_the_data_folder(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    assert (tmp_path / "jobs.sqlite3").exists()
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2  # FULL
    engine.dispose()


def test_processes_that_start_together_take_turns(tmp_path: Path) -> None:
    with nullcontext("") if MISSING else cluster() as postgresql:
        command = [sys.executable, "-c", TOGETHER, str(tmp_path), "", *([postgresql] if postgresql else [])]
        started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        for process in started:
            _, said = process.communicate(timeout=200)
            assert process.returncode == 0, said
    assert (tmp_path / "jobs.sqlite3").exists()


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_postgresql_gets_the_same_tables(tmp_path: Path) -> None:
    with cluster() as url:
        engine = open_database(url, tmp_path)
        assert engine.dialect.name == "postgresql"
        assert differences(engine) == []
        engine.dispose()
    assert list(tmp_path.iterdir()) == []


def test_a_percent_sign_in_the_address_is_only_that(tmp_path: Path) -> None:
    folder = tmp_path / "100%(here)s"
    folder.mkdir()
    open_database(None, folder).dispose()


def test_what_a_newer_version_made_is_left_alone(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnusable, match="newer version"):
        open_database(None, tmp_path)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(Exception, match="already exists"):
        migrate(engine)  # makes the table once more
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 0
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:secret@localhost/jobs",
        "no address, secret",
        "postgresql://user:secret@127.0.0.1:1/jobs",
        "sqlite:////nowhere/secret/jobs.sqlite3",
    ],
)
def test_what_can_t_be_opened_is_said_without_the_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreUnusable) as refused:
        open_database(url, tmp_path)
    assert "secret" not in refused.value.message
    assert "SPECSEM_DATABASE_URL" in refused.value.message
