"""What documents are verified by: their signatures, or (`verify: exact`) the sets of their shingles."""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.measure.minhash.shingles import shingle_sets
from pipeline.select.columns import Parts, scratch
from pipeline.select.context import Decision
from pipeline.select.rows import unpack
from pipeline.text.edits import apply_edits
from schemas import storage

__all__ = ["ShingleSketches", "SignatureSketches", "WriteMembers", "WriteShingles", "shingles_of"]

BATCH_BYTES = 64 << 20
ROW = np.dtype("<u4")
SHINGLES = pa.schema(
    [
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("shingles", pa.large_list(pa.field("item", pa.uint32(), nullable=False)), nullable=False),
    ]
)


class SignatureSketches:
    """Signatures, read from the parts by address (a Sketches)."""

    sorted_sets = False

    def __init__(self, parts: Parts, num_hashes: int) -> None:
        self._parts = parts
        self._num_hashes = num_hashes

    def sizes(self, addresses: np.ndarray) -> np.ndarray:
        """Hashes of each document's signature: the same for all."""
        return np.full(addresses.size, self._num_hashes, np.int64)

    def gather(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The signatures end to end, and the place of the first hash of each (n + 1)."""
        signatures = self._parts.take_fixed("signature", addresses).view("<u4").reshape(-1)
        return signatures, np.arange(addresses.size + 1, dtype=np.int64) * self._num_hashes


class ShingleSketches:
    """Sets of shingles, as `WriteShingles` left them for every document that shares a bucket (a Sketches)."""

    sorted_sets = True

    def __init__(self, decision: Decision, parts: Parts) -> None:
        self._decision = decision
        self._parts = parts
        self._open: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    def sizes(self, addresses: np.ndarray) -> np.ndarray:
        """Shingles of each document."""
        sizes = np.empty(addresses.size, np.int64)
        for places, _, starts, ends in self._spans(addresses):
            sizes[places] = ends - starts
        return sizes

    def gather(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sets end to end, and the place of the first shingle of each (n + 1)."""
        firsts = np.concatenate([[0], np.cumsum(self.sizes(addresses))]).astype(np.int64)
        data = np.empty(firsts[-1], np.uint32)
        for places, values, starts, ends in self._spans(addresses):
            for place, start, end in zip(places, starts, ends, strict=True):
                data[firsts[place] : firsts[place + 1]] = values[start:end]
        return data, firsts

    def _spans(self, addresses: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """For each batch with some of the documents: their places in `addresses`, its shingles, starts and ends."""
        for number, rows, places in self._parts.by_part(addresses):
            for batch_rows, offsets, values in self._batches(number):
                found = np.searchsorted(batch_rows, rows)
                here = found < batch_rows.size
                here[here] = batch_rows[found[here]] == rows[here]
                if here.any():
                    yield places[here], values, offsets[found[here]], offsets[found[here] + 1]

    def _batches(self, part: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows, offsets and shingles of each batch of a part's file."""
        if part not in self._open:
            uri = self._decision.tmp("shingles", f"{part}.arrow")
            path = storage.fetch(uri, scratch())
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            self._open[part] = [
                (
                    batch["row"].to_numpy(),
                    batch["shingles"].offsets.to_numpy(),
                    batch["shingles"].values.to_numpy(),
                )
                for batch in table.to_batches()
            ]
        return self._open[part]


def shingles_of(texts: pa.LargeStringArray, shingle: int) -> pa.LargeListArray:
    """The sorted set of each text's shingles."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    values, firsts = shingle_sets(np.frombuffer(data or b"", np.uint8), bounds, shingle)
    return pa.LargeListArray.from_arrays(pa.array(firsts), pa.array(values)).cast(SHINGLES.field("shingles").type)


class WriteMembers(beam.DoFn):
    """Write the rows of a part that share a bucket, as one round found them; the part goes on when they are written."""

    def __init__(self, decision: Decision, round_number: int) -> None:
        self._decision = decision
        self._round = round_number

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        part, packed = element
        rows = np.unique(unpack(packed, ROW))
        storage.write(self._decision.tmp("members", f"{self._round}-{part}"), rows.tobytes())
        yield part


class WriteShingles(beam.DoFn):
    """Write the shingle sets of a part's members, from their final texts; the part goes on when they are written."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._rounds = len(decision.band_rounds())
        self._shingle = decision.recipe().measure.minhash.shingle

    def setup(self) -> None:
        self._parts = self._decision.parts()

    def process(self, part: int) -> Iterator[int]:
        found = [storage.read(self._decision.tmp("members", f"{number}-{part}")) for number in range(self._rounds)]
        rows = np.unique(unpack(found, ROW)).astype(np.int64)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, SHINGLES) as writer:
            for some in self._batches(part, rows):
                columns = self._parts.open(part)
                taken = pa.array(some)
                texts, edits = columns.column("text").take(taken), columns.column("edits").take(taken)
                final = apply_edits(texts.combine_chunks(), edits.combine_chunks())
                writer.write_batch(
                    pa.record_batch([pa.array(some, pa.uint32()), shingles_of(final, self._shingle)], schema=SHINGLES)
                )
        storage.write(self._decision.tmp("shingles", f"{part}.arrow"), sink.getvalue().to_pybytes())
        yield part

    def _batches(self, part: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The rows in runs of about BATCH_BYTES of text."""
        ends = np.cumsum(self._parts.open(part).floats("num_bytes")[rows])
        start = 0
        while start < rows.size:
            before = ends[start - 1] if start else 0.0
            stop = max(start + 1, int(np.searchsorted(ends, before + BATCH_BYTES, side="right")))
            yield rows[start:stop]
            start = stop
