"""Records of a stream (Kafka, Redis): each is a JSON object that says where a video is.

One of ``url``, ``path`` and ``bucket`` with ``key`` (and ``version``); ``name`` and ``about`` travel along,
and other members are left alone. Who may write to the stream is not trusted with more than that: paths lead
below one folder, keys into buckets that were named, addresses where the service fetches from.
"""

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.connectors.interface import ConnectorUnusable, Delivery, Unfit

if TYPE_CHECKING:  # brings boto3, of the extra `s3`
    from app.connectors.objects import ObjectStore

__all__ = ["Places", "VideoRecord", "delivery_of"]

MAX_RECORD_BYTES = 1_000_000
"""As brokers have it by default; more says nothing of where a video is."""


class VideoRecord(BaseModel):
    """What such a record says."""

    model_config = ConfigDict(frozen=True)

    url: str | None = Field(None, pattern=r"^https?://", max_length=8192)
    path: str | None = Field(None, min_length=1, max_length=4096, description="Below the connector's root.")
    bucket: str | None = Field(None, min_length=1, max_length=255)
    key: str | None = Field(None, min_length=1, max_length=1024)
    version: str | None = None
    name: str = Field("", max_length=255, description="For people.")
    about: dict[str, Any] = Field(default_factory=dict, description="Goes along into the outcome.")

    @model_validator(mode="after")
    def _in_one_place(self) -> Self:
        if (self.bucket is None) != (self.key is None):
            raise ValueError("`bucket` and `key` go together")
        if sum(place is not None for place in (self.url, self.path, self.key)) != 1:
            raise ValueError("one of `url`, `path` and `bucket` with `key` is needed")
        return self

    @property
    def label(self) -> str:
        """What people call it. The query of an address may be a secret."""
        if self.name:
            return self.name
        if self.url is not None:
            return self.url.partition("?")[0].partition("#")[0]
        return self.path if self.path is not None else f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Places:
    """Where records may lead, beside the addresses that the service fetches from."""

    root: Path | None = None
    """Paths are below this folder."""
    buckets: Collection[str] = ()
    objects: "ObjectStore | None" = None
    """Reads them; needed where there are ``buckets``."""

    def __post_init__(self) -> None:
        """Raises ``ConnectorUnusable``: there is no such folder."""
        if self.root is not None and not self.root.is_dir():
            raise ConnectorUnusable(f"There is no folder {self.root}.")

    def way_to(self, record: VideoRecord) -> Callable[[Path], Path | str]:
        """As ``Delivery.fetch``. Raises ``Unfit``: records may not lead there."""
        if record.url is not None:
            return partial(_address, record.url)
        if record.path is not None:
            if self.root is None:
                raise Unfit("Paths are not taken here.")
            return partial(_file, self.root, record.path)
        if self.objects is None or record.bucket is None or record.bucket not in self.buckets:
            raise Unfit("Objects of this bucket are not taken here.")
        return partial(self.objects.fetch, record.bucket, record.key or "", record.version)

    def close(self) -> None:
        """Let go of connections."""
        if self.objects is not None:
            self.objects.close()


def delivery_of(identity: tuple[str | int, ...], value: bytes, places: Places, handle: Any) -> Delivery:
    """What a record asks for. ``identity`` is its place in the stream: the same whenever it is delivered.

    One that asks for nothing that can be had is a delivery too: its ``fetch`` says why.
    """
    stream = str(identity[0])
    delivery_id = f"{stream}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}"
    name = ":".join(map(str, identity[1:]))
    try:
        if len(value) > MAX_RECORD_BYTES:
            raise Unfit(f"The record is larger than {MAX_RECORD_BYTES} bytes.")
        record = VideoRecord.model_validate_json(value)
        return Delivery(delivery_id, record.label, places.way_to(record), record.about, handle)
    except ValidationError as error:
        return Delivery(delivery_id, name, partial(_refuse, _what_is_wrong(error)), handle=handle)
    except Unfit as error:
        return Delivery(delivery_id, name, partial(_refuse, error.message), handle=handle)


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"The record does not say where a video is: {where + ': ' if where else ''}{first['msg']}."


def _refuse(reason: str, _folder: Path) -> Path:
    raise Unfit(reason)


def _address(url: str, _folder: Path) -> str:
    return url


def _file(root: Path, path: str, _folder: Path) -> Path:
    try:
        found = (root / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # not there, a NUL in it, links in a circle
        found = root
    # The same words for what is elsewhere and what is nowhere: a record finds out nothing of this machine.
    if not found.is_relative_to(root.resolve()) or not found.is_file():
        raise Unfit("There is no such file.")
    return found
