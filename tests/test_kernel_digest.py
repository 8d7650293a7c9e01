"""The digest of compiled code changes with every source that the code is made of, and with no other."""

import sys

import pytest

from pipeline import kernel_digest as module
from pipeline.numba_kernels import kernel_digest

CACHED = (module._digest, module._source, module._source_file, module._top_level)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package of four modules: top -> middle -> helper, by three ways of importing; `other` stands apart."""
    folder = tmp_path / "my_rules_of_test"
    folder.mkdir()
    sources = {
        "__init__": "",
        "top": "from my_rules_of_test import (\n    middle,\n)\n",
        "middle": "from .helper import value\nimport pipeline.text.word_tokenizer\n",
        "helper": "value = 1\n",
        "other": "value = 1\n",
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    _forget()


def _forget():
    for function in CACHED:
        function.cache_clear()


def _digest():
    _forget()
    return kernel_digest(["my_rules_of_test.top"])


@pytest.mark.parametrize(("name", "changes"), [("top", True), ("middle", True), ("helper", True), ("other", False)])
def test_a_digest_follows_its_own_source_and_those_imported(package, name, changes):
    before = _digest()
    with (package / f"{name}.py").open("a") as source:
        source.write("more = 2\n")
    assert (_digest() != before) is changes
    assert "my_rules_of_test" not in sys.modules, "a digest imports nothing"


def test_it_covers_the_helpers_of_pipeline_and_the_assets_they_read(package, tmp_path, monkeypatch):
    copy = tmp_path / "pipeline"
    for name in ("numba_kernels.py", "text/word_tokenizer.py", "text/utf8.py", "assets/characters.npz"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((module.PIPELINE / name).read_bytes())
    monkeypatch.setattr(module, "PIPELINE", copy)
    whole = _digest()
    for name in ("numba_kernels.py", "text/word_tokenizer.py", "text/utf8.py", "assets/characters.npz"):
        original = (copy / name).read_bytes()
        (copy / name).write_bytes(original + b"\n")
        assert _digest() != whole, name
        (copy / name).write_bytes(original)
    assert _digest() == whole


def test_order_and_repeats_of_names_do_not_count():
    names = ["pipeline.measure.gopher", "pipeline.measure.c4"]
    assert kernel_digest(names) == kernel_digest([*reversed(names), *names])
    assert kernel_digest(names) != kernel_digest(names[:1])


def test_a_module_without_a_source_is_one_clear_message():
    with pytest.raises(ValueError, match=r"module no_such_rules\.x has no source file"):
        kernel_digest(["no_such_rules.x"])
