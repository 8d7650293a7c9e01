"""Near duplicates: buckets by band, verified pairs, files of edges.

Only documents that passed the rules and are the first with their text get into buckets; what crosses the shuffle is
(hash of the band, address), 16 bytes, many to an element. What verifies members is in `signatures.py`.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np

from pipeline.select.context import Decision
from pipeline.select.documents import Documents
from pipeline.select.near.buckets import group_buckets
from pipeline.select.near.hot_buckets import FindHeavy
from pipeline.select.near.signatures import ROW, WriteMembers, WriteShingles
from pipeline.select.near.verify_pairs import JoinDivisions, Key, VerifyBuckets
from pipeline.select.rows import BUCKET_ROW, SHIFT, pack, partition_of, unpack

__all__ = ["FindEdges", "WriteShingleSets"]

ROW_MASK = np.uint64(0xFFFFFFFF)


NONE: list[tuple[int, int, int]] = []


class EmitBuckets(beam.DoFn):
    """A part's documents by band and partition: (Key, packed BUCKET_ROWs). `heavy` are buckets to divide."""

    def __init__(self, decision: Decision, units: range) -> None:
        self._decision = decision
        self._units = units

    def setup(self) -> None:
        self._documents = Documents(self._decision)

    def process(self, part: int, heavy: list[tuple[int, int, int]] = NONE) -> Iterator[tuple[Key, bytes]]:
        addresses, hashes = self._documents.band_hashes(part)
        partitions = self._decision.band_partitions()
        for band in range(hashes.shape[0]):
            first = band * partitions
            selected = range(max(0, self._units.start - first), min(partitions, self._units.stop - first))
            if not selected:
                continue
            rows = np.empty(addresses.size, BUCKET_ROW)
            rows["hash"], rows["address"] = hashes[band], addresses
            undivided = np.ones(addresses.size, bool)
            for _, bucket, divisions in (entry for entry in heavy if entry[0] == band):
                members = rows["hash"] == np.uint64(bucket % (1 << 64))
                undivided &= ~members
                yield from _divide(band, rows[members], partitions, divisions, selected)
            if not undivided.all():
                rows = rows[undivided]
            for partition, packed in pack(rows, partition_of(rows["hash"], partitions), selected):
                yield (band, partition, 0), packed


def _divide(
    band: int, rows: np.ndarray, partitions: int, divisions: int, selected: range
) -> Iterator[tuple[Key, bytes]]:
    """The members of one large bucket, by row modulo `divisions`."""
    if not rows.size or (partition := int(partition_of(rows["hash"][:1], partitions)[0])) not in selected:
        return
    division = ((rows["address"] & ROW_MASK) % np.uint64(divisions)).astype(np.int64)
    for number, packed in pack(rows, division, range(divisions)):
        yield (band, partition, 1 + number), packed


class Members(beam.DoFn):
    """The documents of a partition that share a bucket, by part: (part, packed rows)."""

    def process(self, element: tuple[Key, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        (_, _, division), packed = element
        rows = unpack(packed, BUCKET_ROW)
        # Of a divided bucket a lonely member may meet its like in another division.
        addresses = rows["address"] if division else group_buckets(rows["hash"], rows["address"])[0]
        parts = addresses >> SHIFT
        for part in np.unique(parts):
            yield int(part), (addresses[parts == part] & ROW_MASK).astype(ROW).tobytes()


class GroupBuckets(beam.PTransform):
    """Documents by bucket, for one round of (band, partition)."""

    def __init__(self, decision: Decision, units: range) -> None:
        super().__init__()
        self._decision = decision
        self._units = units

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[tuple[Key, Iterable[bytes]]]:
        emit = EmitBuckets(self._decision, self._units)
        if self._decision.rows <= self._decision.bucket_limit:
            buckets = parts | "EmitBuckets" >> beam.ParDo(emit)
        else:
            heavy = beam.pvalue.AsList(parts | "FindHeavy" >> FindHeavy(self._decision))
            buckets = parts | "EmitBuckets" >> beam.ParDo(emit, heavy)
        return buckets | "GroupBuckets" >> beam.GroupByKey()


class FindEdges(beam.PTransform):
    """Parts in, names of edge files out: one round of (band, partition)."""

    def __init__(self, decision: Decision, units: range) -> None:
        super().__init__()
        self._decision = decision
        self._units = units

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[str]:
        buckets = parts | GroupBuckets(self._decision, self._units)
        if self._decision.rows <= self._decision.bucket_limit:
            return buckets | "VerifyBuckets" >> beam.ParDo(VerifyBuckets(self._decision)).with_output_types(str)
        verified = buckets | "VerifyBuckets" >> (
            beam.ParDo(VerifyBuckets(self._decision))
            .with_output_types(str, centres=tuple[tuple[int, int], bytes])
            .with_outputs("centres", main="names")
        )
        joined = (
            verified.centres
            | "GroupDivisions" >> beam.GroupByKey()
            | "JoinDivisions" >> beam.ParDo(JoinDivisions(self._decision))
        )
        return (verified.names, joined) | "AllEdges" >> beam.Flatten()


class WriteShingleSets(beam.PTransform):
    """Parts in, parts out: one round of finding the documents that share a bucket; after the last, their shingles."""

    def __init__(self, decision: Decision, round_number: int, units: range) -> None:
        super().__init__()
        self._decision = decision
        self._round = round_number
        self._units = units

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[int]:
        members = parts | GroupBuckets(self._decision, self._units) | "Members" >> beam.ParDo(Members())
        every = parts | "EveryPart" >> beam.Map(_no_members)
        written = (
            (every, members)
            | "FlattenMembers" >> beam.Flatten()
            | "MembersByPart" >> beam.GroupByKey()
            | "WriteMembers" >> beam.ParDo(WriteMembers(self._decision, self._round))
        )
        if self._round + 1 < len(self._decision.band_rounds()):
            return written
        return written | "WriteShingles" >> beam.ParDo(WriteShingles(self._decision))


def _no_members(part: int) -> tuple[int, bytes]:
    return part, b""
