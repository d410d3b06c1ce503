"""Shapes of a drawing, written as SVG text or as PNG (needs matplotlib). Lengths are in pixels, and y points down."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rewright.core.errors import InputError
from rewright.core.storage import refuse_special

__all__ = ["Curve", "Drawing", "Line", "Rect", "Shape", "Text", "Words"]

Words = list[tuple[str, str]]
"""(text, colour) pairs of one line."""

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPACE = re.compile(r"[\t\n\r]")
_PIXELS_PER_INCH = 100
_PIXEL_RATIO = 2
"""PNG pixels per drawing pixel."""
_MAX_PNG_SIZE = 1 << 16
"""Exclusive limit of matplotlib for the width and height of an image, in pixels."""


class Rect(NamedTuple):
    """A rectangle with rounded corners. `label` is shown as a tooltip (SVG)."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    radius: float = 0
    stroke: str | None = None
    dashed: bool = False
    opacity: float = 1.0
    label: str = ""


class Line(NamedTuple):
    """A straight, thin line."""

    x: float
    y: float
    end_x: float
    end_y: float
    stroke: str


class Curve(NamedTuple):
    """A curve from left to right with horizontal tangents at both ends."""

    x: float
    y: float
    end_x: float
    end_y: float
    stroke: str
    width: float
    opacity: float


class Text(NamedTuple):
    """One line of text; `y` is its baseline."""

    x: float
    y: float
    words: Words
    anchor: Literal["start", "middle", "end"] = "start"
    size: int = 12
    bold: bool = False
    mono: bool = False


Shape = Rect | Line | Curve | Text


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a white background. Later shapes are on top."""

    title: str
    width: float
    height: float
    shapes: list[Shape]

    def svg(self) -> str:
        """Return the drawing as SVG text, which can be embedded in an HTML page."""
        size = f'width="{self.width:.0f}" height="{self.height:.0f}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" {size} '
                'font-family="system-ui, sans-serif" font-size="12">',
                f"<title>{_escape(self.title)}</title>",
                f'<rect {size} fill="#ffffff"/>',
                *map(_svg, self.shapes),
                "</svg>",
            ]
        )

    def save(self, path: Path) -> None:
        """Write the drawing as SVG or PNG, depending on the suffix of `path`. Raises InputError."""
        kind = path.suffix.lower()
        if kind not in (".svg", ".png"):
            raise InputError(f"{path}: unknown kind of picture, expected .svg or .png")
        refuse_special(path)
        try:
            if kind == ".svg":
                path.write_text(self.svg(), encoding="utf-8")
            else:
                self._png(path)
        except OSError as problem:
            raise InputError(f"{path}: cannot be written: {problem.strerror or problem}") from None

    def _png(self, path: Path) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise InputError(f"{path}: a PNG needs matplotlib: pip install 'rewright[view]', or .svg") from None
        if max(self.width, self.height) * _PIXEL_RATIO >= _MAX_PNG_SIZE:
            raise InputError(f"{path}: {self.height:.0f} pixels are too high for a PNG, expected .svg")
        size = (self.width / _PIXELS_PER_INCH, self.height / _PIXELS_PER_INCH)
        figure = Figure(figsize=size, dpi=_PIXELS_PER_INCH * _PIXEL_RATIO, facecolor="#ffffff")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            for layer, shape in enumerate(self.shapes):
                _paint(axes, shape, layer)
            canvas.print_png(path)


def _svg(shape: Shape) -> str:
    """Return one shape as an SVG element."""
    if isinstance(shape, Rect):
        stroke = "" if shape.stroke is None else f' stroke="{shape.stroke}"'
        stroke += ' stroke-dasharray="4 3"' if shape.dashed else ""
        opacity = "" if shape.opacity == 1.0 else f' fill-opacity="{shape.opacity}"'
        label = f"<title>{_escape(shape.label)}</title>"
        end = f">{label}</rect>" if shape.label else "/>"
        return (
            f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" '
            f'rx="{shape.radius}" fill="{shape.fill}"{opacity}{stroke}{end}'
        )
    if isinstance(shape, Line):
        coordinates = f'x1="{shape.x:.1f}" y1="{shape.y:.1f}" x2="{shape.end_x:.1f}" y2="{shape.end_y:.1f}"'
        return f'<line {coordinates} stroke="{shape.stroke}"/>'
    if isinstance(shape, Curve):
        middle = (shape.x + shape.end_x) / 2
        return (
            f'<path d="M {shape.x:.1f} {shape.y:.1f} C {middle:.1f} {shape.y:.1f}, {middle:.1f} {shape.end_y:.1f}, '
            f'{shape.end_x:.1f} {shape.end_y:.1f}" fill="none" stroke="{shape.stroke}" '
            f'stroke-width="{shape.width:.2f}" stroke-opacity="{shape.opacity:.2f}"/>'
        )
    family = ' font-family="ui-monospace, DejaVu Sans Mono, monospace"' if shape.mono else ""
    weight = ' font-weight="600"' if shape.bold else ""
    spans = "".join(f'<tspan fill="{colour}">{_escape(word)}</tspan>' for word, colour in shape.words)
    return (
        f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}" xml:space="preserve"{family} '
        f'font-size="{shape.size}"{weight}>{spans}</text>'
    )


def _paint(axes: Any, shape: Shape, layer: int) -> None:
    """Draw one shape with matplotlib, where line widths and font sizes are in points."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path as Outline

    point = 72 / _PIXELS_PER_INCH
    if isinstance(shape, Rect):
        axes.add_patch(
            FancyBboxPatch(
                (shape.x, shape.y),
                shape.width,
                shape.height,
                boxstyle=f"round,pad=0,rounding_size={min(shape.radius, shape.width / 2, shape.height / 2)}",
                facecolor=(shape.fill, shape.opacity),
                edgecolor=shape.stroke or "none",
                linewidth=point,
                linestyle=(0, (4, 3)) if shape.dashed else "solid",
                zorder=layer,
            )
        )
    elif isinstance(shape, Line):
        ends = ([shape.x, shape.end_x], [shape.y, shape.end_y])
        axes.add_line(Line2D(*ends, color=shape.stroke, linewidth=point, zorder=layer))
    elif isinstance(shape, Curve):
        middle = (shape.x + shape.end_x) / 2
        corners = [(shape.x, shape.y), (middle, shape.y), (middle, shape.end_y), (shape.end_x, shape.end_y)]
        outline = Outline(corners, [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4])
        colour = (shape.stroke, shape.opacity)
        axes.add_patch(PathPatch(outline, fc="none", edgecolor=colour, linewidth=shape.width * point, zorder=layer))
    else:
        _write(axes, shape, layer, point)


def _write(axes: Any, shape: Text, layer: int, point: float) -> None:
    """Draw a line of text piece by piece, because a matplotlib text has one colour."""
    look = {
        "fontsize": shape.size * point,
        "fontfamily": "monospace" if shape.mono else "sans-serif",
        "fontweight": "bold" if shape.bold else "normal",
        "parse_math": False,
        "zorder": layer,
    }

    def width(word: str) -> float:
        """Return the width in pixels. Measured between two bars, because trailing blanks have no extent."""
        extents = []
        for probe in (f"|{word}|", "||"):
            artist = axes.text(0, 0, probe, **look)
            extents.append(artist.get_window_extent().width / _PIXEL_RATIO)
            artist.remove()
        return float(extents[0] - extents[1])

    words = [(_SPACE.sub(" ", _NOT_XML.sub("\ufffd", word)), colour) for word, colour in shape.words]
    widths = [width(word) for word, _ in words] if len(words) > 1 or shape.anchor != "start" else [0.0]
    x = shape.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor] * sum(widths)
    for (word, colour), length in zip(words, widths, strict=True):
        axes.text(x, shape.y, word, color=colour, va="baseline", **look)
        x += length


def _escape(text: str) -> str:
    """Escape text for XML and replace characters that XML does not allow."""
    cleaned = _NOT_XML.sub("\ufffd", text)
    return cleaned.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
