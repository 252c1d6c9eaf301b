"""Checksums that are sent along: a body is what they say, or refused."""

import base64
import hashlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

DATA = b"SCORE:0.97" + bytes(2000)
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + DATA + b"\r\n--x--\r\n"
)


def field(data: bytes, *names: str) -> str:
    """A digest field (RFC 9530)."""
    hashes = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
    return ", ".join(f"{name}=:{base64.b64encode(hashes[name](data).digest()).decode()}:" for name in names)


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_a_body_is_what_it_is_said_to_be(client: TestClient, header: str) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    good, bad = field(DATA, "sha-256", "sha-512"), f"{field(DATA, 'sha-256')}, {field(b'other', 'sha-512')}"
    for route in ("/v1/score", "/v1/videos", "/v1/jobs"):
        assert client.post(route, content=DATA, headers={header: good}).status_code in {200, 201, 202}
        assert client.post(route, content=FORM, headers=form | {header: field(FORM, "sha-512")}).is_success
        for answer in (
            client.post(route, content=DATA, headers={header: bad}),
            client.post(route, content=FORM, headers=form | {header: good}),  # all of the form, not the file
        ):
            assert (answer.status_code, answer.json()["code"]) == (400, "checksum_mismatch"), route
            assert header in answer.json()["detail"]


@pytest.mark.parametrize("value", ["sha-256=:AAAA:", "sha-256=AAAA", "sha-256=:?:", "sha-512", "sha-256=::"])
def test_what_can_t_be_read_is_refused(client: TestClient, value: str) -> None:
    answer = client.post("/v1/videos", content=DATA, headers={"Content-Digest": value})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_header")


@pytest.mark.parametrize("value", ["", "md5=:AAAA:", "unixsum=5;a=1", 'new="a,b"'])
def test_unknown_algorithms_are_passed_over(client: TestClient, value: str) -> None:
    assert client.post("/v1/score", content=DATA, headers={"Content-Digest": value}).status_code == 200
    both = {"Content-Digest": f"{value or 'a=1'}, {field(b'other', 'sha-256')}"}
    assert client.post("/v1/score", content=DATA, headers=both).status_code == 400


def test_a_parameter_and_a_second_line_are_read(client: TestClient, tmp_path: Path) -> None:
    lines = [("Content-Digest", "md5=:AAAA:"), ("Content-Digest", f"{field(b'other', 'sha-256')};q=1")]
    assert client.post("/v1/score", content=DATA, headers=lines).status_code == 400
