"""Which true near duplicates are found, on documents whose exact similarities are known.

    python tests/bench/neardup_quality.py [FOLDER of neardup_shared_docs.jsonl.gz and its like]

For each setting: of the pairs with a true Jaccard similarity of at least 0.8, 0.9 and 1.0, how many are both kept;
documents removed without a chain of verified pairs to the one that is kept (always 0); and the true similarity of
removed documents to their survivor. "True" is over 5-word shingles (English) or 5-character ones (Chinese, Japanese).
"""

import argparse
import csv
import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.ingest.receipts import PartRef
from pipeline.measure.minhash.sign import sign
from pipeline.select.near.bands import choose_bands
from pipeline.select.select import decision_digest, select, verdict_uri
from pipeline.text.edits import text_buffers
from schemas.recipe import Minhash, Near, Recipe
from tests.made_parts import write_part

SETTINGS: list[dict[str, Any]] = [
    {"threshold": 0.8},
    {"threshold": 0.8, "false_negative_weight": 0.99},
    {"threshold": 0.8, "verify": "exact"},
    {"threshold": 0.75},
    {"threshold": 0.75, "false_negative_weight": 0.99},
    {"threshold": 0.75, "verify": "exact"},
    {"threshold": 0.7},
    {"threshold": 0.7, "false_negative_weight": 0.99},
    {"threshold": 0.7, "verify": "exact", "false_negative_weight": 0.99},
]
LEVELS = (0.8, 0.9, 1.0)


def lines(path: Path) -> Iterator[str]:
    """Lines of a file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from file


def read_corpus(folder: Path, name: str) -> tuple[dict[str, str], dict[tuple[str, str], float]]:
    """Texts by id, and all pairs with a similarity of at least 0.2."""
    docs = [json.loads(line) for line in lines(next(folder.glob(f"{name}_shared_docs.jsonl*")))]
    table = csv.reader(lines(next(folder.glob(f"{name}_shared_pairs_ge0.2.tsv*"))), delimiter="\t")
    next(table)
    return {doc["id"]: doc["text"] for doc in docs}, {(a, b): float(j) for a, b, j in table}


def words(text: str) -> set[tuple[str, ...]]:
    """The shingles by which English pairs were measured."""
    tokens = re.findall(r"\w+", text.lower())
    return {tuple(tokens[n : n + 5]) for n in range(max(1, len(tokens) - 4))}


def characters(text: str) -> set[tuple[str, ...]]:
    """The shingles by which Chinese and Japanese pairs were measured."""
    dense = "".join(text.split())
    return {tuple(dense[n : n + 5]) for n in range(max(1, len(dense) - 4))}


def decide(parts: list[PartRef], recipe: Recipe, work: str) -> dict[str, dict[str, Any]]:
    """Verdicts by record id."""
    decision = decision_digest(parts, recipe)
    select(parts, recipe, work, decision)
    verdicts: dict[str, dict[str, Any]] = {}
    for part in parts:
        ids = pa.ipc.open_file(part.uri).read_all()["record_id"].to_pylist()
        rows = pa.ipc.open_file(verdict_uri(work, decision, part.number)).read_all().to_pylist()
        verdicts.update(zip(ids, rows, strict=True))
    return verdicts


def unchained(texts: dict[str, str], verdicts: dict[str, dict[str, Any]], near: Near, minhash: Minhash) -> int:
    """Removed documents from which no chain of pairs, measured anew, leads to a kept one."""
    by_doc_id = {row["doc_id"]: name for name, row in verdicts.items()}
    signatures = dict(
        zip(texts, sign(*text_buffers(pa.array(texts.values(), pa.large_string())), minhash)[0], strict=True)
    )
    torn = 0
    for name in verdicts:
        here, steps = name, 0
        while (row := verdicts[here])["kept"] is False and steps < len(verdicts):
            there = by_doc_id[row["twin"]]
            alike = float(np.mean(signatures[here] == signatures[there]))
            if row["rule"] == "exact.duplicate":
                alike = 1.0 if texts[here] == texts[there] else 0.0
            elif near.verify == "exact":
                alike = row["value"]  # checked against sets of words below
            if alike < near.threshold or alike != row["value"]:
                break
            here, steps = there, steps + 1
        torn += not verdicts[here]["kept"]
    return torn


def report(name: str, folder: Path, shingles: Callable[[str], set[tuple[str, ...]]]) -> None:
    """One table for one corpus."""
    texts, pairs = read_corpus(folder, name)
    minhash = Minhash()
    at_least = [sum(j >= x for j in pairs.values()) for x in LEVELS]
    print(f"\n{name}: {len(texts)} documents; pairs with a similarity of at least 0.8, 0.9, 1.0: {at_least}")
    print("                                             both kept of those            without  similarity to survivor")
    print("threshold  fn_weight  verify     bands x rows  >=0.8 >=0.9  =1.0   removed    chain     p1   p10  p50  <0.5")
    with tempfile.TemporaryDirectory() as scratch:
        rows = [{"text": text, "record_id": name} for name, text in texts.items()]
        cuts = np.linspace(0, len(rows), 5).astype(int)
        parts = [write_part(Path(scratch), n, rows[cuts[n] : cuts[n + 1]]) for n in range(4)]
        for setting in SETTINGS:
            near = Near(**setting)
            recipe = Recipe.model_validate({"sources": {"web": {"root": "/nowhere"}}, "near": setting})
            verdicts = decide(parts, recipe, scratch)
            bands = choose_bands(near, minhash.num_hashes, near.threshold)
            missed = [
                sum(j >= x and verdicts[a]["kept"] and verdicts[b]["kept"] for (a, b), j in pairs.items())
                for x in LEVELS
            ]
            by_doc_id = {row["doc_id"]: key for key, row in verdicts.items()}
            removed = [(key, by_doc_id[row["duplicate_of"]]) for key, row in verdicts.items() if not row["kept"]]
            sets = {key: shingles(texts[key]) for pair in removed for key in pair}
            alike = np.array([len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in removed])
            low, tenth, half = np.quantile(alike, [0.01, 0.1, 0.5])
            torn = unchained(texts, verdicts, near, minhash)
            print(
                f"{near.threshold:<10} {near.false_negative_weight:<10} {near.verify:<10} "
                f"{bands.bands:>5} x {bands.rows:<4} "
                f"{missed[0]:>6} {missed[1]:>5} {missed[2]:>5}   {len(removed):>7} {torn:>8}"
                f"  {low:>5.2f} {tenth:>5.2f} {half:>4.2f} {int((alike < 0.5).sum()):>5}"
            )


def main() -> None:
    """Both corpora."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default="../shared/data/neardup")
    folder = Path(parser.parse_args().folder)
    report("neardup", folder, words)
    report("neardup_cjk", folder, characters)


if __name__ == "__main__":
    main()
