"""`gristmill verify`: every listed file, every digest, and the conservation law, from the dataset alone.

Files are read once, a few at a time; memory holds one ledger and one shard a thread, and the places of validation
documents.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import yaml
from numpy.typing import NDArray

from pipeline.pack.index import KINDS, fingerprint, index_kind, partition
from pipeline.pack.verify.file_checks import (
    Claims,
    Faults,
    check_claims,
    check_index,
    check_ledger,
    check_near,
    check_shard,
)
from pipeline.pack.verify.invariants import check_conservation, check_digests
from schemas.arrow import FILES, INPUTS, SHARDS
from schemas.dataset import Dataset, DatasetError, open_dataset
from schemas.generation import FileRef, Group, SplitCount
from schemas.manifest import shard_group
from schemas.recipe import Recipe
from schemas.text_format import plural

__all__ = ["verify", "verify_lines"]


def verify(dataset: str, generation: int | None = None, threads: int | None = None) -> dict[str, Any]:
    """Check a generation; returns what it holds and `faults`, each with the file and what differs.

    A number is None where not every file that it is the sum of could be read.
    Raises DatasetError only where there is no manifest to check.
    """
    opened = open_dataset(dataset, generation)
    manifest = opened.manifest
    check = Check(opened)
    check.tables()
    if check.whole:
        with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
            check.files(pool)
        check_conservation(check.faults, manifest, check.inputs, check.source_rows, check.unread)
        check_digests(check.faults, dataset, manifest, check.shards, check.listed, check.inputs)
    in_use = check.in_use.values()
    counted = check.whole and not check.unread
    return {
        "generation": manifest.generation,
        "digest": manifest.digests.generation,
        "order": manifest.digests.order,
        "records_read": check.records_read if counted else None,
        "kept": check.records_read - sum(check.dropped.values()) if counted else None,
        "dropped": dict(sorted(check.dropped.items())) if counted else None,
        "shards": len(in_use) if check.whole else None,
        "tokens": sum(row["tokens"] for row in in_use) if check.whole else None,
        "faults": [{"file": path, "fault": fault} for path, fault in sorted(check.faults.found)],
    }


def verify_lines(result: dict[str, Any]) -> list[str]:
    """The result for a terminal."""
    lines = [f"generation {result['generation']}  digest {result['digest']}", f"order {result['order']}"]
    holds = []
    if result["records_read"] is not None:
        holds.append(f"{plural(result['records_read'], 'record')} read, {result['kept']:,} kept")
    if result["shards"] is not None:
        holds.append(f"{plural(result['shards'], 'shard')}, {plural(result['tokens'], 'token')}")
    faults = [f"FAULT {each['file']}: {each['fault']}" for each in result["faults"]]
    end = plural(len(faults), "fault") if faults else "everything agrees"
    return [*lines, *filter(None, ["; ".join(holds)]), *faults, end]


class Check:
    """One generation being checked."""

    def __init__(self, opened: Dataset) -> None:
        self.opened, self.dataset, self.manifest = opened, opened.uri, opened.manifest
        self.faults = Faults()
        self.whole = False  # all three tables were read
        self.in_use: dict[int, dict[str, Any]] = {}  # shard number: its row
        self.records_read = 0
        self.dropped: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._compare_index = True  # every ledger and shard could be read
        self._expected: dict[str, list[int]] = {}  # index file: rows and fingerprint that it should have
        self.source_rows: Counter[str] = Counter()
        self.unread: set[str] = set()  # sources with a ledger that could not be read

    # ---------------------------------------------------------------- tables

    def tables(self) -> None:
        """Read the tables and their schemas."""
        tables = self.manifest.tables
        try:
            shards, files, self.inputs = self.opened.shard_table, self.opened.file_table, self.opened.input_table
        except (DatasetError, OSError, pa.ArrowException) as error:
            self.faults.add("manifest", str(error))
            return
        for file, table, schema in (
            (tables.shards, shards, SHARDS),
            (tables.files, files, FILES),
            (tables.inputs, self.inputs, INPUTS),
        ):
            if not table.schema.equals(schema):
                self.faults.add(file.path, f"schema differs: {table.schema}")
                return
        self.shards = shards
        self.in_use = {n: row for n, row in enumerate(shards.to_pylist()) if row["retired_in"] is None}
        self.listed = self.opened.file_refs
        self.whole = True

    # ---------------------------------------------------------------- files

    def files(self, pool: ThreadPoolExecutor) -> None:
        """Read every file once and compare what they say of each other."""
        groups = list(enumerate(self.manifest.groups))
        self._near = {path.split("/")[2]: path for path in (file.path for file in self.listed) if "/near/" in path}
        others = self.listed[len(groups) :]
        index = [file for file in others if file.path.startswith(("index/documents/", "index/urls/"))]
        self._digits = {kind: self._digits_of(index, kind) for kind in KINDS}
        shards: dict[str, list[int]] = {}
        for number, row in self.in_use.items():
            shards.setdefault(shard_group(row["path"], row["source"]), []).append(number)
        families: dict[str, list[Claims | None]] = {}
        checked = pool.map(lambda each: self._group(each[0], each[1], shards), groups)
        for (_, group), claims in zip(groups, checked, strict=True):
            families.setdefault(f"g{group.generation}-all-{group.source}", []).append(claims)
        known = {*families, *(f"g{group.generation}-{group.number:05d}" for _, group in groups)}
        for key in sorted(shards.keys() - known):
            self.faults.add(self.in_use[shards[key][0]]["path"], f"no group {key} in the plan")
        for key, parts in families.items():
            self._family(pool, shards.get(key, []), parts)
        list(pool.map(self._index_file, index))
        self._missing_index()
        list(pool.map(self._other, [file for file in others if not file.path.startswith("index/")]))
        for path in self._near.values():
            self.faults.add(path, "no group has this near index")

    def _group(self, ledger: int, group: Group, shards: dict[str, list[int]]) -> Claims | None:
        """Check a group's ledger, its train shards and its near index; returns the rest of the ledger's claims.

        None where the ledger is unreadable: then nobody knows what its shards and the index should hold.
        """
        file = self.listed[ledger]
        facts = check_ledger(self.faults, self.dataset, file, ledger, group.source)
        key = f"g{group.generation}-{group.number:05d}"
        mine = shards.get(key, [])
        if facts is None:
            self._compare_index = False
            with self._lock:
                self.unread.add(group.source)
            for number in mine:
                self._shard(number, None)
            self._near_file(key, None)
            return None
        faults = self.faults
        rows = sum(self.manifest.parts[part].rows for part in group.parts)
        faults.differ(file.path, "number of rows", facts.records_read, rows)
        faults.differ(file.path, "records read, by the manifest,", group.records_read, facts.records_read)
        faults.differ(file.path, "kept records, by the manifest,", group.kept, len(facts.claims.row))
        faults.differ(file.path, "dropped records, by the manifest,", group.dropped, dict(facts.dropped))
        counts = {split: SplitCount(**count) for split, count in facts.splits.items()}
        faults.differ(file.path, "what is kept by split, by the manifest,", group.splits, counts)
        with self._lock:
            self.records_read += facts.records_read
            self.dropped.update(facts.dropped)
            self.source_rows[group.source] += facts.records_read
        self._expect("urls", facts.urls)
        self._near_file(key, facts.claims.doc_ids)
        train = np.isin(facts.claims.shard, mine)
        claims = facts.claims.take(train)
        for number in mine:
            self._shard(number, claims)
        return facts.claims.take(~train)

    def _near_file(self, key: str, kept: NDArray[np.uint8] | None) -> None:
        with self._lock:
            names = [name for name in self._near if name.startswith(f"{key}-")]
            path = self._near.pop(names[0]) if names else None
        if path is not None:
            file = next(file for file in self.listed if file.path == path)
            check_near(self.faults, self.dataset, file, kept)
        elif kept is not None and len(kept):
            self.faults.add(f"index/near/{key}-*", f"missing for {plural(len(kept), 'kept document')}")

    def _family(self, pool: ThreadPoolExecutor, numbers: Sequence[int], parts: Sequence[Claims | None]) -> None:
        """Check a source's validation shards against the claims of all its groups."""
        known = [part for part in parts if part is not None]
        claims = Claims.join(known) if len(known) == len(parts) else None
        list(pool.map(lambda number: self._shard(number, claims), numbers))
        if known:
            self._unclaimed(Claims.join(known), numbers)

    def _shard(self, number: int, claims: Claims | None) -> None:
        """Check a shard, and its rows against the claims on it where they are known."""
        row = self.in_use[number]
        shard = check_shard(self.faults, self.dataset, row, self.manifest.tokenizer)
        if shard is None or claims is None:
            self._compare_index = False
        else:
            packed = check_claims(self.faults, row["path"], shard, claims.take(claims.shard == number))
            self._expect("documents", packed)

    def _unclaimed(self, claims: Claims, numbers: Sequence[int]) -> None:
        """Ledger rows that point to no shard of their group."""
        lost = claims.take(~np.isin(claims.shard, numbers))
        for ledger in np.unique(lost.ledger):
            rows = lost.take(lost.ledger == ledger)
            self.faults.add(
                self.listed[int(ledger)].path,
                f"row {rows.ledger_row[0]} points to shard {rows.shard[0]}, which is not one of its group "
                f"({plural(len(rows.row), 'row')})",
            )

    # ---------------------------------------------------------------- indexes

    def _digits_of(self, index: Iterable[FileRef], kind: str) -> int:
        prefixes = {file.path.split("/")[2].split("-")[0] for file in index if index_kind(file.path) == kind}
        return max((0 if prefix == "all" else len(prefix) for prefix in prefixes), default=0)

    def _expect(self, kind: str, packed: bytes) -> None:
        """Add rows that the index should have."""
        for name, rows in partition(kind, packed, self._digits[kind]):
            count, total = fingerprint(kind, rows)
            with self._lock:
                entry = self._expected.setdefault(name, [0, 0])
                entry[0] += count
                entry[1] = (entry[1] + total) % 2**64

    def _index_file(self, file: FileRef) -> None:
        """Compare an index file with what ledgers and shards say."""
        name = file.path.removeprefix("index/").rsplit("-", 1)[0]
        packed = check_index(self.faults, self.dataset, file)
        with self._lock:
            expected = self._expected.pop(name, [0, 0])
        count, total = fingerprint(name.split("/")[0], packed)
        if not self._compare_index or not packed:
            return
        if count != expected[0]:
            self.faults.add(file.path, f"{plural(count, 'row')}, ledgers and shards have {expected[0]:,} for it")
        elif total != expected[1]:
            self.faults.add(file.path, "its rows are not those of the ledgers and shards")

    def _missing_index(self) -> None:
        for name, (count, _) in sorted(self._expected.items()):
            if count and self._compare_index:
                self.faults.add(f"index/{name}-*", f"missing for {plural(count, 'row')}")

    def _other(self, file: FileRef) -> None:
        """The tokenizer and the recipe."""
        data = self.faults.read(self.dataset, file)
        if data is None:
            return
        if file.path == self.manifest.tokenizer.path:
            self.faults.differ(file.path, "sha256", file.sha256, self.manifest.tokenizer.sha256)
        elif file.path.startswith("recipe-"):
            try:
                found = Recipe.model_validate(yaml.safe_load(data)).digest()
            except (yaml.YAMLError, pydantic.ValidationError) as error:
                self.faults.add(file.path, f"not a recipe: {' '.join(str(error).split())}")
                return
            self.faults.differ(file.path, "recipe digest", found, self.manifest.digests.recipe)
