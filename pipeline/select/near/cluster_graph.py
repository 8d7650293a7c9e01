"""The documents that have a duplicate, as a graph in arrays on local disk."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.select.decision.survivor_order import preference_keys
from pipeline.select.documents import Documents
from pipeline.select.exact.record_identity import final_ids
from pipeline.select.rows import address
from schemas import storage

__all__ = ["EQUAL", "DiskArrays", "Graph", "build_graph"]

EQUAL = 2.0  # as a similarity: equal texts, which are joined wherever anything is


class DiskArrays:
    """Arrays in files of a folder that is gone at the end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gristmill-clusters-")
        self.path = Path(self._folder.name)
        self._count = 0

    def new(self, shape: "int | tuple[int, ...]", dtype: Any) -> np.ndarray:
        """A zeroed array; its pages take disk when they are written."""
        if np.prod(shape) == 0:
            return np.zeros(shape, dtype)
        self._count += 1
        # As a plain ndarray: compiled kernels tell a memmap from one.
        return np.memmap(self.path / f"{self._count}", dtype, "w+", shape=shape).view(np.ndarray)

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


@dataclass
class Graph:
    """Documents that have a duplicate (nodes, in the order of their addresses) and what joins them."""

    firsts: np.ndarray  # (parts + 1,) nodes before each part
    rows: np.ndarray  # (M,) row of each node in its part
    copy_of: np.ndarray  # (M,) the node whose text it repeats; -1: none
    left: np.ndarray  # (E,) nodes
    right: np.ndarray
    similarity: np.ndarray  # (E,) float64, or EQUAL
    ids: np.ndarray  # (M, 2) final doc_ids
    keys: np.ndarray  # (preferences, M)


def build_graph(documents: Documents, names: Sequence[str], disk: DiskArrays) -> Graph:
    """The graph of exact copies and of the edges in files `names`."""
    parts = documents.parts
    touched = disk.new(parts.rows, np.bool_)
    num_edges = 0
    for a, b, _ in _edges(documents, names, disk):
        touched[parts.positions(a)] = True
        touched[parts.positions(b)] = True
        num_edges += a.size
    of_part = [np.count_nonzero(touched[start:end]) for start, end in itertools.pairwise(parts.bases)]
    firsts = np.concatenate([[0], np.cumsum(of_part)]).astype(np.int64)
    size = int(firsts[-1])
    number = disk.new(parts.rows, np.int64)
    np.cumsum(touched, out=number)
    number -= 1
    graph = Graph(
        firsts,
        disk.new(size, np.int64),
        disk.new(size, np.int64),
        disk.new(num_edges, np.int64),
        disk.new(num_edges, np.int64),
        disk.new(num_edges, np.float64),
        disk.new((size, 2), np.uint64),
        disk.new((len(documents.recipe.prefer), size), np.float64),
    )
    _join(graph, documents, names, number, disk)
    _describe(graph, documents, touched)
    return graph


def _join(graph: Graph, documents: Documents, names: Sequence[str], number: np.ndarray, disk: DiskArrays) -> None:
    """Fill in the edges; `number` is the node of each row of all parts."""
    parts = documents.parts
    graph.copy_of[:] = -1
    done = 0
    for a, b, similarity in _edges(documents, names, disk):
        end = done + a.size
        graph.left[done:end], graph.right[done:end] = number[parts.positions(a)], number[parts.positions(b)]
        graph.similarity[done:end] = similarity
        done = end
        if a.size and similarity[0] == EQUAL:
            graph.copy_of[number[parts.positions(a)]] = number[parts.positions(b)]


def _describe(graph: Graph, documents: Documents, touched: np.ndarray) -> None:
    """Fill in each node's row, doc_id and preferences."""
    parts = documents.parts
    for place, part in enumerate(parts.refs):
        start, end = graph.firsts[place], graph.firsts[place + 1]
        if start == end:
            continue
        columns = parts.open(part.number)
        rows = np.flatnonzero(touched[parts.bases[place] : parts.bases[place + 1]])
        graph.rows[start:end] = rows
        graph.ids[start:end] = final_ids(columns, documents.identities(part.number), rows)
        graph.keys[:, start:end] = preference_keys(columns, documents.recipe.prefer, rows)


def _edges(
    documents: Documents, names: Sequence[str], disk: DiskArrays
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Addresses and similarities: (copy, first with its text, EQUAL) of each part, then the verified pairs."""
    for part in documents.parts.refs:
        rows, firsts = documents.copies(part.number)
        yield address(part.number, rows), firsts, np.full(rows.size, EQUAL)
    for name in names:
        path = storage.fetch(documents.decision.tmp(name), disk.path)
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        yield table["a"].to_numpy(), table["b"].to_numpy(), table["similarity"].to_numpy()
