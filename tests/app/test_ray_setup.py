"""What Ray is told before it is imported."""

import os
import signal
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import ray_setup
from app.ray_setup import RayUnavailable, cluster, ray_options


def test_a_cluster_of_our_own_has_a_private_folder_and_a_token_that_only_its_user_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the shell")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "of the shell")
    with ray_options(None, cpus=3) as options:
        folder = Path(options["_temp_dir"])
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert token.parent == folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text()) == 64
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert options["address"] == "local"
        assert options["num_cpus"] == 3
        assert options["include_dashboard"] is False
        # session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store
        assert len(str(folder)) + 64 < 107, "Unix sockets have short names"
    assert not folder.exists()


def test_a_cluster_that_is_joined_keeps_its_own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "of the shell")
    with ray_options("10.0.0.7:6379", cpus=3) as options:
        assert options["address"] == "10.0.0.7:6379"
        assert "num_cpus" not in options
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == "of the shell"  # noqa: S105


def test_a_start_that_fails_leaves_nothing_behind_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[subprocess.Popen[bytes]] = []

    def start(**options: Any) -> None:
        if len(left) == 1:
            return
        program = "import time; time.sleep(60)"
        left.append(subprocess.Popen([sys.executable, "-c", program, options["_temp_dir"] + "/session"]))
        raise RuntimeError("The node timed out.\nAnd more.")

    ray: Any = SimpleNamespace(is_initialized=lambda: False, init=start, shutdown=lambda: None)
    with cluster(ray, None, cpus=1):
        assert left[0].wait(10) == -signal.SIGKILL

    def refuse(**_options: Any) -> None:
        raise RuntimeError("The node timed out.\nAnd more.")

    ray.init = refuse
    for address in (None, "10.0.0.7:6379"):
        with (
            pytest.raises(RayUnavailable, match=r"^Ray can't be used: The node timed out\.$"),
            cluster(ray, address, cpus=1),
        ):
            pass


@pytest.mark.parametrize("module", ["app.ray_app", "app.bulk"])
def test_it_is_said_before_ray_is_imported(module: str) -> None:
    """Ray looks once: an order of imports that a formatter thinks better would undo it in silence."""
    if find_spec("ray") is None:
        pytest.skip("needs the extra `ray`")
    program = (
        "import builtins, os\n"
        "plain = builtins.__import__\n"
        "def noted(name, *rest, **more):\n"
        "    if name == 'ray' and 'ray' not in sys.modules:\n"
        "        print(*(os.environ.get(name) for name in names), flush=True)\n"
        "        os._exit(0)\n"
        "    return plain(name, *rest, **more)\n"
        "import sys\n"
        f"names = {[*ray_setup.ENVIRONMENT, 'RAY_AUTH_MODE']!r}\n"
        "builtins.__import__ = noted\n"
        f"import {module}\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SERVE_"))}
    told = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [*ray_setup.ENVIRONMENT.values(), "token"]


def test_ray_that_was_there_before_is_not_used() -> None:
    """It would go without a token, or listen to everybody."""
    program = (
        "import sys, types; sys.modules['ray'] = types.ModuleType('ray')\n"
        "from app.ray_setup import ray_options\n"
        "with ray_options(None, cpus=1): pass\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SERVE_"))}
    told = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=False
    )
    assert "RayUnavailable: Ray was imported" in told.stderr


def test_no_annotation_of_the_ingress_is_postponed() -> None:
    """Ray moves the application between modules; names in annotations could not be looked up there."""
    source = (Path(ray_setup.__file__).parent / "ray_app.py").read_text(encoding="utf-8")
    assert "from __future__" not in [line[:15] for line in source.splitlines()]
