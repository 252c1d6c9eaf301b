"""Throughput of the service on Ray against the number of its replicas, with a model that only sleeps.

``python benchmarks/replicas.py``: a replica does 20 clips a second (batches of 4, 200 ms each) and costs no
CPU, so that 16 of them fit on a small machine. What bends the line is all the rest: the process that takes
requests, Ray's proxy and calls, and the clips that cross. Clips are *light* (a few bytes) or *heavy* (14.5
MB, as decoded for `specsem-compact`). Clients for three batches a replica keep each busy. Prints a table.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from servers import WARM_UP_S, Server, forms, free_port, load, wait_until_it_answers

HERE = Path(__file__).parent
BATCH = 4
A_REPLICA_PER_S = 20
BATCHES_UNDER_WAY = 3


@contextlib.contextmanager
def serving(replicas: int, clips: str) -> Iterator[Server]:
    """The service, once it answers."""
    with tempfile.TemporaryDirectory(prefix="specsem-bench-", ignore_cleanup_errors=True) as folder:
        port, log = free_port(), Path(folder) / "log"
        command = [sys.executable, str(HERE / "served" / "with_replicas.py"), "--port", str(port)]
        command += ["--replicas", str(replicas), "--clips", clips, "--batch", str(BATCH)]
        paths = (HERE.parent, HERE / "served", HERE.parent / "tests" / "app")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--folder", folder],
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            )
        server = Server(f"{replicas} replicas", process, port)
        try:
            wait_until_it_answers(server, log, timeout_s=400)
            yield server
        finally:
            server.end()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--clips", nargs="+", choices=("light", "heavy"), default=["light", "heavy"])
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    bodies = forms("sleep")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    columns = "clips | replicas | clients | clips/s | of what they could | p50 ms | p99 ms | CPU ms a clip"
    print(f"| {columns} | refused |\n|---|" + "---:|" * 8, flush=True)
    for clips in asked.clips:
        for replicas in asked.replicas:
            clients = BATCHES_UNDER_WAY * BATCH * replicas
            with serving(replicas, clips) as server:
                asyncio.run(load(server, bodies, clients, WARM_UP_S + 2))
                seen = asyncio.run(load(server, bodies, clients, asked.seconds)).figures()
            share = seen["requests_per_s"] / (A_REPLICA_PER_S * replicas)
            print(
                f"| {clips} | {replicas} | {clients} | {seen['requests_per_s']:.0f} | {share:.2f} "
                f"| {seen['p50_ms']:.0f} | {seen['p99_ms']:.0f} | {seen['server_cpu_ms_a_request']:.1f} "
                f"| {seen['refused']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
