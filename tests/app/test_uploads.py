"""Streaming uploads, driven chunk by chunk."""

import asyncio
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.admission import Admission
from app.problems import Problem
from app.uploads import Inbox, Pace, Sink, Upload, check_announced_length, clean_name

BOUNDARY = "frontier"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A multipart body; a part is its Content-Disposition's parameters and its content."""
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


class Body:
    """A request whose body arrives as the chunks say: bytes, "leave", "pause" or "stall"."""

    def __init__(self, chunks: Iterable[bytes | str], kind: str = "", headers: dict[str, str] | None = None):
        self.chunks = list(chunks)
        self.taken = 0
        head = {"content-type": kind} if kind else {}
        raw = [(k.encode(), v.encode()) for k, v in (head | (headers or {})).items()]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
        self.request = Request(scope, self.receive)

    async def receive(self) -> Message:
        if self.taken == len(self.chunks):
            return {"type": "http.request", "body": b"", "more_body": False}
        chunk = self.chunks[self.taken]
        self.taken += 1
        if chunk == "leave":
            return {"type": "http.disconnect"}
        if chunk == "stall":
            await asyncio.sleep(10)
        if chunk == "pause":
            await asyncio.sleep(0.02)
            chunk = b""
        assert isinstance(chunk, bytes)
        return {"type": "http.request", "body": chunk, "more_body": True}


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    inbox = Inbox(tmp_path / "uploads")
    inbox.open()
    return inbox


def receive(inbox: Inbox, body: Body, *, name: str = "", **limits: Any) -> tuple[Upload, bytes]:
    async def run() -> tuple[Upload, bytes]:
        admission = Admission(max_clips=1, max_bytes=limits.pop("in_flight", 10**9))
        max_bytes = limits.pop("max_bytes", 10**6)
        pace = Pace(**{"idle_s": 5.0, "min_bytes_per_s": 0, "timeout_s": 5.0} | limits)
        with admission.permit(None) as permit:
            async with inbox.receive(
                body.request, max_bytes=max_bytes, permit=permit, name=name, pace=pace
            ) as upload:
                return upload, upload.path.read_bytes()

    return asyncio.run(run())


def left_over(inbox: Inbox) -> list[Path]:
    return list(inbox._own.iterdir())


def refusal(inbox: Inbox, body: Body, **limits: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        receive(inbox, body, **limits)
    assert left_over(inbox) == []
    return refused.value


def test_a_raw_body_is_counted_hashed_and_removed(inbox: Inbox) -> None:
    data = os.urandom(3_000_000)
    chunks = [data[i : i + 65536] for i in range(0, len(data), 65536)]
    upload, stored = receive(inbox, Body(chunks, "video/mp4"), name="a.mp4", max_bytes=len(data))
    assert stored == data
    assert (upload.bytes, upload.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert upload.name == "a.mp4"
    assert left_over(inbox) == []


@pytest.mark.parametrize("step", [1, 7, 64, 100_000])
def test_a_form_in_pieces_of_any_size(inbox: Inbox, step: int) -> None:
    data = b"\r\n--frontie" + bytes(range(256)) * 4 + b"\r\n--frontier".replace(b"ier", b"") + b"\r"
    whole = form(
        ('name="thorough"', b"true"), ('name="file"; filename="Straße ☂.mp4"', data), ('name="note"', b"hi")
    )
    upload, stored = receive(inbox, Body([whole[i : i + step] for i in range(0, len(whole), step)], FORM))
    assert stored == data
    assert upload.name == "Straße ☂.mp4"
    assert upload.fields == {"thorough": "true", "note": "hi"}


def test_the_limit_is_kept_while_it_arrives(inbox: Inbox) -> None:
    for kind, first in (
        ("video/mp4", b""),
        (FORM, form(('name="file"; filename="a"', b"x"), end=False)[:-2]),
    ):
        body = Body([first, *[b"x" * 1000] * 50], kind)
        problem = refusal(inbox, body, max_bytes=5000)
        assert (problem.status, problem.code) == (413, "limits_exceeded")
        assert problem.extra["limit_bytes"] == 5000
        assert body.taken <= 8  # the rest was never asked for


def test_a_small_limit_on_bytes_in_flight_is_kept_without_a_length(inbox: Inbox) -> None:
    assert refusal(inbox, Body([b"x" * 1000] * 5), in_flight=2500).code == "busy"


def test_who_leaves_leaves_nothing(inbox: Inbox) -> None:
    for kind in ("video/mp4", FORM):
        with pytest.raises(ClientDisconnect):
            receive(inbox, Body([form(('name="file"', b"x"), end=False), "leave"], kind))
        assert left_over(inbox) == []


def test_a_disk_that_is_full_is_said_so(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert refusal(inbox, Body([b"x"])).code == "storage_full"


def test_a_stalled_upload_ends(inbox: Inbox) -> None:
    assert refusal(inbox, Body([b"x", "stall"]), idle_s=0.05).status == 408
    assert refusal(inbox, Body([b"x", "stall"]), timeout_s=0.05).status == 408


def test_a_trickle_ends_though_it_never_stalls(inbox: Inbox) -> None:
    trickle = [piece for _ in range(100) for piece in (b"x", "pause")]
    body = Body(trickle)
    assert refusal(inbox, body, idle_s=0.2, min_bytes_per_s=1000).code == "upload_timeout"
    assert body.taken < len(trickle)
    upload, _ = receive(inbox, Body(trickle[:40]), idle_s=0.2, min_bytes_per_s=5)
    assert upload.bytes == 20


def test_the_time_that_we_take_ourselves_is_no_slowness_of_the_client(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Sink._write

    def slow_disk(sink: Sink, data: bytes) -> None:
        time.sleep(0.3)
        write(sink, data)

    monkeypatch.setattr(Sink, "_write", slow_disk)
    upload, _ = receive(
        inbox, Body([b"x" * 2**20] * 3), max_bytes=2**22, idle_s=0.2, min_bytes_per_s=2**24, timeout_s=60
    )
    assert upload.bytes == 3 * 2**20


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", "video/mp4", "not_a_video"),
        (form(('name="file"; filename="a.mp4"', b"")), FORM, "not_a_video"),
        (form(('name="other"; filename="a.mp4"', b"x")), FORM, "missing_file"),
        (form(), FORM, "missing_file"),
        (b"", FORM, "malformed_body"),
        (b"nonsense", FORM, "malformed_body"),
        (form(('name="file"', b"x"), end=False), FORM, "malformed_body"),
        (form(('name="file"', b"x"), ('name="file"', b"y")), FORM, "malformed_body"),
        (form(*[(f'name="f{i}"', b"x") for i in range(17)]), FORM, "malformed_body"),
        (form(('name="note"', b"x" * 5000), ('name="file"', b"y")), FORM, "malformed_body"),
        (form(('name="file"', b"x")), "multipart/form-data", "malformed_body"),
        (form(('name="file"', b"x")), f"multipart/form-data; boundary={'b' * 500}", "malformed_body"),
        (b"--frontier\r\n" + b"A: b\r\n" * 200, FORM, "malformed_body"),
        (form(('name="file"', b"x")) + b"x" * 70_000, FORM, "malformed_body"),
    ],
)
def test_bad_bodies(inbox: Inbox, body: bytes, kind: str, code: str) -> None:
    problem = refusal(inbox, Body([body], kind))
    assert problem.code == code
    assert 400 <= problem.status < 500


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip.mp4", "clip.mp4"),
        ("a\x00b\n\x1b[31m.mp4", "ab[31m.mp4"),
        ("\u202egnp.exe", "gnp.exe"),
        ("..", "video"),
        (".", "video"),
        ("", "video"),
        ("   ", "video"),
        ("x" * 500, "x" * 200),
    ],
)
def test_names_are_for_showing(given: str, shown: str) -> None:
    assert clean_name(given) == shown


def test_folders_are_private_and_owe_nothing_to_the_name(inbox: Inbox) -> None:
    async def run() -> None:
        body = Body([form(('name="file"; filename="../../../evil.mp4"', b"x"))], FORM)
        with Admission(max_clips=1, max_bytes=9).permit(None) as permit:
            async with inbox.receive(
                body.request, max_bytes=9, permit=permit, name="", pace=Pace(1, 0, 1)
            ) as upload:
                assert upload.name == "evil.mp4"
                assert upload.path == upload.folder / "media"
                assert upload.folder.parent == inbox._own
                assert stat.S_IMODE(upload.folder.stat().st_mode) == 0o700

    asyncio.run(run())


def test_left_overs_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    root = tmp_path / "uploads"
    living = Inbox(root)
    living.open()
    (living._own / "arriving").mkdir()
    dead = root / "dead"
    (dead / "half").mkdir(parents=True)
    (root / "dead.lock").touch()
    other = Inbox(root)
    other.open()
    assert not dead.exists()
    assert (living._own / "arriving").is_dir()
    other.close()
    living.close()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "1001"}, 413),
        ({"content-length": "9" * 30}, 400),
        ({"content-length": "-5"}, 400),
        ({"content-length": "5", "content-encoding": "gzip"}, 415),
        ({"content-length": str(1000 + 64 * 1024 + 1), "content-type": FORM}, 413),
    ],
)
def test_refused_before_a_byte_is_read(headers: dict[str, str], status: int) -> None:
    body = Body([b"x"], headers=headers)
    with pytest.raises(Problem) as refused:
        check_announced_length(body.request, 1000)
    assert (refused.value.status, body.taken) == (status, 0)


def test_announced_lengths() -> None:
    assert check_announced_length(Body([], headers={"content-length": "1000"}).request, 1000) == 1000
    assert check_announced_length(Body([]).request, 1000) is None
