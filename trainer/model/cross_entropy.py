"""Cross-entropy of a large vocabulary, a chunk of tokens at a time.

N tokens, V vocabulary, D width, C tokens of a chunk.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["IGNORED", "summed_cross_entropy", "token_nats"]

IGNORED = -100  # a target that counts for nothing: padding, a lost shard
LOGITS_OF_A_CHUNK = 1 << 26  # 256 MiB in fp32


def token_nats(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """-ln p of each target, in fp32 (fp64 of fp64); 0 where the target is IGNORED. Without a gradient."""
    with torch.no_grad():
        size = _chunk_tokens(weight_VD)
        parts = zip(hidden_ND.split(size), targets_N.split(size), strict=True)
        return torch.cat([_chunk(hidden, weight_VD, targets)[0] for hidden, targets in parts])


def summed_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The sum of -ln p over all targets that are not IGNORED, in fp32 nats (fp64 of fp64).

    Neither forward nor backward ever holds the N x V logits. The gradient is known as soon as the logits are, so
    it is computed in the forward pass, chunk by chunk: nothing is computed twice, as it would be with activation
    checkpointing, and the weight's gradient is added up in fp32 whatever the compute dtype. The price: the gradients
    of hidden and weight live from the forward pass on. (The same thought: Hsu et al. 2024, Liger Kernel.)
    """
    return _SummedCrossEntropy.apply(hidden_ND, weight_VD, targets_N, torch.is_grad_enabled())


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, with_gradient: bool) -> Tensor:
        size = _chunk_tokens(weight_VD)
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden_ND.device)
        d_hidden, d_weight_VD = [], torch.zeros_like(weight_VD, dtype=wide) if with_gradient else None
        for hidden_CD, targets_C in zip(hidden_ND.split(size), targets_N.split(size), strict=True):
            nats_C, logits_CV = _chunk(hidden_CD, weight_VD, targets_C)
            total += nats_C.sum()
            if d_weight_VD is not None:
                d_logits_CV = _logits_gradient(logits_CV, targets_C).to(hidden_CD.dtype)
                d_hidden.append(d_logits_CV @ weight_VD)
                d_weight_VD += d_logits_CV.T @ hidden_CD
        if d_weight_VD is not None:
            ctx.save_for_backward(torch.cat(d_hidden), d_weight_VD.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        scale_1 = upstream[0][None]  # one dimension, so that the product is not in bf16: 1/targets would be rounded
        d_hidden_ND, d_weight_VD = ((saved * scale_1).to(saved.dtype) for saved in ctx.saved_tensors)
        return d_hidden_ND, d_weight_VD, None, None


def _chunk(hidden_CD: Tensor, weight_VD: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """-ln p of each target, and the logits they come from."""
    logits_CV = hidden_CD @ weight_VD.T
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    counted_C = targets_C != IGNORED
    chosen_C = logits_CV.gather(1, targets_C.clamp_min(0)[:, None])[:, 0]
    return torch.where(counted_C, logits_CV.logsumexp(dim=1) - chosen_C, 0.0), logits_CV


def _logits_gradient(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    """softmax - one_hot, in the logits' place; 0 for targets that do not count."""
    gradient_CV = logits_CV.softmax(dim=1)
    gradient_CV.scatter_add_(1, targets_C.clamp_min(0)[:, None], torch.full_like(gradient_CV[:, :1], -1.0))
    return gradient_CV.masked_fill_((targets_C == IGNORED)[:, None], 0.0)


def _chunk_tokens(weight_VD: Tensor) -> int:
    return max(1, LOGITS_OF_A_CHUNK // weight_VD.shape[0])
