"""The phases of a run as the user gives them, checked, and the one table of all their shards.

Contracts, section 7. Everything that can be refused before a batch is made is refused here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trainer.order.mixture import CYCLE, normalised, parse_decimal, quotas
from trainer.order.shard_table import PACKINGS, Shards, digest_words, sort_names
from trainer.order.source_order import Reads

__all__ = ["Phase", "PreparedPhase", "ShardTable", "prepare", "refuse_small_sources"]

AT_CAP = ("redistribute", "stop")


@dataclass(frozen=True)
class Phase:
    """Settings that hold from batch `start` to the next phase. Weights and caps are decimal texts, by source."""

    start: int  # batch
    global_batch: int  # sequences
    sequence_length: int  # tokens
    packing: str  # windows, documents
    weights: Mapping[str, str]  # the sources that are read
    shards: Shards
    max_epochs: Mapping[str, str] = field(default_factory=dict)  # counted from the run's start
    at_cap: str = "redistribute"  # or stop


@dataclass(frozen=True, eq=False)
class ShardTable:
    """Every shard of every phase once, by (source, sha256). A shard's id is its row here."""

    sources: tuple[str, ...]  # sorted by UTF-8 bytes
    source_N: NDArray[np.int32]  # row of `sources`
    sha256_N: NDArray[np.uint8]  # (N, 32)

    def source_of(self, sha256: str) -> str:
        """The name of a shard's source, of several the first; sha256 in hex. Raises KeyError for no shard of these."""
        found_N = (self.sha256_N == np.frombuffer(bytes.fromhex(sha256), np.uint8)).all(axis=1)
        if not found_N.any():
            raise KeyError(sha256)
        return self.sources[self.source_N[found_N.argmax()]]


@dataclass(frozen=True, eq=False)
class PreparedPhase:
    """A phase in the run's own numbers: sources as rows of the table's."""

    phase: Phase
    weights: dict[int, Fraction]  # normalised, in order of names
    caps: dict[int, Fraction]
    reads: list[Reads]  # by source of the run
    rewindow: bool  # another generation, sequence length or packing than the phase before, or the first phase


def prepare(seed: int, phases: Sequence[Phase]) -> tuple[ShardTable, list[PreparedPhase]]:
    """Check a run's phases and number their shards. Raises ValueError for all that no batch is needed to refuse."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed={seed}: expected a whole number from 0 to 2^64 - 1")
    if not phases or phases[0].start != 0:
        starts = [phase.start for phase in phases]
        raise ValueError(f"phases start at batches {starts}: expected the first phase to start at batch 0")
    for before, after in pairwise(phases):
        if after.start <= before.start:
            raise ValueError(
                f"a phase that starts at batch {after.start} follows one that starts at batch {before.start}: "
                "put phases in order, each from a batch of its own"
            )
    for phase in phases:
        _check_settings(phase)
    table, ids = _number_shards([phase.shards for phase in phases])
    prepared: list[PreparedPhase] = []
    for phase, ids_N in zip(phases, ids, strict=True):
        prepared.append(_prepare(phase, ids_N, table, prepared[-1] if prepared else None))
    return table, prepared


def refuse_small_sources(prepared: PreparedPhase, names: Sequence[str], sources: Sequence[int]) -> NDArray[np.int64]:
    """The quotas of these sources in a cycle. Raises ValueError where one is 0, or more than the source can give."""
    phase = prepared.phase
    quotas_S = quotas([prepared.weights[source] for source in sources])
    for source, quota in zip(sources, quotas_S.tolist(), strict=True):
        rows = int(prepared.reads[source].rows_N.sum())
        cut = f"sequence_length={phase.sequence_length}, packing: {phase.packing}"
        if quota == 0:
            raise ValueError(
                f"weight {phase.weights[names[source]]} of source {names[source]!r} is less than one sample in "
                f"{CYCLE:,}: raise it, or leave the source out"
            )
        if rows == 0:
            raise ValueError(
                f"source {names[source]!r} has no row at {cut}: shorten the sequence, or leave the source out of the "
                "weights"
            )
        if rows * CYCLE < quota * phase.global_batch:
            share = quota * phase.global_batch / CYCLE
            raise ValueError(
                f"source {names[source]!r} has {rows} rows at {cut}, fewer than its {share:.1f} of each batch: lower "
                f"global_batch={phase.global_batch} or its weight, or leave it out"
            )
    return quotas_S


def _check_settings(phase: Phase) -> None:
    where = f"phase at batch {phase.start}"
    for name in ("global_batch", "sequence_length"):
        if getattr(phase, name) < 1:
            raise ValueError(f"{where}: {name}={getattr(phase, name)}: expected at least 1")
    if phase.packing not in PACKINGS:
        raise ValueError(f"{where}: packing={phase.packing!r}: expected one of {', '.join(PACKINGS)}")
    if phase.at_cap not in AT_CAP:
        raise ValueError(f"{where}: at_cap={phase.at_cap!r}: expected one of {', '.join(AT_CAP)}")
    if not 1 <= len(phase.weights) <= CYCLE:
        raise ValueError(f"{where}: weights name {len(phase.weights)} sources: expected 1 to {CYCLE:,}")
    for name in phase.weights:
        if name not in phase.shards.sources:
            has = ", ".join(phase.shards.sources) or "none"
            raise ValueError(f"{where}: weights name source {name!r}, which has no shard; the data's sources: {has}")
    for name in phase.max_epochs:
        if name not in phase.weights:
            raise ValueError(f"{where}: max_epochs names source {name!r}, which has no weight: give it one or drop it")


def _prepare(phase: Phase, ids_N: NDArray[np.int64], table: ShardTable, before: PreparedPhase | None) -> PreparedPhase:
    where = f"phase at batch {phase.start}"
    number = {name: source for source, name in enumerate(table.sources)}
    named = sorted(phase.weights, key=lambda name: number[name])
    weights = normalised(
        [
            parse_decimal(phase.weights[name], f"{where}: weight of {name!r}", "leave the source out to not read it")
            for name in named
        ]
    )
    caps = {
        number[name]: parse_decimal(cap, f"{where}: max_epochs of {name!r}", "drop it to not limit the source")
        for name, cap in phase.max_epochs.items()
    }
    rewindow = before is None or (
        (phase.sequence_length, phase.packing) != (before.phase.sequence_length, before.phase.packing)
        or not phase.shards.equals(before.phase.shards)
    )
    reads = _reads(phase, ids_N, table) if rewindow or before is None else before.reads
    prepared = PreparedPhase(phase, dict(zip((number[n] for n in named), weights, strict=True)), caps, reads, rewindow)
    refuse_small_sources(prepared, table.sources, list(prepared.weights))
    return prepared


def _reads(phase: Phase, ids_N: NDArray[np.int64], table: ShardTable) -> list[Reads]:
    """What the phase reads of each source of the run."""
    rows_N = phase.shards.rows(phase.sequence_length, phase.packing)
    has_rows = np.flatnonzero(rows_N)
    by_id = has_rows[np.argsort(ids_N[has_rows], kind="stable")]
    ids_N, rows_N = ids_N[by_id], rows_N[by_id].astype(np.int64)
    twice = np.flatnonzero(ids_N[1:] == ids_N[:-1])
    if len(twice):
        shard = int(ids_N[twice[0]])
        raise ValueError(
            f"source {table.sources[table.source_N[shard]]!r} has two shards with sha256 "
            f"{table.sha256_N[shard].tobytes().hex()}: a dataset lists a shard once; drop one of them"
        )
    edges = np.searchsorted(table.source_N[ids_N], np.arange(len(table.sources) + 1))
    return [
        Reads(phase.sequence_length, phase.packing, ids_N[first:last], rows_N[first:last])
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def _number_shards(listings: Sequence[Shards]) -> tuple[ShardTable, list[NDArray[np.int64]]]:
    """The table of all shards, and each listing's ids, in its own order."""
    unique = list({id(shards): shards for shards in listings}.values())
    sources = sort_names(name for shards in unique for name in shards.sources)
    number = {name: source for source, name in enumerate(sources)}
    source_N = np.concatenate([np.array([number[name] for name in s.sources], np.int32)[s.source_N] for s in unique])
    sha256_N = np.concatenate([shards.sha256_N for shards in unique])
    words = digest_words(sha256_N)
    order = np.lexsort((words[:, 0], source_N))
    if (np.diff(words[order, 0]) == 0).any():  # the first 8 bytes do not decide: a shard of several generations
        order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0], source_N))
    source_N, sha256_N, words = source_N[order], sha256_N[order], words[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (source_N[1:] != source_N[:-1]) | (words[1:] != words[:-1]).any(axis=1)
    ids = np.empty(len(order), np.int64)
    ids[order] = np.cumsum(fresh) - 1
    parts = dict(zip(map(id, unique), np.split(ids, np.cumsum([len(shards) for shards in unique])[:-1]), strict=True))
    table = ShardTable(tuple(sources), source_N[fresh], sha256_N[fresh])
    return table, [parts[id(shards)] for shards in listings]
