"""How well fingerprints find clips again: each of some clips encoded anew, and every pair of different ones.

``python benchmarks/near_duplicates.py MANIFEST [--clips 40] [--seed 3]``: docs/similar.md has the figures.
"""

import argparse
import itertools
import json
import random
import tempfile
from pathlib import Path

import av

from specsem.errors import MediaError
from specsem.fingerprint import Fingerprinter, share_alike
from specsem.media import DecoderPool, SamplePlan

LEAST_SHARE = 0.5
"""As ``app.jobs.similar`` has it."""


def encode_again(source: Path, target: Path) -> None:
    """At half the size, with x264 at CRF 30."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        video = reading.streams.video[0]
        width, height = video.width // 4 * 2, video.height // 4 * 2
        options = {"crf": "30", "preset": "veryfast"}
        stream = writing.add_stream("libx264", rate=video.average_rate or 25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in reading.decode(video):
            smaller = frame.reformat(width, height, "yuv420p")
            smaller.pts = None
            writing.mux(stream.encode(smaller))
        writing.mux(stream.encode(None))


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seed", type=int, default=3)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.manifest.read_text(encoding="utf-8").splitlines()]
    chosen = random.Random(asked.seed).sample(rows, asked.clips)
    looks: list[tuple[str, bytes, bytes]] = []
    with DecoderPool(workers=1) as pool, tempfile.TemporaryDirectory() as folder:

        def look(path: Path) -> bytes:
            printer = Fingerprinter()
            printer.see(pool.decode(path, SamplePlan()).windows)
            return printer.fingerprint

        for row in chosen:
            original, again = asked.manifest.parent / row["path"], Path(folder) / "again.mp4"
            try:
                encode_again(original, again)
                looks.append((row["source"], look(original), look(again)))
            except (MediaError, av.FFmpegError) as error:
                print(f"left out: {row['path']} ({type(error).__name__})")
    found = [share_alike(one, [again])[0][0] >= LEAST_SHARE for _, one, again in looks]
    print(f"encoded again and found: {sum(found)} of {len(found)}")
    pairs = [
        (*share_alike(a, [b])[0], first, second)
        for (first, a, _), (second, b, _) in itertools.combinations(looks, 2)
    ]
    print(
        f"pairs of different clips called alike: {[p for p in pairs if p[0] >= LEAST_SHARE]} of {len(pairs)}"
    )
    print(f"the nearest differ in: {sorted(bits for _, bits, _, _ in pairs)[:5]} bits")


if __name__ == "__main__":
    main()
