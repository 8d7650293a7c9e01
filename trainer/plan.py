"""What a run will take, before a step of it is run: compute, memory of a device, time, energy, data.

Estimates are sums of what is known to be held; what is not counted is said. FLOPs and parameters are exact.
"""

from collections.abc import Mapping
from typing import Any

from schemas.words import bits, brief, count, duration, plural
from trainer.cache import smallest_cache
from trainer.dataset import ShardFiles
from trainer.devices import DEVICES, Device, find_device
from trainer.loss import LOGITS_OF_A_CHUNK
from trainer.model import ModelConfig, flops_per_token, num_parameters
from trainer.resolve import Resolved

__all__ = ["activation_bytes", "compute_optimal", "memory_of_device", "plan_lines", "plan_summary"]

# Besiroglu et al. 2024, the refit of Hoffmann et al. 2022: L = E + A / N^ALPHA + B / D^BETA.
A, B, ALPHA, BETA = 482.01, 2085.43, 0.3478, 0.3658
FP32 = 4
JOULES_A_KWH = 3.6e6


def compute_optimal(flops: float) -> tuple[float, float]:
    """Parameters and tokens with the lowest loss for a budget of C = 6 N D FLOPs (Besiroglu et al. 2024)."""
    balance = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    parameters = balance * (flops / 6) ** (BETA / (ALPHA + BETA))
    return parameters, flops / 6 / parameters


# ---------------------------------------------------------------- memory


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
        # loss.py: the chunk's logits and their softmax in fp32, rounded once; the head's gradient in fp32, rounded,
        # and a chunk's share of it; the gradient of the hidden states.
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


# ---------------------------------------------------------------- the plan


def plan_summary(run: Resolved, device: str | None = None, mfu: float = 0.4) -> dict[str, Any]:
    """Everything that `plan` prints, as JSON: numbers without rounding, null where nothing is known.

    `device`: its name, as the driver or a person writes it; time and energy are for one whose peak is known.
    Raises ValueError for an `mfu` outside of (0, 1].
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu}: a share of the device's peak, above 0 and at most 1")
    known = find_device(device) if device else None
    tokens, flops = _work(run)
    parameters, (best, best_tokens) = num_parameters(run.model), compute_optimal(flops)
    return {
        "parameters": parameters,
        "flops_per_token": flops_per_token(run.model, run.phases[0].sequence_length),
        "flops": flops,
        "steps": run.steps,
        "tokens": tokens,
        "tokens_per_parameter": tokens / parameters,
        "compute_optimal": {"parameters": best, "tokens": best_tokens},
        "batch_tokens": run.phases[0].global_batch * run.phases[0].sequence_length,
        "peak_learning_rate": run.schedule.peak,
        "rules": dict(run.rules),
        "memory": _memory(run, known, on_gpu=device is not None),
        "time": _time(known, device, run.world, flops, tokens, mfu),
        "data": _data(run),
    }


def _work(run: Resolved) -> tuple[int, int]:
    """Tokens and FLOPs of the whole run; phases differ in both."""
    ends = [*(phase.start for phase in run.phases[1:]), run.steps]
    tokens = flops = 0
    for phase, end in zip(run.phases, ends, strict=True):
        batches = max(0, min(end, run.steps) - phase.start)
        amount = batches * phase.global_batch * phase.sequence_length
        tokens += amount
        flops += amount * flops_per_token(run.model, phase.sequence_length)
    return tokens, flops


def _memory(run: Resolved, device: Device | None, on_gpu: bool) -> dict[str, Any]:
    """Of the phase that holds the most."""
    options = run.config.parallel
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    mostly: dict[str, Any] = {"total": 0}
    for phase in run.phases:
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
            settings = {"rows": rows, "sequence_length": phase.sequence_length}
            mostly = {**bytes_by, **settings}
    return {
        **mostly,
        "dtype": dtype,
        "shards": run.world // options.replicas,
        "activation_checkpointing": options.activation_checkpointing,
        "device_bytes": device.memory_bytes if device else None,
        "fits": mostly["total"] < device.memory_bytes if device else None,
    }


def _time(device: Device | None, name: str | None, world: int, flops: int, tokens: int, mfu: float) -> dict[str, Any]:
    if device is None:
        return {"device": name, "devices": world, "mfu": None, "seconds": None, "tokens_per_second": None, "kwh": None}
    seconds = flops / (world * device.flops_per_second * mfu)
    return {
        "device": device.name,
        "devices": world,
        "mfu": mfu,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "kwh": world * device.watts * seconds / JOULES_A_KWH,
    }


def _data(run: Resolved) -> dict[str, Any]:
    """What is read of each source, and what it takes to hold it."""
    order, phase = run.order(), run.phases[0]
    last = order.last_batch()
    batches = run.steps if last is None else min(run.steps, last + 1)
    tokens, consumed = order.realised_tokens(batches), order.consumed(batches)
    weights = {name: float(weight) for name, weight in phase.weights.items()}
    return {
        "ends_after": batches if batches < run.steps else None,
        "smallest_cache_bytes": smallest_cache(order.shards, run.phases, ShardFiles(order.shards, run.datasets)),
        "sources": {
            name: {
                "weight": weights.get(name, 0.0) / sum(weights.values()),
                "tokens": tokens[name],
                "epochs": consumed[name].epochs,
            }
            for name in order.shards.sources
        },
        "left_out": [
            {"batch": each.batch, "source": each.source, "rows": each.rows}
            for each in order.left_out()
            if each.batch < batches
        ],
    }


# ---------------------------------------------------------------- in words


def plan_lines(summary: Mapping[str, Any]) -> list[str]:
    """The plan as lines for a terminal."""
    best = summary["compute_optimal"]
    lines = [
        f"model      {count(summary['parameters'])} parameters, {brief(summary['flops_per_token'])} FLOP a token",
        f"run        {count(summary['steps'])} steps, {brief(summary['tokens'])} tokens "
        f"({summary['tokens_per_parameter']:.3g} a parameter), {summary['flops']:.3g} FLOP",
        f"           compute-optimal for that: {brief(best['parameters'])} parameters, {brief(best['tokens'])} tokens",
        f"           batch {count(summary['batch_tokens'])} tokens, peak learning rate "
        f"{summary['peak_learning_rate']:.2e}",
    ]
    lines += [f"           {key}: {rule}" for key, rule in summary["rules"].items()]
    return lines + _memory_lines(summary["memory"]) + _time_lines(summary["time"]) + _data_lines(summary["data"])


def _memory_lines(memory: Mapping[str, Any]) -> list[str]:
    parts = ("parameters", "gradients", "optimizer", "gathered", "activations", "loss")
    lines = [
        f"memory     {bits(memory['total'])} a device: {memory['dtype']}, {plural(memory['shards'], 'shard')}, "
        f"{plural(memory['rows'], 'row')} of {memory['sequence_length']} at once, activation checkpointing "
        f"{memory['activation_checkpointing']}",
        "           " + ", ".join(f"{name} {bits(memory[name])}" for name in parts),
    ]
    if memory["fits"] is False:
        lines += [
            f"           that is more than the device's {bits(memory['device_bytes'])}: lower parallel.micro_batch, "
            "set parallel.activation_checkpointing: full, or take more devices"
        ]
    return lines


def _time_lines(time: Mapping[str, Any]) -> list[str]:
    if time["seconds"] is None:
        known = ", ".join(device.name for device in DEVICES)
        what = (
            f"no peak is known for {time['device']}, only for {known}" if time["device"] else "no GPU is named (--gpu)"
        )
        return [f"time       not estimated: {what}"]
    length = duration(time["seconds"]) if time["seconds"] >= 1 else "under a second"
    return [
        f"time       {length} on {time['devices']} x {time['device']} at an assumed MFU of "
        f"{100 * time['mfu']:.0f}%: {brief(time['tokens_per_second'])} tokens/s",
        f"energy     at most {brief(time['kwh'])} kWh, the devices alone at their power limit",
    ]


def _data_lines(data: Mapping[str, Any]) -> list[str]:
    lines = [
        f"data       {name}: weight {100 * each['weight']:.1f}%, {brief(each['tokens'])} tokens, "
        f"{each['epochs']:.2f} epochs"
        for name, each in data["sources"].items()
    ]
    lines += [
        f"           the phase at batch {each['batch']:,} leaves out {each['rows']:,} unread rows of {each['source']}"
        for each in data["left_out"]
    ]
    if data["ends_after"] is not None:
        lines += [f"           the data end after {data['ends_after']:,} steps"]
    cache = data["smallest_cache_bytes"]
    return [*lines, f"cache      {f'at least {bits(cache)} a node' if cache else 'not needed, all shards are local'}"]
