"""A PostgreSQL of our own, on a socket in a folder of its own, for as long as a test takes."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MISSING", "cluster"]


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


@contextmanager
def cluster() -> Iterator[str]:
    """The address of an empty database. Commits reach the disk as they do in earnest."""
    binaries, user = _binaries(), _user()
    assert binaries is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="specsem-pg-"))  # short: a socket's path has some 100 bytes
    if user is not None:
        shutil.chown(folder, user)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "user": user, "cwd": folder}
    data, log = folder / "data", folder / "log"
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    try:
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "specsem", "--auth=trust", "-E", "UTF8", "--no-sync"],
            check=True,
            **quiet,  # type: ignore[call-overload]
        )
        options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        subprocess.run([*control, "-l", log, "-o", options, "start"], check=True, **quiet)  # type: ignore[call-overload]
        try:
            yield f"postgresql://specsem@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, **quiet)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
