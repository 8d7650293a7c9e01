"""How a `pa.RecordBatch` crosses from one worker to another: as an Arrow IPC stream.

Importing this module registers the coder. Without it Beam pickles a batch, and pickling ten rows sliced from a batch of
10 MB ships the 10 MB.
"""

import pyarrow as pa
from apache_beam import coders

__all__ = ["RecordBatchCoder"]


class RecordBatchCoder(coders.Coder):
    """One record batch with its schema. Not for keys: equal batches may differ in their unused bytes."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """The batch as a stream of its schema and itself, a slice without its parent."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """The batch, its columns lying in `encoded` without a copy."""
        with pa.ipc.open_stream(encoded) as reader:
            return reader.read_next_batch()

    def is_deterministic(self) -> bool:
        """False: Beam must not group by a batch."""
        return False

    def to_type_hint(self) -> type:
        """What it codes."""
        return pa.RecordBatch

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """Bytes of the encoded batch, about."""
        size: int = value.get_total_buffer_size()
        return min(size, value.nbytes) + 512

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        # Within one process only; nothing is grouped by it.
        return hash(type(self))


coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)
