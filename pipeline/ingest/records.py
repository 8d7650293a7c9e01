"""What reading gives: one Record a ledger row, its id, and its date."""

import datetime
import functools
import re
from dataclasses import dataclass

import xxhash

__all__ = ["COUNTED_TYPES", "LEDGER_TYPES", "ConservationError", "Record", "arc_millis", "doc_id", "iso_millis"]

# Each of these gives a ledger row; "document" is a line or row of JSONL and Parquet.
LEDGER_TYPES = frozenset(
    {"response", "revisit", "resource", "conversion", "unknown", "continuation", "damage", "document"}
)
# These are counted in the receipt and give none.
COUNTED_TYPES = frozenset({"request", "warcinfo", "metadata"})


class ConservationError(RuntimeError):
    """Bytes or records are not accounted for: a fault of ours, or a file that cannot be cut where it was."""


@dataclass(slots=True)
class Record:
    """One record read, alive (with a body or a text) or already dropped (with a rule)."""

    type: str
    input: str  # input name
    position: int  # see contracts, section 1
    offset: int
    record_id: str | None = None
    url: str | None = None
    date: int | None = None  # milliseconds since 1970 UTC
    status: int | None = None  # HTTP
    mime: str | None = None  # lower-cased, without parameters; sniffed where none is declared
    charset: str | None = None  # as declared in the HTTP header, lower-cased
    body: bytes | None = None  # a page, content encoding undone
    text: str | None = None  # WET, JSONL and Parquet
    rule: str | None = None  # why it is dropped
    value: float | None = None
    threshold: float | None = None


def doc_id(source: str, record: Record) -> bytes:
    """The record's 16-byte id before repeats are resolved (contracts, section 1)."""
    if record.record_id is not None:
        name = record.record_id.encode("utf-8", "replace")
    else:
        name = b"%s\0%d\0%d" % (record.input.encode("utf-8", "surrogateescape"), record.position, record.offset)
    return xxhash.xxh3_128_digest(source.encode() + b"\0" + name)


# Not datetime.fromisoformat: what it takes differs between Python versions.
ISO_DATE = re.compile(
    r"\s*(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*([Zz]|[+-]\d\d:?\d\d)?)?)?)?\s*",
    re.ASCII,
)


@functools.lru_cache(4096)
def iso_millis(text: str) -> int | None:
    """Milliseconds since 1970 UTC of an ISO 8601 date (UTC unless it says otherwise); None if it is none."""
    match = ISO_DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    seconds = _seconds(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))
    if seconds is None:
        return None
    if zone and zone not in "Zz":
        shift = 3600 * int(zone[1:3]) + 60 * int(zone[-2:])
        seconds -= shift if zone[0] == "+" else -shift
    return 1000 * seconds + int(((fraction or "") + "000")[:3])


def arc_millis(digits: str) -> int | None:
    """Milliseconds of an ARC date, YYYYMMDDhhmm[ss]; None if it is none."""
    if len(digits) not in (12, 14):
        return None
    numbers = [int(digits[at : at + 2]) for at in range(4, len(digits), 2)]
    seconds = _seconds(int(digits[:4]), *numbers)
    return None if seconds is None else 1000 * seconds


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int = 0) -> int | None:
    """Seconds since 1970; a leap second counts as the next minute's first."""
    days = _days(year, month, day)
    if days is None or hour > 23 or minute > 59 or second > 60:
        return None
    return 86_400 * days + 3600 * hour + 60 * minute + second


@functools.lru_cache(1024)
def _days(year: int, month: int, day: int) -> int | None:
    """Days since 1970; None for a day that is not in the calendar."""
    try:
        return datetime.date(year, month, day).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        return None
