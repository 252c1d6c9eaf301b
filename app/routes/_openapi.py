"""What the routes' OpenAPI descriptions have in common."""

from typing import Any

from fastapi import Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, TypeAdapter

from app.problems import CODES, MEDIA_TYPE
from app.schemas import OPTIONS, ProblemDocument, Surface

__all__ = [
    "KEYED",
    "answered_headers",
    "file_body",
    "json_body",
    "operation_id",
    "problems",
    "sent_headers",
    "told_as_problems",
]

KEYED = [
    Security(HTTPBearer(scheme_name="Bearer", auto_error=False)),
    Security(APIKeyHeader(name="X-API-Key", scheme_name="Header", auto_error=False)),
]
"""``dependencies`` of routers that take a key, so that clients are told; who has none is refused before
(``AccessGuard``)."""

_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
FRAMEWORKS_OWN = {"$ref": "#/components/schemas/HTTPValidationError"}


def operation_id(route: APIRoute) -> str:
    """What generated clients call an operation: ``jobs_submit``, ``videos_facts``."""
    group = str(route.tags[0]).lower().replace(" ", "_") if route.tags else "message"
    return f"{group}_{route.name}"


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may refuse with these codes, one example each."""
    found: dict[int | str, dict[str, Any]] = {}
    statuses = [
        (code, status)
        for code in ("unauthorized", "forbidden", "rate_limited", "host_refused", "exposure_refused", *codes)
        for status in (CODES[code].status, CODES[code].also)
        if status is not None
    ]
    for code, status in statuses:
        entry = found.setdefault(
            status,
            {
                "model": ProblemDocument,
                "description": CODES[code].title,
                "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}},
            },
        )
        entry["content"][MEDIA_TYPE]["examples"][code] = {
            "value": {
                "type": f"/docs#error-{code}",
                "title": CODES[code].title,
                "status": status,
                "detail": "One sentence that says what happened.",
                "code": code,
            }
        }
    return found


def told_as_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """The document with the framework's own 422, which never comes, as the problem that comes instead."""
    answer = {"description": CODES["invalid_request"].title, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
    for methods in schema.get("webhooks", {}).values():
        for operation in methods.values():
            operation["responses"].pop("422", None)  # what a receiver answers is its own affair
    for methods in schema["paths"].values():
        for operation in methods.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if content.get("application/json", {}).get("schema") == FRAMEWORKS_OWN:
                operation["responses"]["422"] = answer
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return schema


def file_body(
    *, with_json: dict[str, Any] | None = None, options: bool = False, required: bool = True
) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes a file as a form, maybe with options, or as a raw body."""
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "The video."},
                },
            }
        },
        "video/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    for name, description in OPTIONS.items() if options else ():
        content["multipart/form-data"]["schema"]["properties"][name] = {
            "anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["on", "off"]}],
            "description": description,
        }
    if options:
        schema = TypeAdapter(Surface).json_schema()
        content["multipart/form-data"]["schema"]["properties"]["surface"] = schema
    if with_json is not None:
        content["application/json"] = {"schema": with_json}
    return {"requestBody": {"required": required, "content": content}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its JSON itself, within our limits."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def sent_headers(**descriptions: str) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads these headers itself; underscores stand for hyphens."""
    return {
        "parameters": [
            {
                "name": name.replace("_", "-"),
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": description,
            }
            for name, description in descriptions.items()
        ]
    }


def answered_headers(status: int, summary: str, **descriptions: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that answers with these headers; underscores stand for hyphens."""
    headers = {
        name.replace("_", "-"): {"description": description, "schema": {"type": "string"}}
        for name, description in descriptions.items()
    }
    return {status: {"description": summary, "headers": headers}}
