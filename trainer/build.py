"""The model and its optimizers, built, laid over the world and filled."""

import torch
from torch import Tensor

from trainer.distributed.mesh import World
from trainer.distributed.parallelize import parallelize
from trainer.model.huggingface import load_weights
from trainer.model.transformer import Transformer, parameter_name
from trainer.optim.optimizers import Optimizers, build_optimizers
from trainer.resolve import Resolved

__all__ = ["build", "build_model", "first_weights", "tensors_of"]


def build(run: Resolved, world: World) -> tuple[Transformer, Optimizers]:
    """Build a model, whose weights are arbitrary, and optimizers with their first states."""
    model = build_model(run, world)
    optimizers = build_optimizers(model, run.config.optimizer, run.schedule.peak)
    optimizers.initialize()
    return model, optimizers


def first_weights(model: Transformer, run: Resolved) -> None:
    """Draw the weights that a run begins with, or load those of `model.start_from`."""
    if run.config.model.start_from is None:
        model.init_weights(run.config.seed)
    else:
        load_weights(model, run.config.model.start_from)


def build_model(run: Resolved, world: World) -> Transformer:
    """Build a model on its device, laid over the world; its weights are arbitrary."""
    with torch.device("meta"):
        model = Transformer(run.model)
    parallelize(model, world, run.config.parallel, run.dtype(world.device))
    model.to_empty(device=world.device)
    return model


def tensors_of(model: Transformer, optimizers: Optimizers | None = None) -> dict[str, Tensor]:
    """Name the tensors that a checkpoint holds: those in use, so that loading in place takes effect."""
    named = [(parameter_name(name), parameter) for name, parameter in model.named_parameters()]
    names = {id(parameter): name for name, parameter in named}
    tensors: dict[str, Tensor] = {f"model.{name}": parameter.detach() for name, parameter in named}
    for part in optimizers.parts if optimizers else ():
        for parameter, state in part.state.items():
            tensors |= {f"optimizer.{names[id(parameter)]}.{key}": value for key, value in sorted(state.items())}
    return tensors
