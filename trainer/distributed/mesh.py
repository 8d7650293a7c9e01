"""The processes of a run and the axes along which they are laid out.

`AXES` names the dimensions of the mesh, from the outermost (the slowest link, between nodes) to the innermost. Work
that goes by an axis takes it from the mesh by its name (`world.mesh["dp_shard"]`), never by its place, so that an axis
that is added between two others changes nothing for them.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from schemas.config_model import ConfigError
from trainer.config import Parallel
from trainer.distributed.launch import is_launched
from trainer.distributed.rendezvous import meet

__all__ = ["AXES", "World", "join_world", "local_part", "lost_peer", "make_mesh"]

# Copies of the model (HSDP); the shards of a copy (FSDP). Both are data-parallel: each rank has sequences of its own.
AXES = ("dp_replicate", "dp_shard")


@dataclass(frozen=True)
class World:
    """This process among all: its place, its device, and the groups through which it communicates."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    mesh: DeviceMesh  # with those of AXES that the run uses
    control: dist.ProcessGroup  # gloo: small numbers on the CPU, which never wait for the device
    store: tuple[str, int] | None = None  # address of the store at which the processes met; None for one alone

    @property
    def is_main(self) -> bool:
        """Return whether this process writes what is written once."""
        return self.rank == 0

    def add(self, numbers: Sequence[int]) -> list[int]:
        """Sum whole numbers over all processes, on the CPU."""
        total = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(total, group=self.control)
        return [int(number) for number in total]

    def gather(self, value: Any) -> list[Any]:
        """Return a small value of every process, by rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def total(self, value: Tensor) -> Tensor:
        """Sum a tensor on the device over all processes."""
        dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Wait until all processes are here."""
        dist.barrier(group=self.control)


@contextlib.contextmanager
def join_world(options: Parallel, device: str | None = None) -> Iterator[World]:
    """Join the processes that a launcher started, or be a world of one; leaves it in the end.

    Raises ConfigError for a world that `replicas` does not divide, or a device that is not there.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if size % options.replicas:
        raise ConfigError(
            f"parallel.replicas={options.replicas} does not divide the {size} processes: choose a divisor"
        )
    where = _device(device, local_rank)
    _configure_process(options, where, local_size)
    timeout = timedelta(seconds=options.timeout_seconds)
    store, address = meet(rank, size, timeout) if is_launched() else (dist.HashStore(), None)
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    try:
        mesh = make_mesh(where.type, options.replicas, size)
        control = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(control, dist.ProcessGroup)
        yield World(rank, size, local_rank, local_size, where, mesh, control, address)
    finally:
        dist.destroy_process_group()


def make_mesh(device_type: str, replicas: int, size: int) -> DeviceMesh:
    """Lay `size` processes along AXES. An axis of one process is left out, unless it is the only one."""
    lengths = {"dp_replicate": replicas, "dp_shard": size // replicas}
    used = [axis for axis in AXES if lengths[axis] > 1] or [AXES[-1]]
    if used == ["dp_replicate"]:
        used = list(AXES)  # FSDP shards each copy, over one process too
    return init_device_mesh(device_type, tuple(lengths[axis] for axis in used), mesh_dim_names=tuple(used))


def _device(wanted: str | None, local_rank: int) -> torch.device:
    if wanted == "cpu" or (wanted is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch finds none here: install a CUDA build and its driver, or say cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this node has no GPU of its own, there are {torch.cuda.device_count()}: "
            "start that many with --nproc-per-node"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _configure_process(options: Parallel, device: torch.device, local_size: int) -> None:
    """Set threads, precision of fp32 products and determinism of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(options.threads or max(1, cores // local_size))
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def lost_peer(error: RuntimeError) -> bool:
    """Return whether a collective call failed because another rank is gone. Gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or "/gloo/transport/" in str(error)


def local_part(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, or all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
