"""Signed manifests: real ones, made here, and files that are hard on whoever reads them."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from specsem.errors import Cancelled
from specsem.media import Clip, Death, DecoderPool, Limits, Manifests, SamplePlan, TrustList
from specsem.media import _manifests as manifests_module
from specsem.media import pool as pool_module
from tests.media.bombs import box, encoded, good
from tests.media.signatory import Signatory, actions, ingredient

PLAN = SamplePlan(windows=1, crop_side=64, frame_side=0)
CAPTURED = actions(("c2pa.created", "digitalCapture"))
MADE = actions(("c2pa.created", "trainedAlgorithmicMedia"))


@pytest.fixture(scope="module")
def camera() -> Signatory:
    return Signatory()


@pytest.fixture(scope="module")
def pool(camera: Signatory) -> Iterator[DecoderPool]:
    """It trusts the camera, and nobody else."""
    digest = hashlib.sha256(camera.anchor).hexdigest()
    trusted = TrustList("cameras.pem", date(2026, 5, 31), camera.anchor, digest)
    with DecoderPool(workers=1, trust_list=trusted) as pool:
        yield pool


def decode(pool: DecoderPool, content: bytes, folder: Path) -> Clip:
    (folder / "video").write_bytes(content)
    return pool.decode(folder / "video", PLAN)


def found(pool: DecoderPool, content: bytes, folder: Path) -> Manifests:
    manifests = decode(pool, content, folder).manifests
    assert manifests is not None
    return manifests


def test_trusted(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    clip = decode(pool, camera.sign(good(), CAPTURED), tmp_path)
    assert clip.manifests == Manifests(
        status="trusted",
        signer="Camera 7, Lens House",
        claim_generator="Test Maker 1.0",
        actions=["c2pa.created"],
        digital_source_types=["digitalCapture"],
    )
    assert str(clip.trust_list) == "cameras.pem of 2026-05-31"
    assert clip.manifests_ms > 0
    assert clip.windows


def test_valid_but_nobody_knows_the_signer(pool: DecoderPool, tmp_path: Path) -> None:
    stranger = Signatory("Camera 7", "Lens House").sign(good(), CAPTURED)  # the same name, another key
    assert found(pool, stranger, tmp_path).status == "valid"


def test_nobody_is_trusted_without_a_list(camera: Signatory, tmp_path: Path) -> None:
    with DecoderPool(workers=1) as pool:
        clip = decode(pool, camera.sign(good(), CAPTURED), tmp_path)
    assert clip.manifests is not None
    assert (clip.manifests.status, clip.trust_list) == ("valid", None)


def test_changed_since(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    content = bytearray(camera.sign(good(), CAPTURED))
    content[content.index(b"mdat") + 300] ^= 1
    manifests = found(pool, bytes(content), tmp_path)
    assert (manifests.status, manifests.reason) == ("invalid", "assertion.bmffHash.mismatch")
    assert manifests.signer == "Camera 7, Lens House"


def test_claim_changed_since(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    content = camera.sign(good(), CAPTURED)
    assert content.count(b"Test Maker") == 1
    manifests = found(pool, content.replace(b"Test Maker", b"Best Maker"), tmp_path)
    assert (manifests.status, manifests.reason) == ("invalid", "claimSignature.mismatch")


def test_absent(pool: DecoderPool, tmp_path: Path) -> None:
    assert found(pool, good(), tmp_path) == Manifests("absent")


@pytest.mark.parametrize(("container", "mime"), [("mov", "video/quicktime"), ("avi", "video/avi")])
def test_other_containers(
    pool: DecoderPool, camera: Signatory, tmp_path: Path, container: str, mime: str
) -> None:
    content = encoded("mpeg4", container)
    assert found(pool, camera.sign(content, CAPTURED, mime=mime), tmp_path).status == "trusted"


def test_container_that_is_not_read(pool: DecoderPool, tmp_path: Path) -> None:
    assert found(pool, encoded("libx264", "matroska"), tmp_path) == Manifests("unsupported")


def test_what_an_ingredient_says_counts(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    made = Signatory("Generator", "Dream House").sign(good(), MADE)
    edited = camera.sign(made, actions("c2pa.opened", "c2pa.edited"), ingredients=[(ingredient(), made)])
    manifests = found(pool, edited, tmp_path)
    assert manifests.signer == "Camera 7, Lens House"
    assert manifests.actions == ["c2pa.created", "c2pa.opened", "c2pa.edited"]
    assert manifests.digital_source_types == ["trainedAlgorithmicMedia"]


def test_source_type_outside_of_actions(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    term = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    metadata = {
        "label": "cawg.metadata",
        "data": {
            "@context": {"Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"},
            "Iptc4xmpExt:DigitalSourceType": term,
        },
    }
    manifests = found(pool, camera.sign(good(), CAPTURED, metadata), tmp_path)
    assert manifests.digital_source_types == ["digitalCapture", "compositeWithTrainedAlgorithmicMedia"]


def test_long_and_odd_words_are_cut(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    many = actions(("c2pa.created", "digitalCapture"), *(f"org.x.{i}\x1b[31m{'y' * 400}" for i in range(80)))
    listed = found(pool, camera.sign(good(), many), tmp_path).actions
    assert len(listed) == 50
    assert all(len(action) <= 200 and action.isprintable() for action in listed)


def test_manifest_elsewhere_is_not_fetched(pool: DecoderPool, camera: Signatory, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        content = camera.sign(good(), CAPTURED, elsewhere=address)
        manifests = found(pool, content, tmp_path)
        assert (manifests.status, manifests.reason) == ("not_checked", f"it is kept at {address}")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_c2pa_would_fetch_it(camera: Signatory, tmp_path: Path) -> None:
    """What the test before is there for: as c2pa comes, it does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        path = tmp_path / "video.mp4"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        path.write_bytes(camera.sign(good(), CAPTURED, elsewhere=address))
        reading = [sys.executable, "-c", "import c2pa, sys; c2pa.Reader(sys.argv[1])", str(path)]
        with subprocess.Popen(reading, stderr=subprocess.DEVNULL):
            server.accept()[0].close()


# -- what the reader can do to its process ----------------------------------------------------------------


@pytest.fixture
def deaths() -> list[Death]:
    return []


@contextmanager
def odd_pool(c2pa_s: float, deaths: list[Death]) -> Iterator[DecoderPool]:
    """One worker that files can make misbehave, with so many seconds for manifests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "_WORKER_MODULE", "tests.media.misbehaving")
        limits = Limits(c2pa_s=c2pa_s, memory_bytes=512 << 20)
        with DecoderPool(workers=1, limits=limits, on_death=deaths.append) as pool:
            yield pool


SLOW = box(b"free") * 32_000
"""c2pa takes time by the square of the boxes: some ten seconds."""


def misbehaving(word: bytes) -> bytes:
    return box(b"free", word)


@pytest.mark.parametrize(
    ("more", "c2pa_s", "reason"),
    [
        (SLOW, 0.5, "it took too long"),
        (misbehaving(b"hang"), 0.5, "it took too long"),
        (misbehaving(b"spin"), 0.5, "it took too long"),
        (misbehaving(b"crash"), 60.0, "the reader broke down"),
        (misbehaving(b"bloat"), 60.0, "the reader broke down"),
        (misbehaving(b"raise"), 60.0, "the reader broke down"),
        (misbehaving(b"exit"), 60.0, "the reader broke down"),
    ],
    ids=["many-boxes", "hang", "spin", "crash", "bloat", "raise", "exit"],
)
def test_the_clip_is_safe(
    deaths: list[Death], tmp_path: Path, more: bytes, c2pa_s: float, reason: str
) -> None:
    with odd_pool(c2pa_s, deaths) as pool:
        clip = decode(pool, good() + more, tmp_path)
        assert clip.manifests == Manifests("failed", reason)
        assert clip.windows[0].crops_TNHWC.any()
        assert deaths == ["manifests"]
        assert decode(pool, good(), tmp_path).windows, "another process does the next file"
        assert len(pool.pids()) == 1


def test_a_scan_is_safe(deaths: list[Death], tmp_path: Path) -> None:
    (tmp_path / "video").write_bytes(good() + SLOW)
    with odd_pool(0.5, deaths) as pool:
        with pool.scan(tmp_path / "video", PLAN) as scan:
            assert list(scan)
        assert scan.clip.manifests == Manifests("failed", "it took too long")
        assert deaths == ["manifests"]
        assert decode(pool, good(), tmp_path).windows


def test_who_has_left_is_not_waited_for(deaths: list[Death], tmp_path: Path) -> None:
    (tmp_path / "video").write_bytes(good() + misbehaving(b"hang"))
    cancel = threading.Event()
    with odd_pool(600.0, deaths) as pool:
        pool.probe(tmp_path / "video")  # it is awake
        threading.Timer(1.0, cancel.set).start()
        with pytest.raises(Cancelled):
            pool.decode(tmp_path / "video", PLAN, cancel=cancel)
        assert deaths == ["cancelled"]


def test_without_c2pa(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(manifests_module, "c2pa", None)
    with (tmp_path / "video").open("w+b") as file:
        manifests = manifests_module.ManifestReader().read(file.fileno(), "mp4")
    assert manifests == Manifests("failed", "c2pa-python is not installed")
