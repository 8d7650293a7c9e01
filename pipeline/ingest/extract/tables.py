"""A table's row on one line, a tab between two cells."""

import itertools
from dataclasses import dataclass, field

from pipeline.ingest.extract.blocks import Block

__all__ = ["Row", "join_row"]

_MAX_CELL_CHARS = 1000  # a longer cell belongs to a table that lays out a page


@dataclass(slots=True)
class Row:
    """An open row of a table: its element, and where the blocks of its cells begin."""

    element: int
    gap: int  # before the row
    cells: list[int] = field(default_factory=list)


def join_row(row: Row, blocks: list[Block]) -> bool:
    """Make the blocks of a row one block, unless a cell holds more than one; whether it is one now.

    Line numbers beside a listing go: a cell of consecutive numbers, one a line, whose neighbour has as many lines.
    """
    bounds = [*row.cells, len(blocks)]
    if len(row.cells) < 2 or any(end - start > 1 for start, end in itertools.pairwise(bounds)):
        return False
    cells = [blocks[start:end] for start, end in itertools.pairwise(bounds)]
    filled = [cell for cell in cells if cell]
    if len(filled) > 1 and any(cell[0].is_pre for cell in filled):
        kept = [cell[0] for cell in filled if not _is_numbering(cell[0].text)]
        if kept:
            kept[0].gap = max(kept[0].gap, filled[0][0].gap)
            blocks[row.cells[0] :] = kept
        return False
    if len(filled) < 2 or any(len(cell[0].text) > _MAX_CELL_CHARS for cell in filled):
        return False
    text = "\t".join(cell[0].text.replace("\n", " ") if cell else "" for cell in cells).strip("\t")
    parts = [cell[0] for cell in filled]
    chars, link_chars = sum(block.chars for block in parts), sum(block.link_chars for block in parts)
    blocks[row.cells[0] :] = [Block(text, row.element, row.gap, chars, link_chars)]
    return True


def _is_numbering(text: str) -> bool:
    lines = text.split()
    if not (lines[0].isascii() and lines[0].isdigit()):
        return False
    first = int(lines[0])
    return lines == [str(number) for number in range(first, first + len(lines))]
