"""Export to, and import from, the folders that `transformers` and lm-evaluation-harness open.

A model is `LlamaForCausalLM`, with QK norms `Qwen3ForCausalLM`: modules have the same names and the rotary halves the
same convention (`rotary.py`), so no weight is renamed, permuted or split; the body only stands below `model.`.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from schemas import storage
from schemas.config_model import ConfigError
from trainer.model.transformer import ModelConfig, Transformer, fill, parameter_name

__all__ = ["Words", "check_free", "export", "hugging_face_config", "load_weights", "model_config", "read_config"]

MAX_FILE_BYTES = 4 << 30
INDEX = "model.safetensors.index.json"
OLD_BUFFERS = "rotary_emb.inv_freq"  # computed, but saved all the same by old releases


@dataclass(frozen=True)
class Words:
    """The tokenizer of a model: its tokenizer.json, and the token that begins and ends every document."""

    tokenizer: bytes
    end_of_text: str
    end_of_text_id: int


# ---------------------------------------------------------------- export


def export(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    words: Words,
    folder: str,
    dtype: torch.dtype = torch.bfloat16,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write whole (not sharded) weights, configuration and tokenizer to a new folder or bucket prefix.

    `state` is `Transformer.state_dict()`. Files of weights hold up to `max_file_bytes`; several get an index.
    `config.json` comes last: a folder without it is not whole. Raises ConfigError for a folder that holds a model,
    ValueError for a state that is not of this configuration.
    """
    check_free(folder)
    weights = _weights(state, config, folder)
    groups = _grouped({name: tensor.numel() * dtype.itemsize for name, tensor in weights.items()}, max_file_bytes)
    places: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
        _write_weights({name: weights[name].to("cpu", dtype).contiguous() for name in names}, folder, file)
        places |= dict.fromkeys(names, file)
    if len(groups) > 1:
        size = sum(tensor.numel() for tensor in weights.values()) * dtype.itemsize
        _write_json(folder, INDEX, {"metadata": {"total_size": size}, "weight_map": places})
    storage.write(storage.join(folder, "tokenizer.json"), with_begin(words))
    _write_json(folder, "tokenizer_config.json", _tokenizer_config(words, config))
    ends = {"bos_token_id": words.end_of_text_id, "eos_token_id": words.end_of_text_id}
    _write_json(folder, "generation_config.json", ends | {"pad_token_id": words.end_of_text_id})
    described = hugging_face_config(config) | ends | {"torch_dtype": str(dtype).removeprefix("torch.")}
    _write_json(folder, "config.json", described)


def check_free(folder: str) -> None:
    """Raises ConfigError for a folder that holds a model."""
    if storage.exists(storage.join(folder, "config.json")):
        raise ConfigError(f"{folder}: a model is there already: give another folder, or delete it first")


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """Return the content of config.json, in the keys that `transformers` 4 and 5 and the peers of both read."""
    kind = ("Qwen3ForCausalLM", "qwen3") if config.qk_norm else ("LlamaForCausalLM", "llama")
    return {
        "architectures": [kind[0]],
        "model_type": kind[1],
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": dict(config.rope_scaling) if config.rope_scaling else None,
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "use_cache": True,
    }


def _tokenizer_config(words: Words, config: ModelConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": words.end_of_text,  # as in training, where it stands before each document
        "eos_token": words.end_of_text,
        # Not in config.json: there it would keep the embedding of this token from learning.
        "pad_token": words.end_of_text,
        "add_bos_token": True,
        "model_max_length": config.max_positions,
        "clean_up_tokenization_spaces": False,
    }


def with_begin(words: Words) -> bytes:
    """Return the tokenizer.json with end-of-text put before every text, as it stood before every training document.

    Without it the first token has a context that the model has never seen. Of what the dataset's tokenizer adds to a
    text (a post-processor) nothing was used in training, and nothing is kept but what only corrects offsets.
    """
    tokenizer = json.loads(words.tokenizer)
    given = tokenizer.get("post_processor") or {}
    kept = [each for each in given.get("processors", [given]) if each.get("type") == "ByteLevel"]
    token = {"SpecialToken": {"id": words.end_of_text, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    ids = {"id": words.end_of_text, "ids": [words.end_of_text_id], "tokens": [words.end_of_text]}
    template = {
        "type": "TemplateProcessing",
        "single": [token, first],
        "pair": [token, first, token, second],
        "special_tokens": {words.end_of_text: ids},
    }
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [*kept, template]} if kept else template
    return json.dumps(tokenizer, ensure_ascii=False).encode()


def _weights(state: Mapping[str, Tensor], config: ModelConfig, folder: str) -> dict[str, Tensor]:
    """The tensors under `transformers`' names, in the model's order."""
    found = {parameter_name(name): tensor for name, tensor in state.items()}
    expected = _shapes(config)
    _check_names({name: tuple(tensor.shape) for name, tensor in found.items()}, expected, f"export to {folder}")
    return {to_hf_name(name): found[name].detach() for name in expected}


def _grouped(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, a new group before the one that would exceed the limit."""
    groups: list[list[str]] = []
    filled = math.inf
    for name, size in sizes.items():
        if filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _write_weights(tensors: dict[str, Tensor], folder: str, file: str) -> None:
    with tempfile.TemporaryDirectory(prefix="gristmill-export-") as staging:
        path = Path(staging) / file
        save_file(tensors, path, metadata={"format": "pt"})  # without it `transformers` refuses the file
        storage.write(storage.join(folder, file), path)


def _write_json(folder: str, file: str, value: Any) -> None:
    storage.write(storage.join(folder, file), json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


# ---------------------------------------------------------------- import


def read_config(folder: str, attention: str = "sdpa") -> ModelConfig:
    """The configuration of the model in a folder. Raises ValueError for a model that this trainer does not build."""
    try:
        described = json.loads(storage.read(storage.join(folder, "config.json")))
    except FileNotFoundError:
        raise ValueError(f"{folder}: no config.json there: give a folder that `save_pretrained` wrote") from None
    return model_config(described, folder, attention)


def model_config(described: Mapping[str, Any], name: str = "config.json", attention: str = "sdpa") -> ModelConfig:
    """A parsed config.json as our configuration; refuses what it would silently leave out."""
    kind = described.get("model_type")
    if kind not in ("llama", "qwen3"):
        raise ValueError(f"{name}: model_type={kind!r} is not built here: llama and qwen3 are")
    wanted = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}
    for key, value in wanted.items():
        if described.get(key, value) != value:
            raise ValueError(f"{name}: {key}={described[key]!r}: the models built here have {value!r}")
    theta, scaling = _rope(described, name)
    heads = described["num_attention_heads"]
    return ModelConfig(
        vocab_size=described["vocab_size"],
        dim=described["hidden_size"],
        layers=described["num_hidden_layers"],
        heads=heads,
        kv_heads=described.get("num_key_value_heads") or heads,
        head_dim=described.get("head_dim") or described["hidden_size"] // heads,
        ffn_dim=described["intermediate_size"],
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=described.get("rms_norm_eps", 1e-6),
        qk_norm=kind == "qwen3",
        tied=described.get("tie_word_embeddings", False),
        max_positions=described.get("max_position_embeddings", 2048),
        attention=attention,
    )


def _rope(described: Mapping[str, Any], name: str) -> tuple[float, dict[str, Any] | None]:
    """Theta and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4)."""
    given = described.get("rope_parameters") or described.get("rope_scaling") or {}
    scaling = {key: value for key, value in given.items() if value is not None}
    theta = scaling.pop("rope_theta", None) or described.get("rope_theta") or 10_000.0
    kind = scaling.pop("type", "default")
    kind = scaling.setdefault("rope_type", kind)
    if scaling.pop("partial_rotary_factor", described.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ValueError(f"{name}: partial_rotary_factor: the models built here turn whole heads")
    if kind in ("llama3", "yarn"):
        scaling.setdefault("original_max_position_embeddings", described["max_position_embeddings"])
    return float(theta), None if kind == "default" else scaling


@torch.no_grad()
def load_weights(model: Transformer, folder: str) -> None:
    """Fill a model, sharded or not, with the weights of a local folder, one tensor at a time.

    Raises ValueError naming the first weight that is missing, left over, of another shape or not finite.
    """
    parameters = {parameter_name(name): parameter for name, parameter in model.named_parameters()}
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    files = _files(folder)
    ignored = {"lm_head.weight"} if model.config.tied else set()
    found = {}
    for name, (file, shape) in _stored(files).items():
        if from_hf_name(name) not in ignored and not name.endswith(OLD_BUFFERS):
            found[from_hf_name(name)] = (file, shape)
    _check_names({name: shape for name, (_, shape) in found.items()}, expected, folder)
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in (name for name in expected if found[name][0] == file):
                weight = tensors.get_tensor(to_hf_name(name))
                if not weight.isfinite().all():
                    raise ValueError(
                        f"{folder}: {name} has values that are not finite (NaN or infinite): choose other weights"
                    )
                fill(parameters[name], weight)


def _files(folder: str) -> list[Path]:
    local = storage.local_path(folder)
    if local is None:
        raise ValueError(f"{folder}: weights are read from a local folder: copy the model to this machine first")
    if (local / INDEX).exists():
        places = json.loads((local / INDEX).read_bytes())["weight_map"]
        return [local / file for file in sorted(set(places.values()))]
    if not (local / "model.safetensors").exists():
        raise ValueError(f"{folder}: neither model.safetensors nor {INDEX} is there: weights are read from these")
    return [local / "model.safetensors"]


def _stored(files: list[Path]) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of each tensor, from the headers of the files."""
    stored: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            stored |= {name: (file, tuple(tensors.get_slice(name).get_shape())) for name in tensors.keys()}  # noqa: SIM118
    return stored


# ---------------------------------------------------------------- names


def to_hf_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def from_hf_name(name: str) -> str:
    return name.removeprefix("model.")


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _check_names(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    for name in _differing(found, expected):
        shapes = f"{found.get(name, 'missing')}, expected {expected.get(name, 'no such weight')}"
        raise ValueError(f"{where}: {name}: {shapes}: the weights are of a model with another configuration")


def _differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in [*expected, *found] if found.get(name) != expected.get(name))
