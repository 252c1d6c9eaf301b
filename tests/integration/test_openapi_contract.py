"""The service against its own OpenAPI document: schemathesis finds it doing that, and nothing else."""

import subprocess
import sys
from pathlib import Path

import httpx
from serving import DOUBLES, serving

SEED = 1
KEY = "0123456789abcdef0123456789abcdef"
MUCH = "1000000/minute"
EXAMPLES = 12
CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "412", "413", "415", "422", "429"]
"""
"""With 412, which tus wants for another version of it."""
NOT_TO_BE_SAID_IN_A_SCHEMA = "positive_data_acceptance"
"""That a file is a video, and whether an Idempotency-Key was used before."""


def test_the_service_keeps_to_its_document(tmp_path: Path) -> None:
    """No 5xx, documented statuses, types, headers and bodies only, and what is not valid is refused."""
    settings = {
        "api_keys": KEY,
        "key_rate": MUCH,
        "key_failures": MUCH,
        "upload_idle_s": 3,
        "access_log": "false",
        "webhook_hosts": "nowhere.invalid",  # nothing that is made up here is looked up or sent to
    }
    with serving(DOUBLES, tmp_path / "data", **settings) as server:
        server.wait_ready()
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        report = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{server.url}/openapi.json",
                "--exclude-method=PATCH",  # of a type that it can't write: a tus client tests it
                f"--header=Authorization: Bearer {KEY}",
                f"--seed={SEED}",
                f"--max-examples={EXAMPLES}",
                f"--exclude-checks={NOT_TO_BE_SAID_IN_A_SCHEMA}",
                "--workers=1",  # more are not repeatable
                "--generation-database=none",
                "--no-color",
            ],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert report.returncode == 0, report.stdout[-8000:]
        paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
        methods = [method for path in paths.values() for method in path if method != "patch"]
        assert f"Tested: {len(methods)}\n" in report.stdout
        assert server.uploads() == []
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
