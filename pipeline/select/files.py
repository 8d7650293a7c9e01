"""Where a decision lies, and its small Arrow files: one batch each, whole in memory."""

import hashlib

import numpy as np
import pyarrow as pa

from schemas import storage

__all__ = ["decision_root", "fixed_bytes", "read_table", "write_batch"]


def decision_root(work: str, decision: str) -> str:
    """The folder of a decision's files."""
    return storage.join(work, "select", decision)


def write_batch(uri: str, batch: pa.RecordBatch) -> str:
    """Write a batch as an Arrow file; returns its sha256 (hex). Equal values give equal bytes: never pass a slice."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    storage.write(uri, data)
    return hashlib.sha256(data).hexdigest()


def read_table(uri: str) -> pa.Table:
    """What `write_batch` wrote."""
    return pa.ipc.open_file(storage.read(uri)).read_all()


def fixed_bytes(array: pa.Array) -> np.ndarray:
    """(n, width) bytes of a fixed-width binary array, without a copy; nulls as they lie."""
    width = array.type.byte_width
    if len(array) == 0:
        return np.empty((0, width), np.uint8)
    return np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width).reshape(-1, width)
