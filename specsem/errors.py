"""Every error that SpecSem raises on purpose, each with a stable code that clients may rely on.

::

    SpecSemError                       internal_error
    ├── MediaError                     this file can't be scored; nothing else is affected
    │   ├── NotFound                   not_found
    │   ├── NotAVideo                  not_a_video
    │   ├── NoVideoStream              no_video_stream
    │   ├── UnsupportedMedia           unsupported
    │   ├── Undecodable                undecodable
    │   ├── Encrypted                  encrypted
    │   ├── TooShort                   too_short
    │   ├── TooSmall                   too_small
    │   ├── LimitsExceeded             limits_exceeded
    │   └── DecodeTimeout              timeout
    ├── ModelError                     model_error
    │   ├── UnknownModel               unknown_model
    │   ├── WeightsMissing             weights_missing
    │   ├── WeightsCorrupt             weights_corrupt
    │   └── DeviceLost                 device_lost
    ├── UnknownPolicy                  unknown_policy
    ├── FileUnusable                   file_unusable
    ├── Refused                        refused
    │   ├── ExportRefused              export_refused
    │   └── PolicyRefused              policy_refused
    ├── client.ServiceError            as the service says (``specsem.client.errors``)
    └── Cancelled                      cancelled
"""

__all__ = [
    "Cancelled",
    "DecodeTimeout",
    "DeviceLost",
    "Encrypted",
    "ExportRefused",
    "FileUnusable",
    "LimitsExceeded",
    "MediaError",
    "ModelError",
    "NoVideoStream",
    "NotAVideo",
    "NotFound",
    "PolicyRefused",
    "Refused",
    "SpecSemError",
    "TooShort",
    "TooSmall",
    "Undecodable",
    "UnknownModel",
    "UnknownPolicy",
    "UnsupportedMedia",
    "WeightsCorrupt",
    "WeightsMissing",
    "media_error",
]


class SpecSemError(Exception):
    """Base of all. ``code`` is stable; ``message`` is one sentence for a person and names no path of ours."""

    code: str = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class MediaError(SpecSemError):
    """This file can't be scored."""

    code = "undecodable"


class NotFound(MediaError):
    """There is no such file, or it can't be read."""

    code = "not_found"


class NotAVideo(MediaError):
    """The content is of no container that we open (the name plays no part)."""

    code = "not_a_video"


class NoVideoStream(MediaError):
    """A media file without moving pictures: sound only, a still, a cover image."""

    code = "no_video_stream"


class UnsupportedMedia(MediaError):
    """A video, but of a codec, pixel format or structure that we refuse."""

    code = "unsupported"


class Undecodable(MediaError):
    """Looks like a video, but no usable frame comes out."""

    code = "undecodable"


class Encrypted(MediaError):
    """Protected by DRM or common encryption."""

    code = "encrypted"


class TooShort(MediaError):
    """Fewer decodable frames than one window needs."""

    code = "too_short"


class TooSmall(MediaError):
    """Frames smaller than what the spectral branch can judge."""

    code = "too_small"


class LimitsExceeded(MediaError):
    """Bytes, pixels, side, streams, frames, duration, rate or memory beyond the configured limits."""

    code = "limits_exceeded"


class DecodeTimeout(MediaError):
    """The decoder ran out of its wall-clock or CPU budget."""

    code = "timeout"


class ModelError(SpecSemError):
    """The model can't be used."""

    code = "model_error"


class UnknownModel(ModelError):
    """No model of this name is registered."""

    code = "unknown_model"


class WeightsMissing(ModelError):
    """The model is registered, but its weights are not on this machine."""

    code = "weights_missing"


class WeightsCorrupt(ModelError):
    """The weights file does not have the registered checksum."""

    code = "weights_corrupt"


class DeviceLost(ModelError):
    """The accelerator failed in a way that this process can't recover from."""

    code = "device_lost"


class UnknownPolicy(SpecSemError):
    """No policy of this name is configured."""

    code = "unknown_policy"


class FileUnusable(SpecSemError):
    """A file beside the videos can't be read, or is of another kind."""

    code = "file_unusable"


class Refused(SpecSemError):
    """What was to be checked does not hold."""

    code = "refused"


class ExportRefused(Refused):
    """What was written in another format does not say what the model says."""

    code = "export_refused"


class PolicyRefused(Refused):
    """A policy that can't be used: it is not written as one, or promises more than the model's calibration
    can support."""

    code = "policy_refused"


class Cancelled(SpecSemError):
    """The caller no longer wants the answer."""

    code = "cancelled"


_MEDIA_ERRORS: list[type[MediaError]] = [MediaError, *MediaError.__subclasses__()]
_MEDIA_BY_CODE = {error.code: error for error in _MEDIA_ERRORS}


def media_error(code: str, message: str) -> MediaError:
    """The error of this ``code``, as it crosses from the decoder's process back to the caller."""
    return _MEDIA_BY_CODE.get(code, Undecodable)(message)
