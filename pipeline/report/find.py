"""The second pass: the rows of some clusters, found by the ledgers' key column, and rows as samples."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.report_data import Sample
from pipeline.report.scan_ledgers import Chosen, keys_of
from schemas.dataset import Dataset, Place

__all__ = ["find_clusters", "sample_of"]

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
