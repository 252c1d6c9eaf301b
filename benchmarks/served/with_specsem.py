"""Our service. Its settings are the defaults, but for the room, the batch and the access log."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model import FIXED_S, ITEM_S, ROOM, asked

from app.main import run
from app.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "app"))
import doubles

WINDOWS_A_CLIP = 2  # of the stand-in for a decoder


class Sleep(doubles.Scorer):
    """``model.Sleep`` in the place of a scorer."""

    def score_windows(self, windows: Sequence[Any]) -> list[Any]:
        time.sleep(FIXED_S + ITEM_S * len(windows) / WINDOWS_A_CLIP)
        return super().score_windows(windows)


def main() -> None:
    """Serve."""
    given = asked()
    settings = Settings(
        port=given.port,
        max_batch_clips=given.batch,
        max_queue_clips=ROOM,
        access_log=False,
        device="cpu",
        data_dir=given.folder,
    )
    if given.model == "real":
        run(settings)
    else:
        engine = doubles.Engine(settings)
        engine.double = Sleep()
        run(settings, engine, doubles.Decoder())


if __name__ == "__main__":
    main()
