"""A rank's batch as torch tensors. B sequences, T tokens each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.shard_rows import IGNORED
from trainer.order.batch_order import Batch, Order

__all__ = ["TokenBatch"]


@dataclass(eq=False)
class TokenBatch:
    """A rank's sequences of a batch, on the CPU until `to` takes them elsewhere."""

    tokens_BT: Tensor  # int64, inputs
    targets_BT: Tensor  # int64; -100: no target (padding, a lost shard)
    positions_BT: Tensor | None  # int32, restart in each document; None without mask: documents
    documents_BT: Tensor | None  # int32, number of the document in its sequence, -1 for padding; None without the mask
    batch: int  # number b of the order
    samples: Batch  # where each sequence is from

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.samples)

    def split(self, micro_batch: int | None) -> "list[TokenBatch]":
        """Parts of at most `micro_batch` sequences, in order; None: the batch itself. They share its memory."""
        size = micro_batch or max(len(self), 1)
        return [self._part(slice(first, first + size)) for first in range(0, max(len(self), 1), size)]

    def to(self, device: "torch.device | str") -> "TokenBatch":
        """The batch on a device; the CPU does not wait for the copy."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True), self.samples)

    def pin(self) -> "TokenBatch":
        """The batch in page-locked memory, from which a GPU copies while the CPU goes on."""
        return self._changed(Tensor.pin_memory, self.samples)

    def mask_lost(self, lost: Mapping[str, int], order: Order) -> None:
        """Take the targets, in place, of samples of shards that are lost from this batch or an earlier one on.

        `lost`: sha256 of a shard in hex, and the first batch without its targets.
        """
        gone = [bytes.fromhex(sha256) for sha256, first in lost.items() if first <= self.batch]
        if not gone or not len(self):
            return
        wanted = np.array(gone, "V32")
        has = np.ascontiguousarray(order.shards.sha256_N[self.samples.shard_G]).view("V32").reshape(-1)
        self.targets_BT[torch.from_numpy(np.isin(has, wanted)).to(self.targets_BT.device)] = IGNORED

    def _part(self, part: slice) -> "TokenBatch":
        columns: dict[str, Any] = {name: v[part] for name, v in vars(self.samples).items() if name != "number"}
        return self._changed(lambda tensor: tensor[part], replace(self.samples, **columns))

    def _changed(self, change: Callable[[Tensor], Tensor], samples: Batch) -> "TokenBatch":
        return TokenBatch(
            tokens_BT=change(self.tokens_BT),
            targets_BT=change(self.targets_BT),
            positions_BT=None if self.positions_BT is None else change(self.positions_BT),
            documents_BT=None if self.documents_BT is None else change(self.documents_BT),
            batch=self.batch,
            samples=samples,
        )
