"""The little SVG that the pictures need: no scripts, no fonts or files from elsewhere.

Colours are classes, so that the reader's colour scheme decides them; the picture paints its own
ground, since a page may follow another scheme than the reader's system. Figures have two decimals
at most, so that the same run gives the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aprverify.views.xml_text import xml_text

_LIGHT = {
    "ground": "#ffffff", "ink": "#1f2328", "faint": "#59636e", "line": "#d1d9e0",
    "good": "#1a7f37", "bad": "#cf222e", "open": "#9a6700", "none": "#818b98", "mark": "#0969da",
    "other": "#8250df",
}  # fmt: skip
_DARK = {
    "ground": "#0d1117", "ink": "#f0f6fc", "faint": "#9198a1", "line": "#3d444d",
    "good": "#3fb950", "bad": "#f85149", "open": "#d29922", "none": "#656c76", "mark": "#4493f8",
    "other": "#ab7df8",
}  # fmt: skip
CHARACTER = 6.1
"""The width of a character of 10 px monospaced text, in px, rounded up."""


def document(width: float, height: float, title: str, about: str, parts: Sequence[str]) -> str:
    """A picture of that size in px. `about` is what it shows, for those who cannot see it."""
    box = f'width="{figure(width)}" height="{figure(height)}"'
    view = f'viewBox="0 0 {figure(width)} {figure(height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} {view} role="img" aria-labelledby="t d">',
        f'<title id="t">{text_of(title)}</title>',
        f'<desc id="d">{text_of(about)}</desc>',
        f"<style>{_style()}</style>",
        '<rect class="ground" width="100%" height="100%"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def label(
    x: float, y: float, text: str, *, anchor: str = "start", kind: str = "ink", turn: float = 0
) -> str:
    """A text with its baseline at y; `turn` in degrees around its own point."""
    turned = f' transform="rotate({figure(turn)} {figure(x)} {figure(y)})"' if turn else ""
    at = f'x="{figure(x)}" y="{figure(y)}"'
    return f'<text class="{kind}" {at} text-anchor="{anchor}"{turned}>{text_of(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "line") -> str:
    """A straight line."""
    ends = f'x1="{figure(x1)}" y1="{figure(y1)}" x2="{figure(x2)}" y2="{figure(y2)}"'
    return f'<line class="{kind}-stroke" {ends}/>'


def polyline(places: Sequence[tuple[float, float]], kind: str, says: str) -> str:
    """A line through several places; `says` shows where the pointer rests on it."""
    points = " ".join(f"{figure(x)},{figure(y)}" for x, y in places)
    told = f"<title>{text_of(says)}</title>"
    return f'<polyline class="{kind}-stroke" points="{points}">{told}</polyline>'


def dot(x: float, y: float, kind: str, says: str, radius: float = 3) -> str:
    """A filled circle; `says` shows where the pointer rests on it."""
    at = f'cx="{figure(x)}" cy="{figure(y)}" r="{figure(radius)}"'
    return f'<circle class="{kind}" {at}><title>{text_of(says)}</title></circle>'


def cell(x: float, y: float, size: float, kind: str, letter: str, says: str) -> str:
    """A square with a letter, so that colour is never all that tells two of them apart."""
    at = f'x="{figure(x)}" y="{figure(y)}" width="{figure(size)}" height="{figure(size)}"'
    middle = label(x + size / 2, y + size - 3, letter, anchor="middle", kind="ground")
    told = f"<title>{text_of(says)}</title>"
    return f'<g>{told}<rect class="{kind}" {at} rx="2"/>{middle}</g>'


def text_of(text: str) -> str:
    """Text that is text in XML, whatever a trainer said."""
    return escape(xml_text(text), quote=True)


def figure(value: float) -> str:
    """A coordinate: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def clipped(text: str, width: int) -> str:
    """At most `width` characters, its end kept: ids differ there."""
    return text if len(text) <= width else f"…{text[-width + 1 :]}"


def _style() -> str:
    font = "text{font:10px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
    dark = f"@media (prefers-color-scheme:dark){{{_colours(_DARK)}}}"
    return f"{font}{_colours(_LIGHT)}{dark}"


def _colours(scheme: dict[str, str]) -> str:
    return "".join(
        f".{name}{{fill:{colour}}}.{name}-stroke{{stroke:{colour};fill:none}}"
        for name, colour in scheme.items()
    )
