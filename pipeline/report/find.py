"""The second pass: the rows of some clusters and some documents, found by the ledgers' key columns."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.dataset import Dataset, Place
from pipeline.report.report_data import Sample
from pipeline.report.scan_ledgers import Chosen, keys_of

__all__ = ["find_clusters", "find_documents", "find_records", "sample_of"]

HASH = pa.binary(16)


def find_clusters(dataset: Dataset, clusters: Iterable[bytes], limit: int) -> dict[bytes, list[Place]]:
    """Of each cluster the kept documents, then others with the smallest ids, at most `limit` of either."""
    wanted = pa.array(sorted(clusters), HASH)
    kept = {name: Chosen(limit) for name in wanted.to_pylist()}
    others = {name: Chosen(limit) for name in wanted.to_pylist()}
    if not len(wanted):
        return {}
    for ledger in dataset.ledgers():
        for first, batch in dataset.ledger_batches(ledger, ["doc_id", "cluster", "kept"]):
            rows = pc.indices_nonzero(pc.is_in(batch["cluster"], value_set=wanted))
            inside = batch.take(rows)
            for row, key, name, is_kept in zip(
                rows.to_pylist(),
                keys_of(inside["doc_id"]).tolist(),
                inside["cluster"].to_pylist(),
                inside["kept"].to_pylist(),
                strict=True,
            ):
                (kept if is_kept else others)[name].offer(key, Place(ledger, first + row))
    return {name: kept[name].places() + others[name].places() for name in kept}


def find_documents(dataset: Dataset, ids: Iterable[bytes]) -> dict[bytes, Place]:
    """Where some documents stand in the ledgers; those that are nowhere are left out."""
    wanted = pa.array(sorted(ids), HASH)
    found: dict[bytes, Place] = {}
    if not len(wanted):
        return found
    for ledger in dataset.ledgers():
        for first, batch in dataset.ledger_batches(ledger, ["doc_id"]):
            rows = pc.indices_nonzero(pc.is_in(batch["doc_id"], value_set=wanted))
            for row, name in zip(rows.to_pylist(), batch["doc_id"].take(rows).to_pylist(), strict=True):
                found[name] = Place(ledger, first + row)
    return found


def find_records(dataset: Dataset, record_id: str) -> list[Place]:
    """The rows of the records that have an id; inputs do not keep it unique."""
    found = []
    for ledger in dataset.ledgers():
        for first, batch in dataset.ledger_batches(ledger, ["record_id"]):
            rows = pc.indices_nonzero(pc.fill_null(pc.equal(batch["record_id"], record_id), False))
            found += [Place(ledger, first + row) for row in rows.to_pylist()]
    return found


def sample_of(row: dict[str, Any]) -> Sample:
    """A ledger's row as a sample, without its text."""
    inside = f" + {row['offset']}" if row["offset"] else ""
    return Sample(
        doc_id=row["doc_id"].hex(),
        url=row["url"],
        source=row["source"],
        place=f"{row['input']} at {row['position']}{inside}",
        language=row["language"],
        num_words=row["num_words"],
        value=row["value"],
        threshold=row["threshold"],
    )
