"""Rotary position embedding: the frequencies of each scaling, and the rotation.

T positions, H half of a head's size. The convention is that of halves: element i turns with element i + H
(`transformers`), not with its neighbour (Meta's files); weights of the two differ by a permutation of rows.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RotaryEmbedding", "check_scaling", "inverse_frequencies", "rotate"]


class RotaryEmbedding(nn.Module):
    """Cosines and sines of positions, always in fp32.

    The frequencies are never part of a state dict, and are computed again whenever the module moves: `to_empty`
    would leave them undefined after construction on the meta device, and `to(bfloat16)` would round them.
    """

    inverse_H: Tensor

    def __init__(self, head_dim: int, theta: float, scaling: Mapping[str, Any] | None):
        super().__init__()
        self.head_dim, self.theta, self.scaling = head_dim, theta, dict(scaling or {})
        inverse_H, self.attention_factor = inverse_frequencies(head_dim, theta, self.scaling)
        self.register_buffer("inverse_H", inverse_H, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RotaryEmbedding":
        super()._apply(fn, recurse)
        if not self.inverse_H.is_meta:
            inverse_H, _ = inverse_frequencies(self.head_dim, self.theta, self.scaling)
            self.inverse_H = inverse_H.to(self.inverse_H.device)
        return self

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of shape (B, 1, T, H); the 1 stands for the heads."""
        angles_B1TH = positions_BT[:, None, :, None].float() * self.inverse_H
        return angles_B1TH.cos() * self.attention_factor, angles_B1TH.sin() * self.attention_factor


def rotate(x_BHTD: Tensor, cos_B1TH: Tensor, sin_B1TH: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of a head by its angle: in fp32 at least, given back in the dtype of x."""
    assert cos_B1TH.dtype == torch.float32, "rounded angles: give FSDP's policy cast_forward_inputs=False"
    first, second = x_BHTD.chunk(2, dim=-1)
    turned = (first * cos_B1TH - second * sin_B1TH, second * cos_B1TH + first * sin_B1TH)
    return torch.cat(turned, dim=-1).to(x_BHTD.dtype)


# ---------------------------------------------------------------- frequencies

NEEDED = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "original_max_position_embeddings"},
}
ALLOWED = {"yarn": {"attention_factor", "beta_fast", "beta_slow", "truncate"}}


def check_scaling(scaling: Mapping[str, Any]) -> None:
    """Raise ValueError for a scaling that is not known, lacks a key or has one that would be ignored."""
    kind = scaling.get("rope_type", "default")
    if kind not in NEEDED:
        raise ValueError(f"rope_scaling: rope_type={kind!r} is not built: take one of {', '.join(NEEDED)}")
    given = set(scaling) - {"rope_type"}
    missing, unknown = NEEDED[kind] - given, given - NEEDED[kind] - ALLOWED.get(kind, set())
    if missing or unknown:
        raise ValueError(
            f"rope_scaling of type {kind}: missing {sorted(missing)}, unknown {sorted(unknown)}: "
            f"it takes {sorted(NEEDED[kind] | ALLOWED.get(kind, set()))}"
        )


def inverse_frequencies(head_dim: int, theta: float, scaling: Mapping[str, Any] | None) -> tuple[Tensor, float]:
    """Radians a position for each pair of a head, fp32, and the factor on cosines and sines.

    `scaling` has Hugging Face's keys (`rope_type`: default, linear, llama3, yarn). Computed in fp32 on the CPU,
    operation for operation as `transformers.modeling_rope_utils`, so that exported models agree to the last bit;
    tensors of another device's `pow` would differ by an ulp, which position 100,000 multiplies.
    """
    scaling = scaling or {}
    check_scaling(scaling)
    with torch.device("cpu"):  # real numbers even while a model is built on the meta device
        wavelength_H = theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        kind = scaling.get("rope_type", "default")
        if kind == "linear":
            return 1.0 / wavelength_H / scaling["factor"], 1.0
        if kind == "llama3":
            return _llama3(1.0 / wavelength_H, scaling), 1.0
        if kind == "yarn":
            return _yarn(wavelength_H, head_dim, theta, scaling)
        return 1.0 / wavelength_H, 1.0


def _llama3(inverse_H: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Long waves are slowed down by `factor`, short ones kept, those between interpolated (Llama 3.1)."""
    length, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wave_H = 2 * math.pi / inverse_H
    smooth_H = (length / wave_H - low) / (high - low)
    between_H = (1 - smooth_H) * inverse_H / factor + smooth_H * inverse_H
    slowed_H = torch.where(wave_H > length / low, inverse_H / factor, inverse_H)
    return torch.where((wave_H < length / high) | (wave_H > length / low), slowed_H, between_H)


def _yarn(wavelength_H: Tensor, head_dim: int, theta: float, scaling: Mapping[str, Any]) -> tuple[Tensor, float]:
    """NTK by parts: pairs that turn often keep their speed, others are slowed down (Peng et al. 2023)."""
    factor, length = scaling["factor"], scaling["original_max_position_embeddings"]

    def pair_turning(times: float) -> float:
        """The pair, as a real number, that makes so many turns over the original length."""
        return (head_dim * math.log(length / (times * 2 * math.pi))) / (2 * math.log(theta))

    low, high = pair_turning(scaling.get("beta_fast") or 32), pair_turning(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp_H = torch.clamp((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low), 0, 1)
    kept_H = 1 - ramp_H
    inverse_H = 1.0 / (factor * wavelength_H) * (1 - kept_H) + 1.0 / wavelength_H * kept_H
    attention_factor = scaling.get("attention_factor")
    if attention_factor is None:
        attention_factor = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return inverse_H, attention_factor
