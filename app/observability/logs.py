"""Log lines: plain ones for people, JSON for machines, both with the id of the request or job they belong to.

Whatever a client sent, a line stays a line: control characters, bidi marks and lone surrogates are escaped.
"""

import logging
import logging.config
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.settings import Settings

__all__ = ["add_to_lines", "configure", "on_every_line"]

_fields: ContextVar[Mapping[str, str]] = ContextVar("fields of log lines", default=MappingProxyType({}))

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@contextmanager
def on_every_line(**fields: str) -> Iterator[None]:
    """Every line that is logged in this block, or in a task or thread that it starts, has these fields."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def add_to_lines(**fields: str) -> None:
    """The rest of the block around this has these fields too: what is learnt of a request on its way."""
    _fields.set({**_fields.get(), **fields})


def configure(settings: Settings) -> None:
    """Send all lines of this process to standard error, in the form and from the level that is set.

    Other libraries are heard from ``WARNING`` on. Text is the default, with or without a terminal: what a
    line looks like should not depend on how the service was started.
    """
    level = settings.log_level.upper()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"text": {"()": TextFormatter}, "json": {"()": _json_formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": settings.log_format}},
            "loggers": {"specsem": {"level": level}, "uvicorn": {"level": "WARNING"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
        }
    )


class TextFormatter(logging.Formatter):
    """``time LEVEL logger: message (request_id=...)``; a trace follows, set in."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.message = _safe(record.message)
        fields = " ".join(f"{name}={_safe(value)}" for name, value in _fields.get().items())
        return super().formatMessage(record) + (f" ({fields})" if fields else "")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join("  " + _safe(line) for line in super().formatException(ei).split("\n"))


class _WithFields(JsonFormatter):
    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.update(_fields.get())


def _json_formatter() -> logging.Formatter:
    """One object a line; all but ASCII is escaped, and so is every control character."""
    reserved = [*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "color_message"]
    return _WithFields(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        reserved_attrs=reserved,
    )


def _safe(text: str) -> str:
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
