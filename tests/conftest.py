"""Fixtures for all: a clip drawn for the purpose, and a model small enough to be made on the spot."""

import signal
from pathlib import Path

import pytest

from specsem.synthetic import write_clip
from tests.tiny import write_tiny_models


def pytest_configure() -> None:
    """Where a shell runs the suite in its background, all that the tests start would be deaf to Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def drawn_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 320x240 H.264. Read only."""
    path = tmp_path_factory.mktemp("drawn") / "clip.mp4"
    write_clip(path, width=320, height=240, seconds=2.0)
    return path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models (for SPECSEM_MODELS_DIR) with one untrained `specsem-compact` of a few kilobytes."""
    return write_tiny_models(tmp_path_factory.mktemp("models"))
