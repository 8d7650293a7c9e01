"""The documents of a decision as a worker sees them: parts, final doc_ids, what the rules say, copies, order."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipeline.select.context import Decision
from pipeline.select.decision.survivor_order import order_keys, preference_keys
from pipeline.select.exact.record_identity import final_ids
from pipeline.select.files import read_table
from pipeline.select.near.bands import band_hashes
from pipeline.select.rows import SHIFT, address
from pipeline.select.rules import Judged, judge
from schemas import storage

__all__ = ["COPIES", "Documents"]

# Sparse: the rows whose text equals an earlier one's, and the address of the first such document.
COPIES = pa.schema([pa.field("row", pa.uint32(), nullable=False), pa.field("first", pa.uint64(), nullable=False)])
KEPT_TABLES = 512
SAMPLING = np.uint64(0x9E3779B97F4A7C15)


class Documents:
    """Opened in a worker's `setup`; reads only what earlier steps of the decision have written."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.recipe = decision.recipe()
        self.rules, self.failed = decision.rules, decision.failed
        self.parts = decision.parts()
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()

    def identities(self, part: int) -> pa.Table:
        """Rows of a part that repeat a record (records.IDENTITIES)."""
        return self._table("identities", part)

    def judged(self, part: int) -> Judged:
        """What each row of a part comes to by itself."""
        return judge(self.parts.open(part), self.identities(part), self.rules, self.failed)

    def copies(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a part whose text equals an earlier document's, and that document's address."""
        table = self._table("copies", part)
        return table["row"].to_numpy().astype(np.int64), table["first"].to_numpy()

    def representatives(self, part: int) -> np.ndarray:
        """Rows of a part that passed the rules and are the first with their text: what is compared for likeness."""
        chosen = self.judged(part).passed
        chosen[self.copies(part)[0]] = False
        return np.flatnonzero(chosen)

    def band_hashes(self, part: int, one_in: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Addresses (n) of the documents to compare, or of a sample of them, and their band hashes (bands, n)."""
        assert self.decision.bands is not None, "no near duplicates are looked for"
        columns = self.parts.open(part)
        rows = self.representatives(part)
        rows = rows[columns.valid("signature")[rows]]
        if one_in > 1:
            rows = rows[(address(part, rows) * SAMPLING >> SHIFT) % np.uint64(one_in) == 0]
        signatures_NK = columns.fixed("signature", rows).view("<u4")
        return address(part, rows), band_hashes(signatures_NK, self.decision.bands)

    def order(self, addresses: np.ndarray) -> list[np.ndarray]:
        """Keys by which one document is kept before another, most significant first."""
        prefer = self.recipe.prefer
        keys, ids = np.empty((len(prefer), len(addresses))), np.empty((len(addresses), 2), np.uint64)
        for number, rows, places in self.parts.by_part(addresses):
            columns = self.parts.open(number)
            keys[:, places] = preference_keys(columns, prefer, rows)
            ids[places] = final_ids(columns, self.identities(number), rows)
        return order_keys(keys, ids, addresses)

    def _table(self, kind: str, part: int) -> pa.Table:
        """A sparse table of a part; the ones used last are kept."""
        return self._kept(f"{kind}/{part}", lambda: read_table(self.decision.tmp(kind, f"{part}.arrow")))

    def _kept(self, name: str, read: Callable[[], pa.Table]) -> pa.Table:
        if name not in self._tables:
            self._tables[name] = read()
            if len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(name)
        return self._tables[name]

    def recorded(self) -> "pa.Table | None":
        """doc_id (sorted) and split of an earlier generation's documents; None without one."""
        if not self.decision.recorded:
            return None
        path = storage.local_path(self.decision.uri("recorded.arrow"))
        if path is None:
            return self._kept("recorded", lambda: read_table(self.decision.uri("recorded.arrow")))
        return self._kept("recorded", lambda: pa.ipc.open_file(pa.memory_map(str(path))).read_all())
