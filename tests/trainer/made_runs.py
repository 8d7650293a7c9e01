"""Runs for tests of the order: shards made of numbers, as the trainer takes them and as the slow reference does."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from tests.trainer.slow_order import SlowPhase
from trainer.order.batch_order import Batch, Order, Phase
from trainer.order.shard_table import Shards

LENGTHS = (8, 12)  # sequence lengths that every made shard counts packed rows for


def sha(number: int) -> bytes:
    """The digest of a made shard."""
    return hashlib.sha256(f"shard{number}".encode()).digest()


def make_shards(
    listing: Iterable[tuple[str, int, int]],
    replaces: Mapping[int, Sequence[int]] | None = None,
    sources: Sequence[str] = (),
) -> Shards:
    """Shards of (source, number, tokens); their packed rows are one less than their windows, where they have any."""
    rows = list(listing)
    names = tuple(sorted({name for name, _, _ in rows} | set(sources), key=str.encode))
    tokens = np.array([tokens for _, _, tokens in rows], np.int64)
    return Shards(
        sources=names,
        source_N=np.array([names.index(name) for name, _, _ in rows], np.int32),
        sha256_N=np.frombuffer(b"".join(sha(number) for _, number, _ in rows), np.uint8).reshape(-1, 32),
        tokens_N=tokens,
        packed_rows={length: np.maximum(tokens // length - 1, 0) for length in LENGTHS},
        replaces={sha(new): tuple(map(sha, old)) for new, old in (replaces or {}).items()},
    )


def rows_of(order: Order, batch: Batch) -> list[tuple[bytes, int, bool, int, bytes, int]]:
    """A batch as the slow reference gives it."""
    names = [order.shards.sources[source].encode() for source in batch.source_G]
    digests = [order.shards.sha256_N[shard].tobytes() for shard in batch.shard_G]
    columns = (batch.epoch_G.tolist(), (~batch.carried_G).tolist(), batch.place_G.tolist())
    return list(zip(names, *columns, digests, batch.row_G.tolist(), strict=True))


@dataclass
class Run:
    """A run in both forms."""

    seed: int
    phases: list[Phase] = field(default_factory=list)
    slow: list[SlowPhase] = field(default_factory=list)
    batches: int = 0  # to compare


@dataclass
class _Data:
    """Shards in use, as generations pass."""

    in_use: dict[int, tuple[str, int]] = field(default_factory=dict)  # number: source, tokens
    replaces: dict[int, list[int]] = field(default_factory=dict)
    made: int = 0
    generation: int = 0


NAMES = ("web", "wiki-é", "b", "Ω")
WEIGHTS = ("0.02", "0.05", "0.1", "0.3", "1", "2.5")


@st.composite
def random_runs(draw: st.DrawFn) -> Run:
    """Small runs: 1 to 4 sources, 1 to 4 phases in which anything may change, caps and replaced shards."""
    run = Run(seed=draw(st.sampled_from([0, 7, 2**64 - 1])))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    data = _Data()
    for name in names:
        _add(draw, data, name, draw(st.integers(1, 16)))
    start, settings_of = 0, {"length": 8, "packing": "windows", "batch": 6}
    for number in range(draw(st.integers(1, 4))):
        if number:
            start += draw(st.integers(1, 9))
            if draw(st.booleans()):
                _next_generation(draw, data, names)
            if draw(st.integers(0, 3)) == 0:
                settings_of["length"] = draw(st.sampled_from(LENGTHS))
            if draw(st.integers(0, 3)) == 0:
                settings_of["packing"] = draw(st.sampled_from(["windows", "documents"]))
            settings_of["batch"] = draw(st.integers(1, 12))
        _add_phase(draw, run, data, names, start, settings_of)
    run.batches = start + draw(st.integers(4, 16))
    return run


def _add(draw: st.DrawFn, data: _Data, name: str, count: int) -> list[int]:
    added = list(range(data.made, data.made + count))
    for number in added:
        data.in_use[number] = (name, draw(st.integers(0, 60)))
    data.made += count
    return added


def _next_generation(draw: st.DrawFn, data: _Data, names: list[str]) -> None:
    before = dict(data.in_use)
    for name in names:
        here = [number for number, (source, _) in data.in_use.items() if source == name]
        retired = draw(st.lists(st.sampled_from(here), max_size=6, unique=True)) if here else []
        for number in retired:
            del data.in_use[number]
        added = _add(draw, data, name, draw(st.integers(0, 5)))
        for number in retired:
            for new in draw(st.lists(st.sampled_from(added), max_size=2, unique=True)) if added else []:
                data.replaces.setdefault(new, []).append(number)
    if not data.in_use:
        _add(draw, data, names[0], 4)
    data.generation += data.in_use != before  # with the same shards, it is the same for the order


def _add_phase(
    draw: st.DrawFn, run: Run, data: _Data, names: list[str], start: int, settings_of: dict[str, int | str]
) -> None:
    listing = [(name, number, tokens) for number, (name, tokens) in draw(st.permutations(list(data.in_use.items())))]
    shards = make_shards(listing, data.replaces, names)
    length, packing = int(settings_of["length"]), str(settings_of["packing"])
    counts = shards.rows(length, packing).tolist()
    by_source: dict[str, dict[bytes, int]] = {name: {} for name in names}
    for (name, number, _), rows in zip(listing, counts, strict=True):
        by_source[name][sha(number)] = rows
    # Sources without enough rows are refused, which other tests look at.
    batch = int(settings_of["batch"])
    able = [name for name in names if sum(by_source[name].values()) >= batch] or names
    chosen = draw(st.lists(st.sampled_from(able), min_size=1, unique=True))
    weights = {name: draw(st.sampled_from(WEIGHTS)) for name in chosen}
    caps = {name: draw(st.sampled_from(["0.5", "1", "1.37", "2", "3.01"])) for name in chosen if draw(st.booleans())}
    at_cap = draw(st.sampled_from(["redistribute", "redistribute", "stop"]))
    run.phases.append(Phase(start, batch, length, packing, weights, shards, caps, at_cap))
    replaces = {new: tuple(old) for new, old in shards.replaces.items()}
    run.slow.append(
        SlowPhase(start, batch, (length, packing), weights, by_source, data.generation, replaces, caps, at_cap)
    )
