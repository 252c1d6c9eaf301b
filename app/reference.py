"""What of docs/ is made from the code: ``python -m app.reference`` writes it anew.

The tables of docs/operations.md stand between ``<!-- settings -->`` and ``<!-- /settings -->``, and so for
each name in `TABLES`. docs/openapi.json is what a service answers at ``/openapi.json``.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.observability.metrics import Metrics
from app.problems import CODES
from app.settings import Settings

__all__ = ["DOCUMENT", "OPENAPI", "TABLES", "openapi", "renewed"]

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = DOCS / "operations.md"
OPENAPI = DOCS / "openapi.json"
KINDS = {
    bool: "yes or no",
    int: "whole number",
    float: "number",
    str: "text",
    SecretStr: "text",
    Path: "path",
}


def _settings() -> Iterable[Sequence[str]]:
    yield "variable", "takes", "default", "meaning"
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        yield f"`SPECSEM_{name.upper()}`", _kind(field.annotation), _default(field, default), _meaning(field)


def _kind(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in {Union, UnionType}:
        return _kind(next(kind for kind in get_args(annotation) if kind is not type(None)))
    if get_origin(annotation) is list:
        return "texts, with commas"
    assert isinstance(annotation, type)  # noqa: S101 - what else there is has been looked at
    return KINDS.get(annotation, annotation.__name__)


def _default(field: FieldInfo, default: object) -> str:
    if field.default_factory is not None:
        return "the user's data folder"
    if default is None or default == []:
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`"


def _meaning(field: FieldInfo) -> str:
    assert field.description is not None  # noqa: S101 - a test holds it
    return field.description


def _metrics() -> Iterable[Sequence[str]]:
    yield "metric", "type", "labels", "meaning"
    for metric in Metrics().described:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"`{metric.name}`", metric.kind, labels, metric.text


def _codes() -> Iterable[Sequence[str]]:
    yield "code", "status", "meaning"
    for name, code in CODES.items():
        statuses = [str(status) for status in (code.status, code.also) if status is not None]
        yield f"`{name}`", ", ".join(statuses), code.title


TABLES = {"settings": _settings, "metrics": _metrics, "codes": _codes}


def renewed(text: str) -> str:
    """The document with every table as the code has it now.

    Raises:
        ValueError: a table has no place in it.
    """
    for name, rows in TABLES.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        head, *body = ["| " + " | ".join(row) + " |" for row in rows()]
        table = "\n".join([head, "|" + "---|" * head.count(" | ") + "---|", *body])
        text, found = place.subn(lambda place, table=table: f"{place[1]}{table}\n{place[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"there are {found} places for the table of {name}")
    return text


def openapi() -> str:
    """The OpenAPI document. It depends on no setting."""
    from app.main import create_app  # noqa: PLC0415 - brings all of the service

    return json.dumps(create_app(Settings(host="127.0.0.1")).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    OPENAPI.write_text(openapi(), encoding="utf-8")
