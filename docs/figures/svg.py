"""A few lines of SVG: the same bytes for the same picture, whatever libraries are installed."""

from __future__ import annotations

from html import escape

INK = "#222222"
PALE = "#767676"
POSITIVE = (213, 94, 0)  # vermilion and blue of Okabe and Ito: told apart by colour-blind readers, and in grey
NEGATIVE = (0, 114, 178)
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def shade(value: float, largest: float) -> str:
    """The colour of a weight: vermilion above zero, blue below, white at zero."""
    colour = POSITIVE if value > 0 else NEGATIVE
    part = min(abs(value) / largest, 1.0) ** 0.7
    return "#" + "".join(f"{round(255 + (channel - 255) * part):02x}" for channel in colour)


def sign(value: float) -> str:
    """The sign of a weight as a character, so that nothing is said by colour alone."""
    return "+" if value > 0 else "−" if value < 0 else "0"


class Picture:
    """An SVG picture on a white ground; coordinates are pixels from the upper left."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="{FONT}" font-size="13" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "none",
        stroke: str = "none",
        thick: float = 1,
    ) -> None:
        """A rectangle."""
        edge = "" if stroke == "none" else f' stroke="{stroke}" stroke-width="{thick:g}"'
        self._lines.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{edge}/>')

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str = INK, dashes: str = "") -> None:
        """A straight line."""
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self._lines.append(f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{colour}"{dashed}/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        anchor: str = "start",
        colour: str = INK,
        size: float = 13,
        bold: bool = False,
    ) -> None:
        """Words; `y` is their base line."""
        kind = "" if anchor == "start" else f' text-anchor="{anchor}"'
        big = "" if size == 13 else f' font-size="{size:g}"'
        weight = ' font-weight="bold"' if bold else ""
        self._lines.append(f'<text x="{x:g}" y="{y:g}" fill="{colour}"{kind}{big}{weight}>{escape(words)}</text>')

    def to_svg(self) -> str:
        """The whole file."""
        return "\n".join([*self._lines, "</svg>", ""])
