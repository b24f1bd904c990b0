"""Small plots over time as inline SVG, without a script: drawn once, coloured by the page's style sheet. Pure.

Every number that reaches the markup is formatted here, every text is escaped, so that a result is safe to insert.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from mayfly.units import format_duration

WIDTH, HEIGHT = 440, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 8, 22
_HIGHEST = 1e18
"""An exabyte, or longer than the universe."""
MAX_POINTS = 220
_X_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve. `css` names its colour class; a `limit` is dashed and has no area."""

    name: str
    key: str
    css: str
    kind: Literal["area", "line", "step", "limit"] = "line"


def numbers(samples: Sequence[object], keys: Sequence[str]) -> list[dict[str, float]]:
    """The samples with a time, in its order, thinned to `MAX_POINTS`; what is no finite number is absent."""
    found = []
    for sample in samples:
        if not isinstance(sample, Mapping):  # a line that is JSON, but no object
            continue
        row = {key: value for key in ("t", *keys) if (value := _number(sample.get(key))) is not None}
        if "t" in row and row["t"] >= 0:
            found.append(row)
    found.sort(key=lambda row: row["t"])
    if len(found) <= MAX_POINTS:
        return found
    size = math.ceil(len(found) / MAX_POINTS)
    return [_merged(found[start : start + size], keys) for start in range(0, len(found), size)]


def _number(value: object) -> float | None:
    """None for what nobody can have measured: no number, or one beyond `_HIGHEST`, with which no axis can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _HIGHEST:
        return None
    return float(value)


def _merged(rows: Sequence[Mapping[str, float]], keys: Sequence[str]) -> dict[str, float]:
    """The highest value of each, since a plot that hides peaks would be of no use."""
    merged = {"t": rows[-1]["t"]}
    for key in keys:
        values = [row[key] for row in rows if key in row]
        if values:
            merged[key] = max(values)
    return merged


def chart(
    *,
    title: str,
    samples: Sequence[object],
    series: Sequence[Series],
    text: Callable[[float], str],
    whole: bool = False,
) -> str:
    """A `<figure>` of the series; `text` formats values, `whole` = ticks are integers. "" without two samples."""
    rows = numbers(samples, [curve.key for curve in series])
    drawn = [curve for curve in series if any(row.get(curve.key) for row in rows)]
    if len(rows) < 2 or not any(row["t"] > rows[0]["t"] for row in rows):
        return ""
    end = rows[-1]["t"]
    step = tick_step(max((row.get(curve.key, 0.0) for row in rows for curve in drawn), default=0.0), whole=whole)
    highest = max((row.get(curve.key, 0.0) for row in rows for curve in drawn), default=0.0)
    top = step * max(1, math.ceil(highest / step - 1e-9))

    def x(t: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * t / end

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(value, top) / top

    parts = [_grid(x, y, end=end, top=top, step=step, text=text)]
    parts += [_curve(curve, rows, x, y) for curve in sorted(drawn, key=lambda curve: curve.kind != "area")]
    parts.append(_tooltips(rows, drawn, x, text))
    legend = "".join(
        f'<li><i class="{curve.css}{" dashed" if curve.kind == "limit" else ""}"></i>{escape(curve.name)} '
        f"<b>{escape(text(max(row.get(curve.key, 0.0) for row in rows)))}</b></li>"
        for curve in series
        if curve in drawn or curve.kind == "area" or curve.kind == "step"
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over time">{"".join(parts)}</svg>'
        "</figure>"
    )


def tick_step(highest: float, *, whole: bool) -> float:
    """1, 2 or 5 times a power of ten, for at most five ticks up to `highest`."""
    if highest <= 0:
        return 1.0
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return max(1.0, step) if whole else step


def _grid(
    x: Callable[[float], float],
    y: Callable[[float], float],
    *,
    end: float,
    top: float,
    step: float,
    text: Callable[[float], str],
) -> str:
    lines = []
    for number in range(round(top / step) + 1):
        height = y(number * step)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        lines.append(
            f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{escape(text(number * step))}</text>'
        )
    seconds = next((step for step in _X_STEPS if end / step <= 5), _X_STEPS[-1] * math.ceil(end / _X_STEPS[-1] / 5))
    for number in range(int(end // seconds) + 1):
        place = x(number * seconds)
        anchor = "start" if number == 0 else "end" if place > WIDTH - 30 else "middle"
        label = escape(format_duration(number * seconds))
        lines.append(f'<text x="{place:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>')
    return "".join(lines)


def _curve(
    curve: Series, rows: Sequence[Mapping[str, float]], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    points = [(x(row["t"]), y(row[curve.key])) for row in rows if curve.key in row]
    if curve.kind in ("step", "limit"):
        corners = [(after[0], before[1]) for before, after in itertools.pairwise(points)]
        points = [points[0], *(point for pair in zip(corners, points[1:], strict=True) for point in pair)]
    path = "M" + "L".join(f"{left:.1f} {height:.1f}" for left, height in points)
    dashed = " dashed" if curve.kind == "limit" else ""
    line = f'<path class="curve {curve.css}{dashed}" d="{path}"/>'
    if curve.kind in ("area", "step"):
        floor = f"{y(0):.1f}"
        down = f"L{points[-1][0]:.1f} {floor}L{points[0][0]:.1f} {floor}Z"
        line = f'<path class="area {curve.css}" d="{path}{down}"/>{line}'
    return line


def _tooltips(
    rows: Sequence[Mapping[str, float]],
    series: Sequence[Series],
    x: Callable[[float], float],
    text: Callable[[float], str],
) -> str:
    """An invisible strip a sample, which browsers explain with its title: values without a script."""
    places = [x(row["t"]) for row in rows]
    strips = []
    for number, row in enumerate(rows):
        left = _LEFT if number == 0 else (places[number - 1] + places[number]) / 2
        right = WIDTH - _RIGHT if number == len(rows) - 1 else (places[number] + places[number + 1]) / 2
        said = ", ".join(f"{curve.name} {text(row[curve.key])}" for curve in series if curve.key in row)
        strips.append(
            f'<rect class="strip" x="{left:.1f}" y="{_TOP}" width="{max(0.0, right - left):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}">'
            f"<title>{escape(format_duration(row['t']))}: {escape(said)}</title></rect>"
        )
    return "".join(strips)


def bar(shares: Sequence[tuple[str, float, str]]) -> str:
    """(name, seconds, css) side by side in proportion, as one SVG. "" when all are 0."""
    total = sum(max(0.0, seconds) for _, seconds, _ in shares)
    if total <= 0:
        return ""
    parts, left = [], 0.0
    for name, seconds, css in shares:
        width = 1000 * max(0.0, seconds) / total
        parts.append(
            f'<rect class="share {css}" x="{left:.2f}" y="0" width="{width:.2f}" height="24">'
            f"<title>{escape(name)}: {escape(format_duration(seconds))}</title></rect>"
        )
        left += width
    return (
        f'<svg class="bar" viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )
