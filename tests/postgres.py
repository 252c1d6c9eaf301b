"""A PostgreSQL of our own, on a socket in a folder of its own, for as long as a test takes."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["MISSING", "Cluster", "cluster", "crashable_cluster"]


def _binaries() -> Path | None:
    """The newest of Debian's, or what is on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    here = found[-1] if found else shutil.which("initdb")
    return Path(here).parent if here else None


def _user() -> str | None:
    """PostgreSQL refuses to run as root: then as the user that Debian made for it."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


MISSING = "" if _binaries() else "PostgreSQL's server is not installed (Debian: postgresql)"
"""Why there can't be one here; empty where there can."""


class Cluster:
    """A running server with an empty database. Commits reach the disk as they do in earnest."""

    def __init__(self, folder: Path) -> None:
        """In this folder, which is its user's."""
        binaries, user = _binaries(), _user()
        assert binaries is not None, MISSING
        if user is not None:
            shutil.chown(folder, user)
        self.url = f"postgresql://specsem@/postgres?host={folder}"
        self._folder, self._data, self._binaries, self._user = folder, folder / "data", binaries, user
        self._call("initdb", "-U", "specsem", "--auth=trust", "-E", "UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it, after a crash too, and wait until it answers."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder}"
        self._call("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def crash(self) -> None:
        """End it as a crash does: nothing is written down, every connection breaks."""
        self._call("pg_ctl", "-w", "-m", "immediate", "stop")

    def _call(self, program: str, *args: str) -> None:
        subprocess.run(
            [self._binaries / program, "-D", self._data, *args],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd=self._folder,
        )


@contextmanager
def crashable_cluster() -> Iterator[Cluster]:
    """A server of one's own."""
    folder = Path(tempfile.mkdtemp(prefix="specsem-pg-"))  # short: a socket's path has some 100 bytes
    try:
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            with suppress(subprocess.CalledProcessError):  # down already
                cluster.crash()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster() -> Iterator[str]:
    """The address of an empty database on a server of one's own."""
    with crashable_cluster() as running:
        yield running.url
