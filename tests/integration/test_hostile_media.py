"""Every odd, broken and hostile file through the service as it ships, several at a time.

None may cost more than its own answer: no 5xx, no file left over, no process left over.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import httpx
import pytest
from serving import LIGHT, Server, children, serving, until

from specsem.errors import media_error
from tests.media.bombs import BOMBS
from tests.media.corpus import CASES

DECODERS = 2
AT_ONCE = 6
SCORE, STORE, SCAN = "/v1/score", "/v1/videos", "/v1/score?thorough=true"
FILES = {f"corpus: {case.name}": (case, None) for case in CASES if not case.limits} | {
    bomb.name: (None, bomb) for bomb in BOMBS
}


Result = tuple[tuple[str, ...], dict[str, str]]
"""What may come of a file, and what came of it by each route."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("media") / "data"
    limits = {"decode_wall_s": 4, "decode_cpu_s": 8, "decode_workers": DECODERS, "job_slots": 0}
    with serving(LIGHT, data_dir, **limits) as server:
        server.wait_ready()
        until(lambda: len(children(server.process.pid)) == DECODERS)
        yield server
        decoders = children(server.process.pid)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoders))
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def write(name: str, path: Path) -> tuple[str, ...]:
    """Make the file; what may come of it."""
    case, bomb = FILES[name]
    if bomb is not None:
        path.write_bytes(bomb.content())
        return bomb.outcomes
    case.make(path)
    return (case.code or "ok",)


def ask(client: httpx.Client, path: Path, route: str) -> str:
    """``ok`` or the code of the refusal. A stored video is deleted again."""
    with path.open("rb") as file:
        answer = client.post(route, content=file)
    body = answer.json()
    assert "/media" not in answer.text
    if answer.is_error:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (answer.status_code, body["status"]) == (422, 422), body
        assert media_error(body["code"], "").code == body["code"]
        return str(body["code"])
    if route == STORE:
        assert client.delete(f"{STORE}/{body['id']}").status_code == 204
    return "ok"


@pytest.fixture(scope="module")
def results(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Result]]:
    folder, making = tmp_path_factory.mktemp("files"), Lock()

    def run(numbered: tuple[int, str]) -> Result:
        number, name = numbered
        path = folder / f"{number}.mp4"
        with making:  # encoders side by side, each with threads of real-time priority, can starve each other
            expected = write(name, path)
        # A scan may take as long as a video lasts: not of those that last for hours.
        routes = (SCORE, STORE, SCAN) if FILES[name][0] else (SCORE, STORE)
        try:
            outcomes = {route: ask(client, path, route) for route in routes}
        finally:
            path.unlink()
        return expected, outcomes

    before = sorted(server.data_dir.rglob("*"))
    with ThreadPoolExecutor(AT_ONCE) as threads, httpx.Client(base_url=server.url, timeout=100) as client:
        yield dict(zip(FILES, threads.map(run, enumerate(FILES)), strict=True))
    until(lambda: sorted(server.data_dir.rglob("*")) == before)
    until(lambda: len(children(server.process.pid)) == DECODERS)


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(results: dict[str, Result], name: str) -> None:
    expected, outcomes = results[name]
    assert outcomes[SCORE] in expected
    # The facts of a file need less of it than a score, and a scan sees more.
    assert outcomes[STORE] in {*expected, "ok"}
    assert outcomes.get(SCAN, "ok") in {*expected, "ok", "timeout", "limits_exceeded"}


def test_it_goes_on(server: Server, drawn_clip: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert ask(client, drawn_clip, SCORE) == "ok"
