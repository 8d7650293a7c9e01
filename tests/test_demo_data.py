"""The small crawl that a new user runs first: its size, its making, its recipe."""

import importlib.util
from pathlib import Path

import pytest

from pipeline.measure.registry import load_registry
from schemas.recipe_file import load_recipe

DATA = Path(__file__).parent / "data"
CRAWL = DATA / "crawl"
LARGER_CRAWL = Path(__file__).parents[2] / "shared" / "data" / "warc" / "crawl"


def test_the_demo_crawl_is_small_and_its_licences_are_named() -> None:
    files = [path for path in CRAWL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    notice = (DATA / "NOTICE").read_text(encoding="utf-8")
    for host in ("handbook.test", "install.test", "apt.test", "faq.test", "httpd.test", "legacy.test"):
        assert host in notice


@pytest.mark.skipif(not LARGER_CRAWL.is_dir(), reason="the larger crawl that the demo is cut from is not here")
def test_the_demo_crawl_is_cut_from_the_larger_one_by_its_script(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("cut_demo", DATA / "cut_demo.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(LARGER_CRAWL, tmp_path)
    assert {str(path.relative_to(CRAWL)): path.read_bytes() for path in sorted(CRAWL.rglob("*.gz"))} == {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in sorted(tmp_path.rglob("*.gz"))
    }


def test_the_recipe_of_the_demo_reads_it_and_asks_for_rules_that_exist() -> None:
    root = DATA.parents[1]
    recipe = load_recipe(str(root / "pipeline" / "recipes" / "quickstart.yaml"))
    assert load_registry(recipe).resolve_rules(recipe.rules)
    for source in recipe.sources.values():
        assert list((root / source.root).glob("*.gz"))
