"""Requests that lie, crawl, contradict themselves or never end, as bytes on real sockets.

Every case is one connection. All run at once against one server, then each is judged.
"""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import httpx
import pytest
from serving import DOUBLES, Server, chunk, serving, until

LIMIT = 200_000
PER_ADDRESS = 64
MIB = 2**20
FORM = "Content-Type: multipart/form-data; boundary=b"
CHUNKED = "Transfer-Encoding: chunked"
VIDEO = b"SCORE:0.5"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        DOUBLES,
        tmp_path_factory.mktemp("hostile") / "data",
        max_upload_bytes=LIMIT,
        upload_idle_s=1,
        upload_min_bytes_per_s=1000,
        head_timeout_s=1,
        max_connections_per_address=PER_ADDRESS,
        trusted_proxies="127.0.0.3",
    ) as server:
        server.wait_ready()
        yield server
        assert server.uploads() == []
        assert "Traceback" not in server.log.read_text(), server.log.read_text()


def post(body: bytes, *headers: str, path: str = "/v1/score") -> bytes:
    """A whole request, of a browser's honesty but for what ``headers`` say."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers]).encode() + b"\r\n\r\n" + body


def sized(body: bytes, *headers: str, path: str = "/v1/score") -> bytes:
    return post(body, f"Content-Length: {len(body)}", *headers, path=path)


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    head = "\r\n".join(["--b", f"Content-Disposition: form-data; {disposition}", *headers])
    return head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return sized(b"".join(parts) + b"--b--\r\n", FORM)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers]).encode() + b"\r\n\r\n"


def crawling(first: bytes, piece: bytes = b"x") -> Iterator[bytes]:
    """Never silent for long, and never done."""
    yield first
    for _ in range(200):
        time.sleep(0.05)
        yield piece


def endless(first: bytes, piece: bytes) -> Callable[[], Iterator[bytes]]:
    def sends() -> Iterator[bytes]:
        yield first
        yield from repeat(piece, 10_000)

    return sends


@dataclass(frozen=True)
class Case:
    """What is sent, and how it must be answered: (status, code) of each answer on the connection."""

    name: str
    sends: bytes | Callable[[], Iterator[bytes]]
    answers: tuple[tuple[int, str], ...]


def refused(name: str, sends: bytes | Callable[[], Iterator[bytes]], status: int, code: str) -> Case:
    return Case(name, sends, ((status, code),))


def malformed(name: str, sends: bytes) -> Case:
    return refused(name, sends, 400, "malformed_request")


CASES = [
    # Content-Length.
    Case(
        "too short",
        post(VIDEO + b"\r\n\r\n", "Content-Length: 5"),
        ((200, ""), (400, "malformed_request")),
    ),
    refused("too long", post(VIDEO, "Content-Length: 1000"), 408, "upload_timeout"),
    Case("missing", post(VIDEO), ((422, "not_a_video"), (408, "request_timeout"))),  # HTTP knows no body then
    Case("said twice, the same", sized(VIDEO, "Content-Length: 9"), ((200, ""),)),
    malformed("said twice, not the same", sized(VIDEO, "Content-Length: 5")),
    *(
        malformed(f"length {said[:12]}", post(VIDEO, f"Content-Length: {said}"))
        for said in ("-9", "+9", "0x9", "9e0", "9 9", "9;", "\u0669", "9" * 30)
    ),
    refused("10 GB", post(VIDEO, f"Content-Length: {10 * 10**9}"), 413, "limits_exceeded"),
    refused("as long as can be", post(VIDEO, f"Content-Length: {'9' * 18}"), 413, "limits_exceeded"),
    # Transfer-Encoding.
    malformed("length and chunks", post(chunk(VIDEO) + chunk(b""), "Content-Length: 9", CHUNKED)),
    *(
        malformed(f"encoding {said}", post(chunk(VIDEO) + chunk(b""), f"Transfer-Encoding: {said}"))
        for said in ("gzip, chunked", "identity", "chunked, chunked", "xchunked")
    ),
    *(
        malformed(f"chunk size {said[:12]!r}", post(said + b"\r\n" + VIDEO, CHUNKED))
        for said in (b"zz", b"-9", b"0x9", b"", b"9 9", b"f" * 30, b"9;" + b"x" * 600_000)
    ),
    malformed("chunk longer than it says", post(b"5\r\n" + VIDEO + b"\r\n0\r\n\r\n", CHUNKED)),
    refused("chunk of 2^64", post(b"f" * 16 + b"\r\n" + VIDEO, CHUNKED), 408, "upload_timeout"),
    refused("chunks without end", endless(post(b"", CHUNKED), chunk(b"x" * 99)), 413, "limits_exceeded"),
    refused("a chunk without end", endless(post(b"fffffff\r\n", CHUNKED), b"x" * 99), 413, "limits_exceeded"),
    # Pace.
    refused("crawls", lambda: crawling(post(b"", "Content-Length: 1000")), 408, "upload_timeout"),
    refused("crawls in chunks", lambda: crawling(post(b"", CHUNKED), chunk(b"x")), 408, "upload_timeout"),
    refused(
        "crawls in a form",
        lambda: crawling(post(part('name="file"', b"")[:-2], FORM, "Content-Length: 9000")),
        408,
        "upload_timeout",
    ),
    refused(
        "crawls in JSON",
        lambda: crawling(post(b"{", "Content-Type: application/json", "Content-Length: 9000"), b" "),
        408,
        "upload_timeout",
    ),
    refused(
        "slow head",
        lambda: crawling(b"POST /v1/score HTTP/1.1\r\n", b"A: b\r\n"),
        408,
        "request_timeout",
    ),
    refused("half a head", b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n", 408, "request_timeout"),
    Case("silence", b"", ()),
    Case(
        "slow head of a second request",
        lambda: crawling(get("/healthz") + b"GET", b"x"),
        ((200, ""), (408, "request_timeout")),
    ),
    # Forms.
    refused("too many parts", form(*[part(f'name="f{i}"', b"x") for i in range(99)]), 400, "malformed_body"),
    refused("huge part head", form(part('name="file"', VIDEO, "A: " + "x" * 99_000)), 400, "malformed_body"),
    refused("huge part name", form(part(f'name="{"x" * 99_000}"', VIDEO)), 400, "malformed_body"),
    refused("many part heads", form(part('name="file"', VIDEO, *["A: b"] * 9000)), 400, "malformed_body"),
    refused("huge field", form(part('name="note"', b"x" * 9000)), 400, "malformed_body"),
    refused("wrong field", form(part('name="video"; filename="a.mp4"', VIDEO)), 422, "missing_file"),
    refused("two files", form(part('name="file"', VIDEO), part('name="file"', VIDEO)), 400, "malformed_body"),
    refused("no boundary", sized(VIDEO, "Content-Type: multipart/form-data"), 400, "malformed_body"),
    refused("another boundary", sized(VIDEO, FORM), 400, "malformed_body"),
    refused("ends early", sized(part('name="file"', VIDEO), FORM), 400, "malformed_body"),
    refused("flag that is none", form(part('name="thorough"', b"\0"), part('name="file"', VIDEO)), 422,
            "invalid_request"),
    Case(
        "form in a form",  # is the file's content, whatever it calls itself
        form(part('name="file"', part('name="file"', VIDEO), "Content-Type: multipart/mixed; boundary=c")),
        ((200, ""),),
    ),
    refused("form of another kind", sized(b"a=b", "Content-Type: application/x-www-form-urlencoded"), 415,
            "unsupported_media_type"),
    # Compressed bodies, JSON.
    *(
        refused(f"body in {said}", sized(VIDEO, f"Content-Encoding: {said}"), 415, "unsupported_media_type")
        for said in ("gzip", "br", "deflate", "identity, gzip", "GZIP")
    ),
    *(
        refused(f"JSON {text[:12]!r}", sized(text, "Content-Type: application/json"), 422, "invalid_request")
        for text in (
            b"[" * 60_000,
            b'{"video":' * 6000,
            b'{"video": 1e999}',
            b"\xff\xfe",
            b'{"video": "\\ud800"}',
        )
    ),
    refused("huge JSON", sized(b" " * 150_000, "Content-Type: application/json"), 413, "limits_exceeded"),
    # Other than HTTP/1.1.
    malformed("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))),
    malformed("SSH", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    malformed("NUL in a head", get("/", "A: \0")),
    malformed("space before a colon", get("/", "A : b")),
    malformed("bare CR", get("/", "A: b\rC: d")),
    malformed("huge head", get("/", "A: " + "x" * 600_000)),
    malformed("no host", b"GET / HTTP/1.1\r\n\r\n"),
    refused("HTTP/0.9", b"GET /\r\n", 408, "request_timeout"),
    Case("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ((403, "host_refused"), (400, "malformed_request"))),
    refused("strange method", get("/v1/score").replace(b"GET", b"BREW"), 405, "method_not_allowed"),
    refused("strange path", get("/" + "%2e%2e/" * 40 + "etc/passwd%00"), 404, "no_such_route"),
    refused("static files elsewhere", get("/static/..%2f..%2fmain.py"), 404, "no_such_route"),
    # In one go.
    Case("pipelined", get("/healthz") * 50, ((200, ""),) * 50),
    Case("pipelined behind a body", sized(VIDEO) + get("/healthz"), ((200, ""), (200, ""))),
    Case("pipelined behind a refused body", form() + get("/healthz"), ((422, "missing_file"), (200, ""))),
    Case("pipelined nonsense", get("/healthz") + b"\0" * 99, ((200, ""), (400, "malformed_request"))),
    Case("a body that nobody wants", get("/healthz", "Content-Length: 99"), ((200, ""),)),
]  # fmt: skip


def talk(server: Server, case: Case) -> list[tuple[int, str]]:
    """Status and problem code of each answer until the server closes."""
    received = bytearray()
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        sends = case.sends() if callable(case.sends) else iter([case.sends])
        with contextlib.suppress(ConnectionError):  # refused before all was sent: the answer is there
            for piece in sends:
                connection.sendall(piece)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
    return list(answers_in(bytes(received)))


def answers_in(received: bytes) -> Iterator[tuple[int, str]]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        found = re.fullmatch(rb"HTTP/1.1 (\d+) .*\r\ncontent-length: (\d+)(\r\n.*)?", head, re.S | re.I)
        assert found, head
        length = int(found[2])
        body, received = rest[:length], rest[length:]
        is_problem = b"application/problem+json" in head
        assert is_problem == (int(found[1]) >= 400), head
        yield int(found[1]), json.loads(body)["code"] if is_problem else ""


@pytest.fixture(scope="module")
def answers(server: Server) -> dict[str, list[tuple[int, str]]]:
    with ThreadPoolExecutor(32) as threads:
        results = dict(zip(CASES, threads.map(lambda case: talk(server, case), CASES), strict=True))
    until(lambda: server.uploads() == [])
    return {case.name: answers for case, answers in results.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_request(answers: dict[str, list[tuple[int, str]]], case: Case) -> None:
    assert tuple(answers[case.name]) == case.answers


def test_the_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/dev/null", "null"),
        ("..", "video"),
        ("a\x1b[2Jb\x7f\x9b.mp4", "a[2Jb.mp4"),
        ("\u202egpj.\u2066exe\u200b", "gpj.exe"),
        ("%00%0d%0aSet-Cookie: a=b", "%00%0d%0aSet-Cookie: a=b"),
        ("n" * 900, "n" * 200),
    ],
)
def test_a_hostile_name_is_shown_and_nothing_else(server: Server, name: str, shown: str) -> None:
    before = sorted(server.data_dir.rglob("*"))
    raw = httpx.post(f"{server.url}/v1/score", params={"filename": name}, content=VIDEO)
    assert (raw.status_code, raw.json()["path"]) == (200, shown)
    # In a form as a hostile client sends it: httpx would escape the name.
    disposition = b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
    body = disposition + name.encode() + b'"\r\n\r\n' + VIDEO + b"\r\n--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    formed = httpx.post(f"{server.url}/v1/score", content=body, headers=kind)
    assert formed.status_code in {200, 400}
    if formed.status_code == 200:
        assert formed.json()["path"] == shown
    until(lambda: sorted(server.data_dir.rglob("*")) == before)


def test_who_holds_connections_keeps_no_other_out(server: Server) -> None:
    """A slowloris from one address: others are served meanwhile, and it is thrown out in time."""
    other = httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"))
    proxy = ("127.0.0.3", 0)
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(PER_ADDRESS):
            connection = socket.create_connection((server.host, server.port), timeout=10)
            held.append(stack.enter_context(connection))
            connection.sendall(b"GET / HTTP/1.1\r\n")
        one_more = stack.enter_context(socket.create_connection((server.host, server.port), timeout=10))
        assert b'"code":"busy"' in b"".join(iter(lambda: one_more.recv(4096), b""))
        assert other.get(f"{server.url}/healthz").status_code == 200
        for _ in range(PER_ADDRESS + 1):  # one that is trusted has many behind it
            last = socket.create_connection((server.host, server.port), timeout=10, source_address=proxy)
            stack.enter_context(last)
        last.sendall(get("/healthz"))
        assert last.recv(12) == b"HTTP/1.1 200"
        for connection in held:
            assert connection.recv(12) == b"HTTP/1.1 408"
    until(lambda: httpx.get(f"{server.url}/healthz").status_code == 200)


def peak_memory(server: Server) -> int:
    """Largest resident size in bytes since it was last forgotten."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def pour(server: Server, head: bytes, piece: bytes) -> tuple[bytes, int]:
    """Sends on and on, 10 GB if it may; the answer's first line and how much went out."""
    sent = 0
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
            while sent < 10 * 10**9:
                connection.sendall(piece)
                sent += len(piece)
        try:
            answer = connection.recv(65536)
        except ConnectionError:
            answer = b""
    return answer.partition(b"\r\n")[0], sent


def test_memory_stays_flat_while_10_gb_are_refused(tmp_path: Path) -> None:
    limit = 24 * MIB
    length = f"Content-Length: {10 * 10**9}"
    file = part('name="file"', b"")[:-2]
    heads = [
        (post(b"", length), b"x" * MIB),
        (post(file, FORM, length), b"x" * MIB),
        (post(b"", CHUNKED), chunk(b"x" * MIB)),
        (post(chunk(file), FORM, CHUNKED), chunk(b"x" * MIB)),
        (post(b"1" + b"0" * 9 + b"\r\n", CHUNKED), b"x" * MIB),
    ]
    with serving(DOUBLES, tmp_path / "data", max_upload_bytes=limit) as server:
        server.wait_ready()
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        before = peak_memory(server)
        with ThreadPoolExecutor(len(heads)) as threads:
            for answer, sent in threads.map(lambda head: pour(server, *head), heads):
                assert answer.startswith(b"HTTP/1.1 413 ")
                assert sent < limit + 32 * MIB  # what a refusal still hears, and the sockets' own buffers
        print("GREW", (peak_memory(server) - before) / MIB)
        assert peak_memory(server) - before < 32 * MIB
        until(lambda: server.uploads() == [])
