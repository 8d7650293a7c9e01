"""Edges: the verified pairs of a partition's buckets, written to files whose names go through the pipeline."""

from collections.abc import Iterable, Iterator
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.select.context import Decision
from pipeline.select.files import write_batch
from pipeline.select.near.buckets import Sketches, bucket_edges, group_buckets
from pipeline.select.near.signatures import ShingleSketches, SignatureSketches
from pipeline.select.rows import BUCKET_ROW, EDGE_ROW, unpack

__all__ = ["EDGES", "JoinDivisions", "Key", "VerifyBuckets"]

Key = tuple[int, int, int]  # band, partition, division (0: the partition's undivided buckets)
Centres = beam.pvalue.TaggedOutput[Literal["centres"], tuple[tuple[int, int], bytes]]
EDGES = pa.schema(
    [pa.field(name, pa.from_numpy_dtype(EDGE_ROW[name]), nullable=False) for name in EDGE_ROW.names or ()]
)


class Verifier:
    """Verifies buckets by what the recipe says, down to the lowest similarity that anything asks for."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        parts = decision.parts()
        self._sketches: Sketches = SignatureSketches(parts, decision.recipe().measure.minhash.num_hashes)
        if decision.near().verify == "exact":
            self._sketches = ShingleSketches(decision, parts)
        levels = [level for level in (decision.drop_at, decision.split_at) if level is not None]
        self._floor, self.join = min(levels), max(levels)

    def edges(self, rows: np.ndarray) -> np.ndarray:
        """The verified pairs of BUCKET_ROWs of one band."""
        members, buckets = group_buckets(rows["hash"], rows["address"])
        return bucket_edges(members, buckets, self._sketches, self._floor, self.join, self._decision.pair_limit)

    def write(self, edges: np.ndarray, name: str) -> Iterator[str]:
        """Write edges, if there are any; yields the file's name."""
        if edges.size:
            edges = np.sort(edges, order=["a", "b"])
            batch = pa.record_batch([np.ascontiguousarray(edges[column]) for column in EDGES.names], schema=EDGES)
            write_batch(self._decision.tmp("edges", f"{name}.arrow"), batch)
            yield f"edges/{name}.arrow"


class VerifyBuckets(beam.DoFn):
    """The pairs of a partition's buckets: names of edge files. Of divided buckets, under the tag `centres`, also the
    members that are left to be compared across divisions: ((band, partition), packed BUCKET_ROWs)."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def setup(self) -> None:
        self._verifier = Verifier(self._decision)

    def process(self, element: tuple[Key, Iterable[bytes]]) -> Iterator[str | Centres]:
        (band, partition, division), packed = element
        rows = unpack(packed, BUCKET_ROW)
        edges = self._verifier.edges(rows)
        yield from self._verifier.write(edges, f"{band}-{partition}-{division}")
        if division:
            joined = np.unique(edges["b"][edges["similarity"] >= self._verifier.join])
            centres = rows[~np.isin(rows["address"], joined)]
            yield beam.pvalue.TaggedOutput("centres", ((band, partition), centres.tobytes()))


class JoinDivisions(beam.DoFn):
    """The pairs between the divisions of a partition's large buckets: names of edge files."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def setup(self) -> None:
        self._verifier = Verifier(self._decision)

    def process(self, element: tuple[tuple[int, int], Iterable[bytes]]) -> Iterator[str]:
        (band, partition), packed = element
        edges = self._verifier.edges(unpack(packed, BUCKET_ROW))
        yield from self._verifier.write(edges, f"{band}-{partition}-joined")
