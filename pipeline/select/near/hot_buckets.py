"""Buckets too large for one worker, known before they are made: their sizes are estimated from a sample."""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np

from pipeline.select.context import Decision
from pipeline.select.documents import Documents
from pipeline.select.rows import unpack

__all__ = ["FindHeavy"]

# Sampled members of a bucket at its limit; one in limit / 1000 documents then stands for all.
SAMPLE_OF_LIMIT = 1000


class SampleBuckets(beam.DoFn):
    """Band hashes of a sample of a part's documents: (band, packed uint64)."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def setup(self) -> None:
        self._documents = Documents(self._decision)

    def process(self, part: int) -> Iterator[tuple[int, bytes]]:
        _, hashes = self._documents.band_hashes(part, _one_in(self._decision))
        for band in range(hashes.shape[0]):
            yield band, hashes[band].tobytes()


class HeavyBuckets(beam.DoFn):
    """The buckets of a band that are estimated above the limit: (band, hash as int64, divisions)."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, int, int]]:
        band, packed = element
        hashes, counts = np.unique(unpack(packed, np.dtype("<u8")), return_counts=True)
        limit = self._decision.bucket_limit
        sizes = counts * _one_in(self._decision)
        for bucket in np.flatnonzero(sizes > limit):
            yield band, int(hashes[bucket].astype(np.int64)), int(-(-sizes[bucket] // limit))


def _one_in(decision: Decision) -> int:
    return max(1, decision.bucket_limit // SAMPLE_OF_LIMIT)


class FindHeavy(beam.PTransform):
    """(band, hash as int64, divisions) of every bucket above the limit; of a corpus that is below it, none."""

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self._decision = decision

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[tuple[int, int, int]]:
        return (
            parts
            | "SampleBuckets" >> beam.ParDo(SampleBuckets(self._decision))
            | "GroupSample" >> beam.GroupByKey()
            | "HeavyBuckets" >> beam.ParDo(HeavyBuckets(self._decision))
        )
