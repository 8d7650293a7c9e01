"""The way from a crawl to a dataset, top to bottom.

    crawl files --ingest--> parts --select--> verdicts --pack--> shards, ledger, index --commit--> dataset

Each step leaves files behind that the next one reads and that a rerun finds again: a killed run continues, a
changed threshold re-reads nothing. Three Beam pipelines do the work, wherever their runner is; this file drives
them and knows no runner.
"""

import time
from dataclasses import replace

import apache_beam as beam

from pipeline.compatibility import check_same_dataset, recorded_splits, up_to_date
from pipeline.ingest.parts import fingerprint, ingest_task, load_parts
from pipeline.ingest.plan import check_abutting, plan_tasks
from pipeline.ingest.receipts import PartRef, Receipt, Task
from pipeline.ingest.work_cleanup import swept_work
from pipeline.job import Decided, Job, Measured, Planned, Unmeasured
from pipeline.measure.registry import check_assets, load_registry
from pipeline.pack.pack import pack
from pipeline.pack.reuse_shards import check_sizes
from pipeline.pack.tokenize.tokenizer import check_tokenizer
from pipeline.recipe_checks import check_labels
from pipeline.report.labels import meaning
from pipeline.runtime.progress import ProgressLine
from pipeline.select.decision.survivor_order import check_preferences
from pipeline.select.select import Funnel, decision_digest, select, verdict_uri
from pipeline.source_roots import record_roots
from schemas.arrow import TEXT_PART
from schemas.dataset import Dataset, open_newest
from schemas.generation import Manifest
from schemas.recipe import Recipe
from schemas.text_format import bits, plural

__all__ = ["NothingKept", "curate", "decide", "ingest", "load_measured", "measure", "measure_line", "plan", "write"]


def curate(job: Job) -> Manifest:
    """Make the dataset, or bring it up to date with its recipe; returns the generation that is now newest.

    Hold `writer_lock(job.output)`: what a killed driver left half-written is removed.
    Raises ValueError when the output holds a dataset of another recipe, DatasetError when it has a shard that is not
    whole, StorageError when a store fails, and ConservationError when a record is not accounted for; whatever it
    raises, the dataset is as it was.
    """
    planned = plan(job)
    if planned.previous:
        check_sizes(planned.previous)
    with swept_work(job.work, job.output):
        record_roots(job.work, job.recipe.sources)
        ingest(job, planned)
        measured = load_measured(job, planned)
        if planned.previous and up_to_date(planned.previous, job.recipe, measured.parts, job.code()):
            job.say(f"{job.output} is up to date: generation {planned.previous.manifest.generation}")
            return planned.previous.manifest
        decided = decide(job, measured, planned.previous)
        return write(job, measured, decided, planned.previous)


def plan(job: Job) -> Planned:
    """What there is to read, what is already read, and what the dataset holds; runs nothing, writes nothing.

    Raises ValueError for all that is wrong with the recipe, so that no run finds it out after hours.
    """
    registry = load_registry(job.recipe)
    registry.resolve_rules(job.recipe.rules)
    columns = [name for group in registry.groups for name in group.columns]
    check_preferences(job.recipe.prefer, [*TEXT_PART.names, *columns])
    check_assets(job.recipe)
    check_labels(job.recipe)
    check_tokenizer(job.recipe.tokenizer)
    previous = open_newest(job.output)
    tasks = plan_tasks(job.recipe.sources, job.recipe.read, fingerprint(job.recipe))
    if previous:
        check_same_dataset(previous, job.recipe, tasks)
    parts, receipts = load_parts(job.work, tasks, registry, missing_ok=True)
    unmeasured = _unmeasured([group.name for group in registry.groups], parts, receipts)
    done = {receipt.key for receipt in receipts if receipt.last} - set(unmeasured)
    return Planned(tasks, done, unmeasured, previous)


def _unmeasured(groups: list[str], parts: list[PartRef], receipts: list[Receipt]) -> dict[str, Unmeasured]:
    """What each task's parts lack, by its key."""
    lacking: dict[str, Unmeasured] = {}
    for part, receipt in zip(parts, receipts, strict=True):
        missing = [group for group in groups if group not in part.groups]
        if missing:
            known = lacking.get(receipt.key, Unmeasured(0, ()))
            named = [group for group in groups if group in missing or group in known.groups]
            lacking[receipt.key] = Unmeasured(known.text_bytes + part.text_bytes, tuple(named))
    return lacking


def ingest(job: Job, planned: Planned) -> None:
    """Read, extract and measure every task whose parts do not exist yet; of those that do, measure what is missing."""
    read = [task for task in planned.tasks if task.key not in planned.done and task.key not in planned.unmeasured]
    stored = [
        replace(task, bytes=planned.unmeasured[task.key].text_bytes)
        for task in planned.tasks
        if task.key in planned.unmeasured
    ]
    before = len(planned.tasks) - len(read)
    job.say(f"ingest   {plural(len(read), 'task')} to do, {before:,} of {len(planned.tasks):,} done before")
    if stored:
        job.say(f"measure  {measure_line(planned)}")
    tasks = read + stored
    if not tasks:
        return
    # The largest first, so that no worker is left with a large one at the end.
    tasks.sort(key=lambda task: (-task.bytes, task.key))
    size = sum(task.bytes for task in tasks)
    expected = {group.name: group.identity for group in load_registry(job.recipe).groups}
    with ProgressLine(job.progress, "ingest", size, len(tasks), job.stream), job.new_pipeline(size) as pipeline:
        _ = (
            pipeline
            # Create's own reshuffle would hand all tasks to one worker.
            | "ListTasks" >> beam.Create(tasks, reshuffle=False)
            | "SpreadTasks" >> beam.Reshuffle()
            | "IngestTasks" >> beam.ParDo(IngestTask(job.recipe, job.work, job.progress, expected))
        )


def measure_line(planned: Planned) -> str:
    """What is to be measured of stored texts, in a line: groups, texts and bytes."""
    groups = dict.fromkeys(group for each in planned.unmeasured.values() for group in each.groups)
    size = sum(each.text_bytes for each in planned.unmeasured.values())
    parts = plural(len(planned.unmeasured), "part")
    return f"{', '.join(groups)}: {bits(size)} of stored text in {parts}, nothing of the crawl"


class IngestTask(beam.DoFn):
    """Make the parts of a task: read, extract, measure, write, attest."""

    def __init__(self, recipe: Recipe, work: str, progress: str | None, expected: dict[str, str]) -> None:
        self._recipe, self._work, self._progress, self._expected = recipe.model_dump_json(), work, progress, expected

    def process(self, task: Task) -> None:
        """Write the parts and receipts of `task`, unless they are there."""
        recipe = Recipe.model_validate_json(self._recipe)
        ingest_task(task, recipe, self._work, progress=self._progress, expected=self._expected)


def load_measured(job: Job, planned: Planned) -> Measured:
    """The parts of all tasks. Raises FileNotFoundError for a missing one, ConservationError when pieces do not abut."""
    parts, receipts = load_parts(job.work, planned.tasks, load_registry(job.recipe))
    check_abutting(receipts)
    return Measured(parts, receipts)


def measure(job: Job, planned: Planned) -> Measured:
    """The parts of all tasks with every measure; what was not measured yet is, from the stored texts.

    Raises FileNotFoundError where a task was never read: nothing of the crawl is read here.
    """
    if planned.unmeasured and len(planned.done) + len(planned.unmeasured) == len(planned.tasks):
        ingest(job, planned)
    return load_measured(job, planned)


def decide(job: Job, measured: Measured, previous: Dataset | None) -> Decided:
    """A verdict for every row of every part; the same parts and rules are decided once."""
    parts, started = measured.parts, time.monotonic()
    # A document that was kept before keeps its side of the split.
    splits = recorded_splits(previous) if previous else None
    decision = decision_digest(parts, job.recipe, splits)
    job.say(f"select   {plural(sum(part.rows for part in parts), 'record')} in {plural(len(parts), 'part')}")
    funnel = select(parts, job.recipe, job.work, decision, lambda: job.new_pipeline(0), splits, job.memory_bytes)
    uris = [verdict_uri(job.work, decision, part.number) for part in parts]
    return Decided(decision, uris, funnel, time.monotonic() - started)


def write(job: Job, measured: Measured, decided: Decided, previous: Dataset | None) -> Manifest:
    """Encode what is kept, write shards, ledger and index, and commit them as the next generation."""
    if not decided.funnel.kept:
        raise NothingKept(decided.funnel)
    job.say(f"pack     {plural(decided.funnel.kept, 'document')} kept")
    kept_bytes = decided.funnel.kept_bytes
    with ProgressLine(job.progress, "pack", kept_bytes, 0, job.stream):  # a part without kept rows is never counted
        return pack(job, measured, decided, previous)


class NothingKept(OSError):
    """No document is left to make a dataset of: the message names what dropped most, and what that means."""

    def __init__(self, funnel: Funnel) -> None:
        drops = sorted(funnel.drops, key=lambda drop: (-drop.documents, drop.rule))
        if not drops:
            super().__init__("the inputs hold no record: check sources; nothing was written")
            return
        most = ", ".join(f"{drop.rule} {drop.documents:,}" for drop in drops[:3])
        stage, rule = drops[0].stage, drops[0].rule
        hint = f"try another rules.{rule} with `gristmill decide`" if stage == "rules" else f"{rule}: {meaning(rule)}"
        super().__init__(
            f"no document was kept of {funnel.records_read:,} read, nothing was written; dropped most by {most}; {hint}"
        )
