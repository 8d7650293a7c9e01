"""The way from a crawl to a dataset, top to bottom.

    crawl files --ingest--> parts --select--> verdicts --pack--> shards, ledger, index --commit--> dataset

Each step leaves files behind that the next one reads and that a rerun finds again: a killed run continues, a
changed threshold re-reads nothing. Three Beam pipelines do the work, wherever their runner is; this file drives
them and knows no runner.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

import apache_beam as beam

from pipeline.ingest.parts import asset_digests, fingerprint, ingest_task, load_parts, stage_versions
from pipeline.ingest.plan import check_abutting, plan_tasks
from pipeline.ingest.receipts import PartRef, PieceReceipt, Receipt, Task
from pipeline.pack.pack import pack
from pipeline.pack.previous import Previous, load_previous
from pipeline.runtime.progress import ProgressLine
from pipeline.same import check_same_dataset, up_to_date
from pipeline.select.select import SELECT_VERSION, Funnel, decision_digest, select, verdict_uri
from schemas.generation import Manifest
from schemas.recipe import Recipe

__all__ = ["Decided", "Job", "Planned", "curate", "decide", "ingest", "plan"]


@dataclass(frozen=True)
class Job:
    """One recipe, where its dataset goes, and how its pipelines run."""

    recipe: Recipe
    output: str  # the dataset's URI
    work: str  # parts and decisions; may be shared by datasets
    new_pipeline: Callable[[int], beam.Pipeline]  # given the bytes that it has to go through
    memory_bytes: int  # that shuffles may take on this machine
    stream: TextIO | None = None  # progress is told here; None: silence
    progress: str | None = None  # local folder where workers tell their progress; None: none do

    def say(self, line: str) -> None:
        """Tell the user one line."""
        if self.stream:
            print(line, file=self.stream, flush=True)


@dataclass(frozen=True)
class Planned:
    """What a run would do."""

    tasks: list[Task]
    done: set[str]  # keys of tasks whose parts exist
    previous: Previous | None  # the dataset's newest generation


@dataclass(frozen=True)
class Decided:
    """Parts and the verdicts over them."""

    parts: list[PartRef]
    receipts: list[Receipt]
    decision: str  # digest; names the folder of verdicts
    funnel: Funnel
    seconds: float

    def verdicts(self, work: str) -> list[str]:
        """Where the verdicts lie, a file a part."""
        return [verdict_uri(work, self.decision, part.number) for part in self.parts]

    def pieces(self) -> Iterator[tuple[str, PieceReceipt]]:
        """Every piece read, with its source."""
        return ((receipt.source, piece) for receipt in self.receipts for piece in receipt.pieces)


def curate(job: Job) -> Manifest:
    """Make the dataset, or bring it up to date with its recipe; returns the generation that is now newest.

    Raises ValueError when the output holds a dataset of another recipe, StorageError when a store fails, and
    ConservationError when a record is not accounted for; whatever it raises, the dataset is as it was.
    """
    planned = plan(job)
    ingest(job, planned)
    decided = decide(job, planned)
    if planned.previous and up_to_date(planned.previous, job.recipe, decided.parts, _code(job)):
        job.say(f"{job.output} is up to date: generation {planned.previous.manifest.generation}")
        return planned.previous.manifest
    return write(job, planned, decided)


def plan(job: Job) -> Planned:
    """What there is to read, what is already read, and what the dataset holds; runs nothing, writes nothing."""
    previous = load_previous(job.output)
    tasks = plan_tasks(job.recipe.sources, job.recipe.read, fingerprint(job.recipe))
    if previous:
        check_same_dataset(previous, job.recipe, tasks)
    _, receipts = load_parts(job.work, tasks, missing_ok=True)
    return Planned(tasks, {receipt.key for receipt in receipts if receipt.last}, previous)


def ingest(job: Job, planned: Planned) -> None:
    """Read, extract and measure every task whose parts do not exist yet."""
    tasks = [task for task in planned.tasks if task.key not in planned.done]
    job.say(f"ingest   {len(planned.tasks):,} parts to make, {len(planned.done):,} are there already")
    if not tasks:
        return
    # The largest first, so that no worker is left with a large one at the end.
    tasks.sort(key=lambda task: (-task.bytes, task.key))
    size = sum(task.bytes for task in tasks)
    with ProgressLine(job.progress, "ingest", size, len(tasks), job.stream), job.new_pipeline(size) as pipeline:
        _ = (
            pipeline
            # Create's own reshuffle would hand all tasks to one worker.
            | "ListTasks" >> beam.Create(tasks, reshuffle=False)
            | "SpreadTasks" >> beam.Reshuffle()
            | "IngestTasks" >> beam.ParDo(IngestTask(job.recipe, job.work, job.progress))
        )


class IngestTask(beam.DoFn):
    """Make the parts of a task: read, extract, measure, write, vouch."""

    def __init__(self, recipe: Recipe, work: str, progress: str | None) -> None:
        self._recipe, self._work, self._progress = recipe.model_dump_json(), work, progress

    def process(self, task: Task) -> None:
        """Write the parts and receipts of `task`, unless they are there."""
        ingest_task(task, Recipe.model_validate_json(self._recipe), self._work, progress=self._progress)


def decide(job: Job, planned: Planned) -> Decided:
    """A verdict for every row of every part; the same parts and rules are decided once."""
    parts, receipts = load_parts(job.work, planned.tasks)
    check_abutting(receipts)
    started = time.monotonic()
    splits = planned.previous.splits() if planned.previous else None
    decision = decision_digest(parts, job.recipe, splits)
    rows = sum(part.rows for part in parts)
    job.say(f"select   {rows:,} records in {len(parts):,} parts")
    funnel = select(
        parts,
        job.recipe,
        job.work,
        decision,
        lambda: job.new_pipeline(0),
        recorded_splits=splits,
        memory_bytes=job.memory_bytes,
    )
    return Decided(parts, receipts, decision, funnel, time.monotonic() - started)


def write(job: Job, planned: Planned, decided: Decided) -> Manifest:
    """Encode what is kept, write shards, ledger and index, and commit them as the next generation."""
    kept_bytes = sum(part.text_bytes for part in decided.parts)
    job.say(f"pack     {decided.funnel.kept:,} documents kept")
    with ProgressLine(job.progress, "pack", kept_bytes, len(decided.parts), job.stream):
        return pack(
            decided.parts,
            lambda part: verdict_uri(job.work, decided.decision, part.number),
            job.recipe,
            job.output,
            job.work,
            lambda: job.new_pipeline(kept_bytes),
            planned.previous,
            inputs=decided.pieces(),
            code=_code(job),
            assets=asset_digests(job.recipe),
            decision=decided.decision,
        )


def _code(job: Job) -> dict[str, str]:
    """What decides the dataset besides inputs and recipe; pack adds its own versions."""
    return {**stage_versions(job.recipe), "select": SELECT_VERSION}
