"""Pack: parts and verdicts to a committed dataset. Contracts, sections 5 and 6.

    groups of parts --encode--> train shards, validation fragments --merge--> validation shards
    --number--> shards table --ledger--> ledgers, near index, rows --index--> documents, urls --commit--> gN.json

Every step leaves content-named files and a receipt; nothing refers to them before the commit.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import apache_beam as beam

from pipeline.ingest.receipts import PartRef, PieceReceipt
from pipeline.pack.encode import stage_version
from pipeline.pack.generation import make_generation
from pipeline.pack.groups import Plan, pack_parts, plan_pack, save_plan
from pipeline.pack.ledger import LEDGER_VERSION
from pipeline.pack.tokenize.tokenizer import settle_tokenizer
from pipeline.pack.transforms import PackGroups, result_path
from schemas import storage
from schemas.dataset import Dataset
from schemas.manifest import Manifest, commit
from schemas.recipe import Recipe
from schemas.text_format import plural

__all__ = ["pack"]


def pack(
    parts: Sequence[PartRef],
    verdict_uri: Callable[[PartRef], str],
    recipe: Recipe,
    dataset: str,
    work: str,
    new_pipeline: Callable[[], beam.Pipeline],
    previous: Dataset | None = None,
    *,
    inputs: Iterable[tuple[str, PieceReceipt]],
    code: Mapping[str, str],
    assets: Mapping[str, str] | None = None,
    decision: str = "",
    verdicts: Mapping[int, str] = MappingProxyType({}),
    progress: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Encode what is kept, write the dataset's files and commit the next generation; returns its manifest.

    `parts` are numbered through all generations: with `previous`, parts it knows are decided again (all of a source
    and generation, or none), later ones are new. `inputs` are the pieces read with their source, `code` the versions
    of the package and of the stages before, `assets` the sha256 of each file that the recipe names, `decision` the name
    of the verdicts and `verdicts` the sha256 of their files by part number, `progress` a local folder for the driver's
    progress line.
    Raises TokenizerError, DatasetError or CommitRefused, each with the cure.
    """
    chosen = pack_parts(parts, verdict_uri, verdicts)
    tokenizer = settle_tokenizer(chosen, recipe, dataset, work, previous)
    plan = plan_pack(chosen, recipe, dataset, work, tokenizer, previous)
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            # Create's own reshuffle would hand all groups to one worker.
            | "ListGroups" >> beam.Create([group.ledger for group in plan.groups], reshuffle=False)
            | "SpreadGroups" >> beam.Reshuffle()
            | "PackGroups" >> PackGroups(save_plan(plan), progress)
        )
    receipts = json.loads(storage.read(storage.join(work, result_path(plan))))
    say(_done(plan, receipts))
    versions = {**code, "pack": stage_version(), "ledger": LEDGER_VERSION}
    manifest = make_generation(plan, receipts, recipe, inputs, previous, versions, assets or {}, decision)
    commit(dataset, manifest.generation, manifest.to_json())
    return manifest


def _done(plan: Plan, receipts: Sequence[dict[str, int]]) -> str:
    """One line for the user."""
    copied, encoded = (sum(receipt.get(name, 0) for receipt in receipts) for name in ("copied", "encoded"))
    return f"pack     {plural(len(plan.groups), 'group')}: {plural(encoded, 'document')} encoded, {copied:,} copied"
