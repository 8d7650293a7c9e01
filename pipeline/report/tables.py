"""The report's tables: rules, languages, tokens, input files."""

from collections.abc import Sequence

from pipeline.report.funnel import STAGES
from pipeline.report.labels import language_name
from pipeline.report.report_data import Drop, Facts, Input, Tokens
from schemas.text_format import bits, breakable, count, escape, number, share

__all__ = ["bar", "inputs_table", "languages_table", "rules_table", "tokens_table"]

MANY = 40  # rows of a table before the rest is one row


def bar(parts: Sequence[tuple[str, int]], whole: int) -> str:
    """A line of coloured lengths; the figures stand beside it, so it is hidden from screen readers."""
    pieces = "".join(
        f'<i class="{colour}" style="width:{100 * amount / whole:.2f}%"></i>'
        for colour, amount in parts
        if amount and whole
    )
    return f'<span class="bar" aria-hidden="true">{pieces}</span>'


def table(heads: Sequence[tuple[str, str]], rows: Sequence[str]) -> str:
    """A table of (head, class) columns; `rows` are ready <tr>s."""
    head = "".join(f'<th scope="col" class="{name}">{escape(text)}</th>' for text, name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def rules_table(facts: Facts) -> str:
    """Every reason in the order of testing, with its yield; rules that dropped nothing are listed too."""
    highest = max((max(drop.count, drop.alone or 0) for drop in facts.drops), default=1)
    measured = any(drop.alone is not None for drop in facts.drops)
    heads = [("rule", "name"), ("first reason", "n"), ("of what was read", "n wide-only"), ("", "wide-only")]
    if measured:
        heads += [("fail it", "n"), ("fail only it", "n")]
    rows, stage = [], None
    for drop in facts.drops:
        if drop.stage != stage:
            stage = drop.stage
            title = STAGES.get(stage, (stage,))[0]
            rows.append(f'<tr class="stage"><th scope="rowgroup" colspan="{len(heads)}">{escape(title)}</th></tr>')
        rows.append(_rule_row(drop, facts.rows, highest, measured))
    return table(heads, rows)


def _rule_row(drop: Drop, read: int, highest: int, measured: bool) -> str:
    colour = STAGES[drop.stage][-1] if drop.stage in STAGES else "rule"
    name = f"<code>{breakable(drop.rule)}</code>"
    if drop.samples:
        name = f'<a href="#{anchor(drop)}">{name}</a>'
    cells = (
        f'<th scope="row">{name}<span class="label">{escape(drop.label)}</span></th>{_figure(drop.count)}'
        f'<td class="n wide-only">{share(drop.count, read)}</td>'
        f'<td class="wide-only" style="width:22%">{bar([(colour, drop.count)], highest)}</td>'
    )
    if measured:
        cells += _figure(drop.alone) + _figure(drop.only)
    return f"<tr{'' if drop.count else ' class=idle'}>{cells}</tr>"


def _figure(value: int | None) -> str:
    return f'<td class="n">{"" if value is None else count(value)}</td>'


def anchor(drop: Drop) -> str:
    """The id of a rule's samples in the page; a rule's name may hold anything that a recipe may."""
    return escape("".join(letter if letter.isalnum() else "-" for letter in f"{drop.stage}-{drop.rule}"))


def languages_table(facts: Facts) -> str:
    """Languages by documents, each with the share that was kept."""
    highest = max((language.documents for language in facts.languages), default=1)
    rows = []
    for language in facts.languages[:MANY]:
        parts = [("keep", language.kept), ("rule", language.ruled_out), ("dup", language.duplicates)]
        name = f"<code>{escape(language.label)}</code> {escape(language_name(language.label))}"
        rows.append(
            f'<tr><th scope="row" class="whole">{name}</th>{_figure(language.documents)}'
            f'<td style="width:44%">{bar(parts, highest)}</td>{_figure(language.kept)}'
            f'<td class="n">{share(language.kept, language.documents)}</td>'
            f'<td class="n wide-only">{count(language.tokens)}</td></tr>'
        )
    heads = [("language", ""), ("documents", "n"), ("", ""), ("kept", "n"), ("", "n"), ("tokens", "n wide-only")]
    return table(heads, rows) + _more(len(facts.languages))


def tokens_table(facts: Facts) -> str:
    """What the shards hold, by source and split."""
    highest = max((entry.tokens for entry in facts.tokens_by), default=1)
    lengths = sorted({length for entry in facts.tokens_by for length in entry.packed_rows}, key=int)
    heads = [
        ("source", ""),
        ("split", ""),
        ("tokens", "n"),
        ("", "wide-only"),
        ("documents", "n"),
        ("text", "n wide-only"),
    ]
    heads += [("bytes a token", "n wide-only"), ("shards", "n wide-only")]
    heads += [(f"rows of {length}", "n wide-only") for length in lengths]
    rows = [_tokens_row(entry, highest, lengths) for entry in facts.tokens_by]
    return table(heads, rows)


def _tokens_row(entry: Tokens, highest: int, lengths: Sequence[str]) -> str:
    packed = "".join(f'<td class="n wide-only">{count(entry.packed_rows[length])}</td>' for length in lengths)
    stream = bar([("keep", entry.tokens)], highest)
    return (
        f'<tr><th scope="row"><code>{escape(entry.source)}</code></th><td>{escape(entry.split)}</td>'
        f'{_figure(entry.tokens)}<td class="wide-only" style="width:26%">{stream}</td>'
        f'{_figure(entry.documents)}<td class="n wide-only">{bits(entry.text_bytes)}</td>'
        f'<td class="n wide-only">{number(entry.text_bytes / entry.tokens if entry.tokens else None)}</td>'
        f'<td class="n wide-only">{count(entry.shards)}</td>{packed}</tr>'
    )


def inputs_table(facts: Facts) -> str:
    """Input files in the order of source and name, with what was in them."""
    heads = [("file", "name"), ("size", "n"), ("rows", "n"), ("kept", "n"), ("records in it", "wide-only")]
    return table(heads, [_input_row(entry) for entry in facts.inputs[:MANY]]) + _more(facts.num_inputs)


def _input_row(entry: Input) -> str:
    records = ", ".join(f"{count(amount)} {escape(kind)}" for kind, amount in sorted(entry.records.items()))
    return (
        f'<tr><td class="name"><span class="soft">{escape(entry.source)}/</span>{escape(entry.name)}</td>'
        f'<td class="n">{bits(entry.size)}</td><td class="n">{count(entry.rows)}</td>'
        f'<td class="n">{count(entry.kept)}</td><td class="wide-only">{records}</td></tr>'
    )


def _more(total: int) -> str:
    return f'<p class="soft">and {count(total - MANY)} more</p>' if total > MANY else ""
