"""Components, survivors and chains against a plain search of the graph."""

from collections import deque

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.select.near.union_find import adjacency, best_members, chains, component_sizes, components, smallest_ids


def plain_components(size, edges):
    """The smallest node of each node's component, by breadth-first search."""
    near = {node: [] for node in range(size)}
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    root = [-1] * size
    for start in range(size):
        if root[start] < 0:
            root[start] = start
            queue = deque([start])
            while queue:
                for other in near[queue.popleft()]:
                    if root[other] < 0:
                        root[other] = start
                        queue.append(other)
    return root, near


def arrays(edges):
    pairs = np.array([(a, b) for a, b, _ in edges], np.int64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy(), np.array([s for *_, s in edges], np.float64)


def settle(size, edges, ids, keys, at=0.5):
    """Everything that the kernels make of a graph."""
    left, right, similarity = arrays(edges)
    root, best, smallest, sizes, hops, twin = (np.zeros(size, np.int64) for _ in range(6))
    value = np.zeros(size)
    components(root, left, right, similarity, at)
    best_members(best, root, keys, ids, np.ones(size, bool))
    smallest_ids(smallest, root, ids)
    component_sizes(sizes, root)
    firsts, neighbours = np.zeros(size + 1, np.int64), np.zeros(2 * len(edges), np.int64)
    closeness = np.zeros(2 * len(edges))
    adjacency(firsts, neighbours, closeness, left, right, similarity, at)
    reached = chains(best, twin, value, hops, firsts, neighbours, closeness, ids)
    return root, best, smallest, sizes, hops, twin, value, reached


def numbered_ids(size):
    return np.stack([np.zeros(size, np.uint64), np.arange(size, dtype=np.uint64)], axis=1)


graphs = st.integers(1, 25).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(
            st.tuples(
                st.integers(0, size - 1), st.integers(0, size - 1), st.sampled_from([0.25, 0.5, 0.75, 1.0])
            ).filter(lambda edge: edge[0] != edge[1]),
            max_size=40,
        ),
        st.permutations(range(size)),
        st.lists(st.sampled_from([0.0, 1.0, np.inf]), min_size=2 * size, max_size=2 * size),
    )
)


@settings(max_examples=80, deadline=None)
@given(graphs)
def test_clusters_survivors_and_chains_are_those_of_a_plain_search(graph):
    size, edges, order, key_values = graph
    ids = numbered_ids(size)[list(order)]
    keys = np.array(key_values, np.float64).reshape(2, size)
    root, best, smallest, sizes, hops, twin, value, reached = settle(size, edges, ids, keys)
    joined = [(a, b) for a, b, similarity in edges if similarity >= 0.5]
    expected_root, near = plain_components(size, joined)
    assert root.tolist() == expected_root
    assert reached == size
    for start in set(expected_root):
        members = [node for node in range(size) if expected_root[node] == start]
        survivor = min(members, key=lambda n: (keys[0, n], keys[1, n], ids[n, 1]))
        assert best[start] == survivor
        assert smallest[start] == min(members, key=lambda n: ids[n, 1])
        assert sizes[start] == len(members)
        distance = {survivor: 0}
        queue = deque([survivor])
        while queue:
            node = queue.popleft()
            for other in near[node]:
                if other not in distance:
                    distance[other] = distance[node] + 1
                    queue.append(other)
        for node in members:
            assert hops[node] == distance[node]
            if node == survivor:
                assert twin[node] == -1
                continue
            closer = [other for other in near[node] if distance[other] == distance[node] - 1]
            assert twin[node] == min(closer, key=lambda n: ids[n, 1])
            pair = {node, int(twin[node])}
            assert value[node] in {s for a, b, s in edges if {a, b} == pair and s >= 0.5}


def test_a_chain_of_ten_thousand_is_one_cluster():
    size = 10_000
    edges = [(n, n + 1, 0.9) for n in range(size - 1)]
    root, best, _, sizes, hops, twin, _, _ = settle(size, edges, numbered_ids(size), np.zeros((0, size)))
    assert set(root.tolist()) == {0}
    assert (best[0], sizes[0], hops[-1], twin[-1]) == (0, size, size - 1, size - 2)


def test_the_order_of_edges_changes_nothing():
    edges = [(0, 1, 0.9), (2, 3, 0.8), (1, 2, 0.7), (4, 5, 0.9)]
    one = settle(6, edges, numbered_ids(6), np.zeros((0, 6)))
    other = settle(6, [(b, a, s) for a, b, s in reversed(edges)], numbered_ids(6), np.zeros((0, 6)))
    for a, b in zip(one[:-1], other[:-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_who_is_not_eligible_does_not_survive():
    root, best = np.zeros(3, np.int64), np.zeros(3, np.int64)
    left, right, similarity = arrays([(0, 1, 1.0)])
    components(root, left, right, similarity, 0.5)
    best_members(best, root, np.zeros((0, 3)), numbered_ids(3), np.array([False, True, False]))
    assert best.tolist() == [1, -1, -1]
