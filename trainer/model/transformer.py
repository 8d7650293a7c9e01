"""The model: a decoder-only transformer of the Llama family. It knows nothing of parallelism.

RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases; optionally a norm on queries and keys.
Modules have the names of `transformers`' Llama and Qwen3, so that export renames nothing (`huggingface.py`).

B sequences of the batch, T positions, D width, H heads, K key/value heads, h size of a head, F width of the
feed-forward, V vocabulary; N = B T tokens.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.model.attention import KINDS, Mask, attend, document_mask
from trainer.model.cross_entropy import IGNORED, summed_cross_entropy, token_nats
from trainer.model.rotary import RotaryEmbedding, check_scaling, rotate

__all__ = ["IGNORED", "ModelConfig", "Transformer", "fill", "flops_per_token", "num_parameters", "parameter_name"]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices; 0 for kv_heads, head_dim and ffn_dim means Llama's rule."""

    vocab_size: int
    dim: int
    layers: int
    heads: int
    kv_heads: int = 0  # 0: as many as heads
    head_dim: int = 0  # 0: dim / heads
    ffn_dim: int = 0  # 0: 8/3 dim, up to the next multiple of 256
    rope_theta: float = 10_000.0
    rope_scaling: Mapping[str, Any] | None = None  # Hugging Face's keys, `rotary.inverse_frequencies`
    norm_eps: float = 1e-5
    qk_norm: bool = False
    tied: bool = False  # one matrix for embedding and head
    max_positions: int = 8192  # longest sequence
    attention: str = "sdpa"  # or flex, which skips the blocks that a document mask empties

    def __post_init__(self) -> None:
        """Fill in the zeros. Raises ValueError for sizes that do not fit together."""
        derived = {
            "kv_heads": self.heads,
            "head_dim": self.dim // max(self.heads, 1),
            "ffn_dim": math.ceil(8 * self.dim / 3 / 256) * 256,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        for name in ("vocab_size", "dim", "layers", "heads", "kv_heads", "head_dim", "ffn_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)}: it must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"model.heads={self.heads} is no multiple of kv_heads={self.kv_heads}: heads share them")
        if self.dim % self.heads and not self.qk_norm:
            raise ValueError(
                f"model.dim={self.dim} is no multiple of heads={self.heads}: `transformers` opens such a model with "
                "qk_norm only, change one of the three"
            )
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim={self.head_dim} is odd: rotary positions turn pairs, make it even")
        if self.attention not in KINDS:
            raise ValueError(f"model.attention={self.attention!r}: it must be one of {', '.join(KINDS)}")
        check_scaling(self.rope_scaling or {})


class Cache(Protocol):
    """Keys and values of earlier positions (`evaluate/sampling.py`)."""

    def extend(self, layer: int, k_BKTh: Tensor, v_BKTh: Tensor) -> tuple[Tensor, Tensor]:
        """Append those of a layer; all of its keys and values so far, (B, K, S, h)."""


class Attention(nn.Module):
    """Grouped-query attention."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.q_proj = nn.Linear(config.dim, config.heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None = None) -> Tensor:
        q_BHTh = self.q_norm(self._split(self.q_proj(x_BTD))).transpose(1, 2)
        k_BKTh = self.k_norm(self._split(self.k_proj(x_BTD))).transpose(1, 2)
        v_BKTh = self._split(self.v_proj(x_BTD)).transpose(1, 2)
        q_BHTh, k_BKTh = rotate(q_BHTh, *rotary), rotate(k_BKTh, *rotary)
        if cache is not None:
            k_BKTh, v_BKTh = cache.extend(self.layer, k_BKTh, v_BKTh)
        out_BHTh = attend(q_BHTh, k_BKTh, v_BKTh, mask)
        return self.o_proj(out_BHTh.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, heads x h) as (B, T, heads, h)."""
        return x.unflatten(-1, (-1, self.head_dim))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.up_proj = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.down_proj = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Block(nn.Module):
    """Attention, then feed-forward, each on normed input and added to the stream."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None = None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotary, mask, cache)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Transformer(nn.Module):
    """Tokens in, logits or summed loss out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.rotary = RotaryEmbedding(config.head_dim, config.rope_theta, config.rope_scaling)
        self.layers = nn.ModuleList([Block(config, layer) for layer in range(config.layers)])
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.lm_head = None if config.tied else nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        *,
        reduction: Literal["sum", "none"] = "sum",
        cache: Cache | None = None,
    ) -> Tensor:
        """Return logits (B, T, V); with targets the sum of their nats in fp32, or with reduction="none" the nats of
        each, (B, T).

        Targets of -100 count for nothing. Positions are 0..T-1 unless given. With document numbers a token sees
        its own document only. Raises ValueError for a sequence longer than `max_positions`.
        """
        length = tokens_BT.shape[1]
        if length > self.config.max_positions:
            raise ValueError(
                f"{length} tokens in a sequence, but the model has max_positions={self.config.max_positions}"
            )
        if positions_BT is None:
            positions_BT = torch.arange(length, device=tokens_BT.device)[None]
        rotary = self.rotary(positions_BT)
        mask = document_mask(documents_BT, self.config.attention)
        x_BTD = self.embed_tokens(tokens_BT)
        for block in self.layers:
            x_BTD = block(x_BTD, rotary, mask, cache)
        x_BTD = self.norm(x_BTD)
        head_VD = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        if targets_BT is None:
            return F.linear(x_BTD, head_VD)
        x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
        if reduction == "none":
            return token_nats(x_ND, head_VD, targets_N).view_as(targets_BT)
        return summed_cross_entropy(x_ND, head_VD, targets_N)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw every parameter anew: the same seed gives the same weights on any device and in any layout.

        Each is drawn whole on the CPU from a generator of its own, keyed by seed and name; of a sharded one a rank
        keeps its slice. Works after construction on the meta device and `to_empty`.
        """
        for wrapped_name, parameter in self.named_parameters():
            fill(parameter, _draw(parameter_name(wrapped_name), parameter.shape, self.config, seed))


def fill(parameter: Tensor, whole: Tensor) -> None:
    """Copy a value into a parameter; of a sharded one each rank, which must have the whole, keeps its slice."""
    if isinstance(parameter, DTensor):
        # src_data_rank=None: nothing is sent.
        whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(whole)


def _draw(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """Initial value of a parameter, fp32 on the CPU.

    Normal with deviation 0.02; outputs into the stream 0.02 / sqrt(2 layers), so that it does not grow with depth
    (GPT-2); an untied head 1 / dim, so that the first loss is ln V at any width (Yang et al. 2021, table 3).
    """
    if len(shape) == 1:
        return torch.ones(shape, device="cpu")
    deviation = 0.02
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        deviation /= math.sqrt(2 * config.layers)
    elif name == "lm_head.weight":
        deviation = 1 / config.dim
    key = hashlib.blake2b(f"init\0{seed}\0{name}".encode(), digest_size=8).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(key, "little") >> 1)
    return torch.empty(shape, dtype=torch.float32, device="cpu").normal_(0.0, deviation, generator=generator)


def parameter_name(wrapped: str) -> str:
    """The name of a parameter without what activation checkpointing and compile put into it."""
    return wrapped.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")


# ---------------------------------------------------------------- arithmetic


def num_parameters(config: ModelConfig) -> int:
    """Parameters of the model: V d (twice when untied) + L (2 d H h + 2 d K h + 3 d F + 2 d) + d, and QK norms."""
    attention = 2 * config.dim * config.head_dim * (config.heads + config.kv_heads)
    norms = 2 * config.dim + 2 * config.head_dim * config.qk_norm
    layer = attention + 3 * config.dim * config.ffn_dim + norms
    return config.vocab_size * config.dim * (1 if config.tied else 2) + config.layers * layer + config.dim


def flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """FLOPs of forward and backward for one token: 6 N + 12 L H h T, N all parameters but the embedding's.

    The head counts once, tied or not; the norms (0.004 % of 8 B) are left in, as PaLM's appendix B and the peers
    count; the causal mask gives no discount.
    """
    counted = num_parameters(config) - (0 if config.tied else config.vocab_size * config.dim)
    return 6 * counted + 12 * config.layers * config.heads * config.head_dim * sequence_length
