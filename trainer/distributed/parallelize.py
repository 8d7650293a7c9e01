"""How a model is laid over processes: activation checkpointing, compile, FSDP.

One code for one process and many, CPU (gloo) and CUDA (NCCL): a single process is a mesh of one, so that what is
tested on a laptop is what runs on a cluster. `parallelize` applies, from the inside out: activation checkpointing,
because it must see the plain block; compile, over the checkpointed block; FSDP last, because it must own the
parameters that the compiled block reads.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trainer.config import Parallel
from trainer.distributed.mesh import World

__all__ = ["inference", "parallelize"]

# Selective checkpointing keeps what costs most to compute again, and of the many matrix products every second one.
KEPT = ("_scaled_dot_product", "flex_attention", "reduce_scatter_tensor", "all_gather_into_tensor")
PRODUCTS = ("aten.mm.", "aten.addmm.", "aten._scaled_mm.")


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


@contextlib.contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run without gradients, and leave the parameters as shards in the end.

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
