"""Export and import: what `transformers` computes from our folders, and we from theirs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from torch import Tensor

from schemas.config_model import ConfigError
from trainer.evaluate.sampling import Sampling, generate
from trainer.model.huggingface import (
    Words,
    export,
    hugging_face_config,
    load_weights,
    model_config,
    read_config,
    with_begin,
)
from trainer.model.rotary import inverse_frequencies
from trainer.model.transformer import ModelConfig, Transformer

SMALL = ModelConfig(vocab_size=300, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48, max_positions=512)
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
VARIANTS = {
    "untied": SMALL,
    "tied": dataclasses.replace(SMALL, tied=True),
    "one head of keys": dataclasses.replace(SMALL, kv_heads=1),
    "no shared keys": dataclasses.replace(SMALL, kv_heads=4),
    "wide heads": dataclasses.replace(SMALL, head_dim=16),
    "qk norm": dataclasses.replace(SMALL, qk_norm=True),
    "qk norm, tied": dataclasses.replace(SMALL, qk_norm=True, tied=True, head_dim=12),
    "linear": dataclasses.replace(SMALL, rope_scaling={"rope_type": "linear", "factor": 2.5}),
    "llama3": dataclasses.replace(SMALL, rope_theta=500_000.0, rope_scaling=LLAMA_3),
    "yarn": dataclasses.replace(SMALL, rope_scaling=YARN),
    "yarn, all keys": dataclasses.replace(
        SMALL,
        rope_scaling={**YARN, "attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
    ),
}


def built(config: ModelConfig) -> Transformer:
    """A model whose weights are large enough for every part to show in the logits."""
    model, random = Transformer(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            center = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(center + 0.3 * torch.randn(parameter.shape, generator=random))
    return model


def rows() -> Tensor:
    return torch.randint(300, (2, 200), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def words() -> Words:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat, the hat of the cat"] * 4, trainer)
    return Words(tokenizer.to_str().encode(), "<|endoftext|>", 0)


def divergence(ours_BTV: Tensor, theirs_BTV: Tensor) -> float:
    """The largest KL of a position, in nats."""
    log_p, log_q = ours_BTV.double().log_softmax(-1), theirs_BTV.double().log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).abs().max())


def theirs(folder: Path, dtype: torch.dtype = torch.float64) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)


def exported(model: Transformer, words: Words, folder: Path, **options: Any) -> Path:
    export(model.state_dict(), model.config, words, str(folder), **{"dtype": torch.float32, **options})
    return folder


# ---------------------------------------------------------------- logits


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_an_exported_model_has_the_same_logits_in_transformers(variant: str, words: Words, tmp_path: Path) -> None:
    model = built(VARIANTS[variant])
    other = theirs(exported(model, words, tmp_path / "model"))
    assert type(other).__name__ == ("Qwen3ForCausalLM" if model.config.qk_norm else "LlamaForCausalLM")
    ours_BTV, theirs_BTV = model.double()(rows()), other(rows()).logits
    assert divergence(ours_BTV, theirs_BTV) < 1e-10
    torch.testing.assert_close(ours_BTV, theirs_BTV, rtol=0, atol=1e-4)
    assert ours_BTV.std() > 1  # the logits say something


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_model_of_transformers_has_the_same_logits_here(variant: str, tmp_path: Path) -> None:
    described = hugging_face_config(VARIANTS[variant])
    config = transformers.AutoConfig.for_model(**{k: v for k, v in described.items() if k != "architectures"})
    torch.manual_seed(0)
    other = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in other.parameters():
        if parameter.ndim == 2:
            parameter.normal_(0, 0.3)
    other.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = Transformer(read_config(str(tmp_path)))
    model.to_empty(device="cpu")
    load_weights(model, str(tmp_path))
    assert model.config == VARIANTS[variant]
    assert divergence(model.double()(rows()), other.double()(rows()).logits) < 1e-10


@torch.no_grad()
def test_rotary_pairs_in_place_of_halves_are_seen(words: Words, tmp_path: Path) -> None:
    """The negative control: the same comparison must fail for weights in the other convention (Meta's)."""
    model = built(SMALL)
    state = model.state_dict()
    for name, weight in state.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            state[name] = weight.unflatten(0, (-1, 4, 2)).transpose(1, 2).flatten(0, 2)
    export(state, SMALL, words, str(tmp_path / "pairs"), dtype=torch.float32)
    assert divergence(model.double()(rows()), theirs(tmp_path / "pairs")(rows()).logits) > 1e-3


@torch.no_grad()
def test_another_rope_scaling_is_seen(words: Words, tmp_path: Path) -> None:
    model = built(VARIANTS["llama3"])
    scaled = dataclasses.replace(model.config, rope_scaling={**LLAMA_3, "factor": 8.1})
    export(model.state_dict(), scaled, words, str(tmp_path / "model"), dtype=torch.float32)
    assert divergence(model.double()(rows()), theirs(tmp_path / "model")(rows()).logits) > 1e-8


@pytest.mark.parametrize("variant", ["untied", "linear", "llama3", "yarn", "yarn, all keys"])
def test_rotary_frequencies_are_those_of_transformers_bit_for_bit(variant: str) -> None:
    config = VARIANTS[variant]
    described = hugging_face_config(config)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{k: v for k, v in described.items() if k not in ("architectures", "model_type")})
    ).model.rotary_emb
    inverse_H, factor = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    assert torch.equal(inverse_H, theirs.inv_freq)
    assert factor == theirs.attention_scaling


# ---------------------------------------------------------------- the folder


def test_the_tokenizer_and_the_ends_of_documents_come_along(words: Words, tmp_path: Path) -> None:
    folder = exported(built(SMALL), words, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = "the cat, the hat — 猫 on  the mat\n"
    plain = tokenizers.Tokenizer.from_str(words.tokenizer.decode())
    assert tokenizer(text)["input_ids"] == [0, *plain.encode(text, add_special_tokens=False).ids]  # as in training
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 0, 0)
    assert tokenizer(["the", text], padding=True, return_tensors="pt")["input_ids"].shape[0] == 2
    model = theirs(folder)
    assert model.generation_config.eos_token_id == 0
    assert (model.config.eos_token_id, model.config.bos_token_id) == (0, 0)
    assert model.config.pad_token_id is None  # its embedding would never learn


@pytest.mark.parametrize("before", ["nothing", "offsets", "another token", "both"])
def test_nothing_but_the_end_of_text_stands_before_an_exported_text(words: Words, before: str) -> None:
    given = json.loads(words.tokenizer)
    offsets = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    other = tokenizers.processors.TemplateProcessing(single="the $A", special_tokens=[("the", 260)])
    template = json.loads(other.__getstate__())
    both = {"type": "Sequence", "processors": [offsets, template]}
    given["post_processor"] = {"nothing": None, "offsets": offsets, "another token": template, "both": both}[before]
    data = with_begin(dataclasses.replace(words, tokenizer=json.dumps(given).encode()))
    tokenizer = tokenizers.Tokenizer.from_buffer(data)
    plain = tokenizers.Tokenizer.from_buffer(words.tokenizer)
    ids = [plain.encode(text, add_special_tokens=False).ids for text in ("the cat", "the hat")]
    assert tokenizer.encode("the cat").ids == [0, *ids[0]]
    assert tokenizer.encode("the cat", "the hat").ids == [0, *ids[0], 0, *ids[1]]
    assert tokenizer.encode("the cat", add_special_tokens=False).ids == ids[0]


@torch.no_grad()
def test_transformers_generates_what_we_generate(words: Words, tmp_path: Path) -> None:
    model = built(SMALL)
    folder = exported(model, words, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompt = tokenizer("the cat")["input_ids"]
    given = torch.tensor([prompt])
    written = theirs(folder, torch.float32).generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    ours = generate(model, [prompt], 0, Sampling(max_tokens=20, temperature=0.0))[0]
    kept = written[0, len(prompt) :].tolist()
    assert ours == (kept[: kept.index(0)] if 0 in kept else kept)
    assert len(set(ours)) > 2


def test_large_weights_are_cut_into_files_with_an_index(words: Words, tmp_path: Path) -> None:
    model = built(SMALL)
    folder = exported(model, words, tmp_path / "model", max_file_bytes=40_000)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert names == [f"model-{number:05d}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    assert all(path.stat().st_size < 42_000 for path in folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in model.parameters())
    again = Transformer(SMALL)
    load_weights(again, str(folder))
    for ours, whole in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, whole)
    with torch.no_grad():
        assert divergence(model.double()(rows()), theirs(folder)(rows()).logits) < 1e-10


def test_weights_are_bf16_unless_asked_otherwise(words: Words, tmp_path: Path) -> None:
    model = built(SMALL)
    export(model.state_dict(), SMALL, words, str(tmp_path / "model"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    again = Transformer(SMALL)
    load_weights(again, str(tmp_path / "model"))
    assert torch.equal(again.norm.weight, model.norm.weight.bfloat16().float())


def test_a_folder_that_holds_a_model_is_left_alone(words: Words, tmp_path: Path) -> None:
    exported(built(SMALL), words, tmp_path / "model")
    with pytest.raises(ConfigError, match="a model is there already"):
        exported(built(SMALL), words, tmp_path / "model")


def test_wrapped_names_are_unwrapped(words: Words, tmp_path: Path) -> None:
    model = built(SMALL)
    state = {name.replace("layers.0.", "layers.0._orig_mod."): value for name, value in model.state_dict().items()}
    export(state, SMALL, words, str(tmp_path / "model"), dtype=torch.float32)
    again = Transformer(SMALL)
    load_weights(again, str(tmp_path / "model"))
    assert torch.equal(again.layers[0].mlp.up_proj.weight, model.layers[0].mlp.up_proj.weight)


# ---------------------------------------------------------------- what does not fit


def test_a_state_of_another_configuration_is_refused(words: Words, tmp_path: Path) -> None:
    state = built(SMALL).state_dict()
    with pytest.raises(ValueError, match=r"mlp.gate_proj.weight: \(48, 32\), expected \(64, 32\)"):
        export(state, dataclasses.replace(SMALL, ffn_dim=64), words, str(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"lm_head.weight: .* expected no such weight"):
        export(state, dataclasses.replace(SMALL, tied=True), words, str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_weights_of_another_model_are_refused_before_any_is_loaded(words: Words, tmp_path: Path) -> None:
    folder = exported(built(SMALL), words, tmp_path / "model")
    other = Transformer(dataclasses.replace(SMALL, layers=3))
    before = other.embed_tokens.weight.clone()
    with pytest.raises(ValueError, match=r"layers.2.input_layernorm.weight: missing, expected \(32,\)"):
        load_weights(other, str(folder))
    assert torch.equal(other.embed_tokens.weight, before)


def test_a_tied_model_ignores_a_stored_copy_of_the_head(words: Words, tmp_path: Path) -> None:
    model = built(SMALL)
    folder = exported(model, words, tmp_path / "model")
    again = Transformer(dataclasses.replace(SMALL, tied=True))
    load_weights(again, str(folder))
    assert torch.equal(again.embed_tokens.weight, model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not built here"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type='dynamic' is not built"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "turn whole heads"),
        ({"rope_scaling": {**YARN, "mscale": 0.7}}, r"unknown \['mscale'\]"),
    ],
)
def test_what_would_be_left_out_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_config(hugging_face_config(SMALL) | change)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_configuration_survives_the_round_trip(variant: str) -> None:
    assert model_config(hugging_face_config(VARIANTS[variant])) == VARIANTS[variant]


def test_old_and_new_words_for_the_scaling_are_one() -> None:
    old = hugging_face_config(SMALL) | {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 5e5}
    new = hugging_face_config(SMALL)
    del new["rope_theta"], new["rope_scaling"]
    new["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert model_config(old) == model_config(new)
    assert model_config(new).rope_theta == 500_000.0
    assert model_config(new).rope_scaling == {"rope_type": "linear", "factor": 2.0}


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json there"):
        read_config(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(hugging_face_config(SMALL)))
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor"):
        load_weights(Transformer(read_config(str(tmp_path))), str(tmp_path))
