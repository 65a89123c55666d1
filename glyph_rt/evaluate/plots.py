"""Curves and heatmaps as SVG text: a few rectangles and lines need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from glyph_rt.evaluate.metrics import Interval

COLOURS = ("#0b6e99", "#b5460f", "#3d7a2e", "#7a3d8c", "#8a6d00", "#444444")
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 40, 150, 52  # margins, px


def curves(title: str, axis: str, lines: Mapping[str, Sequence[tuple[float, Interval]]], width: int = 720, height: int = 380) -> str:
    """Lines of (place on the axis, interval), each with a band of its intervals; shares from 0 to 100 % upwards."""
    places = sorted({x for points in lines.values() for x, _ in points})
    span = (places[-1] - places[0]) or 1.0
    inner_width, inner_height = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def at(x: float, share: float) -> str:
        return f"{_LEFT + (x - places[0]) / span * inner_width:.1f},{_TOP + (1 - share) * inner_height:.1f}"

    body = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + (1 - share) * inner_height
        body.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(_text(_LEFT - 8, y + 4, f"{share:.0%}", "end"))
    for x in places[:: max(1, len(places) // 10)]:
        body.append(_text(_LEFT + (x - places[0]) / span * inner_width, height - _BOTTOM + 18, f"{x:g}"))
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        band = [at(x, i.high) for x, i in points] + [at(x, i.low) for x, i in reversed(points)]
        body.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.15"/>')
        body.append(f'<polyline points="{" ".join(at(x, i.share) for x, i in points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, i in points:
            cx, cy = at(x, i.share).split(",")
            body.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"><title>{escape(f"{name}, {axis} {x:g}: {i}")}</title></circle>')
        body.append(_text(width - _RIGHT + 10, _TOP + 14 + 18 * number, name, "start", colour))
    body.append(_text(_LEFT + inner_width / 2, height - 12, axis))
    return _svg(title, width, height, body)


def scatter(title: str, axis: str, groups: Mapping[str, Sequence[tuple[float, Interval, str]]], width: int = 820, height: int = 460) -> str:
    """Points of (place on the axis, interval, what it is), a colour for each group, later ones on top; shares upwards, from the least."""
    points = [point for group in groups.values() for point in group]
    left, right = min(x for x, _, _ in points), max(x for x, _, _ in points)
    span, bottom = (right - left) or 1.0, math.floor(10 * max(0.0, min(i.low for _, i, _ in points))) / 10
    inner_width, inner_height = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (x - left) / span * inner_width

    def down(share: float) -> float:
        return _TOP + (1 - share) / (1 - bottom) * inner_height

    body = []
    for tenth in range(round(10 * bottom), 11):
        body.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{down(tenth / 10):.1f}" y2="{down(tenth / 10):.1f}" stroke="#ddd"/>')
        body.append(_text(_LEFT - 8, down(tenth / 10) + 4, f"{tenth / 10:.0%}", "end"))
    for step in range(6):
        body.append(_text(across(left + span * step / 5), height - _BOTTOM + 18, f"{left + span * step / 5:.3g}"))
    for number, (name, group) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        for x, value, what in group:
            told = escape(f"{what}: {axis} {x:.3g}, {value}")
            place = f'x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{down(value.low):.1f}" y2="{down(value.high):.1f}"'
            body.append(f'<line {place} stroke="{colour}" opacity="0.3"/>')
            dot = f'cx="{across(x):.1f}" cy="{down(value.share):.1f}" r="4" fill="{colour}"'
            body.append(f'<circle {dot} opacity="0.8"><title>{told}</title></circle>')
        body.append(_text(width - _RIGHT + 10, _TOP + 14 + 18 * number, name, "start", colour))
    body.append(_text(_LEFT + inner_width / 2, height - 12, axis))
    return _svg(title, width, height, body)


def heatmap(title: str, across: str, down: str, cells: Mapping[tuple[float, float], Interval]) -> str:
    """A coloured cell for every (place across, place down), red for 0 over yellow to green for 1, with its share written in it."""
    columns, rows = sorted({x for x, _ in cells}), sorted({y for _, y in cells})
    cell_width, cell_height = 72, 36
    width, height = _LEFT + cell_width * len(columns) + 40, _TOP + cell_height * len(rows) + _BOTTOM
    body = []
    for (x, y), value in cells.items():
        left, top = _LEFT + cell_width * columns.index(x), _TOP + cell_height * rows.index(y)
        told = escape(f"{across} {x:g}, {down} {y:g}: {value}")
        body.append(
            f'<rect x="{left}" y="{top}" width="{cell_width}" height="{cell_height}" fill="{_colour(value.share)}" stroke="#fff">'
            f"<title>{told}</title></rect>"
        )
        body.append(_text(left + cell_width / 2, top + cell_height / 2 + 4, f"{value.share:.0%}"))
    for number, x in enumerate(columns):
        body.append(_text(_LEFT + cell_width * (number + 0.5), _TOP + cell_height * len(rows) + 18, f"{x:g}"))
    for number, y in enumerate(rows):
        body.append(_text(_LEFT - 8, _TOP + cell_height * (number + 0.5) + 4, f"{y:g}", "end"))
    body.append(_text(_LEFT + cell_width * len(columns) / 2, height - 12, across))
    body.append(_text(8, _TOP - 8, down, "start"))
    return _svg(title, max(width, 9 * len(title)), height, body)


def _colour(share: float) -> str:
    """Light enough for black text on it, and told apart by brightness too."""
    share = min(1.0, max(0.0, share))
    return f"hsl({120 * share:.0f} 65% {58 + 22 * share:.0f}%)"


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(title: str, width: int, height: int, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    head += 'font-family="sans-serif" font-size="12">'
    back = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join([head, back, _text(width / 2, 18, title), *body, "</svg>"]) + "\n"
