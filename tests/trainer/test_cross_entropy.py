"""The summed cross-entropy: its value, its gradient, and what it never holds in memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.model import cross_entropy
from trainer.model.cross_entropy import IGNORED, summed_cross_entropy, token_nats


def some(tokens: int, vocab: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(tokens, dim, generator=random, dtype=dtype).requires_grad_()
    weight_VD = torch.randn(vocab, dim, generator=random, dtype=dtype).requires_grad_()
    targets_N = torch.randint(vocab, (tokens,), generator=random)
    targets_N[::3] = IGNORED
    return hidden_ND, weight_VD, targets_N


@pytest.fixture
def chunks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "_chunk_tokens", lambda weight_VD: 4)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return made


def test_a_uniform_guess_costs_ln_v_for_each_target_that_counts() -> None:
    targets_N = torch.tensor([3, IGNORED, 0, 9])
    total = summed_cross_entropy(torch.zeros(4, 2), torch.zeros(10, 2), targets_N)
    assert total.item() == pytest.approx(3 * 2.302585093)


@pytest.mark.usefixtures("chunks_of_four")
def test_value_and_gradients_are_those_of_torch_over_all_logits_at_once() -> None:
    hidden_ND, weight_VD, targets_N = some(tokens=11, vocab=7, dim=5, dtype=torch.float64)
    ours = summed_cross_entropy(hidden_ND, weight_VD, targets_N)
    theirs = F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    for mine, reference in zip(
        torch.autograd.grad(0.25 * ours, (hidden_ND, weight_VD)),
        torch.autograd.grad(0.25 * theirs, (hidden_ND, weight_VD)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("chunks_of_four")
def test_the_nats_of_each_token_add_up_and_ignored_ones_are_zero() -> None:
    hidden_ND, weight_VD, targets_N = some(tokens=11, vocab=7, dim=5, dtype=torch.float64)
    nats_N = token_nats(hidden_ND, weight_VD, targets_N)
    theirs_N = F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(nats_N, theirs_N, rtol=1e-13, atol=0)
    assert nats_N[targets_N == IGNORED].tolist() == [0.0] * 4
    assert not nats_N.requires_grad


def test_neither_pass_makes_a_tensor_as_large_as_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "LOGITS_OF_A_CHUNK", 1000)  # 10 tokens of 100 words
    hidden_ND, weight_VD, targets_N = some(tokens=95, vocab=100, dim=8, dtype=torch.float32)
    with Largest() as made:
        summed_cross_entropy(hidden_ND, weight_VD, targets_N).backward()
    assert made.elements == 1000
    with Largest() as made:
        F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, reduction="sum").backward()
    assert made.elements == 9500


def test_bf16_logits_are_added_up_in_fp32_and_the_scale_is_not_rounded() -> None:
    hidden_ND, weight_VD, targets_N = some(tokens=4096, vocab=16, dim=4, dtype=torch.bfloat16)
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden_ND, weight_VD)]
    ours, exact = summed_cross_entropy(hidden_ND, weight_VD, targets_N), summed_cross_entropy(*wide, targets_N)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(exact.item(), rel=1e-4)  # bf16 has 8 bits: a sum in it would be off by 1e-2
    (whole_ND,) = torch.autograd.grad(ours, hidden_ND, retain_graph=True)
    scale = 1.50390625 / 4096  # in the middle between two numbers of bf16, 0.26 % from either
    (scaled_ND,) = torch.autograd.grad(ours * scale, hidden_ND)
    assert scaled_ND.dtype == torch.bfloat16
    ratio = scaled_ND.double().norm() / whole_ND.double().norm()
    assert ratio.item() == pytest.approx(scale, rel=1e-3)


def test_without_gradients_none_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = some(tokens=8, vocab=4, dim=5, dtype=torch.float32)
    with_gradient = summed_cross_entropy(*tensors)
    monkeypatch.setattr(cross_entropy, "_logits_gradient", None)
    with torch.no_grad():
        total = summed_cross_entropy(*tensors)
    assert not total.requires_grad
    assert torch.equal(total, with_gradient)
