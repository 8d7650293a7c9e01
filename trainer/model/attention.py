"""Causal attention, over the whole row or inside documents: SDPA (flash) or flex attention.

B rows of the batch, H heads, K key/value heads, T positions, S positions of keys, D size of a head.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

__all__ = ["KINDS", "Mask", "attend", "document_mask"]

KINDS = ("sdpa", "flex")
Mask = Tensor | BlockMask | None  # None: causal, nothing else


def document_mask(documents_BT: Tensor | None, kind: str) -> Mask:
    """Who sees whom: earlier positions of the same document. None where there are no document numbers.

    Flex attention has no backward pass on the CPU: there it gives way to SDPA, with the same result.
    Padding (-1) sees padding, so that no position is left with nothing to see (a softmax of nothing is not a
    number). Shapes do not depend on how many documents there are: a compiled model is compiled once.
    """
    if documents_BT is None:
        return None
    B, T = documents_BT.shape
    if kind == "flex" and (documents_BT.is_cuda or not torch.is_grad_enabled()):

        def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (documents_BT[b, query] == documents_BT[b, key])

        make: Callable[..., Any] = create_block_mask
        if documents_BT.is_cuda:
            make = _compiled(create_block_mask)
        return make(sees, B, None, T, T, device=documents_BT.device)
    same_B1TT = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
    return same_B1TT & torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask: Mask) -> Tensor:
    """softmax(q k / sqrt(D)) v under the mask, (B, H, T, D); H / K heads share their keys and values.

    Without a mask, one query attends to every key (the last token of a cache), several are causal.
    """
    if isinstance(mask, BlockMask):
        # Not compiled, flex attention holds all T x T scores: right, and good for tests only.
        flex: Callable[..., Any] = flex_attention
        if q_BHTD.is_cuda and not torch.compiler.is_compiling():
            flex = _compiled(flex_attention)
        return flex(q_BHTD, k_BKSD, v_BKSD, block_mask=mask, enable_gqa=True)
    if mask is None:
        causal = q_BHTD.shape[2] > 1
        return F.scaled_dot_product_attention(q_BHTD, k_BKSD, v_BKSD, is_causal=causal, enable_gqa=True)
    # Of the fused kernels that take a mask, none shares keys between heads: without copies all T x T scores are held.
    copies = q_BHTD.shape[1] // k_BKSD.shape[1]
    k_BHSD, v_BHSD = k_BKSD.repeat_interleave(copies, dim=1), v_BKSD.repeat_interleave(copies, dim=1)
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=mask)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)
