"""Muon: momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

R rows and C columns of a matrix. Of a sharded matrix each rank holds consecutive rows, so that the flat shards of all
ranks on end are the flat matrix.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from trainer.distributed.mesh import local_part

__all__ = ["Muon", "orthogonalize"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
STEPS = 5


class Muon(torch.optim.Optimizer):
    """For matrices. Whole matrices are orthogonalized, in fp32 by default: shards of one, or bf16, give another
    result for another number of ranks.

    The update has the size of AdamW's, 0.2 sqrt(max(R, C)) times the orthogonal matrix, so that both take one rate
    and one weight decay (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    Raises ValueError for parameters that are no matrices, or are sharded otherwise than by rows.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon: a parameter of shape {tuple(parameter.shape)} is no matrix: give it AdamW")
                _shard_group(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update. Of sharded matrices each rank orthogonalizes its share, and gets the others' results."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            momenta = [self._momentum(parameter, group["momentum"]) for parameter in parameters]
            shapes = [tuple(parameter.shape) for parameter in parameters]
            updates = _orthogonalize_all(momenta, shapes, _shard_group(parameters[0]), self._dtype)
            for parameter, update in zip(parameters, updates, strict=True):
                size = 0.2 * math.sqrt(max(parameter.shape))
                local = local_part(parameter)
                local.mul_(1 - group["lr"] * group["weight_decay"])
                local.add_(update, alpha=-group["lr"] * size)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum of this rank's rows."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer, gradient = local_part(state["momentum_buffer"]), local_part(parameter.grad)
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def orthogonalize(matrix_RC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Nearly U V^T of the matrix's U S V^T: singular values between 0.7 and 1.2, by five Newton-Schulz steps."""
    a, b, c = COEFFICIENTS
    x = matrix_RC.to(dtype)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix_RC.dtype)


def _orthogonalize_all(
    matrices: Sequence[Tensor], shapes: Sequence[tuple[int, int]], group: dist.ProcessGroup | None, dtype: torch.dtype
) -> list[Tensor]:
    """This rank's rows of each matrix orthogonalized, from this rank's rows of each.

    In a turn every rank collects one whole matrix, works on it, and sends the rows back; the costliest matrices come
    first, so that those of a turn take about as long. A rank never holds more than one whole matrix.
    """
    size = dist.get_world_size(group) if group is not None else 1
    if size == 1:
        return [orthogonalize(matrix, dtype) for matrix in matrices]
    rank = dist.get_rank(group)
    order = sorted(range(len(shapes)), key=lambda each: (-math.prod(shapes[each]) * min(shapes[each]), each))
    results = list(matrices)
    for first in range(0, len(order), size):
        turn = order[first : first + size]  # turn[k] is rank k's
        sent = [matrices[each].numel() for each in turn] + [0] * (size - len(turn))
        shape = shapes[turn[rank]] if rank < len(turn) else (0, 0)
        received = [_rows(shape[0], size, each) * shape[1] for each in range(size)]
        flat = torch.cat([matrices[each].flatten() for each in turn])
        whole = _exchange(flat, sent, received, group).view(shape)
        done = orthogonalize(whole, dtype).flatten() if whole.numel() else whole.flatten()
        parts = _exchange(done, received, sent, group).split(sent[: len(turn)])
        for each, part in zip(turn, parts, strict=True):
            results[each] = part.view(matrices[each].shape)
    return results


def _exchange(flat: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """What all ranks send to this one, on end; `sent[k]` numbers of `flat` go to rank k."""
    result = flat.new_empty(sum(received))
    dist.all_to_all_single(result, flat, received, sent, group=group)
    return result


def _rows(rows: int, size: int, rank: int) -> int:
    """Rows of a matrix that lie on a rank, as DTensor cuts them: the last ranks may have fewer, or none."""
    chunk = -(-rows // size)
    return max(0, min(chunk, rows - rank * chunk))


def _shard_group(tensor: Tensor) -> dist.ProcessGroup | None:
    """The ranks that hold the rows of one copy of a matrix; None: this one alone."""
    if not isinstance(tensor, DTensor):
        return None
    sharded = [(number, each) for number, each in enumerate(tensor.placements) if not each.is_replicate()]
    if len(sharded) > 1 or any(each != Shard(0) for _, each in sharded):
        raise ValueError(f"Muon: a matrix is laid out as {tensor.placements}: shard it by rows, over one dimension")
    return tensor.device_mesh.get_group(sharded[0][0]) if sharded else None
