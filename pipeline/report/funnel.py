"""The funnel as a picture: a stream of records from which every stage turns a part away.

Drawn twice from one description, flowing to the right for wide screens and downward for narrow ones, because text in a
scaled picture would be too small to read on a phone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.report.report_data import Drop, Facts
from schemas.text_format import count, escape, plural, share

__all__ = ["Step", "funnel_picture", "steps"]

# Stage of the ledger: (its name, how it drops, what is left after it, colour class).
STAGES = {
    "read": ("Reading", "while reading", "pages and texts", "read"),
    "extract": ("Extraction", "in extraction", "texts", "read"),
    "measure": ("Measuring", "not measured", "measured documents", "read"),
    "rules": ("Rules", "by rules", "good documents", "rule"),
    "exact": ("Exact copies", "exact copies", "different texts", "dup"),
    "near": ("Near duplicates", "near duplicates", "unlike texts", "dup"),
    "split": ("Split", "between splits", "on one side", "dup"),
    "edits": ("Edits", "emptied by edits", "not empty", "rule"),
}
NAMED_RULES = 4  # under each turning
CURVE = 0.5523  # a quarter circle as a Bezier curve
RADIUS = 14.0
LINE = 17.0  # height of a line of text
Place = Callable[[float, float], str]


@dataclass
class Step:
    """A stage that dropped something."""

    title: str
    how: str
    left: str  # what the survivors are called
    colour: str
    dropped: int
    survivors: int
    reasons: list[tuple[str, int]]


def steps(facts: Facts) -> list[Step]:
    """The stages that dropped anything, in the order of the work; the last survivors are the kept documents."""
    result, survivors = [], facts.rows
    known = [*STAGES, *sorted({drop.stage for drop in facts.drops} - set(STAGES))]
    for stage in known:
        drops = [drop for drop in facts.drops if drop.stage == stage]
        dropped = sum(drop.count for drop in drops)
        if not dropped:
            continue
        survivors -= dropped
        title, how, left, colour = STAGES.get(stage, (stage, stage, "left", "rule"))
        result.append(Step(title, how, left, colour, dropped, survivors, _reasons(drops)))
    assert survivors == facts.kept, f"the funnel ends with {survivors}, the ledger keeps {facts.kept}"
    return result


def _reasons(drops: list[Drop]) -> list[tuple[str, int]]:
    """The strongest rules by name, the others as one line."""
    ordered = sorted((drop for drop in drops if drop.count), key=lambda drop: (-drop.count, drop.rule))
    if len(ordered) == 1 and drops[0].stage in ("exact", "near"):
        return []  # it would only say the same again
    named = ordered if len(ordered) <= NAMED_RULES + 1 else ordered[:NAMED_RULES]
    lines = [(drop.rule.partition(".")[2].replace("_", " ") or drop.rule, drop.count) for drop in named]
    rest = ordered[len(named) :]
    if rest:
        lines.append((plural(len(rest), "other rule"), sum(drop.count for drop in rest)))
    return lines


def funnel_picture(facts: Facts) -> str:
    """Both drawings and the same figures as a table for those who cannot see them."""
    flow = steps(facts)
    summary = f"Of {count(facts.rows)} records read, {count(facts.kept)} documents are kept. " + " ".join(
        f"{step.title}: {count(step.dropped)} dropped, {count(step.survivors)} left." for step in flow
    )
    return (
        f'<figure class="funnel">{_wide(facts, flow, summary)}{_narrow(facts, flow, summary)}'
        f"<figcaption>{escape(_caption(facts, flow))}</figcaption></figure>"
    )


def _caption(facts: Facts, flow: list[Step]) -> str:
    if not flow:
        return "Nothing was dropped."
    worst = max(flow, key=lambda step: step.dropped)
    return (
        f"The thickness of the stream is the number of records. {worst.title} turned away the most: "
        f"{share(worst.dropped, facts.rows)} of what was read."
    )


def _svg(name: str, width: float, height: float, summary: str, body: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">Funnel from records read to documents kept</title>'
        f'<desc id="{name}-d">{escape(summary)}</desc>{body}</svg>'
    )


def _wide(facts: Facts, flow: list[Step], summary: str) -> str:
    """Flowing to the right; what is dropped bends down to its reasons."""
    width, top, thickness = 1120.0, 64.0, 170.0
    column = min(300.0, (width - 150) / max(1, len(flow)))
    place: Place = lambda along, across: f"{along:.1f} {top + across:.1f}"  # noqa: E731
    bend_end = thickness + RADIUS + 44
    bends, text, along, left = [], [_survivors_wide(0, facts.rows, "records read", facts, top)], 0.0, facts.rows
    edge = [(0.0, _thick(left, facts.rows, thickness))]
    for index, step in enumerate(flow):
        before, after = _thick(left, facts.rows, thickness), _thick(step.survivors, facts.rows, thickness)
        turn = max(along + 84, along + column - 26 - max(0.0, before - after - 60))
        bends.append(_bend(place, "funnel-wide", index, step.colour, turn, after, before, bend_end))
        edge += [(turn, before), (turn, after)]
        text.append(_reasons_text(turn + RADIUS - 2, top + bend_end + 20, step, 30))
        along, left = along + column, step.survivors
        name = "documents kept" if index == len(flow) - 1 else step.left
        text.append(_survivors_wide(along, step.survivors, name, facts, top))
    lines = max((len(step.reasons) for step in flow), default=0)
    body = [*bends, _stream(place, edge, along + 70), *text]
    return _svg("funnel-wide", width, top + bend_end + 36 + LINE * lines, summary, "".join(body))


def _narrow(facts: Facts, flow: list[Step], summary: str) -> str:
    """Flowing down; what is dropped bends right to its reasons."""
    width, thickness = 380.0, 130.0
    place: Place = lambda along, across: f"{across:.1f} {along:.1f}"  # noqa: E731
    bend_end = thickness + RADIUS + 16
    column = bend_end + 8
    bends, along, left = [], 6.0, facts.rows
    edge = [(along, _thick(left, facts.rows, thickness))]
    text = [_survivors_narrow(column, along + 16, facts.rows, "records read", facts)]
    for index, step in enumerate(flow):
        before, after = _thick(left, facts.rows, thickness), _thick(step.survivors, facts.rows, thickness)
        turn = along + 34
        bends.append(_bend(place, "funnel-narrow", index, step.colour, turn, after, before, bend_end))
        edge += [(turn, before), (turn, after)]
        text.append(_reasons_text(column, turn + RADIUS + 10, step, 28))
        along = turn + RADIUS + max(before - after, 20 + LINE * len(step.reasons)) + 12
        left = step.survivors
        name = "documents kept" if index == len(flow) - 1 else step.left
        text.append(_survivors_narrow(column, along + 16, step.survivors, name, facts))
    body = [*bends, _stream(place, edge, along + 44), *text]
    return _svg("funnel-narrow", width, along + 66, summary, "".join(body))


def _thick(part: int, whole: int, thickness: float) -> float:
    """Thickness of a stream; what exists stays visible."""
    return max(1.5, thickness * part / whole) if part and whole else 0.0


def _stream(place: Place, edge: list[tuple[float, float]], end: float) -> str:
    """What is kept, as one shape: one side straight, the other stepping in at every turn, an arrow at the end."""
    start, last = edge[0][0], edge[-1][1]
    tip = min(18.0, 6 + last / 4) if last else 0.0
    points = [(start, 0.0), (end, 0.0), (end + tip, last / 2), (end, last), *reversed(edge)]
    return f'<path class="keep" d="M{" L".join(place(*point) for point in points)}Z"/>'


def _bend(
    place: Place, name: str, index: int, colour: str, turn: float, after: float, before: float, end: float
) -> str:
    """The dropped part: a quarter turn away from the stream, fading out."""
    thick = max(1.5, before - after)
    after = before - thick
    outer, inner = RADIUS + thick, RADIUS
    corner = before + RADIUS
    out = [(turn + CURVE * outer, after), (turn + outer, corner - CURVE * outer), (turn + outer, corner)]
    back = [(turn + inner, corner - CURVE * inner), (turn + CURVE * inner, before), (turn, before)]
    path = (
        f"M{place(turn, after)} C{' '.join(place(*point) for point in out)} L{place(turn + outer, end)} "
        f"L{place(turn + inner, end)} L{place(turn + inner, corner)} C{' '.join(place(*point) for point in back)}Z"
    )
    first, second = place(turn, after).split(), place(turn, end).split()
    return (
        f'<linearGradient id="{name}-{index}" gradientUnits="userSpaceOnUse" x1="{first[0]}" y1="{first[1]}" '
        f'x2="{second[0]}" y2="{second[1]}"><stop class="at-{colour}" offset="0.3"/>'
        f'<stop class="at-{colour}" offset="1" stop-opacity="0.25"/></linearGradient>'
        f'<path d="{path}" fill="url(#{name}-{index})"/>'
    )


def _survivors_wide(x: float, survivors: int, name: str, facts: Facts, top: float) -> str:
    part = "" if survivors == facts.rows else f' <tspan class="soft">{share(survivors, facts.rows)}</tspan>'
    return (
        f'<text x="{x:.1f}" y="{top - 32:.1f}" class="big">{count(survivors)}{part}</text>'
        f'<text x="{x:.1f}" y="{top - 12:.1f}" class="small">{escape(name)}</text>'
    )


def _survivors_narrow(x: float, y: float, survivors: int, name: str, facts: Facts) -> str:
    part = "" if survivors == facts.rows else f", {share(survivors, facts.rows)}"
    label = f'<tspan class="small">{escape(name)}{part}</tspan>'
    return f'<text x="{x:.1f}" y="{y:.1f}" class="mid">{count(survivors)} {label}</text>'


def _reasons_text(x: float, y: float, step: Step, limit: int) -> str:
    """How many a stage dropped, and under it for which reasons, each of at most `limit` letters."""
    label = f"\u2212{count(step.dropped)} {escape(step.how)}"
    lines = [f'<text x="{x:.1f}" y="{y:.1f}" class="drop {step.colour}">{label}</text>']
    for index, (reason, dropped) in enumerate(step.reasons):
        figure = f'<tspan class="figure">{count(dropped)}</tspan> {escape(_short(reason, limit))}'
        lines.append(f'<text x="{x:.1f}" y="{y + 18 + LINE * index:.1f}" class="small">{figure}</text>')
    return "".join(lines)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "\u2026"
