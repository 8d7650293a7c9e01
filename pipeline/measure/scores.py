"""Scores that were made elsewhere, joined as signals: an LLM judge's, a GPU classifier's, a spreadsheet's.

A recipe's `scores: {judge: {file: judge.parquet, key: url, column: score}}` gives the signal `scores.judge`. The file
is Parquet or JSONL, a row a document, found by its doc_id (32 hex digits or 16 bytes, as before repeats are resolved),
its record id or its URL. A key that comes twice in the file is refused; a document without a row has no score (null),
which breaks no rule, or the recipe's `missing`; a row without a document does nothing.
"""

import functools
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.kernel_digest import kernel_digest
from pipeline.measure.assets import asset_path
from pipeline.measure.signal_group import Batch, Measure, SignalGroup
from schemas.recipe import Scores

__all__ = ["score_groups"]

GZIP_MAGIC = b"\x1f\x8b"


def score_groups(scores: Mapping[str, Scores]) -> list[SignalGroup]:
    """A group for each of a recipe's scores, called `scores.NAME` as its signal is."""
    return [
        SignalGroup(
            name=f"scores.{name}",
            version=kernel_digest(["pipeline.measure.scores"]),
            signals={f"scores.{name}": f"column {each.column} of {Path(each.file).name}, by {each.key}"},
            setup=functools.partial(_setup, f"scores.{name}"),
            view="stored",
            reads=(each.key,),
            options=each.model_dump() | {"file": None},
            assets=("file",),
        )
        for name, each in sorted(scores.items())
    ]


def _setup(signal: str, options: Mapping[str, Any]) -> Measure:
    """Load the table of scores, 24 bytes a row and its keys."""
    scores = Scores(**options)
    keys, values = read_scores(scores)

    def measure(batch: Batch) -> dict[str, Any]:
        wanted = batch.column(scores.key)
        places = pc.index_in(wanted, value_set=keys, skip_nulls=True)
        found = values.take(places)
        if scores.missing is not None:
            found = pc.fill_null(found, scores.missing)
        return {signal: found}

    return measure


def read_scores(scores: Scores) -> tuple[pa.Array, pa.DoubleArray]:
    """(keys, values) of a file, checked. Raises ValueError, in one line, for a file that cannot be joined."""
    table = _read(scores)
    keys, values = table[scores.key_column or scores.key], table[scores.column]
    try:
        values = values.cast(pa.float64()).combine_chunks()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{scores.file}: column {scores.column} holds what is not a number: {error}") from None
    keys = _ids(scores, keys) if scores.key == "doc_id" else _strings(scores, keys)
    if keys.null_count:
        raise ValueError(f"{scores.file}: row {int(np.flatnonzero(keys.is_null().to_numpy(False))[0])} has no key")
    if pc.any(pc.invert(pc.is_finite(values))).as_py():
        row = int(np.flatnonzero(~pc.fill_null(pc.is_finite(values), True).to_numpy(False))[0])
        raise ValueError(f"{scores.file}: row {row} has the score {values[row].as_py()}: give a number, or null")
    counts = pc.value_counts(keys)
    if len(counts) < len(keys):
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        key = repeated["values"].hex() if isinstance(repeated["values"], bytes) else repeated["values"]
        raise ValueError(f"{scores.file}: {key} has {repeated['counts']} rows: a document needs one score")
    return keys, values


def _read(scores: Scores) -> pa.Table:
    """The two columns of a Parquet or JSONL file."""
    path = asset_path(scores.file)
    wanted = [scores.key_column or scores.key, scores.column]
    head = path.open("rb").read(4)
    try:
        if head == b"PAR1":
            table = pq.read_table(path, columns=[name for name in wanted if name in pq.read_schema(path).names])
        else:
            table = _read_lines(path, head.startswith(GZIP_MAGIC), wanted)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{scores.file}: neither Parquet nor JSONL: {' '.join(str(error).split())}") from None
    for name in wanted:
        if name not in table.column_names:
            raise ValueError(f"{scores.file}: there is no column {name}: name it as key_column or column")
    return table


def _read_lines(path: Path, is_gzip: bool, wanted: list[str]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    seen: set[str] = set()
    with gzip.open(path, "rt", encoding="utf-8") if is_gzip else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            seen.update(row)
            for name, values in columns.items():
                values.append(row.get(name))
    return pa.table({name: values for name, values in columns.items() if name in seen or not seen})


def _strings(scores: Scores, keys: pa.ChunkedArray) -> pa.Array:
    try:
        return keys.cast(pa.string()).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"{scores.file}: the keys are {keys.type}: text is expected") from None


def _ids(scores: Scores, keys: pa.ChunkedArray) -> pa.Array:
    values = keys.to_pylist()
    try:
        raw = [bytes.fromhex(key) if isinstance(key, str) else key for key in values]
        return pa.array(raw, pa.binary(16))
    except (ValueError, TypeError, pa.ArrowException):
        raise ValueError(f"{scores.file}: a key is not a doc_id: 32 hex digits or 16 bytes are expected") from None
