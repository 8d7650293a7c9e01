import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.measure.measure import Measurer
from pipeline.measure.registry import load_registry
from pipeline.measure.urls import BlockList, host_of
from schemas.recipe import Recipe
from tests.measure.measuring import column


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM/a?b#c", "example.com"),
        ("https://user:word@a.example.com:8080", "a.example.com"),
        ("http://example.com.?x=http://other.test/", "example.com"),
        ("http://[2001:db8::1]:80/", "2001:db8::1"),
        ("http://пример.рф/страница", "пример.рф"),
        ("mailto:a@b.c", ""),
        ("", ""),
    ],
)
def test_host_of(url: str, host: str):
    assert host_of(url) == host


def test_a_domain_blocks_itself_and_every_host_below_it():
    found = BlockList(["bad.test", "worse.example.com"]).blocked(
        [
            *("http://bad.test/", "http://www.Bad.test/x", "http://a.b.bad.test:1/", "http://worse.example.com/"),
            *("http://notbad.test/", "http://bad.test.example/", "http://example.com/bad.test", "bad.test", "", None),
        ]
    )
    assert found.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_an_empty_list_blocks_nothing():
    assert BlockList(()).blocked(["http://a.test/", None]).tolist() == [0, 0]


def test_a_list_is_read_from_a_file_gzipped_or_not(tmp_path: Path):
    content = b"# hosts\nBad.test # why\n\n*.worse.test\n"
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "zipped").write_bytes(gzip.compress(content))
    for name in ("plain", "zipped"):
        found = BlockList.load(str(tmp_path / name)).blocked(
            ["http://bad.test/", "http://a.worse.test/", "http://hosts/"]
        )
        assert found.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a.test\nhttp://b.test/\n", "line 2: 'http://b.test/' is no domain"), (b"\xff\xfe", "not a list of domains")],
)
def test_a_line_that_is_no_domain_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        BlockList.load(str(tmp_path / "list"))


def test_the_signal_is_measured_by_the_recipes_list(tmp_path: Path):
    (tmp_path / "list").write_bytes(b"bad.test")
    recipe = {"sources": {"web": {"root": "."}}, "measure": {"url_block_list": str(tmp_path / "list")}}
    measurer = Measurer(load_registry(Recipe.model_validate(recipe)), ["urls"])
    urls = pa.array(["http://bad.test/", "http://good.test/", None])
    batch = measurer.measure(column("a", "b", "c"), {"url": urls})
    assert batch["url.blocked"].to_pylist() == [1, 0, 0]
