"""From a source's globs to tasks: which files are read, where large ones are cut, what goes into one part.

The plan depends on the files and the recipe alone, never on workers. Contracts, sections 1 and 2.
"""

import functools
import gzip
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from pipeline.ingest.bytes.compression import EXTENSIONS, HEAD_BYTES, find_codec
from pipeline.ingest.formats.jsonl import looks_like_jsonl
from pipeline.ingest.formats.parquet import WHOLE, row_group_bytes
from pipeline.ingest.read import check_pieces
from pipeline.ingest.receipts import Piece, PieceReceipt, Receipt, Task
from schemas import storage
from schemas.recipe import Read, Source, canonical_json
from schemas.storage import Stat
from schemas.text_format import plural

__all__ = ["check_abutting", "format_of", "plan_tasks"]

T = TypeVar("T")
Found = dict[str, Stat]  # input name -> file

FORMATS = {
    ".warc": "warc",
    ".wet": "warc",
    ".wat": "warc",
    ".arc": "warc",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
WILD = re.compile(r"[*?\[]")
REQUESTS_AT_ONCE = 16  # a list of a crawl's 90,000 paths is looked up in minutes


def plan_tasks(sources: Mapping[str, Source], read: Read, fingerprint: str) -> list[Task]:
    """The tasks of all sources, by source and input name; `fingerprint` stands for what else decides a part.

    Raises ValueError for a glob that matches nothing, a missing file, or a name without a known format.
    """
    tasks = []
    for name in sorted(sources):
        for bundle in _bundles(_pieces(name, sources[name], read), read.part_bytes):
            pieces = tuple(piece for piece, _ in bundle)
            tasks.append(Task(name, pieces, _key(fingerprint, name, pieces), sum(size for _, size in bundle)))
    return tasks


def check_abutting(receipts: Iterable[Receipt]) -> None:
    """Raise ConservationError unless the pieces of every file cover it without gap or overlap."""
    files: dict[tuple[str, str], list[PieceReceipt]] = {}
    for receipt in receipts:
        for piece in receipt.pieces:
            files.setdefault((receipt.source, piece.name), []).append(piece)
    for pieces in files.values():
        check_pieces(pieces)


def _key(fingerprint: str, source: str, pieces: tuple[Piece, ...]) -> str:
    identity = {
        "fingerprint": fingerprint,
        "source": source,
        "pieces": [[p.uri, p.size, p.tag, p.format, p.start, p.end, p.name] for p in pieces],
    }
    return xxhash.xxh3_128_hexdigest(canonical_json(identity))


def _bundles(pieces: Iterable[tuple[Piece, int]], part_bytes: int) -> Iterator[list[tuple[Piece, int]]]:
    """Pieces in order, closed before the one that would exceed `part_bytes`; a larger one stands alone."""
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
    """(piece, input bytes) of a source's files, in name order."""
    found = _find_files(name, source)
    # Sorted by UTF-8 bytes, which is the order of the code points.
    files = [(input_name, found[input_name]) for input_name in sorted(found)]
    formats = [_format(name, source, input_name) for input_name, _ in files]
    cut = functools.partial(_cut, read.part_bytes)
    return [piece for pieces in _at_once(cut, [*zip(files, formats, strict=True)]) for piece in pieces]


def _cut(part_bytes: int, planned: tuple[tuple[str, Stat], str]) -> list[tuple[Piece, int]]:
    """One file as pieces of about `part_bytes`; only a large file is opened."""
    (name, file), form = planned

    def piece(start: int, end: int) -> Piece:
        return Piece(name, file.uri, form, start, end, file.size, file.tag)

    if form == "parquet":
        groups = _row_groups(file) if file.size > part_bytes else []
        if not groups:
            return [(piece(0, WHOLE), file.size)]
        return [(piece(start, end), sum(groups[start:end])) for start, end in _runs(groups, part_bytes)]
    if file.size <= part_bytes or (form == "jsonl" and not _is_plain_jsonl(name, file)):
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


def _is_plain_jsonl(name: str, file: Stat) -> bool:
    with storage.open_input(file.uri) as opened:
        head = opened.read(HEAD_BYTES)
    return find_codec(head, name, looks_like_jsonl(head)) is None


def _format(name: str, source: Source, input_name: str) -> str:
    if source.format != "auto":
        return source.format
    form = format_of(input_name)
    if form is None:
        raise ValueError(
            f"source {name}: {input_name} has none of the endings {', '.join(FORMATS)} (and {', '.join(EXTENSIONS)} "
            f"behind it): set the source's format, or narrow its inputs, as in **/*.warc.gz"
        )
    return form


def format_of(name: str) -> str | None:
    """warc, jsonl or parquet by a file's name; None if it tells nothing."""
    lowered = name.lower()
    for extension in EXTENSIONS:
        lowered = lowered.removesuffix(extension)
    return next((form for ending, form in FORMATS.items() if lowered.endswith(ending)), None)


def _find_files(name: str, source: Source) -> Found:
    """Every file that a source's inputs name, each once."""
    found: Found = {}
    listed: dict[str, list[Stat]] = {}
    for pattern in source.inputs:
        if pattern.startswith("@"):
            names = _read_list(name, pattern[1:])
            found.update(_look_up(name, source, names, f"named in {pattern[1:]}"))
        elif WILD.search(pattern):
            found.update(_match(name, source, pattern, listed))
        else:
            found.update(_look_up(name, source, [pattern], "named in inputs"))
    return found


def _base(name: str, source: Source) -> str:
    """The root as file URIs begin with it: without ~ and file://, which listings do not have."""
    try:
        path = storage.local_path(source.root)
    except ValueError as error:
        raise ValueError(f"sources.{name}.root: {error}") from None
    return str(path) if path is not None else source.root.rstrip("/")


def _match(name: str, source: Source, pattern: str, listed: dict[str, list[Stat]]) -> Found:
    """The files that a glob matches; the listing begins at its first wildcard."""
    if source.root.startswith(("http://", "https://")):
        raise ValueError(
            f"source {name}: {pattern!r} cannot be looked up below {source.root}: web servers have no listing; "
            "name the files, or give @FILE with one path a line"
        )
    _check_below_root(name, source, pattern, "a glob of inputs")
    segments = pattern.split("/")
    fixed = next(at for at, segment in enumerate(segments) if WILD.search(segment))
    base = _base(name, source)
    folder = storage.join(base, *segments[:fixed]) if fixed else base
    if folder not in listed:
        listed[folder] = _files_below(name, folder)
    matches = glob_pattern(pattern).fullmatch
    found = {}
    for file in listed[folder]:
        input_name = _name_below(base, file.uri)
        if matches(input_name):
            found[input_name] = Stat(storage.join(base, input_name), file.size, file.tag)
    if not found:
        raise ValueError(
            f"source {name}: {pattern!r} matches none of the {plural(len(listed[folder]), 'file')} below {folder}: "
            "check root and inputs (* stays within a folder, ** does not)"
        )
    return found


def _files_below(name: str, folder: str) -> list[Stat]:
    """All files below a folder or prefix. Raises ValueError where there is none, and says why."""
    if files := storage.list_files(folder):
        return files
    path = storage.local_path(folder)
    if path is None or path.is_dir():
        raise ValueError(f"source {name}: no file lies below {folder}: check root and inputs")
    # In full, for most often the command was started in another folder than was thought.
    if path.exists():
        raise ValueError(f"source {name}: {path.absolute()} is a file: give its folder as root, and its name in inputs")
    raise ValueError(f"source {name}: there is no folder {path.absolute()}: check root and inputs")


def _name_below(base: str, uri: str) -> str:
    path = storage.local_path(uri)
    if path is not None:
        return path.relative_to(Path(base)).as_posix()
    return uri.removeprefix(base).lstrip("/")


def glob_pattern(pattern: str) -> "re.Pattern[str]":
    """A glob as a pattern over input names: * and ? stay within a folder, ** spans folders.

    A wildcard at the start of a name does not match . and _: those are bookkeeping (_SUCCESS, .part-0.crc).
    """
    parts = []
    segments = pattern.split("/")
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if segment == "**":
            parts.append(r"(?:(?![._])[^/]+/)*" + (r"(?![._])[^/]+" if last else ""))
        else:
            parts.append(_segment_pattern(segment) + ("" if last else "/"))
    return re.compile("".join(parts))


def _segment_pattern(segment: str) -> str:
    pattern = r"(?![._])" if segment[:1] in ("*", "?", "[") else ""
    at = 0
    while at < len(segment):
        character = segment[at]
        close = segment.find("]", at + 2)
        if character == "[" and close > 0:
            inside = segment[at + 1 : close].replace("\\", "\\\\")
            pattern += "[" + ("^/" + inside[1:] if inside[0] in "!^" else inside) + "]"
            at = close
        else:
            pattern += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        at += 1
    return pattern


def _read_list(name: str, uri: str) -> list[str]:
    """The paths in a list file, one a line; gzip is undone, as crawls publish their lists so."""
    try:
        data = storage.read(uri)
    except FileNotFoundError:
        raise ValueError(f"source {name}: inputs name the list @{uri}, which is not there") from None
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"source {name}: the list {uri} is not UTF-8 text with one path a line") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"source {name}: the list {uri} is empty: give one path a line, below the source's root")
    return names


def _check_below_root(name: str, source: Source, input_name: str, origin: str) -> None:
    if input_name.startswith("/") or "://" in input_name or not {"", ".", ".."}.isdisjoint(input_name.split("/")):
        raise ValueError(
            f"source {name}: {input_name!r}, {origin}, is no path below the root {source.root}: "
            "leave out the root, and . and .."
        )


def _look_up(name: str, source: Source, names: list[str], origin: str) -> Found:
    """Files by their exact names."""
    base = _base(name, source)
    for input_name in names:
        _check_below_root(name, source, input_name, origin)
    unique = [*dict.fromkeys(names)]

    def look(input_name: str) -> Stat | None:
        try:
            return storage.stat(storage.join(base, input_name))
        except FileNotFoundError:
            return None

    found = dict(zip(unique, _at_once(look, unique), strict=True))
    missing = [input_name for input_name, file in found.items() if file is None]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(f"source {name}: no such file: {storage.join(base, missing[0])}{more}, {origin}")
    return {input_name: file for input_name, file in found.items() if file is not None}


def _at_once(function: Callable[..., T], items: "list[Any]") -> list[T]:
    """The function of each item, in order; requests run side by side."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(function, items))
