"""Work that all ranks do together, or none: what fails on one is raised on every one, in words."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException

from schemas.storage import StorageError

__all__ = ["CheckpointError", "Ranks", "cause_of", "errors_in_words"]

T = TypeVar("T")

# A rank may upload for hours while the others wait; a rank that died is noticed at once, by its closed connection.
PATIENCE = timedelta(hours=12)


class CheckpointError(StorageError):
    """A checkpoint could not be written, or none can be read; what was written before is as it was."""


class Ranks:
    """All ranks, through a group of their own: a thread talks over it while the training talks over others."""

    def __init__(self) -> None:
        self.group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.lead_node = dist.get_node_local_rank(self.rank) == 0

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on every rank, by rank; small, for it travels. Raises CheckpointError when one failed."""
        result, failure = None, None
        try:
            result = work()
        except (Exception, CheckpointException) as error:
            failure = self._named(error)
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, (result, failure), group=self.group)
        for _, failure in every:
            if failure is not None:
                raise CheckpointError(failure)
        return [each for each, _ in every]

    def by_leader(self, work: Callable[[], T]) -> T:
        """What `work` gives on rank 0, on all ranks."""
        return self.together(lambda: work() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def _named(self, error: BaseException) -> str:
        """A failure with its rank; torch tells every rank of the one that failed."""
        failures = getattr(error, "failures", None) or {self.rank: (error, None)}
        rank, (inner, _) = next(iter(failures.items()))
        return cause_of(inner) if self.size == 1 else f"rank {rank}: {cause_of(inner)}"


@contextlib.contextmanager
def errors_in_words() -> Iterator[None]:
    """Errors with their cause in words, because what stands behind them is lost on the way to the other ranks."""
    try:
        yield
    except Exception as error:
        raise StorageError(cause_of(error)) from None


def cause_of(error: BaseException) -> str:
    """What failed, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, StorageError):
        return text
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full: free some space or choose another folder"
        if isinstance(behind, OSError) and behind.errno == errno.EFBIG:
            return "a file would exceed the largest size that is allowed here: raise the limit (ulimit -f)"
        behind = behind.__cause__ or behind.__context__
    return text if text and isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {text}"
