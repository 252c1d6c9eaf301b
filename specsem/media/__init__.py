"""From a video file to pixels, safely: :class:`DecoderPool` is the way in.

``read_frames`` is for training, on files that one trusts: it decodes in this process.
"""

from specsem.media.frames import read_frames
from specsem.media.geometry import crop_boxes
from specsem.media.pool import Death, DecoderPool, Scan
from specsem.media.types import (
    Clip,
    Coverage,
    Limits,
    Manifests,
    MediaInfo,
    SamplePlan,
    Trail,
    TrustList,
    Window,
)

__all__ = [
    "Clip",
    "Coverage",
    "Death",
    "DecoderPool",
    "Limits",
    "Manifests",
    "MediaInfo",
    "SamplePlan",
    "Scan",
    "Trail",
    "TrustList",
    "Window",
    "crop_boxes",
    "read_frames",
]
