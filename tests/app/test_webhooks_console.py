"""`specsem webhooks`: what an operator does at the machine, with the service stopped."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.settings import Settings
from app.webhooks.console import Console
from specsem.cli import app
from specsem.errors import SpecSemError

ADDRESS = "https://93.184.215.14/hook?key=5ec2e7"
MISSING = "0" * 32
DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command that is meant to go well; gives what it prints."""
    monkeypatch.setenv("SPECSEM_DATA_DIR", str(tmp_path / "data"))

    def invoke(*args: str) -> str:
        result: Result = CliRunner().invoke(app, ["webhooks", *args], env={"COLUMNS": "160"})
        if isinstance(result.exception, SpecSemError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    return invoke


def test_a_webhook_from_its_making_to_its_end(run: Run) -> None:
    webhook, secret = run("create", ADDRESS, "--event", "job.done", "--tenant", "acme").split()
    assert secret.startswith("whsec_")
    (listed,) = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert (listed["id"], listed["tenant"], listed["events"]) == (webhook, "acme", ["job.done"])
    assert run("list", "--tenant", "theirs", "--json") == ""
    table = run("list")
    assert webhook in table
    assert "5ec2e7" not in table
    assert json.loads(run("update", webhook, "--all-events", "--description", "queue"))["events"] == []
    assert run("rotate", webhook, "--overlap", "0") not in ("", secret)
    event = run("ping", webhook)
    (delivery,) = [json.loads(line) for line in run("deliveries", webhook, "--json").splitlines()]
    assert (delivery["id"], delivery["status"]) == (event, "pending")
    assert json.loads(run("update", webhook, "--disable"))["disabled_because"] == "requested"
    assert event in run("deliveries", webhook, "--dead")
    run("update", webhook, "--enable")
    assert run("redeliver", webhook, "--dead") == "1 to be sent again."
    assert run("redeliver", webhook, event) == "1 to be sent again."
    assert webhook in run("delete", webhook)
    assert run("list", "--json") == ""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["create", "https://10.0.0.1/"], "not open to everybody"),
        (["create", ADDRESS, "--event", "job.exploded"], "events/0"),
        (["create", ADDRESS, "--tenant", "Ours!"], "A tenant is"),
        (["ping", MISSING], "no webhook"),
        (["redeliver", MISSING], "Say which"),
        (["redeliver", MISSING, MISSING, "--dead"], "Say which"),
        (["deliveries", "1"], "no webhook"),
    ],
)
def test_what_can_t_be_done_is_said_in_a_sentence(run: Run, args: list[str], says: str) -> None:
    with pytest.raises(SpecSemError, match=says) as refused:
        run(*args)
    assert "5ec2e7" not in refused.value.message


def test_the_document_s_commands_are_commands(run: Run) -> None:
    for command in re.findall(r"^\$ specsem webhooks (\w+)", DOCUMENT.read_text(encoding="utf-8"), re.M):
        assert command in run("--help")


def test_the_console_takes_any_settings(tmp_path: Path) -> None:
    console = Console(Settings(data_dir=tmp_path / "data", webhook_hosts=["*.example.org"]))
    with pytest.raises(SpecSemError, match="not among those that are allowed"):
        console.create(ADDRESS)
