"""Work that all ranks do, or none: what fails on one is raised on every one, with its cause."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException

from schemas.storage import StorageError

__all__ = ["CheckpointError", "Collectives", "cause_of", "with_cause"]

T = TypeVar("T")

# A rank may upload for hours while the others wait; a rank that died is noticed at once, by its closed connection.
PATIENCE = timedelta(hours=12)


class CheckpointError(StorageError):
    """A checkpoint could not be written, or none can be read; what was written before is as it was."""


class Collectives:
    """All ranks, through a group of their own: a thread communicates over it while the training uses others."""

    def __init__(self) -> None:
        self.group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.is_node_main = dist.get_node_local_rank(self.rank) == 0

    def on_all(self, work: Callable[[], T]) -> list[T]:
        """Run `work` on every rank; returns all results, by rank, so they should be small.

        Raises CheckpointError when one failed.
        """
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

    def on_main(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0; returns its result on all ranks."""
        return self.on_all(lambda: work() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def _named(self, error: BaseException) -> str:
        """Name a failure with its rank; torch reports the one that failed to every rank."""
        failures = getattr(error, "failures", None) or {self.rank: (error, None)}
        rank, (inner, _) = next(iter(failures.items()))
        return cause_of(inner) if self.size == 1 else f"rank {rank}: {cause_of(inner)}"


@contextlib.contextmanager
def with_cause() -> Iterator[None]:
    """Raise errors with their cause as text, because what caused them is lost on the way to the other ranks."""
    try:
        yield
    except Exception as error:
        raise StorageError(cause_of(error)) from None


def cause_of(error: BaseException) -> str:
    """Return what failed, in one line."""
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
