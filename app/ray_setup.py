"""What Ray reads from the environment, said when this module is imported: before ray itself is.

Ray's defaults are those of a research cluster. A cluster of our own listens on the loopback address only,
asks for a token that only its user can read, reports nothing to anybody, and keeps its files in a private
folder that goes with it.
"""

import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from specsem.errors import SpecSemError

__all__ = ["RayUnavailable", "cluster", "ray_options"]

logger = logging.getLogger("specsem.app")

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it sends reports home
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # ours say how long it takes yet
    "RAY_worker_niceness": "0",  # it starts workers at nice 15: anything else on the machine goes first
    # Its proxies share their port: one of a cluster that was left behind would answer half of the requests.
    "SERVE_SOCKET_REUSE_PORT_ENABLED": "0",
    # Its proxy has 5 seconds to import what it needs, else it is killed and started again, and again.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Named for what it was made for. With it a cluster that is started here has the loopback address. Asked
    # for in any other way, it is replaced in silence by one that others reach, and Ray listens everywhere.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
OBJECT_STORE_BYTES = 1024**3
"""Some seventy decoded clips; what is beyond goes to disk."""

STARTS = 3
"""Of a cluster of our own: Ray gives its processes 30 seconds, which a busy machine may not have for them."""

TOO_LATE = "ray" in sys.modules and not ENVIRONMENT.items() <= os.environ.items()

os.environ.update(ENVIRONMENT)
# Without a token, whoever reaches a port of Ray's runs code as this user. Ray looks when it is imported.
os.environ.setdefault("RAY_AUTH_MODE", "token")


class RayUnavailable(SpecSemError):
    """No cluster could be started or joined."""

    code = "ray_unavailable"


@contextlib.contextmanager
def cluster(ray: ModuleType, address: str | None, *, cpus: int) -> Iterator[None]:
    """Connected to a cluster while the block runs; see ``ray_options``. ``ray`` is the module.

    A process that is connected already stays so, to whatever it is.

    Raises:
        RayUnavailable: it could not be started, or reached, or asks for another token.
    """
    if ray.is_initialized():
        yield
        return
    with ray_options(address, cpus=cpus) as options:
        own = options.get("_temp_dir")
        for attempt in range(1, STARTS + 1):
            try:
                ray.init(**options)
                break
            except Exception as error:  # Ray raises plain ones
                ray.shutdown()
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                if own is None or attempt == STARTS:
                    raise RayUnavailable(f"Ray can't be used: {reason}") from error
                logger.warning("Ray did not start; once more (%s)", reason)
                _end_all_of(own)
        try:
            yield
        finally:
            ray.shutdown()
            if own is not None:
                _end_all_of(own)


def _end_all_of(folder: str) -> None:
    """End what still runs of the cluster whose private folder this is: Ray leaves it where a start failed."""
    for process in Path("/proc").glob("[0-9]*"):  # where there is none, nothing is found
        with contextlib.suppress(OSError):  # it has just ended
            if int(process.name) != os.getpid() and os.fsencode(folder) in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@contextlib.contextmanager
def ray_options(address: str | None, *, cpus: int) -> Iterator[dict[str, Any]]:
    """Arguments for ``ray.init``, while the block runs.

    ``address``: a cluster to join, ``HOST:PORT`` or ``auto``; its token is found as Ray finds it
    (``RAY_AUTH_TOKEN_PATH``). None: a cluster of our own, for as long as the block runs, which believes that
    it has so many ``cpus``.

    Raises:
        RayUnavailable: somebody has imported ray before.
    """
    if TOO_LATE:
        raise RayUnavailable("Ray was imported before it was told how to behave: import app.ray_setup first.")
    quiet = {"logging_level": "warning"}
    if address is not None:
        yield {"address": address, **quiet}
        return
    # Right in the folder for temporary files: Ray's sockets are in it, whose paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="specsem-ray-", ignore_cleanup_errors=True) as folder:
        token = Path(folder, "token")
        token.touch(mode=0o600)  # Ray makes its own readable for all
        token.write_text(secrets.token_hex(32), encoding="ascii")
        os.environ.pop("RAY_AUTH_TOKEN", None)  # it would come first
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        yield {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": folder,
            **quiet,
        }
