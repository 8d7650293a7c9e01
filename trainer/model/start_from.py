"""A model that starts from the weights of another: what of its shape a run may change, and whether its tokens agree."""

from dataclasses import replace
from typing import Any

import tokenizers

from schemas import storage
from schemas.config_model import ConfigError
from trainer.config import Model
from trainer.model.transformer import ModelConfig

__all__ = ["check_tokenizer", "started_model"]

ROPE = ("rope_theta", "rope_scaling")
OURS = ("start_from", "check_tokenizer", "attention")  # how it is run, and no part of its shape
NEEDS_LENGTH = ("llama3", "yarn")


def started_model(given: Model, base: ModelConfig, longest: int) -> ModelConfig:
    """Return the model of the folder (or of the checkpoint) `base`, with the rotary positions that `given` changes.

    A longer sequence than it was made for needs them: without, positions beyond are ones that it has never seen.
    Raises ValueError for a setting that its weights do not allow.
    """
    settings = {name: getattr(given, name) for name in given.model_fields_set.difference(OURS)}
    settings = {name: value for name, value in settings.items() if value is not None}
    rope = {name: settings.pop(name) for name in ROPE if name in settings}
    for name, value in sorted(settings.items()):
        if value != getattr(base, name):
            raise ValueError(
                f"model.{name}={value}: {given.start_from} has {getattr(base, name)}, and a model keeps the shape of "
                f"the weights that it starts from: leave it out (only {', '.join(ROPE)} can change)"
            )
    if longest > base.max_positions and not rope:
        raise ValueError(
            f"data.sequence_length={longest}: {given.start_from} was made for {base.max_positions}: shorten it, or set "
            "model.rope_scaling (as in {rope_type: yarn, factor: 4}) or model.rope_theta for a longer context"
        )
    if scaling := rope.get("rope_scaling"):
        rope["rope_scaling"] = _with_length(scaling, base)
    return replace(base, max_positions=max(base.max_positions, longest), **rope)


def _with_length(scaling: dict[str, Any], base: ModelConfig) -> dict[str, Any]:
    """Hugging Face's keys, with the length that the weights were trained at."""
    kind = scaling.get("rope_type") or scaling.get("type")
    known = (base.rope_scaling or {}).get("original_max_position_embeddings", base.max_positions)
    return {"original_max_position_embeddings": known, **scaling} if kind in NEEDS_LENGTH else scaling


def check_tokenizer(folder: str, dataset: bytes) -> None:
    """Raises ConfigError when a token of the dataset has another id, or stands for another text, in the folder.

    `dataset` is the tokenizer.json that its shards were encoded with. It may have tokens beyond those of the folder.
    """
    try:
        start = _vocabulary(storage.read(storage.join(folder, "tokenizer.json")))
    except FileNotFoundError:
        raise ConfigError(
            f"model.start_from: {folder}: no tokenizer.json there to compare with the dataset's: copy it into the "
            "folder, or set model.check_tokenizer: false"
        ) from None
    texts = {number: text for text, number in start.items()}
    for text, number in sorted(_vocabulary(dataset).items(), key=lambda item: item[1]):
        if start.get(text, number) != number or texts.get(number, text) != text:
            raise ConfigError(
                f"model.start_from: {folder} was trained with another tokenizer: token {number} is {text!r} in the "
                f"dataset and {texts.get(number)!r} there: make a dataset with its tokenizer.json, or set "
                "model.check_tokenizer: false to learn the tokens anew"
            )


def _vocabulary(data: bytes) -> dict[str, int]:
    return tokenizers.Tokenizer.from_buffer(data).get_vocab(with_added_tokens=True)
