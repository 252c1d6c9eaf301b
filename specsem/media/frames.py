"""Whole frames at native resolution, for training: the same opener and colours as serving."""

import itertools
import os

import numpy as np
import numpy.typing as npt

from specsem.media.types import Limits, UInt8

__all__ = ["read_frames"]


def read_frames(
    path: str | os.PathLike[str],
    max_frames: int,
    start: int = 0,
    *,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> tuple[UInt8, npt.NDArray[np.float64]]:
    """Up to ``max_frames`` decoded frames from the ``start``-th on, and their times.

    Decodes in this process (:meth:`specsem.media.DecoderPool.read_frames` does not). A crop at
    :func:`specsem.media.crop_boxes` has the same pixels as the one in a window of the same frame. Frames that
    decode with errors are left out; a change of size ends the row.

    Returns: uint8 RGB ``(T, H, W, 3)`` as displayed, contiguous, and float64 ``(T,)`` seconds from the first
    frame; T is 0 if the file has no more than ``start`` frames. Raises a MediaError, FileNotFoundError.
    """
    from specsem.media._decode import iter_rgb  # noqa: PLC0415  a service's own process never maps libav

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pairs = list(itertools.islice(iter_rgb(fd, limits), start, start + max_frames))
    finally:
        os.close(fd)
    if not pairs:
        return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0)
    frames, times = zip(*pairs, strict=True)
    return np.stack(frames), np.array(times, np.float64)
