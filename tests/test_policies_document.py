"""docs/policies.md: its policy can be used with the shipped model, and its commands do what they say."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from specsem.calibration import Calibration
from specsem.cli import app
from specsem.policy import PolicyBook, When, decide, refusals
from specsem.registry import get_model
from specsem.result import Decision
from tests.test_policy import answer

DOCUMENT = (Path(__file__).parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")
FILE, DECISION = re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.M | re.S)
COMMANDS = re.findall(r"^\$ specsem (policy .*)$", DOCUMENT, re.M)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the document's policies, and an answer of the shipped model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECSEM_DATA_DIR", str(tmp_path / "data"))
    Path("policies.json").write_text(FILE)
    record = get_model()
    one = answer(0.85)
    one = one.model_copy(update={"model": one.model.model_copy(update={"sha256": record.sha256})})
    points = Calibration.load(record.folder).policies
    decision = decide(PolicyBook.read().policy("default"), one, points)
    Path("answers.jsonl").write_text(one.model_copy(update={"decision": decision}).model_dump_json() + "\n")
    return tmp_path


def ran(command: str) -> Result:
    return CliRunner().invoke(app, command.split(), env={"COLUMNS": "300"})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands(command: str, desk: Path) -> None:
    result = ran(command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output


def test_what_the_commands_show(desk: Path) -> None:
    shown = ran("policy check policies.json").output
    assert re.search(r"ads +block +0\.9252 +at most 2\.20% of 284 camera clips, 3\.00% allowed", shown)
    assert re.search(r"acme-wants-more +review +0\.7959 ", shown)
    assert json.loads(ran("policy schema").output)["$defs"]["When"]
    told = ran("policy simulate --policy review answers.jsonl").output
    assert "allow    -> review   0.850  a.mp4  (looks-generated)" in told
    assert "1 answer, 1 decided otherwise by review@1 than then." in told
    *changed, counts = map(
        json.loads, ran("policy simulate --policy review answers.jsonl --json").output.splitlines()
    )
    assert [(row["was"], row["now"]) for row in changed] == [("allow", "review")]
    assert (counts["answers"], counts["changed"], counts["skipped"]) == (1, 1, {})


def test_what_can_t_be_kept_exits_with_one(desk: Path) -> None:
    Path("policies.json").write_text(FILE.replace("0.03", "0.001"))
    result = ran("policy check policies.json")
    assert result.exit_code == 1
    assert "moderation@1: Rule 'ads': A false-positive rate of 0.001 can't be promised" in result.output
    Path("policies.json").write_text("{}")
    assert ran("policy check policies.json").exit_code == 1


def test_the_figures_are_the_shipped_model_s() -> None:
    points = Calibration.load(get_model().folder).policies
    assert "calibrated on 284 camera clips: nothing below 0.0105 is" in DOCUMENT
    assert points["default"].calibration_n == 284
    assert "keeps to 0.02201" in DOCUMENT
    assert 0.022 < min(point.fpr_upper95 for point in points.values()) <= 0.02201
    shown = Decision.model_validate_json(DECISION)
    assert shown.threshold
    assert shown.threshold.fpr_upper95 == points["default"].fpr_upper95
    for policy in PolicyBook.read().policies:
        assert refusals(policy, points) == []


def test_every_condition_is_described() -> None:
    table = DOCUMENT.partition("### Conditions")[2].partition("### Rates")[0]
    described = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M)))
    assert described == list(When.model_fields)
