"""Column charts as inline SVG, drawn by hand: no script, and the colours are the page's."""

from collections import Counter
from dataclasses import dataclass
from math import isqrt, log10

from pipeline.report.report_data import Facts
from schemas.text_format import brief, count, escape, plural

__all__ = ["Column", "cluster_chart", "columns_chart", "half_octave", "length_chart", "similarity_chart"]

WIDTH, HEIGHT = 520.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 6.0, 12.0, 34.0


@dataclass
class Column:
    """One column: stacked amounts by colour class, from the bottom up."""

    tick: str  # under the column; empty: none
    label: str  # on pointing at it
    parts: list[tuple[str, int]]

    @property
    def total(self) -> int:
        """Height of the column."""
        return sum(amount for _, amount in self.parts)


def columns_chart(name: str, title: str, axis: str, columns: list[Column]) -> str:
    """A chart of stacked columns with a zero line, a few grid lines and ticks."""
    highest = max((column.total for column in columns), default=0)
    if not highest:
        return '<p class="soft">Nothing to show.</p>'
    ticks = _ticks(highest)
    scale = (HEIGHT - TOP - BOTTOM) / max(ticks[-1], highest)
    step = (WIDTH - LEFT - RIGHT) / len(columns)
    gap = min(3.0, step / 6)
    ground = HEIGHT - BOTTOM
    body = []
    for tick in ticks:
        y = ground - tick * scale
        body.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="tick" x="{LEFT - 7:g}" y="{y + 4:.1f}" text-anchor="end">{brief(tick)}</text>')
    for index, column in enumerate(columns):
        x, y = LEFT + index * step + gap / 2, ground
        body.append(f"<g><title>{escape(column.label)}</title>")
        # The whole height answers to the pointer, or a short column could not be pointed at.
        body.append(f'<rect class="hover" x="{x:.1f}" y="{TOP:g}" width="{step - gap:.1f}" height="{ground - TOP:g}"/>')
        for colour, amount in column.parts:
            if amount:
                tall = max(1.0, amount * scale)
                y -= tall
                body.append(
                    f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" width="{step - gap:.1f}" height="{tall:.1f}"/>'
                )
        body.append("</g>")
        if column.tick:
            body.append(_tick(x + (step - gap) / 2, ground + 16, column.tick))
    body.append(_tick((LEFT + WIDTH) / 2, HEIGHT - 3, axis))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-labelledby="{name}-t">'
        f'<title id="{name}-t">{escape(title)}</title>{"".join(body)}</svg>'
    )


def _tick(x: float, y: float, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def length_chart(facts: Facts) -> str:
    """Documents by words, kept under dropped, two columns an octave."""
    both = facts.words_kept + facts.words_dropped
    if not both:
        return '<p class="soft">No document was measured.</p>'
    columns = []
    for half in range(min(both), max(both) + 1):
        kept, dropped = facts.words_kept[half], facts.words_dropped[half]
        low, high = half_octave(half), half_octave(half + 1) - 1
        if high < low:
            continue  # no whole number lies between 2^0.5 and 2
        columns.append(
            Column(
                brief(low) if half % 4 == 0 else "",
                f"{count(low)} to {count(high)} words: {count(kept)} kept, {count(dropped)} dropped",
                [("keep", kept), ("gone", dropped)],
            )
        )
    return columns_chart("lengths", "Documents by number of words, kept and dropped", "words", columns)


def half_octave(half: int) -> int:
    """The smallest number of words in a column: 0 (column -1), 1, 2, 2, 3, 4, 6, 8, 12, ..."""
    return isqrt((1 << half) - 1) + 1 if half > 0 else half + 1


def cluster_chart(facts: Facts) -> str:
    """Clusters of two and more documents by size, in octaves from 5 on."""
    sizes: Counter[tuple[int, int]] = Counter()
    for size, clusters in facts.cluster_sizes.items():
        if size > 1:
            sizes[_size_class(size)] += clusters
    if not sizes:
        return '<p class="soft">No two documents were alike.</p>'
    columns = []
    for low, high in _size_classes(max(sizes)[0]):
        label = str(low) if low == high else f"{brief(low)}\u2013{brief(high)}"
        clusters = sizes[low, high]
        columns.append(Column(label, f"{label} documents: {plural(clusters, 'cluster')}", [("dup", clusters)]))
    return columns_chart("clusters", "Clusters of duplicates by size", "documents in a cluster", columns)


def _size_class(size: int) -> tuple[int, int]:
    if size < 5:
        return size, size
    low = 1 << ((size - 1).bit_length() - 1)
    return low + 1, 2 * low


def _size_classes(last: int) -> list[tuple[int, int]]:
    classes, size = [], 2
    while size <= last:
        classes.append(_size_class(size))
        size = classes[-1][1] + 1
    return classes


def similarity_chart(facts: Facts) -> str:
    """Near duplicates by their similarity to the verified neighbour, one column a percent."""
    if not facts.similarities:
        return '<p class="soft">No near duplicates.</p>'
    low = min(facts.similarities) // 5 * 5
    columns = [
        Column(
            f"{percent / 100:.2f}" if percent % 5 == 0 else "",
            f"similarity {percent / 100:.2f}: {plural(facts.similarities[percent], 'document')}",
            [("dup", facts.similarities[percent])],
        )
        for percent in range(low, 101)
    ]
    return columns_chart(
        "similarities", "Near duplicates by similarity", "similarity to the nearest verified duplicate", columns
    )


def _ticks(highest: int) -> list[int]:
    """0 and at most five round numbers up to just above the highest."""
    power = 10 ** int(log10(highest))
    step = next(step for step in (power // 5, power // 2, power, 2 * power, 5 * power) if step and highest / step <= 4)
    return list(range(0, highest + step, step))
