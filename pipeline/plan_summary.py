"""How much work a run would be, from what is planned and what is already done, and what to think of before it."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.ingest.receipts import Task
from schemas.recipe import Recipe
from schemas.text_format import bits, plural

__all__ = ["plan_lines", "plan_summary", "plan_warnings"]

SMALL_TASK_BYTES = 8 << 20  # a task below this spends more on its start than on its bytes
MANY_TASKS = 64


def plan_summary(
    output: str, tasks: Sequence[Task], read: set[str], generation: int | None, warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """Files, bytes and tasks a source, and how much of it is already read: `read` are the keys of such tasks.

    `--json` prints it as it is. Its `parts` are tasks: a task that reads much text from few bytes writes several parts.
    """
    sources: dict[str, dict[str, int]] = {}
    for task in tasks:
        row = sources.setdefault(task.source, dict.fromkeys(("files", "bytes", "parts", "parts_done", "bytes_left"), 0))
        row["files"] += sum(piece.start == 0 for piece in task.pieces)
        row["bytes"] += task.bytes
        row["parts"] += 1
        row["parts_done"] += task.key in read
        row["bytes_left"] += 0 if task.key in read else task.bytes
    return {"output": output, "generation": generation, "sources": sources, "warnings": list(warnings)}


def plan_lines(summary: dict[str, Any]) -> list[str]:
    """The summary as a table for a terminal."""
    rows = [("source", "files", "input", "tasks", "read already", "left to read")]
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
    return lines + [f"note: {warning}" for warning in summary["warnings"]]


def plan_warnings(recipe: Recipe, tasks: Sequence[Task], done: set[str], workers: int) -> list[str]:
    """What a run of this plan would do that its user may not expect; nothing here stops it."""
    return [
        *_warn_of_sizes(recipe, [task for task in tasks if task.key not in done], workers),
        *_warn_of_labels(recipe),
    ]


def _warn_of_sizes(recipe: Recipe, left: Sequence[Task], workers: int) -> Iterator[str]:
    size = sum(task.bytes for task in left)
    if 0 < len(left) < workers and size > workers * SMALL_TASK_BYTES:
        fitting = max(1 << 20, size // (2 * workers) >> 20 << 20)
        yield (
            f"{plural(len(left), 'task')} to read for {plural(workers, 'worker')}: {workers - len(left)} will wait. "
            f"Where files can be cut, read.part_bytes={fitting} gives more tasks, and a dataset with other digests"
        )
    if len(left) > MANY_TASKS and size // len(left) < SMALL_TASK_BYTES // 4 > recipe.read.part_bytes // 4:
        yield (
            f"{plural(len(left), 'task')} of {bits(size // len(left))} on average, as read.part_bytes is "
            f"{bits(recipe.read.part_bytes)}: the default of 256 MiB reads a large crawl faster"
        )


def _warn_of_labels(recipe: Recipe) -> Iterator[str]:
    labels = recipe.rules.get("language.not_wanted")
    if isinstance(labels, list):
        yield f"language.not_wanted keeps {', '.join(labels)} and drops every other language"
