"""Connected components, and shortest chains inside them, over arrays that may lie on disk.

Nodes are numbered 0 .. M-1 in the order of their addresses. Every kernel takes whole arrays and writes into given ones,
so that a memory-mapped file does as well as memory.
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import kernel, njit, types

__all__ = ["adjacency", "best_members", "chains", "component_sizes", "components", "smallest_ids"]

I64 = types.Array(types.int64, 1, "C")
U64 = types.Array(types.uint64, 2, "C")
F64 = types.Array(types.float64, 1, "C")
KEYS = types.Array(types.float64, 2, "C")
BOOL = types.Array(types.boolean, 1, "C")
BYTE = types.Array(types.int8, 1, "C")


@njit(nogil=True)
def _find(root: Any, node: int) -> int:
    """The smallest node of the component; halves the path on the way."""
    while root[node] != node:
        root[node] = root[root[node]]
        node = root[node]
    return node


@kernel(types.void(I64, I64, I64, F64, types.float64))
def components(root: Any, left: Any, right: Any, similarity: Any, at: float) -> None:
    """Fill `root` with the smallest node of each node's component, joined by edges of at least that similarity."""
    for node in range(root.size):
        root[node] = node
    for edge in range(left.size):
        if similarity[edge] >= at:
            a, b = _find(root, left[edge]), _find(root, right[edge])
            if a < b:
                root[b] = a
            else:
                root[a] = b
    for node in range(root.size):
        root[node] = _find(root, node)


@njit(nogil=True)
def _id_before(ids: Any, a: int, b: int) -> bool:
    """Whether a's doc_id is smaller; of equal ones the earlier node's is."""
    if ids[a, 0] != ids[b, 0]:
        return ids[a, 0] < ids[b, 0]
    if ids[a, 1] != ids[b, 1]:
        return ids[a, 1] < ids[b, 1]
    return a < b


@kernel(types.void(I64, I64, KEYS, U64, BOOL))
def best_members(best: Any, root: Any, keys: Any, ids: Any, eligible: Any) -> None:
    """best[r] = the eligible node of the component of root r that comes first by keys, doc_id, address; -1: none."""
    best[:] = -1
    for node in range(root.size):
        if not eligible[node]:
            continue
        holder = best[root[node]]
        if holder < 0:
            best[root[node]] = node
            continue
        better = _id_before(ids, node, holder)
        for key in range(keys.shape[0]):
            if keys[key, node] != keys[key, holder]:
                better = keys[key, node] < keys[key, holder]
                break
        if better:
            best[root[node]] = node


@kernel(types.void(I64, I64, U64))
def smallest_ids(smallest: Any, root: Any, ids: Any) -> None:
    """smallest[r] = the node with the smallest doc_id of the component of root r."""
    smallest[:] = -1
    for node in range(root.size):
        holder = smallest[root[node]]
        if holder < 0 or _id_before(ids, node, holder):
            smallest[root[node]] = node


@kernel(types.void(I64, I64))
def component_sizes(sizes: Any, root: Any) -> None:
    """sizes[r] = nodes of the component of root r."""
    sizes[:] = 0
    for node in range(root.size):
        sizes[root[node]] += 1


@kernel(types.void(I64, I64, F64, I64, I64, F64, types.float64))
def adjacency(firsts: Any, neighbours: Any, closeness: Any, left: Any, right: Any, similarity: Any, at: float) -> None:
    """Each node's neighbours by edges of at least that similarity: neighbours[firsts[n]:firsts[n + 1]]."""
    firsts[:] = 0
    for edge in range(left.size):
        if similarity[edge] >= at:
            firsts[left[edge] + 1] += 1
            firsts[right[edge] + 1] += 1
    for node in range(firsts.size - 1):
        firsts[node + 1] += firsts[node]
    total = firsts[firsts.size - 1]
    # Filled from each node's end downwards; what is left in `firsts` afterwards are the starts again, shifted by one.
    for edge in range(left.size):
        if similarity[edge] >= at:
            a, b = left[edge], right[edge]
            firsts[a + 1] -= 1
            neighbours[firsts[a + 1]], closeness[firsts[a + 1]] = b, similarity[edge]
            firsts[b + 1] -= 1
            neighbours[firsts[b + 1]], closeness[firsts[b + 1]] = a, similarity[edge]
    for node in range(firsts.size - 1):
        firsts[node] = firsts[node + 1]
    firsts[firsts.size - 1] = total


@kernel(types.int64(I64, I64, F64, I64, I64, I64, F64, U64))
def chains(best: Any, twin: Any, value: Any, hops: Any, firsts: Any, neighbours: Any, closeness: Any, ids: Any) -> int:
    """Shortest chains from the best members: each other node's neighbour one hop nearer to its own (twin; -1: none).

    Of several such neighbours the one with the smallest doc_id is the twin; `value` is the similarity to it. `twin`
    serves as the queue before. Returns the number of nodes that a best member reaches, itself included.
    """
    hops[:] = -1
    queue = twin
    tail = 0
    for root in range(best.size):
        if best[root] >= 0:
            hops[best[root]] = 0
            queue[tail] = best[root]
            tail += 1
    head = 0
    while head < tail:
        node = queue[head]
        head += 1
        for place in range(firsts[node], firsts[node + 1]):
            other = neighbours[place]
            if hops[other] < 0:
                hops[other] = hops[node] + 1
                queue[tail] = other
                tail += 1
    for node in range(hops.size):
        twin[node], value[node] = -1, np.nan
        if hops[node] <= 0:
            continue
        for place in range(firsts[node], firsts[node + 1]):
            other = neighbours[place]
            if hops[other] == hops[node] - 1 and (twin[node] < 0 or _id_before(ids, other, twin[node])):
                twin[node], value[node] = other, closeness[place]
    return tail
