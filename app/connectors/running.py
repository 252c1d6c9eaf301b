"""Runs a connector: `specsem connect NAME`."""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from app.connectors.aside import Aside, FileSink
from app.connectors.bridge import Bridge
from app.connectors.forms import FORMS, FormName
from app.connectors.interface import ConnectorUnusable, Sink, Source
from app.connectors.records import Places
from specsem.client import Client

__all__ = ["KEY_VARIABLE", "client_of", "connect"]

KEY_VARIABLE = "SPECSEM_KEY"
"""Where a connector finds its key, if in no file. Not among its arguments, which others see."""


def connect(
    kind: str,
    *,
    service: str,
    key_file: Path | None = None,
    in_flight: int = 4,
    once: bool = False,
    **given: Any,
) -> int:
    """Work until it is stopped (SIGTERM, Ctrl-C), or ``once``, until nothing comes. How many were settled.

    Raises:
        ConnectorUnusable: what it needs isn't there.
    """
    logging.getLogger("specsem.connect").setLevel(logging.INFO)
    try:
        source, sink = CONNECTORS[kind](**given)
    except ModuleNotFoundError as error:
        raise ConnectorUnusable(
            f"This connector needs {error.name!r}: the extra `{EXTRAS.get(error.name or '', kind)}`."
        ) from error
    with contextlib.ExitStack() as ends:
        ends.callback(source.close)
        if sink is not None:
            ends.callback(sink.close)
        client = ends.enter_context(client_of(service, key_file))
        bridge = Bridge(source, sink, client, in_flight=in_flight)
        ends.enter_context(_stopped_by_signals(bridge))
        bridge.run(until_idle=once)
    return bridge.settled


Ends = tuple[Source, Sink | None]


def _folder(*, folder: Path, settle_s: float, out: Path | None) -> Ends:
    from app.connectors.folder import FolderSource  # noqa: PLC0415 - each with what it alone needs

    return FolderSource(folder, settle_s=settle_s), FileSink(out) if out else None


def _s3(*, queue: str, aside: Path, out: Path | None) -> Ends:
    from app.connectors.objects import ObjectStore  # noqa: PLC0415
    from app.connectors.s3 import S3Source  # noqa: PLC0415

    return S3Source(queue, Aside(aside), ObjectStore()), FileSink(out) if out else None


def _kafka(
    *,
    topic: str,
    brokers: str,
    config: Path | None,
    group: str,
    dead_letters: str | None,
    root: Path | None,
    buckets: Sequence[str],
    to: str | None,
    form: FormName,
) -> Ends:
    from app.connectors.kafka import KafkaSink, KafkaSource, Topics, read_config  # noqa: PLC0415

    topics, places = Topics(brokers, read_config(config) if config else None), _places(root, buckets)
    sink = KafkaSink(topics, to, FORMS[form]) if to else None
    dead_letters = dead_letters or f"{topic}{DEAD_LETTERS}"
    return KafkaSource(topics, topic, group=group, dead_letters=dead_letters, places=places), sink


def _redis(
    *,
    stream: str,
    server: str,
    group: str,
    dead_letters: str | None,
    claim_after_s: float,
    root: Path | None,
    buckets: Sequence[str],
    to: str | None,
    form: FormName,
) -> Ends:
    from app.connectors.redis import RedisSink, RedisSource, connected  # noqa: PLC0415

    places = _places(root, buckets)
    source = RedisSource(
        connected(server),
        stream,
        group=group,
        dead_letters=dead_letters or f"{stream}{DEAD_LETTERS}",
        places=places,
        claim_after_s=claim_after_s,
    )
    return source, RedisSink(connected(server), to, FORMS[form]) if to else None


def _places(root: Path | None, buckets: Sequence[str]) -> Places:
    if not buckets:
        return Places(root)
    from app.connectors.objects import ObjectStore  # noqa: PLC0415

    return Places(root, frozenset(buckets), ObjectStore())


CONNECTORS: dict[str, Callable[..., Ends]] = {
    "folder": _folder,
    "kafka": _kafka,
    "redis": _redis,
    "s3": _s3,
}
DEAD_LETTERS = ".dead-letters"
"""Behind the name of a topic or a stream: where what can't be scored goes."""
EXTRAS = {"boto3": "s3", "botocore": "s3", "confluent_kafka": "kafka", "redis": "redis"}
"""Which of them brings a package."""


def client_of(service: str, key_file: Path | None) -> Client:
    """Of a service, with the key that is in a file or in ``KEY_VARIABLE``.

    Raises:
        ConnectorUnusable: the file can't be read.
    """
    return Client(service, key=_key(key_file))


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(KEY_VARIABLE)
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectorUnusable(f"The key can't be read from {file}.") from error


@contextlib.contextmanager
def _stopped_by_signals(bridge: Bridge) -> Iterator[None]:
    """The first one lets go of what is under way; a second one ends the process."""

    def stop(signum: int, _frame: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        bridge.stop()

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
