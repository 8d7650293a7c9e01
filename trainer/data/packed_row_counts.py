"""Packed rows of a sequence length that the manifest does not count: scanned once, then kept (contracts, section 7)."""

import hashlib
import io
import logging
import tempfile

import numpy as np
from numpy.typing import NDArray

from schemas import storage
from schemas.packing import packed_rows
from trainer.data.shard_rows import OpenShard
from trainer.data.train_split import TrainSplit
from trainer.order.shard_table import NOT_COUNTED

__all__ = ["with_packed_rows"]

log = logging.getLogger(__name__)


def with_packed_rows(dataset: TrainSplit, sequence_length: int, folder: str) -> TrainSplit:
    """Return the dataset with the packed rows of each train shard at T tokens counted.

    Counts that neither the manifest nor a scan before knows are made from the lengths of all documents, a shard at a
    time (a remote one is copied for the time), and kept in `folder` under the digest of the shards table. Where
    nothing can be kept there (a home that cannot be written), each start counts again.
    Raises DatasetError for a shard that cannot be read.
    """
    known = dataset.shards.packed_rows.get(sequence_length)
    if known is not None and not (known == NOT_COUNTED).any():
        return dataset
    key = hashlib.sha256(f"{dataset.dataset.manifest.tables.shards.sha256} {sequence_length}".encode()).hexdigest()[:24]
    place = storage.join(folder, f"packed-rows-{key}.npy")
    try:
        counts_N = np.load(io.BytesIO(storage.read(place)), allow_pickle=False)
    except (OSError, storage.StorageError, ValueError):
        counts_N = _scan(dataset, sequence_length)
        data = io.BytesIO()
        np.save(data, counts_N)
        try:
            storage.write(place, data.getvalue())
        except (OSError, storage.StorageError) as error:
            log.warning("data.cache.folder=%s: packed rows are counted at every start: %s", folder, error)
    return dataset.with_packed_rows(sequence_length, counts_N)


def _scan(dataset: TrainSplit, sequence_length: int) -> NDArray[np.int64]:
    counts_N = np.empty(len(dataset.shards), np.int64)
    with tempfile.TemporaryDirectory(prefix="gristmill-lengths-") as copies:
        for index, tokens in enumerate(dataset.shards.tokens_N.tolist()):
            uri = dataset.file_uri(index)
            path = storage.fetch(uri, copies)
            counts_N[index] = packed_rows(OpenShard(str(path), dataset.token_type, tokens).lengths, sequence_length)
            if storage.local_path(uri) is None:
                path.unlink()  # one copy at a time
    return counts_N
