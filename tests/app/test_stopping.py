"""The end of the service: what is refused, what is waited for, and that the process ends in any case."""

import asyncio
import contextlib
import subprocess
import sys

from fastapi.testclient import TestClient

from app.stopping import Drain


def test_new_work_is_refused_and_a_look_is_not(client: TestClient) -> None:
    drain: Drain = client.app.state.drain  # type: ignore[attr-defined]
    assert client.get("/readyz").status_code == 200
    drain.stop()
    assert client.portal is not None
    client.portal.call(client.app.state.parts.jobs.stop)  # type: ignore[attr-defined]
    assert client.get("/readyz").json()["code"] == "not_ready"
    for path in ("/v1/score", "/v1/jobs", "/v1/videos"):
        answer = client.post(path, content=b"SCORE:0.5")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.headers["Connection"] == "close"
        assert "Retry-After" in answer.headers
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/jobs").status_code == 200


def test_what_came_before_the_stop_is_waited_for() -> None:
    async def story() -> None:
        drain = Drain()
        with contextlib.ExitStack() as earlier, contextlib.ExitStack() as later:
            earlier.enter_context(drain.request())
            drain.stop()
            later.enter_context(drain.request())
            waiting = asyncio.create_task(drain.wait(60))
            await asyncio.sleep(0)
            assert not waiting.done()
            earlier.close()
            await waiting  # and not for who came after it

    asyncio.run(story())


def test_what_doesn_t_end_is_waited_for_no_longer_than_allowed() -> None:
    async def story() -> None:
        drain = Drain()
        with drain.request():
            drain.stop()
            await drain.wait(0.01)
            drain.hurry()
            await drain.wait(60)

    asyncio.run(story())


def test_a_thread_that_hangs_doesn_t_keep_the_process() -> None:
    script = """if True:
        import threading
        from app.stopping import leave_within
        leave_within(0.1, 143)
        threading.Event().wait()
    """
    ended = subprocess.run([sys.executable, "-c", script], check=False, stderr=subprocess.PIPE, timeout=120)
    assert ended.returncode == 143
    assert b"leaving as it is" in ended.stderr
