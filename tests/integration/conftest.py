"""The service as it ships, with a model small enough to be made on the spot."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SERVICE, Server, serving


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """`specsem serve`: real decoder, real scorer, an untrained model."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    with serving(SERVICE, data_dir, models_dir=tiny_models, device="cpu") as server:
        server.wait_ready()
        yield server
        assert server.uploads() == []
