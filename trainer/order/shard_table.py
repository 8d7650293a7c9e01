"""The train shards of a generation, as the order of samples sees them: columns of numpy, one row a shard.

N = shards in use. 100,000 of them are 5 MB and open in some milliseconds; nothing here knows paths or bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.recipe import canonical_json

__all__ = ["NOT_COUNTED", "PACKINGS", "Shards", "concatenate"]

PACKINGS = ("windows", "documents")
NOT_COUNTED = -1  # in `packed_rows`: the manifest has no count for this shard and length


@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of split `train` in use in one generation of one dataset, or of several that are mixed.

    `sources` are sorted by their UTF-8 bytes ("dataset:source" where several datasets are mixed); `replaces` maps a
    shard's sha256 to those of the retired shards that it stands for, and may name retired shards on either side.
    Raises ValueError for columns that do not fit each other.
    """

    sources: tuple[str, ...]
    source_N: NDArray[np.int32]  # row of `sources`
    sha256_N: NDArray[np.uint8]  # (N, 32)
    tokens_N: NDArray[np.int64]
    packed_rows: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # by sequence length; NOT_COUNTED: null
    replaces: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse columns of unequal length, and names out of order."""
        count = len(self.source_N)
        if self.sha256_N.shape != (count, 32) or len(self.tokens_N) != count:
            raise ValueError(
                f"columns of {count} sources, {len(self.tokens_N)} token counts and digests of shape "
                f"{self.sha256_N.shape}: expected one of each a shard, the digests as (shards, 32) bytes"
            )
        if list(self.sources) != sort_names(self.sources):
            raise ValueError(f"sources {self.sources}: expected each once, sorted by UTF-8 bytes")
        for length, rows in self.packed_rows.items():
            if len(rows) != count:
                raise ValueError(f"packed_rows[{length}] has {len(rows)} entries for {count} shards")

    def __len__(self) -> int:
        """Shards."""
        return len(self.source_N)

    def rows(self, sequence_length: int, packing: str) -> NDArray[np.int64]:
        """Samples of T tokens in each shard: `tokens // T`, or the packed rows (contracts, section 7, "Rows").

        Raises ValueError for packed rows that nobody has counted, with how to count them.
        """
        if packing == "windows":
            return self.tokens_N // sequence_length
        rows = self.packed_rows.get(sequence_length)
        if rows is None or (rows == NOT_COUNTED).any():
            raise ValueError(
                f"sequence_length={sequence_length} with packing: documents: the manifest does not count these rows: "
                "count them by trainer.data.packed_row_counts.with_packed_rows, as the trainer does, or name the "
                "length under sequence_lengths in the dataset's recipe"
            )
        return rows

    def digest(self) -> str:
        """Hex sha256 of the sources and the sorted sha256 of each one's shards: the generation, for the order."""
        by_content = sort_by_content(self)
        counts = np.bincount(self.source_N, minlength=len(self.sources)).tolist()
        names = canonical_json([[name, count] for name, count in zip(self.sources, counts, strict=True)])
        return hashlib.sha256(names + self.sha256_N[by_content].tobytes()).hexdigest()

    def equals(self, other: "Shards") -> bool:
        """Whether both hold the same shards of the same sources, in whatever order: one generation for the order."""
        if self is other:
            return True
        if len(self) != len(other) or self.sources != other.sources:
            return False
        a, b = sort_by_content(self), sort_by_content(other)
        return bool((self.source_N[a] == other.source_N[b]).all() and (self.sha256_N[a] == other.sha256_N[b]).all())


def sort_names(names: Iterable[str]) -> list[str]:
    """Each name once, by UTF-8 bytes."""
    return sorted(set(names), key=lambda name: name.encode())


def digest_words(sha256_N: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(N, 4) numbers that sort as the digests' bytes do."""
    return np.ascontiguousarray(sha256_N).view(">u8").astype(np.uint64).reshape(-1, 4)


def sort_by_content(shards: Shards) -> NDArray[np.int64]:
    """Shards by (source, sha256)."""
    words = digest_words(shards.sha256_N)
    return np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0], shards.source_N))


def concatenate(parts: Sequence[Shards]) -> Shards:
    """The shards of several datasets as one; their source names must already differ between the datasets.

    Of the packed rows, the lengths that all parts have. Raises ValueError for a source of two parts.
    """
    names = [name for part in parts for name in part.sources]
    sources = sort_names(names)
    for name in sources:
        if names.count(name) > 1:
            raise ValueError(f"source {name!r} is in two datasets: give each dataset a name of its own")
    lengths = set.intersection(*(set(part.packed_rows) for part in parts)) if parts else set()
    columns = [np.array([sources.index(name) for name in part.sources], np.int32)[part.source_N] for part in parts]
    return Shards(
        sources=tuple(sources),
        source_N=np.concatenate([np.empty(0, np.int32), *columns]),
        sha256_N=np.concatenate([np.empty((0, 32), np.uint8), *(part.sha256_N for part in parts)]),
        tokens_N=np.concatenate([np.empty(0, np.int64), *(part.tokens_N for part in parts)]),
        packed_rows={length: np.concatenate([part.packed_rows[length] for part in parts]) for length in lengths},
        replaces={new: old for part in parts for new, old in part.replaces.items()},
    )
