"""From edges to clusters: who survives, who is whose twin, which side of the split a cluster stands on.

One worker does it for the whole corpus. It holds only documents that have a duplicate, in arrays on its local disk
(TMPDIR; about 150 bytes each and 50 an edge, and 9 for every other document), so what it needs of memory is a cache.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.select.columns import as_ids
from pipeline.select.context import Decision
from pipeline.select.decision.split import NO_SIDE, TRAIN, VALIDATION, Recorded, sides_of_clusters
from pipeline.select.documents import Documents
from pipeline.select.files import write_batch
from pipeline.select.near.cluster_graph import EQUAL, DiskArrays, Graph, build_graph
from pipeline.select.near.union_find import adjacency, best_members, chains, component_sizes, components, smallest_ids
from schemas.arrow import HASH
from schemas.recipe import Recipe

__all__ = ["CLUSTERS", "CONFLICT", "COPY", "KEPT", "NEAR", "JoinClusters"]

KEPT, COPY, NEAR, CONFLICT = range(4)  # what becomes of a document

# Sparse: the documents of a part that have a duplicate.
CLUSTERS = pa.schema(
    [
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("fate", pa.uint8(), nullable=False),
        pa.field("duplicate_of", HASH),
        pa.field("twin", HASH),
        pa.field("value", pa.float64()),
        pa.field("cluster", HASH, nullable=False),
        pa.field("cluster_size", pa.uint32(), nullable=False),
        pa.field("side", pa.int8(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Outcome:
    """What becomes of the nodes."""

    root: np.ndarray  # (M,) the node that stands for the component
    smallest: np.ndarray  # (M,) of a root: the node whose doc_id names the cluster
    sizes: np.ndarray  # (M,) of a root: documents of the cluster
    side: np.ndarray  # (M,) int8
    conflict: np.ndarray  # (M,) bool: joins a training and a validation cluster
    best: np.ndarray  # (M,) of a root: the survivor; -1: all are in conflict
    twin: np.ndarray  # (M,) the next node on a shortest chain to the survivor; -1: none
    value: np.ndarray  # (M,) similarity to it


def settle(
    graph: Graph,
    recipe: Recipe,
    drop_at: float | None,
    split_at: float | None,
    recorded: Recorded | None,
    disk: DiskArrays,
) -> Outcome:
    """Components, sides, survivors and chains; a level that is None joins equal texts only."""
    size = graph.rows.size
    root, smallest, sizes = (disk.new(size, np.int64) for _ in range(3))
    at, split_at = EQUAL if drop_at is None else drop_at, EQUAL if split_at is None else split_at
    components(root, graph.left, graph.right, graph.similarity, at)
    split_root = root
    if split_at != at:
        split_root = disk.new(size, np.int64)
        components(split_root, graph.left, graph.right, graph.similarity, split_at)
    smallest_ids(smallest, split_root, graph.ids)
    side, conflict = _sides(graph, split_root, smallest, recorded, recipe)
    smallest_ids(smallest, root, graph.ids)
    component_sizes(sizes, root)
    best, twin, value = disk.new(size, np.int64), disk.new(size, np.int64), disk.new(size, np.float64)
    outcome = Outcome(root, smallest, sizes, side, conflict, best, twin, value)
    if recipe.exact or recipe.near:
        # What cannot choose a side cannot be kept, so it is no survivor either.
        best_members(best, root, graph.keys, graph.ids, ~conflict)
        _find_chains(graph, outcome, at, disk)
    return outcome


def _find_chains(graph: Graph, outcome: Outcome, at: float, disk: DiskArrays) -> None:
    """Fill in twins and values."""
    size, num_edges = graph.rows.size, graph.left.size
    firsts, hops = disk.new(size + 1, np.int64), disk.new(size, np.int64)
    neighbours, closeness = disk.new(2 * num_edges, np.int64), disk.new(2 * num_edges, np.float64)
    adjacency(firsts, neighbours, closeness, graph.left, graph.right, graph.similarity, at)
    chains(outcome.best, outcome.twin, outcome.value, hops, firsts, neighbours, closeness, graph.ids)


def _sides(
    graph: Graph, root: np.ndarray, smallest: np.ndarray, recorded: Recorded | None, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """The side of each node, and which nodes join a training and a validation cluster."""
    side_of_root = np.zeros(root.size, np.int8)
    step = 1 << 20
    for start in range(0, root.size, step):
        roots = start + np.flatnonzero(smallest[start : start + step] >= 0)
        clusters = graph.ids[smallest[roots]]
        side_of_root[roots] = sides_of_clusters(clusters, recipe.seed, recipe.split.validation)
    if recorded is None:
        return side_of_root[root], np.zeros(root.size, bool)
    own = recorded.sides(graph.ids)
    # Equal texts share what one of them has: of a representative without a recorded side, its first copy's.
    copies = np.flatnonzero((graph.copy_of >= 0) & (own != NO_SIDE))[::-1]
    of_text = np.zeros(root.size, np.int8)
    of_text[graph.copy_of[copies]] = own[copies]
    of_text = np.where(own != NO_SIDE, own, of_text)
    inherited = np.where((own == NO_SIDE) & (graph.copy_of >= 0), of_text[graph.copy_of], of_text)
    holds = np.zeros((root.size, 3), bool)
    holds[root, own] = True
    for side in (TRAIN, VALIDATION):
        side_of_root[holds[:, side]] = side
    conflict = (inherited == NO_SIDE) & holds[root, TRAIN] & holds[root, VALIDATION]
    return np.where(inherited != NO_SIDE, inherited, side_of_root[root]).astype(np.int8), conflict


def clusters_of(graph: Graph, outcome: Outcome, recipe: Recipe, part_place: int) -> pa.RecordBatch:
    """CLUSTERS of a part."""
    nodes = np.arange(graph.firsts[part_place], graph.firsts[part_place + 1])
    root, conflict = outcome.root[nodes], outcome.conflict[nodes]
    survivor, twin = outcome.best[root], outcome.twin[nodes]
    if recipe.exact or recipe.near:
        copy = (graph.copy_of[nodes] >= 0) & (recipe.exact is not None)
        fate = np.select([survivor == nodes, survivor < 0, copy], [KEPT, CONFLICT, COPY], NEAR).astype(np.uint8)
    else:
        fate = np.where(conflict, CONFLICT, KEPT).astype(np.uint8)
    dropped = (fate == COPY) | (fate == NEAR)
    assert (twin[dropped] >= 0).all(), "a duplicate without a chain to its survivor"
    value = outcome.value[nodes]
    return pa.record_batch(
        [
            pa.array(graph.rows[nodes], pa.uint32()),
            pa.array(fate),
            as_ids(graph.ids[np.where(dropped, survivor, 0)], dropped),
            as_ids(graph.ids[np.where(dropped, twin, 0)], dropped),
            pa.array(np.where(value == EQUAL, 1.0, value), mask=~dropped),
            as_ids(graph.ids[outcome.smallest[root]]),
            pa.array(outcome.sizes[root], pa.uint32()),
            pa.array(outcome.side[nodes]),
        ],
        schema=CLUSTERS,
    )


class JoinClusters(beam.DoFn):
    """Write what becomes of every document that has a duplicate, by part; then name all parts."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def process(self, element: tuple[int, Iterable[str]]) -> Iterator[int]:
        decision, names = self._decision, sorted({name for name in element[1] if name})
        documents = Documents(decision)
        table = documents.recorded()
        recorded = None if table is None else Recorded(table)
        disk = DiskArrays()
        try:
            graph = build_graph(documents, names, disk)
            outcome = settle(graph, documents.recipe, decision.drop_at, decision.split_at, recorded, disk)
            for place, part in enumerate(documents.parts.refs):
                batch = clusters_of(graph, outcome, documents.recipe, place)
                write_batch(decision.tmp("clusters", f"{part.number}.arrow"), batch)
                yield part.number
        finally:
            disk.close()
