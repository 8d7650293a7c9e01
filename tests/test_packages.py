"""Each package of the pipeline says what it does, and names only files that are there."""

import ast
import re
from pathlib import Path

import pytest

PIPELINE = Path(__file__).resolve().parents[1] / "pipeline"
SHOWN = ("text", "ingest", "ingest/bytes", "ingest/formats", "ingest/extract", "measure", "select", "report", "runtime")


@pytest.mark.parametrize("package", SHOWN)
def test_a_package_says_what_it_does_in_ten_lines_and_imports_nothing(package: str) -> None:
    tree = ast.parse((PIPELINE / package / "__init__.py").read_text(encoding="utf-8"))
    said = ast.get_docstring(tree)
    assert said
    assert len(said.splitlines()) <= 10
    assert len(tree.body) == 1, "a package that imports its modules would load them all"


@pytest.mark.parametrize("package", SHOWN)
def test_the_files_that_a_package_names_are_there(package: str) -> None:
    folder = PIPELINE / package
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    named = re.findall(r"`(\w+)(?:\.\w+)?`", said)
    modules = {file.stem for file in folder.glob("*.py")}
    outside = [name for name in named if name not in modules and name.islower() and name != "decide"]
    assert not outside
    assert len(modules & set(named)) >= len(modules) - 2, "files that no reader is told of"
