"""All of it at once, with real processes: upload, decision, webhook, feedback, recalibration, and back."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver
from serving import SERVICE, documented_receiver, environment, free_port, serving, until

from specsem.calibration import Calibration
from specsem.client import Client
from specsem.records import Job
from specsem.result import ScoredFile
from specsem.synthetic import write_clip

COPIES = 17
"""Of each clip: a threshold needs fifty camera videos."""
RATE = 0.02


@pytest.fixture(scope="module")
def too_keen(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a calibration by which all that is drawn here was generated."""
    folder = tmp_path_factory.mktemp("keen") / "models"
    shutil.copytree(tiny_models, folder)
    model = folder / "specsem-compact"
    own = Calibration.load(model)
    policies = {name: each.model_copy(update={"max_fpr": RATE}) for name, each in own.policies.items()}
    replace(own, intercept=4.0, policies=policies).save(model)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{seed}.mp4" for seed in range(3)]
    for seed, path in enumerate(paths):
        write_clip(path, width=192, height=144, seconds=1.0, seed=seed)
    return paths


def test_from_an_upload_to_a_calibration_and_back(tmp_path: Path, too_keen: Path, clips: list[Path]) -> None:
    port = free_port()
    settings: dict[str, Any] = {
        "models_dir": too_keen, "device": "cpu",
        "webhook_http": True, "webhook_ports": port, "webhook_internal": "127.0.0.1",
    }  # fmt: skip
    with serving(SERVICE, tmp_path / "data", **settings) as server, Client(server.url) as client:
        server.wait_ready()

        def operate(*args: str) -> str:
            """A command of the operator's, at the same machine."""
            ran = subprocess.run(
                [sys.executable, "-m", "specsem", *args],
                env=environment(server.data_dir, **settings),
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        webhook = client.create_webhook(Receiver(port).url())
        with documented_receiver(port, webhook.secret) as received:
            # A camera clip is called generated: the policy wants it reviewed, and the platform is told.
            job = client.wait(client.submit(client.upload(clips[0])))
            answer = answered(job)
            assert (answer.verdict, decided(answer)) == ("generated", "review")
            assert {received.readline() for _ in range(2)} == {
                f"job.done {job.id} generated\n",
                f"decision.review {job.id} generated\n",
            }
            assert [item.job.id for item in client.waiting()] == [job.id]

            # An operator sees that it isn't; of the day's others there is a count, and nobody says which.
            client.decide(job, "real")
            assert received.readline() == f"feedback.created {job.id} generated\n"
            assert list(client.waiting()) == []
            client.change_webhook(webhook, events=["decision.review"])
            day = [client.wait(client.submit(clip)) for clip in clips for _ in range(COPIES)]
            assert {decided(answered(job)) for job in day} == {"review"}
            half = len(day) // 2
            for part in (day[:half], day[half:]):
                client.count(part, generated=0, note="a day of the forum")
            told = {received.readline() for _ in day}
            assert told == {f"decision.review {job.id} generated\n" for job in day}

            # That makes a calibration, which changes nothing until the operator says so.
            fitted = Calibration.from_json(operate("recalibrate", "--note", "too keen", "--json"))
            assert fitted.basis is not None
            assert (fitted.version, fitted.basis.grouped, fitted.basis.labels) == (1, len(day), 1)
            before = answered(client.wait(client.submit(clips[0])))
            assert (before.calibration, before.verdict) == (answer.calibration, "generated")
            operate("calibrations", "activate", "1")
            after = follows(client, clips[0], version=1)
            assert (after.verdict, decided(after)) == ("inconclusive", "allow")
            assert (after.logit, after.threshold.value > answer.threshold.value) == (answer.logit, True)

            # And back.
            operate("calibrations", "rollback")
            again = follows(client, clips[0], version=0)
            assert (again.verdict, again.score) == (answer.verdict, answer.score)
        log = server.log.read_text()
        assert webhook.secret not in log
        assert "Traceback" not in log


def answered(job: Job) -> ScoredFile:
    assert job.answer is not None, job.error
    return job.answer


def decided(answer: ScoredFile) -> str:
    assert answer.decision is not None
    return answer.decision.action


def follows(client: Client, clip: Path, *, version: int) -> ScoredFile:
    """The answer on a clip, once the service judges by this calibration."""

    def by_it() -> ScoredFile | None:
        answer = client.score(clip)
        return answer if answer.calibration and answer.calibration.version == version else None

    return until(by_it)
