"""Trains a language model on the shards of a dataset, resumable at any step, in an order that no topology changes.

Read `train.py` first: a run from top to bottom, one screen a step. Then, as it comes to them: `config` and `resolve`
(what is trained), `order/` (which sample when), `data/` (from shards to batches), `model/` and `optim/` (what learns),
`distributed/` (over which processes), `checkpoint/` (what survives), `evaluate/` and `monitor/` (what is measured, what
is logged), `report/` (what a person sees), `estimate/` and `lineage/` (what `plan`, `documents` and `steps` answer).
`cli` and `commands` are the command line: `gristmill train CONFIG`, `python -m trainer CONFIG`.

    from trainer import TokenStream, load_config, train
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import load_config
    from trainer.data.batch import TokenBatch
    from trainer.data.token_stream import TokenStream
    from trainer.train import train

__all__ = ["TokenBatch", "TokenStream", "load_config", "train"]

# Lazily, because torch takes seconds to import and a reader process does without. `train` is the module, which can be
# called: a function of this name would be hidden as soon as somebody imports `trainer.train`.
_PLACES = {
    "TokenBatch": "trainer.data.batch",
    "TokenStream": "trainer.data.token_stream",
    "load_config": "trainer.config",
}


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("trainer.train")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")
