"""Sampled text: the cache changes nothing, draws are keyed, and each rule leaves out what it says."""

import collections

import pytest
import tokenizers
import torch
from torch import Tensor

from trainer.evaluate.sampling import Sampling, generate, generate_text, load_tokenizer, sample
from trainer.model.transformer import ModelConfig, Transformer

CONFIG = ModelConfig(vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48, max_positions=64, qk_norm=True)
NEVER = -1  # no token ends the text


@pytest.fixture(scope="module")
def model() -> Transformer:
    made, random = Transformer(CONFIG), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=random) + (parameter.ndim == 1))
    return made


def draws(logits: list[float], sampling: Sampling, count: int = 2000) -> collections.Counter[int]:
    random = torch.Generator().manual_seed(0)
    return collections.Counter(sample(torch.tensor(logits), sampling, random) for _ in range(count))


def logs(*probabilities: float) -> list[float]:
    return torch.tensor(probabilities).log().tolist()


def test_the_cache_gives_what_the_whole_text_gives(model: Transformer) -> None:
    prompt = [3, 1, 4, 1, 5, 9]
    text = list(prompt)
    with torch.no_grad():
        for _ in range(30):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    assert generate(model, [prompt], NEVER, Sampling(max_tokens=30, temperature=0)) == [text[len(prompt) :]]
    assert len(set(text[len(prompt) :])) > 3


def test_draws_are_keyed_by_seed_step_and_prompt(model: Transformer) -> None:
    hot = Sampling(max_tokens=20, temperature=1.5)
    first, second = generate(model, [[1, 2], [1, 2]], NEVER, hot, seed=5, step=7)
    assert first != second
    torch.manual_seed(99)  # the global stream plays no part
    assert generate(model, [[1, 2]], NEVER, hot, seed=5, step=7) == [first]
    assert generate(model, [[1, 2]], NEVER, hot, seed=5, step=8) != [first]
    assert generate(model, [[1, 2]], NEVER, hot, seed=6, step=7) != [first]


def test_text_ends_before_end_of_text_but_the_passes_go_on(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collectives of a sharded model must make equally many calls."""
    whole = generate(model, [[1, 2]], NEVER, Sampling(max_tokens=20, temperature=0))[0]
    end = whole[5]
    calls = []
    forward = Transformer.forward
    monkeypatch.setattr(Transformer, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    cut = generate(model, [[1, 2]], end, Sampling(max_tokens=20, temperature=0))[0]
    assert cut == whole[: whole.index(end)]
    assert len(calls) == 20


def test_a_compiled_model_generates_the_same_and_nothing_is_compiled() -> None:
    torch.compiler.reset()
    plain, compiled = Transformer(CONFIG), Transformer(CONFIG)
    plain.init_weights(0)
    compiled.init_weights(0)

    def refuse(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> None:
        raise AssertionError("compiled for one length")

    for block in compiled.layers:
        block.compile(backend=refuse, fullgraph=True)
    sampling = Sampling(max_tokens=5, temperature=0)
    assert generate(compiled, [[1, 2]], NEVER, sampling) == generate(plain, [[1, 2]], NEVER, sampling)


def test_prompts_that_leave_no_room_are_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="prompt 1 has 50 tokens, expected 1 to 44"):
        generate(model, [[1], [1] * 50], NEVER, Sampling(max_tokens=20))
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        generate(model, [[]], NEVER, Sampling(max_tokens=20))


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}])
def test_sampling_that_chooses_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected max_tokens >= 1"):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_temperature_zero_takes_the_likeliest_and_the_smaller_of_two() -> None:
    assert draws([0.0, 2.0, 2.0], Sampling(temperature=0)) == {1: 2000}


def test_temperature_one_draws_by_probability() -> None:
    found = draws(logs(0.5, 0.3, 0.2), Sampling(temperature=1))
    assert [found[token] / 2000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_a_low_temperature_sharpens() -> None:
    found = draws(logs(0.5, 0.3, 0.2), Sampling(temperature=0.5))  # squares: 25, 9, 4
    assert [found[token] / 2000 for token in range(3)] == pytest.approx([25 / 38, 9 / 38, 4 / 38], abs=0.04)


def test_top_k_leaves_k() -> None:
    found = draws(logs(0.2, 0.5, 0.3), Sampling(temperature=1, top_k=2))
    assert set(found) == {1, 2}
    assert found[1] / 2000 == pytest.approx(0.625, abs=0.04)
    assert set(draws(logs(0.2, 0.5, 0.3), Sampling(temperature=1, top_k=5))) == {0, 1, 2}


@pytest.mark.parametrize(("top_p", "left"), [(0.4, {1}), (0.55, {1, 2}), (0.85, {0, 1, 2})])
def test_top_p_leaves_the_likeliest_that_reach_it(top_p: float, left: set[int]) -> None:
    assert set(draws(logs(0.2, 0.5, 0.3), Sampling(temperature=1, top_p=top_p))) == left


def test_top_p_counts_among_the_top_k() -> None:
    # Of 0.4, 0.3, 0.3 two are left by top_k: 0.57 and 0.43, so that 0.5 is reached by the first.
    assert set(draws(logs(0.4, 0.3, 0.3), Sampling(temperature=1, top_k=2, top_p=0.5))) == {0}


def test_text_begins_after_an_end_of_text_and_is_decoded(model: Transformer) -> None:
    words = {f"w{number}": number for number in range(40)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w39"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    greedy = Sampling(max_tokens=4, temperature=0)
    new = generate(model, [[39, 5, 6], [39]], NEVER, greedy)
    expected = [" ".join(f"w{token}" for token in tokens) for tokens in new]
    assert generate_text(model, tokenizer, ["w5 w6", ""], 39, greedy) == expected


def test_text_that_spells_out_a_special_token_is_encoded_as_text() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<end>": 0, "a": 1, "<": 2}, unk_token="<"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=9)
    data = tokenizer.to_str().encode()
    assert tokenizers.Tokenizer.from_buffer(data).encode("a <end>").ids == [1] + 8 * [0]
    assert load_tokenizer(data).encode("a a <end>x").ids == [1, 1, 2]
