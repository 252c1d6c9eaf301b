"""The application with stand-ins for decoder and model, in this process."""

from collections.abc import Iterator
from pathlib import Path

import doubles
import pytest
from fastapi.testclient import TestClient

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
