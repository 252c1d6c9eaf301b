"""The rules and the dashboard of ``deploy/`` ask for metrics, labels and codes that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.observability.metrics import Metrics
from app.problems import CODES

DEPLOY = Path(__file__).parents[2] / "deploy"
METRICS = {metric.name: metric for metric in Metrics().described}
PARTS = re.compile(r"_(bucket|sum|count)$")
OF_PROMETHEUS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
OF_SCRAPES = {"instance", "job"}


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "specsem.json").read_text())
    return found


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


QUERIES = [
    *alerts().items(),
    *((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]),
]


def without_texts(query: str) -> str:
    return re.sub(r'"[^"]*"', '""', query)


def of(name: str) -> str:
    """The metric that a series belongs to: a histogram has three kinds of them."""
    whole = PARTS.sub("", name)
    return whole if whole in METRICS and METRICS[whole].kind == "histogram" else name


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[name for name, _ in QUERIES])
def test_a_query_names_what_exists(query: str) -> None:
    names = set(re.findall(r"\b(?:specsem_|process_)\w+|\bup\b", without_texts(query)))
    assert names
    assert {of(name) for name in names} <= METRICS.keys() | OF_PROMETHEUS
    for name in names:
        assert (of(name) != name) == (
            METRICS.get(of(name)) is not None and METRICS[of(name)].kind == "histogram"
        )
    for name, selector in re.findall(r"((?:specsem_|process_)\w+|up)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)(?:!=|=~|=)", without_texts(selector)))
        own = set(METRICS[of(name)].labels) if of(name) in METRICS else set()
        assert labels <= own | OF_SCRAPES
    for codes in re.findall(r'code=~?"([^"]+)"', query):
        assert set(codes.split("|")) <= CODES.keys()


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[name for name, _ in QUERIES])
def test_a_query_groups_by_labels_that_exist(query: str) -> None:
    asked = {of(name) for name in re.findall(r"\bspecsem_\w+", without_texts(query))}
    own = {label for name in asked for label in METRICS[name].labels}
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        assert {label.strip() for label in group.split(",")} <= own | OF_SCRAPES | {"le"}


def test_legends_name_labels_that_are_left() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
                kept = re.findall(r"\b(?:by) \(([^)]*)\)", target["expr"])
                assert not kept or any(label in group for group in kept), panel["title"]


def test_no_metric_is_left_out() -> None:
    """Whoever adds a metric says where it shows."""
    shown = {of(name) for _, query in QUERIES for name in re.findall(r"\bspecsem_\w+", query)}
    assert METRICS.keys() <= shown


def test_panels_are_told_apart() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    places = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert places.isdisjoint(cells), panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (variable,) = [entry for entry in dashboard()["templating"]["list"] if entry["type"] == "datasource"]
    assert variable["current"]["value"] == source["uid"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "command",
    [["check", "config", "--syntax-only", "prometheus.yml"], ["check", "rules", "alerts.yml"]],
    ids=["configuration", "rules"],
)
def test_prometheus_takes_its_files(command: list[str]) -> None:
    ran = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
