"""The optimizers: AdamW, or Muon for the hidden matrices with AdamW for the rest; clipping; rates by rule.

Parameters, momenta and second moments are fp32, whatever the compute dtype: in bf16 an update of a thousandth of a
weight is rounded away and the loss stops at a plateau.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.config import OptimizerOptions
from trainer.distributed.mesh import local_part
from trainer.optim.muon import Muon

__all__ = ["Optimizers", "build_optimizers", "clip_by_global_norm", "default_batch_tokens", "default_learning_rate"]


class Optimizers:
    """Several optimizers as one; each group's `scale` is its rate over the schedule's."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts

    def initialize(self) -> None:
        """Make every state now: a checkpoint then holds the same tensors at any step, and is loaded in place."""
        for part in self.parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    part.state[parameter] = _first_state(part, parameter)

    def step(self, rate: float) -> None:
        """Update all parameters at a learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * group["scale"]
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def _first_state(part: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The state with which the optimizer itself would begin."""
    if isinstance(part, Muon):
        return {"momentum_buffer": torch.zeros_like(parameter)}
    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}


def build_optimizers(model: nn.Module, options: OptimizerOptions, rate: float) -> Optimizers:
    """The optimizers of a model whose parameters lie where they will train; `rate` is the schedule's peak.

    Vectors (norms) are not decayed, the embedding only by option: decay makes its rows small, and the gradients
    behind a norm grow as its input shrinks (OLMo 2, 2025). Muon takes the matrices of the blocks; embedding and head
    are tables of rows, which have no spectrum to orthogonalize, and stay with AdamW (Jordan et al. 2024).
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    wrong = [name for name, parameter in named if parameter.dtype not in (torch.float32, torch.float64)]
    if wrong:
        raise ValueError(f"{wrong[0]} is not fp32: optimizer states inherit the dtype, and bf16 loses small updates")
    hidden = [p for name, p in named if options.kind == "muon" and p.ndim == 2 and ".layers." in f".{name}"]
    taken = {id(parameter) for parameter in hidden}
    tables = set() if options.decay_embeddings else _embeddings(model)
    groups: dict[float, list[Tensor]] = {options.weight_decay: [], 0.0: []}
    for _, parameter in named:
        if id(parameter) not in taken:
            decayed = parameter.ndim >= 2 and id(parameter) not in tables
            groups[options.weight_decay if decayed else 0.0].append(parameter)
    rest = [{"params": ps, "weight_decay": decay, "scale": 1.0} for decay, ps in groups.items() if ps]
    # Fused: one call for all. On the CPU too, where a step over sharded parameters one by one takes 8 times as long.
    adamw = torch.optim.AdamW(rest, lr=rate, betas=options.betas, eps=options.eps, fused=True)
    parts: list[torch.optim.Optimizer] = [adamw]
    if hidden:
        scale = options.muon_learning_rate / rate if options.muon_learning_rate else 1.0
        parts.append(
            Muon(
                [{"params": hidden, "scale": scale}],
                lr=rate * scale,
                weight_decay=options.weight_decay,
                momentum=options.momentum,
                dtype=getattr(torch, options.muon_dtype),
            )
        )
    return Optimizers(parts)


def _embeddings(model: nn.Module) -> set[int]:
    """The parameters of embeddings, tied ones too."""
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def clip_by_global_norm(parameters: Iterable[nn.Parameter], most: float | None) -> Tensor:
    """Scale all gradients so that their norm is at most `most`; returns the norm before, a tensor on the device.

    The norm is that of the whole gradient, over the shards of all ranks, after the reduction. A norm that is not
    finite makes every gradient so: the caller must look at it before an update.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if most is not None:
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([local_part(each) for each in gradients], scale)
    return norm


# ---------------------------------------------------------------- rates by rule


def default_learning_rate(compute_flops: float) -> float:
    """A peak rate for AdamW: 0.3118 C^-0.125 (DeepSeek LLM, 2024, section 3.1), at most 0.003.

    C is the training's whole compute in FLOPs. Fitted from 1e17 to 2e19 FLOPs and used by its authors to 3e23; below
    that it is capped, for small models that train for minutes.
    """
    return min(3e-3, 0.3118 * compute_flops**-0.125)


def default_batch_tokens(compute_flops: float) -> int:
    """Tokens a step: 0.2920 C^0.3271 (DeepSeek LLM, 2024, section 3.1), at least 8,192."""
    return max(8192, round(0.2920 * compute_flops**0.3271))
