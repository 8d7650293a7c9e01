"""What every step of one decision knows: the recipe, where its files lie, and how wide the shuffles are.

Files of a decision, below WORK/select/DECISION:

    decision.json         the funnel and the verdict files; written last: a decision is complete when it exists
    parts.json            the list of parts, by which a report finds the texts too
    PART.arrow            verdicts, by position (schemas.arrow.VERDICT)
    recorded.arrow        splits of an earlier generation, sorted by doc_id
    tmp/                  deleted at the end; every file is a function of the parts and the recipe alone, so a
                          retried or orphaned worker can only write the same bytes again
        links/            rows that equal an earlier one, as one round of a shuffle found them, by part
        identities/       rows that repeat a record, and their final doc_ids, by part
        copies/           exact copies and their representatives, by part
        shingles/         shingle sets of rows that share a bucket (verify: exact), by part
        edges/            verified pairs, by band and partition
        clusters/         what became of rows that have a duplicate, by part
"""

import itertools
from dataclasses import dataclass

from pipeline.measure.resolved_rules import ResolvedRule
from pipeline.select.columns import Parts
from pipeline.select.near.bands import Bands
from pipeline.select.rows import BUCKET_ROW, EQUAL_ROW, PARTITION_BYTES, num_partitions
from schemas import storage
from schemas.recipe import Near, Recipe

__all__ = ["KINDS", "Decision", "rounds_of"]

# What is compared for equality, with a number each for the key of the shuffle.
KINDS = {"ids": 0, "records": 1, "texts": 2}


@dataclass(frozen=True)
class Decision:
    """Small and picklable: the parts themselves are listed in a file."""

    root: str
    recipe_json: str
    rows: int  # of all parts
    rules: tuple[ResolvedRule, ...]  # in the order of testing
    failed: tuple[str, ...]  # columns that say why a group of the user's own could not measure a text
    bands: Bands | None  # None: no near duplicates are looked for
    drop_at: float | None  # similarity at which documents are one; None: near duplicates are kept
    split_at: float | None  # similarity at which documents stand on one side of the split; None: equal texts
    recorded: bool = False  # there are splits of an earlier generation
    partition_bytes: int = PARTITION_BYTES
    pair_limit: int = 64  # members of a bucket up to which all pairs are verified
    bucket_limit: int = 1_000_000  # members of a bucket above which it is divided
    round_bytes: int | None = None  # rows that one pipeline may shuffle; None: all in one

    def uri(self, *names: str) -> str:
        """A file of the decision."""
        return storage.join(self.root, *names)

    def tmp(self, *names: str) -> str:
        """A file that is deleted once the decision is complete."""
        return storage.join(self.root, "tmp", *names)

    def recipe(self) -> Recipe:
        """The recipe."""
        return Recipe.model_validate_json(self.recipe_json)

    def near(self) -> Near:
        """The near section; its defaults where only the split needs near duplicates."""
        return self.recipe().near or Near()

    def parts(self) -> Parts:
        """The parts, to be opened in a worker's `setup`."""
        return Parts.load(self.uri("parts.json"))

    def equal_partitions(self) -> int:
        """Partitions of a shuffle of 24-byte rows."""
        return num_partitions(self.rows, EQUAL_ROW.itemsize, self.partition_bytes)

    def band_partitions(self) -> int:
        """Partitions of a band."""
        return num_partitions(self.rows, BUCKET_ROW.itemsize, self.partition_bytes)

    def record_rounds(self) -> list[range]:
        """Rounds of partitions in which repeated records are found: two rows a document."""
        return rounds_of(self.equal_partitions(), 2 * self.rows * EQUAL_ROW.itemsize, self.round_bytes)

    def text_rounds(self) -> list[range]:
        """Rounds of partitions in which exact copies are found."""
        return rounds_of(self.equal_partitions(), self.rows * EQUAL_ROW.itemsize, self.round_bytes)

    def band_rounds(self) -> list[range]:
        """Rounds of (band, partition), numbered band * band_partitions + partition."""
        if self.bands is None:
            return []
        units = self.bands.bands * self.band_partitions()
        return rounds_of(units, self.bands.bands * self.rows * BUCKET_ROW.itemsize, self.round_bytes)


def rounds_of(units: int, total_bytes: int, limit: int | None) -> list[range]:
    """`units` partitions of about equal size, cut into the fewest runs of at most `limit` bytes each."""
    if limit is None:
        return [range(units)]
    count = min(units, max(1, -(-total_bytes // max(1, limit))))
    bounds = [units * i // count for i in range(count + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(bounds)]
