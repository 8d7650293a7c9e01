"""From a task to its parts, and from receipts to the list of parts. Contracts, section 2.

A part is one Arrow file under `parts/` and one receipt under `receipts/`. The receipt is created once and is the
choice among attempts: parts are found by receipts, never by listing. The bytes of a part follow from the bytes read
and the recipe alone, so an attempt that comes second loses nothing but time.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.ingest.extract.html import extract_version
from pipeline.ingest.part_writer import PartMaker
from pipeline.ingest.receipts import PartRef, Piece, Receipt, Task
from pipeline.ingest.records import ConservationError
from pipeline.measure.language import asset_path
from pipeline.measure.measure import MEASURE_VERSION
from pipeline.runtime.progress import Reporter
from schemas import storage
from schemas.recipe import Recipe, Source, canonical_json

__all__ = ["PART_VERSION", "asset_digests", "fingerprint", "ingest_task", "load_parts", "stage_versions"]

PART_VERSION = 1  # raise when reading, or the layout of parts, changes what a part holds
REQUESTS_AT_ONCE = 16


def stage_versions(recipe: Recipe) -> dict[str, str]:
    """What decides a part besides input and recipe, by stage."""
    return {"extract": extract_version(recipe.extract.method), "measure": MEASURE_VERSION, "part": str(PART_VERSION)}


def fingerprint(recipe: Recipe) -> str:
    """sha256 of all that decides parts besides their inputs; enters every task's key.

    Raises ValueError or StorageError for an asset that cannot be read.
    """
    identity = {
        "fields": {name: fields for name, source in recipe.sources.items() if (fields := _own_fields(source))},
        "read": recipe.read.model_dump(mode="json"),
        "extract": recipe.extract.model_dump(mode="json"),
        "edits": recipe.edits.model_dump(mode="json"),
        "measure": recipe.measure.model_dump(mode="json", exclude={"language_model", "url_block_list"}),
        # By content: the same model under another name makes the same parts.
        "assets": asset_digests(recipe),
        "versions": stage_versions(recipe),
    }
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def asset_digests(recipe: Recipe) -> dict[str, str]:
    """sha256 of each file that the recipe's measures need, by what it is for."""
    digests = {"language_model": hashlib.sha256(asset_path(recipe.measure.language_model).read_bytes()).hexdigest()}
    if recipe.measure.url_block_list:
        digests["url_block_list"] = hashlib.sha256(storage.read(recipe.measure.url_block_list)).hexdigest()
    return digests


def _own_fields(source: Source) -> dict[str, str]:
    """The fields that a source names otherwise than the default: a source without any leaves all other parts alone."""
    default, fields = Source(root=source.root).model_dump(), source.model_dump()
    return {key: fields[key] for key in fields if key.endswith("_field") and fields[key] != default[key]}


def ingest_task(task: Task, recipe: Recipe, work: str, progress: str | None = None) -> list[Receipt]:
    """Make the parts of a task below `work`, unless they are there; returns their receipts.

    A rerun goes on after the last part that has its receipt: rows before it are read, but not extracted again.
    `progress` is a local folder for the driver's progress line.
    Raises StorageError for a store that fails, ConservationError when a row is not accounted for.
    """
    reporter = Reporter(progress)
    receipts = _discard_broken(task, work)
    while not (receipts and receipts[-1].last):
        receipts = _go_on(task, recipe, work, receipts, reporter)
    _check_rows(task, receipts)
    reporter.add("ingest", items=1)
    reporter.close()
    return receipts


def _go_on(task: Task, recipe: Recipe, work: str, receipts: list[Receipt], reporter: Reporter) -> list[Receipt]:
    """`receipts` and those of the parts that follow, as far as they are of one attempt or equal to it."""
    receipts = list(receipts)
    maker = PartMaker(task, recipe, work, stage_versions(recipe), reporter)
    with contextlib.closing(maker.make(len(receipts), sum(receipt.rows for receipt in receipts))) as parts:
        for made in parts:
            chosen = _choose(work, made)
            receipts.append(chosen)
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


def load_parts(work: str, tasks: Iterable[Task], missing_ok: bool = False) -> tuple[list[PartRef], list[Receipt]]:
    """The parts of all tasks, numbered by (source, input name, start, number), and their receipts in that order.

    With `missing_ok` a task whose parts are not all there contributes none; without, it is a FileNotFoundError.
    """
    ordered = sorted(tasks, key=lambda task: (task.source, task.pieces[0].name, task.pieces[0].start))

    def load(task: Task) -> list[tuple[Receipt, Piece]]:
        receipts = _receipts(task, work)
        if receipts and receipts[-1].last and all(_is_there(receipt, work) for receipt in receipts):
            return list(zip(receipts, _first_pieces(task, receipts), strict=True))
        return []

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        loaded = list(pool.map(load, ordered))
    missing = [task.pieces[0].uri for task, pairs in zip(ordered, loaded, strict=True) if not pairs]
    if missing and not missing_ok:
        raise FileNotFoundError(
            f"{work}: parts are missing ({len(missing):,} of {len(ordered):,}), the first of {missing[0]}: "
            "`gristmill run` makes them"
        )
    found = [pair for pairs in loaded for pair in pairs]
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
        )
        for number, (receipt, piece) in enumerate(found)
    ]
    return parts, [receipt for receipt, _ in found]


def _first_pieces(task: Task, receipts: Iterable[Receipt]) -> Iterator[Piece]:
    """The piece in which each part begins: the one after those that ended in the parts before."""
    ended = 0
    for receipt in receipts:
        yield task.pieces[min(ended, len(task.pieces) - 1)]
        ended += len(receipt.pieces)
