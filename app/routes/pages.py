"""The pages ``/`` and ``/review`` and the reference ``/docs``: server-rendered, from our own origin alone.

``/docs`` is our own rendering of ``/openapi.json``. Swagger UI would be 1.5 MB of script from a CDN, or from
a package that has to keep up with it, and it wants inline styles that our content-security policy forbids.
"""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from app.problems import CODES
from app.services import Services
from specsem import __version__

__all__ = ["CHARTS", "STATIC", "router"]

WEB = Path(__file__).parent.parent / "web"
STATIC = WEB / "static"
CHARTS = Path(str(files("chartkick"))) / "django" / "static" / "chartkick"
"""Chart.js, inside a Python package: locked by its hash, in the bill of materials, renewed by ``make lock
UPGRADE=1``. Nothing else of that is used: its Python is for Django and Flask. What else comes in this way
(looked through in 2026-12): Plotly 7.1 is 4.8 MB of script and 40 MB installed; Bokeh 3.9 brings a web
server, 25 MB; dygraphs 0.0.14 is one person's new port; pygal 3.1 (LGPL) draws on the server, with inline
script and style that our content-security policy forbids; leather 0.4 draws there, too, without any hover.
chartkick 1.2.0 (MIT, no dependencies, 1 MB) has Chart.js 4.2.0, which asks for neither `eval` nor inline
styles; that is of 2023, so look whether a newer chartkick has a newer one."""

router = APIRouter(include_in_schema=False)


def _code_spans(text: str) -> Markup:
    """Escaped text with `code` in <code> and blank lines as paragraphs: the little Markdown that we use."""
    paragraphs = [re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(p))) for p in text.split("\n\n")]
    return Markup("".join(f"<p>{p}</p>" for p in paragraphs))  # noqa: S704 - escaped above


_pages = Environment(
    loader=FileSystemLoader(WEB / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_pages.filters["code_spans"] = _code_spans


@router.api_route("/", methods=["GET", "HEAD"])
async def page(parts: Services) -> HTMLResponse:
    """The page for people."""
    settings = parts.settings
    return _rendered(
        "page.html",
        here="/",
        title="camera or generated?",
        needs_key=await parts.keyring.is_closed(),
        max_upload_bytes=settings.max_upload_bytes,
        url_fetch=settings.url_fetch,
        keep_media=settings.keep_media,
        kept=_in_words(settings.job_ttl_s),
    )


@router.api_route("/review", methods=["GET", "HEAD"])
async def review(parts: Services) -> HTMLResponse:
    """The page for operators: answers that wait for a decision."""
    return _rendered("review.html", here="/review", title="review", needs_key=await parts.keyring.is_closed())


def _rendered(template: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_pages.get_template(template).render(version=__version__, **values))


def _in_words(seconds: float) -> str:
    """A duration, rounded to a whole number of its unit."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> HTMLResponse:
    """The reference for programs."""
    schema = request.app.openapi()
    return _rendered(
        "docs.html",
        here="/docs",
        title="reference",
        description=schema["info"]["description"],
        operations=_operations(schema),
        records={
            name: _fields(record)
            for name, record in sorted(schema["components"]["schemas"].items())
            if "properties" in record and not name.startswith("HTTPValidation") and name != "ValidationError"
        },
        codes=CODES,
        base=str(request.base_url).rstrip("/"),
    )


def _operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": operation["operationId"],
            "method": method.upper(),
            "path": path,
            "summary": operation.get("summary", ""),
            "description": operation.get("description", ""),
            "parameters": [
                parameter | {"type": _type_name(parameter["schema"])}
                for parameter in operation.get("parameters", [])
            ],
            "bodies": {
                kind: _type_name(body["schema"])
                for kind, body in operation.get("requestBody", {}).get("content", {}).items()
            },
            "responses": [_response(status, found) for status, found in operation["responses"].items()],
        }
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]


def _response(status: str, found: dict[str, Any]) -> dict[str, Any]:
    content = found.get("content", {})
    json_schema = content.get("application/json", {}).get("schema", {})
    codes = [code for body in content.values() for code in body.get("examples", {})]
    record = "" if codes else _type_name(json_schema) if json_schema else ""
    return {"status": status, "codes": codes, "record": record}


def _fields(record: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"name": name, "type": _type_name(field), "description": field.get("description", "")}
        for name, field in record["properties"].items()
    ]


def _type_name(schema: dict[str, Any]) -> str:  # noqa: PLR0911 - one line a kind
    """A JSON schema in a few words; a record by its name."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_type_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type_name(schema.get('items', {}))}"
    if "properties" in schema and "title" not in schema:
        return "form: " + ", ".join(schema["properties"])
    if schema.get("format") == "binary":
        return "the file"
    return str(schema.get("title") if "properties" in schema else schema.get("type", "anything"))
