"""The report's page: one file without scripts, links to the outside or anything fetched."""

from pipeline.report.charts import cluster_chart, length_chart, similarity_chart
from pipeline.report.document_cards import cluster_cards, damage_list, dropped_samples, kept_samples, pair_cards
from pipeline.report.funnel import funnel_picture
from pipeline.report.report_data import Facts
from pipeline.report.style import STYLE
from pipeline.report.tables import inputs_table, languages_table, rules_table, tokens_table
from schemas.html_page import page
from schemas.text_format import count, escape, plural, share

__all__ = ["render"]

KEY = '<li><i class="{}"></i>{}</li>'


def render(facts: Facts) -> str:
    """The page as HTML; equal facts give equal bytes."""
    sections = [
        ("funnel", "Funnel", _funnel(facts)),
        ("rules", "Rules", _rules(facts)),
        ("languages", "Languages", _languages(facts)),
        ("duplicates", "Duplicates", _duplicates(facts)),
        ("tokens", "Tokens", _tokens(facts)),
        ("kept", "Kept texts", _kept(facts)),
        ("dropped", "Dropped texts", _dropped(facts)),
        ("inputs", "Input files", _inputs(facts)),
        ("origin", "Origin", _origin(facts)),
    ]
    footer = f"Written by <code>gristmill report</code> from the ledger of generation {facts.generation}."
    return page(f"{facts.name} \u00b7 Gristmill report", _head(facts), sections, footer, STYLE)


def _head(facts: Facts) -> str:
    languages = [language for language in facts.languages if language.kept]
    tiles = [
        ("records read", count(facts.rows), ""),
        ("documents kept", count(facts.kept), share(facts.kept, facts.rows)),
        ("tokens", count(facts.tokens), ""),
        ("shards", count(sum(entry.shards for entry in facts.tokens_by)), ""),
        ("languages kept", count(len(languages)), ""),
        ("input files", count(facts.num_inputs), f"in {plural(len(facts.sources), 'source')}"),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value} <small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return (
        f'<p class="maker">Gristmill \u00b7 generation {facts.generation}</p><h1>{escape(facts.name)}</h1>'
        f'<p class="claim">Of {count(facts.rows)} records read, <b>{count(facts.kept)} documents are kept</b> '
        f"and hold {count(facts.tokens)} tokens.</p>"
        f'<dl class="tiles">{cells}</dl>'
    )


def _funnel(facts: Facts) -> str:
    return funnel_picture(facts)


def _rules(facts: Facts) -> str:
    note = (
        "A record counts for the first rule that it fails. <i>Fail it</i>: documents with a text that fail the rule, "
        "whatever else they fail. <i>Fail only it</i>: what the rules would let through if this one were turned off."
        if any(drop.alone is not None for drop in facts.drops)
        else "A record counts for the first rule that it fails."
    )
    return f'<p class="lead">{note}</p>{rules_table(facts)}'


def _languages(facts: Facts) -> str:
    if not facts.languages:
        return ""
    key = "".join(
        KEY.format(colour, label)
        for colour, label in (("keep", "kept"), ("rule", "dropped by a rule"), ("dup", "duplicate"))
    )
    lengths = "".join(KEY.format(colour, label) for colour, label in (("keep", "kept"), ("gone", "dropped")))
    return (
        '<p class="lead">Every text that was measured, by its best label.</p>'
        f'<ul class="key">{key}</ul>{languages_table(facts)}'
        f'<figure class="gap"><h3>Length</h3><ul class="key">{lengths}</ul>{length_chart(facts)}</figure>'
    )


def _duplicates(facts: Facts) -> str:
    clusters = sum(number for size, number in facts.cluster_sizes.items() if size > 1)
    if not clusters:
        return '<p class="lead">No two documents were alike.</p>'
    inside = sum(size * number for size, number in facts.cluster_sizes.items() if size > 1)
    charts = f"<figure><h3>Clusters by size</h3>{cluster_chart(facts)}</figure>"
    if facts.similarities:
        charts += f"<figure><h3>How alike near duplicates are</h3>{similarity_chart(facts)}</figure>"
    return (
        f'<p class="lead">{plural(clusters, "cluster")} of two and more hold {count(inside)} documents; '
        f'one of each is kept.</p><div class="two">{charts}</div>'
        f'<h3 class="gap">The largest clusters</h3>{cluster_cards(facts)}{_pairs(facts)}'
    )


def _pairs(facts: Facts) -> str:
    cards = pair_cards(facts)
    lead = (
        "Near duplicates beside the verified neighbour: <ins>only in the dropped</ins>, <del>only in the other</del>."
    )
    return f'<h3 class="gap">What differs</h3><p class="lead">{lead}</p>{cards}' if cards else ""


def _tokens(facts: Facts) -> str:
    return (
        f'<p class="lead">What the shards in use hold; the end of text is a token.</p>{tokens_table(facts)}'
        if facts.tokens_by
        else ""
    )


def _kept(facts: Facts) -> str:
    lead = '<p class="lead">Chosen by a hash, so that they are the same on every run.</p>'
    return f"{_missing(facts)}{lead}{kept_samples(facts)}" if facts.samples else ""


def _dropped(facts: Facts) -> str:
    body = dropped_samples(facts)
    return f'{_missing(facts)}<p class="lead">Some of each rule, with what was measured.</p>{body}' if body else ""


def _missing(facts: Facts) -> str:
    return "" if facts.has_texts else f'<p class="note">The texts cannot be shown: {escape(facts.texts_missing)}</p>'


def _inputs(facts: Facts) -> str:
    damage = (
        f'<h3 class="gap">Damage</h3>{damage_list(facts)}'
        if facts.corrupt
        else '<p class="soft">Nothing was corrupt.</p>'
    )
    kinds = ", ".join(f"{count(amount)} {escape(kind)}" for kind, amount in sorted(facts.records.items()))
    return f'<p class="lead">{plural(facts.num_inputs, "file")}: {kinds}.</p>{inputs_table(facts)}{damage}'


def _origin(facts: Facts) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="hex"><code>{escape(value)}</code></td></tr>'
        for name, value in facts.digests
    )
    rows += "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="hex">{escape(value)}</td></tr>'
        for name, value in facts.about
    )
    recipe = f'<h3 class="gap">The recipe</h3><pre class="recipe">{escape(facts.recipe)}</pre>' if facts.recipe else ""
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>{recipe}'
