"""One clip, one answer, whichever way it is asked: command line, HTTP, job, Ray, bulk, ONNX, on CPU and GPU.

On clips of the data set beside the checkout, with the shipped model. Ways differ by how many clips share a
forward and by how many threads compute it, which is rounding.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi.testclient import TestClient
from serving import environment, until

from app.main import create_app
from app.settings import Settings
from specsem.media import DecoderPool
from specsem.pipeline import file_sha256
from specsem.registry import get_model

ROOT = Path(__file__).parent.parent.parent
PACK = ROOT.parent / "shared" / "data"
SIDES = ("real", "generated")
EACH = 3

pytestmark = pytest.mark.skipif(
    not (PACK / "manifest.jsonl").is_file(), reason="the data set isn't beside the checkout"
)

Answers = Mapping[str, Any]
"""Name of a clip -> verdict and score."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smallest few of each side."""
    folder = tmp_path_factory.mktemp("clips")
    for side in SIDES:
        for path in sorted((PACK / side).glob("*.mp4"), key=lambda path: path.stat().st_size)[:EACH]:
            shutil.copy(path, folder)
    return folder


def by_command_line(clips: Path, device: str, data_dir: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "specsem", "score", "--json", "--device", device, str(clips)]
    ran = subprocess.run(command, env=environment(data_dir), capture_output=True, text=True, check=True)
    answers = map(json.loads, ran.stdout.splitlines())
    return {Path(answer["path"]).name: answer for answer in answers}


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command line says on the CPU."""
    answers = by_command_line(clips, "cpu", tmp_path_factory.mktemp("data"))
    assert len(answers) == len(SIDES) * EACH
    return answers


def assert_same(found: Answers, expected: Answers) -> None:
    assert found.keys() == expected.keys()
    for name, answer in expected.items():
        assert found[name]["verdict"] == answer["verdict"], name
        assert found[name]["score"] == pytest.approx(answer["score"], abs=0.005), name
        assert found[name]["sha256"] == answer["sha256"], name


def posted(post: Callable[..., httpx.Response], clips: Path) -> dict[str, Any]:
    """The answers of ``POST /v1/score``."""
    answers = {}
    for path in sorted(clips.iterdir()):
        answer = post("/v1/score", files={"file": (path.name, path.read_bytes())}, timeout=120)
        assert answer.status_code == 200, answer.text
        answers[path.name] = answer.json()
    return answers


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("service"), device="cpu")
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        until(lambda: client.get("/readyz").status_code == 200, 120)
        yield client


def test_by_http(service: TestClient, clips: Path, expected: Answers) -> None:
    assert_same(posted(service.post, clips), expected)


def test_as_a_job(service: TestClient, clips: Path, expected: Answers) -> None:
    found = {}
    for path in sorted(clips.iterdir()):
        # Without Cache-Control it would be the answer of the test above.
        body = {"files": {"file": (path.name, path.read_bytes())}, "headers": {"Cache-Control": "no-cache"}}
        job = service.post("/v1/jobs", **body).json()
        address = f"/v1/jobs/{job['id']}"
        until(lambda address=address: service.get(address).json()["status"] in {"done", "failed"}, 120)
        found[path.name] = service.get(address).json()["result"]
    assert_same(found, expected)


@pytest.mark.ray
def test_on_ray(clips: Path, expected: Answers, tmp_path: Path) -> None:
    """The service with a replica, and a bulk run, on one cluster."""
    reason = "needs the extra `ray`"
    ray_app = pytest.importorskip("app.ray_app", reason=reason, exc_type=ModuleNotFoundError)
    bulk = pytest.importorskip("app.bulk", reason=reason, exc_type=ModuleNotFoundError)
    import pyarrow.parquet as pq
    import ray

    from app.ray_setup import cluster

    with cluster(ray, None, cpus=5):
        with ray_app.serving(Settings(data_dir=tmp_path / "data", device="cpu", port=0)) as url:
            until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 120)
            with httpx.Client(base_url=url) as client:
                assert_same(posted(client.post, clips), expected)
        out = tmp_path / "results.parquet"
        bulk.bulk(os.fspath(clips), out, model="specsem-compact", device="cpu")
        assert_same({row["path"]: row for row in pq.read_table(out).to_pylist()}, expected)


def test_by_onnx(clips: Path, expected: Answers, tmp_path: Path) -> None:
    reason = "needs the extra `onnx`"
    export = pytest.importorskip("specsem.export", reason=reason, exc_type=ModuleNotFoundError)
    record = get_model()
    export.export_onnx(record, tmp_path / "model.onnx")
    scorer = export.OnnxScorer(tmp_path / "model.onnx", record)
    found = {}
    with DecoderPool(workers=1) as pool:
        for path in sorted(clips.iterdir()):
            [said] = scorer.score_batch([pool.decode(path, scorer.plan)])
            found[path.name] = {"verdict": said.verdict, "score": said.score, "sha256": file_sha256(path)}
    assert_same(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine shows no CUDA device")
def test_on_a_gpu(clips: Path, expected: Answers, tmp_path: Path) -> None:
    assert_same(by_command_line(clips, "cuda", tmp_path), expected)
