import json
import os
from pathlib import Path

import pytest

from pipeline.measure.assets import asset_path
from pipeline.measure.language import LanguageModel
from tests.measure.measuring import CHINESE, RUSSIAN, column, drops, measured

SHARED = Path(__file__).parents[2].parent / "shared/data/langid/langid_shared.jsonl"
ENGLISH = (
    "It was the best of times, it was the worst of times, it was the age of wisdom.\nIt was the age of foolishness."
)


def test_the_best_label_and_its_probability_are_measured():
    rows = [measured(text) for text in (ENGLISH, RUSSIAN, CHINESE)]
    assert [row["language"] for row in rows] == ["en", "ru", "zh"]
    assert all(0.8 < row["language.score"] < 1.01 for row in rows)


def test_low_score():
    assert not drops("language.low_score", ENGLISH)
    assert drops("language.low_score", "0x1f 77 qq zz kw")


def test_a_text_without_a_word_has_no_language_and_scores_zero():
    for text in ("", " \n\t"):
        row = measured(text)
        assert (row["language"], row["language.score"]) == (None, 0.0)


def test_newlines_are_spaces():
    assert measured(ENGLISH)["language.score"] == measured(ENGLISH.replace("\n", " "))["language.score"]


def test_an_unknown_shipped_model_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"builtin:lid\.bin: no such model is shipped; shipped: builtin:lid\.176\.ftz"):
        LanguageModel("builtin:lid.bin")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path):
    (tmp_path / "model.ftz").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"model\.ftz: not a fastText model"):
        LanguageModel(str(tmp_path / "model.ftz"))


def test_labelled_lines_are_recognised():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not here")
    rows = [row for row in map(json.loads, SHARED.open(encoding="utf-8")) if row["in_lid176"]]
    labels, _ = LanguageModel("builtin:lid.176.ftz").predict(column(*(row["text"] for row in rows)))
    right = sum(label == row["lang"] for label, row in zip(labels.to_pylist(), rows, strict=True))
    assert right / len(rows) > 0.9


def test_a_model_is_read_once_a_process_and_again_when_its_file_changes(tmp_path):
    copy = tmp_path / "model.ftz"
    copy.write_bytes(asset_path("builtin:lid.176.ftz").read_bytes())
    first = LanguageModel(str(copy))
    assert LanguageModel(str(copy))._model is first._model
    os.utime(copy, ns=(1, 1))
    assert LanguageModel(str(copy))._model is not first._model
