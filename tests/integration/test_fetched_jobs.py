"""Jobs by address on real processes: a real clip, a kill, and a service whose operator allows nothing."""

import signal
import sys
from pathlib import Path
from typing import Any

import httpx
from origin import Origin, dripping, gives, in_turn, origin
from serving import ROOT, Server, serving, until

from specsem.result import ScoredFile

LIGHT = [sys.executable, str(ROOT / "tests" / "light_specsem.py"), "serve"]
SECRET = "X-Amz-Signature=5ec2e7"  # noqa: S105 - a stand-in for one


def allowing(server: Origin) -> dict[str, Any]:
    """Settings of an operator who keeps videos on a server on loopback."""
    return {
        "url_fetch": True,
        "url_fetch_http": True,
        "url_fetch_ports": server.port,
        "url_fetch_internal": "127.0.0.1",
    }


def submit(service: str, url: str) -> httpx.Response:
    return httpx.post(f"{service}/v1/jobs", json={"url": url}, timeout=30)


def ended(service: str, posted: httpx.Response) -> dict[str, Any]:
    assert posted.status_code == 202, posted.text
    where = service + posted.headers["Location"]
    until(lambda: httpx.get(where).json()["status"] in {"done", "failed"}, 150)
    return dict(httpx.get(where).json())


def test_a_clip_is_fetched_and_a_kill_in_the_middle_loses_nothing(tmp_path: Path, drawn_clip: Path) -> None:
    clip = gives(drawn_clip.read_bytes())
    cut_off = dripping(b"x" * 9_000, pause_s=0.02)
    data_dir, jobs = tmp_path / "data", tmp_path / "data" / "jobs"
    with origin({"/clips/clip.mp4": clip, "/slow.mp4": in_turn(cut_off, clip)}) as server:
        url = server.url(f"/clips/clip.mp4?{SECRET}")
        settings = allowing(server) | {"job_lease_s": 4}
        with serving(LIGHT, data_dir, **settings) as first:
            first.wait_ready()
            done = ended(first.url, submit(first.url, url))
            assert done["status"] == "done", done
            answer = ScoredFile.model_validate(done["result"])
            assert (answer.path, answer.media.codec, answer.media.width) == ("clip.mp4", "h264", 320)
            assert done["bytes"] == drawn_clip.stat().st_size
            killed = submit(first.url, server.url("/slow.mp4"))
            until(lambda: list(jobs.glob("*.part/media")), 60)
            first.stop(signal.SIGKILL)
        assert [path.suffix for path in jobs.iterdir()] == [".part"]
        with serving(LIGHT, data_dir, **settings) as second:
            second.wait_ready()
            again = ended(second.url, killed)
            assert (again["status"], again["sha256"]) == ("done", done["sha256"])
            until(lambda: list(jobs.iterdir()) == [])
            assert SECRET not in second.log.read_text()  # of both
        asked = [path for _, path, _ in server.asked]
        assert asked == [f"/clips/clip.mp4?{SECRET}", "/slow.mp4", "/slow.mp4"]


def test_as_it_ships_nothing_is_fetched(service: Server) -> None:
    with origin({"/a.mp4": gives(b"x")}) as server:
        refusal = submit(service.url, server.url(f"/a.mp4?{SECRET}"))
        assert (refusal.status_code, refusal.json()["code"]) == (403, "url_refused")
        assert SECRET not in refusal.text + service.log.read_text()
        assert server.asked == []
