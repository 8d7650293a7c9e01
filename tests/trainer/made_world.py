"""Worlds of several processes for tests: a function on every rank, and a small model laid over them.

    results = on_ranks(3, function, argument)      # function(world, argument) in 3 processes; what each gives, by rank

The function must be importable. Processes are forked from a server that has imported torch once.
"""

import itertools
import multiprocessing
import multiprocessing.connection
import pickle
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.build import tensors_of
from trainer.config import OptimizerOptions, Parallel
from trainer.distributed.mesh import World, make_mesh
from trainer.distributed.parallelize import parallelize
from trainer.model.transformer import ModelConfig, Transformer
from trainer.optim.optimizers import Optimizers, build_optimizers, clip_by_global_norm

# Odd sizes, so that rows do not divide by the ranks and some ranks hold none.
CONFIG = ModelConfig(vocab_size=67, dim=20, layers=2, heads=2, kv_heads=1, ffn_dim=37, max_positions=8)

_server = multiprocessing.get_context("forkserver")
# torch imports its compiler at the first step of an optimizer, for seconds.
_server.set_forkserver_preload(["tests.trainer.made_world", "torch._dynamo", "trainer.checkpoint.checkpointer"])


@contextmanager
def made_world(rank: int, size: int, meeting: Path, replicas: int = 1) -> Iterator[World]:
    """Be rank `rank` of a world on the CPU; ranks meet at a file."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(meeting), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        mesh = make_mesh("cpu", replicas, size)
        control = dist.new_group(backend="gloo")
        assert control is not None
        yield World(rank, size, rank, size, torch.device("cpu"), mesh, control)
    finally:
        dist.destroy_process_group()


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any, replicas: int = 1) -> list[Any]:
    """What `function(world, *arguments)` gives on each of `size` ranks; fails the test with a rank's traceback."""
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(size):
            ours, theirs = _server.Pipe(duplex=False)
            given = (theirs, rank, size, Path(folder) / "meeting", replicas, function, arguments)
            process = _server.Process(target=_rank, args=given, daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        try:
            results = [_answer(pipe) for pipe in pipes]
        finally:
            for process in processes:
                process.join(5)
                process.kill()
    for rank, (_, fault) in enumerate(results):
        if fault:
            pytest.fail(f"rank {rank}: {fault}", pytrace=False)
    return [result for result, _ in results]


@contextmanager
def started(function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[Any, Any]]:
    """(process, pipe) of `function(world, *arguments, pipe)` in a world of one, to be killed; it is in the end."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = _server.Pipe(duplex=False)
        process = _server.Process(target=_alone, args=(Path(folder) / "meeting", function, arguments, theirs))
        process.start()
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.join()


def _alone(meeting: Path, function: Callable[..., Any], arguments: tuple[Any, ...], pipe: Any) -> None:
    with made_world(0, 1, meeting) as world:
        function(world, *arguments, pipe)


def _answer(pipe: multiprocessing.connection.Connection) -> tuple[Any, str]:
    if not pipe.poll(120):
        return None, "no answer in 120 s"
    try:
        return pickle.loads(pipe.recv_bytes())  # type: ignore[no-any-return]
    except EOFError:
        return None, "it died"


def _rank(pipe: Any, rank: int, size: int, meeting: Path, replicas: int, function: Any, arguments: Any) -> None:
    try:
        with made_world(rank, size, meeting, replicas) as world:
            answer = (function(world, *arguments), "")
    except BaseException:
        answer = (None, traceback.format_exc())
    # By value: torch's own way is over sockets, which end with this process.
    pipe.send_bytes(pickle.dumps(answer))


def small_model(world: World, seed: int = 1) -> Transformer:
    """A model laid over the world, in fp32, as `build_model` lays it."""
    with torch.device("meta"):
        model = Transformer(CONFIG)
    parallelize(model, world, Parallel(), torch.float32)
    model.to_empty(device="cpu")
    model.init_weights(seed)
    return model


def small_training(world: World, kind: str = "adamw", seed: int = 1) -> tuple[Transformer, Optimizers]:
    """A model and its optimizers in their first state."""
    model = small_model(world, seed)
    optimizers = build_optimizers(model, OptimizerOptions(kind=kind), 1e-2)  # type: ignore[arg-type]
    optimizers.initialize()
    return model, optimizers


def train_steps(world: World, model: Transformer, optimizers: Optimizers, steps: range) -> list[tuple[float, float]]:
    """(loss, gradient norm) of steps over one global batch of 12 sequences each, whatever the world."""
    shown = []
    for step in steps:
        tokens_BT = torch.randint(0, 67, (12, 9), generator=torch.Generator().manual_seed(step))
        mine = tokens_BT[world.rank * 12 // world.size : (world.rank + 1) * 12 // world.size]
        loss = model(mine[:, :-1], mine[:, 1:]) / (12 * 8)
        loss.backward()
        total = world.total(loss.detach().clone())
        norm = clip_by_global_norm(model.parameters(), 1.0)
        optimizers.step(1e-2)
        optimizers.zero_grad()
        shown.append((total.item(), norm.item()))
    return shown


def whole_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors gathered; copies."""
    return {name: _whole(tensor).clone() for name, tensor in tensors.items()}


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def state_of(model: Transformer, optimizers: Optimizers) -> dict[str, Tensor]:
    """Everything a checkpoint holds, gathered."""
    return whole_tensors(tensors_of(model, optimizers))


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal bit by bit."""
    assert list(one) == list(other)
    return [name for name, _ in itertools.compress(one.items(), (not torch.equal(one[n], other[n]) for n in one))]
