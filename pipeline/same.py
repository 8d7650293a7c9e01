"""Whether a run goes on with the dataset that stands at its output, or was meant for another place."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.ingest.receipts import PartRef, Task
from pipeline.pack.previous import Previous
from pipeline.select.select import verdict_uri
from schemas import storage
from schemas.recipe import Recipe

__all__ = ["check_same_dataset", "recorded_recipe", "recorded_verdicts", "up_to_date"]

# What may change in a dataset's recipe: every document is decided again and the next generation is made.
DECIDED_AGAIN = ("rules", "exact", "near", "prefer")


def check_same_dataset(previous: Previous, recipe: Recipe, tasks: Sequence[Task]) -> None:
    """Raise ValueError, with the difference, unless `recipe` decides the inputs of this dataset anew."""
    place = previous.dataset
    there, asked = recorded_recipe(previous).identity(), recipe.identity()
    changed = [key for key in asked if key not in DECIDED_AGAIN and asked[key] != there[key]]
    if changed:
        shown = "; ".join(_difference(key, there[key], asked[key]) for key in changed)
        raise ValueError(
            f"{place} holds a dataset of another recipe ({shown}): choose another --output, or set it back"
        )
    read = {
        (source, name)
        for source, name in zip(*(previous.inputs[c].to_pylist() for c in ("source", "name")), strict=True)
    }
    found = {(task.source, piece.name) for task in tasks for piece in task.pieces}
    for names, fault in (
        (found - read, "does not hold {} that the recipe finds"),
        (read - found, "holds {} that the recipe no longer finds"),
    ):
        if names:
            source, name = min(names)
            more = ", ..." if len(names) > 1 else ""
            what = f"{len(names)} input file{'s' if more else ''} ({source}: {name}{more})"
            raise ValueError(f"{place} {fault.format(what)}: a dataset keeps its inputs; choose another --output")


def recorded_recipe(previous: Previous) -> Recipe:
    """The recipe of a committed generation."""
    path = next(path for path in previous.files["path"].to_pylist() if path.startswith("recipe-"))
    return Recipe.model_validate(yaml.safe_load(storage.read(storage.join(previous.dataset, path))))


def recorded_verdicts(work: str, parts: Sequence[PartRef], previous: Previous) -> list[str] | None:
    """Where the verdicts of the newest generation lie, a file a part; None where the work folder has them no more."""
    decision = previous.manifest.decision
    uris = [verdict_uri(work, decision, part.number) for part in parts]
    return uris if all(storage.exists(uri) for uri in uris) else None


def up_to_date(previous: Previous, recipe: Recipe, parts: Sequence[PartRef], code: Mapping[str, str]) -> bool:
    """Whether the newest generation was made by this recipe and code from these parts."""
    manifest = previous.manifest
    return (
        manifest.digests.recipe == recipe.digest()
        and [part.sha256 for part in manifest.parts] == [part.sha256 for part in parts]
        and all(manifest.code.get(name) == version for name, version in code.items())
    )


def _difference(key: str, there: Any, asked: Any) -> str:
    """`read.part_bytes is 1, not 2`, for the first place where two values differ."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for name in sorted({*there, *asked}):
            if there.get(name) != asked.get(name):
                return _difference(f"{key}.{name}", there.get(name), asked.get(name))
    return f"{key} is {there!r} there, {asked!r} here"
