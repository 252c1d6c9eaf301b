"""Opens the database of jobs and brings it up to date.

The engine is SQLAlchemy's synchronous one, used in a few threads of its own: SQLite has no other kind (its
asynchronous drivers are threads too), and one way of writing statements then serves both databases.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Double,
    Engine,
    create_engine,
    event,
    func,
    literal,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from app.settings import Settings
from specsem.errors import SpecSemError

__all__ = ["DB_THREADS", "StoreUnusable", "clock", "database_of", "is_sqlite", "migrate", "open_database"]

MIGRATIONS = Path(__file__).parent / "migrations"
DB_THREADS = 4
"""Of the jobs. Keys and webhooks have a few of their own: ``OVERFLOW`` is theirs."""
OVERFLOW = 4
LOCK_WAIT_S = 30.0
MIGRATION_LOCK = 0x5BEC5E37
"""Any number that nobody else takes as an advisory lock in the same database."""


class StoreUnusable(SpecSemError):
    """The database of jobs can't be used."""

    code = "store_unusable"


def is_sqlite(bind: Engine | Connection) -> bool:
    """Whether it is SQLite; PostgreSQL otherwise."""
    return bind.dialect.name == "sqlite"


def clock(bind: Engine | Connection) -> ColumnElement[float]:
    """Seconds since the epoch. On PostgreSQL by the server's clock, because processes on several machines
    never quite agree; SQLite (in WAL mode) lives on one machine, whose clock is everybody's."""
    if is_sqlite(bind):
        return literal(time.time())
    return func.extract("epoch", func.clock_timestamp()).cast(Double)


def open_database(url: str | None, data_dir: Path) -> Engine:
    """An engine with the tables as this version wants them. None: SQLite in the data folder.

    Raises:
        StoreUnusable: it can't be reached, or a newer version has been at it.
    """
    engine: Engine | None = None
    try:
        engine = _engine(_url(url, data_dir))
        migrate(engine)
    except (SQLAlchemyError, CommandError, sqlite3.Error) as error:
        if engine is not None:
            engine.dispose()
        raise StoreUnusable(_sentence(error)) from error
    return engine


@contextmanager
def database_of(settings: Settings) -> Iterator[Engine]:
    """The database of a service, whether it runs or not.

    Raises:
        DataDirUnusable, StoreUnusable: its data folder or its database can't be used.
    """
    settings.make_data_dir()
    engine = open_database(settings.database_address, settings.data_dir)
    try:
        yield engine
    finally:
        engine.dispose()


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to ``revision``. Processes that start together take turns."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.execution_options(writes=True).begin() as connection:
        if not is_sqlite(engine):  # there, BEGIN IMMEDIATE holds the others off
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _url(url: str | None, data_dir: Path) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(data_dir / "jobs.sqlite3"))
    parsed = make_url(url)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"postgresql+psycopg", "sqlite"}:
        raise StoreUnusable("SPECSEM_DATABASE_URL must begin with postgresql:// or sqlite:///.")
    return parsed


def _engine(url: URL) -> Engine:
    if url.drivername != "sqlite":
        try:
            return create_engine(
                url,
                pool_size=DB_THREADS,
                max_overflow=OVERFLOW,
                hide_parameters=True,
                pool_pre_ping=True,  # a database that was restarted is no error
                connect_args={"connect_timeout": 10, "application_name": "specsem"},
            )
        except ModuleNotFoundError as error:
            raise StoreUnusable(
                "PostgreSQL needs psycopg, which is not installed here: the extra `postgres`."
            ) from error
    _use_wal(url.database or "")
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S},
        pool_size=DB_THREADS,
        max_overflow=OVERFLOW,
        hide_parameters=True,  # an error in the log shows no values: presigned links are among them
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _use_wal(path: str) -> None:
    """Write-ahead log: readers never wait for the writer. It stays with the file; asked once, here, because
    the switch itself doesn't wait for a lock, and processes may start together."""
    ends = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.05)


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # Python's own BEGIN comes too late: _begin_sqlite says it
    connection.execute("PRAGMA synchronous=FULL")  # a job that was acknowledged outlives a power cut


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: one that first reads could find itself unable to write."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _sentence(error: Exception) -> str:
    """Says what is wrong, and neither the address nor its password."""
    if isinstance(error, CommandError):
        return "The database of jobs was made by a newer version of SpecSem, or by something else."
    if isinstance(error, ArgumentError):
        return "SPECSEM_DATABASE_URL is no address of a database."
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"The database of jobs can't be used ({type(cause).__name__}). Is SPECSEM_DATABASE_URL right?"
