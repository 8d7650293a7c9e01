"""What is known of the text that is trained on: all edits applied."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.measure.signal_group import Batch
from schemas.arrow import HASH

__all__ = ["COLUMNS", "measure", "text_hashes"]

COLUMNS = {"final_hash": HASH, "num_bytes": pa.int64()}


def text_hashes(data: np.ndarray, offsets: np.ndarray) -> pa.FixedSizeBinaryArray:
    """xxh3_128 of each text: text i is data[offsets[i]:offsets[i + 1]]."""
    view = memoryview(data)  # type: ignore[arg-type]
    digests = [xxhash.xxh3_128_digest(view[start:end]) for start, end in pairwise(offsets.tolist())]
    return pa.array(digests, HASH)


def measure(batch: Batch) -> dict[str, Any]:
    """The hash and the bytes of each text."""
    data, offsets = batch.buffers()
    return {"final_hash": text_hashes(data, offsets), "num_bytes": np.diff(offsets)}
