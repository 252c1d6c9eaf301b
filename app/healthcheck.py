"""``python -m app.healthcheck``: exit code 0 while the service or worker of this container may be sent work.

For container engines, which run it every few seconds: the standard library only, and no curl in the image.
"""

import http.client
import os
import sys
from collections.abc import Mapping

__all__ = ["is_ready", "main"]

TIMEOUT_S = 4.0
PORTS = {"SPECSEM_PORT": "8000", "SPECSEM_WORKER_PORT": ""}
"""Where a service or a worker answers, and where it does by default."""


def is_ready(port: int) -> bool:
    """Whether ``/readyz`` answers 200 on this port of the loopback address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(environment: Mapping[str, str]) -> int:
    """The exit code. One process runs in a container: the one that answers is the one that is asked for."""
    ports = [environment.get(name, default) for name, default in PORTS.items()]
    return 0 if any(is_ready(int(port)) for port in ports if port) else 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
