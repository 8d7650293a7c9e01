"""Pack: parts and verdicts to a committed dataset. Contracts, sections 5 and 6.

    groups of parts --encode--> train shards, validation fragments --merge--> validation shards
    --number--> shards table --ledger--> ledgers, near index, rows --index--> documents, urls --commit--> gN.json

Every step leaves content-named files and a receipt; nothing refers to them before the commit.
"""

from collections.abc import Iterator, Sequence

import apache_beam as beam

from pipeline.job import Decided, Job, Measured
from pipeline.pack.generation import make_generation
from pipeline.pack.groups import Plan, pack_parts, plan_pack, save_plan
from pipeline.pack.receipts import IndexWritten, PackedGroup
from pipeline.pack.tokenize.tokenizer import resolve_tokenizer
from pipeline.pack.tokenize.tokenizer_file import around_texts
from pipeline.pack.transforms import PackGroups, load_result
from schemas import storage
from schemas.dataset import Dataset
from schemas.manifest import Manifest, commit
from schemas.text_format import plural

__all__ = ["pack"]

MAX_UNKNOWN = 0.001  # share of unknown tokens above which there is a warning


def pack(job: Job, measured: Measured, decided: Decided, previous: Dataset | None) -> Manifest:
    """Encode what is kept, write the dataset's files and commit the next generation; returns its manifest.

    Parts are numbered through all generations: with `previous`, parts it knows are decided again (all of a source and
    generation, or none), later ones are new.
    Raises TokenizerError, DatasetError or CommitRefused, each with what to do.
    """
    parts = pack_parts(measured.parts, lambda part: decided.verdicts[part.number], decided.sha256())
    tokenizer = resolve_tokenizer(parts, job.recipe, job.output, job.work, previous)
    plan = plan_pack(parts, job.recipe, job.output, job.work, tokenizer, previous)
    with job.new_pipeline(decided.funnel.kept_bytes) as pipeline:
        _ = (
            pipeline
            # Create's own reshuffle would hand all groups to one worker.
            | "ListGroups" >> beam.Create([group.ledger for group in plan.groups], reshuffle=False)
            | "SpreadGroups" >> beam.Reshuffle()
            | "PackGroups" >> PackGroups(save_plan(plan), job.progress)
        )
    result = load_result(plan)
    manifest = make_generation(plan, result, job, measured, decided, previous)
    for line in [_done(plan, result), *_warnings(job, manifest)]:
        job.say(line)
    commit(job.output, manifest.generation, manifest.to_json())
    return manifest


def _done(plan: Plan, result: Sequence[PackedGroup | IndexWritten]) -> str:
    """One line for the user."""
    packed = [each for each in result if isinstance(each, PackedGroup)]
    copied, encoded = sum(group.copied for group in packed), sum(group.encoded for group in packed)
    return f"pack     {plural(len(plan.groups), 'group')}: {plural(encoded, 'document')} encoded, {copied:,} copied"


def _warnings(job: Job, manifest: Manifest) -> Iterator[str]:
    """What the user should know of the tokens."""
    tokenizer, file = manifest.tokenizer, job.recipe.tokenizer.file
    if file is not None and tokenizer.begin_of_text is None:
        around = around_texts(storage.read(storage.join(job.output, tokenizer.path)), file)
        begins = [token for token in around if token != tokenizer.end_of_text.token]
        if begins:
            yield (
                f"pack     {file} puts {begins[0]} before a text, the documents of this dataset begin without: "
                f"tokenizer.begin_of_text={begins[0]} puts it there"
            )
    tokens = sum(split.tokens for split in manifest.funnel.splits.values())
    unknown = manifest.funnel.unknown_tokens
    if tokenizer.unknown and unknown > MAX_UNKNOWN * tokens:
        yield (
            f"pack     {100 * unknown / tokens:.2g} % of the tokens are {tokenizer.unknown.token}: their text is lost "
            f"for training; a tokenizer with all characters of these texts, or with bytes, has none"
        )
