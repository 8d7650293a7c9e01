"""Documents to look at: kept and dropped ones, the largest clusters, near duplicates side by side."""

from collections.abc import Sequence

from pipeline.report.difference import mark_difference
from pipeline.report.report_data import Cluster, Drop, Facts, Pair, Sample
from pipeline.report.tables import anchor
from schemas.text_format import breakable, count, escape, number, plural

__all__ = ["cluster_cards", "damage_list", "dropped_samples", "kept_samples", "pair_cards"]

DOT = " \u00b7 "
SHOWN_CHARS = 600
FADE_CHARS = 420  # a longer text is cut by its box, and fades


def kept_samples(facts: Facts) -> str:
    """Some kept documents."""
    return _cards([_card(sample) for sample in facts.samples])


def dropped_samples(facts: Facts) -> str:
    """Some dropped documents of each rule, folded away."""
    shown = [drop for drop in facts.drops if drop.samples]
    # One is open from the start, so that everybody sees that they can be opened: the one with most to look at.
    tallest = max(shown, key=lambda drop: (drop.samples[0].text is not None, drop.count), default=None)
    return "".join(_rule_samples(drop, drop is tallest) for drop in shown)


def _rule_samples(drop: Drop, is_open: bool) -> str:
    cards = _cards([_card(sample, _verdict(drop, sample)) for sample in drop.samples])
    return (
        f'<details id="{anchor(drop)}"{" open" if is_open else ""}><summary><code>{breakable(drop.rule)}</code>'
        f'<span class="label">{escape(drop.label)}</span><span class="n">{count(drop.count)}</span></summary>{cards}'
        "</details>"
    )


def _verdict(drop: Drop, sample: Sample) -> str:
    if sample.value is None:
        return ""
    if drop.stage in ("exact", "near"):
        return f"similarity {number(sample.value)}"
    if sample.threshold is None:
        return f"measured {number(sample.value)}"
    return f"measured {number(sample.value)}, threshold {number(sample.threshold)}"


def _cards(cards: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(sample: Sample, verdict: str = "") -> str:
    facts = [sample.source]
    facts += [sample.language] if sample.language else []
    facts += [plural(sample.num_words, "word")] if sample.num_words is not None else []
    note = f'<span class="verdict">{escape(verdict)}</span>' if verdict else ""
    head = f"<header>{escape(DOT.join(facts))} {note}{_url(sample)}</header>"
    return f'<article class="card">{head}{_text(sample.text)}</article>'


def _url(sample: Sample) -> str:
    # Plain text, never a link: nobody should reach what a crawl found by a slip of the mouse.
    return f'<bdi class="url">{escape(sample.url or sample.place)}</bdi>'


def _text(text: str | None) -> str:
    if text is None:
        return ""
    short = " short" if len(text) < FADE_CHARS and text.count("\n") < 9 else ""
    return f'<p class="text{short}" dir="auto">{escape(text[:SHOWN_CHARS])}</p>'


def cluster_cards(facts: Facts) -> str:
    """The largest clusters: the kept document, and which others it stands for."""
    return _cards([_cluster_card(cluster) for cluster in facts.clusters])


def _cluster_card(cluster: Cluster) -> str:
    kept = cluster.kept
    head = (
        f"{_url(kept)}{_text(kept.text[:240] if kept.text else None)}"
        if kept
        else '<p class="soft">no document of it was kept</p>'
    )
    rows = "".join(_duplicate(other, rule) for other, rule in cluster.duplicates)
    unseen = cluster.size - len(cluster.duplicates) - (1 if kept else 0)
    more = f'<p class="soft">and {count(unseen)} more</p>' if unseen > 0 else ""
    return (
        f'<article class="card"><header>{plural(cluster.size, "document")}, one kept</header>{head}'
        f'<ul class="duplicates">{rows}</ul>{more}</article>'
    )


def _duplicate(other: Sample, rule: str) -> str:
    fate = f"{rule}, similarity {number(other.value)}, from {other.source}"
    return f'<li>{_url(other)}<span class="soft">{escape(fate)}</span></li>'


def pair_cards(facts: Facts) -> str:
    """Near duplicates with their differences marked; nothing where the texts are gone."""
    pairs = [pair for pair in facts.pairs if pair.dropped.text is not None and pair.nearest.text is not None]
    return _cards([_pair_card(pair) for pair in pairs]) if pairs else ""


def _pair_card(pair: Pair) -> str:
    difference = mark_difference(pair.nearest.text or "", pair.dropped.text or "")
    names = "".join(
        f'<bdi class="url"><{tag}>{escape(sample.source)}: {escape(sample.url or sample.place)}</{tag}></bdi>'
        for tag, sample in (("ins", pair.dropped), ("del", pair.nearest))
    )
    return (
        f'<article class="card"><header>similarity {number(pair.dropped.value)}{names}</header>'
        f'<p class="text pair" dir="auto">{difference}</p></article>'
    )


def damage_list(facts: Facts) -> str:
    """What could not be read, and where."""
    rows = "".join(
        f"<li><code>{escape(rule)}</code> {escape(sample.source)}/{escape(sample.place)}</li>"
        for sample, rule in facts.damage
    )
    more = facts.corrupt - len(facts.damage)
    return f'<ul class="duplicates">{rows}</ul>' + (f'<p class="soft">and {count(more)} more</p>' if more > 0 else "")
