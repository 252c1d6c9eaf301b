"""What is said of signed manifests, and whom the operator trusts."""

import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from specsem.media import Clip, Coverage, Manifests, MediaInfo, Trail, TrustList
from specsem.provenance import TrustListUnusable, provenance_of, read_trust_list
from specsem.result import C2pa, C2paStatus, Provenance
from tests.media.signatory import Signatory

CLIP = Clip(MediaInfo("mp4", "h264", 64, 64, 25.0, 1.0), [], Coverage(1.0, 1.0, 1.0))
LISTED = TrustList("cameras.pem", date(2026, 5, 31), b"", "0" * 64)
SIGNED = Manifests("valid", signer="Camera 7", actions=["c2pa.created"])


@pytest.fixture(scope="module")
def anchor() -> bytes:
    return Signatory().anchor


def c2pa(manifests: Manifests, trust_list: TrustList | None = None, container: str = "mp4") -> C2pa:
    info = replace(CLIP.info, container=container)
    return provenance_of(replace(CLIP, info=info, manifests=manifests, trust_list=trust_list)).c2pa


def test_nobody_looked() -> None:
    assert provenance_of(CLIP) == Provenance()


@pytest.mark.parametrize(
    ("manifests", "trust_list", "words"),
    [
        (Manifests("absent"), LISTED, "no evidence of anything"),
        (Manifests("unsupported"), LISTED, "of matroska files are not read"),
        (Manifests("failed", "it took too long"), LISTED, "could not be read: it took too long."),
        (Manifests("not_checked", "it is kept at http://a/b"), None, "http://a/b, and nothing is fetched"),
        (
            replace(SIGNED, status="trusted"),
            LISTED,
            "Signed by Camera 7, who is on the trust list cameras.pem",
        ),
        (SIGNED, LISTED, "not on the trust list cameras.pem of 2026-05-31, and anybody can sign"),
        (SIGNED, None, "there is no trust list here, and anybody can sign"),
        (replace(SIGNED, status="invalid", reason="x.mismatch"), LISTED, "does not hold (x.mismatch)"),
    ],
)
def test_one_sentence_says_it(manifests: Manifests, trust_list: TrustList | None, words: str) -> None:
    found = c2pa(manifests, trust_list, container="matroska")
    assert words in found.detail
    assert found.status == manifests.status
    assert found.trust_list == (str(trust_list) if trust_list else None)


@pytest.mark.parametrize("status", ["trusted", "valid", "invalid"])
@pytest.mark.parametrize(
    ("source_types", "says", "words"),
    [
        (["digitalCapture"], False, ""),
        (["algorithmicMedia"], False, ""),
        (["digitalCapture", "trainedAlgorithmicMedia"], True, "a trained model made the content"),
        (["compositeWithTrainedAlgorithmicMedia"], True, "a trained model made part of the content"),
    ],
)
def test_what_it_says_of_models(status: C2paStatus, source_types: list[str], says: bool, words: str) -> None:
    found = c2pa(replace(SIGNED, status=status, digital_source_types=source_types))
    assert found.says_generated is says
    assert words in found.detail
    assert ("trained model" in found.detail) is says


def test_trail_as_it_is() -> None:
    trail = Trail(muxer="Lavf", created_at="2026-05-28T20:26:40+00:00", tracks=["video h264"])
    found = provenance_of(replace(CLIP, trail=trail)).trail
    assert found is not None
    assert (found.muxer, found.tracks) == ("Lavf", ["video h264"])
    assert found.created_at == datetime(2026, 5, 28, 20, 26, 40, tzinfo=UTC)


# -- the trust list -----------------------------------------------------------------------------------------


def test_a_list_says_its_date(tmp_path: Path, anchor: bytes) -> None:
    path = tmp_path / "trust.pem"
    path.write_bytes(b"# Published on 2026-05-31, for 2026-06-01\n" + anchor + b"# 2020-01-01\n" + anchor)
    found = read_trust_list(path)
    assert str(found) == "trust.pem of 2026-05-31"
    assert found.anchors == path.read_bytes()


@pytest.mark.parametrize("comment", [b"", b"# 2026-19-39\n", b"# version 3\n"])
def test_or_it_is_as_old_as_its_file(tmp_path: Path, anchor: bytes, comment: bytes) -> None:
    path = tmp_path / "trust.pem"
    path.write_bytes(comment + anchor)
    moment = datetime(2025, 3, 4, 23, 59, tzinfo=UTC).timestamp()
    os.utime(path, (moment, moment))
    assert read_trust_list(path).date == date(2025, 3, 4)


def test_another_list_has_another_hash(tmp_path: Path, anchor: bytes) -> None:
    path = tmp_path / "trust.pem"
    path.write_bytes(anchor)
    first = read_trust_list(path)
    path.write_bytes(anchor + Signatory().anchor)
    assert read_trust_list(path).sha256 != first.sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "holds no certificates"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "broken ones"),
        (b" " * (8 * 1024**2 + 1), "has more than"),
    ],
)
def test_what_is_no_list(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "trust.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrustListUnusable, match=words):
        read_trust_list(path)
