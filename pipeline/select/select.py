"""Select: from parts to a verdict for every row of every part. Contracts, section 4.

    parts --FindRecords--> identities --FindCopies--> copies --FindEdges--> edges --JoinClusters--> clusters
          --WriteVerdicts--> verdicts

Each step takes part numbers and gives them on when what it found is written below the decision's folder, so the same
steps run as one pipeline, or as several where the runner holds every shuffle in memory.
"""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.ingest.receipts import PartRef
from pipeline.measure.registry import load_registry
from pipeline.select.columns import Parts
from pipeline.select.context import Decision
from pipeline.select.decision.funnel import Funnel, add_up, load_funnel
from pipeline.select.decision.split import recorded_batch
from pipeline.select.decision.survivor_order import check_preferences
from pipeline.select.decision.verdict import CloseDecision, WriteVerdicts
from pipeline.select.exact.copies import TextRows, WriteCopies
from pipeline.select.exact.equality_join import LinkEqual, SpreadParts
from pipeline.select.exact.record_identity import RecordRows, WriteIdentities
from pipeline.select.files import decision_root, write_batch
from pipeline.select.near.bands import choose_bands
from pipeline.select.near.choose_survivors import JoinClusters
from pipeline.select.near.near import FindEdges, WriteShingleSets
from pipeline.select.rows import BUCKET_ROW, EQUAL_ROW
from schemas import storage
from schemas.recipe import Near, Recipe, canonical_json

__all__ = ["SELECT_VERSION", "Funnel", "decision_digest", "plan_decision", "select", "verdict_uri"]

SELECT_VERSION = "1"  # raise when a verdict may come out otherwise
MEMORY_BYTES = 4 << 30
# Beam's local runner takes about four times the bytes that it shuffles (measured: 1,000 MB took 4.2 GB).
ROUND_SHARE = 8
# On Flink, Beam takes what a stage sends to a shuffle only when its bundle, all that a slot has of it, has ended: until
# then it lies on the heap, and the 101st message of about 10 MB is waited for forever (measured: 1.1 GB a slot).
SLOT_BYTES = 256 << 20

# So few rows are decided here before local worker processes have started (1 M rows: 12 s of CPU; a process: 5 s).
IN_PROCESS_ROWS = 500_000

Step = tuple[str, beam.PTransform]


def verdict_uri(work: str, decision: str, part: int) -> str:
    """Where the verdicts over a part lie."""
    return storage.join(decision_root(work, decision), f"{part}.arrow")


def decision_digest(parts: Sequence[PartRef], recipe: Recipe, recorded_splits: pa.Table | None = None) -> str:
    """What a decision depends on (sha256, hex): the parts in order, the recipe's sections, splits already given."""
    identity = recipe.identity()
    sections = ("rules", "exact", "near", "prefer", "split", "seed")
    content = {
        "version": SELECT_VERSION,
        "parts": [[part.number, part.source, part.rows, part.sha256, part.groups] for part in parts],
        "minhash": identity["measure"]["minhash"],
        **{section: identity[section] for section in sections},
    }
    if recorded_splits is not None:
        batch = recorded_batch(recorded_splits)
        content["recorded"] = hashlib.sha256(
            b"".join(bytes(buffer) for column in batch.columns for buffer in column.buffers() if buffer)
        ).hexdigest()
    return hashlib.sha256(canonical_json(content)).hexdigest()


def select(
    parts: Sequence[PartRef],
    recipe: Recipe,
    work: str,
    decision: str,
    new_pipeline: Callable[[], beam.Pipeline] | None = None,
    recorded_splits: pa.Table | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Funnel:
    """Decide every row of `parts`; the verdicts lie at `verdict_uri`. A decision that is complete is only read.

    `decision` is the `decision_digest` of the same parts, recipe and splits. `recorded_splits` (doc_id, split) are the
    sides of documents kept earlier. `memory_bytes` bounds the shuffles that a local runner holds in this process.
    Raises ValueError for a rule or preference that names no measured signal.
    """
    root = decision_root(work, decision)
    if (funnel := load_funnel(root)) is not None:
        return funnel
    new_pipeline = new_pipeline or _local_pipeline
    asked = new_pipeline()
    shutil.rmtree(asked.local_tempdir, ignore_errors=True)  # which Beam deletes only after a run
    local = isinstance(asked.runner, FnApiRunner)
    plan = plan_decision(parts, recipe, root, recorded_splits, _round_bytes(asked, memory_bytes))
    if local and plan.rows <= IN_PROCESS_ROWS:
        new_pipeline = _local_pipeline
    if plan.rows:
        _run(plan, [part.number for part in parts], new_pipeline)
    else:
        nothing = add_up([], recipe.rules)
        storage.write(plan.uri("decision.json"), nothing.to_json())
    funnel = load_funnel(root)
    assert funnel is not None, f"{root}: the pipeline ended and wrote no decision"
    _clean(plan)
    return funnel


def _round_bytes(pipeline: beam.Pipeline, memory_bytes: int) -> int | None:
    """What may be shuffled at once where `pipeline` runs; None: all."""
    if isinstance(pipeline.runner, FnApiRunner):
        return memory_bytes // ROUND_SHARE
    if type(pipeline.runner).__name__ == "DataflowRunner":
        return None
    return SLOT_BYTES * max(1, pipeline.options.view_as(FlinkRunnerOptions).parallelism)


def plan_decision(
    parts: Sequence[PartRef], recipe: Recipe, root: str, recorded: pa.Table | None, round_bytes: int | None
) -> Decision:
    """Write down what the workers need, and settle what they must agree on."""
    ordered = Parts([part for part in parts if part.rows])
    registry = load_registry(recipe)
    if ordered.refs:
        check_preferences(recipe.prefer, ordered.open(ordered.refs[0].number).names)
    drop_at = recipe.near.threshold if recipe.near else None
    # Without a held-out side there is nothing to keep apart.
    divided = recipe.split.validation > 0 or recorded is not None
    split_at = recipe.split.similarity if divided and recipe.split.similarity else drop_at
    levels = [level for level in (drop_at, split_at) if level is not None]
    bands = choose_bands(recipe.near or Near(), recipe.measure.minhash.num_hashes, min(levels)) if levels else None
    decision = Decision(
        root=root,
        recipe_json=recipe.model_dump_json(),
        rows=ordered.rows,
        rules=tuple(registry.resolve_rules(recipe.rules)),
        failed=tuple(group.failed for group in registry.groups if group.failed),
        bands=bands,
        drop_at=drop_at,
        split_at=split_at,
        recorded=recorded is not None,
        round_bytes=round_bytes,
    )
    Parts(parts).save(decision.uri("parts.json"))
    if recorded is not None:
        write_batch(decision.uri("recorded.arrow"), recorded_batch(recorded))
    return decision


def _run(decision: Decision, numbers: list[int], new_pipeline: Callable[[], beam.Pipeline]) -> None:
    """All steps in one pipeline where its shuffles may be held at once, else round by round."""
    bands = decision.bands.bands if decision.bands else 0
    shuffled = decision.rows * (3 * EQUAL_ROW.itemsize + bands * BUCKET_ROW.itemsize)
    if decision.round_bytes is None or shuffled <= decision.round_bytes:
        with new_pipeline() as pipeline:
            _decide(pipeline, decision, numbers)
    else:
        _decide_in_rounds(new_pipeline, decision, numbers)


def _decide(pipeline: beam.Pipeline, decision: Decision, numbers: list[int]) -> None:
    """The whole decision, top to bottom."""
    parts = pipeline | "Parts" >> SpreadParts(numbers)
    for label, step in itertools.chain.from_iterable(_rounds(decision)):
        parts = parts | label >> step
    edges = [parts | f"FindEdges{n}" >> FindEdges(decision, units) for n, units in enumerate(decision.band_rounds())]
    _ = (parts, *edges) | "Conclude" >> Conclude(decision)


def _decide_in_rounds(new_pipeline: Callable[[], beam.Pipeline], decision: Decision, numbers: list[int]) -> None:
    """The same steps, no two shuffles in one pipeline: what a step has found waits in files for the next."""
    for group in _rounds(decision):
        with new_pipeline() as pipeline:
            parts = pipeline | "Parts" >> SpreadParts(numbers)
            for label, step in group:
                parts = parts | label >> step
    rounds = decision.band_rounds()
    for number, units in enumerate(rounds):
        with new_pipeline() as pipeline:
            found = pipeline | "Parts" >> SpreadParts(numbers) | "FindEdges" >> FindEdges(decision, units)
            _ = found | "SaveNames" >> SaveNames(decision, number)
    names = [name for number in range(len(rounds)) for name in _saved_names(decision, number)]
    with new_pipeline() as pipeline:
        parts = pipeline | "Parts" >> SpreadParts(numbers)
        edges = pipeline | "EdgeFiles" >> beam.Create(names, reshuffle=False).with_output_types(str)
        _ = (parts, edges) | "Conclude" >> Conclude(decision)


def _rounds(decision: Decision) -> list[list[Step]]:
    """The steps before edges, in the groups that may run in one pipeline when shuffles are bounded."""
    groups: list[list[Step]] = []
    for kind, ranges, last in (
        (RecordRows, decision.record_rounds(), WriteIdentities),
        (TextRows, decision.text_rounds(), WriteCopies),
    ):
        for number, partitions in enumerate(ranges):
            groups.append([(f"Link{kind.__name__}{number}", LinkEqual(decision, kind, number, partitions))])
        groups[-1].append((last.__name__, beam.ParDo(last(decision))))
    if decision.bands and decision.near().verify == "exact":
        for number, units in enumerate(decision.band_rounds()):
            groups.append([(f"WriteShingleSets{number}", WriteShingleSets(decision, number, units))])
    return groups


class Conclude(beam.PTransform):
    """(parts, names of edge files ...) in; clusters, verdicts, and `decision.json` at the end."""

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self._decision = decision

    def expand(self, inputs: Any) -> beam.PCollection[int]:
        parts, *edges = inputs
        # The parts too, so that there is something to conclude where no pair was found.
        names = [parts | "NoEdges" >> beam.Map(_no_name)]
        names += [name | f"Edges{number}" >> beam.Map(_under_one_key) for number, name in enumerate(edges)]
        return (
            names
            | "FlattenNames" >> beam.Flatten()
            | "GatherNames" >> beam.GroupByKey()
            | "JoinClusters" >> beam.ParDo(JoinClusters(self._decision))
            | "SpreadVerdicts" >> beam.Reshuffle()
            | "WriteVerdicts" >> beam.ParDo(WriteVerdicts(self._decision))
            | "GatherSummaries" >> beam.GroupByKey()
            | "CloseDecision" >> beam.ParDo(CloseDecision(self._decision))
        )


class SaveNames(beam.PTransform):
    """Write the names of the edge files of one round, for a pipeline that comes later."""

    def __init__(self, decision: Decision, number: int) -> None:
        super().__init__()
        self._uri = decision.tmp("names", f"{number}.json")

    def expand(self, names: beam.PCollection[str]) -> beam.PCollection[str]:
        return (
            names
            | "OneKey" >> beam.Map(_under_one_key)
            | "GatherNames" >> beam.GroupByKey()
            | "WriteNames" >> beam.Map(_write_names, self._uri)
        )


def _no_name(_: int) -> tuple[int, str]:
    return 0, ""


def _under_one_key(name: str) -> tuple[int, str]:
    return 0, name


def _write_names(element: tuple[int, Iterable[str]], uri: str) -> str:
    storage.write(uri, json.dumps(sorted(element[1])).encode())
    return uri


def _saved_names(decision: Decision, number: int) -> list[str]:
    try:
        names: list[str] = json.loads(storage.read(decision.tmp("names", f"{number}.json")))
    except FileNotFoundError:
        return []  # a round without a pair
    return names


def _local_pipeline() -> beam.Pipeline:
    """In this process. Named as a class, for Beam's DirectRunner would first try to download another runner."""
    return beam.Pipeline(FnApiRunner())


def _clean(decision: Decision) -> None:
    """Delete what only this run needed."""
    path = storage.local_path(decision.tmp())
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
        return
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda found: storage.delete(found.uri), storage.list_files(decision.tmp())))
