"""PDQ as the reference computes it, and what is alike by it."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from specsem.fingerprint import MATCH_BITS, MOST_FRAMES, Fingerprinter, distances, pdq, share_alike
from specsem.media import DecoderPool, SamplePlan, Window
from specsem.media.types import UInt8
from specsem.synthetic import write_clip


def picture(height: int, width: int, waves: int, loud: float) -> UInt8:
    y, x = np.mgrid[0:height, 0:width]
    wave = np.sin(2 * np.pi * waves * x / width + 1) * np.cos(2 * np.pi * (waves + 1) * y / height)
    value = 128 + loud * wave + 20.0 * x / width
    return np.clip(np.stack([value, value * 0.8, 255 - value], -1), 0, 255).astype(np.uint8)


def blobs(seed: int, side: int = 224) -> UInt8:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def window(start_s: float, frame: UInt8) -> Window:
    return Window(
        start_s, start_s + 0.3, np.zeros((1, 0, 0, 0, 3), np.uint8), frame[None], np.zeros((0, 4), np.float32)
    )


# From pdqhash 0.2.8, which wraps the authors' code.
REFERENCE = {
    (224, 224, 3, 60): ("af0f203d4fc8203d4fca203d4fca203d0035dfca4fca774a4fca774a4fc8774a", 100),
    (360, 640, 5, 90): ("07ba54a8e46e54a8a3ff23dd1fd1a3dda5982b75e47623775488035574510b55", 100),
    (97, 131, 2, 40): ("8b0ff9f2628d77f23a526d50d5d275f2b80f75f28a2d8a2dea708a2d048d8a0d", 51),
    (224, 224, 2, 100): ("faf7a2aff3f2888dd455000d050daa2f1500000d000d7f72aaf77ff2fa2a7ff2", 100),
}


@pytest.mark.parametrize("shape", REFERENCE)
def test_hashes_are_the_reference_s(shape: tuple[int, int, int, float]) -> None:
    hashed, quality = pdq(picture(*shape))
    wanted, quality_wanted = REFERENCE[shape]
    differing = (int(hashed.hex(), 16) ^ int(wanted, 16)).bit_count()
    assert differing <= 4, "rounding may turn a bit at the median"
    assert quality == quality_wanted


def test_a_picture_without_anything_in_it_has_no_quality() -> None:
    assert pdq(np.full((224, 224, 3), 128, np.uint8))[1] == 0


def test_resizing_and_noise_leave_a_match_and_another_picture_is_none() -> None:
    original = blobs(1)
    smaller = np.asarray(Image.fromarray(original).resize((160, 90), Image.Resampling.BILINEAR))
    noisy = np.clip(original + np.random.default_rng(0).normal(0, 12, original.shape), 0, 255).astype(
        np.uint8
    )
    hashes = b"".join(pdq(frame)[0] for frame in (original, smaller, noisy, blobs(2), original[:, ::-1]))
    [[itself, scaled, grainy, other, mirrored]] = distances(hashes[:32], hashes)
    assert itself == 0
    assert max(scaled, grainy) <= MATCH_BITS
    assert min(other, mirrored) > 2 * MATCH_BITS


def test_a_part_is_like_the_whole() -> None:
    frames = [pdq(blobs(seed))[0] for seed in range(8)]
    whole, part, half, none = (
        b"".join(frames),
        b"".join(frames[:2]),
        frames[0] + pdq(blobs(50))[0],
        pdq(blobs(60))[0],
    )
    shares = share_alike(whole, [whole, part, half, none, b""])
    assert [share for share, _ in shares] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert [bits for _, bits in shares[:3]] == [0, 0, 0]
    assert shares[3][1] > MATCH_BITS
    assert shares[4][1] == 256
    assert share_alike(b"", [whole]) == [(0.0, 256)]


def test_a_scan_is_thinned_and_stays_spread() -> None:
    printer = Fingerprinter()
    frames = [blobs(seed, 64) for seed in range(400)]
    for at, frame in enumerate(frames):  # four a second
        printer.see([window(at * 0.25, frame)], scanning=True)
    hashes = printer.fingerprint
    taken = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    order = [pdq(frame)[0] for frame in frames]
    places = [order.index(each) for each in taken]
    assert MOST_FRAMES // 2 <= len(places) <= MOST_FRAMES
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] > 360
    assert max(np.diff(places)) <= 24


def test_windows_without_whole_frames_give_none() -> None:
    printer = Fingerprinter()
    printer.see([window(0.0, np.zeros((0, 0, 3), np.uint8)), window(1.0, np.zeros((64, 64, 3), np.uint8))])
    assert printer.fingerprint == b""


def encoded_again(source: Path, target: Path) -> None:
    """At half the size, and badly."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        video = reading.streams.video[0]
        width, height = video.width // 2, video.height // 2
        stream = writing.add_stream("libx264", rate=25, options={"crf": "34", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in reading.decode(video):
            smaller = frame.reformat(width, height, "yuv420p")
            smaller.pts = None
            writing.mux(stream.encode(smaller))
        writing.mux(stream.encode(None))


def test_a_clip_that_was_encoded_again_is_found(tmp_path: Path) -> None:
    one, other, again = (tmp_path / name for name in ("one.mp4", "other.mp4", "again.mp4"))
    write_clip(one, width=320, height=240, seconds=2.0, seed=1)
    write_clip(other, width=320, height=240, seconds=2.0, seed=2)
    encoded_again(one, again)
    looks = []
    with DecoderPool(workers=1) as pool:
        for path in (one, again, other):
            printer = Fingerprinter()
            printer.see(pool.decode(path, SamplePlan()).windows)
            looks.append(printer.fingerprint)
    [(same, _), (different, bits)] = share_alike(looks[0], looks[1:])
    assert same >= 0.75
    assert different == 0
    assert bits > 2 * MATCH_BITS
