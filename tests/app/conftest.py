"""The application with stand-ins for decoder and model, in this process."""

from collections.abc import Iterator
from pathlib import Path

import doubles
import pytest
from fastapi.testclient import TestClient
from postgres import MISSING, cluster
from sqlalchemy import Engine

from app.jobs.database import open_database
from app.main import create_app
from app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_upload_bytes=100_000)


@pytest.fixture
def engine(settings: Settings) -> doubles.Engine:
    return doubles.Engine(settings)


@pytest.fixture
def decoder() -> doubles.Decoder:
    return doubles.Decoder()


@pytest.fixture
def client(settings: Settings, engine: doubles.Engine, decoder: doubles.Decoder) -> Iterator[TestClient]:
    with TestClient(create_app(settings, engine, decoder), base_url="http://127.0.0.1") as client:
        doubles.until_ready(client)
        yield client


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An empty database of each kind that is served."""
    if request.param == "sqlite":
        engine = open_database(None, tmp_path_factory.mktemp("jobs"))
        yield engine
        engine.dispose()
        return
    if MISSING:
        pytest.skip(MISSING)
    with cluster() as url:
        engine = open_database(url, Path("unused"))
        yield engine
        engine.dispose()
