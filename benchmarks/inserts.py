"""Three generated seconds in twenty of a camera's: is the insert found where it is?

Files are made from the clips of a fold and looked at by the member that never saw their family or source
(``DIR/members``, which ``specsem train`` writes for a recipe with folds), through a thorough scan. Found
means that the highest second of the time line is within 1 s of the insert.

    python benchmarks/inserts.py MANIFEST DIR --files 40
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from specsem.media import DecoderPool, read_frames
from specsem.registry import read_model
from specsem.scorer import Scorer, WindowScore
from specsem.training.data import Item, assign_folds, read_manifest
from specsem.training.distort import Resize, encode

UInt8 = npt.NDArray[np.uint8]
TOTAL_S, INSERT_S, NEAR_S = 20.0, 3.0, 1.0
MAX_SIDE = 640


def frames_for(item: Item, seconds: float, fps: float) -> UInt8:
    """So many seconds of a clip at this rate, played back and forth where it is shorter."""
    frames_THWC, time_T = read_frames(item.path, max_frames=512)
    own_fps = (len(time_T) - 1) / (time_T[-1] - time_T[0])
    there_and_back = [*range(len(frames_THWC)), *range(len(frames_THWC) - 2, 0, -1)]
    wanted = np.arange(round(seconds * fps)) / fps * own_fps
    return frames_THWC[[there_and_back[int(at) % len(there_and_back)] for at in wanted]]


def sized(frames_THWC: UInt8, height: int, width: int, rng: np.random.Generator) -> UInt8:
    """Scaled to cover this size, then its middle."""
    scale = max(height / frames_THWC.shape[1], width / frames_THWC.shape[2])
    h, w = max(height, round(frames_THWC.shape[1] * scale)), max(width, round(frames_THWC.shape[2] * scale))
    scaled = Resize(size=(h, w), kernel="area" if scale < 1 else "bicubic")(frames_THWC, rng)
    y, x = (h - height) // 2, (w - width) // 2
    return scaled[:, y : y + height, x : x + width]


def highest(scores: list[WindowScore], width_s: float = 1.0) -> float:
    """The middle of the second whose windows have the highest mean logit."""
    middle_W = np.array([(s.start_s + s.end_s) / 2 for s in scores])
    logit_W = np.array([s.logit for s in scores])
    mean_W = [logit_W[abs(middle_W - at) <= width_s / 2].mean() for at in middle_W]
    return float(middle_W[int(np.argmax(mean_W))])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    members = sorted((asked.trained / "members").iterdir())
    scorers = [Scorer(read_model(member)) for member in members]
    items = read_manifest(asked.manifest)
    fold_M = assign_folds(items, len(members))
    rng = np.random.default_rng(asked.seed)
    found, by_chance = 0, []
    with tempfile.TemporaryDirectory() as folder, DecoderPool(workers=1) as pool:
        for number in range(asked.files):
            fold = number % len(members)
            sides = [
                [i for i, own in zip(items, fold_M, strict=True) if own == fold and i.generated is generated]
                for generated in (False, True)
            ]
            camera, generator = (side[int(rng.integers(len(side)))] for side in sides)
            path = Path(folder) / "mixed.mp4"
            start_s = float(rng.uniform(1.0, TOTAL_S - 1.0))
            total_s = write_mixed(path, camera, generator, start_s, rng)
            with pool.scan(path, scorers[fold].plan) as windows:
                scores = scorers[fold].score_windows(list(windows))
            at_s = highest(scores)
            inside = start_s - NEAR_S <= at_s <= start_s + INSERT_S + NEAR_S
            found += inside
            by_chance.append((INSERT_S + 2 * NEAR_S) / total_s)
            print(f"{number:3} insert at {start_s:5.1f} s, highest at {at_s:5.1f} s: {inside}", flush=True)
    interval = binomtest(found, asked.files).proportion_ci(method="wilson")
    print(f"found {found} of {asked.files} ({interval.low:.2f} to {interval.high:.2f})")
    print(f"by chance {np.mean(by_chance):.2f}")


def write_mixed(path: Path, camera: Item, generator: Item, start_s: float, rng: np.random.Generator) -> float:
    """One file: the camera's seconds with the generator's in between, encoded together; its seconds."""
    fps = 24
    real_THWC = frames_for(camera, TOTAL_S, fps)
    scale = min(1.0, MAX_SIDE / max(real_THWC.shape[1:3]))
    height, width = (round(side * scale) // 16 * 16 for side in real_THWC.shape[1:3])
    real_THWC = sized(real_THWC, height, width, rng)
    made_THWC = sized(frames_for(generator, INSERT_S, fps), height, width, rng)
    cut = round(start_s * fps)
    mixed_THWC = np.concatenate([real_THWC[:cut], made_THWC, real_THWC[cut:]])
    with path.open("wb") as file:
        encode(mixed_THWC, file, quality=23, fps=fps)
    return len(mixed_THWC) / fps


if __name__ == "__main__":
    main()
