"""Both clients against a running service (stand-ins for decoder and model), over real connections."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from serving import Server

from specsem.client import AsyncClient, Client, ProblemError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "ein Clip äöü.mp4"
    path.write_bytes(b"SCORE:0.95 " + bytes(600_000))
    return path


@contextmanager
def cutting(server: Server, after: list[int]) -> Iterator[str]:
    """A way to the server that breaks off each connection after so many bytes; the ones after these hold."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, most: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536 if most is None else min(65536, most)):
                target.sendall(data)
                if most is not None and (most := most - len(data)) <= 0:
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            most = after.pop(0) if after else None
            upstream = socket.create_connection((server.host, server.port))
            threading.Thread(target=pump, args=(client, upstream, most), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client, None), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_files_jobs_and_opinions(doubles: Server, clip: Path) -> None:
    sent: list[tuple[int, int]] = []
    with Client(doubles.url) as client:
        assert client.ready().status == "ready"
        answer = client.score(clip, on_sent=lambda *so_far: sent.append(so_far))
        assert (answer.verdict, answer.path) == ("generated", clip.name)
        assert sent[-1] == (clip.stat().st_size, clip.stat().st_size)
        job = client.wait(client.submit(clip, evidence=True))
        assert job.answer is not None
        assert (job.status, job.filename, job.answer.verdict) == ("done", clip.name, "generated")
        assert client.say(job, "wrong", label="real").wrong == 1
        assert client.job(job).feedback is not None
        assert client.report(job, "pdf").startswith(b"%PDF")
        assert job.id in {each.id for each in client.jobs("done")}
        client.delete_job(job)
        with pytest.raises(ProblemError, match="job_not_found"):
            client.job(job)
        assert [model.name for model in client.models().models if model.active] == ["specsem-compact"]
        assert [policy.name for policy in client.policies().policies if policy.active] == ["default"]


def test_a_bad_file_has_its_code(doubles: Server, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"BAD:encrypted")
    with Client(doubles.url) as client:
        for call in (client.score, client.upload):
            with pytest.raises(ProblemError) as refused:
                call(bad)
            assert (refused.value.code, refused.value.status) == ("encrypted", 422)
            assert refused.value.request_id
        job = client.wait(client.submit(bad))
        assert job.error is not None
        assert (job.status, job.error.code) == ("failed", "encrypted")


def test_a_broken_line_costs_nothing_but_time(
    doubles: Server, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specsem.client.flows.FIRST_PAUSE_S", 0.01)
    size = clip.stat().st_size
    with cutting(doubles, [100_000, 200_000]) as url, Client(url) as client:
        video = client.upload(clip)
        assert (video.bytes, video.filename) == (size, clip.name)
        assert client.score(video).verdict == "generated"
        client.delete_video(video)
    with cutting(doubles, [100_000, 200_000]) as url, Client(url) as client:
        before = len(list(client.jobs()))
        job = client.submit(clip, fresh=True)
        assert len(list(client.jobs())) == before + 1
        assert client.wait(job).status == "done"


def test_without_waiting_for_each_other(doubles: Server, tmp_path: Path) -> None:
    scores = {f"{number}.mp4": number / 10 for number in range(1, 9)}
    for name, score in scores.items():
        (tmp_path / name).write_bytes(f"SCORE:{score} {name}".encode())

    async def all_of_them() -> dict[str, float]:
        async with AsyncClient(doubles.url) as client:
            video = await client.upload(tmp_path / "1.mp4")
            again = await client.score(video)
            assert again.score == scores["1.mp4"]
            answers = await asyncio.gather(*(client.score(tmp_path / name) for name in scores))
            job = await client.wait(await client.submit(tmp_path / "1.mp4"))
            assert job.id in [each.id async for each in client.jobs("done")]
            return {answer.path: answer.score for answer in answers}

    assert asyncio.run(all_of_them()) == scores
