"""A client that is generated from docs/openapi.json in another language: it builds, and it works.

Needs node, and `npm ci` in tests/typescript, which .ci/run does.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import ROOT, Server

PROJECT = ROOT / "tests" / "typescript"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not (PROJECT / "node_modules" / ".package-lock.json").is_file(),
    reason="needs node, and `npm ci` in tests/typescript",
)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [NODE or "node", *command], cwd=folder, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_generated_client_builds_and_works(doubles: Server, tmp_path: Path) -> None:
    folder = tmp_path / "typescript"
    folder.mkdir()
    for name in ("package.json", "tsconfig.json", "main.ts"):
        shutil.copy(PROJECT / name, folder)
    (folder / "node_modules").symlink_to(PROJECT / "node_modules")
    tools = folder / "node_modules"
    document = ROOT / "docs" / "openapi.json"
    run(folder, str(tools / "openapi-typescript/bin/cli.js"), str(document), "-o", "generated/specsem.ts")
    run(folder, str(tools / "typescript/bin/tsc"))

    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"SCORE:0.95 from TypeScript")
    got = json.loads(run(folder, "build/main.js", doubles.url, str(clip)))
    findings = got.pop("findings")
    assert got == {
        "same": True,
        "verdict": "generated",
        "score": 0.95,
        "listed": [True],
        "right": 1,
        "refused": "job_not_found",
    }
    assert "score_above_threshold" in findings
