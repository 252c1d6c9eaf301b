"""What is in examples/, run as it is: processes beside a service with stand-ins for decoder and model.

Mastodon and Discourse are stand-ins on loopback, in the form that they publish: requests as
`Webhooks::DeliveryWorker` and `EmitWebHookEvent` send them, reports and flags as their APIs take them.
"""

import hashlib
import hmac
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from origin import gives, origin
from serving import DOUBLES, ROOT, Server, environment, free_port, serving, until

from specsem.client import Client

EXAMPLES = ROOT / "examples"
GENERATED, CAMERA = b"SCORE:0.97 LOOKS:1", b"SCORE:0.02 LOOKS:2"
SECRET = "a secret of the webhook"  # noqa: S105 - for this test only


@contextmanager
def program(folder: Path, name: str, port: int, log: Path, **variables: str) -> Iterator[str]:
    """An example as `uvicorn` runs it; where it listens."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--port", str(port), f"{name}:app"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment(log.parent) | variables, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: "Uvicorn running" in log.read_text() or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
    assert "Traceback" not in log.read_text()


# -- the forum ----------------------------------------------------------------------------------------------


@contextmanager
def forum(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """The service by the forum's policies, and the forum."""
    policies = (EXAMPLES / "forum" / "policies.json").read_text(encoding="utf-8")
    file = tmp_path / "policies.json"
    file.write_text(policies.replace('"max_fpr": 0.03', '"max_fpr": 0.06'))  # what the stand-in can keep
    port = free_port()
    settings = {
        "policy": "forum",
        "policy_file": file,
        "webhook_http": True,
        "webhook_ports": port,
        "webhook_internal": "127.0.0.1",
    }
    with serving(DOUBLES, tmp_path / "data", **settings) as server:
        server.wait_ready()
        variables = {
            "FORUM_DATA": str(tmp_path / "forum"),
            "FORUM_HOOK": f"http://127.0.0.1:{port}/hook",
            "SPECSEM_SERVICE": server.url,
        }
        with program(EXAMPLES / "forum", "forum", port, tmp_path / "forum.log", **variables) as url:
            yield server, url


def states(url: str) -> dict[str, str]:
    """Of each post by its title, as the page shows it."""
    page = httpx.get(url).text
    found = re.findall(r'<article class="(\w+)" id="\w+">\s*<h2>(\w+)', page)
    return {title: state for state, title in found}


def test_the_forum_labels_holds_and_blocks(tmp_path: Path) -> None:
    def post(title: str, section: str, content: bytes) -> None:
        answer = httpx.post(
            f"{url}/posts", data={"title": title, "section": section}, files={"video": content}, timeout=30
        )
        assert answer.status_code == 303, answer.text

    def watched(title: str, **query: str) -> int:
        (found,) = re.findall(rf'id="(\w+)">\s*<h2>{title}\b', httpx.get(url).text)
        return httpx.get(f"{url}/videos/{found}", params=query).status_code

    with forum(tmp_path) as (server, url):
        post("camera", "chat", CAMERA)
        post("generated", "chat", GENERATED)
        post("offered", "market", GENERATED)
        post("reported", "news", GENERATED)
        post("broken", "chat", b"BAD:encrypted")
        expected = {
            "camera": "shown",
            "generated": "labelled",
            "offered": "blocked",
            "reported": "held",
            "broken": "held",
        }
        until(lambda: states(url) == expected, 30)
        assert [watched(title) for title in expected] == [200, 200, 404, 404, 404]
        assert watched("reported", moderating="true") == 200
        page = httpx.get(url).text
        assert "6.0% of camera clips" in page
        assert "This file is made to fail: encrypted." in page

        # A moderator's decision is done here, and feedback there.
        (held,) = re.findall(r'<article class="held" id="(\w+)">\s*<h2>reported', page)
        moderated = httpx.post(f"{url}/posts/{held}/decision", data={"state": "shown"})
        assert moderated.status_code == 303
        assert states(url)["reported"] == "shown"
        with Client(server.url) as client:
            [job] = [job for job in client.jobs("done") if job.surface == "news"]
            feedback = client.job(job).feedback
            assert feedback is not None
            assert feedback.decision is not None
            assert (feedback.decision.label, feedback.decision.verdict) == ("real", "wrong")
        assert httpx.post(f"{url}/hook", json={"type": "job.done"}).status_code == 401


def test_the_forum_s_policies_are_kept_by_the_model_that_ships() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "specsem", "policy", "check", str(EXAMPLES / "forum" / "policies.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


# -- Mastodon and Discourse ---------------------------------------------------------------------------------


def signed(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


class Platform:
    """A server with videos, that takes what is said of its posts."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Mapping[str, str], dict[str, Any]]] = []

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append((request.path, headers, body))
        gives(b"{}")(request)


@pytest.fixture(scope="module")
def platform() -> Iterator[tuple[Platform, str]]:
    running = Platform()
    videos = {"/generated.mp4": gives(GENERATED), "/camera.mp4": gives(CAMERA)}
    with origin(videos, otherwise=running.take) as server:
        yield running, f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def fetching(platform: tuple[Platform, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "url_fetch": True,
        "url_fetch_http": True,
        "url_fetch_ports": platform[1].rpartition(":")[2],
        "url_fetch_internal": "127.0.0.1",
    }
    with serving(DOUBLES, tmp_path_factory.mktemp("fetching") / "data", **settings) as server:
        server.wait_ready()
        yield server


def looked_at(server: Server, surface: str) -> int:
    """How many jobs of a platform are done."""
    with Client(server.url) as client:
        return sum(job.surface == surface for job in client.jobs("done"))


def test_mastodon_s_moderators_get_a_report(
    platform: tuple[Platform, str], fetching: Server, tmp_path: Path
) -> None:
    heard, address = platform[0].heard, platform[1]
    heard.clear()
    videos = [("111", "video", "generated.mp4"), ("112", "gifv", "camera.mp4"), ("113", "image", "photo.png")]
    event = {
        "event": "status.created",
        "created_at": "2026-12-01T16:00:00.000Z",
        "object": {
            "id": "109",
            "visibility": "public",
            "account": {"id": "23", "username": "somebody", "acct": "somebody"},
            "media_attachments": [
                {"id": number, "type": kind, "url": f"{address}/{name}", "remote_url": None}
                for number, kind, name in videos
            ],
        },
    }
    body = json.dumps(event).encode()
    variables = {
        "SPECSEM_SERVICE": fetching.url,
        "MASTODON": address,
        "MASTODON_TOKEN": "token",
        "MASTODON_SECRET": SECRET,
    }
    with program(EXAMPLES, "mastodon", free_port(), tmp_path / "mastodon.log", **variables) as url:
        assert httpx.post(f"{url}/status", content=body).status_code == 401
        for _ in range(2):  # it may come twice
            sent = httpx.post(f"{url}/status", content=body, headers={"X-Hub-Signature": signed(body)})
            assert sent.status_code == 202
        until(lambda: len(heard) == 2, 30)
    assert looked_at(fetching, "mastodon") == 2
    assert {path for path, _, _ in heard} == {"/api/v1/reports"}
    _, headers, report = heard[0]
    assert headers["authorization"] == "Bearer token"
    assert (report["account_id"], report["status_ids"], report["category"]) == ("23", ["109"], "other")
    assert "SpecSem would review" in report["comment"]
    assert "The verdict is generated" in report["comment"]


def test_discourse_s_moderators_get_a_flag(
    platform: tuple[Platform, str], fetching: Server, tmp_path: Path
) -> None:
    heard, address = platform[0].heard, platform[1]
    heard.clear()
    cooked = (
        f'<div class="video-placeholder-container" data-video-src="{address}/generated.mp4"></div>'
        '<p><a class="attachment" href="/camera.mp4">camera.mp4</a> <img src="/photo.png"></p>'
        '<div data-orig-src="upload://abc.mp4"></div>'
    )
    body = json.dumps({"post": {"id": 77, "topic_id": 5, "username": "somebody", "cooked": cooked}}).encode()
    headers = {
        "X-Discourse-Instance": address,
        "X-Discourse-Event-Id": "1",
        "X-Discourse-Event-Type": "post",
        "X-Discourse-Event": "post_created",
    }
    variables = {
        "SPECSEM_SERVICE": fetching.url,
        "DISCOURSE": address,
        "DISCOURSE_KEY": "key",
        "DISCOURSE_SECRET": SECRET,
    }
    with program(EXAMPLES, "discourse", free_port(), tmp_path / "discourse.log", **variables) as url:
        wrong = headers | {"X-Discourse-Event-Signature": signed(b"another")}
        assert httpx.post(f"{url}/post", content=body, headers=wrong).status_code == 401
        headers["X-Discourse-Event-Signature"] = signed(body)
        assert httpx.post(f"{url}/post", content=body, headers=headers).status_code == 202
        until(lambda: looked_at(fetching, "discourse") == 2, 30)
        until(lambda: heard, 30)
    [(path, sent, flag)] = heard
    assert (path, sent["api-key"], sent["api-username"]) == ("/post_actions.json", "key", "system")
    assert (flag["id"], flag["post_action_type_id"]) == (77, 7)
    assert f"{address}/generated.mp4" in flag["message"]
