"""What crosses between the decoder, the scorer and the service. NumPy only: the decoder's child imports this.

Shape letters: T frames of a window, N native crops of a frame, H height, W width, C = 3 colours (RGB).
"""

import math
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Clip",
    "Coverage",
    "Limits",
    "Manifests",
    "MediaInfo",
    "SamplePlan",
    "Trail",
    "TrustList",
    "Window",
]

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. Judged on decoded data; a header only serves to refuse early."""

    max_bytes: int = 4 * 1024**3
    max_side: int = 8192
    min_side: int = 64
    max_pixels: int = 8192 * 4352
    max_streams: int = 64
    max_frames: int = 1_000_000
    max_duration_s: float = 6 * 3600.0
    max_fps: float = 1000.0
    wall_s: float = 30.0
    """Wall-clock seconds for one file in window mode; ``--thorough`` allows this much per minute of video."""
    cpu_s: float = 60.0
    memory_bytes: int = 2 * 1024**3
    """Address space of a decoder process, beyond what its own code maps."""
    c2pa_s: float = 2.0
    """Wall-clock seconds for the signed manifests, once the file is decoded; then they count as failed."""


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Which pixels a model wants of a file. Equal plans on equal files give equal pixels."""

    windows: int = 4
    """K, at most so many windows spread over the file (ignored when ``thorough``)."""
    frames: int = 8
    """T, consecutive decoded frames of a window."""
    crop_side: int = 224
    """Side of the native-resolution crops in pixels; 0: none. A smaller frame is mirrored up to it."""
    crops: int = 2
    """N, crops of each frame, at the same places in all frames of a window."""
    frame_side: int = 224
    """Side of the resized whole frame; 0: none."""
    frame_fit: str = "squash"
    """``squash``: whole frame, aspect ratio not kept. ``crop``: short side to ``frame_side``, centre crop."""
    thorough: bool = False
    """Scan the whole time line, one window after the other without a gap."""

    @property
    def crops_shape(self) -> tuple[int, int, int, int, int]:
        """``T, N, H, W, C`` of a window's crops."""
        return self.frames, self.crops if self.crop_side else 0, self.crop_side, self.crop_side, 3

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """``T, H, W, C`` of a window's resized frames."""
        return self.frames, self.frame_side, self.frame_side, 3

    @property
    def window_bytes(self) -> int:
        """Bytes of the pixels of one window."""
        return math.prod(self.crops_shape) + math.prod(self.frames_shape)

    def window_arrays(self, buffer: Any, offset: int = 0) -> tuple[UInt8, UInt8]:
        """A window's crops and frames as views of ``buffer``, one behind the other."""
        frames_at = offset + math.prod(self.crops_shape)
        return (
            np.ndarray(self.crops_shape, np.uint8, buffer, offset),
            np.ndarray(self.frames_shape, np.uint8, buffer, frames_at),
        )


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Facts of the file as displayed (rotation applied); ``duration_s`` and ``fps`` come from pts."""

    container: str
    codec: str
    width: int
    height: int
    fps: float | None
    duration_s: float
    frames_scored: int = 0
    pixel_format: str = ""
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the time line was looked at. ``fraction`` is 0..1."""

    analysed_s: float
    duration_s: float
    fraction: float


@dataclass(frozen=True, slots=True)
class Trail:
    """How the file was written, by its own word: the facts of :class:`specsem.result.Trail`."""

    muxer: str | None = None
    encoder: str | None = None
    created_at: str | None = None
    """ISO 8601."""
    brands: list[str] = field(default_factory=list)
    profile: str | None = None
    pixel_format: str | None = None
    gop: str | None = None
    keyframe_interval: float | None = None
    edit_lists: int = 0
    tracks: list[str] = field(default_factory=list)
    trailing_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TrustList:
    """Whom the operator trusts to sign."""

    name: str
    date: date
    anchors: bytes
    """Certificates in PEM."""
    sha256: str
    """Hexadecimal, of the anchors."""

    def __str__(self) -> str:
        return f"{self.name} of {self.date}"


@dataclass(frozen=True, slots=True)
class Manifests:
    """What the file's signed manifests (C2PA) claim."""

    status: str
    """As in :class:`specsem.result.C2pa`."""
    reason: str = ""
    """Why it is `failed`, `invalid` or `not_checked`, in a few words."""
    signer: str | None = None
    signed_at: str | None = None
    """ISO 8601."""
    claim_generator: str | None = None
    actions: list[str] = field(default_factory=list)
    """Distinct, the oldest manifest's first."""
    digital_source_types: list[str] = field(default_factory=list)
    """Likewise; last parts of their addresses."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """T frames in a row, ready for the model. The arrays are read-only views and may share memory.

    ``crops_TNHWC``: uint8 RGB at native resolution, H = W = ``SamplePlan.crop_side``.
    ``frames_THWC``: uint8 RGB, the resized whole frame, H = W = ``SamplePlan.frame_side``.
    ``boxes_N4``: x0, y0, x1, y1 of each crop as fractions of the whole frame (may pass 0..1 where mirrored).
    """

    start_s: float
    """pts of the first frame in seconds from the first frame of the file, never negative."""
    end_s: float
    """pts of the last frame plus its display time."""
    crops_TNHWC: UInt8
    frames_THWC: UInt8
    boxes_N4: Float32


@dataclass(frozen=True, slots=True)
class Clip:
    """A decoded file."""

    info: MediaInfo
    windows: list[Window]
    coverage: Coverage
    warnings: list[str] = field(default_factory=list)
    """Sorted, of this stable list:

    ``concealed_errors``: no window was free of decoding errors; concealed frames were taken;
    ``hdr``: PQ or HLG, converted without tone mapping;
    ``header_duration_wrong``: the container claims another length than its frames have;
    ``brief``: fewer frames than a window; it was filled up by playing them back and forth;
    ``interlaced``: decoded as it is, fields interleaved;
    ``irregular_timestamps``: times that repeat or run backwards were put right;
    ``mirrored``: the display matrix mirrors the picture (applied);
    ``mirrored_border``: the frame is smaller than a crop, its border was filled by reflection;
    ``no_timestamps``: times are counted at the nominal rate;
    ``not_seekable``: read through in packets instead of sought;
    ``partly_corrupt``: some packets or frames could not be read or decoded and were left out;
    ``several_video_streams``: one was chosen (default first, then the largest);
    ``size_changed``: frames changed size on the way; each window has one size;
    ``unusual_colour``: a matrix without known coefficients, converted as BT.601 or BT.709 by size.
    """
    decode_ms: float = 0.0
    trail: Trail | None = None
    manifests: Manifests | None = None
    """None: nobody looked."""
    manifests_ms: float = 0.0
    trust_list: TrustList | None = None
    """The one that the signer was looked up in."""

    @property
    def read_ms(self) -> float:
        """Milliseconds of everything before the model."""
        return self.decode_ms + self.manifests_ms
