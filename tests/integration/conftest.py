"""The service as it ships, with a model small enough to be made on the spot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium
from serving import DOUBLES, SERVICE, Server, serving


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """`specsem serve`: real decoder, real scorer, an untrained model."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    with serving(SERVICE, data_dir, models_dir=tiny_models, device="cpu") as server:
        server.wait_ready()
        yield server
        assert server.uploads() == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """For tests that are marked `browser`. Not for the session: while it is there, no test may run a loop."""
    pytest.importorskip("playwright.sync_api")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with stand-ins for decoder and model, new for each module of tests."""
    data_dir = tmp_path_factory.mktemp("doubles") / "data"
    with serving(DOUBLES, data_dir, max_upload_bytes=2_000_000) as server:
        server.wait_ready()
        yield server
