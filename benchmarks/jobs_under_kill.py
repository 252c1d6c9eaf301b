"""Jobs while server and workers are killed with -9 at random: is each done exactly once, and none lost?

``.venv/bin/python benchmarks/jobs_under_kill.py [--jobs 500] [--workers 3] [--database sqlite|postgresql]
[--crash-database]``

Decoder and model are stand-ins (a job sleeps for ``--job-s``); processes, sockets, disk and database are
real. PostgreSQL is Debian's, started for it; with ``--crash-database`` it is among what is killed. Prints
the outcome as JSON; exit code 1 if it isn't clean.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]

from killing import run_under_fire  # noqa: E402
from postgres import crashable_cluster  # noqa: E402


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job-s", type=float, default=2.0, help="Seconds of work in a job.")
    parser.add_argument("--pause-s", type=float, default=12.0, help="Longest pause between two kills.")
    parser.add_argument("--crash-database", action="store_true", help="Of PostgreSQL: kill it too.")
    asked = parser.parse_args()
    if asked.crash_database and asked.database != "postgresql":
        parser.error("only PostgreSQL can crash by itself")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(crashable_cluster()) if asked.database == "postgresql" else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="specsem-jobs-")))
        outcome = run_under_fire(
            folder / "data",
            jobs=asked.jobs,
            workers=asked.workers,
            seed=asked.seed,
            pause_s=(0.5, asked.pause_s),
            job_s=asked.job_s,
            database_url=cluster.url if cluster else None,
            cluster=cluster if asked.crash_database else None,
            timeout_s=3600.0,
        )
    setting = vars(asked) | {"cpus": os.cpu_count()}
    print(json.dumps({"setting": setting, "clean": outcome.clean} | asdict(outcome), indent=2))
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
