"""The service as it ships against the pipeline: equal answers for good files, the same codes for bad ones."""

import json
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from serving import ROOT, Server, environment, until

from specsem.result import ScoredFile
from specsem.synthetic import write_clip
from tests.media.signatory import Signatory, actions

FILES_TIMEOUT_S = 60


def post(server: Server, path: Path, route: str = "/v1/score", **params: str) -> httpx.Response:
    with path.open("rb") as file:
        return httpx.post(
            f"{server.url}{route}",
            files={"file": (path.name, file)},
            params=params,
            timeout=FILES_TIMEOUT_S,
        )


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from run to run: times, and scores by rounding of another batch."""
    assert answer.keys() == ScoredFile.model_fields.keys()
    rounded = {"score": round(answer["score"], 4), "logit": round(answer["logit"], 3), "timing_ms": None}
    segments = [segment | {"score": round(segment["score"], 4)} for segment in answer["segments"]]
    findings = [finding["code"] for finding in answer["findings"]]  # which tell the score, like the reasons
    decision = answer["decision"]
    decision = decision | {"reasons": [reason["code"] for reason in decision["reasons"]]}
    told = {"segments": segments, "findings": findings, "decision": decision}
    return answer | rounded | told | {"path": Path(answer["path"]).name}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The second one is signed."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number, (seconds, fps) in enumerate([(1.0, 25), (3.0, 10), (2.0, 30)]):
        path = folder / f"clip {number}.mp4"
        write_clip(path, width=192, height=144, seconds=seconds, fps=fps, seed=number)
        paths.append(path)
    signed = Signatory().sign(paths[1].read_bytes(), actions(("c2pa.created", "trainedAlgorithmicMedia")))
    paths[1].write_bytes(signed)
    return paths


def test_answers_equal_the_command_line_s(
    service: Server, clips: list[Path], tiny_models: Path, tmp_path: Path
) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "specsem", "score", "--json", "--device", "cpu", *map(str, clips)],
        check=True,
        env=environment(tmp_path, models_dir=tiny_models),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    by_hand = [json.loads(line) for line in printed.splitlines()]
    served = [post(service, clip).json() for clip in clips]
    assert [comparable(a) for a in served] == [comparable(a) for a in by_hand]
    assert [answer["path"] for answer in served] == [clip.name for clip in clips]
    claims = [answer["provenance"]["c2pa"] for answer in served]
    assert [claim["status"] for claim in claims] == ["absent", "valid", "absent"]
    assert [claim["says_generated"] for claim in claims] == [False, True, False]


def test_thorough_answers_equal_the_pipeline_s(
    service: Server, clips: list[Path], tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specsem.media import DecoderPool
    from specsem.pipeline import Options, score_file
    from specsem.policy import PolicyBook, decide
    from specsem.scorer import Scorer

    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    scorer = Scorer(device="cpu")
    with DecoderPool(workers=1) as pool:
        parts = {"pool": pool, "scorer": scorer, "options": Options(thorough=True)}
        found = [score_file(clip, **parts) for clip in clips]
    policy, points = PolicyBook.read().policy("default"), scorer.calibration.policies  # decided by who asks
    answers = [one.model_copy(update={"decision": decide(policy, one, points)}).model_dump() for one in found]
    served = [post(service, clip, thorough="true").json() for clip in clips]
    assert [comparable(a) for a in served] == [comparable(a) for a in answers]
    assert all(answer["coverage"]["fraction"] > 0.7 for answer in served)


def test_a_stored_video_gets_the_same_answer(service: Server, clips: list[Path]) -> None:
    stored = post(service, clips[1], "/v1/videos")
    assert stored.status_code == 201
    video = stored.json()
    assert (video["media"]["width"], video["media"]["codec"]) == (192, "h264")
    by_id = httpx.post(f"{service.url}/v1/score", json={"video": video["id"]}, timeout=FILES_TIMEOUT_S)
    assert comparable(by_id.json()) == comparable(post(service, clips[1]).json())
    assert by_id.json()["media"]["duration_s"] == pytest.approx(video["media"]["duration_s"], abs=0.11)
    assert httpx.delete(f"{service.url}/v1/videos/{video['id']}").status_code == 204


def test_a_job_gets_the_same_answer(service: Server, clips: list[Path]) -> None:
    job = post(service, clips[1], "/v1/jobs").json()

    def done() -> bool:
        job.update(httpx.get(f"{service.url}/v1/jobs/{job['id']}").json())
        return job["status"] == "done"

    until(done, FILES_TIMEOUT_S)
    assert comparable(job["result"]) == comparable(post(service, clips[1]).json())


def test_many_at_once_get_the_answers_that_they_get_alone(service: Server, clips: list[Path]) -> None:
    alone = [comparable(post(service, clip).json()) for clip in clips]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda clip: comparable(post(service, clip).json()), clips * 4))
    assert together == alone * 4


def text(path: Path) -> None:
    path.write_text("nothing to see\n")


def playlist(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile secret.mp4\n")


def sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(struct.pack("<800h", *range(800)))


def still(path: Path) -> None:
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "rgb24"
        frame = av.VideoFrame.from_ndarray(np.zeros((128, 128, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame) + stream.encode(None))


def tiny(path: Path) -> None:
    write_clip(path, width=32, height=32, seconds=1.0)


def short(path: Path) -> None:
    write_clip(path, width=128, height=128, seconds=0.08)


def beheaded(path: Path) -> None:
    write_clip(path, width=128, height=128, seconds=1.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nothing(path: Path) -> None:
    path.touch()


BAD: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "text.mp4": (text, {"not_a_video"}),
    "playlist.mp4": (playlist, {"not_a_video"}),
    "sound.mp4": (sound, {"no_video_stream"}),
    "still.png": (still, {"no_video_stream", "not_a_video"}),
    "tiny.mp4": (tiny, {"too_small"}),
    "short.mp4": (short, {"too_short"}),
    "beheaded.mp4": (beheaded, {"undecodable", "not_a_video"}),
    "nothing.mp4": (nothing, {"not_a_video"}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_a_stable_code_and_leave_nothing(service: Server, tmp_path: Path, name: str) -> None:
    make, codes = BAD[name]
    make(tmp_path / name)
    stored_before = list((service.data_dir / "videos").iterdir())
    scored = post(service, tmp_path / name)
    assert scored.status_code == 422, scored.text
    assert scored.headers["Content-Type"] == "application/problem+json"
    assert scored.json()["code"] in codes
    assert str(service.data_dir) not in scored.text
    stored = post(service, tmp_path / name, "/v1/videos")
    if stored.status_code == 201:  # what only sampling can tell: kept, and refused when scored
        assert scored.json()["code"] == "too_short"
        httpx.delete(f"{service.url}/v1/videos/{stored.json()['id']}")
    else:
        assert (stored.status_code, stored.json()["code"]) == (422, scored.json()["code"])
    assert list((service.data_dir / "videos").iterdir()) == stored_before
    assert service.uploads() == []


def test_models_policies_and_readiness(service: Server) -> None:
    [model] = httpx.get(f"{service.url}/v1/models").json()["models"]
    assert (model["name"], model["present"], model["active"]) == ("specsem-compact", True, True)
    policy = httpx.get(f"{service.url}/v1/policies/default").json()
    assert (policy["name"], policy["threshold"]["calibration_n"]) == ("default", 60)
    ready = httpx.get(f"{service.url}/readyz").json()
    assert (ready["model"], ready["device"]) == ("specsem-compact 0-tiny", "cpu")
    assert ready["warm_up_ms"] > 0
