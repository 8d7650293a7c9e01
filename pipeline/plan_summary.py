"""How much work a run would be, from what is planned and what is already done."""

from collections.abc import Sequence
from typing import Any

from pipeline.ingest.receipts import Task
from schemas.text_format import bits

__all__ = ["plan_lines", "plan_summary"]


def plan_summary(output: str, tasks: Sequence[Task], read: set[str], generation: int | None) -> dict[str, Any]:
    """Files, bytes and parts a source, and how much of it is already read: `read` are the keys of such tasks."""
    sources: dict[str, dict[str, int]] = {}
    for task in tasks:
        row = sources.setdefault(task.source, dict.fromkeys(("files", "bytes", "parts", "parts_done", "bytes_left"), 0))
        row["files"] += sum(piece.start == 0 for piece in task.pieces)
        row["bytes"] += task.bytes
        row["parts"] += 1
        row["parts_done"] += task.key in read
        row["bytes_left"] += 0 if task.key in read else task.bytes
    return {"output": output, "generation": generation, "sources": sources}


def plan_lines(summary: dict[str, Any]) -> list[str]:
    """The summary as a table for a terminal."""
    rows = [("source", "files", "input", "parts", "read already", "left to read")]
    for name, row in sorted(summary["sources"].items()):
        rows.append(
            (
                name,
                f"{row['files']:,}",
                bits(row["bytes"]),
                f"{row['parts']:,}",
                f"{row['parts_done']:,}",
                bits(row["bytes_left"]),
            )
        )
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in rows
    ]
    held = summary["generation"]
    lines.append(f"{summary['output']}: " + (f"holds generation {held}" if held else "no dataset yet"))
    return lines
