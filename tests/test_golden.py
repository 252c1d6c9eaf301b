"""The shipped model says today what it said when it was shipped, on any CPU.

The clips are drawn and written without loss, so that no encoder's version is in the way. After new weights:
``python tests/test_golden.py`` writes what they say.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from specsem.media import DecoderPool
from specsem.pipeline import score_file
from specsem.registry import get_model
from specsem.scorer import Scorer
from specsem.synthetic import write_clip

GOLDEN = Path(__file__).parents[1] / "models" / "specsem-compact" / "golden.json"
CLIPS = {"wide": (640, 360), "square": (256, 256), "tall": (360, 480)}


def said() -> dict[str, object]:
    """Score and time line of each clip, through the product's own decoder."""
    scorer = Scorer("specsem-compact", device="cpu")
    clips = {}
    with tempfile.TemporaryDirectory() as folder, DecoderPool(workers=1) as pool:
        for seed, (name, (width, height)) in enumerate(CLIPS.items()):
            path = Path(folder, f"{name}.mkv")
            write_clip(path, width=width, height=height, seconds=1.5, seed=seed, codec="ffv1")
            answer = score_file(path, pool=pool, scorer=scorer)
            clips[name] = {
                "score": round(answer.score, 4),
                "segments": [round(s.score, 4) for s in answer.segments],
                "verdict": answer.verdict,
            }
    return {"sha256": get_model("specsem-compact").sha256, "clips": clips}


def test_the_shipped_model_says_what_it_said() -> None:
    expected, now = json.loads(GOLDEN.read_text(encoding="utf-8")), said()
    assert now["sha256"] == expected["sha256"], "new weights: run `python tests/test_golden.py`"
    assert now["clips"].keys() == expected["clips"].keys()  # type: ignore[attr-defined]
    for name, clip in expected["clips"].items():
        ours = now["clips"][name]  # type: ignore[index]
        assert ours["score"] == pytest.approx(clip["score"], abs=0.01), name
        assert ours["segments"] == pytest.approx(clip["segments"], abs=0.02), name
        assert ours["verdict"] == clip["verdict"], name


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(said(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(GOLDEN.read_text(encoding="utf-8"))
