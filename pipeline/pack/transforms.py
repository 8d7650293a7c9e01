"""Pack as one Beam pipeline: elements are numbers of groups, receipts of a few hundred bytes, and packed index rows.

Every worker reads the plan from the work folder; what it makes lies in files that a receipt names, so an element that
is run again finds its work done.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from pydantic import TypeAdapter

from pipeline.pack.encode import encode_group
from pipeline.pack.groups import Plan, load_plan
from pipeline.pack.index import index_digits, index_kind, old_index_rows, partition, write_index
from pipeline.pack.ledger import write_ledger
from pipeline.pack.receipts import IndexWritten, LedgerTask, PackedGroup, PackedSource, ShardsReceipt
from pipeline.pack.reuse_shards import OldShards
from pipeline.pack.shard_numbering import number_shards, shards_in_use
from pipeline.pack.tokenize.encoder import Encoder
from pipeline.pack.validation import merge_validation
from pipeline.runtime.progress import Reporter
from schemas import storage
from schemas.generation import Tokenizer
from schemas.manifest import read_named
from schemas.recipe import canonical_json

__all__ = ["PackGroups", "load_result"]


def result_path(plan: Plan) -> str:
    """Where the pipeline leaves what the driver commits, below the work folder."""
    return f"pack/result-{plan.digest}.json"


def load_result(plan: Plan) -> list[PackedGroup | IndexWritten]:
    """What the pipeline left: every group, and every index file."""
    data = storage.read(storage.join(plan.work, result_path(plan)))
    return TypeAdapter(list[PackedGroup | IndexWritten]).validate_json(data)


class PackGroups(beam.PTransform):
    """Numbers of the plan's groups to shards, ledgers and indexes, and one file that lists them."""

    def __init__(self, plan_uri: str, progress: str | None = None) -> None:
        super().__init__()
        self._uri, self._progress = plan_uri, progress

    def expand(self, groups: PCollection[int]) -> PCollection[str]:
        """Encode, merge validation, number, write ledgers, index, list."""
        encoded = groups | "EncodeGroups" >> beam.ParDo(EncodeGroup(self._uri, self._progress))
        merged = (
            encoded | "GatherSources" >> beam.GroupByKey() | "MergeValidation" >> beam.ParDo(MergeValidation(self._uri))
        )
        tasks = (
            merged
            | "GatherShards" >> beam.GroupByKey()
            | "NumberShards"
            >> beam.ParDo(NumberShards(self._uri))
            .with_output_types(tuple[int, bytes], old_index=tuple[str, int])
            .with_outputs("old_index", main="ledgers")
        )
        ledgers = (
            tasks.ledgers
            | "SpreadLedgers" >> beam.Reshuffle()
            | "WriteLedgers"
            >> beam.ParDo(WriteLedger(self._uri))
            .with_output_types(tuple[int, bytes], rows=tuple[str, bytes])
            .with_outputs("rows", main="receipts")
        )
        old_rows = (
            tasks.old_index
            | "SpreadOldIndex" >> beam.Reshuffle()
            | "ReadOldIndex" >> beam.ParDo(ReadOldIndex(self._uri))
        )
        index = (
            (ledgers.rows, old_rows)
            | "AllRows" >> beam.Flatten()
            | "GatherIndex" >> beam.GroupByKey()
            | "WriteIndex" >> beam.ParDo(WriteIndex(self._uri))
        )
        return (
            (ledgers.receipts, index)
            | "AllReceipts" >> beam.Flatten()
            | "GatherReceipts" >> beam.GroupByKey()
            | "WriteResult" >> beam.ParDo(WriteResult(self._uri))
        )


class WithPlan(beam.DoFn):
    """A step that knows the plan."""

    def __init__(self, plan_uri: str) -> None:
        self._uri = plan_uri

    def setup(self) -> None:
        """Read the plan, once a worker."""
        self.plan = load_plan(self._uri)
        self.groups = {group.ledger: group for group in self.plan.groups}


class EncodeGroup(WithPlan):
    """A group's number to its family and receipt."""

    def __init__(self, plan_uri: str, progress: str | None) -> None:
        super().__init__(plan_uri)
        self._progress = progress
        self._copied = Metrics.counter("pack", "documents_copied")
        self._encoded = Metrics.counter("pack", "documents_encoded")

    def setup(self) -> None:
        """Load the tokenizer and the shards of the generation before."""
        super().setup()
        tokenizer = Tokenizer.model_validate(self.plan.tokenizer)
        self.encoder = Encoder(read_named(self.plan.dataset, tokenizer.path), tokenizer)
        self.old = OldShards(self.plan)

    def process(self, ledger: int) -> Iterator[tuple[str, bytes]]:
        """Write the group's shards."""
        group = self.groups[ledger]
        reporter = Reporter(self._progress)
        receipt = encode_group(self.plan, group, self.encoder, self.old, reporter)
        reporter.close()
        self._copied.inc(receipt.copied)
        self._encoded.inc(receipt.encoded)
        yield group.family, receipt.to_json()


class MergeValidation(WithPlan):
    """The receipts of a source's groups to one list of them and of its validation shards."""

    def setup(self) -> None:
        """Load the shards of the generation before."""
        super().setup()
        self.old = OldShards(self.plan)

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        """Write the source's validation shards."""
        receipts = sorted(map(ShardsReceipt.from_json, element[1]), key=lambda receipt: receipt.ledger)
        groups = [self.groups[receipt.ledger] for receipt in receipts]
        validation = merge_validation(self.plan, groups, receipts, self.old)
        yield 0, PackedSource(groups=receipts, validation=validation).to_json()


class NumberShards(WithPlan):
    """All receipts of shards to one task a ledger; the old index files go to the output `old_index`."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        """Write the shards table. The pipeline gives the types of both outputs."""
        sources = [PackedSource.from_json(each) for each in element[1]]
        files = [file for source in sources for file in source.shards()]
        decided = {key for group in self.groups.values() for key in (group.key, group.family)}
        table, num_documents = number_shards(self.plan, files, decided)
        # Only now is it known how many documents, and so how many files, the index has.
        digits = {"documents": index_digits(num_documents), "urls": index_digits(self.plan.num_records)}
        for source in sources:
            for shards in source.groups:
                task = LedgerTask(shards=shards, validation=source.validation, table=table, digits=digits)
                yield shards.ledger, task.to_json()
        for path in self.plan.old_index:
            yield beam.pvalue.TaggedOutput("old_index", (path, digits[index_kind(path)]))


class WriteLedger(WithPlan):
    """A task to the ledger's receipt; the rows for the indexes go to the output `rows`."""

    def setup(self) -> None:
        """No shards table is read yet."""
        super().setup()
        self.table = ""

    def process(self, element: tuple[int, bytes]) -> Iterator[Any]:
        """Write the group's ledger and near index. The pipeline gives the types of both outputs."""
        ledger, task = element[0], LedgerTask.from_json(element[1])
        if task.table.path != self.table:
            self.table = task.table.path
            self.numbers = shards_in_use(self.plan, self.table)
        receipt = write_ledger(self.plan, self.groups[ledger], task.shards, task.validation, self.numbers)
        packed = storage.read(storage.join(self.plan.work, receipt.rows))
        split = receipt.documents_bytes
        for kind, rows in (("documents", packed[:split]), ("urls", packed[split:])):
            for each in partition(kind, rows, task.digits[kind]):
                yield beam.pvalue.TaggedOutput("rows", each)
        copied, encoded = task.shards.copied, task.shards.encoded
        done = PackedGroup(group=ledger, table=task.table, copied=copied, encoded=encoded, ledger=receipt)
        yield 0, done.to_json()


class ReadOldIndex(WithPlan):
    """An index file of the generation before to its rows that stay."""

    def process(self, element: tuple[str, int]) -> Iterator[tuple[str, bytes]]:
        """Read, leave out what is decided again, and part anew."""
        path, digits = element
        yield from partition(index_kind(path), old_index_rows(self.plan, path), digits)


class WriteIndex(WithPlan):
    """The packed rows of an index file to its reference."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        """Sort and write."""
        file = write_index(self.plan, element[0], element[1])
        yield 0, IndexWritten(index=file).to_json()


class WriteResult(WithPlan):
    """All receipts to the file that the driver reads."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[str]:
        """Write it; sorted, for they arrive in any order."""
        receipts = [json.loads(each) for each in sorted(element[1])]
        storage.write(storage.join(self.plan.work, result_path(self.plan)), canonical_json(receipts))
        yield result_path(self.plan)
