"""The state of a run at a step, beside its tensors: a handful of numbers that a person can read and edit.

It lies as JSON in every checkpoint (contracts, section 7, "State"). Equal on all ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from schemas.config_model import ConfigError
from trainer.order.batch_order import ORDER_VERSION, Order
from trainer.resolve import Resolved

__all__ = ["RunState", "check_fits", "check_order", "differences", "first_state"]


LATER = {"chosen", "phases", "branched_from"}  # fields that checkpoints of the first version lack


@dataclass(frozen=True)
class RunState:
    """Where a run stands: `step` steps are done, `batch` is the next batch of the order to look at."""

    seed: int
    datasets: Mapping[str, Mapping[str, Any]]  # name: {"generation", "order"}, as at the start
    model: Mapping[str, Any]  # the model's shape
    optimizer: str
    step: int = 0
    batch: int = 0
    skipped: tuple[int, ...] = ()  # batches that were skipped, sorted
    lost: Mapping[str, int] = field(default_factory=dict)  # sha256 of a shard: first batch without its targets
    tokens: Mapping[str, int] = field(default_factory=dict)  # trained, by source
    digest: str = "00" * 32  # rolls over all trained rows
    plan: str = ""  # digest of the phases that began before `batch`
    spikes: Mapping[str, Any] = field(default_factory=dict)  # the spike rule's memory
    rewinds: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)  # what may change in a run, as it is now
    chosen: Mapping[str, Any] = field(default_factory=dict)  # what rules chose at the start, by key
    phases: Sequence[Mapping[str, Any]] = ()  # what `plan` is the digest of
    branched_from: int | None = None  # step from which `--step` went back to a checkpoint
    order: str = ORDER_VERSION

    def skip(self, batches: Sequence[int]) -> "RunState":
        """Return the state with more batches skipped."""
        return replace(self, skipped=tuple(sorted({*self.skipped, *batches})))

    def to_json(self) -> dict[str, Any]:
        """As JSON keeps it; `from_json` gives the same state again."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "RunState":
        """Raises ValueError for a state of another form."""
        names = set(RunState.__dataclass_fields__)
        if wrong := sorted((set(data) | LATER) ^ names):
            raise ValueError(f"the checkpoint's state has other fields than this version's: {', '.join(wrong)}")
        return RunState(**{**data, "skipped": tuple(data["skipped"]), "phases": tuple(data.get("phases", ()))})


def first_state(run: Resolved) -> RunState:
    """Return the state that a run begins with."""
    schedule = asdict(run.schedule)
    given = run.config.optimizer.model_dump(mode="json") | {"learning_rate": schedule.pop("peak")}
    names = {dataset.name: dataset for dataset in reversed(run.datasets)}  # the first phase's generation
    return RunState(
        seed=run.config.seed,
        datasets={name: {"generation": d.generation, "order": d.order_digest} for name, d in names.items()},
        model=asdict(run.model) | {"attention": ""},  # how attention is computed is no part of the model
        optimizer=run.config.optimizer.kind,
        settings={
            "optimizer": given,
            "schedule": schedule,
            "data": {"mask": run.config.data.mask},
        },
        chosen=run.chosen,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def check_fits(state: RunState, started: RunState, order: Order, where: str) -> None:
    """Raises ConfigError with every difference when a checkpoint is of another model, data or order.

    `started` is the state that the configuration would begin with. Schedules, sizes of the world and of micro-batches
    and what is logged may differ.
    """
    _check(("order", "seed", "model", "optimizer", "datasets"), state, started, order, where)


def check_order(state: RunState, started: RunState, order: Order, where: str) -> None:
    """Raises ConfigError when the samples that a checkpoint was trained on are not those of `order`."""
    _check(("order", "seed", "datasets"), state, started, order, where)


def _check(names: Sequence[str], state: RunState, started: RunState, order: Order, where: str) -> None:
    found = [line for name in names for line in differences(name, _compared(state, name), _compared(started, name))]
    if found:
        raise ConfigError(
            f"{where} is of another run: {'; '.join(found)}. Mend the configuration, or choose another output"
        )
    if state.plan and state.plan != order.plan_digest(state.batch):
        changed = differences("data.phases", _numbered(state.phases), _numbered(order.plan(state.batch)))
        raise ConfigError(
            f"{where}: the phases that began before batch {state.batch} are not those that it was trained with "
            f"({'; '.join(changed) if state.phases else 'batch size, sequence length, packing, weights, generation'}): "
            "mend data, or choose another output"
        )


def _compared(state: RunState, name: str) -> Any:
    """A field as it is compared: the longest sequence is no part of the weights, and may grow."""
    value = _plain(getattr(state, name))
    return {key: each for key, each in value.items() if key != "max_positions"} if name == "model" else value


def _numbered(phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Phases by number, the first of which the keys of `data` themselves describe."""
    return {str(number): dict(phase) for number, phase in enumerate(phases)}


def differences(name: str, saved: Any, now: Any) -> list[str]:
    """List every place where two JSON values differ, as `model.dim: 256 in the checkpoint, 512 now`."""
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = sorted({*saved, *now})
        below = f"{name}." if name else ""
        return [line for key in keys for line in differences(f"{below}{key}", saved.get(key), now.get(key))]
    return [] if saved == now else [f"{name}: {saved!r} in the checkpoint, {now!r} now"]
