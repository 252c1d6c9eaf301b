"""A report as one HTML file: no script, nothing loaded from anywhere, pictures and signed data inside."""

import base64
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.reports import layout
from specsem.text import visible

__all__ = ["CONTENT_SECURITY_POLICY", "render"]

HERE = Path(__file__).parent
WIDTH, HEIGHT = 720, 160
"""Of the chart, in its own units."""

_CSS = (HERE / "report.css").read_text(encoding="utf-8")
_CSS_HASH = base64.b64encode(sha256(_CSS.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; img-src data:; base-uri 'none'"
)
"""Of the file itself too: whatever stands in it, a browser runs and loads nothing."""


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _bars(chart: layout.Chart) -> list[Mapping[str, float]]:
    """Where the windows stand; a very short one is still seen."""
    scale = WIDTH / chart.span_s
    return [
        {
            "x": round(segment.start_s * scale, 2),
            "y": round(HEIGHT * (1 - segment.score), 2),
            "width": round(max(2.0, (segment.end_s - segment.start_s) * scale), 2),
            "height": round(max(1.0, HEIGHT * segment.score), 2),
        }
        for segment in chart.segments
    ]


_pages = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: visible(value) if type(value) is str else value,  # not Markup: that is ours
)
_pages.filters["data_uri"] = _data_uri
_pages.filters["bars"] = _bars
_pages.filters["kind"] = lambda block: type(block).__name__


def render(page: layout.Page, data: bytes) -> bytes:
    """The file, with the signed ``data`` in it."""
    html = _pages.get_template("report.html.jinja").render(
        page=page,
        css=Markup(_CSS),  # noqa: S704 - our own file
        policy=CONTENT_SECURITY_POLICY,
        data=base64.b64encode(data).decode(),
        width=WIDTH,
        height=HEIGHT,
    )
    return html.encode()
