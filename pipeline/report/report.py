"""report.html, from opening the dataset to writing the page."""

import json
from collections import Counter
from collections.abc import Iterable

from pipeline.report.checks import rule_yields, rules_of
from pipeline.report.find import find_clusters, sample_of
from pipeline.report.funnel import STAGES
from pipeline.report.labels import meaning
from pipeline.report.page import render
from pipeline.report.part_files import Parts, open_parts
from pipeline.report.report_data import Cluster, Drop, Facts, Input, Pair, Sample, Tokens
from pipeline.report.sample_texts import final_texts
from pipeline.report.scan_ledgers import Fate, Tally, tally
from schemas import storage
from schemas.dataset import Dataset, Place, open_dataset

__all__ = ["gather_facts", "write_report"]

SHOWN_CHARS = 700
TWINS_SHOWN = 5
INPUTS_SHOWN = 40


def write_report(dataset: str, work: str | None = None, generation: int | None = None, to: str | None = None) -> str:
    """Write the report of a generation, by default the newest, to `to` or DATASET/report.html; returns where.

    Without the work folder (default: DATASET/work) the report holds no texts and not what each rule
    would drop alone, and states so.
    """
    opened = open_dataset(dataset, generation)
    page = render(gather_facts(opened, open_parts(opened, work)))
    target = to or storage.join(dataset, "report.html")
    storage.write(target, page.encode("utf-8"))
    return target


def gather_facts(dataset: Dataset, parts: Parts) -> Facts:
    """Everything that the report shows, in two passes over the ledgers and one over the measures of the parts."""
    counted = tally(dataset)
    manifest = dataset.manifest
    assert counted.rows == manifest.funnel.records_read, "the ledgers do not hold the records that the manifest counts"
    facts = Facts(manifest.name, manifest.generation, counted.rows, counted.kept, counted.tokens)
    facts.has_texts, facts.texts_missing = not parts.missing, parts.missing
    facts.languages = sorted(counted.languages.values(), key=lambda entry: (-entry.documents, entry.label))
    facts.words_kept, facts.words_dropped = counted.words_kept, counted.words_dropped
    facts.cluster_sizes, facts.similarities = counted.cluster_sizes, counted.similarities
    facts.tokens_by = _tokens(dataset)
    _add_inputs(facts, dataset, counted)
    _add_documents(facts, dataset, parts, counted)
    _add_origin(facts, dataset)
    return facts


def _add_documents(facts: Facts, dataset: Dataset, parts: Parts, counted: Tally) -> None:
    """Drops with their samples, clusters and pairs, with their texts."""
    clusters = find_clusters(dataset, [name for _, name in counted.largest], TWINS_SHOWN)
    chosen = [place for entry in counted.samples.values() for place in entry.places()]
    rows = dataset.rows([*chosen, *(place for places in clusters.values() for place in places)])
    near = [rows[place] for fate, entry in counted.samples.items() if fate[0] == "near" for place in entry.places()]
    nearest = dataset.places_of_ids({row["twin"] for row in near if row["twin"] is not None})
    rows |= dataset.rows(nearest.values())
    texts = final_texts(dataset, parts, rows)

    def sample(place: Place, length: int | None = SHOWN_CHARS) -> Sample:
        shown = sample_of(rows[place])
        text = texts.get(place)
        shown.text = text if text is None else text[:length]
        return shown

    facts.drops = _drops(dataset, parts, counted)
    for drop in facts.drops:
        entry = counted.samples.get((drop.stage, drop.rule))
        drop.samples = [sample(place) for place in entry.places()[:3]] if entry else []
    facts.samples = [sample(place) for place in counted.samples[None, None].places()] if counted.kept else []
    for size, name in counted.largest:
        kept = [place for place in clusters[name] if rows[place]["kept"]]
        others = [(sample(place), rows[place]["rule"]) for place in clusters[name] if not rows[place]["kept"]]
        facts.clusters.append(Cluster(size, sample(kept[0]) if kept else None, others))
    for fate, entry in counted.samples.items():
        if fate[0] == "near":
            pairs = [(place, nearest.get(rows[place]["twin"])) for place in entry.places()]
            facts.pairs += [Pair(sample(one, None), sample(other, None)) for one, other in pairs if other is not None]
    corrupt = [(fate, entry) for fate, entry in counted.samples.items() if fate[1] == "read.damaged"]
    facts.damage = [(sample(place), str(fate[1])) for fate, entry in corrupt for place in entry.places()]
    facts.corrupt = sum(number for fate, number in counted.drops.items() if fate[1] == "read.damaged")


def _drops(dataset: Dataset, parts: Parts, counted: Tally) -> list[Drop]:
    """Every reason in the order of testing: reading, extraction, the recipe's rules, duplicates, the rest."""
    yields = rule_yields(rules_of(dataset.manifest), parts) if not parts.missing else {}
    fates = set(counted.drops) | {("rules", rule) for rule in yields}
    order = {rule: place for place, rule in enumerate(yields)}
    stages = list(STAGES)

    def key(fate: Fate) -> tuple[int, int, int, str]:
        place = stages.index(fate[0]) if fate[0] in STAGES else len(stages)
        return place, order.get(str(fate[1]), len(order)), -counted.drops[fate], str(fate[1])

    drops = []
    for stage, rule in sorted(fates, key=key):
        drop = Drop(str(stage), str(rule), counted.drops[stage, rule], counted.thresholds.get((stage, rule)))
        if stage == "rules" and rule in yields:
            found = yields[rule]
            drop.alone, drop.only, drop.label = found.alone, found.only, found.label
        else:
            drop.label = meaning(drop.rule)
        drops.append(drop)
    return drops


def _tokens(dataset: Dataset) -> list[Tokens]:
    """What the shards in use hold."""
    totals: dict[tuple[str, str], Tokens] = {}
    for row in dataset.shards().to_pylist():
        entry = totals.setdefault((row["source"], row["split"]), Tokens(row["source"], row["split"]))
        entry.shards += 1
        entry.documents += row["rows"]
        entry.tokens += row["tokens"]
        entry.text_bytes += row["text_bytes"]
        entry.packed_rows += Counter(json.loads(row["packed_rows"]) if row["packed_rows"] else {})
    return [totals[key] for key in sorted(totals)]


def _add_inputs(facts: Facts, dataset: Dataset, counted: Tally) -> None:
    """The input files; the input splits of one are added up."""
    files: dict[tuple[str, str], Input] = {}
    for row in dataset.input_table.to_pylist():
        records = Counter(json.loads(row["records"]))
        facts.records += records
        entry = files.setdefault((row["source"], row["name"]), Input(row["source"], row["name"], row["size"]))
        entry.records += records
    for key, entry in files.items():
        entry.rows, entry.kept = counted.input_rows[key], counted.input_kept[key]
    facts.num_inputs = len(files)
    facts.sources = sorted({source for source, _ in files})
    facts.inputs = [files[key] for key in sorted(files)[:INPUTS_SHOWN]]


def _add_origin(facts: Facts, dataset: Dataset) -> None:
    """Digests, versions and the recipe."""
    manifest = dataset.manifest
    digests = manifest.digests
    facts.digests = [
        ("generation", digests.generation),
        ("order of samples", digests.order),
        ("recipe", digests.recipe),
    ]
    facts.digests += [("generation before", digests.previous)] if digests.previous else []
    facts.digests += [("tokenizer", manifest.tokenizer.sha256)]
    facts.digests += [(f"asset {name}", digest) for name, digest in sorted(manifest.assets.items())]
    tokenizer = manifest.tokenizer
    facts.about = [
        (
            "tokenizer",
            f"{tokenizer.vocab_size:,} tokens, {tokenizer.token_type}, ends with {tokenizer.end_of_text.token}",
        )
    ]
    facts.about += [(f"code of {stage}", version) for stage, version in sorted(manifest.code.items())]
    facts.about += [("platform", _listed(manifest.platform.items()))]
    facts.recipe = dataset.recipe_text()


def _listed(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(items))
