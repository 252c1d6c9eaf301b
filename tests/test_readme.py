"""Every command of the README does what it says, with a stand-in for the model (`light_specsem.py`)."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from specsem.result import ScoredFile
from tests.media.signatory import Signatory, actions, ingredient

ROOT = Path(__file__).parent.parent
LIGHT = [sys.executable, str(Path(__file__).parent / "light_specsem.py")]


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )


CONSOLE = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
SHELL = [line.split("  #")[0].rstrip() for block in blocks("sh") for line in block.splitlines()]
CURL = [line for line in SHELL if line.startswith("curl ")]
ORIGINS = dict(re.findall(r"^\$ (specsem .*)\n\.\.\.\n(  origin .*\n)", "".join(blocks("console")), re.M))
"""What is shown of an answer, by its command."""
LIBRARY, RESUMABLE = blocks("python")


@pytest.fixture
def desk(tmp_path: Path, drawn_clip: Path) -> Path:
    """A folder as the README has it."""
    shutil.copy(drawn_clip, tmp_path / "clip.mp4")
    (tmp_path / "holiday").mkdir()
    shutil.copy(drawn_clip, tmp_path / "holiday")
    generator, editor = Signatory("Video Model 2", "Dream House"), Signatory("Edit Suite", "Lens House")
    made = generator.sign(drawn_clip.read_bytes(), actions(("c2pa.created", "trainedAlgorithmicMedia")))
    edited = editor.sign(made, actions("c2pa.opened", "c2pa.edited"), ingredients=[(ingredient(), made)])
    (tmp_path / "edited.mp4").write_bytes(edited)
    tampered = bytearray(edited)
    tampered[edited.rindex(b"mdat") + 4000] ^= 1
    (tmp_path / "tampered.mp4").write_bytes(tampered)
    (tmp_path / "trust.pem").write_bytes(b"# 2026-11-01\n" + editor.anchor)
    return tmp_path


@pytest.fixture
def environment(tiny_models: Path, tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "SPECSEM_MODELS_DIR": str(tiny_models),
        "SPECSEM_DATA_DIR": str(tmp_path / "data"),
    }


@pytest.mark.parametrize("line", [line for line in CONSOLE if line.startswith("specsem ")])
def test_command_line(line: str, desk: Path, environment: dict[str, str]) -> None:
    args = line.split()[1:]
    if args[0] == "bench":
        args = [args[0], "--help"]  # test_bench.py runs it
    ran = subprocess.run(
        [*LIGHT, *args], cwd=desk, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
    if "--trust-list" in line:
        assert ORIGINS[line] in ran.stdout


@pytest.mark.parametrize("line", [line for line in CONSOLE + SHELL if line.startswith("make ")])
def test_make(line: str) -> None:
    """As make would do it: ``--dry-run`` shows what a target runs, and needs it to exist."""
    command = line.split("#", maxsplit=1)[0].split()
    ran = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


@pytest.fixture
def service(environment: dict[str, str]) -> Iterator[str]:
    """The service's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*LIGHT, "serve", "--port", str(port)], env=environment, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert process.poll() is None, process.communicate()[1].decode()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's HTTP examples are curl's")
def test_http(desk: Path, service: str) -> None:
    assert len(CURL) == 7
    answers: list[dict[str, Any]] = []
    for line in CURL:
        command = line.replace("127.0.0.1:8000", service)
        if answers:
            command = command.replace("ID", answers[-1].get("id", "ID"))
        answers.append(told(command, desk))
        while answers[-1].get("status") in {"queued", "running"} and command.endswith(answers[-1]["id"]):
            time.sleep(0.1)
            answers[-1] = told(command, desk)
    scored, uploaded, again, job, found, feedback, ready = answers
    assert ScoredFile.model_validate(scored).path == "clip.mp4"
    assert uploaded["sha256"] == scored["sha256"]
    assert again["score"] == scored["score"]
    assert (found["id"], found["sha256"]) == (job["id"], scored["sha256"])
    assert (feedback["wrong"], feedback["mine"]["label"]) == (1, "real")
    assert ready["status"] == "ready"


def told(command: str, desk: Path) -> dict[str, Any]:
    ran = subprocess.run(
        ["bash", "-c", f"{command} --silent --show-error --fail-with-body"],
        cwd=desk,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def test_resumable(desk: Path, service: str) -> None:
    code = RESUMABLE.replace("127.0.0.1:8000", service)
    ran = subprocess.run([sys.executable, "-c", code], cwd=desk, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    path = ran.stdout.strip().removeprefix(f"http://{service}")
    with urlopen(f"http://{service}{path}") as answer:
        assert json.load(answer)["bytes"] == (desk / "clip.mp4").stat().st_size


def test_library(desk: Path, environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIBRARY],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    verdict, score = ran.stdout.split()
    assert verdict in {"generated", "authentic", "inconclusive"}
    assert 0 <= float(score) <= 1


LABORATORY = re.findall(
    r"^specsem (\w+) (.*)$", (ROOT / "docs" / "laboratory.md").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize(("command", "rest"), LABORATORY)
def test_the_laboratory_s_commands_have_the_options_they_are_shown_with(command: str, rest: str) -> None:
    """They train for hours; tests/training and tests/evaluation run them in small."""
    from typer.testing import CliRunner

    from specsem.cli import app

    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in re.findall(r"--[a-z-]+", rest):
        assert option in shown.output, option
    for recipe in re.findall(r"models/\S+\.json", rest):
        assert (ROOT / recipe).is_file()


def test_its_figures_are_those_of_the_model_that_ships() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = text.partition("| condition | AUC")[2].partition("\n\n")[0].splitlines()[2:]
    judged = json.loads((ROOT / "models/specsem-compact/validation.json").read_text())["conditions"]
    for row, condition in zip(rows, ("as-is", "level", "canonical"), strict=True):
        found = judged[condition]
        low, high = found["interval95"]["auc"]
        cells = [f"{found['auc']:.3f} ({low:.3f} to {high:.3f})".replace("0.", ".")]
        for policy in ("default", "review"):
            rates = found["policies"][policy]
            cells.append(f"{rates['recall']:.0%} / {rates['false_positive_rate']:.1%}")
        assert row.split(" | ")[1:] == [*cells[:-1], f"{cells[-1]} |"]
