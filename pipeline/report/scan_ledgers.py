"""One pass over the ledgers that counts, and chooses the rows that the report shows.

Samples are the smallest doc_ids of their rule. A doc_id is a hash, so they are spread evenly, and the same on every
run.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.charts import half_octave
from pipeline.report.report_data import Language
from schemas.dataset import Dataset, Place

__all__ = ["Chosen", "Fate", "Tally", "keys_of", "tally"]

KEPT_SAMPLES = 9
DROPPED_SAMPLES = 3
NEAR_PAIRS = 6
DAMAGE_SHOWN = 12
CLUSTERS_SHOWN = 6
COLUMNS = [
    *("doc_id", "source", "input", "kept", "stage", "rule", "threshold", "value", "twin"),
    *("cluster", "cluster_size", "language", "num_words", "num_tokens"),
]
EDGES = np.array([half_octave(half) for half in range(-1, 64)], np.int64)
NO_LANGUAGE = "none"

Fate = tuple[str | None, str | None]  # stage and rule; None: kept


@dataclass
class Chosen:
    """The rows with the smallest keys so far, at most `limit`."""

    limit: int
    heap: list[tuple[int, Place]] = field(default_factory=list)  # keys negated: the largest is on top

    def offer(self, key: int, place: Place) -> None:
        """Take the row if its key is among the smallest."""
        if len(self.heap) < self.limit:
            heapq.heappush(self.heap, (-key, place))
        elif -key > self.heap[0][0]:
            heapq.heapreplace(self.heap, (-key, place))

    def places(self) -> list[Place]:
        """The chosen rows, smallest key first."""
        return [place for _, place in sorted(self.heap, key=lambda item: (-item[0], item[1]))]


@dataclass
class Tally:
    """What one pass over the ledgers gives; its size follows the rules, languages and input files."""

    rows: int = 0
    kept: int = 0
    tokens: int = 0
    drops: Counter[Fate] = field(default_factory=Counter)
    thresholds: dict[Fate, float] = field(default_factory=dict)
    languages: dict[str, Language] = field(default_factory=dict)
    words_kept: Counter[int] = field(default_factory=Counter)
    words_dropped: Counter[int] = field(default_factory=Counter)
    cluster_sizes: Counter[int] = field(default_factory=Counter)
    similarities: Counter[int] = field(default_factory=Counter)
    input_rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    input_kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    samples: dict[Fate, Chosen] = field(default_factory=dict)
    largest: list[tuple[int, bytes]] = field(default_factory=list)  # heap of size, cluster


def tally(dataset: Dataset) -> Tally:
    """Count every ledger of a generation. Raises DatasetError where a ledger is missing."""
    result = Tally()
    for ledger in dataset.ledgers():
        for first, batch in dataset.ledger_batches(ledger, COLUMNS):
            _count_fates(result, batch)
            _count_languages(result, batch)
            _count_words(result, batch)
            _count_clusters(result, batch)
            _choose(result, batch, ledger, first)
    return result


def _count_fates(result: Tally, batch: pa.RecordBatch) -> None:
    table = pa.table(
        {name: batch[name] for name in ("source", "input", "kept", "stage", "rule", "threshold", "num_tokens")}
    )
    result.rows += batch.num_rows
    groups = table.group_by(["stage", "rule"]).aggregate([([], "count_all"), ("threshold", "max")])
    for row in groups.to_pylist():
        fate = (row["stage"], row["rule"])
        if row["rule"] is not None:
            result.drops[fate] += row["count_all"]
            if row["threshold_max"] is not None:
                result.thresholds[fate] = row["threshold_max"]
    for row in table.group_by(["source", "input", "kept"]).aggregate([([], "count_all")]).to_pylist():
        result.input_rows[row["source"], row["input"]] += row["count_all"]
        if row["kept"]:
            result.input_kept[row["source"], row["input"]] += row["count_all"]
    result.kept += pc.sum(batch["kept"].cast(pa.int64())).as_py() or 0
    result.tokens += pc.sum(batch["num_tokens"].cast(pa.int64())).as_py() or 0


def _count_languages(result: Tally, batch: pa.RecordBatch) -> None:
    measured = batch.filter(pc.is_valid(batch["num_words"]))
    table = pa.table({name: measured[name] for name in ("language", "kept", "stage", "num_tokens")})
    groups = table.group_by(["language", "kept", "stage"]).aggregate([([], "count_all"), ("num_tokens", "sum")])
    for row in groups.to_pylist():
        label = row["language"] or NO_LANGUAGE
        language = result.languages.setdefault(label, Language(label))
        if row["kept"]:
            language.kept += row["count_all"]
            language.tokens += row["num_tokens_sum"] or 0
        elif row["stage"] in ("exact", "near"):
            language.duplicates += row["count_all"]
        else:
            language.ruled_out += row["count_all"]


def _count_words(result: Tally, batch: pa.RecordBatch) -> None:
    for kept, counter in ((True, result.words_kept), (False, result.words_dropped)):
        words = batch["num_words"].filter(pc.equal(batch["kept"], kept)).drop_null()
        # Two edges may be equal (no whole number lies between 2^0.5 and 2): the right one is meant.
        columns = np.searchsorted(EDGES, words.to_numpy(zero_copy_only=False), side="right") - 2
        for column, number in zip(*np.unique(columns, return_counts=True), strict=True):
            counter[int(column)] += int(number)


def _count_clusters(result: Tally, batch: pa.RecordBatch) -> None:
    kept = batch.filter(pc.and_(batch["kept"], pc.is_valid(batch["cluster_size"])))
    for row in pc.value_counts(kept["cluster_size"]).to_pylist():
        result.cluster_sizes[row["values"]] += row["counts"]
    sizes = kept["cluster_size"].to_numpy(zero_copy_only=False)
    for index in np.argsort(-sizes.astype(np.int64), kind="stable")[: 4 * CLUSTERS_SHOWN]:
        entry = (int(sizes[index]), kept["cluster"][int(index)].as_py())
        if entry[0] > 1 and entry not in result.largest:
            result.largest.append(entry)
    result.largest = sorted(result.largest, key=lambda entry: (-entry[0], entry[1]))[:CLUSTERS_SHOWN]
    near = batch["value"].filter(pc.equal(pc.fill_null(batch["stage"], ""), "near")).drop_null()
    for row in pc.value_counts(pc.cast(pc.floor(pc.add(pc.multiply(near, 100.0), 1e-9)), pa.int64())).to_pylist():
        result.similarities[row["values"]] += row["counts"]


def _choose(result: Tally, batch: pa.RecordBatch, ledger: int, first: int) -> None:
    keys = keys_of(batch["doc_id"])
    codes = pc.dictionary_encode(
        pc.binary_join_element_wise(pc.fill_null(batch["stage"], ""), pc.fill_null(batch["rule"], ""), "\0")
    )
    indices = codes.indices.to_numpy(zero_copy_only=False)
    for code, name in enumerate(codes.dictionary.to_pylist()):
        stage, _, rule = name.partition("\0")
        fate: Fate = (stage or None, rule or None)
        chosen = result.samples.setdefault(fate, Chosen(_limit(fate)))
        rows = np.flatnonzero(indices == code)
        smallest = rows[np.argsort(keys[rows], kind="stable")[: chosen.limit]]
        for row in smallest:
            chosen.offer(int(keys[row]), Place(ledger, first + int(row)))


def keys_of(doc_ids: pa.Array) -> np.ndarray:
    """The first eight bytes of each doc_id as a big-endian number."""
    data = np.frombuffer(doc_ids.buffers()[1], np.uint8).reshape(-1, 16)[doc_ids.offset : doc_ids.offset + len(doc_ids)]
    return data[:, :8].copy().view(">u8").ravel().astype(np.uint64)


def _limit(fate: Fate) -> int:
    stage, rule = fate
    if rule is None:
        return KEPT_SAMPLES
    return NEAR_PAIRS if stage == "near" else DAMAGE_SHOWN if rule == "read.damaged" else DROPPED_SAMPLES
