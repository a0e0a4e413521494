"""
The plot: cost against the number of migrations and against the round-trip time, as SVG.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bench.cases import Result
from bench.report import wall


WIDTH, HEIGHT = 620, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 228, 44, 46
HEAD: Final = 54
LABEL_GAP: Final = 13
STEPS: Final = (1, 2, 5)  # of each power of ten
NAMESPACE: Final = "http://www.w3.org/2000/svg"
FONT: Final = 'font-family="sans-serif" font-size="12" fill="#222222"'
TITLE: Final = "The gate beside its peers: whole processes, median wall time"
# Distinct without colour too: the name stands at the end of each line.
COLORS: Final = (
    *("#0b6e4f", "#1f9e77", "#555555", "#888888", "#aaaaaa", "#d1495b", "#8f2d56"),
    *("#e07a1f", "#2e6fbb", "#6a51a3", "#b8860b", "#008b8b", "#c2569b", "#7a5230"),
    *("#3d5a80", "#9c6644", "#5f0f40", "#386641"),
)
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One diagram: which cases, and what its axes say."""

    title: str
    prefix: str
    x_label: str
    x: Callable[[Result], float]
    belongs: Callable[[Result], bool]
    log_x: bool


PANELS: Final = (
    Panel(
        title="Small migrations applied, no latency",
        prefix="apply-",
        x_label="migrations",
        x=lambda result: result.count,
        belongs=lambda result: not result.rtt_ms,
        log_x=True,
    ),
    Panel(
        title="200 small migrations applied",
        prefix="apply-200",
        x_label="round-trip time, ms",
        x=lambda result: result.rtt_ms,
        belongs=lambda result: result.count == 200,  # noqa: PLR2004 -- the title's
        log_x=False,
    ),
    Panel(
        title="Nothing pending, no latency",
        prefix="noop-",
        x_label="migrations applied before",
        x=lambda result: result.count,
        belongs=lambda result: not result.rtt_ms,
        log_x=True,
    ),
    Panel(
        title="Nothing pending, 50 applied before",
        prefix="noop-50",
        x_label="round-trip time, ms",
        x=lambda result: result.rtt_ms,
        belongs=lambda result: result.count == 50,  # noqa: PLR2004 -- the title's
        log_x=False,
    ),
)


def to_svg(results: Sequence[Result], machine: Mapping[str, str]) -> str:
    """Return the whole picture."""
    names = list(dict.fromkeys(row.peer for result in results for row in result.rows))
    colors = {name: COLORS[n % len(COLORS)] for n, name in enumerate(names)}
    parts = []
    for number, panel in enumerate(PANELS):
        x, y = number % 2 * WIDTH, HEAD + number // 2 * HEIGHT
        parts += [f'<g transform="translate({x} {y})">']
        parts += [*draw(panel, collect(panel, results), colors), "</g>"]
    wide, high = 2 * WIDTH, HEAD + 2 * HEIGHT
    caption = f"{machine['date']} · {machine['processor']} · {machine['server']}"
    return "\n".join(
        [
            f'<svg xmlns="{NAMESPACE}" viewBox="0 0 {wide} {high}" {FONT}>',
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
            f'<text x="16" y="24" font-size="17">{TITLE}</text>',
            f'<text x="16" y="43" fill="#666666">{escape(caption)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def collect(panel: Panel, results: Sequence[Result]) -> dict[str, Points]:
    """Return each peer's points, of those that have more than one."""
    lines: dict[str, Points] = {}
    for result in results:
        if result.case.startswith(panel.prefix) and panel.belongs(result):
            for row in result.rows:
                if row.samples:
                    point = (float(panel.x(result)), wall(row))
                    lines.setdefault(row.peer, []).append(point)
    return {name: sorted(line) for name, line in lines.items() if len(line) > 1}


def draw(
    panel: Panel, lines: Mapping[str, Points], colors: Mapping[str, str]
) -> Iterator[str]:
    """Yield the elements of one diagram."""
    yield f'<text x="{LEFT}" y="24" font-size="14">{escape(panel.title)}</text>'
    if not lines:
        yield f'<text x="{LEFT}" y="60" fill="#888888">not measured</text>'
        return
    xs = sorted({x for line in lines.values() for x, _ in line})
    times = [y for line in lines.values() for _, y in line]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    across = scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT, log=panel.log_x)
    up = scale(10.0**low, 10.0**high, HEIGHT - BOTTOM, TOP, log=True)
    for power in range(low, high):
        for digit in STEPS:
            yield from draw_level(digit * 10.0**power, up(digit * 10.0**power))
    yield from draw_level(10.0**high, up(10.0**high))
    for x in xs:
        yield (
            f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 17}" '
            f'text-anchor="middle">{x:,.0f}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield (
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" '
        f'fill="#666666">{panel.x_label}</text>'
    )
    ends = spread({name: up(line[-1][1]) for name, line in lines.items()})
    for name, line in lines.items():
        places = [(across(x), up(y)) for x, y in line]
        yield from draw_line(name, places, ends[name], colors[name])


def draw_level(value: float, y: float) -> Iterator[str]:
    """Yield a horizontal line and its time."""
    text = f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"
    yield (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
        'stroke="#dddddd"/>'
    )
    yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def draw_line(
    name: str, places: Sequence[tuple[float, float]], label_y: float, color: str
) -> Iterator[str]:
    """Yield a peer's line, its points and its name."""
    width, weight = (2.6, "bold") if name.startswith("gate") else (1.3, "normal")
    dash = ' stroke-dasharray="4 3"' if name.startswith("floor") else ""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield (
        f'<polyline points="{points}" fill="none" stroke="{color}" '
        f'stroke-width="{width}"{dash}/>'
    )
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width}" fill="{color}"/>'
    end_x, end_y = places[-1]
    label_x = WIDTH - RIGHT + 16
    yield (
        f'<line x1="{end_x:.1f}" y1="{end_y:.1f}" x2="{label_x - 3}" '
        f'y2="{label_y:.1f}" stroke="{color}" stroke-width="0.5"/>'
    )
    yield (
        f'<text x="{label_x}" y="{label_y + 4:.1f}" font-size="11" '
        f'font-weight="{weight}" fill="{color}">{escape(name)}</text>'
    )


def scale(
    low: float, high: float, start: float, end: float, *, log: bool
) -> Callable[[float], float]:
    """Return what turns a value into a place."""

    def place(value: float) -> float:
        if log:
            part = math.log(value / low) / math.log(high / low)
        else:
            part = (value - low) / (high - low)
        return start + part * (end - start)

    return place


def spread(places: Mapping[str, float]) -> dict[str, float]:
    """Move labels apart that would stand on each other."""
    order = sorted(places, key=lambda name: places[name])
    moved: dict[str, float] = {}
    for name in order:
        above = max(moved.values(), default=-math.inf)
        moved[name] = max(places[name], above + LABEL_GAP)
    overflow = max(moved.values()) - (HEIGHT - BOTTOM)
    if overflow > 0:
        below = math.inf
        for name in reversed(order):
            moved[name] = min(moved[name], below - LABEL_GAP, HEIGHT - BOTTOM)
            below = moved[name]
    return moved
