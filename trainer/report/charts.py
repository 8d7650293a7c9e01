"""Curves over steps and a map of layers, as inline SVG: no script, and the colours are the page's."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.text_format import brief, count, escape

__all__ = ["STYLE", "Line", "Mark", "heat_map", "line_chart"]

# Width and height of a chart in a column of its own, and of one that takes the whole page.
NARROW, WIDE = (520.0, 230.0), (1124.0, 330.0)
LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 12.0, 34.0
BUCKETS = 160  # points of a drawn curve: more steps are drawn as their mean, over the range from lowest to highest
CELLS = 48  # columns of a map

STYLE = """
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.line-0 { stroke: var(--keep); } .line-1 { stroke: var(--dup); } .line-2 { stroke: var(--rule); }
.line-3 { stroke: var(--read); } .line-4 { stroke: var(--ink); }
.band-0 { fill: var(--keep); opacity: 0.22; } .band-1 { fill: var(--dup); opacity: 0.22; }
.band-2 { fill: var(--rule); opacity: 0.22; } .band-3 { fill: var(--read); opacity: 0.22; }
.band-4 { fill: var(--ink); opacity: 0.22; }
.dot-0 { fill: var(--keep); } .dot-1 { fill: var(--dup); } .dot-2 { fill: var(--rule); } .dot-3 { fill: var(--read); }
.dot-4 { fill: var(--ink); }
.mark-spike { stroke: var(--rule); stroke-width: 1.5; stroke-dasharray: 2 3; }
.mark-turn { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 6 4; }
.heat { fill: var(--keep); }
.key i.line-0 { background: var(--keep); } .key i.line-1 { background: var(--dup); }
.key i.line-2 { background: var(--rule); } .key i.line-3 { background: var(--read); }
.key i.line-4 { background: var(--ink); } .key i.mark-spike { background: var(--rule); }
.key i.mark-turn { background: var(--soft); } .key i { height: 3px; vertical-align: 4px; }
.only-narrow { display: none; }
@media (max-width: 720px) { .only-wide { display: none; } .only-narrow { display: block; }
  .line { stroke-width: 2.4; } }
"""


@dataclass(frozen=True)
class Line:
    """One curve: (step, value), steps rising; values that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: a `spike`, or a `turn` (the run went back, or was resumed)."""

    step: float
    kind: str
    label: str


@dataclass(frozen=True)
class _Bucket:
    first: float
    last: float
    mean: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.first + self.last) / 2


def line_chart(
    name: str, title: str, lines: Sequence[Line], marks: Sequence[Mark] = (), *, wide: bool = False, log: bool = False
) -> str:
    """A chart of curves over steps with its key; a wide one is drawn a second time for narrow screens.

    `name` is unique in the page. A curve of many points is its mean, over a band from lowest to highest. `log` asks
    for a logarithmic axis, which values of 0 and less do not get.
    """
    buckets = [_buckets(line.points) for line in lines]
    if not any(buckets):
        return '<p class="soft">Nothing was measured.</p>'
    if not wide:
        return _key(lines, marks) + _draw(name, title, lines, buckets, marks, NARROW, "chart", log)
    return (
        _key(lines, marks)
        + _draw(name, title, lines, buckets, marks, WIDE, "only-wide", log)
        + _draw(f"{name}-narrow", title, lines, buckets, marks, (NARROW[0], 300.0), "only-narrow", log)
    )


def _buckets(points: Sequence[tuple[float, float]]) -> list[_Bucket]:
    """At most BUCKETS stretches of equally many finite points."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    size = max(1, math.ceil(len(finite) / BUCKETS))
    parts = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [
        _Bucket(
            part[0][0],
            part[-1][0],
            math.fsum(value for _, value in part) / len(part),
            min(value for _, value in part),
            max(value for _, value in part),
        )
        for part in parts
    ]


class _Axes:
    """From steps and values to places in the picture."""

    def __init__(self, buckets: Iterable[_Bucket], size: tuple[float, float], log: bool) -> None:
        every = list(buckets)
        self.width, self.height = size
        self.first, self.last = min(each.first for each in every), max(each.last for each in every)
        low, high = min(each.mean for each in every), max(each.mean for each in every)
        self.log = log and low > 0
        ends = (math.log10(low), math.log10(high)) if self.log else (low, high)
        # A curve that touches the frame, or does not move, still needs room.
        room = (ends[1] - ends[0]) * 0.06 or abs(ends[1]) * 0.1 or 1.0
        # A linear axis begins at 0, or a curve that only trembles would look like a storm.
        self.low = 0.0 if not self.log and low >= 0 else ends[0] - room
        self.high = ends[1] + room

    def x(self, step: float) -> float:
        """Of a step."""
        return LEFT + (step - self.first) / max(self.last - self.first, 1) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of a value; what lies outside of the picture is drawn at its edge."""
        place = math.log10(max(value, 1e-300)) if self.log else value
        share = min(max((place - self.low) / (self.high - self.low), 0.0), 1.0)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def values(self) -> list[float]:
        """Values that get a grid line."""
        if not self.log:
            return _round_values(self.low, self.high, 5)
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        span = self.high - self.low
        leads = (1, 2, 3, 4, 6, 8) if span < 1 else (1, 2, 5) if span < 2.5 else (1,)
        values = [lead * 10.0**power for power in decades for lead in leads]
        shown = [value for value in values if self.low <= math.log10(value) <= self.high]
        return shown if len(shown) > 2 else _round_values(10**self.low, 10**self.high, 5)


def _round_values(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 multiples of 1, 2 or 5 times a power of ten, from low to high."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(lead * power for lead in (1, 2, 5, 10) if (high - low) / (lead * power) <= most)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _draw(
    name: str,
    title: str,
    lines: Sequence[Line],
    buckets: Sequence[Sequence[_Bucket]],
    marks: Sequence[Mark],
    size: tuple[float, float],
    kind: str,
    log: bool,
) -> str:
    axes = _Axes((each for line in buckets for each in line), size, log)
    body = [_grid(axes)]
    for mark in marks:
        if axes.first <= mark.step <= axes.last:
            x = axes.x(mark.step)
            body.append(
                f'<g><title>{escape(mark.label)}</title><line class="mark-{mark.kind}" x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{TOP:g}" y2="{size[1] - BOTTOM:g}"/></g>'
            )
    for number, line in enumerate(buckets):
        body.append(_curve(axes, line, number % 5))
    body.append(_asks(axes, lines, buckets))
    return (
        f'<svg class="{kind}" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" aria-labelledby="{name}-t">'
        f'<title id="{name}-t">{escape(title)}</title>{"".join(body)}</svg>'
    )


def _grid(axes: _Axes) -> str:
    parts = []
    for value in axes.values():
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{axes.width - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7:g}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>')
    for step in _round_values(axes.first, max(axes.last, axes.first + 1), 6 if axes.width > 600 else 4):
        if step == int(step):
            x, y = axes.x(step), axes.height - BOTTOM + 18
            parts.append(f'<text class="tick" x="{x:.1f}" y="{y:g}" text-anchor="middle">{brief(step)}</text>')
    x = axes.width - RIGHT
    parts.append(f'<text class="tick" x="{x:g}" y="{axes.height - 1:g}" text-anchor="end">step</text>')
    return "".join(parts)


def _tick(value: float) -> str:
    return brief(value) if abs(value) >= 0.01 or value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _curve(axes: _Axes, line: Sequence[_Bucket], number: int) -> str:
    points = [(axes.x(each.middle), axes.y(each.mean)) for each in line]
    if len(points) == 1:
        return f'<circle class="dot-{number}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3.5"/>'
    band = ""
    if any(each.high > each.low for each in line):
        edge = [(axes.x(each.middle), axes.y(each.high)) for each in line]
        edge += [(axes.x(each.middle), axes.y(each.low)) for each in reversed(line)]
        band = f'<polygon class="band-{number}" points="{_places(edge)}"/>'
    dots = ""
    if len(points) <= 40:
        dots = "".join(f'<circle class="dot-{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points)
    return f'{band}<polyline class="line line-{number}" points="{_places(points)}"/>{dots}'


def _places(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _asks(axes: _Axes, lines: Sequence[Line], buckets: Sequence[Sequence[_Bucket]]) -> str:
    """Columns without a colour that answer to the pointer, one a part of the longest curve."""
    longest = max(buckets, key=len)
    parts = []
    for each in longest:
        span = (
            f"steps {count(int(each.first))} to {count(int(each.last))}" if each.last > each.first
            else f"step {count(int(each.first))}"
        )  # fmt: skip
        labels = [span]
        for line, own in zip(lines, buckets, strict=True):
            near = min(own, key=lambda one: abs(one.middle - each.middle), default=None)
            if near is not None and near.first <= each.last and near.last >= each.first:
                ends = f" ({near.low:.4g} to {near.high:.4g})" if near.high > near.low else ""
                labels.append(f"{line.name} {near.mean:.4g}{ends}")
        wide = (axes.width - LEFT - RIGHT) / len(longest)
        parts.append(
            f'<rect class="hover" x="{axes.x(each.middle) - wide / 2:.1f}" y="{TOP:g}" width="{wide:.1f}" '
            f'height="{axes.height - TOP - BOTTOM:g}"><title>{escape(chr(10).join(labels))}</title></rect>'
        )
    return "".join(parts)


def _key(lines: Sequence[Line], marks: Sequence[Mark]) -> str:
    items = [(f"line-{number % 5}", line.name) for number, line in enumerate(lines)] if len(lines) > 1 else []
    kinds = {mark.kind for mark in marks}
    items += [("mark-spike", "spike")] if "spike" in kinds else []
    items += [("mark-turn", "gone back, or resumed")] if "turn" in kinds else []
    entries = "".join(f'<li><i class="{kind}"></i>{escape(name)}</li>' for kind, name in items)
    return f'<ul class="key">{entries}</ul>' if entries else ""


def heat_map(name: str, title: str, rows: Sequence[Line]) -> str:
    """A row a layer, time to the right: the darker, the larger, each on one logarithmic scale of the whole map."""
    shown = [
        (row.name, [(step, value) for step, value in row.points if value > 0 and math.isfinite(value)]) for row in rows
    ]
    values = [value for _, points in shown for _, value in points]
    if not values:
        return '<p class="soft">Nothing was measured.</p>'
    steps = sorted({step for _, points in shown for step, _ in points})
    kept = steps[:: math.ceil(len(steps) / CELLS)]
    column = {step: number for number, step in enumerate(kept)}
    low, high = math.log10(min(values)), math.log10(max(values))
    left, tall, wide = 120.0, 18.0, (NARROW[0] - 120.0 - RIGHT) / len(kept)
    body = []
    for number, (label, points) in enumerate(shown):
        y = number * tall
        body.append(f'<text class="tick" x="{left - 7:g}" y="{y + 14:g}" text-anchor="end">{escape(label)}</text>')
        for step, value in points:
            if step in column:
                depth = 0.06 + 0.94 * ((math.log10(value) - low) / (high - low) if high > low else 1.0)
                body.append(
                    f'<rect class="heat" x="{left + column[step] * wide:.1f}" y="{y:g}" width="{wide:.1f}" '
                    f'height="{tall - 1:g}" fill-opacity="{depth:.2f}"><title>{escape(label)}, step '
                    f"{count(int(step))}: {value:.3g}</title></rect>"
                )
    under = len(shown) * tall + 16
    for place, step, anchor in ((left, kept[0], "start"), (NARROW[0] - RIGHT, kept[-1], "end")):
        if anchor == "start" or len(kept) > 1:
            body.append(f'<text class="tick" x="{place:g}" y="{under:g}" text-anchor="{anchor}">{brief(step)}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {NARROW[0]:g} {under + 6:g}" role="img" aria-labelledby="{name}-t">'
        f'<title id="{name}-t">{escape(title)}</title>{"".join(body)}</svg>'
    )
