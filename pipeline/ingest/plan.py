"""From a source's globs to tasks: which files are read, where large ones are cut, what goes into one part.

The plan depends on the files and the recipe alone, never on workers. Contracts, sections 1 and 2.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping

import xxhash

from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.parquet import WHOLE, row_group_bytes
from pipeline.ingest.read import check_pieces, is_cut_at_lines, read_piece
from pipeline.ingest.receipts import Piece, PieceReceipt, Receipt, Task
from pipeline.ingest.sources import at_once, find_files, formats_of, printable
from schemas import storage
from schemas.recipe import Read, Source, canonical_json
from schemas.storage import Stat

__all__ = ["check_abutting", "plan_tasks"]

CUT_FORMATS = frozenset({"warc", "jsonl", "parquet"})
FIELD_FORMATS = frozenset({"jsonl", "parquet", "arrow", "csv", "tsv"})
FILES_LOOKED_AT = 8  # for a field that the first file lacks


def plan_tasks(sources: Mapping[str, Source], read: Read, fingerprint: str) -> list[Task]:
    """The tasks of all sources, by source and input name; `fingerprint` stands for what else decides a part.

    Raises ValueError for a glob that matches nothing, a missing file, a name without a known format, and a field of
    the recipe that no record has.
    """
    tasks = []
    for name in sorted(sources):
        planned = _pieces(name, sources[name], read)
        check_fields(name, sources[name], [piece for piece, _ in planned], read)
        for bundle in _bundles(planned, read.part_bytes):
            pieces = tuple(piece for piece, _ in bundle)
            tasks.append(
                Task(name, pieces, _key(fingerprint, name, sources[name], pieces), sum(size for _, size in bundle))
            )
    return tasks


def check_abutting(receipts: Iterable[Receipt]) -> None:
    """Raise ConservationError unless the input splits of every file cover it without gap or overlap."""
    files: dict[tuple[str, str], list[PieceReceipt]] = {}
    for receipt in receipts:
        for piece in receipt.pieces:
            files.setdefault((receipt.source, piece.name), []).append(piece)
    for pieces in files.values():
        check_pieces(pieces)


def _key(fingerprint: str, name: str, source: Source, pieces: tuple[Piece, ...]) -> str:
    identity: dict[str, object] = {
        "fingerprint": fingerprint,
        "source": name,
        "pieces": [[printable(p.uri), p.size, p.tag, p.format, p.start, p.end, p.name] for p in pieces],
    }
    if any(piece.format in ("csv", "tsv") for piece in pieces):
        identity["table"] = [source.columns, source.delimiter]
    return xxhash.xxh3_128_hexdigest(canonical_json(identity))


def _bundles(pieces: Iterable[tuple[Piece, int]], part_bytes: int) -> Iterator[list[tuple[Piece, int]]]:
    """Input splits in order, closed before the one that would exceed `part_bytes`; a larger one stands alone."""
    bundle: list[tuple[Piece, int]] = []
    held = 0
    for piece, size in pieces:
        if bundle and held + size > part_bytes:
            yield bundle
            bundle, held = [], 0
        bundle.append((piece, size))
        held += size
    if bundle:
        yield bundle


def _pieces(name: str, source: Source, read: Read) -> list[tuple[Piece, int]]:
    """(input split, its bytes) of a source's files, in name order."""
    found = find_files(name, source)
    # Sorted by UTF-8 bytes, which is the order of the code points.
    files = [(input_name, found[input_name]) for input_name in sorted(found)]
    formats = formats_of(name, source, [input_name for input_name, _ in files])
    cut = functools.partial(_cut, read.part_bytes)
    return [piece for pieces in at_once(cut, [*zip(files, formats, strict=True)]) for piece in pieces]


def _cut(part_bytes: int, planned: tuple[tuple[str, Stat], str]) -> list[tuple[Piece, int]]:
    """One file as input splits of about `part_bytes`; only a large file is opened."""
    (name, file), form = planned

    def piece(start: int, end: int) -> Piece:
        return Piece(name, file.uri, form, start, end, file.size, file.tag)

    if form == "parquet":
        groups = _row_groups(file) if file.size > part_bytes else []
        if not groups:
            return [(piece(0, WHOLE), file.size)]
        return [(piece(start, end), sum(groups[start:end])) for start, end in _runs(groups, part_bytes)]
    is_cut = file.size > part_bytes and form in CUT_FORMATS
    if not is_cut or (form == "jsonl" and not _is_cut_at_lines(name, file)):
        return [(piece(0, file.size), file.size)]
    cuts = [*range(0, file.size, part_bytes), file.size]
    return [(piece(start, end), end - start) for start, end in itertools.pairwise(cuts)]


def _runs(sizes: list[int], limit: int) -> Iterator[tuple[int, int]]:
    """[start, end) of consecutive items of at most `limit` together."""
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and held + size > limit:
            yield start, at
            start, held = at, 0
        held += size
    yield start, len(sizes)


def _row_groups(file: Stat) -> list[int]:
    with storage.open_input(file.uri) as opened:
        return row_group_bytes(opened)


def _is_cut_at_lines(name: str, file: Stat) -> bool:
    with storage.open_input(file.uri) as opened:
        return is_cut_at_lines(opened, name, file.size)


def check_fields(name: str, source: Source, pieces: list[Piece], read: Read) -> None:
    """Raise ValueError for a field of the recipe that no record of a source's first file has, nor of the next few.

    Reading ends with the first record that has them all.
    """
    firsts = [piece for piece in pieces if piece.format in FIELD_FORMATS and piece.start == 0]
    missing, named, met, looked_at = set(FieldNames(source).named.values()), FieldNames(source).named, "", ""
    for piece in firsts[:FILES_LOOKED_AT]:
        reader = read_piece(piece, source, read)
        for _ in reader:
            if not reader.names.missing & missing:
                break
        missing &= reader.names.missing
        if not missing:
            return
        if reader.names.met and not looked_at:
            met, looked_at = ", ".join(reader.names.met[:20]), piece.name
    if looked_at:
        key, field = next((key, field) for key, field in named.items() if field in missing)
        raise ValueError(
            f"source {name}: no record of {looked_at} has the field {field!r} ({key}); it has {met}: "
            f"name the right one in sources.{name}.{key}, a nested one by its path, as in doc.text"
        )
