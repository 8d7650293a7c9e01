"""What a run will take, before a step of it is run: compute, memory of a device, time, energy, data.

Estimates are sums of what is known to be held; what is not counted is named. FLOPs and parameters are exact.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from schemas.text_format import bits, brief, count, duration, plural
from trainer.data.cache import smallest_cache
from trainer.data.shard_files import ShardFiles
from trainer.estimate.accelerators import DEVICES, Device, find_device
from trainer.estimate.memory import PARTS, memory_of_run
from trainer.model.transformer import flops_per_token, num_parameters
from trainer.order.batch_order import LeftOut
from trainer.resolve import Resolved

__all__ = ["compute_optimal", "plan_lines", "plan_summary"]

# Besiroglu et al. 2024, the refit of Hoffmann et al. 2022: L = E + A / N^ALPHA + B / D^BETA.
A, B, ALPHA, BETA = 482.01, 2085.43, 0.3478, 0.3658
JOULES_A_KWH = 3.6e6


def compute_optimal(flops: float) -> tuple[float, float]:
    """Parameters and tokens with the lowest loss for a budget of C = 6 N D FLOPs (Besiroglu et al. 2024)."""
    balance = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    parameters = balance * (flops / 6) ** (BETA / (ALPHA + BETA))
    return parameters, flops / 6 / parameters


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
    memory = memory_of_run(run, on_gpu)
    return {
        **memory,
        "device_bytes": device.memory_bytes if device else None,
        "fits": memory["total"] < device.memory_bytes if device else None,
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
        "left_out": [asdict(each) for each in order.left_out() if each.batch < batches],
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
    lines = [
        f"memory     {bits(memory['total'])} a device: {memory['dtype']}, {plural(memory['shards'], 'shard')}, "
        f"{plural(memory['rows'], 'row')} of {memory['sequence_length']} at once, activation checkpointing "
        f"{memory['activation_checkpointing']}",
        "           " + ", ".join(f"{name} {bits(memory[name])}" for name in PARTS),
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
    lines += [f"           {LeftOut(**each).line()}" for each in data["left_out"]]
    if data["ends_after"] is not None:
        lines += [f"           the data end after {data['ends_after']:,} steps"]
    cache = data["smallest_cache_bytes"]
    return [*lines, f"cache      {f'at least {bits(cache)} a node' if cache else 'not needed, all shards are local'}"]
