"""What `verify` checks of a generation as a whole: conservation, the funnel, and the digests."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa

from pipeline.pack.verify.file_checks import Faults
from schemas.generation import FileRef, Manifest
from schemas.manifest import generation_digest, order_digest, read_manifest

__all__ = ["check_conservation", "check_digests"]


def check_conservation(
    faults: Faults, manifest: Manifest, inputs: pa.Table, source_rows: Mapping[str, int], unread: Collection[str]
) -> None:
    """Records read = rows of the ledgers (`source_rows`), source by source, and the funnel is their sum.

    Sources in `unread` have a ledger that could not be read, which is a fault of its own.
    """
    read: Counter[str] = Counter()
    for source, rows in zip(inputs["source"].to_pylist(), inputs["rows"].to_pylist(), strict=True):
        read[source] += rows
    for source in sorted({*read, *source_rows} - {*unread}):
        faults.differ(manifest.tables.inputs.path, f"rows of source {source}", read[source], source_rows.get(source, 0))
    place = f"manifest/g{manifest.generation}.json"
    funnel, groups = manifest.funnel, manifest.groups
    faults.differ(place, "funnel: records_read", funnel.records_read, sum(group.records_read for group in groups))
    faults.differ(place, "funnel: kept", funnel.kept, sum(group.kept for group in groups))
    dropped = sum((Counter(group.dropped) for group in groups), Counter[str]())
    faults.differ(place, "funnel: dropped", funnel.dropped, dict(dropped))
    faults.differ(place, "funnel: kept and dropped", funnel.kept + sum(funnel.dropped.values()), funnel.records_read)


def check_digests(
    faults: Faults,
    dataset: str,
    manifest: Manifest,
    shards: pa.Table,
    listed: Sequence[FileRef],
    inputs: pa.Table,
) -> None:
    """Recompute the digests from the tables; `listed` is the files table."""
    digests, place = manifest.digests, f"manifest/g{manifest.generation}.json"
    content = [inputs[name].to_pylist() for name in ("source", "name", "start", "end", "sha256")]
    retired = zip(shards["sha256"].to_pylist(), shards["retired_in"].to_pylist(), strict=True)
    generation = generation_digest(
        code=manifest.code,
        recipe=digests.recipe,
        assets=manifest.assets,
        previous=digests.previous,
        inputs=zip(*content, strict=True),
        shards=[sha256 for sha256, retired_in in retired if retired_in is None],
        ledger=[file.sha256 for file in listed[: len(manifest.groups)]],
    )
    faults.differ(place, "generation digest", digests.generation, generation)
    order = order_digest(shards, manifest.tokenizer.sha256, manifest.tokenizer.end_of_text.id)
    faults.differ(place, "order digest", digests.order, order)
    if manifest.generation > 1:
        before = read_manifest(dataset, manifest.generation - 1).digests.generation
        faults.differ(place, "digest of the generation before", digests.previous, before)
