"""The verdict over a part: one row for each of its rows, by position, in a file of its own."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.ingest.records import ConservationError
from pipeline.select.columns import as_ids, halves
from pipeline.select.context import Decision
from pipeline.select.decision.funnel import add_up
from pipeline.select.decision.split import NO_SIDE, SIDES, Recorded, sides_of_clusters
from pipeline.select.documents import Documents
from pipeline.select.files import fixed_bytes, read_table, write_batch
from pipeline.select.near.choose_survivors import CONFLICT, COPY, KEPT, NEAR
from pipeline.select.rules import INGEST, PASSED, Judged, reasons
from schemas import storage
from schemas.arrow import VERDICT

__all__ = ["CloseDecision", "WriteVerdicts", "part_verdict", "summarise"]

FATES = {COPY: ("exact", "exact.duplicate"), NEAR: ("near", "near.duplicate"), CONFLICT: ("split", "split.conflict")}


def part_verdict(documents: Documents, part: int, clusters: pa.Table, recorded: Recorded | None) -> pa.RecordBatch:
    """VERDICT over a part. `clusters` are its documents that have a duplicate (clusters.CLUSTERS)."""
    columns, judged = documents.parts.open(part), documents.judged(part)
    rows, fate = clusters["row"].to_numpy().astype(np.int64), clusters["fate"].to_numpy()
    reason, names = judged.reason.copy(), reasons(documents.rules, documents.failed)
    value, threshold = judged.value.copy(), judged.threshold.copy()
    for number, pair in FATES.items():
        reason[rows[fate == number]] = len(names)
        names.append(pair)
    dropped = (fate == COPY) | (fate == NEAR)
    value[rows[dropped]] = clusters["value"].to_numpy()[dropped]
    threshold[rows[fate == COPY]] = 1.0
    threshold[rows[fate == NEAR]] = documents.decision.drop_at or np.nan
    kept = reason == PASSED
    cluster, size = judged.ids.copy(), judged.passed.astype(np.uint32)
    cluster[rows], size[rows] = _ids(clusters, "cluster"), clusters["cluster_size"].to_numpy()
    side = _sides(documents, judged, kept, clusters, rows, recorded)
    # The values become columns one by one, never through a compute kernel, whose padding may differ.
    return pa.record_batch(
        [
            as_ids(judged.ids),
            pa.array(kept),
            *_reason_columns(columns.column("stage"), columns.column("rule"), reason, names),
            _nullable(value),
            _nullable(threshold),
            _spread(clusters, "duplicate_of", rows, dropped, len(kept)),
            _spread(clusters, "twin", rows, dropped, len(kept)),
            as_ids(cluster, judged.passed),
            pa.array(size, mask=~judged.passed),
            pa.array(np.array(SIDES, object)[side], pa.string()),
            pa.array(judged.passed),
        ],
        schema=VERDICT,
    )


def _nullable(values: np.ndarray) -> pa.Array:
    """float64 with nulls for NaN, and zeros under them."""
    return pa.array(np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf), mask=np.isnan(values))


def _ids(table: pa.Table, name: str) -> np.ndarray:
    return halves(fixed_bytes(table[name].combine_chunks()))


def _spread(clusters: pa.Table, name: str, rows: np.ndarray, valid: np.ndarray, num_rows: int) -> pa.Array:
    """A sparse column of doc_ids, over all rows."""
    ids, filled = np.zeros((num_rows, 2), np.uint64), np.zeros(num_rows, bool)
    ids[rows], filled[rows] = _ids(clusters, name), valid
    return as_ids(ids, filled)


def _sides(
    documents: Documents,
    judged: Judged,
    kept: np.ndarray,
    clusters: pa.Table,
    rows: np.ndarray,
    recorded: Recorded | None,
) -> np.ndarray:
    """The side of each kept document; a document without duplicates is a cluster by itself."""
    side = np.full(len(kept), NO_SIDE, np.int8)
    alone = kept.copy()
    alone[rows] = False
    recipe, ids = documents.recipe, judged.ids[alone]
    side[alone] = sides_of_clusters(ids, recipe.seed, recipe.split.validation)
    if recorded is not None:
        known = recorded.sides(ids)
        side[alone] = np.where(known != NO_SIDE, known, side[alone])
    side[rows] = np.where(clusters["fate"].to_numpy() == KEPT, clusters["side"].to_numpy(), NO_SIDE)
    return side


def _reason_columns(
    stage: pa.ChunkedArray, rule: pa.ChunkedArray, reason: np.ndarray, names: list[tuple[str | None, str | None]]
) -> list[pa.Array]:
    """Stage and rule of each row; rows dropped in ingest keep their own."""
    columns = []
    in_ingest = np.flatnonzero(reason == INGEST)
    for place, own in enumerate((stage, rule)):
        # PASSED is -1 and finds the last entry: null.
        words = np.array([*(pair[place] for pair in names), None], object)[reason]
        if in_ingest.size:
            words[in_ingest] = own.take(pa.array(in_ingest)).to_pylist()
        columns.append(pa.array(words, pa.string()))
    return columns


def summarise(verdict: pa.RecordBatch, num_bytes: np.ndarray, renamed: int) -> dict[str, Any]:
    """Documents and bytes of a part by what became of them."""
    kept = verdict["kept"].to_numpy(zero_copy_only=False)
    size = np.nan_to_num(num_bytes).astype(np.int64)
    drops = []
    by_reason: dict[tuple[str, str], np.ndarray] = {}
    stages, rules = verdict["stage"].dictionary_encode(), verdict["rule"].dictionary_encode()
    code = stages.indices.fill_null(0).to_numpy().astype(np.int64) * (len(rules.dictionary) + 1)
    code += rules.indices.fill_null(0).to_numpy()
    for one in np.unique(code[~kept]):
        here = (code == one) & ~kept
        first = int(np.flatnonzero(here)[0])
        by_reason[verdict["stage"][first].as_py(), verdict["rule"][first].as_py()] = here
    for (stage, rule), here in sorted(by_reason.items()):
        drops.append([stage, rule, int(here.sum()), int(size[here].sum())])
    cluster_size = verdict["cluster_size"].fill_null(0).to_numpy()[kept]
    sides = verdict["split"].value_counts().to_pylist()
    return {
        "kept": int(kept.sum()),
        "kept_bytes": int(size[kept].sum()),
        "drops": drops,
        "splits": {entry["values"]: entry["counts"] for entry in sides if entry["values"] is not None},
        "renamed": renamed,
        "clusters": int((cluster_size > 1).sum()),
        "largest_cluster": int(cluster_size.max(initial=0)),
    }


class WriteVerdicts(beam.DoFn):
    """Write the verdict over a part; passes on a summary (JSON)."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def setup(self) -> None:
        self._documents = Documents(self._decision)
        table = self._documents.recorded()
        self._recorded = None if table is None else Recorded(table)

    def process(self, part: int) -> Iterator[tuple[int, bytes]]:
        documents = self._documents
        clusters = read_table(self._decision.tmp("clusters", f"{part}.arrow"))
        verdict = part_verdict(documents, part, clusters, self._recorded)
        name = f"{part}.arrow"
        sha256 = write_batch(self._decision.uri(name), verdict)
        summary = summarise(verdict, documents.parts.open(part).floats("num_bytes"), documents.judged(part).renamed)
        summary["verdict"] = {"part": part, "path": name, "rows": verdict.num_rows, "sha256": sha256}
        yield 0, json.dumps(summary).encode()


class CloseDecision(beam.DoFn):
    """Write `decision.json`, by which a decision is complete: the funnel of all parts."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        funnel = add_up(map(json.loads, element[1]), self._decision.recipe().rules)
        dropped = sum(funnel.dropped.values())
        if not funnel.records_read == funnel.kept + dropped == self._decision.rows:
            raise ConservationError(
                f"{self._decision.rows} records in the parts, {funnel.records_read} verdicts, {funnel.kept} kept "
                f"and {dropped} dropped: a record was lost or counted twice"
            )
        storage.write(self._decision.uri("decision.json"), funnel.to_json())
        yield funnel.records_read
