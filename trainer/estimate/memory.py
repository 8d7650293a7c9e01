"""The memory of a device at the worst moment of a step: estimated for `plan`, and refused where it cannot be enough.

Estimates are sums of what is known to be held; what is not counted is named.
"""

from typing import Any

import torch

from schemas.config_model import ConfigError
from schemas.text_format import bits
from trainer.distributed.mesh import World
from trainer.estimate.accelerators import host_memory
from trainer.model.cross_entropy import LOGITS_OF_A_CHUNK
from trainer.model.transformer import ModelConfig, num_parameters
from trainer.resolve import Resolved

__all__ = ["PARTS", "activation_bytes", "check_memory", "memory_of_device", "memory_of_run"]

PARTS = ("parameters", "gradients", "optimizer", "gathered", "activations", "loss")
FP32 = 4


def memory_of_device(
    model: ModelConfig,
    *,
    shards: int,
    rows: int,
    sequence_length: int,
    compute_bytes: int,
    checkpointing: str = "none",
    muon: bool = False,
    masked: bool = False,
) -> dict[str, int]:
    """Bytes that one device holds at the worst moment of a step, by what they are.

    `shards`: devices that share one copy of the model; `rows` of `sequence_length` tokens at once (the micro-batch);
    `compute_bytes` of a number in the forward pass (2: bf16); `masked`: attention inside documents.
    Not counted: the driver's own (some 0.5 GiB), buffers of NCCL, fragments, and for Muon one matrix at a time.
    """
    parameters, tokens = num_parameters(model), rows * sequence_length
    matrices = _matrices(model)
    table, block = model.vocab_size * model.dim, matrices // model.layers
    state = 2 * parameters - (matrices if muon else 0)  # AdamW keeps two numbers a parameter, Muon one a matrix weight
    memory = {
        "parameters": FP32 * parameters // shards,
        "gradients": FP32 * parameters // shards,
        "optimizer": FP32 * state // shards,
        # The root's tables stay gathered from forward to backward; of the blocks, the one at work and the next. Its
        # gradient is there in the compute dtype, and once more in fp32 to be reduced.
        "gathered": compute_bytes * (parameters - matrices) + 2 * compute_bytes * block
        + (compute_bytes + FP32) * block,
        "activations": activation_bytes(model, rows, sequence_length, compute_bytes, checkpointing, masked),
        # cross_entropy.py: the chunk's logits and softmax in fp32, rounded once; the gradient of the head in fp32,
        # rounded, and a chunk's share of it; the gradient of the hidden states.
        "loss": min(LOGITS_OF_A_CHUNK, tokens * model.vocab_size) * (2 * FP32 + compute_bytes % FP32)
        + table * (FP32 + 2 * compute_bytes) + compute_bytes * tokens * model.dim,
    }  # fmt: skip
    return memory | {"total": sum(memory.values())}


def activation_bytes(
    model: ModelConfig, rows: int, sequence_length: int, compute_bytes: int, checkpointing: str, masked: bool = False
) -> int:
    """Bytes that the forward pass keeps for the backward pass, all blocks together, and one recomputed where it is.

    Of a block: what its two norms, its products, attention and SwiGLU read. `full` keeps a block's input; `selective`
    keeps also the output of attention and of every second product (query, value, gate, down).
    Raises ValueError for another mode.
    """
    width, heads = model.dim, model.heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    seen = heads if masked and model.attention == "sdpa" else keys  # under a mask keys are copied for their heads
    whole = 4 * width + 2 * heads + 2 * seen + 4 * model.ffn_dim + (heads + keys if model.qk_norm else 0)
    kept = {
        "none": whole,
        "selective": 2 * width + 2 * heads + keys + model.ffn_dim,
        "full": width,
    }
    if checkpointing not in kept:
        raise ValueError(f"activation_checkpointing={checkpointing!r}: it must be one of {', '.join(kept)}")
    tokens = rows * sequence_length
    # In fp32 whatever the compute dtype: the softmax's sums, one a head, and the norms' roots.
    small = FP32 * tokens * (model.heads + 2 + (model.heads + model.kv_heads if model.qk_norm else 0))
    mask = compute_bytes * rows * sequence_length**2 if masked and model.attention == "sdpa" else 0
    block = compute_bytes * tokens * whole + small + mask
    if checkpointing == "none":
        return model.layers * block
    sums = FP32 * tokens * model.heads if checkpointing == "selective" else 0
    return model.layers * (compute_bytes * tokens * kept[checkpointing] + sums) + block


def _matrices(model: ModelConfig) -> int:
    """Weights of the blocks' matrix products."""
    attention = 2 * model.dim * model.head_dim * (model.heads + model.kv_heads)
    return model.layers * (attention + 3 * model.dim * model.ffn_dim)


# ---------------------------------------------------------------- a run


def memory_of_run(run: Resolved, on_gpu: bool) -> dict[str, Any]:
    """`memory_of_device` in the phase that holds the most, and the settings that it comes from."""
    options = run.config.parallel
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    mostly: dict[str, Any] = {"total": 0}
    for phase in run.phases:
        if phase.start >= run.steps:
            break
        rows = min(phase.global_batch // run.world, run.micro_batch or phase.global_batch)
        bytes_by = memory_of_device(
            run.model,
            shards=run.world // options.replicas,
            rows=rows,
            sequence_length=phase.sequence_length,
            compute_bytes=2 if dtype == "bfloat16" else FP32,
            checkpointing=options.activation_checkpointing,
            muon=run.config.optimizer.kind == "muon",
            masked=run.config.data.mask == "documents",
        )
        if bytes_by["total"] > mostly["total"]:
            mostly = {**bytes_by, "rows": rows, "sequence_length": phase.sequence_length}
    return {
        **mostly,
        "dtype": dtype,
        "shards": run.world // options.replicas,
        "activation_checkpointing": options.activation_checkpointing,
    }


def check_memory(run: Resolved, world: World) -> None:
    """Raises ConfigError, with figures and hints, for a run that the device surely has no memory for.

    Only what is there at once whatever the kernels is counted, against all memory of the device: a run that is not
    refused may still be too large. `parallel.check_memory: false` tries all the same.
    """
    if not run.config.parallel.check_memory:
        return
    on_gpu = world.device.type == "cuda"
    has = torch.cuda.get_device_properties(world.device).total_memory if on_gpu else host_memory() // world.local_size
    memory = memory_of_run(run, on_gpu)
    # A compiler may compute again some of what the formula has kept. Gradients come as activations go.
    activations = memory["activations"] // (2 if run.config.parallel.compile else 1)
    needed = memory["parameters"] + memory["optimizer"] + max(memory["gradients"], activations)
    if needed <= has:
        return
    hints = [
        "parallel.activation_checkpointing: full" if memory["activation_checkpointing"] != "full" else "",
        "model.attention: flex" if run.config.data.mask == "documents" and run.model.attention == "sdpa" else "",
        "a smaller parallel.micro_batch" if memory["rows"] > 1 else "",
        "a shorter data.sequence_length, more processes or a smaller model",
    ]
    raise ConfigError(
        f"data.sequence_length={memory['sequence_length']} with parallel.micro_batch={memory['rows']}: a step needs at "
        f"least {bits(needed)} a process (parameters {bits(memory['parameters'])}, optimizer "
        f"{bits(memory['optimizer'])}, activations {bits(activations)}), and there are {bits(has)}: try "
        f"{', '.join(hint for hint in hints if hint)} (`plan` shows what each gives), or parallel.check_memory: false"
    )
