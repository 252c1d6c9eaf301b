"""The command line as its users meet it: a process with exit codes, two streams and signals.

Where the model plays no part, `light_specsem.py` stands for it: torch alone takes seconds to load.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from specsem import __version__, cli
from specsem.errors import SpecSemError
from specsem.result import C2pa, FailedFile, ScoredFile
from tests.media.signatory import Signatory, actions

ROOT = Path(__file__).parent.parent
SPECSEM = [sys.executable, "-m", "specsem"]
LIGHT = [sys.executable, str(Path(__file__).parent / "light_specsem.py")]


@pytest.fixture
def environment(tiny_models: Path) -> dict[str, str]:
    return os.environ | {"SPECSEM_MODELS_DIR": str(tiny_models), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.fixture
def folder(tmp_path: Path, drawn_clip: Path) -> Path:
    """Videos under odd names, and what else lies in folders."""
    (tmp_path / "sub").mkdir()
    shutil.copy(drawn_clip, tmp_path / "a.mp4")
    shutil.copy(drawn_clip, tmp_path / "sub" / "no ending")
    shutil.copy(drawn_clip, tmp_path / ".hidden.mp4")
    (tmp_path / "notes.txt").write_text("Not a video.")
    (tmp_path / "broken.mp4").write_bytes(drawn_clip.read_bytes()[:300])
    return tmp_path


def specsem(
    *args: str | Path | bytes, env: dict[str, str], program: list[str] = LIGHT, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*program, *args], env=env, capture_output=True, timeout=120, check=False, **options
    )


InProcess = Callable[..., tuple[int, str, str]]


@pytest.fixture
def within(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> InProcess:
    """Runs `specsem` in this process; gives its exit code, standard output and standard error."""
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["specsem", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        assert isinstance(code, int)
        return code, *capfd.readouterr()

    return run


def answers(output: bytes) -> list[ScoredFile | FailedFile]:
    parsed = [json.loads(line) for line in output.decode().splitlines()]
    return [(FailedFile if "error" in fields else ScoredFile).model_validate(fields) for fields in parsed]


# -- score --------------------------------------------------------------------------------------------------


def test_json_lines_in_the_order_given(folder: Path, environment: dict[str, str]) -> None:
    paths = ["missing.mp4", "sub", "a.mp4", "notes.txt", "a.mp4"]
    ran = specsem("score", "--json", *paths, env=environment, program=SPECSEM, cwd=folder)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr == b""
    found = answers(ran.stdout)
    assert [answer.path for answer in found] == [
        "missing.mp4",
        "sub/no ending",
        "a.mp4",
        "notes.txt",
        "a.mp4",
    ]
    assert [type(answer).__name__[0] for answer in found] == ["F", "S", "S", "F", "S"]
    codes = [answer.error.code for answer in found if isinstance(answer, FailedFile)]
    assert codes == ["not_found", "not_a_video"]
    scored = [answer for answer in found if isinstance(answer, ScoredFile)]
    assert len({answer.sha256 for answer in scored}) == 1
    logits = [answer.logit for answer in scored]  # batches of different size differ by rounding
    assert logits == pytest.approx(logits[:1] * 3, abs=1e-4)
    assert scored[0].timing_ms.keys() == {"decode", "provenance", "forward", "total"}
    assert scored[0].model.version == "0-tiny"


def test_all_scored_is_zero_and_a_folder_hides_what_is_no_video(
    folder: Path, environment: dict[str, str]
) -> None:
    (folder / "broken.mp4").unlink()
    ran = specsem("score", "--json", folder, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert [Path(answer.path).name for answer in answers(ran.stdout)] == ["a.mp4", "no ending"]


def test_a_folder_with_a_broken_video_is_one(folder: Path, environment: dict[str, str]) -> None:
    ran = specsem("score", folder, env=environment)
    assert ran.returncode == 1
    lines = ran.stdout.decode().splitlines()
    assert lines[0].split() == ["VERDICT", "SCORE", "TIME", "LINE", "FILE"]
    assert "a.mp4" in lines[1]
    assert lines[2].startswith("not scored")
    assert "broken.mp4" in lines[2]
    assert lines[-1].startswith("3 files: ")


def test_one_file_is_shown_with_its_details(drawn_clip: Path, environment: dict[str, str]) -> None:
    ran = specsem("score", drawn_clip, env=environment)
    assert ran.returncode == 0, ran.stderr
    shown = ran.stdout.decode()
    assert shown.splitlines()[0] == str(drawn_clip)
    labels = [line.split("  ")[1].strip() for line in shown.splitlines()[1:]]
    for label in ("verdict", "thresholds", "time line", "looked at", "media", "model"):
        assert label in labels
    assert "h264 in mp4, 320x240" in shown


def test_thorough_sees_all_of_it(drawn_clip: Path, environment: dict[str, str]) -> None:
    ran = specsem("score", "--json", "--thorough", drawn_clip, env=environment)
    [answer] = answers(ran.stdout)
    assert isinstance(answer, ScoredFile)
    assert answer.path == str(drawn_clip)
    assert answer.coverage.fraction > 0.9
    assert len(answer.segments) >= 6


def test_standard_input(drawn_clip: Path, environment: dict[str, str]) -> None:
    ran = specsem("score", "--json", "-", env=environment, input=drawn_clip.read_bytes())
    [answer] = answers(ran.stdout)
    assert isinstance(answer, ScoredFile)
    assert answer.path == "-"


@pytest.mark.skipif(sys.platform != "linux", reason="the file system must take any bytes for a name")
def test_any_name_is_taken_and_a_terminal_never_obeys_one(
    tmp_path: Path, drawn_clip: Path, environment: dict[str, str]
) -> None:
    names = [b"caf\xe9.mp4", b"\x1b[31mred\n.mp4"]
    for name in names:
        shutil.copy(drawn_clip, os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH118  bytes
    ran = specsem("score", "--json", *names, env=environment, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert [answer.path for answer in answers(ran.stdout)] == [r"caf\xe9.mp4", "\x1b[31mred\n.mp4"]
    shown = specsem("score", "--thorough", *names, env=environment, cwd=tmp_path).stdout
    assert b"\x1b" not in shown
    assert rb"\x1b[31mred\n.mp4" in shown
    assert rb"caf\xe9.mp4" in shown


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--model", "nonesuch"], "No model is named 'nonesuch'"),
        (["--policy", "nonesuch"], "No policy is named 'nonesuch'"),
        (["--policy", "review"], "no operating point 'review'"),
        (["--policy-file", "nowhere.json"], "nowhere.json can't be read"),
        (["--device", "abacus"], "abacus"),
        (["--nonesuch"], "No such option"),
        (["--trust-list", "nowhere.pem"], "trust list nowhere.pem can't be read"),
    ],
)
def test_wrong_usage_is_two_with_a_sentence(
    args: list[str], sentence: str, drawn_clip: Path, within: InProcess
) -> None:
    code, out, err = within("score", *args, str(drawn_clip))
    assert code == 2
    assert out == ""
    assert sentence in err
    assert "Traceback" not in err


def test_a_signed_file_and_who_is_trusted(
    tmp_path: Path, drawn_clip: Path, environment: dict[str, str]
) -> None:
    camera = Signatory()
    (tmp_path / "cameras.pem").write_bytes(b"# 2026-05-31\n" + camera.anchor)
    (tmp_path / "signed.mp4").write_bytes(
        camera.sign(drawn_clip.read_bytes(), actions(("c2pa.created", "digitalCapture")))
    )

    def c2pa(*options: str, **env: str) -> C2pa:
        ran = specsem("score", "--json", *options, "signed.mp4", env=environment | env, cwd=tmp_path)
        [answer] = answers(ran.stdout)
        assert isinstance(answer, ScoredFile)
        return answer.provenance.c2pa

    assert (c2pa().status, c2pa().trust_list) == ("valid", None)
    trusted = c2pa("--trust-list", "cameras.pem")
    assert (trusted.status, trusted.trust_list) == ("trusted", "cameras.pem of 2026-05-31")
    assert c2pa(SPECSEM_C2PA_TRUST_LIST="cameras.pem") == trusted
    shown = specsem("score", "--trust-list", "cameras.pem", "signed.mp4", env=environment, cwd=tmp_path)
    assert f"origin      {trusted.detail}" in shown.stdout.decode()


def test_no_path_is_wrong_usage(within: InProcess) -> None:
    assert within("score")[0] == 2


def test_weights_that_were_changed_are_refused(
    tmp_path: Path, tiny_models: Path, drawn_clip: Path, within: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_models, tmp_path / "models")
    with (tmp_path / "models/specsem-compact/model.safetensors").open("ab") as weights:
        weights.write(b"x")
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tmp_path / "models"))
    code, _, err = within("score", str(drawn_clip))
    assert code == 2
    assert "SHA-256" in err
    assert "weights_corrupt" in err


def test_a_defect_is_a_sentence_unless_its_trace_is_wanted(
    within: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(command: str) -> Any:
        raise ZeroDivisionError(command)

    monkeypatch.setattr(cli, "_elsewhere", broken)
    code, _, err = within("serve")
    assert code == 70
    assert err == "specsem: a defect of SpecSem (ZeroDivisionError); SPECSEM_DEBUG=1 shows where.\n"
    monkeypatch.setenv("SPECSEM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        within("serve")


def test_progress_is_for_a_terminal_on_standard_error(folder: Path, environment: dict[str, str]) -> None:
    terminal, end = os.openpty()
    ran = subprocess.run(
        [*LIGHT, "score", "--json", "a.mp4", "sub"],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=end,
        check=True,
        timeout=120,
    )
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so where others end the file
        while chunk := os.read(terminal, 65536):
            shown += chunk
    os.close(terminal)
    assert [answer.path for answer in answers(ran.stdout)] == ["a.mp4", "sub/no ending"]
    assert "Scoring" in shown.decode()
    assert "2/2" in shown.decode()
    assert "left" in shown.decode()


# -- signals ------------------------------------------------------------------------------------------------


def children(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for orphans in /proc")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_once_and_leaves_nothing_behind(
    signum: signal.Signals, code: int, tmp_path: Path, drawn_clip: Path, environment: dict[str, str]
) -> None:
    """As a terminal does it: the whole group hears Ctrl-C, while the tenth of many files is at work."""
    for number in range(300):
        (tmp_path / f"{number:03}.mp4").symlink_to(drawn_clip)
    process = subprocess.Popen(
        [*LIGHT, "score", "--json", str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(10)]
    decoders = children(process.pid)
    assert decoders
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    sent = time.monotonic()
    rest, complaints = process.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert process.returncode == code
    assert complaints == b""
    written = answers(b"".join(lines) + rest)
    assert 10 <= len(written) < 300
    assert all(isinstance(answer, ScoredFile) for answer in written)
    assert not any(is_running(pid) for pid in decoders)


def test_a_reader_that_leaves_is_no_error_message(
    tmp_path: Path, drawn_clip: Path, environment: dict[str, str]
) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.mp4").symlink_to(drawn_clip)
    process = subprocess.Popen(
        [*LIGHT, "score", "--json", str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 1


# -- the rest -----------------------------------------------------------------------------------------------


def test_version_and_help_without_torch() -> None:
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--version"]).output == f"specsem {__version__}\n"
    for command in ("score", "serve", "models", "bench", "train", "scaling"):
        assert runner.invoke(cli.app, [command, "--help"]).exit_code == 0
    assert runner.invoke(cli.app, ["nonesuch"]).exit_code == 2


def test_models(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    [line] = CliRunner().invoke(cli.app, ["models", "--json"]).output.splitlines()
    listed = json.loads(line)
    assert listed["name"] == "specsem-compact"
    assert listed["present"] is True
    assert len(listed["sha256"]) == 64
    assert "specsem-compact" in CliRunner().invoke(cli.app, ["models"]).output


def test_train_hands_over_what_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "_elsewhere", lambda _command: lambda *args, **named: seen.extend((args, named)))
    monkeypatch.chdir(tmp_path)
    args = [
        "train",
        "--config",
        "c.json",
        "--data",
        "a.jsonl",
        "b.jsonl",
        "--data",
        "c.jsonl",
        "--weight",
        "1",
        "--weight",
        "2.5",
        "--out",
        "run",
    ]
    refused = CliRunner().invoke(cli.app, args)
    assert isinstance(refused.exception, SpecSemError)
    assert seen == []
    for name in ("c.json", "a.jsonl", "b.jsonl", "c.jsonl"):
        Path(name).touch()
    assert CliRunner().invoke(cli.app, args).exit_code == 0
    manifests = [Path("a.jsonl"), Path("b.jsonl"), Path("c.jsonl")]
    assert seen[0] == (Path("c.json"), manifests, Path("run"))
    assert seen[1] == {"weights": [1.0, 2.5], "teacher": None, "device": "auto", "processes": 2}


def test_serve_hands_over_only_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def elsewhere(command: str) -> Any:
        return seen.append if command == "serve" else lambda **given: given

    monkeypatch.setattr(cli, "_elsewhere", elsewhere)
    assert CliRunner().invoke(cli.app, ["serve"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["serve", "--host", "::1", "--port", "0"]).exit_code == 0
    assert seen == [{}, {"host": "::1", "port": 0}]


def test_the_engine_of_the_service_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def elsewhere(command: str) -> Any:
        return (lambda _settings: started.append(command)) if command != "settings" else lambda **_given: None

    monkeypatch.setattr(cli, "_elsewhere", elsewhere)
    for options in ([], ["--engine", "local"], ["--engine", "ray"]):
        assert CliRunner().invoke(cli.app, ["serve", *options]).exit_code == 0
    assert started == ["serve", "serve", "serve on ray"]
    assert CliRunner().invoke(cli.app, ["serve", "--engine", "none"]).exit_code == 2


@pytest.mark.parametrize(("failed", "code"), [(0, 0), (2, 1)])
def test_bulk_says_what_became_of_the_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failed: int, code: int
) -> None:
    asked: dict[str, Any] = {}

    def run(source: str, out: Path, **options: Any) -> Any:
        tally = SimpleNamespace(files=10, before=4, scored=10 - failed, failed=failed)
        options.pop("on_start")(tally)
        options.pop("on_progress")(6)
        asked.update(options, source=source, out=out)
        return tally

    monkeypatch.setattr(cli, "_elsewhere", lambda _command: run)
    out = tmp_path / "results.parquet"
    ran = CliRunner().invoke(cli.app, ["bulk", "s3://bucket/clips", "--out", str(out), "--scorers", "2"])
    assert ran.exit_code == code, ran.output
    assert "4 of 10 files have a row already." in ran.stderr
    assert f"{10 - failed} files scored, {failed} could not be: {out}" in ran.stderr
    assert asked["source"] == "s3://bucket/clips"
    assert (asked["scorers"], asked["gpus"], asked["address"], asked["device"]) == (2, 0.0, None, "auto")
    assert asked["decoders"] >= 1


def test_a_wrong_setting_is_named(environment: dict[str, str]) -> None:
    ran = specsem("serve", env=environment | {"SPECSEM_PORT": "many"})
    assert ran.returncode == 2
    assert b"SPECSEM_PORT" in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_serving_other_machines_without_a_key_is_refused(environment: dict[str, str]) -> None:
    ran = specsem("serve", "--host", "0.0.0.0", "--port", "0", env=environment)  # noqa: S104  it is refused
    assert ran.returncode == 2
    assert b"SPECSEM_API_KEYS" in ran.stderr


@pytest.mark.parametrize("batches", ["0", "1,x", ""])
def test_a_batch_of_nothing_is_wrong_usage(batches: str) -> None:
    ran = CliRunner().invoke(cli.app, ["bench", "--batches", batches])
    assert ran.exit_code == 2
    assert "--batches" in ran.output
