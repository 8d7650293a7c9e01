"""`gristmill explain`: one document from the archive that it was read from to its place in a shard."""

import datetime
import re
import textwrap
import unicodedata
from typing import Any

from pipeline.report.checks import Check, check_document, rules_of
from pipeline.report.find import find_clusters
from pipeline.report.labels import meaning
from pipeline.report.part_files import Parts, open_parts
from pipeline.report.sample_texts import final_texts
from schemas.dataset import Dataset, DatasetError, Place, open_dataset
from schemas.text_format import bits, number, plural

__all__ = ["explain"]

CAPTURES = 5  # of one URL that are explained in full
TEXT_LINES, TEXT_WIDTH = 12, 100
JOINERS = "\u200c\u200d"  # words of Persian and of Indian languages are written with them
ALIKE = 5  # documents that a kept one stands for
SCANNED_ROWS = 10_000_000  # rows of ledgers that are read to find them


def explain(dataset: str, work: str | None, document: str, generation: int | None = None) -> str:
    """Explain a document, named by URL, doc_id (32 hex digits) or record id; every capture of a URL.

    Raises DatasetError where nothing of that name was read, naming like URLs that were.
    """
    opened = open_dataset(dataset, generation)
    places = opened.places_of(document)
    if not places:
        raise DatasetError(_not_found(opened, document))
    parts = open_parts(opened, work, {opened.part_of(place)[0] for place in places[:CAPTURES]})
    rows = opened.rows(places)
    explained = [_explain_record(opened, parts, place, rows[place]) for place in places[:CAPTURES]]
    if len(places) > 1:
        explained.insert(
            0,
            f"{len(places):,} records of {document}" + (f"; the first {CAPTURES}:" if len(places) > CAPTURES else ":"),
        )
    return "\n\n".join(explained)


def _not_found(dataset: Dataset, document: str) -> str:
    """What to say, with the spellings of a URL that were read."""
    known = [url for url in _spellings(document) if dataset.places_of_url(url)]
    hint = (
        f"; there is {', '.join(known)}"
        if known
        else ": give the URL as the archive has it, a doc_id (32 hex digits) or a record id"
    )
    return f"{dataset.uri}: generation {dataset.manifest.generation} read nothing called {document}{hint}"


def _spellings(url: str) -> list[str]:
    """The URL with another scheme, with and without www., with and without a slash at its end."""
    bare = re.sub(r"^(https?://)?(www\.)?", "", url).rstrip("/")
    variants = [
        f"{scheme}://{www}{bare}{slash}" for scheme in ("https", "http") for www in ("", "www.") for slash in ("", "/")
    ]
    return [variant for variant in variants if variant != url]


def _explain_record(dataset: Dataset, parts: Parts, place: Place, row: dict[str, Any]) -> str:
    part, part_row = dataset.part_of(place)
    stored: dict[str, Any] | None = parts.take(part, [part_row])[1].to_pylist()[0] if part in parts else None
    lines = [str(row["url"] or row["record_id"] or row["doc_id"].hex())]
    lines += _fields(_identity(row, stored))
    lines += _verdict(dataset, row)
    if stored is None:
        lines += ["", f"  measures and text are not available: {parts.missing}"]
    elif stored["text"] is not None:
        lines += [
            "",
            *_failures(dataset, stored),
            *_checks(check_document(rules_of(dataset.manifest), stored)),
            "",
            *_text(final_texts(dataset, parts, [place])[place]),
        ]
    # What a crawl found may hold the codes that steer a terminal.
    return "\n".join(map(_printable, lines))


def _failures(dataset: Dataset, stored: dict[str, Any]) -> list[str]:
    """Why groups of the user's own could not measure the text."""
    columns = [group.failed for group in dataset.manifest.measures.values() if group.failed]
    return [f"  {name}: {stored[name]}" for name in columns if stored.get(name)]


def _fields(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<10} {value}" for name, value in pairs if value]


def _identity(row: dict[str, Any], stored: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Where it was read and what it is."""
    pairs = [("document", row["doc_id"].hex()), ("record", row["record_id"] or "")]
    pairs += [("read from", f"{row['source']}: {_place_in_file(row)}")]
    if stored is not None:
        date = _date(stored["date"]) if stored["date"] is not None else ""
        status = f"status {stored['status']}" if stored["status"] is not None else ""
        charset = f"charset {stored['charset']}" if stored["charset"] else ""
        pairs += [("answer", ", ".join(filter(None, [date, status, stored["mime"], charset])))]
    if row["num_bytes"] is not None:
        words = f"{plural(row['num_words'], 'word')}, " if row["num_words"] is not None else ""
        pairs += [("text", f"{words}{bits(row['num_bytes'])}, language {row['language'] or 'unknown'}")]
        pairs += [("edits", _edits(row, stored))]
    return pairs


def _place_in_file(row: dict[str, Any]) -> str:
    """A file of the crawl and where in it a record lies."""
    if str(row["input"]).lower().endswith((".parquet", ".pq", ".arrow", ".feather")):
        return f"{row['input']}, row {row['position']:,}"
    if not row["offset"]:
        return f"{row['input']}, from byte {row['position']:,}"
    return f"{row['input']}, {row['offset']:,} bytes into what is unpacked from byte {row['position']:,} on"


def _date(millis: int) -> str:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=millis)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _edits(row: dict[str, Any], stored: dict[str, Any] | None) -> str:
    known = f"{plural(len(stored['edits'] or []), 'edit')}, " if stored is not None else ""
    taken = row["edited_bytes"] or 0
    return (
        f"{known}{plural(abs(taken), 'byte')} {'added' if taken < 0 else 'taken away'}"
        if taken or (stored and stored["edits"])
        else ""
    )


def _verdict(dataset: Dataset, row: dict[str, Any]) -> list[str]:
    """Kept and where, or dropped and why; of a duplicate, of what."""
    if row["kept"]:
        shard = dataset.shard_table["path"][row["shard"]].as_py()
        place = f"row {row['row']} of {shard} (shard {row['shard']})"
        lines = ["", f"  KEPT in {row['split']}: {plural(row['num_tokens'], 'token')}, {place}"]
    else:
        lines = ["", f"  DROPPED in {row['stage']} by {row['rule']}{_measured(row)}"]
        lines += [f"  {meaning(row['rule'])}"] if meaning(row["rule"]) else []
    for name, title in (("duplicate_of", "duplicate of"), ("twin", "nearest duplicate")):
        if row[name] is not None and not (name == "twin" and row["twin"] == row["duplicate_of"]):
            lines.append(f"  {title} {_called(dataset, row[name])}")
    if row["cluster"] is not None and (row["cluster_size"] or 0) > 1:
        lines.append(f"  one of {row['cluster_size']:,} alike, cluster {row['cluster'].hex()}")
        lines += _others(dataset, row)
    return lines


def _others(dataset: Dataset, row: dict[str, Any]) -> list[str]:
    """Some of the documents that a kept one stands for."""
    if not row["kept"] or dataset.manifest.funnel.records_read > SCANNED_ROWS:
        return []
    places = find_clusters(dataset, [row["cluster"]], ALIKE)[row["cluster"]]
    rows = [other for other in dataset.rows(places).values() if not other["kept"]]
    return [
        f"    stands for {other['url'] or other['record_id']} ({other['rule']}, similarity {number(other['value'])})"
        for other in rows
    ]


def _measured(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return ""
    if row["stage"] in ("exact", "near"):
        return f": similarity {number(row['value'])}" + (
            f", threshold {number(row['threshold'])}" if row["threshold"] is not None else ""
        )
    return f": measured {number(row['value'])}" + (
        f", threshold {number(row['threshold'])}" if row["threshold"] is not None else ""
    )


def _called(dataset: Dataset, doc_id: bytes) -> str:
    """A document by its URL, with its fate."""
    places = dataset.places_of_id(doc_id) or list(dataset.places_of_ids([doc_id]).values())
    if not places:
        return f"{doc_id.hex()} (of an earlier generation)"
    row = dataset.rows(places[:1])[places[0]]
    fate = "kept" if row["kept"] else f"dropped by {row['rule']}"
    return f"{row['url'] or row['record_id'] or ''} {doc_id.hex()} ({fate})".strip()


def _checks(checks: list[Check]) -> list[str]:
    """Every rule of the recipe in the order of testing, measured against its bound."""
    if not checks:
        return ["  the recipe has no rules"]
    width = max(len(check.rule) for check in checks)
    lines = [f"  {'rule':<{width}}  {'measured':>10}  bound"]
    first = next((check.rule for check in checks if check.fails), None)
    for check in checks:
        mark = "" if not check.fails else "  FAILS" if check.rule == first else "  would fail too"
        lines.append(f"  {check.rule:<{width}}  {_value(check.value):>10}  {check.bound}{mark}")
    return lines


def _value(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


def _text(text: str) -> list[str]:
    """The beginning of the final text."""
    lines = []
    for line in text.splitlines():
        lines += textwrap.wrap(line, TEXT_WIDTH) or [""]
        if len(lines) > TEXT_LINES:
            return [f"  | {line}" for line in lines[:TEXT_LINES]] + ["  | ...  (--text prints all of it)"]
    return [f"  | {line}" for line in lines]


def _printable(line: str) -> str:
    """Without what would move a terminal's cursor, change its colours or turn its writing direction."""
    return "".join(map(_printable_letter, line)).rstrip()


def _printable_letter(letter: str) -> str:
    if letter.isprintable() or letter in JOINERS:
        return letter
    # Marks without a shape of their own (soft hyphens, writing direction) would only leave gaps.
    return " " if letter.isspace() else "" if unicodedata.category(letter) == "Cf" else "\ufffd"
