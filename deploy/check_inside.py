"""What ``check_image.py`` runs inside the image, by the image's Python: uses SpecSem as a container would."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVICE = ("127.0.0.1", 8000)
CLIP = "/tmp/clip.mp4"  # noqa: S108 - a tmpfs
WAIT_S = 180.0


def main() -> None:
    """Every check in turn; the first that fails ends it."""
    run = json.loads(sys.argv[1])
    program: list[str] = run["program"]
    specsem = program[0]
    check_confinement(Path(run["data"]))
    said = told([specsem, "models", "--json"])
    print(
        f"ok  models: {[model['name'] for model in map(json.loads, said.splitlines()) if model['present']]}"
    )
    told([sys.executable, "-c", "import psycopg, opentelemetry.sdk.trace"])
    told([sys.executable, "-m", "specsem.synthetic", CLIP])
    (alone,) = map(json.loads, told([specsem, "score", "--json", CLIP]).splitlines())
    print(f"ok  scored by the command line: {alone['verdict']} {alone['score']:.4f}")
    refused = subprocess.run(program, capture_output=True, text=True, check=False)
    expect(refused.returncode == 2 and "specsem keys create" in refused.stderr, "no service without a key")
    key = told([specsem, "keys", "create"]).strip()
    with running(program, run["health"]):
        check_service(key, alone)
    with running([specsem, "worker"], run["health"]):
        pass


def check_confinement(data: Path) -> None:
    """The user, its rights, what it can write and whom it can reach."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    rights = {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")}
    expect(os.getuid() != 0 and not any(rights.values()), f"user {os.getuid()}, capabilities {rights}")
    expect(status["NoNewPrivs"] == "1", "no new privileges")
    folders = [
        path for path in Path("/").iterdir() if path.is_dir() and path.name not in {"proc", "dev", "sys"}
    ]
    writable = {str(path) for path in [*folders, Path(sys.prefix), Path("/var/tmp")] if can_write(path)}  # noqa: S108
    expect(writable == {"/tmp", str(data)}, f"can write to {sorted(writable)} and nowhere else")  # noqa: S108
    expect([name for _, name in socket.if_nameindex()] == ["lo"], "no network but the loopback")


def can_write(folder: Path) -> bool:
    """Whether a file can be made in it."""
    try:
        (folder / ".check").write_text("")
    except OSError:
        return False
    (folder / ".check").unlink()
    return True


def check_service(key: str, alone: dict[str, Any]) -> None:
    """The page, a refusal, a score and a job."""
    status, page = ask("GET", "/")
    expect(status == 200 and b"SpecSem" in page, "the page")
    clip = Path(CLIP).read_bytes()
    expect(ask("POST", "/v1/score", body=clip)[0] == 401, "no score without a key")
    status, body = ask("POST", "/v1/score", key, clip)
    answer = json.loads(body)
    expect(status == 200 and answer["verdict"] == alone["verdict"], "a score by HTTP")
    expect(abs(answer["score"] - alone["score"]) < 0.005, f"the same by both: {answer['score']:.4f}")
    status, body = ask("POST", "/v1/jobs", key, clip)
    path = f"/v1/jobs/{json.loads(body)['id']}"
    deadline = time.monotonic() + WAIT_S
    while (job := json.loads(ask("GET", path, key)[1]))["status"] in {"queued", "running"}:
        expect(time.monotonic() < deadline, "the job ends", quiet=True)
        time.sleep(0.2)
    expect(job["status"] == "done" and job["result"]["verdict"] == alone["verdict"], "a job")
    told_of_itself = json.loads(ask("GET", "/version", key)[1])
    expect(told_of_itself["commit"] == "check", f"the commit that was built: {told_of_itself}")


def ask(method: str, path: str, key: str = "", body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the service's answer; a body goes as the file of a form."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body:
        headers["Content-Type"] = "multipart/form-data; boundary=here"
        head = b'--here\r\nContent-Disposition: form-data; name="file"; filename="clip.mp4"\r\n\r\n'
        body = head + body + b"\r\n--here--\r\n"
    connection = http.client.HTTPConnection(*SERVICE, timeout=WAIT_S)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def running(program: list[str], health: list[str]) -> Iterator[None]:
    """The program, healthy by the image's own check, and stopped by SIGTERM at the end."""
    name = " ".join(program)
    expect(subprocess.run(health, check=False).returncode == 1, f"{name} is unhealthy before it runs")
    process = subprocess.Popen(program)
    try:
        began = time.monotonic()
        while subprocess.run(health, check=False).returncode:
            expect(process.poll() is None, f"{name} goes on", quiet=True)
            expect(time.monotonic() - began < WAIT_S, f"{name} becomes healthy", quiet=True)
            time.sleep(0.2)
        print(f"ok  {name} is healthy after {time.monotonic() - began:.1f} s", flush=True)
        yield
        process.send_signal(signal.SIGTERM)
        status = process.wait(WAIT_S)
        expect(status in {0, -signal.SIGTERM, 128 + signal.SIGTERM}, f"{name} stops: {status}")
    finally:
        process.kill()


def told(command: list[str]) -> str:
    """What a command prints that must succeed."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    expect(ran.returncode == 0, " ".join(command), quiet=True)
    return ran.stdout


def expect(true: bool, what: str, *, quiet: bool = False) -> None:
    """End the check with what is wrong; else say what is right."""
    if not true:
        print(f"BAD {what}", flush=True)
        sys.exit(1)
    if not quiet:
        print(f"ok  {what}", flush=True)


if __name__ == "__main__":
    main()
