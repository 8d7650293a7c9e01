"""The files of a source: what its inputs name, of which format each is, and which are no data."""

import gzip
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pipeline.ingest.bytes.compression import EXTENSIONS
from schemas import storage
from schemas.recipe import Source
from schemas.storage import Stat
from schemas.text_format import plural

__all__ = ["at_once", "find_files", "format_of", "formats_of", "glob_pattern", "is_side_file", "printable"]

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
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
}
# What datasets and crawls keep beside their data: descriptions, checksums, indexes, licences, caches.
SIDE_FILE = re.compile(
    r"dataset_infos?\.json|dataset_dict\.json|state\.json|metadata\.json|datapackage\.json|croissant\.json"
    r"|(?:cache|tmp)-?[^/]*\.arrow|indices\.arrow"
    r"|(?:readme|licen[cs]e|notice|copying|changelog|citation|contributing)(?:[._-][^/]*)?"
    r"|(?:md5|sha1|sha256|sha512|b2)?sums?(?:\.txt)?|checksums?(?:\.[^/]*)?|manifest(?:\.(?:json|txt))?"
    r"|[^/]*\.(?:md5|sha1|sha256|sha512|crc|crc32|asc|sig|idx|cdxj?(?:\.gz)?|md|rst|py|ya?ml|lock)"
    r"|[^/]*\.paths(?:\.gz)?",
    re.IGNORECASE,
)
WILD = re.compile(r"[*?\[]")
REQUESTS_AT_ONCE = 16  # a list of a crawl's 90,000 paths is looked up in minutes


def format_of(name: str) -> str | None:
    """Return the format that a file's name tells, one of the recipe's; None if it tells nothing."""
    lowered = name.lower()
    for extension in EXTENSIONS:
        lowered = lowered.removesuffix(extension)
    return next((form for ending, form in FORMATS.items() if lowered.endswith(ending)), None)


def formats_of(name: str, source: Source, names: list[str]) -> list[str]:
    """Return the format of each of a source's files. Raises ValueError for a name that tells none."""
    if source.format != "auto":
        return [source.format] * len(names)
    formats = [format_of(input_name) for input_name in names]
    for input_name, form in zip(names, formats, strict=True):
        if form is None:
            raise ValueError(
                f"source {name}: {input_name} has none of the endings {', '.join(FORMATS)} (and "
                f"{', '.join(EXTENSIONS)} behind it): set the source's format, or narrow its inputs, as in "
                "**/*.warc.gz"
            )
        # A note beside a crawl is no document.
        if form == "text" and set(formats) - {"text"}:
            raise ValueError(
                f"source {name}: {input_name} is plain text among other files: narrow the source's inputs, as in "
                "**/*.warc.gz, or give the texts a source of their own"
            )
    return [form for form in formats if form is not None]


def is_side_file(name: str) -> bool:
    """Whether a file that a glob matches is about the data beside it and holds none, by its name."""
    return SIDE_FILE.fullmatch(name.rpartition("/")[2]) is not None


def find_files(name: str, source: Source) -> Found:
    """Return every file that a source's inputs name, each once.

    Raises ValueError for a glob that matches nothing and for a missing file.
    """
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
    num_side_files = 0
    for file in listed[folder]:
        below = _name_below(base, file.uri)
        input_name = printable(below)
        if matches(input_name):
            num_side_files += is_side_file(input_name)
            if not is_side_file(input_name):
                found[input_name] = Stat(storage.join(base, below), file.size, file.tag)
    if not found:
        if num_side_files:
            raise ValueError(
                f"source {name}: all of the {plural(num_side_files, 'file')} that {pattern!r} matches below {folder} "
                "are side files by their names (checksums, descriptions): name a file itself to have it read"
            )
        deeper = glob_pattern(f"**/{pattern}").fullmatch
        num_deeper = sum(1 for file in listed[folder] if deeper(printable(_name_below(base, file.uri))))
        found_below = f"'**/{pattern}' matches {num_deeper:,} of them" if num_deeper else "check root and inputs"
        raise ValueError(
            f"source {name}: {pattern!r} matches no file: {plural(len(listed[folder]), 'file')} below {folder}; "
            f"{found_below} (* stays within a folder, ** looks into all below)"
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


def printable(name: str) -> str:
    """A file name whose bytes are not UTF-8 with those bytes escaped, as in `caf\\xe9.jsonl`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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

    found = dict(zip(unique, at_once(look, unique), strict=True))
    missing = [input_name for input_name, file in found.items() if file is None]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(f"source {name}: no such file: {storage.join(base, missing[0])}{more}, {origin}")
    return {input_name: file for input_name, file in found.items() if file is not None}


def at_once(function: Callable[..., T], items: "list[Any]") -> list[T]:
    """The function of each item, in order; requests run side by side."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(function, items))
