"""The configuration of a run that has begun: what it was started with, where the configuration leaves it open.

A dataset that has grown since, or a rule that would choose otherwise for a longer run, does not change a run.
"""

from typing import Any

from trainer.checkpoint.layout import newest_extra
from trainer.checkpoint.run_state import RunState
from trainer.config import Config

__all__ = ["pinned"]


def pinned(config: Config) -> tuple[Config, RunState | None]:
    """Return the configuration with what its newest checkpoint pins, and the state there, if it has one."""
    extra = newest_extra(config.checkpoints_uri)
    if extra is None:
        return config, None
    state = RunState.from_json(extra)
    sections: dict[str, dict[str, Any]] = {}
    if config.data.generation is None:
        numbers = {name: kept["generation"] for name, kept in state.datasets.items()}
        sections["data"] = {"generation": numbers if config.data.datasets else numbers[""]}
    for key, value in state.chosen.items():
        section, _, name = key.partition(".")
        if getattr(getattr(config, section), name) is None:
            sections.setdefault(section, {})[name] = value
    update = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=update), state
