"""A report as PDF, with the signed data as an attachment."""

from datetime import datetime
from functools import singledispatch
from io import BytesIO
from pathlib import Path
from typing import Final

import fontpkg_noto_sans
from fpdf import FPDF
from fpdf.enums import TableBordersLayout, XPos, YPos
from fpdf.fonts import FontFace, TTFFont

from app.reports import layout
from specsem.text import visible

__all__ = ["render"]

FONT: Final = "NotoSans"
FONT_FILE = Path(fontpkg_noto_sans.ROOT) / "files" / "NotoSans[wdth,wght].ttf"
"""As it lies there it is the regular one. To make a bold one of it takes ten seconds: headings are larger."""
INK, FAINT, LINE = (26, 29, 33), (91, 99, 109), (213, 217, 222)
GROUND, BAR = (243, 245, 247), (59, 110, 168)
COLOURS = {"generated": (164, 38, 44), "authentic": (31, 107, 58), "inconclusive": (122, 82, 0)}
CHART_MM = 34.0
LABEL_MM = 24.0
SHOT_MM = 56.0
LINE_MM = 0.48
"""Height of a line for each point of its letters."""
SHOTS_A_ROW = 3


class _Paper(FPDF):
    """The sheets."""

    def __init__(self, page: layout.Page, issued_at: datetime) -> None:
        super().__init__(format="A4")
        self._page = page
        self.set_creation_date(issued_at)
        self.set_title(f"SpecSem report {page.job}")
        self.set_creator(f"SpecSem {page.version}")
        self.set_lang("en")
        self.add_font(FONT, fname=FONT_FILE)
        font = self.fonts[FONT.lower()]
        assert isinstance(font, TTFFont)  # noqa: S101 - it comes from a file
        self._drawn = frozenset(font.cmap)
        self.set_margins(18, 16)
        self.set_auto_page_break(True, margin=18)
        self.pen(9.5)
        self.add_page()

    def footer(self) -> None:
        """Which report it is, and the sheet's number."""
        self.set_y(-12)
        self.pen(8, FAINT)
        text = f"SpecSem {self._page.version}   job {self._page.job}   sheet {self.page_no()} of {{nb}}"
        self.cell(0, text=self.safe(text), align="C")

    def pen(self, size: float, colour: tuple[int, int, int] = INK) -> None:
        """Size in points."""
        self.set_font(FONT, size=size)
        self.set_text_color(*colour)

    def safe(self, text: str) -> str:
        """What the font can't draw, and what would steer the direction of writing, written out."""
        return "".join(
            char if ord(char) in self._drawn else char.encode("unicode_escape").decode()
            for char in visible(text)
        )

    def paragraph(self, text: str, size: float = 9.5, colour: tuple[int, int, int] = INK) -> None:
        """Text across the sheet."""
        self.pen(size, colour)
        self.multi_cell(0, size * LINE_MM, self.safe(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L")
        self.ln(1)

    def room(self, height_mm: float) -> None:
        """Begin a new sheet if there is less room than that on this one."""
        if self.will_page_break(height_mm):
            self.add_page()


def render(page: layout.Page, data: bytes, issued_at: datetime) -> bytes:
    """The file, with the signed ``data`` as its attachment. The same input gives the same bytes."""
    paper = _Paper(page, issued_at)
    paper.embed_file(
        bytes=data,
        basename=f"specsem-report-{page.job}.json",
        desc="The signed data of this report",
        mime_type="application/json",
        creation_date=issued_at,
        modification_date=issued_at,
    )
    headline = page.headline
    paper.paragraph(f"SpecSem report, issued {page.issued}", colour=FAINT)
    paper.paragraph(headline.word, 22, COLOURS[headline.verdict])
    paper.paragraph(f"score {headline.score}", 12)
    for line in headline.lines:
        paper.paragraph(line)
    for section in page.sections:
        opens_with_chart = isinstance(section.blocks[0], layout.Chart)  # which would leave its title behind
        paper.room(26 + CHART_MM * opens_with_chart)
        paper.ln(4)
        paper.start_section(section.title)
        paper.paragraph(section.title, 13)
        for block in section.blocks:
            _draw(block, paper)
    return bytes(paper.output())


@singledispatch
def _draw(block: layout.Block, _paper: _Paper) -> None:
    raise TypeError(f"nobody knows how to draw {type(block).__name__}")


@_draw.register
def _(block: layout.Sentences, paper: _Paper) -> None:
    for line in block.lines:
        paper.paragraph(line)


@_draw.register
def _(block: layout.Facts, paper: _Paper) -> None:
    paper.pen(9)
    with paper.table(
        col_widths=(28, 72),
        borders_layout=TableBordersLayout.NONE,
        first_row_as_headings=False,
        line_height=9 * LINE_MM,
        padding=0.4,
        text_align="L",
        align="L",
    ) as table:
        for name, value in block.rows:
            row = table.row()
            row.cell(paper.safe(name), style=FontFace(color=FAINT))
            row.cell(paper.safe(value))
    paper.ln(1)


@_draw.register
def _(block: layout.Table, paper: _Paper) -> None:
    paper.pen(8.5)
    paper.set_draw_color(*LINE)
    with paper.table(
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(color=FAINT),
        line_height=8.5 * LINE_MM,
        padding=0.6,
        text_align="L",
        align="L",
    ) as table:
        for cells in (block.head, *block.rows):
            row = table.row()
            for cell in cells:
                row.cell(paper.safe(cell))
    paper.ln(1)


@_draw.register
def _(block: layout.Chart, paper: _Paper) -> None:
    paper.room(CHART_MM + 8)
    left, top, width = paper.l_margin, paper.get_y() + 2, paper.epw - LABEL_MM
    with paper.local_context(fill_color=GROUND):
        paper.rect(left, top, width, CHART_MM, style="F")
    scale = width / block.span_s
    with paper.local_context(fill_color=BAR):
        for segment in block.segments:
            height = max(0.3, CHART_MM * segment.score)
            long = max(0.5, (segment.end_s - segment.start_s) * scale)
            paper.rect(left + segment.start_s * scale, top + CHART_MM - height, long, height, style="F")
    paper.pen(7, FAINT)
    for value, name in block.levels:
        level = top + CHART_MM * (1 - value)
        with paper.local_context(draw_color=INK, dash_pattern={"dash": 1.5, "gap": 1}, line_width=0.2):
            paper.line(left, level, left + width, level)
        paper.set_xy(left + width, level - 1.5)
        paper.cell(LABEL_MM, 3, name)
    paper.set_xy(left, top + CHART_MM + 0.5)
    paper.cell(width / 2, 4, "0 s")
    paper.cell(width / 2, 4, f"{block.duration_s:.1f} s", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


@_draw.register
def _(block: layout.Gallery, paper: _Paper) -> None:
    for first in range(0, len(block.shots), SHOTS_A_ROW):
        shots = block.shots[first : first + SHOTS_A_ROW]
        tallest = max(min(1.0, shot.height / max(1, shot.width)) for shot in shots) * SHOT_MM
        paper.room(tallest + 16)
        top, bottom = paper.get_y() + 1, 0.0
        for column, shot in enumerate(shots):
            left = paper.l_margin + column * (SHOT_MM + 3)
            caption = paper.safe(shot.caption)
            paper.image(
                BytesIO(shot.png), left, top, SHOT_MM, tallest, keep_aspect_ratio=True, alt_text=caption
            )
            paper.set_xy(left, top + tallest + 1)
            paper.pen(7.5, FAINT)
            paper.multi_cell(SHOT_MM, text=caption, align="L")
            bottom = max(bottom, paper.get_y())
        paper.set_xy(paper.l_margin, bottom + 2)
