"""`TokenStream`: a rank's batches as torch tensors, in order, from any batch on. The trainer's way to its data, and
the seam for those who bring a trainer of their own.

    for batch in TokenStream("data", sequence_length=2048, global_batch=512, rank=rank, world=world):
        loss = model(batch.tokens_BT, batch.targets_BT)

The batches are those of contracts, section 7, whatever the ranks and workers. B sequences of a rank's batch, T tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from schemas.config_model import ConfigError
from schemas.manifest import DatasetError
from schemas.storage import StorageError
from trainer.config import CacheOptions
from trainer.data.batch import TokenBatch
from trainer.data.batch_reader import Job
from trainer.data.cache import Cache, smallest_cache
from trainer.data.prefetch import Prefetcher
from trainer.data.shard_files import ShardFiles
from trainer.data.train_split import TrainSplit, open_train_split
from trainer.order.batch_order import ORDER_VERSION, Order, Phase
from trainer.order.shard_table import concatenate

__all__ = ["TokenBatch", "TokenStream", "one_phase"]


class TokenStream(IterableDataset[TokenBatch]):
    """A rank's batches from `start_batch` on; see the head of this file.

    Either `phases` are given, with the datasets that they read, or the settings of a run of one phase (`one_phase`).
    With workers=0 a thread of this process reads ahead; with W > 0, W processes do, of which worker w reads batches
    start + w, start + w + W, ... They share nothing and hold no state. Iteration goes on where it stood: what a
    consumer has not been given is read again by the next `iter`. torch's DataLoader takes it with batch_size=None.

    Raises ValueError for what section 7 refuses, DatasetError for a dataset that is not whole (in time: a shard that
    turns out bad is reported when it is read, unless on_lost_shard="skip"), StorageError for a store that fails.
    """

    def __init__(
        self,
        data: "str | TrainSplit | Iterable[str | TrainSplit]",
        *,
        seed: int = 0,
        phases: Sequence[Phase] | None = None,
        rank: int = 0,
        world: int = 1,
        start_batch: int = 0,
        skipped: Sequence[int] = (),
        lost: Mapping[str, int] | None = None,
        workers: int = 0,
        cache: CacheOptions | None = None,
        mask: str = "none",
        verify_shards: bool = True,
        on_lost_shard: str = "stop",
        **phase: Any,
    ) -> None:
        if mask not in ("none", "documents") or on_lost_shard not in ("stop", "skip"):
            raise ValueError(
                f"mask={mask!r}, on_lost_shard={on_lost_shard!r}: expected none or documents, and stop or skip"
            )
        if not 0 <= rank < world or workers < 0:
            raise ValueError(
                f"rank={rank} of world={world}, workers={workers}: expected a rank below world, no fewer than 0 workers"
            )
        given = [data] if isinstance(data, (str, TrainSplit)) else list(data)
        self.datasets = tuple(open_train_split(each) if isinstance(each, str) else each for each in given)
        if phases is None:
            phases = [one_phase(self.datasets, **phase)]
        elif phase:
            raise ValueError(f"{', '.join(phase)} given beside phases: they belong into the phases")
        self.order = Order(seed, phases, skipped)
        self.mask = mask
        self.workers = workers
        self._files = ShardFiles(self.order.shards, self.datasets)
        provider = self._cache(cache or CacheOptions(), phases) if self._files.remote_N().any() else None
        skip = on_lost_shard == "skip"
        self._job = Job(
            self.datasets, seed, tuple(phases), rank, world, tuple(skipped), {}, skip, verify_shards, provider
        )
        self._start = self._next = start_batch
        self._delivered = 0
        self._lost: dict[str, int] = dict(lost or {})
        self._running: Prefetcher | None = None
        self._check_local(start_batch)

    # ------------------------------------------------------------ batches

    def __iter__(self) -> Iterator[TokenBatch]:
        """Batches from the next one that was not given yet, to the end of the run."""
        if (loader := get_worker_info()) is not None:
            # Each of a DataLoader's processes would give every batch.
            raise ValueError(f"give TokenStream workers={loader.num_workers}, and DataLoader num_workers=0")
        self.close()
        running = self._running = Prefetcher(self._job_now(), self._next, self.workers, self.mask == "documents")
        try:
            while self._running is running and (found := running.take()) is not None:
                batch, lost = found
                self.join_lost({self._sha256(shard): first for shard, first in lost.items()})
                batch.mask_lost(self._lost, self.order)
                self._next, self._delivered = batch.batch + 1, self._delivered + 1
                yield batch
        finally:  # also when the consumer has enough
            if self._running is running:
                self.close()

    def close(self) -> None:
        """End threads and workers; the stream may be iterated over again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def _cache(self, options: CacheOptions, phases: Sequence[Phase]) -> Cache:
        smallest = smallest_cache(self.order.shards, phases, self._files)
        if options.max_bytes < smallest:
            raise ConfigError(
                f"cache.max_bytes={options.max_bytes:,} is less than the smallest cache that works, {smallest:,} bytes "
                "(two windows of shards a source): raise it, or make smaller shards"
            )
        folder = Path(options.folder).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cache.folder={folder}: {error.strerror}: name a folder on a local disk") from None
        return Cache(folder, options.max_bytes)

    # ------------------------------------------------------------ lost shards

    def lost(self) -> dict[str, int]:
        """Shards (sha256 in hex) whose rows have no targets, and the first batch of which that is true."""
        return dict(self._lost)

    def join_lost(self, lost: Mapping[str, int]) -> None:
        """Add what other ranks have lost: batches given from now on are masked by it."""
        for sha256, first in lost.items():
            self._lost[sha256] = min(first, self._lost.get(sha256, first))

    def _check_local(self, start: int) -> None:
        """Shards of a folder that are missing or cut short are found before the first step."""
        for shard, fault in self._files.faults().items():
            if not self._job.skip_lost:
                raise DatasetError(fault)
            self.join_lost({self._sha256(shard): start})

    def _sha256(self, shard: int) -> str:
        return self.order.shards.sha256_N[shard].tobytes().hex()

    def _job_now(self) -> Job:
        known = {bytes.fromhex(sha256): first for sha256, first in self._lost.items()}
        digests = self.order.shards.sha256_N
        lost = {}
        if known:
            wanted = np.array(list(known), "V32")
            for shard in np.flatnonzero(
                np.isin(np.ascontiguousarray(digests).view("V32").reshape(-1), wanted)
            ).tolist():
                lost[shard] = known[digests[shard].tobytes()]
        return replace(self._job, lost=lost)

    # ------------------------------------------------------------ state

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where the stream stands after `consumed` batches of it (default: all that were given), as plain JSON.

        Equal on all ranks, and good for any number of ranks and workers. A consumer that reads ahead gives its count.
        """
        batch = self._next if consumed is None else self._batch_after(consumed)
        return {
            "order": ORDER_VERSION,
            "seed": self.order.seed,
            "batch": batch,
            "plan": self.order.plan_digest(batch),
            "datasets": [[d.name, d.generation, d.order_digest] for d in self.datasets],
            "skipped": list(self.order.skipped),
            "lost": dict(sorted(self._lost.items())),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a stream stood. Raises ValueError, with the difference, for the state of another run."""
        ours = self.state_dict(0) | {"plan": self.order.plan_digest(int(state["batch"]))}
        for name in ("order", "seed", "datasets", "plan", "skipped"):
            if state[name] != ours[name]:
                raise ValueError(
                    f"the state is of another run: its {name} is {state[name]}, this stream's {ours[name]}"
                )
        self.close()
        self._start = self._next = int(state["batch"])
        self._delivered = 0
        self._lost = dict(state["lost"])

    def _batch_after(self, consumed: int) -> int:
        if not 0 <= consumed <= self._delivered:
            raise ValueError(f"consumed={consumed}: this stream has given {self._delivered} batches")
        if not consumed:
            return self._start
        first = self._start
        while self.order.step_of_batch(first) is None:
            first += 1
        step = self.order.step_of_batch(first)
        assert step is not None
        return self.order.batch_of_step(step + consumed - 1) + 1


def one_phase(
    datasets: Sequence[TrainSplit],
    *,
    sequence_length: int,
    global_batch: int,
    packing: str = "windows",
    weights: Mapping[str, str | int | float] | None = None,
    max_epochs: Mapping[str, str | int | float] | None = None,
    at_cap: str = "redistribute",
) -> Phase:
    """The phase of a run that changes nothing on its way. Weights are shares of the samples; default: by rows."""
    shards = datasets[0].shards if len(datasets) == 1 else concatenate([dataset.shards for dataset in datasets])
    if weights is None:
        rows_N = shards.rows(sequence_length, packing)
        counts = np.bincount(shards.source_N, rows_N, len(shards.sources)).astype(np.int64).tolist()
        weights = {name: count for name, count in zip(shards.sources, counts, strict=True) if count}
        if not weights:
            raise ValueError(f"sequence_length={sequence_length}: no shard of split train holds that many tokens")
    return Phase(
        start=0,
        global_batch=global_batch,
        sequence_length=sequence_length,
        packing=packing,
        weights={name: str(weight) for name, weight in weights.items()},
        shards=shards,
        max_epochs={name: str(cap) for name, cap in (max_epochs or {}).items()},
        at_cap=at_cap,
    )
