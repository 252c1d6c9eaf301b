"""Every setting and limit of the service, each with a ``SPECSEM_`` variable of the same name.

Lists are written with commas: ``SPECSEM_ALLOWED_HOSTS=specsem.example.org,10.0.0.7``.
"""

import functools
import ipaddress
from pathlib import Path
from typing import Annotated, Any

from platformdirs import user_data_path
from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from specsem.errors import SpecSemError
from specsem.media import Limits

__all__ = ["ExposureRefused", "Settings", "check_exposure", "is_loopback_address", "is_loopback_name"]

GIB = 1024**3
MIN_KEY_CHARACTERS = 16


class ExposureRefused(SpecSemError):
    """The service would be reachable from other machines without a key."""

    code = "exposure_refused"


def _split(value: Any) -> Any:
    """``a, b`` -> ``["a", "b"]``; anything but text passes through."""
    return [item for part in value.split(",") if (item := part.strip())] if isinstance(value, str) else value


class Settings(BaseSettings):
    """Settings from the environment, or from keyword arguments (the command line's options)."""

    model_config = SettingsConfigDict(env_prefix="SPECSEM_", extra="ignore", frozen=True)

    # Where it listens, and who may ask.
    host: str = Field("127.0.0.1", description="Address to listen on. Any but loopback needs a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Names under which a proxy or other machines reach the service (Host header)."
    )
    api_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)] = Field(
        [], description=f"Keys that open /v1, each at least {MIN_KEY_CHARACTERS} characters."
    )
    api_keys_file: Path | None = Field(
        None, description="File of further keys, one a line; # begins a comment."
    )
    access_log: bool = Field(True, description="One line a request on standard error.")

    # What it runs.
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("specsem", appauthor=False),
        description="Where uploads are kept. Private to the user (mode 0700).",
    )
    model: str = Field("specsem-compact", description="Registered model that gives the scores.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    policy: str = Field("default", description="Which thresholds make a verdict of a score.")

    # Uploads and the store.
    max_upload_bytes: int = Field(4 * GIB, gt=0, description="Largest video accepted, in bytes.")
    max_stored_bytes: int = Field(
        20 * GIB, gt=0, description="All stored and arriving videos together, in bytes."
    )
    upload_ttl_s: float = Field(
        24 * 3600.0, gt=0, description="A stored video is removed after so many seconds."
    )
    upload_idle_s: float = Field(
        30.0, gt=0, description="An upload that sends nothing for so long is refused."
    )
    upload_timeout_s: float = Field(
        3600.0, gt=0, description="An upload must be complete after so many seconds."
    )

    # Work in flight.
    max_queue_clips: int = Field(32, gt=0, description="Requests with a video in flight before 503.")
    max_queue_bytes: int = Field(8 * GIB, gt=0, description="Bytes of arriving videos before 503.")
    max_batch_clips: int = Field(8, gt=0, description="Clips in one forward pass.")
    request_timeout_s: float = Field(600.0, gt=0, description="Decoding, waiting and scoring of one request.")
    shutdown_grace_s: int = Field(
        10, ge=0, description="Requests and jobs in flight may take so many seconds to finish at a stop."
    )
    max_connections: int = Field(512, gt=0, description="Open connections before 503.")

    # Jobs: what outlives its request.
    database_url: SecretStr | None = Field(
        None, description="Where jobs are: postgresql://... Without it, SQLite in the data folder."
    )
    job_slots: int = Field(
        1, ge=0, description="Jobs at a time in the service itself; 0 leaves all to `specsem worker`."
    )
    job_lease_s: float = Field(
        30.0, gt=0, description="A worker that is not heard of for so long has lost its jobs to others."
    )
    job_max_attempts: int = Field(3, gt=0, description="A job that ends its worker so often is failed.")
    job_timeout_s: float = Field(4 * 3600.0, gt=0, description="Decoding, waiting and scoring of one job.")
    job_ttl_s: float = Field(
        7 * 24 * 3600.0, gt=0, description="Answers of jobs are removed after so many seconds."
    )
    keep_media: bool = Field(
        False, description="Keep the file of a finished job for as long as its answer; else it goes at once."
    )
    max_queued_jobs: int = Field(10_000, gt=0, description="Jobs that wait before 503.")
    long_video_s: float = Field(
        600.0, gt=0, description="/v1/score makes a job of what is longer, unless `Prefer: wait` is sent."
    )

    # The decoder: what one file may cost (specsem.media.Limits).
    decode_workers: int = Field(2, gt=0, description="Decoder processes.")
    decode_wall_s: float = Field(
        30.0, gt=0, description="Seconds for one file; when thorough, a minute of video."
    )
    decode_cpu_s: float = Field(60.0, gt=0, description="CPU seconds for one file.")
    decode_memory_bytes: int = Field(2 * GIB, gt=0, description="Address space of a decoder process.")
    max_side: int = Field(8192, gt=0, description="Largest side of a frame in pixels.")
    max_pixels: int = Field(8192 * 4352, gt=0, description="Largest frame in pixels.")
    max_frames: int = Field(1_000_000, gt=0, description="Most frames of a file.")
    max_duration_s: float = Field(6 * 3600.0, gt=0, description="Longest file in seconds.")

    @model_validator(mode="after")
    def _keys_are_strong(self) -> "Settings":
        if any(len(key.get_secret_value()) < MIN_KEY_CHARACTERS for key in self.api_keys):
            raise ValueError(f"a key in SPECSEM_API_KEYS is shorter than {MIN_KEY_CHARACTERS} characters")
        return self

    @property
    def database_address(self) -> str | None:
        """The address of the database of jobs with its password; None: SQLite in the data folder."""
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def limits(self) -> Limits:
        """The same limits as the decoder knows them."""
        return Limits(
            max_bytes=self.max_upload_bytes,
            max_side=self.max_side,
            max_pixels=self.max_pixels,
            max_frames=self.max_frames,
            max_duration_s=self.max_duration_s,
            wall_s=self.decode_wall_s,
            cpu_s=self.decode_cpu_s,
            memory_bytes=self.decode_memory_bytes,
        )

    def keys(self) -> list[bytes]:
        """All configured keys, those of the file included.

        Raises:
            ExposureRefused: the key file can't be read or holds a weak key.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ExposureRefused(
                    f"The file of keys (SPECSEM_API_KEYS_FILE) can't be read: {type(error).__name__}."
                ) from error
            found = [key for line in lines if (key := line.partition("#")[0].strip())]
            if any(len(key) < MIN_KEY_CHARACTERS for key in found):
                raise ExposureRefused(
                    f"SPECSEM_API_KEYS_FILE holds a key under {MIN_KEY_CHARACTERS} characters."
                )
            keys += found
        return [key.encode() for key in keys]


@functools.lru_cache(maxsize=64)  # asked at every request, of the same few
def is_loopback_address(address: str) -> bool:
    """Whether this IP address (no name) never leaves the machine; mapped IPv6 counts as what it maps."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address means this machine, by what it says and never by a look-up."""
    name = host.strip("[]").rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost") or is_loopback_address(name)


def check_exposure(settings: Settings) -> None:
    """Refuse to listen on anything but loopback without a key.

    Raises:
        ExposureRefused: with a sentence that says what to do.
    """
    if is_loopback_name(settings.host) or settings.keys():
        return
    raise ExposureRefused(
        f"Listening on {settings.host} would let every machine that can reach it use this service. "
        "Set SPECSEM_API_KEYS to one or more keys first (for example: "
        'SPECSEM_API_KEYS="$(openssl rand -hex 32)"), or listen on 127.0.0.1.'
    )
