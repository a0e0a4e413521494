"""
The plot of a fleet: what one run of the gate takes for ever more targets, as SVG.
"""

from __future__ import annotations

import math

from collections.abc import Sequence
from typing import Final


WIDTH, HEIGHT = 620, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 120, 44, 46
FONT: Final = 'font-family="sans-serif" font-size="12" fill="#222222"'
COLORS: Final = {"pending": "#d1495b", "idle": "#0b6e4f"}
TITLES: Final = {"pending": "ten files", "idle": "nothing pending"}
DECADES_X: Final = (1, 4)  # 10 to 10,000 targets
DECADES_Y: Final = (-1, 3)  # 0.1 to 1,000 s

Point = tuple[str, int, float, float]


def to_svg(points: Sequence[Point]) -> str:
    """
    Draw seconds against targets, both on a scale of powers of ten.

    Args:
        points: State, targets, seconds, and MB of memory.
    """
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" {FONT}>One run over schemas: wall time, s</text>',
    ]
    for decade in range(DECADES_Y[0], DECADES_Y[1] + 1):
        y = _y(10.0**decade)
        lines += [
            f'<path d="M{LEFT},{y:.1f} H{WIDTH - RIGHT}" stroke="#dddddd"/>',
            f'<text x="8" y="{y + 4:.1f}" {FONT}>{10.0**decade:g}</text>',
        ]
    lines += [
        f'<text x="{_x(10**decade) - 12:.1f}" y="{HEIGHT - 22}" {FONT}>'
        f"{10**decade:,}</text>"
        for decade in range(DECADES_X[0], DECADES_X[1] + 1)
    ]
    for state, color in COLORS.items():
        places = [(_x(n), _y(s)) for name, n, s, _ in points if name == state]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
        )
        lines += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>'
            for x, y in places
        ]
        if places:
            x, y = places[-1]
            lines.append(
                f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" {FONT}>{TITLES[state]}</text>'
            )
    return "\n".join([*lines, "</svg>\n"])


def _x(count: float) -> float:
    first, last = DECADES_X
    share = (math.log10(count) - first) / (last - first)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(seconds: float) -> float:
    first, last = DECADES_Y
    share = (math.log10(seconds) - first) / (last - first)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
