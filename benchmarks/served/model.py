"""The one model that all three servers serve."""

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from specsem.media import DecoderPool

__all__ = ["FIXED_S", "ITEM_S", "MODELS", "ROOM", "Asked", "Model", "asked"]

FIXED_S, ITEM_S = 0.005, 0.0005
ROOM = 128
"""Requests in flight that each server takes: more than the benchmark's clients send."""


class Model(Protocol):
    """What is served."""

    slow_decode: bool

    def decode(self, content: bytes) -> Any: ...
    def score(self, clips: Sequence[Any]) -> list[float]: ...


class Sleep:
    """Takes 5 ms and 0.5 ms an item and lets go of the GIL meanwhile, as a GPU's does; the score is read from
    the first bytes of the file."""

    slow_decode = False

    def decode(self, content: bytes) -> float:
        found = re.search(rb"SCORE:([\d.]+)", content[:200])
        return float(found[1]) if found else 0.5

    def score(self, clips: Sequence[float]) -> list[float]:
        time.sleep(FIXED_S + ITEM_S * len(clips))
        return list(clips)


class Real:
    """`specsem-compact`, and a file that is decoded in the decoder's process, as the service does it."""

    slow_decode = True

    def __init__(self) -> None:
        from specsem.scorer import Scorer  # noqa: PLC0415 - torch only where it is asked for

        self.scorer = Scorer("specsem-compact", device="cpu")
        self.scorer.warm_up()
        self.pool = DecoderPool(workers=2)

    def decode(self, content: bytes) -> Any:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(content)
            file.flush()
            return self.pool.decode(Path(file.name), self.scorer.plan)

    def score(self, clips: Sequence[Any]) -> list[float]:
        return [verdict.score for verdict in self.scorer.score_batch(clips)]


MODELS: dict[str, Callable[[], Model]] = {"sleep": Sleep, "real": Real}


class Asked(argparse.Namespace):
    """How a server is to be started."""

    model: str
    port: int
    batch: int
    wait_s: float
    folder: Path


def asked() -> Asked:
    """The command line that all three have."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="Most items of a batch.")
    parser.add_argument("--wait-s", type=float, default=0.001, help="How long a batch is filled (not ours).")
    parser.add_argument("--folder", type=Path, required=True, help="For what it writes.")
    return parser.parse_args(namespace=Asked())
