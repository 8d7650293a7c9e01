"""What a decision changed against the one before: `gristmill decide`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ingest.receipts import PartRef
from schemas import storage
from schemas.text_format import plural

__all__ = ["Changes", "decision_diff"]

EXAMPLES = 3  # of each kind of change


@dataclass
class Changes:
    """What a decision changed, by the rule that drops or dropped."""

    rows: int = 0
    kept_before: int = 0
    kept_after: int = 0
    lost: Counter[str] = field(default_factory=Counter)  # kept before, now dropped by
    gained: Counter[str] = field(default_factory=Counter)  # dropped before by, now kept
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)  # dropped by one, now by another
    new_kept: int = 0  # in parts that the decision before did not have
    new_rows: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)  # "lost RULE" or "gained RULE": URLs

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "kept_before": self.kept_before,
            "kept_after": self.kept_after,
            "lost": dict(sorted(self.lost.items())),
            "gained": dict(sorted(self.gained.items())),
            "moved": [[before, after, number] for (before, after), number in sorted(self.moved.items())],
            "new": {"rows": self.new_rows, "kept": self.new_kept},
            "examples": dict(sorted(self.examples.items())),
        }

    def lines(self) -> list[str]:
        """For people."""
        if not (self.lost or self.gained or self.moved or self.new_rows):
            return ["no verdict changes"]
        lines = [f"kept {self.kept_before:,} before, {self.kept_after:,} now ({self.kept_after - self.kept_before:+,})"]
        for sign, word, counts in (("-", "lost", self.lost), ("+", "gained", self.gained)):
            for rule, number in counts.most_common():
                cause = "now dropped by" if sign == "-" else "no longer dropped by"
                lines.append(f"  {sign}{number:,} {cause} {rule}")
                lines += [f"      {url}" for url in self.examples.get(f"{word} {rule}", [])]
        for (before, after), number in self.moved.most_common(10):
            lines.append(f"   {number:,} dropped by {after}, before by {before}")
        if self.new_rows:
            lines.append(f"  {self.new_kept:,} kept of {plural(self.new_rows, 'record')} not decided before")
        return lines


def decision_diff(before: Sequence[str], after: Sequence[str], parts: Sequence[PartRef]) -> Changes:
    """Compare two decisions over the same parts; `before` and `after` are URIs of verdict files in part order.

    `before` may end earlier: what comes after it is counted as new. Raises ValueError where a part has another
    number of rows.
    """
    changes = Changes()
    for index, part in enumerate(parts):
        new = _verdicts(after[index])
        if index >= len(before):
            changes.new_rows += new.num_rows
            changes.new_kept += pc.sum(new["kept"].cast(pa.int64())).as_py() or 0
            continue
        old = _verdicts(before[index])
        if old.num_rows != new.num_rows:
            raise ValueError(
                f"{before[index]} has {old.num_rows} rows, {after[index]} has {new.num_rows}: not of the same part"
            )
        _compare_part(changes, old, new, part)
    return changes


def _verdicts(uri: str) -> pa.RecordBatch:
    """Fate of each row of a part: `kept`, and the rule or an empty string.

    One batch, for its columns are plain arrays: pyarrow 25 ends the process where `indices_nonzero` meets a chunked
    array without chunks, which a part without rows would give.
    """
    with storage.open_input(uri) as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    kept, rule = (table[name].combine_chunks() for name in ("kept", "rule"))
    return pa.record_batch({"kept": kept, "rule": pc.fill_null(rule, "")})


def _compare_part(changes: Changes, old: pa.RecordBatch, new: pa.RecordBatch, part: PartRef) -> None:
    changes.rows += old.num_rows
    changes.kept_before += pc.sum(old["kept"].cast(pa.int64())).as_py() or 0
    changes.kept_after += pc.sum(new["kept"].cast(pa.int64())).as_py() or 0
    differs = pc.indices_nonzero(pc.or_(pc.not_equal(old["kept"], new["kept"]), pc.not_equal(old["rule"], new["rule"])))
    wanted: dict[int, str] = {}
    pairs = zip(
        differs.to_pylist(), old["rule"].take(differs).to_pylist(), new["rule"].take(differs).to_pylist(), strict=True
    )
    for row, was, now in pairs:
        if was and now:
            changes.moved[was, now] += 1
            continue
        counts, kind = (changes.lost, f"lost {now}") if now else (changes.gained, f"gained {was}")
        counts[now or was] += 1
        if len(changes.examples.setdefault(kind, [])) + list(wanted.values()).count(kind) < EXAMPLES:
            wanted[row] = kind
    for row, name in _names(part, sorted(wanted)):
        changes.examples[wanted[row]].append(name)


def _names(part: PartRef, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
    """What to call some rows of a part: the URL, or where the record stands."""
    if not rows:
        return
    with storage.open_input(part.uri) as source, pa.ipc.open_file(source) as reader:
        fields = sorted(reader.schema.get_field_index(name) for name in ("url", "input", "position"))
    first = 0
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    with storage.open_input(part.uri) as source, pa.ipc.open_file(source, options=options) as reader:
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            for row in rows:
                if first <= row < first + batch.num_rows:
                    entry = batch.slice(row - first, 1).to_pylist()[0]
                    yield row, entry["url"] or f"{entry['input']} at {entry['position']}"
            first += batch.num_rows
