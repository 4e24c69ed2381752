"""Plots as SVG, written by hand: nothing that draws has to be installed."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from bench.figures import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDTH = 800
LEFT = 210
RIGHT = 160
ROW = 26
TITLE = 44
GAP = 24
CHART = 190
LINE = 14
COLORS = ("#2f6f9f", "#c2703d", "#5b8c5a", "#8a6bab")
OTHER = "#b9c3cc"


@dataclass(frozen=True)
class Bar:
    """A value with the ends of its rounds."""

    label: str
    value: float
    low: float
    high: float
    ours: bool = False


class Drawing:
    """Panels below each other."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._y = 0.0

    def bars(self, title: str, unit: str, bars: Sequence[Bar]) -> None:
        """Add horizontal bars, with the ends of the rounds; ours are coloured."""
        top = self._titled(title)
        most = max(bar.high for bar in bars)

        def x(value: float) -> float:
            return LEFT + (WIDTH - LEFT - RIGHT) * value / most

        for number, bar in enumerate(bars):
            y = top + number * ROW
            color = COLORS[0] if bar.ours else OTHER
            self._text(LEFT - 8, y + 14, bar.label, anchor="end")
            size = f'width="{max(1.0, x(bar.value) - LEFT):.1f}" height="16"'
            self._parts.append(f'<rect x="{LEFT}" y="{y + 3:.0f}" {size} fill="{color}"/>')
            self._line([(x(bar.low), y + 11), (x(bar.high), y + 11)], "#333")
            self._text(x(max(bar.value, bar.high)) + 6, y + 15, shown(bar.value, unit))
        self._y = top + len(bars) * ROW + GAP

    def lines(self, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
        """Add lines over *labels* at equal distances, from zero."""
        top = self._titled(title)
        most = max(value for values in series.values() for value in values)
        step = (WIDTH - LEFT - RIGHT) / max(1, len(labels) - 1)

        def y(value: float) -> float:
            return top + CHART * (1 - value / most)

        for share in (0.0, 0.5, 1.0):
            self._line([(LEFT, y(most * share)), (WIDTH - RIGHT, y(most * share))], "#ddd")
            self._text(LEFT - 8, y(most * share) + 4, shown(round(most * share), "/s"), anchor="end")
        for number, label in enumerate(labels):
            self._text(LEFT + step * number, top + CHART + 18, label, anchor="middle")
        ends: list[float] = []
        for (name, values), color in zip(series.items(), COLORS, strict=False):
            self._line([(LEFT + step * number, y(value)) for number, value in enumerate(values)], color, width=2)
            at = y(values[-1])
            while any(abs(at - other) < LINE for other in ends):
                at += LINE
            ends.append(at)
            self._text(WIDTH - RIGHT + 6, at + 4, name, color=color)
        self._y = top + CHART + 30 + GAP

    def svg(self) -> str:
        """Return the drawing."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._y:.0f}"'
            ' font-family="sans-serif" font-size="12">'
        )
        return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *self._parts, "</svg>", ""])

    def _titled(self, title: str) -> float:
        self._parts.append(f'<text x="12" y="{self._y + 26:.0f}" font-size="15" fill="#111">{escape(title)}</text>')
        return self._y + TITLE

    def _text(self, x: float, y: float, text: str, *, anchor: str = "start", color: str = "#333") -> None:
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>')

    def _line(self, points: Iterable[tuple[float, float]], color: str, *, width: int = 1) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>')
