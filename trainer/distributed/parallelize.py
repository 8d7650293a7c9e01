"""How a model and its work are laid over processes: the world, activation checkpointing, compile, FSDP.

One code for one process and many, CPU (gloo) and CUDA (NCCL): a single process is a world of one, so that what is
tested on a laptop is what runs on a cluster. `parallelize` applies, from the inside out: (tensor and expert
parallelism belong here, first,) activation checkpointing, because it must see the plain block; compile, over the
checkpointed block; FSDP last, because it must own the parameters that the compiled block reads. (Pipeline stages
would be cut before all of them, context parallelism wrapped around the whole.)
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from schemas.config_model import ConfigError
from trainer.config import Parallel

__all__ = ["World", "inference", "join_world", "local_part", "lost_peer", "parallelize"]

# Selective checkpointing keeps what costs most to compute again, and of the many matrix products every second one.
KEPT = ("_scaled_dot_product", "flex_attention", "reduce_scatter_tensor", "all_gather_into_tensor")
PRODUCTS = ("aten.mm.", "aten.addmm.", "aten._scaled_mm.")


@dataclass(frozen=True)
class World:
    """This process among all: its place, its device, and the groups through which it talks."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    mesh: DeviceMesh  # (shard,) or (replica, shard)
    control: dist.ProcessGroup  # gloo: small numbers on the CPU, which never wait for the device

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def add(self, numbers: Sequence[int]) -> list[int]:
        """Whole numbers summed over all processes, on the CPU."""
        total = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(total, group=self.control)
        return [int(number) for number in total]

    def gather(self, value: Any) -> list[Any]:
        """A small value of every process, by rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def total(self, value: Tensor) -> Tensor:
        """A tensor on the device summed over all processes."""
        dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Wait until all processes are here."""
        dist.barrier(group=self.control)


@contextlib.contextmanager
def join_world(options: Parallel, device: str | None = None) -> Iterator[World]:
    """Join the processes that torchrun started, or be a world of one; leaves it in the end.

    Raises ConfigError for a world that `replicas` does not divide, or a device that is not there.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if size % options.replicas:
        raise ConfigError(
            f"parallel.replicas={options.replicas} does not divide the {size} processes: choose a divisor"
        )
    where = _device(device, local_rank)
    _settle(options, where, local_size)
    timeout = timedelta(seconds=options.timeout_seconds)
    if "RANK" in os.environ:
        store = None
    else:
        store, rank, size = dist.HashStore(), 0, 1
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    try:
        shape = (options.replicas, size // options.replicas) if options.replicas > 1 else (size,)
        names = ("replica", "shard")[-len(shape) :]
        mesh = init_device_mesh(where.type, shape, mesh_dim_names=names)
        control = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(control, dist.ProcessGroup)
        yield World(rank, size, local_rank, local_size, where, mesh, control)
    finally:
        dist.destroy_process_group()


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


def _settle(options: Parallel, device: torch.device, local_size: int) -> None:
    """Threads, precision of fp32 products and determinism of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(options.threads or max(1, cores // local_size))
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def parallelize(model: nn.Module, world: World, options: Parallel, dtype: torch.dtype) -> None:
    """Wrap a model built on the meta device, in place: each block of `model.layers`, then the whole.

    Parameters stay fp32 and are gathered as `dtype`; gradients are reduced in fp32 and *summed*, because the loss
    is already divided by the number of target tokens of the whole step.
    """
    blocks = list(model.layers.children())  # type: ignore[union-attr]
    for block in blocks:
        if options.activation_checkpointing != "none":
            _checkpoint(block, options.activation_checkpointing)
        if options.compile:
            block.compile(fullgraph=True)
    # Inputs are not cast: the stream has `dtype` already, and the cosines of positions must stay fp32.
    inner = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = dataclasses.replace(inner, output_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=world.mesh, mp_policy=inner)
    # The root's parameters (embedding, last norm, output) are used again at once in the backward pass.
    fully_shard(model, mesh=world.mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # Gloo knows neither averages nor scaled sums.
            module.set_force_sum_reduction_for_comms(True)


def _checkpoint(block: nn.Module, mode: str) -> None:
    """Compute a block's activations again in the backward pass: all of them, or those that are cheap."""
    context = {} if mode == "full" else {"context_fn": _selective}
    block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, **context)  # type: ignore[method-assign]


def _selective() -> Any:
    """What selective checkpointing keeps: attention, communication, and every second matrix product."""
    products = {"forward": 0, "recompute": 0}

    def policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        name = str(operation)
        keep = any(part in name for part in KEPT)
        if name.startswith(PRODUCTS):
            phase = "recompute" if context.is_recompute else "forward"
            products[phase] += 1
            keep = products[phase] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def lost_peer(error: RuntimeError) -> bool:
    """Whether a collective call failed for want of another rank. Gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or "/gloo/transport/" in str(error)


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, or all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextlib.contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Without gradients, and the parameters are shards again in the end.

    The root keeps its gathered copies for a backward pass, which does not come here: what is loaded or stepped next
    would not reach them.
    """
    try:
        with torch.no_grad():
            yield
    finally:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
