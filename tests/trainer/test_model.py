"""The model: sizes, initial weights, masks, compile."""

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.attention.flex_attention import BlockMask

from trainer.model.attention import document_mask
from trainer.model.transformer import IGNORED, ModelConfig, Transformer, flops_per_token, num_parameters, parameter_name

LLAMA_2_7B = ModelConfig(vocab_size=32_000, dim=4096, layers=32, heads=32, ffn_dim=11_008)
LLAMA_3_8B = ModelConfig(vocab_size=128_256, dim=4096, layers=32, heads=32, kv_heads=8, ffn_dim=14_336)
SMALL = ModelConfig(vocab_size=96, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48, max_positions=64)


def built(config: ModelConfig = SMALL, seed: int = 0) -> Transformer:
    model = Transformer(config)
    model.init_weights(seed)
    return model


def tokens(*shape: int, seed: int = 0, vocab_size: int = 96) -> Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def one_process() -> Iterator[None]:
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


# ---------------------------------------------------------------- arithmetic


def test_parameters_of_known_models() -> None:
    assert num_parameters(LLAMA_2_7B) == 6_738_415_616
    assert num_parameters(LLAMA_3_8B) == 8_030_261_248


def test_flops_of_a_known_model() -> None:
    assert flops_per_token(LLAMA_3_8B, 8192) == 57_914_449_920


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_parameters_are_those_that_the_module_has(tied: bool, qk_norm: bool) -> None:
    config = dataclasses.replace(SMALL, tied=tied, qk_norm=qk_norm, head_dim=6)
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters(config)


def test_tying_saves_parameters_and_no_flops() -> None:
    tied = dataclasses.replace(SMALL, tied=True)
    assert num_parameters(SMALL) - num_parameters(tied) == 96 * 32
    assert flops_per_token(tied, 64) == flops_per_token(SMALL, 64)


def test_zeros_are_filled_in_by_llamas_rule() -> None:
    config = ModelConfig(vocab_size=10, dim=4096, layers=1, heads=32)
    assert (config.kv_heads, config.head_dim, config.ffn_dim) == (32, 128, 11_008)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kv_heads": 3}, "model.heads=4 is no multiple of kv_heads=3"),
        ({"head_dim": 7}, "model.head_dim=7 is odd"),
        ({"layers": 0}, "model.layers=0: it must be at least 1"),
        ({"heads": 0}, "model.heads=0"),
        ({"attention": "paged"}, "model.attention='paged'"),
        ({"rope_scaling": {"rope_type": "dynamic"}}, "rope_type='dynamic' is not built"),
        ({"rope_scaling": {"rope_type": "linear", "factr": 2.0}}, r"missing \['factor'\], unknown \['factr'\]"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- initial weights


@pytest.mark.parametrize(("vocab_size", "dim"), [(32_000, 64), (50_304, 128)])
def test_the_first_loss_is_about_ln_v(vocab_size: int, dim: int) -> None:
    model = built(ModelConfig(vocab_size, dim, layers=2, heads=4, ffn_dim=128))
    row = tokens(2, 65, vocab_size=vocab_size)
    loss = model(row[:, :-1], row[:, 1:]).item() / 128
    assert loss == pytest.approx(math.log(vocab_size), abs=0.05)


def test_the_first_loss_of_a_tied_model_is_about_ln_v() -> None:
    row = tokens(2, 65)
    loss = built(dataclasses.replace(SMALL, tied=True))(row[:, :-1], row[:, 1:]).item() / 128
    assert loss == pytest.approx(math.log(96), abs=0.1)


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    narrow, deep = built(), built(dataclasses.replace(SMALL, vocab_size=97))
    assert torch.equal(narrow.layers[1].mlp.up_proj.weight, deep.layers[1].mlp.up_proj.weight)
    assert not torch.equal(narrow.layers[0].mlp.up_proj.weight, narrow.layers[1].mlp.up_proj.weight)
    assert not torch.equal(narrow.layers[0].mlp.up_proj.weight, narrow.layers[0].mlp.gate_proj.weight)
    assert not torch.equal(narrow.embed_tokens.weight, built(seed=1).embed_tokens.weight)


def test_initial_weights_are_these_numbers_for_ever() -> None:
    weight_VD = built().embed_tokens.weight
    expected = torch.tensor([-0.01945488, -0.00134704, -0.00997861, -0.00478741])
    torch.testing.assert_close(weight_VD[0, :4].detach(), expected, rtol=1e-5, atol=1e-8)


def test_deviations_are_those_of_the_rule() -> None:
    model = built(ModelConfig(vocab_size=2048, dim=256, layers=8, heads=4, ffn_dim=512))
    found = {
        parameter_name(name).rpartition("layers.0.")[2]: parameter.std().item()
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and "layers.1" not in name
    }
    assert found["embed_tokens.weight"] == pytest.approx(0.02, rel=0.02)
    assert found["self_attn.q_proj.weight"] == pytest.approx(0.02, rel=0.02)
    assert found["self_attn.o_proj.weight"] == pytest.approx(0.005, rel=0.02)
    assert found["mlp.down_proj.weight"] == pytest.approx(0.005, rel=0.02)
    assert found["lm_head.weight"] == pytest.approx(1 / 256, rel=0.02)


def test_a_model_built_on_meta_is_the_one_built_in_place() -> None:
    with torch.device("meta"):
        model = Transformer(SMALL)
    model.to_empty(device="cpu")
    model.init_weights(0)
    row = tokens(1, 16)
    assert torch.equal(model(row), built()(row))


def test_rotary_frequencies_survive_meta_loading_and_bf16() -> None:
    """Lost buffers are the peers' trap: a loaded checkpoint that starts with the loss of a new model."""
    with torch.device("meta"):
        model = Transformer(SMALL)
    model.to_empty(device="cpu")
    model.load_state_dict(built().state_dict())
    row = tokens(1, 16)
    assert torch.equal(model(row), built()(row))
    assert torch.equal(built().bfloat16().rotary.inverse_H, built().rotary.inverse_H)
    assert not any("rotary" in name for name in model.state_dict())


def test_angles_that_were_rounded_to_bf16_are_refused() -> None:
    model = built().bfloat16()
    cos_sin = tuple(part.bfloat16() for part in model.rotary(torch.arange(8)[None]))
    with pytest.raises(AssertionError, match="cast_forward_inputs=False"):
        model.layers[0](torch.zeros(1, 8, 32, dtype=torch.bfloat16), cos_sin, None)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("placement", [Shard(0), Shard(1), Replicate()])
def test_a_sharded_parameter_takes_its_slice_of_the_same_draw(placement: Shard | Replicate) -> None:
    mesh = init_device_mesh("cpu", (1,))
    model = Transformer(SMALL)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            place = placement if parameter.ndim == 2 else Replicate()
            sharded = distribute_tensor(torch.zeros_like(parameter), mesh, [place])
            setattr(module, name, nn.Parameter(sharded))
    model.init_weights(0)
    for ours, whole in zip(model.parameters(), built().parameters(), strict=True):
        assert isinstance(ours, DTensor)
        assert torch.equal(ours.full_tensor(), whole)


def test_names_are_those_without_wrappers() -> None:
    assert (
        parameter_name("layers.0._checkpoint_wrapped_module.mlp.up_proj._orig_mod.weight")
        == "layers.0.mlp.up_proj.weight"
    )


# ---------------------------------------------------------------- forward


def test_a_token_sees_no_later_one() -> None:
    row = tokens(1, 24)
    changed = row.clone()
    changed[0, 10] = (row[0, 10] + 1) % 96
    before, after = built()(row), built()(changed)
    assert torch.equal(before[0, :10], after[0, :10])
    assert not torch.equal(before[0, 10:], after[0, 10:])


def test_positions_matter_and_only_their_distance() -> None:
    model, row = built().double(), tokens(1, 12)
    shifted = model(row, positions_BT=torch.arange(5, 17)[None])
    stretched = model(row, positions_BT=torch.arange(0, 24, 2)[None])
    torch.testing.assert_close(shifted, model(row), rtol=0, atol=1e-6)
    assert (stretched - model(row)).abs().max() > 1e-5


def test_rows_longer_than_the_model_are_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens in a sequence, but the model has max_positions=64"):
        built()(tokens(1, 65))


def packed() -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Two rows of documents of lengths 9, 1, 14 and 5, 17, with padding: tokens, positions, numbers, documents."""
    rows, positions, numbers, documents = [], [], [], []
    for row, lengths in enumerate([[9, 1, 14], [5, 17]]):
        pieces = [tokens(length, seed=10 * row + place) for place, length in enumerate(lengths)]
        padding = 26 - sum(lengths)
        documents += pieces
        rows.append(torch.cat([*pieces, torch.zeros(padding, dtype=torch.int64)]))
        positions.append(torch.cat([*(torch.arange(length) for length in lengths), torch.arange(padding)]))
        numbers.append(
            torch.tensor([place for place, length in enumerate(lengths) for _ in range(length)] + padding * [-1])
        )
    return torch.stack(rows), torch.stack(positions), torch.stack(numbers), documents


@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_packed_documents_have_the_logits_they_have_alone(attention: str, kv_heads: int) -> None:
    model = built(dataclasses.replace(SMALL, attention=attention, kv_heads=kv_heads)).double()
    tokens_BT, positions_BT, documents_BT, documents = packed()
    with torch.no_grad():
        logits_BTV = model(tokens_BT, positions_BT=positions_BT, documents_BT=documents_BT)
    assert logits_BTV.isfinite().all()
    found = [logits_BTV[row][documents_BT[row] == number] for row, count in [(0, 3), (1, 2)] for number in range(count)]
    for together, document in zip(found, documents, strict=True):
        torch.testing.assert_close(together, model(document[None])[0], rtol=0, atol=1e-12)


def test_without_the_mask_documents_do_not_have_the_logits_they_have_alone() -> None:
    model = built().double()
    tokens_BT, positions_BT, documents_BT, documents = packed()
    second = model(tokens_BT, positions_BT=positions_BT)[0][documents_BT[0] == 2]
    assert (second - model(documents[2][None])[0]).abs().max() > 1e-5


def test_flex_attention_is_what_runs_without_gradients_and_sdpa_where_flex_has_none() -> None:
    """On the CPU flex attention has no backward pass: a run with `attention: flex` trains there all the same."""
    tokens_BT, positions_BT, documents_BT, _ = packed()
    model = built(dataclasses.replace(SMALL, attention="flex"))
    with torch.no_grad():
        assert isinstance(document_mask(documents_BT, "flex"), BlockMask)
        assert not isinstance(document_mask(documents_BT, "sdpa"), BlockMask)
        without = model(tokens_BT, tokens_BT, positions_BT, documents_BT)
    loss = model(tokens_BT, tokens_BT, positions_BT, documents_BT)
    loss.backward()
    torch.testing.assert_close(loss, without)
    assert model.embed_tokens.weight.grad.norm() > 1


def test_the_sum_of_each_is_the_sum_and_padding_counts_for_nothing() -> None:
    model, row = built(), tokens(2, 17)
    targets_BT = row[:, 1:].clone()
    targets_BT[1, 4:] = IGNORED
    each_BT = model(row[:, :-1], targets_BT, reduction="none")
    assert each_BT.shape == (2, 16)
    assert each_BT[1, 4:].tolist() == [0.0] * 12
    total = model(row[:, :-1], targets_BT)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(each_BT.double().sum().item(), rel=1e-6)
    log_p = model(row[:, :-1]).log_softmax(-1)[0, 3, row[0, 4]].item()
    assert each_BT[0, 3].item() == pytest.approx(-log_p, rel=1e-5)


def test_the_model_learns() -> None:
    model, row = built(), tokens(4, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = model(row[:, :-1], row[:, 1:]) / 64
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(96), abs=0.1)
    assert losses[-1] < 0.2


def test_no_number_of_documents_breaks_the_graph_or_recompiles() -> None:
    """The peers' trap: 25 s of compilation at each new number of documents in a batch."""
    model = built()
    graphs: list[torch.fx.GraphModule] = []

    def record(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(model, backend=record, fullgraph=True)
    tokens_BT, positions_BT, documents_BT, _ = packed()
    for numbers_BT in (documents_BT, torch.zeros_like(documents_BT), documents_BT.clamp_min(0)):
        ours = compiled(tokens_BT, tokens_BT, positions_BT, numbers_BT)
        torch.testing.assert_close(ours, model(tokens_BT, tokens_BT, positions_BT, numbers_BT))
    assert len(graphs) == 1
