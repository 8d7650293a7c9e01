"""Imports go one way: a package imports from its own layer of the list and from those above it in the list."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The lowest layer first. Packages of one layer may import one another, but not in both directions.
LAYERS = (
    ("schemas",),
    ("pipeline.kernel_digest", "pipeline.numba_kernels", "pipeline.runtime"),
    ("pipeline.text",),
    ("pipeline.ingest", "pipeline.measure"),
    ("pipeline.select",),
    ("pipeline.job",),  # what the stages hand on: job, plan, measured parts, verdicts
    ("pipeline.pack",),
    ("pipeline.report",),
    ("pipeline",),  # curate, the command line, and what else lies beside the packages
)
# What each side does without: the other side, and the other side's framework.
APART = {
    "schemas": ("pipeline", "trainer", "apache_beam", "torch"),
    "pipeline": ("trainer", "torch"),
    "trainer": ("pipeline", "apache_beam"),
}


def imports_of(source: str) -> Iterator[str]:
    """Yield the dotted names that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports here name the whole path"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_of(package: str) -> Iterator[tuple[str, str]]:
    """Yield the names of a top-level package's modules and what each imports."""
    for file in sorted((ROOT / package).rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for imported in imports_of(file.read_text(encoding="utf-8")):
            yield module, imported


def place(module: str) -> tuple[int, str] | None:
    """Return the number and the name of the layer's entry that a module belongs to: the longest that fits."""
    entries = [(number, entry) for number, layer in enumerate(LAYERS) for entry in layer]
    fitting = [found for found in entries if f"{module}.".startswith(f"{found[1]}.")]
    return max(fitting, key=lambda found: len(found[1]), default=None)


@pytest.mark.parametrize("package", APART)
def test_the_two_sides_stand_apart_and_what_they_share_below_both(package: str) -> None:
    wrong = [(m, name) for m, name in modules_of(package) if name.partition(".")[0] in APART[package]]
    assert not wrong


def test_the_packages_of_the_pipeline_import_one_way() -> None:
    edges = {}
    for module, name in modules_of("pipeline"):
        source, target = place(module), place(name)
        if source and target and source != target:
            edges.setdefault((source, target), f"{module} imports {name}")
    upwards = [line for ((high, _), (low, _)), line in edges.items() if low > high]
    circles = [line for (source, target), line in edges.items() if (target, source) in edges]
    assert not upwards
    assert not circles
