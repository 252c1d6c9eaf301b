"""The application with stand-ins for decoder and model, in this process."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
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


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A small cluster that this process is connected to. Its processes find the stand-ins, too."""
    from app import ray_setup  # before ray, which reads what it sets

    ray = pytest.importorskip("ray", reason="needs the extra `ray`")

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for the cluster, not for what other tests start
            folders = [Path(doubles.__file__).parent, Path(doubles.__file__).parent.parent.parent]
            patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
            patch.setattr(ray_setup, "OBJECT_STORE_BYTES", 400 * 1024**2)
            stack.enter_context(ray_setup.cluster(ray, None, cpus=4))
        yield


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
