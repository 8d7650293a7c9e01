"""Optimizers, clipping and rates by rule, in one process and in several."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from tests.trainer.made_world import on_ranks, small_model, small_training, state_of, train_steps
from trainer.config import OptimizerOptions
from trainer.distributed.mesh import World
from trainer.optim.muon import Muon, orthogonalize
from trainer.optim.optimizers import build_optimizers, clip_by_global_norm, default_batch_tokens, default_learning_rate

SHAPES = [(5, 3), (2, 7), (4, 4), (1, 6), (9, 2), (3, 3), (7, 7)]


class Small(nn.Module):
    """The names that count: blocks in `layers`, an embedding, a head, norms."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(6, 4)
        self.layers = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(4, 8, bias=False), "norm": nn.RMSNorm(4)})])
        self.lm_head = nn.Linear(4, 6, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight


def groups_of(options: OptimizerOptions, tied: bool = False) -> list[tuple[str, float, float, list[str]]]:
    """(optimizer, weight decay, scale, names) of each group."""
    model = Small(tied)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        (type(part).__name__, group["weight_decay"], group["scale"], [names[each] for each in group["params"]])
        for part in build_optimizers(model, options, 1e-3).parts
        for group in part.param_groups
    ]


def test_norms_are_not_decayed() -> None:
    assert groups_of(OptimizerOptions(weight_decay=0.2)) == [
        ("AdamW", 0.2, 1.0, ["embed_tokens.weight", "layers.0.up.weight", "lm_head.weight"]),
        ("AdamW", 0.0, 1.0, ["layers.0.norm.weight"]),
    ]


def test_the_embedding_is_not_decayed_by_option_nor_is_a_head_tied_to_it() -> None:
    options = OptimizerOptions(decay_embeddings=False)
    assert groups_of(options) == [
        ("AdamW", 0.1, 1.0, ["layers.0.up.weight", "lm_head.weight"]),
        ("AdamW", 0.0, 1.0, ["embed_tokens.weight", "layers.0.norm.weight"]),
    ]
    assert groups_of(options, tied=True)[1][3] == ["embed_tokens.weight", "layers.0.norm.weight"]


def test_muon_takes_the_matrices_of_the_blocks_and_no_others() -> None:
    assert groups_of(OptimizerOptions(kind="muon", muon_learning_rate=2e-2)) == [
        ("AdamW", 0.1, 1.0, ["embed_tokens.weight", "lm_head.weight"]),
        ("AdamW", 0.0, 1.0, ["layers.0.norm.weight"]),
        ("Muon", 0.1, pytest.approx(20.0), ["layers.0.up.weight"]),
    ]


def test_no_decay_at_all_makes_one_group() -> None:
    assert [group[1] for group in groups_of(OptimizerOptions(weight_decay=0.0))] == [0.0]


def test_bf16_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"embed_tokens\.weight is not fp32"):
        build_optimizers(Small().to(torch.bfloat16), OptimizerOptions(), 1e-3)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_state_is_there_at_once_and_fp32(kind: str) -> None:
    model = Small()
    optimizers = build_optimizers(model, OptimizerOptions(kind=kind), 1e-3)  # type: ignore[arg-type]
    optimizers.initialize()
    before = {parameter: set(state) for part in optimizers.parts for parameter, state in part.state.items()}
    assert len(before) == 4
    assert {value.dtype for part in optimizers.parts for state in part.state.values() for value in state.values()} == {
        torch.float32
    }
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(1e-3)
    assert before == {parameter: set(state) for part in optimizers.parts for parameter, state in part.state.items()}


def test_adamw_is_the_formula_of_the_paper() -> None:
    model, generator = Small(), torch.Generator().manual_seed(3)
    optimizers = build_optimizers(model, OptimizerOptions(weight_decay=0.1, betas=(0.9, 0.95), eps=1e-8), 1e-2)
    optimizers.initialize()
    weight = model.lm_head.weight
    want, first, second = weight.detach().double(), torch.zeros(6, 4).double(), torch.zeros(6, 4).double()
    for step, rate in enumerate([1e-2, 3e-2, 2e-2], 1):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        gradient = weight.grad.double()  # type: ignore[union-attr]
        optimizers.step(rate)
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        update = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        want = want * (1 - rate * 0.1) - rate * update
    torch.testing.assert_close(weight.detach().double(), want, rtol=1e-6, atol=1e-7)


def test_zero_grad_drops_the_gradients() -> None:
    model = Small()
    optimizers = build_optimizers(model, OptimizerOptions(kind="muon"), 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


# ---------------------------------------------------------------- Muon


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7), (7, 1)])
def test_orthogonalizing_keeps_the_directions_and_makes_the_singular_values_nearly_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() * 100
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalize(matrix, torch.float64) @ vh.T
    off = inner - torch.diag(inner.diagonal())
    assert off.abs().max() < 1e-10
    assert bool(((inner.diagonal() > 0.65) & (inner.diagonal() < 1.25)).all())
    assert s.max() / s.min() < 100  # of this matrix: tiny singular values would need more iterations


def test_five_steps_map_a_singular_value_as_the_quintic_does() -> None:
    # 0.5 and 0.5 of a norm of 1, by p(x) = 3.4445 x - 4.7750 x^3 + 2.0315 x^5, five times.
    x = 1 / math.sqrt(2)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    torch.testing.assert_close(orthogonalize(torch.eye(2).double() * 3, torch.float64), torch.eye(2).double() * x)


def test_a_matrix_of_zeros_stays_one() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_step_of_muon_is_momentum_orthogonalized_and_scaled_like_adamw() -> None:
    generator = torch.Generator().manual_seed(5)
    weight = nn.Parameter(torch.randn(6, 4, generator=generator))
    muon = Muon([{"params": [weight], "scale": 1.0}], lr=0.1, weight_decay=0.01, momentum=0.9)
    want, buffer = weight.detach().double(), torch.zeros(6, 4).double()
    for _ in range(3):
        weight.grad = torch.randn(6, 4, generator=generator)
        gradient = weight.grad.double()
        muon.step()
        buffer = 0.9 * buffer + 0.1 * gradient
        update = orthogonalize(0.1 * gradient + 0.9 * buffer, torch.float64)
        want = want * (1 - 0.1 * 0.01) - 0.1 * 0.2 * math.sqrt(6) * update
    torch.testing.assert_close(weight.detach().double(), want, rtol=1e-5, atol=1e-6)


def test_muon_refuses_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) is no matrix: give it AdamW"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


def muon_steps(world: World) -> list[Tensor]:
    """Two steps from equal gradients; the matrices, whole."""
    generator = torch.Generator().manual_seed(2)
    placements = [Replicate()] * (world.mesh.ndim - 1) + [Shard(0)]

    def made(shape: tuple[int, int]) -> DTensor:
        return distribute_tensor(torch.randn(shape, generator=generator), world.mesh, placements)

    matrices = [nn.Parameter(made(shape)) for shape in SHAPES]
    muon = Muon([{"params": matrices, "scale": 1.0}], lr=0.1)
    for _ in range(2):
        for matrix in matrices:
            matrix.grad = made(tuple(matrix.shape))  # type: ignore[arg-type]
        muon.step()
    return [matrix.full_tensor().detach() for matrix in matrices]  # type: ignore[attr-defined]


def test_muon_gives_equal_bits_on_any_number_of_ranks() -> None:
    alone = on_ranks(1, muon_steps)[0]
    generator = torch.Generator().manual_seed(2)
    assert not torch.equal(alone[0], torch.randn(SHAPES[0], generator=generator))
    for size, replicas in ((2, 1), (3, 1), (4, 2)):
        for rank, matrices in enumerate(on_ranks(size, muon_steps, replicas=replicas)):
            assert [torch.equal(one, other) for one, other in zip(alone, matrices, strict=True)] == [True] * 7, (
                f"rank {rank} of {size}"
            )


def other_layout(world: World) -> str:
    matrix = nn.Parameter(distribute_tensor(torch.zeros(4, 4), world.mesh, [Shard(1)]))
    with pytest.raises(ValueError, match="shard it by rows") as refusal:
        Muon([matrix], lr=0.1)
    return str(refusal.value)


def test_muon_refuses_matrices_that_are_not_sharded_by_rows() -> None:
    assert "Shard(dim=1)" in on_ranks(2, other_layout)[0]


# ---------------------------------------------------------------- clipping


def clipped(world: World, most: float | None, poison: float | None = None) -> tuple[float, float, float]:
    """(norm before, norm of the first gradient after, norm over all by hand) of a model's gradients on each rank."""
    model = small_model(world)
    generator = torch.Generator().manual_seed(4)
    squares = 0.0
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if poison is not None and parameter.ndim == 1:
            gradient[-1] = poison
        squares += gradient.double().square().sum().item()
        assert isinstance(parameter, DTensor)
        parameter.grad = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)  # type: ignore[assignment]
    norm = clip_by_global_norm(model.parameters(), most)
    after = clip_by_global_norm(model.parameters(), None)
    return norm.item(), after.item(), math.sqrt(squares)


@pytest.mark.parametrize(("size", "replicas"), [(1, 1), (3, 1), (4, 2)])
def test_clipping_is_on_the_norm_of_the_whole_gradient(size: int, replicas: int) -> None:
    for norm, after, by_hand in on_ranks(size, clipped, 0.5, replicas=replicas):
        assert norm == pytest.approx(by_hand, rel=1e-6)
        assert after == pytest.approx(0.5, rel=1e-5)


def test_a_norm_below_the_bound_and_no_bound_leave_the_gradient_as_it_is() -> None:
    for most in (1e6, None):
        norm, after, by_hand = on_ranks(2, clipped, most)[1]
        assert norm == after == pytest.approx(by_hand, rel=1e-6)


def test_a_bad_number_on_one_rank_is_a_bad_norm_on_all() -> None:
    assert all(math.isnan(norm) for norm, _, _ in on_ranks(2, clipped, 1.0, math.nan))
    assert all(math.isinf(norm) for norm, _, _ in on_ranks(2, clipped, 1.0, math.inf))


# ---------------------------------------------------------------- training, rules


def trained(world: World, kind: str) -> tuple[list[tuple[float, float]], dict[str, Tensor]]:
    model, optimizers = small_training(world, kind)
    shown = train_steps(world, model, optimizers, range(4))
    return shown, state_of(model, optimizers)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_several_processes_train_as_one_does(kind: str) -> None:
    alone, weights = on_ranks(1, trained, kind)[0]
    assert alone[0][0] == pytest.approx(math.log(67), rel=0.02)
    assert weights["optimizer.lm_head.weight.step"] == 4
    for shown, others in on_ranks(3, trained, kind):
        assert [loss for loss, _ in shown] == pytest.approx([loss for loss, _ in alone], rel=1e-5)
        assert [norm for _, norm in shown] == pytest.approx([norm for _, norm in alone], rel=1e-4)
        for name, whole in weights.items():
            torch.testing.assert_close(
                others[name], whole, rtol=2e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_the_rules_are_those_of_the_paper_within_their_bounds() -> None:
    # DeepSeek LLM's own 7B: 2.4e22 FLOPs or so, a rate of 4.2e-4 and a batch of 9.4 million tokens.
    assert default_learning_rate(1e20) == pytest.approx(0.3118 * 10**-2.5)
    assert default_batch_tokens(1e20) == round(0.2920 * 1e20**0.3271)
    assert default_learning_rate(1e14) == 3e-3
    assert default_batch_tokens(1e10) == 8192


def test_nothing_is_left_of_the_process_group() -> None:
    assert not dist.is_initialized()
