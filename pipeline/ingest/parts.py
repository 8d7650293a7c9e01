"""From a task to its parts, and from receipts to the list of parts. Contracts, section 2.

A text part is one Arrow file under `parts/` and one receipt under `receipts/`; what is measured of it lies beside
(`measure_part.py`). The receipt is created once and is the choice among attempts: parts are found by receipts, never by
listing. The bytes of a part follow from the bytes read and the recipe alone, so an attempt that comes second loses
nothing but time.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline.ingest.extract.html import extract_version
from pipeline.ingest.measure_part import choose_columns, columns_files, find_columns, measure_missing
from pipeline.ingest.part_writer import PartMaker
from pipeline.ingest.receipts import ColumnsFile, PartRef, Piece, Receipt, Task
from pipeline.ingest.records import ConservationError
from pipeline.measure.measure import MeasureError
from pipeline.measure.registry import Registry, load_registry
from pipeline.runtime.progress import Reporter
from schemas import storage
from schemas.recipe import Recipe, Source, canonical_json

__all__ = ["PART_VERSION", "fingerprint", "ingest_task", "load_parts", "stage_versions"]

PART_VERSION = 1  # raise when reading, or the layout of parts, changes what a part holds
REQUESTS_AT_ONCE = 16


def stage_versions(recipe: Recipe) -> dict[str, str]:
    """What decides a text part besides input and recipe, by stage."""
    return {"extract": extract_version(recipe.extract.method), "part": str(PART_VERSION)}


def fingerprint(recipe: Recipe) -> str:
    """sha256 of all that decides text parts besides their inputs; enters every task's key."""
    identity = {
        "fields": {name: fields for name, source in recipe.sources.items() if (fields := _own_fields(source))},
        "read": recipe.read.model_dump(mode="json"),
        "extract": recipe.extract.model_dump(mode="json"),
        "versions": stage_versions(recipe),
    }
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def _own_fields(source: Source) -> dict[str, str]:
    """The fields that a source names otherwise than the default: a source without any leaves all other parts alone."""
    default, fields = Source(root=source.root).model_dump(), source.model_dump()
    return {key: fields[key] for key in fields if key.endswith("_field") and fields[key] != default[key]}


def ingest_task(
    task: Task, recipe: Recipe, work: str, progress: str | None = None, expected: Mapping[str, str] | None = None
) -> list[Receipt]:
    """Make the parts of a task below `work` with their measure columns, unless they are there; returns their receipts.

    A rerun goes on after the last part that has its receipt: rows before it are read, but not extracted again. Columns
    that are missing over a part are measured from its stored texts. `progress` is a local folder for the driver's
    progress line, `expected` the identities of the driver's signal groups.
    Raises StorageError for a store that fails, ConservationError when a row is not accounted for, MeasureError for a
    signal group of the user's own that is wrong or not the driver's.
    """
    reporter, registry = Reporter(progress), load_registry(recipe)
    _check_groups(registry, expected)
    receipts = _discard_broken(task, work)
    while not (receipts and receipts[-1].last):
        receipts = _go_on(task, recipe, registry, work, receipts, reporter)
    _check_rows(task, receipts)
    for receipt in receipts:
        measure_missing(receipt, registry, work, reporter)
    reporter.add("ingest", items=1)
    reporter.close()
    return receipts


def _check_groups(registry: Registry, expected: Mapping[str, str] | None) -> None:
    """Raise MeasureError where this worker would measure otherwise than its driver asks."""
    if expected is None:
        return
    for group in registry.groups:
        if expected.get(group.name) != group.identity:
            raise MeasureError(
                f"signal group {group.name} is another here than where the run was started: this worker has version "
                f"{group.group.version} of {group.module or 'Gristmill'}: install the same packages on all workers"
            )


def _go_on(
    task: Task, recipe: Recipe, registry: Registry, work: str, receipts: list[Receipt], reporter: Reporter
) -> list[Receipt]:
    """`receipts` and those of the parts that follow, as far as they are of one attempt or equal to it."""
    receipts = list(receipts)
    maker = PartMaker(task, recipe, registry, work, stage_versions(recipe), reporter)
    with contextlib.closing(maker.make(len(receipts), sum(receipt.rows for receipt in receipts))) as parts:
        for made, columns in parts:
            chosen = _choose(work, made)
            receipts.append(chosen)
            if chosen.sha256 == made.sha256:
                choose_columns(work, columns)
            else:
                storage.delete(storage.join(work, columns.path))
            # Another attempt ends its part elsewhere when a page was too slow on one machine only: go on from there.
            if (chosen.rows, chosen.last) != (made.rows, made.last):
                break
    return receipts


def _choose(work: str, made: Receipt) -> Receipt:
    """Create the part's receipt; where another attempt was first its part is the choice, and ours is deleted."""
    uri = _receipt_uri(work, made.key, made.number)
    try:
        storage.write(uri, made.to_json(), create_only=True)
    except FileExistsError:
        try:
            chosen = Receipt.from_json(storage.read(uri))
        except ValueError:
            storage.write(uri, made.to_json())  # a damaged one chooses nothing
            return made
        if chosen.path != made.path:
            storage.delete(storage.join(work, made.path))
        return chosen
    return made


def _receipt_uri(work: str, key: str, number: int) -> str:
    return storage.join(work, "receipts", f"{key}-{number:03d}.json")


def _receipts(task: Task, work: str) -> list[Receipt]:
    """The receipts of a task's parts, from the first on, as far as they go without a gap or a damaged one."""
    receipts: list[Receipt] = []
    while not (receipts and receipts[-1].last):
        try:
            receipts.append(Receipt.from_json(storage.read(_receipt_uri(work, task.key, len(receipts)))))
        except (FileNotFoundError, ValueError):
            break
    return receipts


def _is_there(receipt: Receipt, work: str) -> bool:
    """Whether the part of a receipt exists with the size that was vouched for."""
    try:
        return storage.stat(storage.join(work, receipt.path)).size == receipt.bytes
    except FileNotFoundError:
        return False


def _discard_broken(task: Task, work: str) -> list[Receipt]:
    """The receipts up to the first whose part is gone; receipts without a part are deleted, and it is made again."""
    receipts = _receipts(task, work)
    sound = [_is_there(receipt, work) for receipt in receipts]
    for receipt, is_sound in zip(receipts, sound, strict=True):
        if not is_sound:
            storage.delete(_receipt_uri(work, task.key, receipt.number))
    return receipts[: sound.index(False)] if False in sound else receipts


def _check_rows(task: Task, receipts: Iterable[Receipt]) -> None:
    """Rows of parts = rows of pieces, and every piece has ended in a part."""
    receipts = list(receipts)
    rows = sum(receipt.rows for receipt in receipts)
    pieces = [piece for receipt in receipts for piece in receipt.pieces]
    ended = [(piece.name, piece.start) for piece in pieces]
    if rows != sum(piece.rows for piece in pieces) or ended != [(piece.name, piece.start) for piece in task.pieces]:
        raise ConservationError(
            f"task {task.key} ({task.pieces[0].uri} and on): {rows} rows in its parts, "
            f"{sum(piece.rows for piece in pieces)} read in {len(ended)} of {len(task.pieces)} pieces"
        )


def load_parts(
    work: str, tasks: Iterable[Task], registry: Registry, missing_ok: bool = False
) -> tuple[list[PartRef], list[Receipt]]:
    """The parts of all tasks with their measure columns, numbered by (source, input name, start, number), and receipts.

    With `missing_ok` a task whose parts are not all there contributes none, and a part keeps the columns that it has;
    without, what is missing is a FileNotFoundError.
    """
    ordered = sorted(tasks, key=lambda task: (task.source, task.pieces[0].name, task.pieces[0].start))

    def load(task: Task) -> list[tuple[Receipt, Piece, tuple[ColumnsFile, ...], dict[str, str]]]:
        receipts = _receipts(task, work)
        if not (receipts and receipts[-1].last and all(_is_there(receipt, work) for receipt in receipts)):
            return []
        loaded = []
        for receipt, piece in zip(receipts, _first_pieces(task, receipts), strict=True):
            keys = {group.name: group.key(receipt.sha256) for group in registry.groups}
            found = find_columns(work, receipt.sha256, keys)
            if len(found) < len(keys) and not missing_ok:
                return []
            loaded.append((receipt, piece, columns_files(work, found), {name: keys[name] for name in found}))
        return loaded

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        loaded = list(pool.map(load, ordered))
    missing = [task.pieces[0].uri for task, found in zip(ordered, loaded, strict=True) if not found]
    if missing and not missing_ok:
        raise FileNotFoundError(
            f"{work}: parts or their measures are missing ({len(missing):,} of {len(ordered):,}), the first of "
            f"{missing[0]}: `gristmill run` makes them"
        )
    every = [each for found in loaded for each in found]
    parts = [
        PartRef(
            number=number,
            source=receipt.source,
            uri=storage.join(work, receipt.path),
            rows=receipt.rows,
            text_bytes=receipt.text_bytes,
            sha256=receipt.sha256,
            name=piece.name,
            start=piece.start,
            files=files,
            groups=groups,
        )
        for number, (receipt, piece, files, groups) in enumerate(every)
    ]
    return parts, [receipt for receipt, _, _, _ in every]


def _first_pieces(task: Task, receipts: Iterable[Receipt]) -> Iterator[Piece]:
    """The piece in which each part begins: the one after those that ended in the parts before."""
    ended = 0
    for receipt in receipts:
        yield task.pieces[min(ended, len(task.pieces) - 1)]
        ended += len(receipt.pieces)
