"""Runs a connector: `specsem connect NAME`."""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.connectors.aside import Aside, FileSink
from app.connectors.bridge import Bridge
from app.connectors.interface import ConnectorUnusable, Sink, Source
from specsem.client import Client

__all__ = ["KEY_VARIABLE", "connect"]

KEY_VARIABLE = "SPECSEM_KEY"
"""Where a connector finds its key, if in no file. Not among its arguments, which others see."""


def connect(
    kind: str,
    *,
    service: str,
    key_file: Path | None = None,
    in_flight: int = 4,
    once: bool = False,
    out: Path | None = None,
    aside: Path | None = None,
    **given: Any,
) -> int:
    """Work until it is stopped (SIGTERM, Ctrl-C), or ``once``, until nothing comes. How many were settled.

    Raises:
        ConnectorUnusable: what it needs isn't there.
    """
    logging.getLogger("specsem.connect").setLevel(logging.INFO)
    source = SOURCES[kind](aside, **given)
    sink: Sink | None = FileSink(out) if out else None
    with contextlib.closing(source), Client(service, key=_key(key_file)) as client:
        bridge = Bridge(source, sink, client, in_flight=in_flight)
        with _stopped_by_signals(bridge):
            bridge.run(until_idle=once)
    return bridge.settled


def _folder(_aside: Path | None, *, folder: Path, settle_s: float) -> Source:
    from app.connectors.folder import FolderSource  # noqa: PLC0415 - each with what it alone needs

    return FolderSource(folder, settle_s=settle_s)


def _s3(aside: Path | None, *, queue: str) -> Source:
    if aside is None:
        raise ConnectorUnusable("Say where to keep what can't be scored: --aside DIR.")
    try:
        from app.connectors.s3 import S3Source  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConnectorUnusable(f"This connector needs {error.name!r}: the extra `s3`.") from error
    return S3Source(queue, Aside(aside))


SOURCES: dict[str, Callable[..., Source]] = {"folder": _folder, "s3": _s3}


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
