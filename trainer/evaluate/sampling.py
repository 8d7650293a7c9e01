"""Sampled text: greedy, temperature, top-k and top-p, with a cache of keys and values.

T tokens of a piece, S tokens so far, V vocabulary, K key/value heads, h size of a head.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tokenizers
import torch
from torch import Tensor

from trainer.distributed.parallelize import inference
from trainer.model.transformer import Transformer

__all__ = ["KeysAndValues", "Sampling", "generate", "generate_text", "load_tokenizer", "sample"]


class KeysAndValues:
    """What attention has computed for the tokens so far, of each layer."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k_BKTh: Tensor, v_BKTh: Tensor) -> tuple[Tensor, Tensor]:
        """Append those of a layer; all of its keys and values so far, (B, K, S, h)."""
        if layer in self._layers:
            k_BKSh, v_BKSh = self._layers[layer]
            k_BKTh, v_BKTh = torch.cat((k_BKSh, k_BKTh), dim=2), torch.cat((v_BKSh, v_BKTh), dim=2)
        self._layers[layer] = (k_BKTh, v_BKTh)
        return k_BKTh, v_BKTh


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Raises ValueError for values that choose nothing."""

    max_tokens: int = 64
    temperature: float = 0.8  # 0: always the likeliest
    top_k: int = 0  # only so many of the likeliest; 0: all
    top_p: float = 1.0  # only the likeliest that together have this probability

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_tokens < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"{self}: expected max_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1")


def load_tokenizer(data: bytes) -> tokenizers.Tokenizer:
    """A dataset's tokenizer.json, ready to encode text as its documents were: whole, and with no special tokens in it.

    Where a text spells one out, it is encoded as any other text.
    """
    tokenizer = tokenizers.Tokenizer.from_buffer(data)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def generate_text(
    model: Transformer,
    tokenizer: tokenizers.Tokenizer,
    prompts: Sequence[str],
    end_of_text: int,
    sampling: Sampling,
    seed: int = 0,
    step: int = 0,
    heartbeat: Callable[[], None] = lambda: None,
) -> list[str]:
    """How each prompt goes on; an empty one begins a document. Otherwise as `generate`.

    As in training, end-of-text stands before a document.
    """
    encoded = [[end_of_text, *tokenizer.encode(prompt, add_special_tokens=False).ids] for prompt in prompts]
    return [tokenizer.decode(new) for new in generate(model, encoded, end_of_text, sampling, seed, step, heartbeat)]


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    end_of_text: int,
    sampling: Sampling,
    seed: int = 0,
    step: int = 0,
    heartbeat: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """At most `max_tokens` new tokens for each prompt, up to the end of the text, which is left out.

    Calls `heartbeat` at every prompt.

    Draws are keyed by (seed, step, number of the prompt). Every prompt takes exactly `max_tokens` forward passes, even
    past an end of text: the ranks of a sharded model, whose logits may differ in the last bit, must make equally many
    calls. A compiled model runs uncompiled here, where every call has another shape.
    Raises ValueError for a prompt without tokens, or one that leaves no room in `max_positions`.
    """
    longest = model.config.max_positions - sampling.max_tokens
    if longest < 1:
        raise ValueError(
            f"{sampling.max_tokens} new tokens are requested, and the model has max_positions="
            f"{model.config.max_positions}: request fewer"
        )
    for number, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= longest:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, expected 1 to {longest}: the model has "
                f"max_positions={model.config.max_positions}, and {sampling.max_tokens} new ones are requested"
            )
    found = []
    with inference(model), torch.compiler.set_stance("force_eager"):
        for number, prompt in enumerate(prompts):
            heartbeat()
            random = torch.Generator("cpu").manual_seed(_key(seed, step, number))
            new = _continue(model, prompt, sampling, random)
            found.append(new[: new.index(end_of_text)] if end_of_text in new else new)
    return found


def _continue(model: Transformer, prompt: Sequence[int], sampling: Sampling, random: torch.Generator) -> list[int]:
    device = next(model.parameters()).device
    cache, piece, start = KeysAndValues(), list(prompt), 0
    new: list[int] = []
    while len(new) < sampling.max_tokens:
        tokens_BT = torch.tensor([piece], device=device)
        positions_BT = torch.arange(start, start + len(piece), device=device)[None]
        logits_BTV = model(tokens_BT, positions_BT=positions_BT, cache=cache)
        new.append(sample(logits_BTV[0, -1], sampling, random))
        start, piece = start + len(piece), new[-1:]
    return new


def sample(logits_V: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """One token: the likeliest at temperature 0, else drawn from softmax(logits / temperature).

    Only the `top_k` likeliest may come (0: all), and of these the likeliest whose probabilities first reach `top_p`
    (Holtzman et al. 2020); ties go to the smaller token. Drawn in fp64 on the CPU, so that a draw does not depend
    on the device.
    """
    logits_V = logits_V.to("cpu", torch.float64)
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = logits_V.sort(descending=True, stable=True)
    p_V = (sorted_V / sampling.temperature).softmax(dim=0)
    if sampling.top_k:
        p_V[sampling.top_k :] = 0
        p_V /= p_V.sum()
    if sampling.top_p < 1:
        p_V[p_V.cumsum(0) - p_V >= sampling.top_p] = 0
    return int(order_V[torch.multinomial(p_V, 1, generator=random)])


def _key(*numbers: int) -> int:
    """A seed that no other (seed, step, prompt) has."""
    text = "\0".join(["generate", *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
