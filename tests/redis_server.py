"""A Redis of our own, on a socket in a folder of its own, for as long as a test takes."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

redis = pytest.importorskip("redis")

__all__ = ["MISSING", "redis_server"]

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
MISSING = "" if BINARY else "no server is installed (Debian: redis-server)"
"""Why there can't be one here; empty where there can."""


@contextmanager
def redis_server() -> "Iterator[tuple[str, Any]]":
    """Its address and a connection; it ends with the block."""
    assert BINARY is not None, MISSING
    # Not where pytest keeps its folders: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = str(Path(folder) / "socket")
        options = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        process = subprocess.Popen([BINARY, *options], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "ready to accept connections" in line.lower():
                    break
            url = f"unix://{path}"
            with redis.Redis.from_url(url) as server:
                yield url, server
        finally:
            process.terminate()
            process.communicate()
