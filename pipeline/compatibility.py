"""Whether a run goes on with the dataset that stands at its output, or was meant for another place."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ingest.receipts import PartRef, Task
from pipeline.select.select import verdict_uri
from schemas import storage
from schemas.config_model import shown
from schemas.dataset import Dataset
from schemas.recipe import Recipe, RecipeError

__all__ = ["check_same_dataset", "recorded_recipe", "recorded_splits", "recorded_verdicts", "up_to_date"]

# What may change in a dataset's recipe: what is new is measured from the stored texts, every document is decided again,
# and the next generation is made.
DECIDED_AGAIN = ("edits", "measure", "modules", "scores", "rules", "exact", "near", "prefer")
SHOWN = 8  # differences shown of another recipe


def check_same_dataset(previous: Dataset, recipe: Recipe, tasks: Sequence[Task]) -> None:
    """Raise ValueError, with the differences, unless `recipe` decides the inputs of this dataset anew."""
    place = previous.uri
    there, here = recorded_recipe(previous).identity(), recipe.identity()
    changed = list(_differences("", *(_without(each, DECIDED_AGAIN) for each in (there, here))))
    if changed:
        rest = [f"and {len(changed) - SHOWN:,} more"] if len(changed) > SHOWN else []
        title = f"{place} holds a dataset of another recipe: choose another --output, or set back (there -> here)"
        raise RecipeError("\n  ".join([title, *changed[:SHOWN], *rest]))
    read = {
        (source, name)
        for source, name in zip(*(previous.input_table[c].to_pylist() for c in ("source", "name")), strict=True)
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


def recorded_recipe(previous: Dataset) -> Recipe:
    """The recipe of a committed generation."""
    recipe = previous.recipe()
    assert recipe is not None, "pack stores the recipe with each generation"
    return recipe


def recorded_splits(previous: Dataset) -> pa.Table:
    """doc_id and split of every kept document: a split is fixed when a document is first kept."""
    table = previous.ledger(["doc_id", "split"]).read_all()
    return table.filter(pc.is_valid(table["split"]))


def recorded_verdicts(work: str, parts: Sequence[PartRef], previous: Dataset) -> list[str] | None:
    """Where the verdicts of the newest generation lie, a file a part; None where the work folder has them no more."""
    decision = previous.manifest.decision
    uris = [verdict_uri(work, decision, part.number) for part in parts]
    return uris if all(storage.exists(uri) for uri in uris) else None


def up_to_date(previous: Dataset, recipe: Recipe, parts: Sequence[PartRef], code: Mapping[str, str]) -> bool:
    """Whether the newest generation was made by this recipe and code from these parts."""
    manifest = previous.manifest
    return (
        manifest.digests.recipe == recipe.digest()
        and [part.sha256 for part in manifest.parts] == [part.sha256 for part in parts]
        and all(manifest.code.get(name) == version for name, version in code.items())
    )


def _without(identity: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key not in keys}


def _differences(key: str, there: Any, here: Any) -> Iterator[str]:
    """`read.part_bytes: 1 -> 2`, for each place where two values differ, in the order of the keys."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from _differences(f"{key}.{name}" if key else name, there.get(name), here.get(name))
    elif there != here:
        yield f"{key}: {shown(there)} -> {shown(here)}"
