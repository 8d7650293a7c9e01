"""Where each shard of a run lies: a run may read several datasets, and several generations of one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas import storage
from trainer.data.train_split import TrainSplit
from trainer.order.phases import ShardTable
from trainer.order.shard_table import NOT_COUNTED

__all__ = ["ShardFiles"]


class ShardFiles:
    """The file of every shard of a run's table, whichever of the run's datasets it is of.

    Raises ValueError for a table with shards of a dataset that was not given.
    """

    def __init__(self, table: ShardTable, datasets: Sequence[TrainSplit]) -> None:
        count = len(table.source_N)
        self._datasets = tuple(datasets)
        self._dataset_N = np.full(count, -1, np.int32)
        self._index_N = np.empty(count, np.int64)
        self.bytes_N = np.zeros(count, np.int64)
        self.tokens_N = np.zeros(count, np.int64)
        keys = _keys(table.source_N, table.sha256_N)
        for number, dataset in enumerate(self._datasets):
            shards = dataset.shards
            known = np.array([source in table.sources for source in shards.sources])
            wanted = np.flatnonzero(known[shards.source_N])
            places = np.array([table.sources.index(s) if s in table.sources else -1 for s in shards.sources], np.int32)
            mine = _keys(places[shards.source_N[wanted]], shards.sha256_N[wanted])
            ids = np.minimum(np.searchsorted(keys, mine), count - 1)
            same = keys[ids] == mine
            ids, wanted = ids[same], wanted[same]
            self._dataset_N[ids], self._index_N[ids] = number, wanted
            self.bytes_N[ids], self.tokens_N[ids] = dataset.bytes_N[wanted], shards.tokens_N[wanted]
        missing = np.flatnonzero(self._dataset_N < 0)
        if len(missing):
            first = int(missing[0])
            raise ValueError(
                f"shard {table.sha256_N[first].tobytes().hex()} of source {table.sources[table.source_N[first]]!r} is "
                "in the phases and in none of the datasets: give every dataset and generation that a phase reads"
            )

    def dataset(self, shard: int) -> TrainSplit:
        """The dataset of a shard."""
        return self._datasets[self._dataset_N[shard]]

    def index(self, shard: int) -> int:
        """A shard's index in its dataset's `shards`."""
        return int(self._index_N[shard])

    def number(self, shard: int) -> int:
        """A shard's number in its dataset."""
        return int(self.dataset(shard).number_N[self.index(shard)])

    def name(self, shard: int) -> str:
        """A shard's path below its dataset."""
        return self.dataset(shard).shard_path(self.index(shard))

    def uri(self, shard: int) -> str:
        """Address of a shard."""
        return self.dataset(shard).file_uri(self.index(shard))

    def path(self, shard: int) -> str | None:
        """Where a shard lies on this machine; None for a remote one."""
        path = storage.local_path(self.uri(shard))
        return None if path is None else str(path)

    def packed_rows(self, shard: int, sequence_length: int) -> int | None:
        """Packed rows of T tokens that the manifest, or a scan, counted in a shard; None where nobody did."""
        counted = self.dataset(shard).shards.packed_rows.get(sequence_length)
        return None if counted is None or counted[self.index(shard)] == NOT_COUNTED else int(counted[self.index(shard)])

    def remote_N(self) -> NDArray[np.bool_]:
        """Which shards must come through the cache."""
        remote = np.array([dataset.folder is None for dataset in self._datasets])
        return remote[self._dataset_N]

    def faults(self) -> dict[int, str]:
        """Local shards that are missing or of another size; see `TrainSplit.faults`."""
        found: dict[int, str] = {}
        for number, dataset in enumerate(self._datasets):
            if dataset.faults:
                shards = np.flatnonzero(self._dataset_N == number).tolist()
                found |= {s: dataset.faults[self.index(s)] for s in shards if self.index(s) in dataset.faults}
        return found


def _keys(source_N: NDArray[np.int32], sha256_N: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """(source, sha256) as 36 bytes that sort alike."""
    keys = np.empty((len(source_N), 36), np.uint8)
    keys[:, :4] = source_N.astype(">i4").view(np.uint8).reshape(-1, 4)
    keys[:, 4:] = sha256_N
    return keys.view("S36").reshape(-1)
