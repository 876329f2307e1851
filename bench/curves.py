"""Curves of accuracy over steps, several panels beside one another, as one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 92, 28, 38
COLUMNS = 2
FONT = "font-family='system-ui, sans-serif' font-size='11'"


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        label: beside its end.
        points: (step, mean, lowest, highest) over the seeds.
        colour, dash: as SVG writes them.
    """

    label: str
    points: Sequence[tuple[int, float, float, float]]
    colour: str
    dash: str = ""


@dataclass(frozen=True)
class Panel:
    """One net and optimiser."""

    title: str
    curves: Sequence[Curve]


def figure(panels: Sequence[Panel], said: str) -> str:
    """Two panels a row, on white, which a dark page shows as well."""
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' "
        f"height='{height}' role='img' aria-label='{escape(said, quote=True)}'>",
        f"<rect width='{width}' height='{height}' fill='#fff'/>",
    ]
    for i, panel in enumerate(panels):
        x, y = i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT
        parts += [f"<g transform='translate({x},{y})' {FONT}>", *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    last = max(p[0] for c in panel.curves for p in c.points)
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(step: float, value: float) -> tuple[float, float]:
        return LEFT + wide * step / last, TOP + tall * (1 - value)

    parts = [f"<text x='{LEFT}' y='17' font-weight='600' fill='#222'>{escape(panel.title)}</text>"]
    for value in (0, 0.25, 0.5, 0.75, 1):
        y = at(0, value)[1]
        parts.append(
            f"<path d='M{LEFT} {y:.1f}h{wide}' stroke='#ddd'/>"
            f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end' fill='#555'>{value:g}</text>"
        )
    for step in (0, last // 2, last):
        x = at(step, 0)[0]
        parts.append(
            f"<text x='{x:.1f}' y='{TOP + tall + 15}' text-anchor='middle' fill='#555'>{step}"
            "</text>"
        )
    parts.append(
        f"<text x='{LEFT + wide / 2:.1f}' y='{HEIGHT - 8}' text-anchor='middle' fill='#555'>"
        "steps</text>"
    )
    for curve in panel.curves:
        above = [at(s, high) for s, _, _, high in curve.points]
        below = [at(s, low) for s, _, low, _ in curve.points]
        band, line = _path([*above, *below[::-1]]), _path([at(s, m) for s, m, _, _ in curve.points])
        dash = f" stroke-dasharray='{curve.dash}'" if curve.dash else ""
        parts.append(
            f"<path d='{band}Z' fill='{curve.colour}' opacity='.12'/>"
            f"<path d='{line}' fill='none' stroke='{curve.colour}' stroke-width='1.6'{dash}/>"
        )
    return [*parts, *_labels(panel.curves, LEFT + wide + 8)]


def _labels(curves: Sequence[Curve], x: int) -> list[str]:
    """A key in the order of the lines' ends."""
    ordered = sorted(curves, key=lambda c: -c.points[-1][1])
    parts = []
    for i, curve in enumerate(ordered):
        y = TOP + 10 + 17 * i
        dash = f" stroke-dasharray='{curve.dash}'" if curve.dash else ""
        parts.append(
            f"<path d='M{x} {y}h18' stroke='{curve.colour}' stroke-width='2'{dash}/>"
            f"<text x='{x + 22}' y='{y + 4}' fill='#222'>{escape(curve.label)}</text>"
        )
    return parts


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
