"""What one run is given, and what each of its steps hands to the next. `curate.py` is the way through them.

Job --plan--> Planned --ingest--> Measured --decide--> Decided --pack--> the next generation
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

import apache_beam as beam

from pipeline.ingest.parts import stage_versions
from pipeline.ingest.receipts import PartRef, PieceReceipt, Receipt, Task
from pipeline.measure.registry import load_registry
from pipeline.select.decision.funnel import Funnel
from pipeline.select.select import SELECT_VERSION
from schemas.dataset import Dataset
from schemas.recipe import Recipe

__all__ = ["Decided", "Job", "Measured", "Planned", "Unmeasured"]


@dataclass(frozen=True)
class Job:
    """One recipe, where its dataset goes, and how its pipelines run."""

    recipe: Recipe
    output: str  # the dataset's URI
    work: str  # parts and decisions; may be shared by datasets
    new_pipeline: Callable[[int], beam.Pipeline]  # given the bytes that it has to go through
    memory_bytes: int  # that shuffles may take on this machine
    stream: TextIO | None = None  # progress is shown here; None: nowhere
    progress: str | None = None  # local folder where workers write their progress; None: none do

    def say(self, line: str) -> None:
        """Show the user one line."""
        if self.stream:
            print(line, file=self.stream, flush=True)

    def code(self) -> dict[str, str]:
        """What decides the dataset besides inputs and recipe; pack adds its own versions."""
        return {**stage_versions(self.recipe), **load_registry(self.recipe).identities(), "select": SELECT_VERSION}


@dataclass(frozen=True)
class Planned:
    """What a run would do."""

    tasks: list[Task]
    done: set[str]  # keys of tasks whose parts exist, with every measure that the recipe asks for
    unmeasured: dict[str, "Unmeasured"]  # by key, tasks whose texts are there and some measures are not
    previous: Dataset | None  # the dataset's newest generation


@dataclass(frozen=True)
class Unmeasured:
    """What is to be measured of stored texts; nothing of the crawl is read for it."""

    text_bytes: int
    groups: tuple[str, ...]  # signal groups


@dataclass(frozen=True)
class Measured:
    """Every document that was read, with its measures: numbered parts and their receipts."""

    parts: list[PartRef]
    receipts: list[Receipt]

    def pieces(self) -> Iterator[tuple[str, PieceReceipt]]:
        """Every piece read, with its source."""
        return ((receipt.source, piece) for receipt in self.receipts for piece in receipt.pieces)


@dataclass(frozen=True)
class Decided:
    """The verdicts over all parts."""

    decision: str  # digest; names the folder of verdicts
    verdicts: list[str]  # URIs, a file a part
    funnel: Funnel
    seconds: float

    def sha256(self) -> dict[int, str]:
        """The sha256 of each file of verdicts, by the number of its part."""
        return {file.part: file.sha256 for file in self.funnel.verdicts}
