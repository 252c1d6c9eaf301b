"""Which commit this software is."""

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["built_from"]

ROOT = Path(__file__).parent.parent


@cache
def built_from() -> str | None:
    """The commit of the checkout, or the one that pip installed from (PEP 610); None where it isn't known."""
    return _of_checkout() if (ROOT / ".git").exists() else _of_install()


def _of_checkout() -> str | None:
    try:
        told = subprocess.run(
            ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or not our folder
        return None
    return told.stdout.strip()


def _of_install() -> str | None:
    try:
        origin = json.loads(distribution("specsem").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    commit: str | None = origin.get("vcs_info", {}).get("commit_id")
    return commit
