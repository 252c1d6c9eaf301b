"""``specsem bulk`` over many files while its actors, and once the whole of it, get `kill -9`: every row once?

``.venv/bin/python benchmarks/bulk_under_kill.py [--files 1000] [--kills 8]``

Small clips are drawn, and some files are broken; decoders are real, the model is untrained and tiny. At equal
shares of the way an actor is killed, by turns one that decodes and one that scores; half way, the run itself
with all of its cluster, and it is started again. Prints the outcome as JSON; exit code 1 if a file has no
row, two, or another answer than a run that nobody disturbs gives.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from specsem.synthetic import write_clip

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]

from serving import below  # noqa: E402
from tiny import write_tiny_models  # noqa: E402

DRAWN = 40
"""Different clips; the others are the same under another name."""
BROKEN_EACH = 50


def draw(folder: Path, files: int) -> None:
    """Fill a folder: every fiftieth file is cut short."""
    folder.mkdir()
    drawn = []
    for seed in range(min(DRAWN, files)):
        path = folder / f"{seed:04}.mp4"
        write_clip(path, width=160, height=120, seconds=1.0, seed=seed)
        drawn.append(path)
    for number in range(len(drawn), files):
        (folder / f"{number:04}.mp4").hardlink_to(drawn[number % len(drawn)])
    for number in range(BROKEN_EACH - 1, files, BROKEN_EACH):
        whole = (folder / f"{number:04}.mp4").read_bytes()
        (folder / f"{number:04}.mp4").unlink()
        (folder / f"{number:04}.mp4").write_bytes(whole[:300])


@contextlib.contextmanager
def bulk(folder: Path, out: Path, models: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The command at work, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "specsem", "bulk", str(folder), "--out", str(out), "--device", "cpu"],
        env=os.environ | {"SPECSEM_MODELS_DIR": str(models)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            end_all(process)


def end_all(process: "subprocess.Popen[bytes]") -> None:
    """`kill -9` for it and all that it started."""
    for pid in (process.pid, *below(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def lines(journal: Path) -> int:
    """Answers that are safe on the disk."""
    with contextlib.suppress(FileNotFoundError):
        return journal.read_bytes().count(b"\n")
    return 0


def disturbed(folder: Path, out: Path, models: Path, files: int, kills: int) -> dict[str, int]:
    """Run it to its end, killing on the way; what was killed."""
    journal = out.with_name(out.name + ".journal")
    killed: Counter[str] = Counter()
    due = [files * (number + 1) // (kills + 2) for number in range(kills)]
    half = files // 2
    while True:
        with bulk(folder, out, models) as process:
            while process.poll() is None:
                done = lines(journal)
                if half and done >= half:
                    half = 0
                    end_all(process)
                    killed["run"] += 1
                    break
                if due and done >= due[0]:
                    kind = ("Decode", "Score")[len(due) % 2]
                    for pid, command in below(process.pid).items():
                        if command.startswith(b"ray::MapWorker") and kind.encode() in command:
                            os.kill(pid, signal.SIGKILL)
                            killed[kind] += 1
                            del due[0]
                            break
                time.sleep(0.05)
            else:
                # 1: some files could not be scored, as they should.
                if process.returncode not in (0, 1):
                    raise SystemExit(f"It ended with {process.returncode}.")
                return dict(killed)


def rows(out: Path) -> list[dict[str, Any]]:
    """What it wrote."""
    return list(pq.read_table(out, columns=["path", "sha256", "verdict", "score", "error_code"]).to_pylist())


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="specsem-bulk-") as name:
        here = Path(name)
        draw(here / "clips", asked.files)
        models = write_tiny_models(here / "models")
        begun = time.monotonic()
        killed = disturbed(here / "clips", here / "killed.parquet", models, asked.files, asked.kills)
        disturbed_s = time.monotonic() - begun
        begun = time.monotonic()
        with bulk(here / "clips", here / "quiet.parquet", models) as process:
            process.wait()
        quiet_s = time.monotonic() - begun
        found = rows(here / "killed.parquet")
        expected = {row["path"]: row for row in rows(here / "quiet.parquet")}
    differ = [
        row["path"]
        for row in found
        if {**row, "score": None} != {**expected[row["path"]], "score": None}
        or abs((row["score"] or 0) - (expected[row["path"]]["score"] or 0)) > 1e-4
    ]
    times = Counter(row["path"] for row in found)
    outcome = {
        "files": asked.files,
        "killed": killed,
        "rows": len(found),
        "files with one row": sum(count == 1 for count in times.values()),
        "could not be scored": sum(row["error_code"] is not None for row in found),
        "other answers than undisturbed": len(differ),
        "seconds, disturbed and not": [round(disturbed_s), round(quiet_s)],
        "cpus": os.cpu_count(),
    }
    print(json.dumps(outcome, indent=2))
    clean = len(found) == len(times) == len(expected) == asked.files and not differ
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
